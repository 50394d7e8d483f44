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
# # 人脸识别：动手试
#
# 从上往下运行即可，全程不到十秒，只需要 PyTorch 和 Matplotlib。第一个单元是文章里测试过的代码，原样放在这里；
# 后面的单元拿它来玩。人脸是画出来的，没有用到任何真人。每一节都有一个可以改的数，改了再跑一遍。

# %% [markdown] lang="en"
# # Face recognition, hands on
#
# Run it from top to bottom; it takes less than ten seconds and needs only PyTorch and Matplotlib. The first
# cell holds the tested code of the article, unchanged; the others play with it. Faces are drawn: no real
# person occurs. Each section has a number to change: change it and run again.

# %%
from snippets.face_recognition import (
    ArcFace,
    CosFace,
    SphereFace,
    align_face,
    arcface_template,
    cosine_scores,
    equal_error_rate,
    identify,
    iou_nms,
    pool_templates,
    similarity_transform,
    softmax_logits,
    tar_at_far,
    threshold_at_far,
    turn_face,
    umeyama,
)

# %% [markdown] lang="zh"
# ## 1. 对齐一张画的脸
#
# 先在标准位置上画一张脸，再把它转一个角度、缩小、挪开，最后靠五个关键点找回来。

# %% [markdown] lang="en"
# ## 1. Align a drawn face
#
# Draw a face in the standard position, turn, shrink and move it, then bring it back by five landmarks.

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F


def blob(center, radius, size=112):
    """A soft disc, (size, size)."""
    y, x = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    distance = torch.stack([x - center[0], y - center[1]]).norm(dim=0)
    return torch.sigmoid(radius - distance)


template = arcface_template()
face = 0.2 + 0.6 * blob((56, 64), 46)
for point, radius in zip(template, (6, 6, 4, 4, 4), strict=True):
    face = face * (1 - 0.9 * blob(point, radius))
for place in torch.linspace(0, 1, 9):
    face = face * (1 - 0.9 * blob(template[3] + place * (template[4] - template[3]), 3))
face = face[None]  # (1, 112, 112)

angle = torch.tensor(25.0).deg2rad()  # change me
turn = 0.6 * torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).reshape(2, 2)
away = torch.cat([turn, torch.tensor([[52.0], [2.0]])], 1)
landmarks = similarity_transform(template, away)
# The picture is made by aligning, too: the face's landmarks are said to lie where the inverse puts them.
scene = align_face(face, similarity_transform(template, umeyama(landmarks, template)))
noisy = landmarks + torch.randn(5, 2, generator=torch.Generator().manual_seed(0))  # a detector errs
found = align_face(scene, noisy)


plt.rcParams["figure.dpi"] = 72
gray = plt.get_cmap("gray", 16)  # few shades and whole pixels keep the pictures small


def show(images, titles, points=()):
    _, axes = plt.subplots(1, len(images), figsize=(2.0 * len(images), 2.3))
    for index, (axis, image, title) in enumerate(zip(axes, images, titles, strict=True)):
        axis.imshow(image[0], cmap=gray, vmin=0, vmax=1, interpolation="nearest")
        if index < len(points):
            axis.plot(*points[index].T, "r+")
        axis.set_title(title, fontsize=9)
        axis.axis("off")
    plt.show()


show([face, scene, found], ["face", "seen", "aligned"], [template, noisy, template])

# %% [markdown] lang="zh"
# ## 2. 左右标反了
#
# 检测器把左右两边的点调换了。没有关卡的最小二乘会给出镜像（行列式为 −1）；Umeyama 的解不会，只是拟合得差。
# 看残差就知道出了问题。

# %% [markdown] lang="en"
# ## 2. Left and right confused
#
# A detector swaps the sides. Least squares without the guard answers with a mirror image, of determinant −1;
# Umeyama's solution does not, and fits badly instead. The residual tells that something is wrong.

# %%
swapped = landmarks[[1, 0, 2, 4, 3]]  # change me
x, y = swapped - swapped.mean(0), template - template.mean(0)
u, _, vh = torch.linalg.svd(y.T @ x)
print(f"determinant without the guard {float(torch.linalg.det(u @ vh)):+.0f}")
matrix = umeyama(swapped, template)
print(f"determinant with it           {float(torch.linalg.det(matrix[:, :2]).sign()):+.0f}")
for name, points in (("right", landmarks), ("swapped", swapped)):
    residual = similarity_transform(points, umeyama(points, template)) - template
    print(f"{name:8} residual {float(residual.norm(dim=1).mean()):.2f} pixels")

# %% [markdown] lang="zh"
# ## 3. 转头
#
# 把头当成球来转。球外的背景不动；相机没看到的一侧，用边缘的镜像填上。

# %% [markdown] lang="en"
# ## 3. Turn the head
#
# The head is a sphere. The background outside of it stays, and the side the camera never saw is filled by its
# mirror image at the rim.

# %%
yaws = (-45.0, -20.0, 20.0, 45.0)  # change me
poses = [turn_face(face, template, yaw, pitch=10.0) for yaw in yaws]
show([image for image, _ in poses], [f"{yaw:+.0f}°" for yaw in yaws], [points for _, points in poses])

# %% [markdown] lang="zh"
# ## 4. 三种间隔
#
# 两个类的权重互相垂直，让嵌入从第一类的方向转到反方向，看目标类的 logit。
# ArcFace 的虚线是直接写 cos(θ + m)，过了 π − m 又升上去。

# %% [markdown] lang="en"
# ## 4. Three margins
#
# Two classes with weights at a right angle; turn an embedding from the first one's direction to the opposite
# and watch the target's logit. The dashed line is cos(θ + m) as it stands, which rises again past π − m.

# %%
margin = 0.5  # change me
theta = torch.linspace(0, torch.pi, 181)
embeddings = torch.stack([theta.cos(), theta.sin()], 1)
label = torch.zeros(181, dtype=torch.long)
heads = {
    "SphereFace": SphereFace(2, 2),
    "CosFace": CosFace(2, 2, scale=1),
    "ArcFace": ArcFace(2, 2, scale=1, margin=margin),
}
plt.figure(figsize=(5.5, 2.8))
plt.plot(theta.rad2deg(), theta.cos(), label="softmax")
for name, head in heads.items():
    head.weight.data = torch.eye(2)
    plt.plot(theta.rad2deg(), head(embeddings, label)[:, 0].detach(), label=name)
plt.plot(theta.rad2deg(), (theta + margin).cos(), "k--", linewidth=0.8, label="cos(θ + m)")
plt.xlabel("θ in degrees")
plt.ylim(-3, 1.1)
plt.legend(fontsize=8)
plt.show()

# %% [markdown] lang="zh"
# ## 5. 在圆上训练
#
# 十六个人，每人一团点；小网络把它们映到平面上，用前一半人训练。嵌入只有两维，为的是画得出来。

# %% [markdown] lang="en"
# ## 5. Train on a circle
#
# Sixteen people, each a cloud of points. A small network maps them to the plane, and half of the people train
# it. Embeddings have two dimensions only so that they can be drawn.

# %%
generator = torch.Generator().manual_seed(0)
people = torch.randn(16, 8, generator=generator)
names = torch.arange(16).repeat_interleave(40)
samples = people[names] + 0.35 * torch.randn(640, 8, generator=generator)
known = names < 8


def train(head, dim=2, steps=150):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, dim))
    weights = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(weights, lr=0.01)
    for _ in range(steps):
        loss = F.cross_entropy(head(network(samples[known]), names[known]), names[known])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return F.normalize(network(samples), dim=1)


class Softmax(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, dim) / 2)

    def forward(self, embeddings, labels):
        return softmax_logits(embeddings, self.weight)


torch.manual_seed(0)
trained = {"softmax": train(Softmax(2)), "ArcFace": train(ArcFace(2, 8, scale=16, margin=0.2))}  # change me
_, axes = plt.subplots(1, 2, figsize=(6, 3))
for axis, (name, unit) in zip(axes, trained.items(), strict=True):
    axis.scatter(*unit[known].T, c=names[known], cmap="tab10", s=6)
    axis.set_title(name)
    axis.set_aspect("equal")
plt.show()
for name, unit in trained.items():
    spread = [float(1 - unit[names == person].mean(0).norm()) for person in range(8)]
    print(f"{name:8} spread within a person of the training set {sum(spread) / 8:.4f}")

# %% [markdown] lang="zh"
# ## 6. 阈值从哪里来
#
# 这回嵌入有八维。没参加训练的八个人分成两组：在一组的样本对上按误识率定阈值，到另一组去用。
# 样本对之间并不独立，一组又只有四个人，所以误识率对不齐。

# %% [markdown] lang="en"
# ## 6. Where the threshold comes from
#
# Eight dimensions this time. The eight people who took no part in the training form two groups: choose the
# threshold for a false accept rate on the pairs of one, use it on the other. Pairs are not independent, and
# four people are few, so the rate does not carry over exactly.


# %%
def pairs(people_in, unit):
    chosen = [i for i in range(640) if int(names[i]) in people_in]
    scores = cosine_scores(unit[chosen], unit[chosen])
    same = names[chosen][:, None] == names[chosen]
    upper = torch.triu(torch.ones_like(same), 1)
    return scores[upper], same[upper]


far = 0.01  # change me
torch.manual_seed(0)
wide = {"softmax": train(Softmax(8), 8), "ArcFace": train(ArcFace(8, 8, scale=16, margin=0.2), 8)}
for name, unit in wide.items():
    held_out, test = pairs({8, 9, 10, 11}, unit), pairs({12, 13, 14, 15}, unit)
    threshold = threshold_at_far(*held_out, far)
    scores, same = test
    accepted = scores >= threshold
    print(
        f"{name:8} threshold {float(threshold):.3f}  FAR {float(accepted[~same].double().mean()):.3f}  "
        f"TAR {float(accepted[same].double().mean()):.3f}  EER {float(equal_error_rate(scores, same)):.3f}  "
        f"TAR@{far} on its own pairs {float(tar_at_far(scores, same, far)):.3f}"
    )

# %% [markdown] lang="zh"
# ## 7. 底库与生人
#
# 每人用几张图合成模板，放进底库。最后两个人不在库里：没有阈值，他们就会被认作别人。

# %% [markdown] lang="en"
# ## 7. A gallery and strangers
#
# Several images of each person become a template of the gallery. The last two people are not enrolled;
# without a threshold they are taken for somebody.

# %%
images = 5  # change me
unit = F.normalize(samples, dim=1)  # the raw points serve as embeddings here
gallery = torch.stack([pool_templates(unit[names == person][:images]) for person in range(14)])
probes = torch.cat([unit[names == person][-10:] for person in range(16)])
truth = torch.arange(16).repeat_interleave(10)
for threshold in (None, 0.6):
    index, score = identify(probes, gallery, threshold)
    right = (index == truth)[truth < 14].double().mean()
    taken = (index >= 0)[truth >= 14].double().mean()
    print(f"threshold {threshold}: known people right {float(right):.2f}, strangers accepted {float(taken):.2f}")

# %% [markdown] lang="zh"
# ## 8. 许多框变一个
#
# 检测器在两张脸周围给出许多框。阈值太高，一张脸留下好几个；太低，挨得近的脸就丢了一张。

# %% [markdown] lang="en"
# ## 8. Many boxes to one
#
# A detector gives many boxes around two faces. Too high a threshold leaves several of one face, too low a
# threshold loses one of two neighbors.

# %%
centers = torch.tensor([[40.0, 50.0], [64.0, 52.0]]).repeat_interleave(12, 0)
corners = centers - 16 + 3 * torch.randn(24, 2, generator=generator)
boxes = torch.cat([corners, corners + 32], 1)
scores = torch.rand(24, generator=generator)
for threshold in (0.05, 0.3, 0.7, 0.95):  # change me
    print(f"threshold {threshold}: {len(iou_nms(boxes, scores, threshold))} boxes for 2 faces")

# %% [markdown] lang="zh"
# ## 9. 弄坏它
#
# 定不出旋转的关键点、越界的标签、只有一种的样本对，都应当报错，而不是给出 NaN。

# %% [markdown] lang="en"
# ## 9. Break it
#
# Landmarks that fix no rotation, labels out of range, pairs of one kind only: all should be errors, and none
# should come back as NaN.

# %%
attempts = {
    "one point five times": lambda: umeyama(torch.ones(5, 2), template),
    "label out of range": lambda: ArcFace(2, 8)(torch.ones(1, 2), torch.tensor([8])),
    "only genuine pairs": lambda: tar_at_far(torch.rand(4), torch.ones(4, dtype=torch.bool), 0.1),
}
for name, attempt in attempts.items():
    try:
        attempt()
        print(f"{name}: no error?")
    except ValueError as error:
        print(f"{name}: {error}")

# %% [markdown] lang="zh"
# 接下来可以做的：改第 6 节的维数，看各个数怎样变；或者给第 3 节的脸加上鼻子的高度。

# %% [markdown] lang="en"
# Where to go from here: change the dimension in section 6 and see how its numbers change; or give the face
# of section 3 a nose that stands out.
