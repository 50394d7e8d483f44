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
# # 语义分割指标：动手试
#
# 从上往下运行即可，全程不到十秒，只需要 PyTorch、NumPy 和 Matplotlib。
# 第一个单元是文章里测试过的代码，原样放在这里；后面的单元拿它来玩。每一节都有一个可以改的数，改了再跑一遍。

# %% [markdown] lang="en"
# # Segmentation metrics, hands on
#
# Run it from top to bottom; it takes less than ten seconds and needs only PyTorch, NumPy and Matplotlib.
# The first cell holds the tested code of the article, unchanged; the others play with it. Each section has
# something to change: change it and run again.

# %%
from snippets.segmentation_metrics import (
    SegmentationMeter,
    boundary_iou,
    class_accuracy,
    confusion_matrix,
    dice_per_class,
    frequency_weighted_iou,
    iou_per_class,
    mean_iou,
    mean_pixel_accuracy,
    pixel_accuracy,
    precision_per_class,
    soft_dice_loss,
)

# %% [markdown] lang="zh"
# ## 1. 一张表，所有指标
#
# 两个小小的标签图，只有九个像素。先自己在纸上填表，再看结果：行是真值，列是预测。

# %% [markdown] lang="en"
# ## 1. One table, all metrics
#
# Two small label maps of nine pixels. Fill in the table on paper first: rows are truth, columns are
# prediction.

# %%
import matplotlib.pyplot as plt
import torch

target = torch.tensor([[0, 0, 1], [0, 1, 1], [2, 2, 1]])
prediction = torch.tensor([[0, 1, 1], [0, 1, 1], [2, 0, 1]])  # change me


def report(cm):
    rows = [f"{name:24} {values.tolist()}" for name, values in per_class(cm).items()]
    rows += [f"{name:24} {float(value):.4f}" for name, value in overall(cm).items()]
    print("\n".join(rows))


def per_class(cm):
    return {
        "recall": class_accuracy(cm),
        "precision": precision_per_class(cm),
        "IoU": iou_per_class(cm),
        "Dice": dice_per_class(cm),
    }


def overall(cm):
    return {
        "pixel accuracy": pixel_accuracy(cm),
        "mean pixel accuracy": mean_pixel_accuracy(cm),
        "mIoU": mean_iou(cm),
        "frequency weighted IoU": frequency_weighted_iou(cm),
    }


cm = confusion_matrix(target, prediction, 3)
print(cm)
report(cm)

# %% [markdown] lang="zh"
# Dice 与 IoU 逐类一一对应：Dice = 2 IoU / (1 + IoU)。

# %% [markdown] lang="en"
# Class by class, Dice and IoU say the same: Dice = 2 IoU / (1 + IoU).

# %%
iou = iou_per_class(cm)
print(torch.allclose(dice_per_class(cm), 2 * iou / (1 + iou)))

# %% [markdown] lang="zh"
# ## 2. 目标越来越小
#
# 预测处处是背景。前景越小，像素准确率越接近 1，而前景的 IoU 一直是 0。

# %% [markdown] lang="en"
# ## 2. A shrinking object
#
# Predict background everywhere. The smaller the object, the closer pixel accuracy comes to 1, while the
# IoU of the object stays 0.

# %%
side = 200
print("share    PA      mIoU    FWIoU   object IoU")
for width in (140, 64, 20, 6):  # change me
    truth = torch.zeros(side, side, dtype=torch.long)
    truth[:width, :width] = 1
    cm = confusion_matrix(truth, torch.zeros_like(truth), 2)
    share = width * width / side**2
    scores = [pixel_accuracy(cm), mean_iou(cm), frequency_weighted_iou(cm), iou_per_class(cm)[1]]
    print(f"{share:6.2%} ", "  ".join(f"{float(score):.4f}" for score in scores))

# %% [markdown] lang="zh"
# ## 3. 偏一个像素
#
# 同样偏一个像素，正方形越小，IoU 掉得越多；算出来的点落在公式 (s − d) / (s + d) 的曲线上。

# %% [markdown] lang="en"
# ## 3. One pixel off
#
# The same shift costs a small square more IoU than a large one; the points lie on the curve
# (s − d) / (s + d).

# %%
shift = 1  # change me
sizes = list(range(2, 61, 2))
measured = []
for size in sizes:
    truth = torch.zeros(80, 80, dtype=torch.long)
    truth[10 : 10 + size, 5 : 5 + size] = 1
    cm = confusion_matrix(truth, truth.roll(shift, dims=1), 2)
    measured.append(float(iou_per_class(cm)[1]))
plt.figure(figsize=(6, 3))
plt.plot(sizes, measured, "o", label="counted")
plt.plot(sizes, [(s - shift) / (s + shift) for s in sizes], label="formula")
plt.xlabel("side of the square")
plt.ylabel("IoU")
plt.legend()
plt.show()

# %% [markdown] lang="zh"
# ## 4. 缺席的类
#
# 这里有五类，第 3 类既没有真值也没有预测，第 4 类没有真值却预测了一个像素。
# 前者是 NaN，不进平均；后者是 0，要进平均。把 NaN 换成 0，mIoU 就变了。

# %% [markdown] lang="en"
# ## 4. Absent classes
#
# There are five classes. Class 3 is in neither map; class 4 is predicted once and never true. The first is
# NaN and stays out of the mean, the second is 0 and counts. Put 0 for NaN, and mIoU changes.

# %%
stray = prediction.clone()
stray[0, 0] = 4
cm = confusion_matrix(target, stray, 5)
iou = iou_per_class(cm)
print("IoU", iou.tolist())
print(f"mIoU {float(mean_iou(cm)):.4f}, with zeros put in {float(iou.nan_to_num(0).mean()):.4f}")

# %% [markdown] lang="zh"
# ## 5. 先累加，再相除
#
# 十张图，有的几乎没有前景。逐图求 mIoU 再平均，与整个数据集只除一次，是两个不同的数。

# %% [markdown] lang="en"
# ## 5. Add up first, divide afterwards
#
# Ten images, some with hardly any foreground. The mean of the images' mIoU and the one division for the
# whole set are two different numbers.

# %%
generator = torch.Generator().manual_seed(0)
meter = SegmentationMeter(2)
per_image = []
for width in (2, 2, 3, 4, 6, 10, 16, 24, 32, 40):  # change me
    truth = torch.zeros(64, 64, dtype=torch.long)
    truth[:width, :width] = 1
    wrong = torch.rand(64, 64, generator=generator) < 0.01
    guess = torch.where(wrong, 1 - truth, truth)
    meter.update(truth, guess)
    per_image.append(float(mean_iou(confusion_matrix(truth, guess, 2))))
print(f"mean over images {sum(per_image) / len(per_image):.4f}")
print(f"whole set        {float(meter.compute()['mean_iou']):.4f}")

# %% [markdown] lang="zh"
# ## 6. 合并两台机器的结果
#
# 计数可以相加，所以两半各自统计再合并，与一次统计全部结果相同。

# %% [markdown] lang="en"
# ## 6. Merge two machines
#
# Counts add up, so two halves counted apart and merged equal one count of everything.

# %%
truths = torch.randint(0, 3, (8, 32, 32), generator=generator)
guesses = torch.where(torch.rand(8, 32, 32, generator=generator) < 0.7, truths, 0)
first, second, everything = SegmentationMeter(3), SegmentationMeter(3), SegmentationMeter(3)
first.update(truths[:4], guesses[:4])
second.update(truths[4:], guesses[4:])
everything.update(truths, guesses)
first.merge(second)
print(torch.equal(first.compute()["confusion_matrix"], everything.compute()["confusion_matrix"]))
print(
    f"merged {float(first.compute()['mean_iou']):.4f}, at once {float(everything.compute()['mean_iou']):.4f}"
)

# %% [markdown] lang="zh"
# ## 7. 只看边界
#
# 一个大方块，四周各少判一圈。普通的 IoU 很高，边界 IoU 低得多；带宽加大，它又回到普通的 IoU。

# %% [markdown] lang="en"
# ## 7. Only the boundary
#
# A large square, predicted one ring too small. Its IoU is high, its boundary IoU much lower; widen the
# band, and the ordinary IoU returns.

# %%
truth = torch.zeros(100, 100, dtype=torch.bool)
truth[10:90, 10:90] = True
guess = torch.zeros_like(truth)
guess[11:89, 11:89] = True  # change me
print(f"IoU {float((truth & guess).sum() / (truth | guess).sum()):.4f}")
for width in (1, 2, 4, 8, 40):
    print(f"width {width:2}  boundary IoU {float(boundary_iou(truth, guess, width)):.4f}")

# %% [markdown] lang="zh"
# ## 8. 拿 Dice 当损失
#
# 没有网络，直接对 logits 求梯度，看损失下降时 IoU 怎样上升。目标只占一小块，换成小一点的学习率再试。

# %% [markdown] lang="en"
# ## 8. Dice as a loss
#
# Without any network, descend on the logits themselves and watch IoU rise as the loss falls. The object is
# small; try a smaller learning rate.

# %%
truth = torch.zeros(1, 32, 32, dtype=torch.long)
truth[0, 10:14, 10:14] = 1
logits = torch.randn(1, 2, 32, 32, generator=generator).requires_grad_()
optimizer = torch.optim.SGD([logits], lr=1000.0)  # change me
for step in range(61):
    loss = soft_dice_loss(logits, truth)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        iou = iou_per_class(confusion_matrix(truth, logits.argmax(1), 2))[1]
        print(f"step {step:2}  loss {float(loss.detach()):.3f}  IoU of the object {float(iou):.3f}")

# %% [markdown] lang="zh"
# ## 9. 弄坏它
#
# 越界的标签应当报错，而不是悄悄落进别的格子；全部忽略时应当得到 NaN，而不是 0。

# %% [markdown] lang="en"
# ## 9. Break it
#
# A label out of range should be an error, not a count in some other cell; with every pixel ignored the
# score should be NaN, not 0.

# %%
attempts = {
    "prediction out of range": lambda: confusion_matrix(torch.tensor([0, 1]), torch.tensor([0, 3]), 3),
    "target out of range": lambda: confusion_matrix(torch.tensor([0, 255]), torch.tensor([0, 1]), 3),
    "different shapes": lambda: confusion_matrix(torch.zeros(4).long(), torch.zeros(5).long(), 3),
}
for name, attempt in attempts.items():
    try:
        attempt()
        print(f"{name}: no error?")
    except ValueError as error:
        print(f"{name}: {error}")

nothing = confusion_matrix(torch.full((4,), 255), torch.zeros(4).long(), 3, ignore_index=255)
print("all ignored:", float(mean_iou(nothing)))

# %% [markdown] lang="zh"
# 接下来可以做的：给第 1 节构造两个预测，让平均 Dice 与平均 IoU 排出相反的名次。

# %% [markdown] lang="en"
# Where to go from here: for section 1, construct two predictions that mean Dice and mean IoU rank in
# opposite order.
