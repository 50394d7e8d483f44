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
# # Stable Diffusion：动手试
#
# 从上往下运行即可，半分钟左右，只需要 PyTorch 和 Matplotlib。
# 第一个单元是文章里测试过的代码，原样放在这里；后面的单元拿它来玩。每一节都有一个可以改的数，改了再跑一遍。

# %% [markdown] lang="en"
# # Stable Diffusion, hands on
#
# Run it from top to bottom; it takes about half a minute and needs only PyTorch and Matplotlib.
# The first cell holds the tested code of the article, unchanged; the others play with it. Each section has
# a number to change: change it and run again.

# %%
from snippets.stable_diffusion import (
    TextEncoder,
    UNet,
    add_noise,
    as_noise_model,
    cosine_betas,
    ddim_step,
    diffusion_loss,
    ema_update,
    guided_noise,
    linear_betas,
    sample,
    sampling_timesteps,
    scaled_linear_betas,
    zero_terminal_snr,
)

# %% [markdown] lang="zh"
# ## 1. 噪声表
#
# 信噪比随 t 变小。看每一行最后一个数：只有改造过的那一份真正归零。

# %% [markdown] lang="en"
# ## 1. Schedules of noise
#
# The signal-to-noise ratio falls as t grows. See the last number of each row: only the rescaled schedule
# reaches zero.

# %%
import copy
import itertools

import matplotlib.pyplot as plt
import torch

torch.set_num_threads(1)  # networks this small lose time to a second thread
plt.rcParams["figure.dpi"] = 80
torch.manual_seed(0)
schedules = {
    "linear": linear_betas(1000),
    "scaled linear": scaled_linear_betas(1000),  # change me
    "cosine": cosine_betas(1000),
    "scaled linear, zero at the end": zero_terminal_snr(scaled_linear_betas(1000)),
}
times = [0, 250, 500, 750, 999]
print(f"{'SNR at t =':32}", *(f"{t:>8}" for t in times))
for name, betas in schedules.items():
    alphas_cumprod = (1 - betas.double()).cumprod(0)
    snr = alphas_cumprod / (1 - alphas_cumprod)
    print(f"{name:32}", *(f"{float(snr[t]):8.2g}" for t in times))

# %% [markdown] lang="zh"
# ## 2. 一张图怎样消失
#
# 一次就能跳到任意一步。几步以后就看不出是什么了？

# %% [markdown] lang="en"
# ## 2. A picture fades
#
# One jump leads to any step. From which one on do you no longer see what it was?

# %%
levels = (1 - scaled_linear_betas(1000)).cumprod(0)
line = torch.linspace(-1, 1, 32)
disk = torch.where(line[:, None] ** 2 + line**2 < 0.4, 1.0, -1.0)
noise = torch.randn(32, 32)
shown = [0, 100, 300, 600, 999]  # change me
figure, axes = plt.subplots(1, len(shown), figsize=(6, 1.5))
for axis, t in zip(axes, shown, strict=True):
    axis.imshow(add_noise(disk, noise, t, levels), cmap="gray", vmin=-2, vmax=2, interpolation="nearest")
    axis.set_title(f"t = {t}")
    axis.axis("off")
plt.show()

# %% [markdown] lang="zh"
# ## 3. 不用网络的扩散
#
# 数据是两堆：一半在 −1 附近，一半在 +1 附近。最好的噪声预测可以直接算出来，所以只看得到采样法本身。
# η = 0 时起点决定终点；η = 1 时途中随时会改主意。

# %% [markdown] lang="en"
# ## 3. Diffusion without a network
#
# The data form two clusters, half of them around −1, half around +1. The best prediction of the noise can be
# computed, so that one sees nothing but the sampler. With η = 0 the start decides the end; with η = 1 a
# path may change its mind on the way.


# %%
def exact_noise(x, t, centers=(-1.0, 1.0), spread=0.1):
    a = levels[t]
    variance = a * spread**2 + 1 - a
    away = a.sqrt() * torch.tensor(centers) - x[:, None]
    share = (-(away**2) / (2 * variance)).softmax(1)
    return -(1 - a).sqrt() / variance * (share * away).sum(1)


steps = 25  # change me
times = [*sampling_timesteps(steps).tolist(), -1]
figure, axes = plt.subplots(1, 2, figsize=(5.5, 2.1), sharey=True)
for axis, eta in zip(axes, (0.0, 1.0), strict=True):
    x, generator = torch.linspace(-2, 2, 6), torch.Generator().manual_seed(0)
    path = [x]
    for t, t_prev in itertools.pairwise(times):
        x = ddim_step(x, exact_noise(x, t), t, t_prev, levels, eta, generator)
        path.append(x)
    axis.plot(times, torch.stack(path), linewidth=1)
    axis.invert_xaxis()
    axis.set_title(f"eta = {eta}")
    axis.set_xlabel("t")
plt.show()

# %% [markdown] lang="zh"
# ## 4. 引导把样本推到哪里
#
# 「提示词」说的是 +1 那一堆，宽度为 0.5；没有提示词时，均值为 −1。系数加大，样本的均值就按 −1 + 2s 左右走过头，
# 并不停在 +1。

# %% [markdown] lang="en"
# ## 4. Where guidance pushes
#
# The "prompt" stands for data around +1 of spread 0.5; without it, the mean is −1. As the scale grows, the
# mean of the samples goes to about −1 + 2 s and does not stop at +1.

# %%
for scale in (0.0, 1.0, 2.0, 7.5):  # change me
    x = torch.randn(2000)
    for t, t_prev in itertools.pairwise(times):
        cond, uncond = exact_noise(x, t, (1.0,), 0.5), exact_noise(x, t, (-1.0,), 0.5)
        x = ddim_step(x, guided_noise(cond, uncond, scale), t, t_prev, levels)
    print(f"scale {scale:3}  mean {float(x.mean()):6.2f}  spread {float(x.std()):.2f}")

# %% [markdown] lang="zh"
# ## 5. 训练一个很小的文生图模型
#
# 四句提示词：左、右、上、下，各画一条亮带。图像只有 8 × 8，自编码器就省了，像素直接当潜变量用。
# 网络预测速度：这么小的网络预测噪声，误差在头几步会放大成一片雪花。

# %% [markdown] lang="en"
# ## 5. Train a very small text-to-image model
#
# Four prompts: left, right, top, bottom, each a bright bar. The pictures are 8 × 8, so there is no
# autoencoder; pixels serve as latents. The network predicts velocities: one so small that predicts noise
# makes errors that the first steps blow up into snow.

# %%
prompts = ["left", "right", "top", "bottom"]
tokens = torch.tensor([[1], [2], [3], [4]])  # 0 is the empty prompt


def draw(labels):
    pictures = torch.full((len(labels), 1, 8, 8), -0.58)  # mean 0, variance 1
    for picture, label in zip(pictures, labels.tolist(), strict=True):
        start = int(torch.randint(0, 3, ())) + (4 if label % 2 else 0)
        picture[0, :, start : start + 2] = 1.73
    return torch.where(labels[:, None, None, None] > 1, pictures.transpose(2, 3), pictures)


encoder = TextEncoder(vocab_size=5, dim=16, length=1, layers=1, heads=2)
unet = UNet(channels=1, widths=(16, 16), context_dim=16, heads=2, self_attention=(False, True))
average = copy.deepcopy(unet)
optimizer = torch.optim.Adam([*unet.parameters(), *encoder.parameters()], lr=2e-3)
for step in range(1, 241):  # change me
    labels = torch.randint(4, (16,))
    words, nothing = encoder(tokens[labels]), encoder(torch.zeros(1, 1).long())
    loss = diffusion_loss(unet, draw(labels), words, levels, nothing, prediction="velocity")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    ema_update(average, unet, min(0.97, step / (step + 10)))
    if step % 60 == 0:
        print(f"step {step}  loss {float(loss.detach()):.3f}")

# %% [markdown] lang="zh"
# 每行一句提示词，每幅图一个系数。系数为 0 时不看提示词。系数再大，画面会更好还是更差？

# %% [markdown] lang="en"
# A row for each prompt, a panel for each scale. At 0 the prompt is ignored. Do larger scales make the
# pictures better, or worse?

# %%
scales = (0.0, 1.0, 3.0, 7.5)  # change me
with torch.no_grad():
    words, nothing = encoder(tokens.repeat_interleave(4, 0)), encoder(torch.zeros(1, 1).long())
figure, axes = plt.subplots(1, len(scales), figsize=(6.5, 2.1))
for axis, scale in zip(axes, scales, strict=True):
    generator = torch.Generator().manual_seed(1)
    x = sample(as_noise_model(average, levels), words, nothing, (1, 8, 8), levels, scale, 12, generator=generator)
    tiles = torch.nn.functional.pad(x, (1, 1, 1, 1)).reshape(4, 4, 10, 10).transpose(1, 2).reshape(40, 40)
    axis.imshow(tiles, cmap="gray", vmin=-1.5, vmax=2.5, interpolation="nearest")
    axis.set_title(f"scale {scale}")
    axis.set_yticks(range(5, 40, 10), prompts if scale == scales[0] else [""] * 4)
    axis.set_xticks([])
plt.show()

# %% [markdown] lang="zh"
# ## 6. 弄坏它
#
# 越界的步数应当报错，而不是悄悄取到别的一步；形状不合的空提示词也一样。

# %% [markdown] lang="en"
# ## 6. Break it
#
# A step out of range should be an error, not another step; so should an empty prompt of another shape.

# %%
attempts = {
    "step 1000": lambda: add_noise(disk[None], noise[None], torch.tensor([1000]), levels),
    "step -2": lambda: add_noise(disk, noise, -2, levels),
    "51 of 50 steps": lambda: sampling_timesteps(51, 50),
    "another empty prompt": lambda: sample(unet, words, nothing[:, :, :8], (1, 8, 8), levels),
}
for name, attempt in attempts.items():
    try:
        attempt()
        print(f"{name}: no error?")
    except ValueError as error:
        print(f"{name}: {error}")

# %% [markdown] lang="zh"
# 接下来可以做的：把第 5 节的速度换回噪声（去掉 `prediction="velocity"` 和 `as_noise_model`），看看那片雪花；
# 再减少步数，看速度最少几步还够用。

# %% [markdown] lang="en"
# Where to go from here: in section 5, go back from velocities to noise (drop `prediction="velocity"` and
# `as_noise_model`) and see the snow; then lower the number of steps and find how few velocities need.
