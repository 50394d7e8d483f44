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
# # 空洞卷积：动手试
#
# 从上往下运行即可，全程不到十秒，只需要 PyTorch、NumPy 和 Matplotlib。
# 第一个单元是文章里测试过的代码，原样放在这里；后面的单元拿它来玩。每一节都有一个可以改的数，改了再跑一遍。

# %% [markdown] lang="en"
# # Dilated convolution, hands on
#
# Run it from top to bottom; it takes less than ten seconds and needs only PyTorch, NumPy and Matplotlib.
# The first cell holds the tested code of the article, unchanged; the others play with it. Each section has
# a number to change: change it and run again.

# %%
from snippets.dilated_convolution import (
    CausalConv1d,
    best_rates,
    contribution_map,
    coverage,
    dilate_kernel,
    dilated_conv2d,
    effective_kernel_size,
    has_gridding,
    is_gap_free,
    live_taps,
    output_size,
    receptive_field,
    same_padding,
    satisfies_hdc,
)

# %% [markdown] lang="zh"
# ## 1. 看看抽头
#
# 往卷积核里填零，就能看到抽头落在哪里。空洞率是步长，所以空洞率为 3 时，每个空隙里有两个零，而不是三个。

# %% [markdown] lang="en"
# ## 1. See the taps
#
# Put zeros into a kernel and you see where its taps land. The rate is a step: at rate 3 each gap holds two
# zeros, not three.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F

rates = (1, 2, 3)  # change me
kernel = torch.arange(1.0, 10.0).reshape(3, 3)
fig, panels = plt.subplots(1, len(rates), figsize=(8, 2.8))
for axes, rate in zip(panels, rates, strict=True):
    axes.imshow(dilate_kernel(kernel, rate) > 0, cmap="Blues", vmax=1.5)
    axes.set_title(f"rate {rate}, span {effective_kernel_size(3, rate)}")
    axes.set_xticks([])
    axes.set_yticks([])
plt.show()

# %% [markdown] lang="zh"
# ## 2. 三种算法，一个结果
#
# 我们的实现、填零后的普通卷积、PyTorch 自己的空洞卷积，三者应当一致。

# %% [markdown] lang="en"
# ## 2. Three ways, one result
#
# Our implementation, an ordinary convolution with zeros put in, and PyTorch's own dilated convolution
# should agree.

# %%
torch.manual_seed(0)
x = torch.randn(2, 4, 20, 24)
weight = torch.randn(6, 4, 3, 3)
rate = 3
ours = dilated_conv2d(x, weight, padding=same_padding(3, rate), dilation=rate)
zeros_in = F.conv2d(x, dilate_kernel(weight, rate), padding=same_padding(3, rate))
theirs = F.conv2d(x, weight, padding="same", dilation=rate)
print("shape", tuple(ours.shape), "expected height", output_size(20, 3, padding=3, dilation=rate))
print(
    f"largest difference: to torch {(ours - theirs).abs().max():.1e}, to zeros put in {(ours - zeros_in).abs().max():.1e}"
)

# %% [markdown] lang="zh"
# ## 3. 感受野
#
# 每一层写成（核大小，步幅，空洞率）。第三行与第二行只差步幅，感受野却差了一大截。

# %% [markdown] lang="en"
# ## 3. Receptive fields
#
# Each layer is (kernel size, stride, dilation). The third line differs from the second in its strides only,
# and yet the field is quite another.

# %%
stacks = {
    "three plain layers": [(3, 1, 1)] * 3,
    "rates 1, 2, 4": [(3, 1, 1), (3, 1, 2), (3, 1, 4)],
    "rates 1, 2, 4, strides 2": [(3, 2, 1), (3, 2, 2), (3, 1, 4)],
    "ten causal layers": [(2, 1, 2**i) for i in range(10)],
}
for name, layers in stacks.items():
    print(f"{name:26} {receptive_field(layers):5d}")

# %% [markdown] lang="zh"
# ## 4. 数一数路径
#
# 颜色表示从每个像素到同一个输出有多少条路径，空白处一条也没有。试试别的空洞率，比如 (1, 1, 4) 或 (2, 3, 1)。

# %% [markdown] lang="en"
# ## 4. Count the paths
#
# The color tells how many paths lead from each pixel to one output; white has none. Try other rates, (1, 1,
# 4) or (2, 3, 1) for instance.

# %%
choices = [(2, 2, 2), (1, 2, 3), (1, 2, 9), (1, 3, 9)]  # change me
fig, panels = plt.subplots(1, len(choices), figsize=(11, 3.2))
for axes, rates in zip(panels, choices, strict=True):
    paths = contribution_map(3, rates).numpy()
    axes.imshow(np.ma.masked_equal(paths, 0), cmap="viridis", vmin=1, vmax=9)
    axes.set_title(f"{rates}\nfield {len(paths)}, {coverage(3, rates):.0%} seen")
    axes.set_xticks([])
    axes.set_yticks([])
plt.show()

# %% [markdown] lang="zh"
# 数路径的函数说的是真话吗？让 PyTorch 来作证：权重全取 1，输出对输入的梯度就是路径数。

# %% [markdown] lang="en"
# Does the counting tell the truth? Let PyTorch be the witness: with all weights 1, the gradient of the
# output is the number of paths.

# %%
rates = (1, 2, 9)
side = receptive_field([(3, 1, rate) for rate in rates])
pixels = torch.zeros(1, 1, side, side, requires_grad=True)
y = pixels
for rate in rates:
    y = F.conv2d(y, torch.ones(1, 1, 3, 3), dilation=rate)
y.sum().backward()
print(
    "output",
    tuple(y.shape),
    "| gradient equals the count:",
    torch.equal(pixels.grad[0, 0].long(), contribution_map(3, rates)),
)

# %% [markdown] lang="zh"
# ## 5. 规则与事实
#
# 把论文里的 HDC 规则用到任意组合上，两头都会错：放行有空隙的，拒绝没空隙的。
# 把空洞率从小到大排好，检查每一个都不超过排在它前面的各层合起来的感受野，就一次也不会错。
# 再试试只留下从 1 开始且只增不减的组合，论文的例子就是这样：这时规则也一次都不错。

# %% [markdown] lang="en"
# ## 5. The rule and the truth
#
# Applied to any stack, the published HDC rule errs both ways: it accepts stacks with gaps and rejects stacks
# without. Sort the rates and check that none exceeds the field of those before it, and there is no error at
# all. Then keep only the stacks that start at 1 and never fall, like the examples in the paper: now the rule
# makes no error either.

# %%
from itertools import product

tally = {"accepted with gaps": 0, "rejected without gaps": 0, "criterion wrong": 0}
stacks = list(product(range(1, 8), repeat=3))  # change me
for rates in stacks:
    gaps = has_gridding(3, rates)
    tally["accepted with gaps"] += satisfies_hdc(3, rates) and gaps
    tally["rejected without gaps"] += not satisfies_hdc(3, rates) and not gaps
    tally["criterion wrong"] += is_gap_free(3, rates) == gaps
print(len(stacks), "stacks:", tally)

# %% [markdown] lang="zh"
# ## 6. 找好的空洞率
#
# 不留空隙，感受野最大能到多少？先猜规律，再看结果。

# %% [markdown] lang="en"
# ## 6. Search for good rates
#
# How large can the field get without gaps? Guess the pattern first.

# %%
for depth in (1, 2, 3, 4):
    rates = best_rates(depth, max_rate=30)
    print(depth, "layers:", rates, "field", receptive_field([(3, 1, rate) for rate in rates]))

# %% [markdown] lang="zh"
# ## 7. 去掉步幅，结果不变
#
# 把一层的步幅 2 改成 1，后面的空洞率乘 2，旧输出就是新输出隔一取一。这正是 DeepLab 提高分辨率的办法，权重一个没动。

# %% [markdown] lang="en"
# ## 7. Remove a stride, keep the result
#
# Set a stride of 2 to 1 and double the dilation behind it: the old output is every second sample of the
# new. This is how DeepLab raises resolution, and no weight has changed.

# %%
torch.manual_seed(1)
image = torch.randn(1, 1, 32, 32)
first, second, third = (torch.randn(1, 1, 3, 3) for _ in range(3))


def network(image, stride, dilation):
    y = F.conv2d(image, first, stride=stride, padding=1).relu()
    y = F.conv2d(y, second, padding=dilation, dilation=dilation).relu()
    return F.conv2d(y, third, padding=dilation, dilation=dilation)


coarse = network(image, stride=2, dilation=1)
dense = network(image, stride=1, dilation=2)
print(
    tuple(coarse.shape),
    tuple(dense.shape),
    f"largest difference {(dense[..., ::2, ::2] - coarse).abs().max():.1e}",
)

# %% [markdown] lang="zh"
# ## 8. 大空洞率遇上小特征图
#
# 空洞率接近图的大小，九个抽头只剩中间一个，3×3 变成 1×1。

# %% [markdown] lang="en"
# ## 8. Large rates meet small maps
#
# Near the size of the map, one of nine taps is left, the middle one: 3×3 becomes 1×1.

# %%
size = 33  # change me
rates = np.arange(1, 2 * size)
plt.figure(figsize=(7, 3))
plt.plot(rates, [live_taps(size, 3, int(rate)) for rate in rates])
plt.axhline(1, color="gray", linestyle=":")
plt.xlabel("rate")
plt.ylabel("mean live taps of 9")
plt.title(f"3x3 kernel on a {size} x {size} map")
plt.show()

# %% [markdown] lang="zh"
# ## 9. 因果层真的不看未来吗
#
# 只改动时刻 10 的输入，看哪些输出变了。

# %% [markdown] lang="en"
# ## 9. Does a causal layer really not see the future?
#
# Change the input at time 10 only, and see which outputs move.

# %%
torch.manual_seed(2)
layers = torch.nn.Sequential(*(CausalConv1d(1, 1, kernel_size=2, dilation=2**i) for i in range(3)))
signal = torch.randn(1, 1, 24)
moved = signal.clone()
moved[0, 0, 10] += 1
with torch.no_grad():
    changed = (layers(moved) != layers(signal))[0, 0].nonzero()[:, 0].tolist()
print("changed outputs:", changed)

# %% [markdown] lang="zh"
# ## 10. 弄坏它
#
# 好的错误信息会说出哪里不对。偶数跨度没有正中；窗口比图大也放不下。

# %% [markdown] lang="en"
# ## 10. Break it
#
# A good error says what is wrong. An even span has no middle, and a window larger than the map does not fit.

# %%
attempts = {
    "even span": lambda: same_padding(4, 1),
    "window too large": lambda: output_size(5, 3, dilation=3),
    "rate zero": lambda: effective_kernel_size(3, 0),
    "wrong channels": lambda: dilated_conv2d(torch.rand(1, 3, 8, 8), torch.rand(2, 4, 3, 3)),
}
for name, attempt in attempts.items():
    try:
        attempt()
        print(f"{name}: no error?")
    except ValueError as error:
        print(f"{name}: {error}")

# %% [markdown] lang="zh"
# 接下来可以做的：在第 5 节把核大小 3 全改成 5，看看规则还错多少；
# 或者把第 7 节的网络加深到两次下采样。

# %% [markdown] lang="en"
# Where to go from here: set every kernel size 3 in section 5 to 5 and see how often the rule still errs; or
# deepen the network of section 7 to two strides.
