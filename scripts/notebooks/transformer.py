# %% [markdown] lang="zh"
# # Transformer：动手试
#
# 从上往下运行即可，全程约半分钟，只需要 PyTorch 和 Matplotlib。
# 第一个单元是文章里测试过的代码，原样放在这里；后面的单元拿它来玩。每一节都有一个可以改的数，改了再跑一遍。

# %% [markdown] lang="en"
# # The Transformer, hands on
#
# Run it from top to bottom; it takes about half a minute and needs only PyTorch and Matplotlib.
# The first cell holds the tested code of the article, unchanged; the others play with it. Each section has
# a number to change: change it and run again.

# %%
from snippets.transformer import (
    Transformer,
    attention_weights,
    causal_mask,
    greedy_decode,
    label_smoothing_loss,
    lstm_cell,
    noam_rate,
    padding_mask,
    rnn_cell,
    shift_matrix,
    sinusoidal_positions,
)

# %% [markdown] lang="zh"
# ## 1. 循环单元：与 PyTorch 对一对
#
# 把 PyTorch 的权重搬过来，一步之后的状态应当一致。

# %% [markdown] lang="en"
# ## 1. A cell, held against PyTorch
#
# Take PyTorch's weights, and after one step the states should agree.

# %%
import matplotlib.pyplot as plt
import torch

torch.manual_seed(0)
theirs = torch.nn.LSTMCell(3, 5)
x, state = torch.randn(2, 3), (torch.randn(2, 5), torch.randn(2, 5))
weights = (theirs.weight_ih, theirs.weight_hh, theirs.bias_ih, theirs.bias_hh)
h, c = lstm_cell(x, state, *weights)
h_theirs, c_theirs = theirs(x, state)
print("largest difference", max((h - h_theirs).abs().max().item(), (c - c_theirs).abs().max().item()))

# %% [markdown] lang="zh"
# ## 2. 看着它忘掉
#
# 最后一个状态对开头那个状态的导数，隔得越远越小。`scale` 放大循环权重：大到一定程度，消失就变成爆炸。

# %% [markdown] lang="en"
# ## 2. Watch it forget
#
# The derivative of the last state with respect to the first shrinks with the distance. `scale` enlarges the
# recurrent weights: at some point what vanished explodes.

# %%
scale = 1.0  # change me: 1.5, 2, 3
size = 32
w_ih, w_hh = (torch.empty(size, size).uniform_(-(size**-0.5), size**-0.5) for _ in range(2))
for distance in (1, 5, 10, 20):
    first = torch.zeros(size, requires_grad=True)
    h = first
    for _ in range(distance):
        h = rnn_cell(0.1 * torch.randn(size), h, w_ih, scale * w_hh)
    jacobian = torch.stack([torch.autograd.grad(h[i], first, retain_graph=True)[0] for i in range(size)])
    print(f"distance {distance:2d}: norm of the derivative {float(jacobian.norm()):.1e}")

# %% [markdown] lang="zh"
# ## 3. 注意力看得见
#
# 六个位置，两张掩码用 `&` 合在一起。对角线右上方是未来，最后两列是填充：都没有权重。

# %% [markdown] lang="en"
# ## 3. Attention to look at
#
# Six positions, two masks joined by `&`. Right of the diagonal lies the future, the last two columns are
# padding: neither gets any weight.

# %%
length = 4  # change me: tokens that are not padding
query, key = torch.randn(6, 16), torch.randn(6, 16)
mask = causal_mask(6) & padding_mask([length], 6)
weights = attention_weights(query, key, mask)
plt.figure(figsize=(3.2, 3))
plt.imshow(weights, cmap="cividis_r", vmin=0)
plt.xlabel("key")
plt.ylabel("query")
plt.colorbar()
plt.show()
print("sums of the rows:", [round(float(row), 3) for row in weights.sum(-1)])

# %% [markdown] lang="zh"
# ## 4. 位移就是旋转
#
# 同一个矩阵把每个位置的编码向后推 `offset` 步。

# %% [markdown] lang="en"
# ## 4. A shift is a rotation
#
# One matrix moves the code of every position by `offset`.

# %%
offset = 7  # change me; negative offsets shift back
codes = sinusoidal_positions(64, 16).double()
moved = codes[10:40] @ shift_matrix(offset, 16).T
print("largest error", float((moved - codes[10 + offset : 40 + offset]).abs().max()))

# %% [markdown] lang="zh"
# ## 5. 教它倒着念
#
# 来源是一串数字，目标是倒过来的同一串。0 是开始，1 是结束。训练时目标右移一位，因果掩码让一次前向就练到所有位置。

# %% [markdown] lang="en"
# ## 5. Teach it to reverse
#
# The source is a string of digits, the target the same string backwards. 0 starts, 1 ends. In training the
# target is shifted by one, and thanks to the causal mask one pass trains every position.

# %%
steps, digits = 500, 6  # change me
torch.manual_seed(1)
model = Transformer(vocab_size=12, dim=32, heads=4, layers=2, hidden_dim=64, norm_first=True)
optimizer = torch.optim.Adam(model.parameters(), lr=1.0, betas=(0.9, 0.98), eps=1e-9)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * noam_rate(step + 1, 32, warmup=100))


def batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.randint(2, 12, (size, digits))
    start, end = torch.zeros(size, 1, dtype=torch.long), torch.ones(size, 1, dtype=torch.long)
    return source, torch.cat([start, source.flip(1), end], 1)


losses = []
for _ in range(steps):
    source, target = batch(64)
    loss = label_smoothing_loss(model(source, target[:, :-1]), target[:, 1:], smoothing=0.0)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    losses.append(loss.item())
plt.figure(figsize=(5, 2.6))
plt.semilogy(losses)
plt.xlabel("step")
plt.ylabel("loss")
plt.show()

# %% [markdown] lang="zh"
# ## 6. 生成
#
# 逐个词元贪心地选。有没有缓存，结果相同，省下的只是重复计算。

# %% [markdown] lang="en"
# ## 6. Generate
#
# Token by token, greedily. With or without a cache the result is the same; what is saved is repeated work.

# %%
source, target = batch(200)
model.eval()
cached = greedy_decode(model, source, start=0, end=1, max_length=digits + 2)
whole = greedy_decode(model, source, start=0, end=1, max_length=digits + 2, use_cache=False)
right = (cached.shape == target.shape) and (cached == target).all(1).float().mean().item()
print("source   ", source[0].tolist())
print("generated", cached[0, 1:-1].tolist())
print("same with and without cache:", torch.equal(cached, whole))
print(f"strings reversed without a fault: {right:.0%}")
