# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] lang="zh"
# # OadTR：动手试
#
# 从上往下运行即可，全程不到半分钟，只需要 PyTorch、NumPy 和 Matplotlib。
# 第一个单元是文章里测试过的代码，原样放在这里；后面的单元拿它来玩。标着 `change me` 的数都可以改，改了再跑一遍。

# %% [markdown] lang="en"
# # OadTR, hands on
#
# Run it from top to bottom; it takes less than half a minute and needs only PyTorch, NumPy and Matplotlib.
# The first cell holds the tested code of the article, unchanged; the others play with it. Every number marked
# `change me` can be changed: change it and run again.

# %%
from snippets.oadtr import (
    GruDetector,
    OadTR,
    StreamingDetector,
    average_precision,
    calibrated_average_precision,
    frame_cost,
    future_targets,
    mean_average_precision,
    mean_per_video_ap,
    oadtr_loss,
    sliding_windows,
    token_similarity,
)

# %% [markdown] lang="zh"
# ## 1. 窗口只看过去
#
# 六帧，每帧一个数。第 t 行是第 t 个窗口：最右边是第 t 帧，开头以前补零。右边的表是将来的标签，结尾以后是 −100。

# %% [markdown] lang="en"
# ## 1. Windows see only the past
#
# Six frames of one number each. Row t is window t: frame t stands at its right end, zeros before the start.
# The second table holds the labels to come; beyond the end they are −100.

# %%
import matplotlib.pyplot as plt
import torch

torch.set_num_threads(1)
frames = torch.arange(1.0, 7.0)[:, None]
print(sliding_windows(frames, length=3)[..., 0])  # change me
print(future_targets(torch.tensor([0, 0, 1, 1, 1, 0]), future=2))

# %% [markdown] lang="zh"
# ## 2. 一个小世界
#
# 四个动作，两两成对：1 与 2 长得一样，3 与 4 也一样。动作之前有一个线索，说出是一对里的哪一个。
# `own` 是每一帧自己透露的类别信号，取 0 时只有线索能区分。

# %% [markdown] lang="en"
# ## 2. A small world
#
# Four actions in pairs: 1 looks like 2, and 3 like 4. A cue before the action tells which of its pair it is.
# `own` is what each frame shows of its class; at 0 only the cue tells.

# %%
CLASSES, FEATURES = 4, 12


def streams(count, length, own, generator):
    features = 0.9 * torch.randn(count, length, FEATURES, generator=generator)
    labels = torch.zeros(count, length, dtype=torch.long)

    def draw(low, high):
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    for n in range(count):
        t = draw(0, 6)
        while t < length:
            action = draw(0, CLASSES - 1)
            start = t + 2 + draw(2, 5)
            end = start + draw(5, 9)
            features[n, t : t + 2, action % 2] += 2.0  # the cue: first or second of its pair
            features[n, start:end, 2 + action // 2] += 2.0  # what the pair looks like
            features[n, start:end, 4 + action] += own  # what the action itself looks like
            labels[n, start:end] = action + 1
            t = end + draw(3, 7)
    return features, labels


own = 0.3  # change me
generator = torch.Generator().manual_seed(0)
features, labels = streams(48, 100, own, generator)
test_features, test_labels = streams(16, 160, own, generator)
print("frames inside an action:", f"{float((test_labels > 0).float().mean()):.0%}")

# %% [markdown] lang="zh"
# ## 3. 训练：有令牌、没有令牌、GRU
#
# 三个模型学同样的流。只训练一个种子，差别不能当真；文章里有多个种子的结果。

# %% [markdown] lang="en"
# ## 3. Train: with a token, without, and a GRU
#
# Three models learn from the same streams. One seed settles nothing; the article has several.

# %%
LENGTH, FUTURE, STEPS = 14, 3, 250  # change me


def train_oadtr(task_token):
    torch.manual_seed(1)
    model = OadTR(FEATURES, CLASSES, 32, 4, 2, 1, LENGTH, FUTURE, task_token)
    windows = sliding_windows(features, LENGTH).flatten(0, 1)
    now, ahead = labels.flatten(), future_targets(labels, FUTURE).flatten(0, 1)

    def loss():
        batch = torch.randint(len(now), (32,))
        return oadtr_loss(*model(windows[batch]), now[batch], ahead[batch])

    return fit(model, loss)


def train_gru():
    torch.manual_seed(1)
    model = GruDetector(FEATURES, CLASSES, 64, FUTURE)
    ahead = future_targets(labels, FUTURE)

    def loss():
        video, start = torch.randint(len(labels), (8,)), int(torch.randint(61, (1,)))
        crop = slice(start, start + 40)
        current, future, _ = model(features[video, crop])
        return oadtr_loss(current, future, labels[video, crop], ahead[video, crop])

    return fit(model, loss)


def fit(model, loss):
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def probabilities(model):
    if isinstance(model, GruDetector):
        return model(test_features)[0].softmax(-1)
    windows = sliding_windows(test_features, LENGTH).flatten(0, 1)
    return model(windows)[0].softmax(-1).unflatten(0, test_labels.shape)


models = {"token": train_oadtr(True), "last frame": train_oadtr(False), "GRU": train_gru()}
found = {name: probabilities(model) for name, model in models.items()}
truth = test_labels.flatten()
for name, scores in found.items():
    flat = scores.flatten(0, 1)
    plain = float(mean_average_precision(flat, truth))
    calibrated = float(mean_average_precision(flat, truth, calibrated=True))
    print(f"{name:11} mAP {plain:.3f}  mcAP {calibrated:.3f}")

# %% [markdown] lang="zh"
# ## 4. 一段流，看着它判断

# %% [markdown] lang="en"
# ## 4. Watch one stream

# %%
video = 0  # change me
fig, panels = plt.subplots(len(found), 1, figsize=(9, 5), sharex=True)
for axes, (name, scores) in zip(panels, found.items(), strict=True):
    axes.imshow(scores[video, :, 1:].T, aspect="auto", vmin=0, vmax=1, cmap="Blues", origin="lower")
    at = (test_labels[video] > 0).nonzero()[:, 0]
    axes.plot(at, test_labels[video, at] - 1, "|", color="tab:orange")
    axes.set_yticks(range(CLASSES), range(1, CLASSES + 1))
    axes.set_ylabel(name)
panels[-1].set_xlabel("frame (orange: truth)")
plt.show()

# %% [markdown] lang="zh"
# ## 5. 分类器看到了什么
#
# 分类器的输入与窗口里每一帧的余弦。没有令牌，最后一点必然是 1。

# %% [markdown] lang="en"
# ## 5. What the classifier sees
#
# The cosine between the classifier's input and each frame of the window. Without a token the last point must
# be 1.

# %%
windows = sliding_windows(test_features, LENGTH)[:, LENGTH:].flatten(0, 1)
plt.figure(figsize=(7, 3))
with torch.no_grad():
    for name in ("token", "last frame"):
        model = models[name]
        summary, rows = model.encoder(model.project(windows))
        plt.plot(range(1 - LENGTH, 1), token_similarity(summary, rows).mean(0), "o-", label=name)
plt.xlabel("frame of the window (0 is now)")
plt.ylabel("cosine")
plt.legend()
plt.show()

# %% [markdown] lang="zh"
# ## 6. 做成流
#
# 一帧一帧地喂，结果与整批计算一样；再把后半段换成噪声，前半段说过的话一句不变。

# %% [markdown] lang="en"
# ## 6. Run it as a stream
#
# Fed frame by frame, it says what the batch says. Then replace the second half by noise: nothing that was
# said in the first half changes.

# %%
stream = StreamingDetector(models["token"])
steps = torch.cat([stream.step(frame[None])[0] for frame in test_features[video]])
print(f"largest difference {(steps.softmax(-1) - found['token'][video]).abs().max():.1e}")

changed = test_features[video].clone()
changed[80:] = torch.randn(80, FEATURES, generator=generator)
stream.reset()
again = torch.cat([stream.step(frame[None])[0] for frame in changed])
moved = ((again - steps).abs().amax(-1) > 1e-5).nonzero()[:, 0]
print("first frame whose answer moved:", int(moved[0]))

# %% [markdown] lang="zh"
# 忘了在两段视频之间调用 `reset()` 会怎样？头几帧的答案来自上一段视频。

# %% [markdown] lang="en"
# And without `reset()` between videos? The first frames are judged by the video before.

# %%
late = torch.cat([stream.step(frame[None])[0] for frame in test_features[video]])
print("frames judged wrongly:", int(((late - steps).abs().amax(-1) > 1e-5).sum()), "of", len(late))

# %% [markdown] lang="zh"
# ## 7. 哪一种平均精度
#
# 同一组得分，换个算法就是另一个数。随机打分时，AP 约为正例的比例，校准 AP 约为二分之一。

# %% [markdown] lang="en"
# ## 7. Which average precision
#
# The same scores, computed another way, give another number. For random scores AP is about the share of
# positives, and calibrated AP about one half.

# %%
flat = found["token"].flatten(0, 1)
print(f"per-frame mAP         {float(mean_average_precision(flat, truth)):.3f}")
print(f"background counted    {float(mean_average_precision(flat, truth, background=None)):.3f}")
print(f"mean over videos      {float(mean_per_video_ap(list(found['token']), list(test_labels))):.3f}")
print(f"calibrated (mcAP)     {float(mean_average_precision(flat, truth, calibrated=True)):.3f}")
share = 0.02  # change me
positive = torch.rand(20000, generator=generator) < share
scores = torch.rand(20000, generator=generator)
print(
    f"random scores: AP {float(average_precision(scores, positive)):.3f},",
    f"calibrated {float(calibrated_average_precision(scores, positive)):.3f}",
)

# %% [markdown] lang="zh"
# ## 8. 一帧的价钱
#
# 缓存投影省下多少，要看特征有多宽、模型有多窄。

# %% [markdown] lang="en"
# ## 8. The price of a frame
#
# What caching the projections saves depends on how wide the features and how narrow the model are.

# %%
for width in (32, 128, 512, 1024):  # change me
    kept, anew = (frame_cost(2048, width, 3, 5, 64, 8, cached) for cached in (True, False))
    print(f"width {width:5}  stream {kept:13,}  anew {anew:13,}  saved {1 - kept / anew:.0%}")

# %% [markdown] lang="zh"
# ## 9. 弄坏它
#
# 好的错误信息会说出哪里不对。

# %% [markdown] lang="en"
# ## 9. Break it
#
# A good error says what is wrong.

# %%
attempts = {
    "window too short": lambda: models["token"](torch.zeros(1, LENGTH - 1, FEATURES)),
    "no window": lambda: sliding_windows(frames, 0),
    "heads": lambda: OadTR(FEATURES, CLASSES, 30, 4, 1, 1, LENGTH, FUTURE),
    "training mode": lambda: StreamingDetector(OadTR(FEATURES, CLASSES, 32, 4, 1, 1, LENGTH, FUTURE)),
    "NaN score": lambda: average_precision(torch.tensor([float("nan")]), torch.tensor([True])),
}
for name, attempt in attempts.items():
    try:
        attempt()
        print(f"{name}: no error?")
    except ValueError as error:
        print(f"{name}: {error}")

# %% [markdown] lang="zh"
# 接下来可以做的：把第 2 节的 `own` 改成 0 和 1，看 OadTR 与 GRU 谁领先；
# 把第 3 节的窗口缩到 6 帧，让线索常常落在窗外。

# %% [markdown] lang="en"
# Where to go from here: set `own` in section 2 to 0 and to 1, and see whether OadTR or the GRU leads; cut the
# window of section 3 to 6 frames, so that the cue is often out of sight.
