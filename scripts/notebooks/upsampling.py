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
# # 上采样：动手试
#
# 从上往下运行即可，全程不到十秒，只需要 PyTorch、NumPy 和 Matplotlib。
# 第一个单元是文章里测试过的代码，原样放在这里；后面的单元拿它来玩。每一节都有一个可以改的数，改了再跑一遍。

# %% [markdown] lang="en"
# # Upsampling, hands on
#
# Run it from top to bottom; it takes less than ten seconds and needs only PyTorch, NumPy and Matplotlib.
# The first cell holds the tested code of the article, unchanged; the others play with it. Each section has
# something to change: change it and run again.

# %%
from snippets.upsampling import (
    ResizeConv,
    SubPixelConv,
    bilinear_kernel,
    checkerboard_peak,
    conv_matrix,
    depth_to_space_order,
    max_unpool2d,
    output_padding_for,
    overlap_map,
    pixel_shuffle,
    pixel_unshuffle,
    resize_conv_weight,
    source_coordinates,
    transposed_conv2d,
    upsample_bicubic,
    upsample_bilinear,
    upsample_nearest,
)

# %% [markdown] lang="zh"
# ## 1. 像素在哪里
#
# 同样从 4 个样本放大到 8 个，两种规则读的位置不同。把 8 改成 7 或 9，看首尾的位置怎么变。

# %% [markdown] lang="en"
# ## 1. Where is a pixel?
#
# Four samples become eight, and the two rules read at different places. Change 8 to 7 or 9 and watch the
# first and the last position.

# %%
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn

outputs = 8  # change me
for corners in (False, True):
    places = source_coordinates(4, outputs, align_corners=corners)
    print(f"align_corners={corners!s:5}", [round(float(place), 2) for place in places])

# %% [markdown] lang="zh"
# ## 2. 一个台阶的四种放大
#
# 台阶从 0 跳到 1。谁留下方块，谁抹平，谁冲过头？把 a 改成 −0.5，冲过头的幅度变小。

# %% [markdown] lang="en"
# ## 2. One step, four enlargements
#
# A step from 0 to 1. Who leaves blocks, who smooths, who overshoots? Set a to −0.5, and the overshoot shrinks.

# %%
a = -0.75  # change me
step = torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]])
size = (1, 64)
lines = {
    "nearest": upsample_nearest(step, size=size),
    "bilinear": upsample_bilinear(step, size),
    "bilinear, corners": upsample_bilinear(step, size, align_corners=True),
    "bicubic": upsample_bicubic(step, size, a=a),
}
plt.figure(figsize=(6, 3))
for name, line in lines.items():
    plt.plot(line[0], label=name)
plt.legend()
plt.show()
print(f"bicubic goes from {float(lines['bicubic'].min()):.3f} to {float(lines['bicubic'].max()):.3f}")

# %% [markdown] lang="zh"
# ## 3. 两种最近邻
#
# 缩小标签图时差别最大：5 个像素变 3 个，一种取 0、1、3，另一种取 0、2、4。

# %% [markdown] lang="en"
# ## 3. Two kinds of nearest
#
# The difference is largest when labels shrink: from 5 to 3, one takes pixels 0, 1, 3, the other 0, 2, 4.

# %%
n, m = 5, 3  # change me
labels = torch.arange(n)[None]
print("nearest      ", upsample_nearest(labels, size=(1, m))[0].tolist())
print("nearest-exact", upsample_nearest(labels, size=(1, m), exact=True)[0].tolist())

# %% [markdown] lang="zh"
# ## 4. 盖章
#
# 转置卷积：每个输入像素盖一个章，章与章相隔一个步幅，重叠处相加。先猜大小，再看结果。

# %% [markdown] lang="en"
# ## 4. Stamps
#
# Transposed convolution: every input pixel stamps the kernel, a stride apart, and overlaps add up. Guess
# the size first.

# %%
x = torch.tensor([[1.0, 10.0], [100.0, 1000.0]])[None, None]
stamp = torch.ones(1, 1, 3, 3)
stride, padding, output_padding = 2, 0, 0  # change me
print(transposed_conv2d(x, stamp, None, stride, padding, output_padding)[0, 0].int())

# %% [markdown] lang="zh"
# ## 5. 转置就是转置
#
# 用同一组权重建出卷积的矩阵。它的转置就是转置卷积，但不是逆：来回一趟，回不到原来的图像。

# %% [markdown] lang="en"
# ## 5. Transposed means transposed
#
# Build the matrix of a convolution. Its transpose is the transposed convolution; it is not the inverse, and
# there and back does not lead home.

# %%
generator = torch.Generator().manual_seed(0)
kernel, image = torch.randn(3, 3, generator=generator), torch.randn(7, 7, generator=generator)
matrix = conv_matrix(kernel, 7, stride=2)
small = (matrix @ image.flatten()).reshape(1, 1, 3, 3)
by_matrix = (matrix.T @ small.flatten()).reshape(7, 7)
by_layer = F.conv_transpose2d(small, kernel[None, None], stride=2)[0, 0]
print("same as the layer:", torch.allclose(by_matrix, by_layer, atol=1e-5))
print(f"there and back, relative error: {float((by_matrix - image).norm() / image.norm()):.2f}")

# %% [markdown] lang="zh"
# ## 6. 恢复大小
#
# 边长 7 和 8 的图，经步幅为 2 的卷积都变成 4。回去要靠 output_padding 来分辨。

# %% [markdown] lang="en"
# ## 6. Restore the size
#
# Sides of 7 and of 8 both become 4 under a convolution with stride 2. On the way back, output_padding tells
# them apart.

# %%
for target in (7, 8):
    extra = output_padding_for(target, 4, kernel_size=3, stride=2, padding=1)
    layer = nn.ConvTranspose1d(1, 1, 3, stride=2, padding=1, output_padding=extra)
    print(target, "needs output_padding", extra, "and gets", layer(torch.zeros(1, 1, 4)).shape[2])

# %% [markdown] lang="zh"
# ## 7. 棋盘从哪里来
#
# 数一数每个输出像素被盖了几次。整除时处处相等。

# %% [markdown] lang="en"
# ## 7. Where checkerboards come from
#
# Count how often each output pixel is stamped. The counts are equal where the stride divides the kernel.

# %%
figure, panels = plt.subplots(1, 3, figsize=(7, 2.5))
for axes, (k, s) in zip(panels, ((3, 2), (4, 2), (5, 3)), strict=True):  # change me
    axes.imshow(overlap_map(k, s, size=6), vmin=0)
    axes.set_title(f"k={k}, s={s}")
    axes.axis("off")
plt.show()

# %% [markdown] lang="zh"
# ## 8. 新层画的网格
#
# 给每种层一张处处相等的图，看输出起伏多大；再看它在频谱上的峰。层都没有训练过。

# %% [markdown] lang="en"
# ## 8. The grid that fresh layers draw
#
# Feed a flat image to each layer and look at how uneven the answer is; then feed noise and look at the peak
# in the spectrum. No layer was trained.

# %%
torch.manual_seed(0)
layers = {
    "transposed k=3": nn.ConvTranspose2d(8, 1, 3, 2, 1, 1),
    "transposed k=4": nn.ConvTranspose2d(8, 1, 4, 2, 1),
    "sub-pixel": SubPixelConv(8, 1, 2, icnr=False),
    "sub-pixel + ICNR": SubPixelConv(8, 1, 2),
    "nearest + conv": ResizeConv(8, 1, 2),
    "bilinear + conv": ResizeConv(8, 1, 2, mode="bilinear"),
}
flat = torch.rand(1, 8, 1, 1, generator=generator).expand(-1, -1, 12, 12)
textured = flat + 0.3 * torch.randn(32, 8, 12, 12, generator=generator)
with torch.no_grad():
    for name, layer in layers.items():
        spread = layer(flat)[..., 4:-4, 4:-4].std()
        print(
            f"{name:17} spread {float(spread):.4f}   peak {float(checkerboard_peak(layer(textured), 2)):8.2f}"
        )

# %% [markdown] lang="zh"
# 起伏为 0 的三层没有网格，峰也只有个位数（边上补的零留下一点）；其余三层的峰高得多。ICNR 此时只是复制像素，
# 复制恰好在这个频率上不留一点能量，所以峰是 0。

# %% [markdown] lang="en"
# Three layers have no spread, and peaks of a few units at most (zeros padded at the border leave a little); the
# peaks of the others are far higher. A fresh ICNR layer only copies pixels, which leaves nothing at this frequency.

# %% [markdown] lang="zh"
# ## 9. 通道变像素
#
# PixelShuffle 与 depth_to_space 的通道次序不同。只有一个输出通道时看不出来。

# %% [markdown] lang="en"
# ## 9. Channels into pixels
#
# PixelShuffle and depth_to_space count channels differently. With one output channel nobody notices.

# %%
channels = 2  # change me
numbers = torch.arange(4 * channels)[:, None, None]
print(pixel_shuffle(numbers, 2).tolist())
print("for depth_to_space, reorder by", depth_to_space_order(channels, 2).tolist())
print("undone:", torch.equal(pixel_unshuffle(pixel_shuffle(numbers, 2), 2), numbers))

# %% [markdown] lang="zh"
# ## 10. 乔装的默认选择
#
# 「最近邻 + 3×3 卷积」就是一个 k=4、s=2 的转置卷积；FCN 的双线性权重也是。

# %% [markdown] lang="en"
# ## 10. The default in disguise
#
# Nearest + 3×3 convolution is a transposed convolution with k=4, s=2. So is bilinear interpolation, inside.

# %%
resize = layers["nearest + conv"].conv
features = torch.randn(1, 8, 6, 6, generator=generator)
ours = F.conv_transpose2d(features, resize_conv_weight(resize.weight, 2), resize.bias, stride=2, padding=1)
print("same map:", torch.allclose(ours, layers["nearest + conv"](features), atol=1e-5))
smooth = F.conv_transpose2d(features, bilinear_kernel(8, 2), stride=2, padding=1)
inside = slice(2, -2)
print(
    "bilinear inside:",
    torch.allclose(
        smooth[..., inside, inside], upsample_bilinear(features, 12)[..., inside, inside], atol=1e-5
    ),
)

# %% [markdown] lang="zh"
# ## 11. 反池化，以及弄坏它
#
# 奇数边长的图，反池化时不给 output_size：下标还在范围内时，PyTorch 一声不响地放错地方。

# %% [markdown] lang="en"
# ## 11. Unpooling, and breaking it
#
# With an odd side and no output_size, PyTorch puts values in wrong places without a word, as long as every
# index exists.

# %%
odd = torch.zeros(1, 1, 5, 5)
odd[0, 0, 0, 1], odd[0, 0, 1, 3], odd[0, 0, 2, 0], odd[0, 0, 2, 3] = 1, 2, 3, 4
pooled, indices = F.max_pool2d(odd, 2, return_indices=True)
print("right", max_unpool2d(pooled, indices, 2, output_size=(5, 5))[0, 0].int().tolist())
print("wrong", nn.MaxUnpool2d(2)(pooled, indices)[0, 0].int().tolist())

attempts = {
    "integers": lambda: upsample_bilinear(torch.zeros(3, 3).long(), 6),
    "scale and size": lambda: upsample_nearest(odd, 2, size=10),
    "output_padding": lambda: transposed_conv2d(x, stamp, stride=2, output_padding=2),
    "channels": lambda: pixel_shuffle(torch.zeros(6, 2, 2), 2),
    "an index": lambda: max_unpool2d(pooled, indices + 20, 2),
}
for name, attempt in attempts.items():
    try:
        attempt()
        print(f"{name}: no error?")
    except ValueError as error:
        print(f"{name}: {error}")

# %% [markdown] lang="zh"
# 接下来可以做的：在第 8 节里把偏置也算进去，看 ICNR 之后重新随机初始化偏置会怎样。

# %% [markdown] lang="en"
# Where to go from here: in section 8, draw the bias of the ICNR layer anew and look at its spread.
