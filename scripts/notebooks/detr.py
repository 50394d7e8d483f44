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
# # DETR：动手试
#
# 从上往下运行即可，只需要 PyTorch、NumPy 和 Matplotlib，全程不到一分钟。
# 第一个单元是文章里测试过的代码，原样放在这里；后面的单元拿它来玩。

# %% [markdown] lang="en"
# # DETR, hands on
#
# Run it from top to bottom; it needs only PyTorch, NumPy and Matplotlib and takes less than a minute.
# The first cell holds the tested code of the article, unchanged; the others play with it.

# %%
from snippets.detr import (
    Detr,
    DetrLoss,
    HungarianMatcher,
    box_cxcywh_to_xyxy,
    generalized_box_iou,
    greedy_assignment,
    linear_assignment,
    post_process,
)

# %% [markdown] lang="zh"
# ## 1. 配对
#
# 三个真实框，四个查询。先猜谁配谁，再看结果。改一改框，让贪心与最优不同。

# %% [markdown] lang="en"
# ## 1. Pairing
#
# Three true boxes, four queries. Guess the pairs first. Then change the boxes until greedy and optimal
# differ.

# %%
import matplotlib.pyplot as plt
import torch

truth = torch.tensor([[0.3, 0.4, 0.2, 0.2], [0.45, 0.4, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]])
boxes = torch.tensor(
    [[[0.37, 0.4, 0.2, 0.2], [0.2, 0.4, 0.2, 0.2], [0.7, 0.68, 0.2, 0.2], [0.5, 0.9, 0.1, 0.1]]]
)  # change me
target = {"labels": torch.tensor([0, 0, 1]), "boxes": truth}
outputs = {"pred_logits": torch.zeros(1, 4, 3), "pred_boxes": boxes}
(cost,) = HungarianMatcher().costs(outputs, [target])
print(cost)
for assign in (linear_assignment, greedy_assignment):
    query, object_index = assign(cost.numpy())
    pairs = list(zip(query.tolist(), object_index.tolist(), strict=True))
    print(assign.__name__, pairs, f"{float(cost[query, object_index].sum()):.3f}")

# %% [markdown] lang="zh"
# ## 2. GIoU 有坡度
#
# 两个正方形分开以后，IoU 恒为零，GIoU 仍告诉我们往哪边走。用它做损失，把一个框拉过去。

# %% [markdown] lang="en"
# ## 2. GIoU has a slope
#
# Once two squares are apart, IoU is zero everywhere, but GIoU still tells which way to go. Used as a loss,
# it pulls one box to the other.

# %%
goal = torch.tensor([[6.0, 6.0, 8.0, 8.0]])
box = torch.tensor([[0.0, 0.0, 2.0, 1.0]], requires_grad=True)
optimizer = torch.optim.Adam([box], lr=0.1)  # change me
values = []
for _ in range(200):
    giou = generalized_box_iou(box, goal).sum()
    optimizer.zero_grad()
    (1 - giou).backward()
    optimizer.step()
    values.append(float(giou.detach()))
plt.figure(figsize=(6, 3))
plt.plot(values)
plt.xlabel("step")
plt.ylabel("GIoU")
plt.show()
print(box.detach())

# %% [markdown] lang="zh"
# ## 3. 记住四张图
#
# 检验检测器最快的办法：给它四张图，看它能不能背下来。亮方块是目标，每张图的个数不同，有一张一个也没有。

# %% [markdown] lang="en"
# ## 3. Learn four pictures by heart
#
# The quickest test of a detector: give it four pictures and see whether it can memorize them. The bright
# squares are the objects, a different number in each picture, in one of them none.

# %%
torch.manual_seed(0)
places = [[(0.3, 0.3)], [(0.25, 0.7), (0.7, 0.3)], [], [(0.2, 0.2), (0.5, 0.55), (0.8, 0.8)]]
side = 0.25
pictures = torch.zeros(4, 3, 32, 32)
targets = []
for picture, centers in zip(pictures, places, strict=True):
    rows = torch.tensor([[x, y, side, side] for x, y in centers]).reshape(-1, 4)
    for x1, y1, x2, y2 in (32 * box_cxcywh_to_xyxy(rows)).round().int().tolist():
        picture[:, y1:y2, x1:x2] = 2
    targets.append({"labels": torch.zeros(len(rows), dtype=torch.long), "boxes": rows})
model = Detr(1, num_queries=5, dim=32, heads=4, encoder_layers=1, decoder_layers=2, dropout=0)
criterion = DetrLoss(1, HungarianMatcher())
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(400):  # change me
    losses = criterion(model(pictures), targets)
    optimizer.zero_grad()
    losses["loss"].backward()
    optimizer.step()
    if step % 100 == 99:
        print(step + 1, f"{losses['loss'].item():.3f}")

# %%
with torch.no_grad():
    found = post_process(model(pictures), torch.full((4, 2), 32))
fig, panels = plt.subplots(1, 4, figsize=(10, 3))
for axes, picture, one in zip(panels, pictures, found, strict=True):
    axes.imshow(picture[0], cmap="gray", extent=(0, 32, 32, 0))
    for score, (x1, y1, x2, y2) in zip(one["scores"], one["boxes"].tolist(), strict=True):
        if score > 0.5:
            axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color="tab:orange")
    axes.set_title(f"{int((one['scores'] > 0.5).sum())} found")
    axes.axis("off")
plt.show()
