# %% [markdown] lang="zh"
# # 线性注意力：动手试
#
# 从上往下运行即可，全程不到十秒，只需要 PyTorch 和 Matplotlib。
# 第一个单元是文章里测试过的代码，原样放在这里；后面的单元拿它来玩。每一节都有一个可以改的数，改了再跑一遍。

# %% [markdown] lang="en"
# # Linear attention, hands on
#
# Run it from top to bottom; it takes less than ten seconds and needs only PyTorch and Matplotlib.
# The first cell holds the tested code of the article, unchanged; the others play with it. Each section has
# a number to change: change it and run again.

# %%
from snippets.linear_attention import (
    chunked_linear_attention,
    crossover_length,
    delta_rule_attention,
    elu_feature_map,
    linear_attention,
    performer_attention,
    random_features,
    recurrent_linear_attention,
    softmax_attention,
)

# %% [markdown] lang="zh"
# ## 1. 一个层，三种算法
#
# 并行、递推、分块，在 float64 里只差舍入误差；块长不必整除序列长度。

# %% [markdown] lang="en"
# ## 1. One layer, three ways
#
# Parallel, recurrent, chunked: in float64 they differ by rounding alone. The length need not be a multiple
# of the chunk.

# %%
import time

import matplotlib.pyplot as plt
import torch

torch.manual_seed(0)
length, chunk = 1000, 64  # change me
q, k, v = torch.randn(3, 1, 4, length, 32, dtype=torch.float64).unbind()
parallel = linear_attention(q, k, v, causal=True)
recurrent, state = recurrent_linear_attention(q, k, v)
chunked = chunked_linear_attention(q, k, v, chunk)
print("recurrent - parallel", float((recurrent - parallel).abs().max()))
print("chunked   - parallel", float((chunked - parallel).abs().max()))
print("the state holds", sum(part.numel() for part in state), "numbers, whatever the length")

# %% [markdown] lang="zh"
# ## 2. 在你的机器上，从多长开始划算
#
# 乘法次数在 N = D 处相等。实际的交叉点更靠后，而且对手是融合过的 softmax 注意力：量一量便知。

# %% [markdown] lang="en"
# ## 2. From which length it pays on your machine
#
# In multiplications the two are equal at N = D. The real crossing lies further out, and the rival is fused
# softmax attention: measure it.


# %%
def seconds(function, *arguments, repeats=5, **options) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function(*arguments, **options)
        times.append(time.perf_counter() - started)
    return sorted(times)[repeats // 2]


width = 64  # change me
fused = torch.nn.functional.scaled_dot_product_attention
print("equal work at N =", crossover_length(width, width))
for length in (128, 256, 512, 1024, 2048):
    q, k, v = torch.randn(3, 1, 4, length, width).unbind()
    ratio = seconds(fused, q, k, v) / seconds(linear_attention, q, k, v)
    print(f"N = {length:5d}: fused softmax takes {ratio:5.2f} times as long as linear attention")

# %% [markdown] lang="zh"
# ## 3. 权重长什么样
#
# 单位矩阵当作值，输出就是权重。softmax 能挑出少数几个键，elu + 1 几乎一视同仁；24 个键只有 16 个特征，秩也就到 16 为止。

# %% [markdown] lang="en"
# ## 3. What the weights look like
#
# With the identity as values, the output is the weights. Softmax picks a few keys; elu + 1 treats them
# almost alike, and with 16 features for 24 keys its rank ends at 16.

# %%
features = 64  # change me: the Performer comes nearer to softmax
q, k = 1.5 * torch.randn(2, 1, 1, 24, 16, dtype=torch.float64)
eye = torch.eye(24, dtype=torch.float64)[None, None]
projection = random_features(16, features, torch.Generator().manual_seed(0))
maps = {
    "softmax": softmax_attention(q, k, eye),
    "elu + 1": linear_attention(q, k, eye, elu_feature_map),
    f"Performer, {features} features": performer_attention(q, k, eye, projection),
}
fig, panels = plt.subplots(1, 3, figsize=(8, 2.8))
for axes, (name, weights) in zip(panels, maps.items(), strict=True):
    axes.imshow(weights[0, 0], cmap="cividis_r", vmin=0, vmax=maps["softmax"].max())
    axes.set_title(name)
plt.show()
for name, weights in maps.items():
    print(f"{name:24} rank {int(torch.linalg.matrix_rank(weights[0, 0]))}")

# %% [markdown] lang="zh"
# ## 4. 记忆装得下多少
#
# 存进 n 对键和值，再逐一取回。状态只有 16×16：键一多，取回的值就掺在一起。δ 规则写入前先擦掉旧值，情形好一些，但容量仍然有限。

# %% [markdown] lang="en"
# ## 4. How much the memory holds
#
# Store n pairs of key and value, then fetch each. The state is 16×16: with many keys, what comes back is a
# mixture. The delta rule erases before it writes, which helps; the capacity stays finite.

# %%
for pairs in (2, 4, 8, 16, 32, 64):  # change me
    k = torch.nn.functional.normalize(torch.randn(1, 20, pairs, 16), dim=-1)
    v = torch.randn(1, 20, pairs, 16)
    again = torch.cat((k, k), 2)
    stored = torch.cat((v, torch.zeros_like(v)), 2)
    write = torch.cat((torch.ones(1, 20, pairs), torch.zeros(1, 20, pairs)), 2)
    delta = delta_rule_attention(again, again, stored, write)[:, :, pairs:]
    errors = {
        "softmax": softmax_attention(40 * k, k, v) - v,
        "elu + 1": linear_attention(40 * k, 40 * k, v) - v,
        "delta rule": delta - v,
    }
    shown = ", ".join(f"{name} {float(error.square().mean()):.2f}" for name, error in errors.items())
    print(f"{pairs:3d} pairs, mean squared error: {shown}")
