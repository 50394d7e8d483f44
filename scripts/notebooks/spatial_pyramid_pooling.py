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
# # 空间金字塔池化：动手试
#
# 从上往下运行即可，全程不到半分钟，只需要 PyTorch 和 Matplotlib。
# 第一个单元是文章里测试过的代码，原样放在这里；后面的单元拿它来玩。标着「改我」的数，改了再跑一遍。

# %% [markdown] lang="en"
# # Spatial pyramid pooling, hands on
#
# Run it from top to bottom; it takes less than half a minute and needs only PyTorch and Matplotlib.
# The first cell holds the tested code of the article, unchanged; the others play with it. Where it says
# "change me", change it and run again.

# %%
from snippets.spatial_pyramid_pooling import (
    SPPF,
    SpatialPyramidPooling,
    SPPBlock,
    adaptive_max_pool,
    bin_edges,
    chained_kernel,
    miscounted_sizes,
    paper_window,
    pool_comparisons,
    pyramid_length,
    roi_spp,
    separable_max_pool,
    window_to_cells,
)

# %% [markdown] lang="zh"
# ## 1. 分块
#
# 每块从哪一格到哪一格（不含右端）？除不尽时，相邻的块共用一格。

# %% [markdown] lang="en"
# ## 1. Bins
#
# From which cell to which does each bin run (right end exclusive)? If the division leaves a remainder,
# neighbors share a cell.

# %%
import matplotlib.pyplot as plt
import torch

size, bins = 13, 4  # change me
for start, end in bin_edges(size, bins):
    print(" " * start + "█" * (end - start))

# %% [markdown] lang="zh"
# PyTorch 的自适应池化用的就是这条规则。最大值应当一位不差。

# %% [markdown] lang="en"
# PyTorch's adaptive pooling follows this very rule. The maxima should agree to the last bit.

# %%
x = torch.randn(2, 3, size, size + 4)
torch.equal(adaptive_max_pool(x, bins), torch.nn.functional.adaptive_max_pool2d(x, bins))

# %% [markdown] lang="zh"
# ## 2. 定长，还是同尺寸
#
# 两种层都叫 SPP。把几种尺寸的图喂给它们，看输出的形状。

# %% [markdown] lang="en"
# ## 2. One length, or the same size
#
# Both layers are called SPP. Feed them maps of several sizes and look at the shapes.

# %%
levels = (1, 2, 4)  # change me
fixed, same = SpatialPyramidPooling(levels), SPPBlock(8, 8).eval()
print("expected length", pyramid_length(8, levels))
for height, width in [(13, 13), (9, 16), (4, 30)]:
    x = torch.randn(1, 8, height, width)
    print((height, width), "SPP-net", tuple(fixed(x).shape), " YOLO", tuple(same(x).shape))

# %% [markdown] lang="zh"
# ## 3. 对不上的窗口
#
# 论文 2.3 节的窗口什么时候得不到想要的块数？公式列出的尺寸，与逐个去数的结果比一比。

# %% [markdown] lang="en"
# ## 3. The window that does not fit
#
# When does the window of the paper's section 2.3 miss the wanted number of bins? Compare the sizes that
# the formula lists with those found by counting.

# %%
bins = 6  # change me
counted = []
for size in range(bins, 100):
    kernel, stride = paper_window(size, bins)
    if (size - kernel) // stride + 1 != bins:
        counted.append(size)
print("formula", miscounted_sizes(bins))
print("counted", counted)

# %% [markdown] lang="zh"
# 数目对的时候，末尾也可能没读到。画出每种尺寸漏掉的比例。

# %% [markdown] lang="en"
# Even if the count is right, the end may stay unread. Plot the share that is missed at each size.

# %%
sizes, missed = [], []
for size in range(bins, 100):
    kernel, stride = paper_window(size, bins)
    if size not in counted:
        sizes.append(size)
        missed.append(1 - (((bins - 1) * stride + kernel) / size) ** 2)
plt.figure(figsize=(6, 2.6))
plt.bar(sizes, missed)
plt.xlabel("side of the map")
plt.ylabel("share unread")
plt.show()

# %% [markdown] lang="zh"
# ## 4. SPPF 等于 SPP
#
# 共享权重，比较输出。再换成 7 × 7，想一想并联的窗口应当是多少。

# %% [markdown] lang="en"
# ## 4. SPPF equals SPP
#
# Share the weights and compare. Then take 7 × 7, and work out which parallel windows it stands for.

# %%
kernel = 5  # change me
wide = [chained_kernel([kernel] * times) for times in (1, 2, 3)]
block, fast = SPPBlock(16, 8, wide).eval(), SPPF(16, 8, kernel).eval()
fast.load_state_dict(block.state_dict())
x = torch.randn(1, 16, 20, 20)
print(wide, "equal:", torch.equal(block(x), fast(x)))

# %% [markdown] lang="zh"
# 比较次数：并联、串联、行列分开（窗口逐步加倍，每条轴 ⌈log₂ k⌉ 次，不扣边界）。最后一种与方形窗口也一位不差。

# %% [markdown] lang="en"
# Comparisons: parallel, in a chain, and by rows and columns in windows that double (⌈log₂ k⌉ an axis, the
# border counted in full). The last is equal to the square window, too.

# %%
print("parallel ", sum(pool_comparisons(20, 20, k) for k in wide))
print("chain    ", 3 * pool_comparisons(20, 20, kernel))
print("separable", 3 * 2 * 20**2 * (kernel - 1).bit_length())
square = torch.nn.functional.max_pool2d(x, kernel, 1, kernel // 2)
print("equal:", torch.equal(separable_max_pool(x, kernel), square))

# %% [markdown] lang="zh"
# ## 5. 一次前向，许多窗口
#
# 卷积跑一遍，三个窗口各得一个同样长的向量。窗口以像素给出，先换成特征图上的格。

# %% [markdown] lang="en"
# ## 5. One pass, many windows
#
# The convolutions run once; three windows each get a vector of the same length. Windows are given in
# pixels and turned into cells of the map first.

# %%
backbone = torch.nn.Sequential(
    torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3, 2, 1), torch.nn.ReLU()
)
feature_map = backbone(torch.rand(1, 3, 96, 128))
windows = [(4, 4, 60, 40), (20, 30, 124, 92), (61, 61, 63, 90)]  # change me
cells = [window_to_cells(window, stride=4) for window in windows]
print(tuple(feature_map.shape), cells)
print(tuple(roi_spp(feature_map, cells).shape))

# %% [markdown] lang="zh"
# ## 6. 收得下，不等于做得好
#
# 用 32×32 的图训练一个小分类器：亮条是横还是竖，在左半边还是右半边。然后在别的尺寸上测试。
# 试着只留一个层级 `(1,)`：位置就很难答对了。

# %% [markdown] lang="en"
# ## 6. Accepting is not mastering
#
# Train a small classifier on 32×32 images: is the bright bar horizontal or vertical, in the left half or
# in the right one? Then test it at other sizes. Try a single level, `(1,)`: the position becomes hard.


# %%
def bars(count, size, generator):
    upright = torch.randint(0, 2, (count,), generator=generator)
    right = torch.randint(0, 2, (count,), generator=generator)
    long, thin = size // 4, max(size // 16, 1)
    image = torch.randn(count, 1, size, size, generator=generator) * 0.4
    for number in range(count):
        height, width = (long, thin) if upright[number] else (thin, long)
        top = int(torch.randint(0, size - height, (), generator=generator))
        left = int(torch.randint(0, size // 2 - width, (), generator=generator))
        left += int(right[number]) * size // 2
        image[number, 0, top : top + height, left : left + width] += 1
    return image, 2 * upright + right


levels = (1, 2, 4)  # change me
torch.manual_seed(0)
net = torch.nn.Sequential(
    torch.nn.Conv2d(1, 8, 3, 2, 1),
    torch.nn.ReLU(),
    torch.nn.Conv2d(8, 16, 3, 2, 1),
    torch.nn.ReLU(),
    SpatialPyramidPooling(levels),
    torch.nn.Linear(pyramid_length(16, levels), 4),
)
optimizer = torch.optim.Adam(net.parameters(), 1e-2)
generator = torch.Generator().manual_seed(0)
for _ in range(100):
    images, labels = bars(64, 32, generator)
    loss = torch.nn.functional.cross_entropy(net(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
for size in (16, 24, 32, 48, 64):
    images, labels = bars(400, size, generator)
    print(size, f"{(net(images).argmax(1) == labels).float().mean():.3f}")
