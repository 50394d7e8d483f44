"""DETR: a set of boxes straight from a transformer, matched to the truth one to one."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_Outputs = dict[str, Any]
_Target = dict[str, Tensor]
_Pairs = tuple[Tensor, Tensor]
_Assignment = tuple[np.ndarray, np.ndarray]


def _check_boxes(boxes: Tensor) -> None:
    if boxes.shape[-1:] != (4,):
        raise ValueError(f"boxes need 4 numbers each, got shape {tuple(boxes.shape)}")


def _wide(x: Tensor) -> Tensor:
    """Float32 for half precision, which ends at 65,504: less than 300 x 300 pixels."""
    return x if x.dtype == torch.float64 else x.float()


def _check_heads(dim: int, heads: int) -> None:
    if heads < 1 or dim % heads:
        raise ValueError(f"dim {dim} is not a multiple of {heads} heads")


def box_cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Center and size to corners: (x - w/2, y - h/2, x + w/2, y + h/2).

    boxes (..., 4) floating point. Gives (..., 4) of the same dtype. Raises ValueError
    if the last axis is not 4 long.

    Example:
        >>> import torch
        >>> box_cxcywh_to_xyxy(torch.tensor([0.5, 0.5, 0.4, 0.2]))
        tensor([0.3000, 0.4000, 0.7000, 0.6000])
    """
    _check_boxes(boxes)
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([center - half, center + half], dim=-1)


def box_xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Corners to center and size: the inverse of `box_cxcywh_to_xyxy`.

    boxes (..., 4) floating point. Gives (..., 4) of the same dtype. Raises ValueError
    if the last axis is not 4 long.

    Example:
        >>> import torch
        >>> box_xyxy_to_cxcywh(torch.tensor([10.0, 20.0, 30.0, 24.0]))
        tensor([20., 22., 20.,  4.])
    """
    _check_boxes(boxes)
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def box_area(boxes: Tensor) -> Tensor:
    """Areas of boxes (..., 4) given by their corners (x1, y1, x2, y2): (...).

    Half precision is computed and returned in float32, where 300 x 300 pixels do not
    overflow. Raises ValueError if the last axis is not 4 long.

    Example:
        >>> import torch
        >>> box_area(torch.tensor([[0, 0, 300, 300]], dtype=torch.float16))
        tensor([90000.])
    """
    _check_boxes(boxes)
    boxes = _wide(boxes)
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def box_iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union of every box of a with every box of b, and the unions.

    a (N, 4), b (M, 4): corners (x1, y1, x2, y2). Gives two (N, M) tensors, float32 or
    float64. Two boxes without area have IoU 0, not NaN. Raises ValueError for other
    shapes.

    Example:
        >>> import torch
        >>> a, b = torch.tensor([[0, 0, 2, 2]]), torch.tensor([[1, 0, 3, 2]])
        >>> box_iou(a, b)
        (tensor([[0.3333]]), tensor([[6.]]))
    """
    if a.ndim != 2 or b.ndim != 2:
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"expected (N, 4) and (M, 4), got {shapes}")
    _check_boxes(a)
    _check_boxes(b)
    a, b = _wide(a), _wide(b)
    low = torch.maximum(a[:, None, :2], b[:, :2])  # (N, M, 2)
    high = torch.minimum(a[:, None, 2:], b[:, 2:])
    width, height = (high - low).clamp(min=0).unbind(-1)
    overlap = width * height  # (N, M)
    union = box_area(a)[:, None] + box_area(b) - overlap
    # Dividing by 1 where there is nothing keeps NaN out of the gradient as well.
    return overlap / torch.where(union > 0, union, 1), union


def generalized_box_iou(a: Tensor, b: Tensor) -> Tensor:
    """GIoU of every box of a with every box of b: IoU - (hull - union) / hull.

    a (N, 4), b (M, 4): corners (x1, y1, x2, y2). Gives (N, M) in [-1, 1]: 1 for equal
    boxes, below 0 the farther apart they are, where IoU is 0 and has no slope. The hull
    is the smallest box around both; if even that has no area, GIoU is 0. Raises
    ValueError for corners in the wrong order or NaN, besides other shapes.
    Source: Rezatofighi et al. 2019, algorithm 1.

    Example:
        >>> import torch
        >>> a = torch.tensor([[0, 0, 1, 1]])
        >>> b = torch.tensor([[0, 0, 1, 1], [1, 0, 2, 1], [3, 0, 4, 1]])
        >>> generalized_box_iou(a, b)
        tensor([[ 1.0000,  0.0000, -0.5000]])
    """
    iou, union = box_iou(a, b)
    a, b = _wide(a), _wide(b)
    for boxes in (a, b):
        right = (boxes[:, 2:] >= boxes[:, :2]).all(1)  # NaN is wrong as well
        if not right.all():
            got = boxes[~right][0].tolist()
            raise ValueError(f"expected corners x1 <= x2 and y1 <= y2, got {got}")
    low = torch.minimum(a[:, None, :2], b[:, :2])  # (N, M, 2)
    high = torch.maximum(a[:, None, 2:], b[:, 2:])
    width, height = (high - low).unbind(-1)
    hull = width * height  # (N, M)
    return iou - (hull - union) / torch.where(hull > 0, hull, 1)


class SinePositionEmbedding(nn.Module):
    """Sine and cosine codes of the row and of the column, half of the channels each.

    forward(mask): mask (B, H, W), True where the picture is padding. Gives
    (B, dim, H, W) float32. Padding is not counted, so with `normalize` the angles end
    at 2 pi where the *picture* ends, however far it was padded. Raises ValueError if
    dim is not a multiple of 4 or mask not boolean of three axes.
    Source: Carion et al. 2020, appendix A.4.

    Example:
        >>> import torch
        >>> SinePositionEmbedding(8)(torch.zeros(2, 5, 7, dtype=torch.bool)).shape
        torch.Size([2, 8, 5, 7])
    """

    def __init__(self, dim: int, temperature: float = 10000, normalize: bool = True):
        super().__init__()
        if dim < 4 or dim % 4:
            raise ValueError(f"dim must be a multiple of 4, got {dim}")
        self.dim, self.temperature, self.normalize = dim, temperature, normalize

    def forward(self, mask: Tensor) -> Tensor:
        if mask.ndim != 3 or mask.dtype != torch.bool:
            got = f"{tuple(mask.shape)} of {mask.dtype}"
            raise ValueError(f"expected a boolean mask (B, H, W), got {got}")
        codes = []
        for axis in (1, 2):  # rows, then columns
            place = (~mask).cumsum(axis)  # (B, H, W), from 1
            if self.normalize:
                last = place.narrow(axis, mask.shape[axis] - 1, 1)
                place = place / (last + 1e-6) * 2 * torch.pi
            pairs = torch.arange(self.dim // 4, device=mask.device)
            angle = place[..., None] / self.temperature ** (pairs * 4 / self.dim)
            # sin and cos of one frequency are neighbors: (B, H, W, dim / 4, 2)
            codes.append(torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(3))
        return torch.cat(codes, dim=-1).permute(0, 3, 1, 2)


def linear_assignment(cost: np.ndarray) -> _Assignment:
    """Pair rows with columns, each at most once, so that the sum of costs is least.

    cost (N, M): finite numbers. Gives two index arrays of min(N, M), rows ascending, as
    `scipy.optimize.linear_sum_assignment` does. At most min(N, M)^2 max(N, M) steps:
    row by row, the cheapest path of exchanges that ends in a free column, found by
    Dijkstra's algorithm on costs that the prices u and v keep from falling below zero.
    Raises ValueError if cost is not a finite matrix.
    Source: Crouse 2016 (Jonker and Volgenant's shortest augmenting path).

    Example:
        >>> import numpy as np
        >>> rows, columns = linear_assignment(np.array([[1, 2], [2, 9]]))
        >>> rows.tolist(), columns.tolist()  # 2 + 2 < 1 + 9, though 1 is the cheapest
        ([0, 1], [1, 0])
    """
    cost = np.asarray(cost)
    if cost.ndim != 2 or not np.isfinite(cost).all():
        raise ValueError(f"expected a matrix of finite costs, got shape {cost.shape}")
    if cost.shape[0] > cost.shape[1]:
        columns, rows = linear_assignment(cost.T)
        order = rows.argsort()
        return rows[order], columns[order]
    n, m = cost.shape
    u, v = np.zeros(n), np.zeros(m)
    row_of, column_of = np.full(m, n), np.zeros(n, dtype=np.int64)
    for new in range(n):
        shortest, before = np.full(m, np.inf), np.zeros(m, dtype=np.int64)
        done, tree, row, length = np.zeros(m, dtype=bool), [], new, 0.0
        while row < n:
            tree.append(row)
            through = length + cost[row] - u[row] - v
            better = ~done & (through < shortest)
            shortest[better], before[better] = through[better], row
            column = np.where(done, np.inf, shortest).argmin()
            length, done[column] = shortest[column], True
            row = row_of[column]  # n: the column is free
        u[new] += length
        others = np.array(tree[1:], dtype=np.int64)
        u[others] += length - shortest[column_of[others]]
        v[done] -= length - shortest[done]
        while row != new:  # exchange along the path, back to the new row
            row = row_of[column] = before[column]
            column, column_of[row] = column_of[row], column
    return np.arange(n), column_of


class HungarianMatcher:
    """Give every true object a query of its own, at the least total cost.

    cost_class * -p(true class) + cost_bbox * L1 + cost_giou * -GIoU, where p is the
    softmax probability, not its logarithm. Called with outputs {"pred_logits":
    (B, Q, K + 1), "pred_boxes": (B, Q, 4)} and B targets {"labels": (n,), "boxes":
    (n, 4)}, boxes as cxcywh in [0, 1]. Gives B pairs (query_index, target_index) of
    min(Q, n) int64 indices on the CPU, queries ascending; empty where n is 0. No
    gradient flows. `assign` may replace the optimal assignment. Raises ValueError if
    there are not B targets, a label is not in 0 to K - 1, or a cost is not finite.
    Source: Carion et al. 2020, section 3.1 and, for the weights, appendix A.4.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[0.0, 0.0, 5.0], [5.0, 0.0, 0.0]]])
        >>> boxes = torch.tensor([[[0.1, 0.1, 0.1, 0.1], [0.5, 0.5, 0.2, 0.2]]])
        >>> target = {"labels": torch.tensor([0]), "boxes": boxes[0, 1:]}
        >>> HungarianMatcher()({"pred_logits": logits, "pred_boxes": boxes}, [target])
        [(tensor([1]), tensor([0]))]
    """

    def __init__(
        self,
        cost_class: float = 1,
        cost_bbox: float = 5,
        cost_giou: float = 2,
        assign: Callable[[np.ndarray], _Assignment] = linear_assignment,
    ):
        self.cost_class, self.cost_bbox = cost_class, cost_bbox
        self.cost_giou, self.assign = cost_giou, assign

    @torch.no_grad()
    def costs(self, outputs: _Outputs, targets: Sequence[_Target]) -> list[Tensor]:
        """The cost of every query for every object of its image: B times (Q, n)."""
        logits, boxes = outputs["pred_logits"], _wide(outputs["pred_boxes"])
        if len(targets) != len(logits):
            raise ValueError(f"{len(logits)} images, but {len(targets)} targets")
        if not targets:
            return []
        # All queries with all objects, then cut up: one large step, not B small ones.
        labels = torch.cat([target["labels"] for target in targets]).long()
        truth = torch.cat([target["boxes"] for target in targets]).to(boxes)
        most = logits.shape[-1] - 2
        if ((labels < 0) | (labels > most)).any():
            raise ValueError(f"labels must lie in 0 to {most}, got {labels.tolist()}")
        probability = logits.softmax(-1, dtype=boxes.dtype)[..., labels]  # (B, Q, all)
        distance = torch.cdist(boxes, truth.expand(len(boxes), -1, -1), p=1)
        corners = box_cxcywh_to_xyxy(boxes).flatten(0, 1), box_cxcywh_to_xyxy(truth)
        giou = generalized_box_iou(*corners).view_as(distance)
        cost = self.cost_bbox * distance - self.cost_giou * giou
        cost = cost - self.cost_class * probability
        of_image = cost.split([len(target["labels"]) for target in targets], dim=-1)
        return [part[i] for i, part in enumerate(of_image)]

    def __call__(self, outputs: _Outputs, targets: Sequence[_Target]) -> list[_Pairs]:
        found = [self.assign(c.cpu().numpy()) for c in self.costs(outputs, targets)]
        return [(torch.as_tensor(query), torch.as_tensor(t)) for query, t in found]


def set_loss(
    outputs: _Outputs,
    targets: Sequence[_Target],
    pairs: Sequence[_Pairs],
    no_object_weight: float = 0.1,
) -> dict[str, Tensor]:
    """Losses of one layer for given pairs: classes of all queries, boxes of the paired.

    outputs and targets as for HungarianMatcher, pairs as it gives them. Gives scalars:
    "loss_ce", cross-entropy over all queries, the last class ("no object") for those
    without an object, with weight `no_object_weight`, divided by the sum of weights;
    "loss_bbox" (L1) and "loss_giou" (1 - GIoU), sums over the pairs divided by the
    number of true boxes of the *batch*, at least 1.
    Source: Carion et al. 2020, section 3.1, appendix A.2 and the official code.

    Example:
        >>> import torch
        >>> outputs = {
        ...     "pred_logits": torch.zeros(1, 2, 4),
        ...     "pred_boxes": torch.full((1, 2, 4), 0.5),
        ... }
        >>> target = {"labels": torch.tensor([1]), "boxes": torch.full((1, 4), 0.6)}
        >>> pair = torch.tensor([0]), torch.tensor([0])
        >>> losses = set_loss(outputs, [target], [pair])
        >>> {name: round(float(value), 4) for name, value in losses.items()}
        {'loss_ce': 1.3863, 'loss_bbox': 0.4, 'loss_giou': 0.5386}
    """
    logits, boxes = _wide(outputs["pred_logits"]), _wide(outputs["pred_boxes"])
    weight = logits.new_ones(logits.shape[-1])
    weight[-1] = no_object_weight
    wanted = logits.new_full(logits.shape[:2], len(weight) - 1, dtype=torch.long)
    nothing = boxes[:0].flatten(0, 1)  # (0, 4): there may be no image at all
    found, truth = [nothing], [nothing]
    for i, (query, target) in enumerate(pairs):
        wanted[i, query] = targets[i]["labels"][target].long()
        found.append(boxes[i, query])
        truth.append(targets[i]["boxes"][target].to(boxes))
    ours, theirs = torch.cat(found), torch.cat(truth)  # (pairs, 4)
    giou = generalized_box_iou(box_cxcywh_to_xyxy(ours), box_cxcywh_to_xyxy(theirs))
    count = max(sum(len(target["labels"]) for target in targets), 1)
    entropy = F.cross_entropy(logits.mT, wanted, weight, reduction="sum")
    return {
        # The sum of weights is 0 without queries, or where all have weight 0.
        "loss_ce": entropy / weight[wanted].sum().clamp(min=torch.finfo().tiny),
        "loss_bbox": (ours - theirs).abs().sum() / count,
        "loss_giou": (1 - giou.diagonal()).sum() / count,
    }


class DetrLoss(nn.Module):
    """The set loss after every decoder layer, each with a matching of its own.

    outputs and targets as for HungarianMatcher; outputs may hold "aux_outputs", a list
    of further {"pred_logits", "pred_boxes"}. Gives the scalars of set_loss, for the
    aux_outputs with _0, _1, ... at the end of their names, and "loss": all of them
    times `weights` (for classes, L1 and GIoU), added. Raises ValueError for logits
    without num_classes + 1 classes.
    Source: Carion et al. 2020, section 3.2 (auxiliary decoding losses).

    Example:
        >>> import torch
        >>> logits, boxes = torch.zeros(1, 2, 4), torch.full((1, 2, 4), 0.5)
        >>> logits[0, 0, 1] = 2  # one query is right, the other undecided
        >>> target = {"labels": torch.tensor([1]), "boxes": torch.full((1, 4), 0.5)}
        >>> losses = DetrLoss(num_classes=3, matcher=HungarianMatcher())(
        ...     {"pred_logits": logits, "pred_boxes": boxes}, [target]
        ... )
        >>> {name: round(float(value), 4) for name, value in losses.items()}
        {'loss_ce': 0.4358, 'loss_bbox': 0.0, 'loss_giou': 0.0, 'loss': 0.4358}
    """

    def __init__(
        self,
        num_classes: int,
        matcher: HungarianMatcher,
        no_object_weight: float = 0.1,
        weights: tuple[float, float, float] = (1, 5, 2),
    ):
        super().__init__()
        self.num_classes, self.matcher = num_classes, matcher
        self.no_object_weight, self.weights = no_object_weight, weights

    def forward(
        self, outputs: _Outputs, targets: Sequence[_Target]
    ) -> dict[str, Tensor]:
        expected, classes = self.num_classes + 1, outputs["pred_logits"].shape[-1]
        if classes != expected:
            raise ValueError(f"expected {expected} logits a query, got {classes}")
        losses: dict[str, Tensor] = {}
        total = outputs["pred_logits"].new_zeros(())
        layers = {"": outputs}
        for number, layer in enumerate(outputs.get("aux_outputs", [])):
            layers[f"_{number}"] = layer
        for suffix, layer in layers.items():
            pairs = self.matcher(layer, targets)
            of_layer = set_loss(layer, targets, pairs, self.no_object_weight)
            losses |= {name + suffix: value for name, value in of_layer.items()}
            weighted = zip(self.weights, of_layer.values(), strict=True)
            total = total + sum(weight * value for weight, value in weighted)
        return {**losses, "loss": total}


class DetrEncoderLayer(nn.Module):
    """Self-attention over the pixels, then a small network for each: post-norm.

    forward(x, position, padding=None): x (B, N, dim), position (B, N, dim) added to
    queries and keys but not to values, padding (B, N), True where a pixel is padding.
    Gives (B, N, dim). Raises ValueError if dim is not a multiple of heads.
    Source: Carion et al. 2020, appendix A.3 and figure 10.

    Example:
        >>> import torch
        >>> x = torch.randn(2, 6, 8)
        >>> DetrEncoderLayer(dim=8, heads=2, hidden=16)(x, torch.zeros_like(x)).shape
        torch.Size([2, 6, 8])
    """

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float = 0.1):
        super().__init__()
        _check_heads(dim, heads)
        self.attention = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, position: Tensor, padding: Tensor | None = None
    ) -> Tensor:
        where = x + position
        seen, _ = self.attention(where, where, x, padding, need_weights=False)
        x = self.norms[0](x + self.dropout(seen))
        hidden = self.dropout(F.relu(self.up(x)))
        result: Tensor = self.norms[1](x + self.dropout(self.down(hidden)))
        return result


class DetrDecoderLayer(nn.Module):
    """Queries look at each other, then at the picture, then think: post-norm.

    forward(x, query_position, memory, position, padding=None): x, query_position
    (B, Q, dim); memory, position (B, N, dim): the encoder's output and its codes;
    padding (B, N), True where a pixel is padding. Positions are added to queries and
    keys, not to values. Gives x (B, Q, dim) and the attention to the picture (B, Q, N),
    the mean of the heads. Raises ValueError if dim is not a multiple of heads.
    Source: Carion et al. 2020, appendix A.3 and figure 10.

    Example:
        >>> import torch
        >>> x, memory = torch.zeros(2, 3, 8), torch.randn(2, 6, 8)
        >>> layer = DetrDecoderLayer(dim=8, heads=2, hidden=16)
        >>> x, attention = layer(x, torch.randn(2, 3, 8), memory, torch.randn(2, 6, 8))
        >>> x.shape, attention.shape
        (torch.Size([2, 3, 8]), torch.Size([2, 3, 6]))
    """

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float = 0.1):
        super().__init__()
        _check_heads(dim, heads)
        self.mutual = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.cross = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        query_position: Tensor,
        memory: Tensor,
        position: Tensor,
        padding: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        where = x + query_position
        seen, _ = self.mutual(where, where, x, need_weights=False)
        x = self.norms[0](x + self.dropout(seen))
        seen, attention = self.cross(
            x + query_position, memory + position, memory, padding
        )
        x = self.norms[1](x + self.dropout(seen))
        hidden = self.dropout(F.relu(self.up(x)))
        return self.norms[2](x + self.dropout(self.down(hidden))), attention


class DetrBackbone(nn.Module):
    """Three convolutions that each halve the picture, in place of a pretrained ResNet.

    forward(images): images (B, 3, H, W). Gives three feature maps, at 1/2, 1/4 and 1/8
    of the size (rounded up), with dim / 4, dim / 2 and dim channels. Raises ValueError
    for images without 3 channels, and if dim is not a multiple of 16.

    Example:
        >>> import torch
        >>> [tuple(map.shape) for map in DetrBackbone(16)(torch.zeros(2, 3, 32, 41))]
        [(2, 4, 16, 21), (2, 8, 8, 11), (2, 16, 4, 6)]
    """

    def __init__(self, dim: int):
        super().__init__()
        if dim < 16 or dim % 16:
            raise ValueError(f"dim must be a multiple of 16, got {dim}")
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.GroupNorm(4, o), nn.ReLU())
            for i, o in pairwise([3, dim // 4, dim // 2, dim])
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected images (B, 3, H, W), got {tuple(images.shape)}")
        features = [images]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features[1:]


class DetrDecoder(nn.Module):
    """Object queries, layers that refine them, and two heads that read every layer.

    forward(memory, position, padding=None): memory and position (B, N, dim), padding
    (B, N), True where a pixel is padding. Gives "pred_logits" (B, Q, num_classes + 1),
    the last for "no object"; "pred_boxes" (B, Q, 4), cxcywh in [0, 1]; "aux_outputs",
    a list of both for every earlier layer; "queries" (B, Q, dim) and "attention"
    (B, Q, N) of the last layer. The heads and the norm before them are shared.
    Source: Carion et al. 2020, section 3.2 and appendix A.3.

    Example:
        >>> import torch
        >>> decoder = DetrDecoder(3, num_queries=5, dim=8, heads=2, layers=4)
        >>> outputs = decoder(torch.zeros(2, 6, 8), torch.randn(2, 6, 8))
        >>> outputs["pred_logits"].shape, len(outputs["aux_outputs"])
        (torch.Size([2, 5, 4]), 3)
    """

    def __init__(
        self,
        num_classes: int,
        num_queries: int,
        dim: int,
        heads: int,
        layers: int,
        dropout: float = 0.1,
    ):
        super().__init__()
        sizes = dim, heads, 4 * dim, dropout
        self.layers = nn.ModuleList(DetrDecoderLayer(*sizes) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.query_position = nn.Parameter(torch.randn(num_queries, dim))
        self.classify = nn.Linear(dim, num_classes + 1)
        wide = [m for _ in range(2) for m in (nn.Linear(dim, dim), nn.ReLU())]
        self.locate = nn.Sequential(*wide, nn.Linear(dim, 4))

    def forward(
        self, memory: Tensor, position: Tensor, padding: Tensor | None = None
    ) -> _Outputs:
        place = self.query_position.expand(len(memory), -1, -1)  # (B, Q, dim)
        x, outputs = torch.zeros_like(place), []  # a query is nothing but its place
        for layer in self.layers:
            x, attention = layer(x, place, memory, position, padding)
            found = self.norm(x)
            logits, boxes = self.classify(found), self.locate(found).sigmoid()
            outputs.append({"pred_logits": logits, "pred_boxes": boxes})
        last = {"queries": found, "attention": attention}
        return outputs[-1] | last | {"aux_outputs": outputs[:-1]}


class Detr(nn.Module):
    """A small DETR: backbone, encoder and decoder.

    forward(images, mask=None): images (B, 3, H, W), mask (B, H, W), True where an image
    is padding. Gives what DetrDecoder gives, its "attention" as (B, Q, h, w), and for a
    mask head "memory" (B, dim, h, w), "features" at 1/2 and 1/4, finest first, and
    "padding" (B, h, w). Raises ValueError for images without 3 channels and for a mask
    that does not fit or is not boolean.
    Source: Carion et al. 2020, section 3.2 and figure 10.

    Example:
        >>> import torch
        >>> model = Detr(num_classes=3, num_queries=5, dim=16, heads=2)
        >>> outputs = model(torch.zeros(2, 3, 32, 48))
        >>> outputs["pred_logits"].shape, outputs["pred_boxes"].shape
        (torch.Size([2, 5, 4]), torch.Size([2, 5, 4]))
    """

    def __init__(
        self,
        num_classes: int,
        num_queries: int = 100,
        dim: int = 256,
        heads: int = 8,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.backbone, self.embed = DetrBackbone(dim), nn.Conv2d(dim, dim, 3, padding=1)
        self.position = SinePositionEmbedding(dim)
        sizes = dim, heads, 4 * dim, dropout
        layers = (DetrEncoderLayer(*sizes) for _ in range(encoder_layers))
        self.encoder = nn.ModuleList(layers)
        of_decoder = num_classes, num_queries, dim, heads, decoder_layers, dropout
        self.decoder = DetrDecoder(*of_decoder)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> _Outputs:
        *features, x = self.backbone(images)
        x = self.embed(x)  # (B, dim, h, w)
        size, grid = (len(images), *images.shape[2:]), x.shape[2:]
        hidden = images.new_zeros(size, dtype=torch.bool) if mask is None else mask
        if hidden.shape != size or hidden.dtype != torch.bool:
            got = f"{tuple(hidden.shape)} of {hidden.dtype}"
            raise ValueError(f"expected a boolean mask {size}, got {got}")
        padding = F.interpolate(hidden[:, None].float(), grid).squeeze(1) > 0
        position = self.position(padding).to(x.dtype).flatten(2).mT  # (B, h * w, dim)
        memory = x.flatten(2).mT
        flat = padding.flatten(1) if mask is not None else None
        for layer in self.encoder:
            memory = layer(memory, position, flat)
        outputs: _Outputs = self.decoder(memory, position, flat)
        outputs["attention"] = outputs["attention"].unflatten(2, grid)
        memory = memory.mT.unflatten(2, grid)
        return outputs | {"memory": memory, "features": features, "padding": padding}


def post_process(outputs: _Outputs, image_sizes: Tensor) -> list[dict[str, Tensor]]:
    """Scores, labels and boxes in pixels: all of them, without suppression.

    outputs as of Detr; image_sizes (B, 2): height and width of each image before
    padding. Gives for every image "scores" (Q,), the best class's probability with "no
    object" left out after the softmax; "labels" (Q,); "boxes" (Q, 4), corners in
    pixels. Half precision comes out as float32. Raises ValueError if image_sizes is
    not (B, 2).
    Source: Carion et al. 2020, section 3.2 and the official code.

    Example:
        >>> import torch
        >>> outputs = {
        ...     "pred_logits": torch.tensor([[[0.0, 2.0, 2.0]]]),
        ...     "pred_boxes": torch.tensor([[[0.5, 0.5, 0.5, 1.0]]]),
        ... }
        >>> post_process(outputs, torch.tensor([[100, 200]]))[0]["boxes"]
        tensor([[ 50.,   0., 150., 100.]])
    """
    logits, boxes = _wide(outputs["pred_logits"]), _wide(outputs["pred_boxes"])
    if image_sizes.shape != (len(logits), 2):
        got = tuple(image_sizes.shape)
        raise ValueError(f"expected {(len(logits), 2)} sizes, got {got}")
    scores, labels = logits.softmax(-1)[..., :-1].max(-1)  # (B, Q)
    height, width = image_sizes.to(boxes).unbind(1)
    scale = torch.stack([width, height, width, height], dim=1)[:, None]  # (B, 1, 4)
    corners = box_cxcywh_to_xyxy(boxes) * scale
    return [
        {"scores": scores[i], "labels": labels[i], "boxes": corners[i]}
        for i in range(len(scores))
    ]


class MaskHead(nn.Module):
    """Attention maps of each query over the picture, sharpened to a mask.

    forward(outputs): outputs of Detr. Gives mask logits (B, Q, h, w) at the size of the
    finest feature map. The maps are a softmax over all heads and pixels together;
    padding has none. Convolutions see each query's maps with the memory, and take in
    the finer features by addition. feature_dims: channels of outputs' "features",
    finest first. Raises ValueError if their number does not fit.
    Source: Carion et al. 2020, section 4.4 and figure 8, and the official code.

    Example:
        >>> import torch
        >>> outputs = {
        ...     "queries": torch.randn(2, 5, 8),
        ...     "memory": torch.randn(2, 8, 4, 6),
        ...     "features": [torch.randn(2, 3, 16, 24)],
        ...     "padding": torch.zeros(2, 4, 6, dtype=torch.bool),
        ... }
        >>> MaskHead(dim=8, heads=2, feature_dims=[3])(outputs).shape
        torch.Size([2, 5, 16, 24])
    """

    def __init__(
        self, dim: int, heads: int, feature_dims: Sequence[int], width: int = 16
    ):
        super().__init__()
        _check_heads(dim, heads)
        self.heads = heads
        self.query, self.key = nn.Linear(dim, dim), nn.Conv2d(dim, dim, 1)
        self.reduce, self.mix = nn.Conv2d(dim, width, 1), nn.Conv2d(heads, width, 1)
        coarse_first = list(reversed(feature_dims))
        self.adapt = nn.ModuleList(nn.Conv2d(d, width, 1) for d in coarse_first)
        self.refine = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(4, width))
            for _ in range(len(coarse_first) + 1)
        )
        self.last = nn.Conv2d(width, 1, 1)

    def attention(self, outputs: _Outputs) -> Tensor:
        """Maps (B, Q, heads, h, w), those of one query adding up to 1."""
        query = self.query(outputs["queries"]).unflatten(-1, (self.heads, -1))
        key = self.key(outputs["memory"]).unflatten(1, (self.heads, -1))
        energy = torch.einsum("bqnd,bndhw->bqnhw", query * query.shape[-1] ** -0.5, key)
        energy = energy.masked_fill(outputs["padding"][:, None, None], -torch.inf)
        return energy.flatten(2).softmax(-1).view_as(energy)

    def forward(self, outputs: _Outputs) -> Tensor:
        expected, features = len(self.adapt), outputs["features"]
        if len(features) != expected:
            raise ValueError(f"expected {expected} feature maps, got {len(features)}")
        maps = self.attention(outputs)
        # A query's maps add up to 1: scaled, so that uniform ones are 1 everywhere.
        maps, sizes = maps * maps.shape[2:].numel(), maps.shape[:2]
        x = self.mix(maps.flatten(0, 1)).unflatten(0, sizes)  # (B, Q, width, h, w)
        x = x + self.reduce(outputs["memory"])[:, None]
        x = F.relu(self.refine[0](x.flatten(0, 1)))
        for i, feature in enumerate(reversed(features)):
            x = F.interpolate(x, feature.shape[2:]).unflatten(0, sizes)
            x = x + self.adapt[i](feature)[:, None]
            x = F.relu(self.refine[i + 1](x.flatten(0, 1)))
        logits: Tensor = self.last(x).squeeze(1).unflatten(0, sizes)
        return logits


def mask_loss(
    logits: Tensor, masks: Tensor, alpha: float = 0.25, gamma: float = 2
) -> Tensor:
    """Focal loss plus Dice loss of N masks, each a mean over the masks.

    logits, masks (N, H, W), masks 0 or 1. The focal loss multiplies cross-entropy by
    (1 - p)^gamma, p the probability given to the truth, and by alpha for a pixel of the
    object, 1 - alpha for the rest; Dice is 1 - (2 sum pm + 1) / (sum p + sum m + 1).
    A scalar, 0 if N is 0. Raises ValueError for unequal shapes.
    Source: Carion et al. 2020, section 4.4 and appendix A.2; Lin et al. 2017, eq. 5.

    Example:
        >>> import torch
        >>> mask_loss(torch.full((1, 2, 2), 9.0), torch.ones(1, 2, 2))
        tensor(5.4777e-05)
    """
    if logits.shape != masks.shape or logits.ndim != 3:
        shapes = f"{tuple(logits.shape)} and {tuple(masks.shape)}"
        raise ValueError(f"expected two (N, H, W), got {shapes}")
    logits = _wide(logits)
    masks = masks.to(logits.dtype)
    p = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    missed = p + masks - 2 * p * masks  # 1 - the probability given to the truth
    balance = 1 - alpha + (2 * alpha - 1) * masks
    focal = (balance * missed**gamma * entropy).flatten(1).mean(1)
    shared, both = (p * masks).flatten(1).sum(1), (p + masks).flatten(1).sum(1)
    dice = 1 - (2 * shared + 1) / (both + 1)
    return (focal + dice).sum() / max(len(logits), 1)


def merge_panoptic(
    masks: Tensor,
    scores: Tensor,
    labels: Tensor,
    stuff: Sequence[int] = (),
    min_score: float = 0.85,
    min_area: int = 4,
) -> tuple[Tensor, Tensor]:
    """One segment for every pixel, from the masks of one image's queries.

    masks (Q, H, W) logits, scores and labels (Q,) as from post_process. Queries with a
    score above `min_score` compete: each pixel goes to the largest logit, so segments
    cannot overlap. Masks of one class in `stuff` become one segment; segments of at
    most `min_area` pixels are dropped, and the others compete anew. Gives the map
    (H, W) of segment numbers and their classes (S,); without any, a map of -1. Raises
    ValueError if the three do not speak of the same queries.
    Source: Carion et al. 2020, section 4.4 (filter at 0.85, pixel-wise argmax).

    Example:
        >>> import torch
        >>> masks = torch.tensor([[[3.0, 1.0]], [[1.0, 2.0]], [[9.0, 9.0]]])
        >>> scores, labels = torch.tensor([0.9, 0.9, 0.3]), torch.tensor([4, 7, 5])
        >>> merge_panoptic(masks, scores, labels, min_area=0)
        (tensor([[0, 1]]), tensor([4, 7]))
    """
    if masks.ndim != 3 or not len(masks) == len(scores) == len(labels):
        raise ValueError(
            f"masks {tuple(masks.shape)}, scores {tuple(scores.shape)} and labels "
            f"{tuple(labels.shape)} must speak of the same queries"
        )
    keep = scores > min_score
    while True:
        masks, labels = masks[keep], labels[keep]
        if not len(masks):
            return masks.new_full(masks.shape[1:], -1, dtype=torch.long), labels
        segment = torch.arange(len(labels), device=labels.device)
        for c in stuff:
            same = labels == c
            segment[same] = segment[same][:1]
        winner = segment[masks.argmax(0)]  # (H, W)
        area = winner.flatten().bincount(minlength=len(labels))
        keep = area[segment] > min_area
        if keep.all():
            used, number = winner.unique(return_inverse=True)
            return number, labels[used]


def average_precision(
    predictions: Sequence[dict[str, Tensor]],
    targets: Sequence[_Target],
    num_classes: int,
    iou_threshold: float = 0.5,
) -> Tensor:
    """Average precision of each class at one IoU threshold, COCO's way.

    predictions: of each image {"scores", "labels", "boxes"}; targets: of each image
    {"labels", "boxes"}; boxes (n, 4) are corners. By falling score, each detection
    takes the free true box of its class and image with the largest IoU of at least the
    threshold; else it is false. Precision is made falling from the right and read at
    recalls 0, 0.01, ..., 1. No detection is cut off after COCO's hundredth, no box is a
    crowd. Gives (num_classes,) float64, NaN for a class without a true box. Raises
    ValueError if the two speak of different numbers of images.
    Source: Lin et al. 2014, and the evaluation code of COCO.

    Example:
        >>> import torch
        >>> box, label = torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([0])
        >>> found = {"scores": torch.tensor([0.9]), "labels": label, "boxes": box}
        >>> truth = {"labels": label, "boxes": box}
        >>> average_precision([found], [truth], num_classes=1)
        tensor([1.], dtype=torch.float64)
    """
    if len(predictions) != len(targets):
        raise ValueError(f"{len(predictions)} predictions for {len(targets)} targets")
    scores, labels, right = [torch.zeros(0)], [torch.zeros(0)], []
    for i, truth in enumerate(targets):
        found = predictions[i]
        order = found["scores"].argsort(descending=True, stable=True)
        scores.append(found["scores"][order].cpu())
        labels.append(found["labels"][order].cpu())
        iou, _ = box_iou(found["boxes"][order], truth["boxes"])
        same = found["labels"][order][:, None] == truth["labels"]
        # Row by row, NumPy is several times faster.
        free = torch.where(same, iou, -torch.inf).numpy(force=True)
        for row in free:
            right.append(len(row) > 0 and bool(row.max() >= iou_threshold))
            if right[-1]:
                free[:, row.argmax()] = -np.inf  # taken
    order = torch.cat(scores).argsort(descending=True, stable=True)
    label, hit = torch.cat(labels)[order], torch.tensor(right).double()[order]
    result = torch.full((num_classes,), torch.nan, dtype=torch.float64)
    for c in range(num_classes):
        true_boxes = sum(int((truth["labels"] == c).sum()) for truth in targets)
        if true_boxes:
            hits = hit[label == c].cumsum(0)
            precision = hits / torch.arange(1, len(hits) + 1)
            precision = precision.flip(0).cummax(0)[0].flip(0)
            recall = torch.from_numpy(np.linspace(0, 1, 101))
            first = torch.searchsorted(hits / true_boxes, recall)
            result[c] = precision[first[first < len(hits)]].sum() / len(recall)
    return result


def panoptic_quality(
    predictions: Sequence[tuple[Tensor, Tensor]],
    targets: Sequence[tuple[Tensor, Tensor]],
    num_classes: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Panoptic quality of each class, and its factors: PQ = SQ * RQ.

    Both: of each image a map (H, W) of segment numbers, -1 for none, and the classes
    (S,) of the segments. Segments of one class match if their IoU is above 1/2, which
    at most one can be; no pixel is void. SQ is the mean IoU of the matches, RQ their
    number over the mean number of predicted and true segments. Gives three
    (num_classes,) float64, NaN for a class in neither; SQ is 0 without a match. Raises
    ValueError for maps of different shapes or numbers.
    Source: Kirillov et al. 2019, eq. 1 and 2.

    Example:
        >>> import torch
        >>> truth = (torch.tensor([[0, 0, 1, 1]]), torch.tensor([0, 1]))
        >>> found = (torch.tensor([[0, 1, 1, 1]]), torch.tensor([0, 1]))
        >>> panoptic_quality([found], [truth], num_classes=2)[0]  # IoU 1/2 is no match
        tensor([0.0000, 0.6667], dtype=torch.float64)
    """
    if len(predictions) != len(targets):
        raise ValueError(f"{len(predictions)} predictions for {len(targets)} targets")
    iou, matches, segments = torch.zeros(3, num_classes, dtype=torch.float64)
    for i, (truth, labels) in enumerate(targets):
        found, guesses = predictions[i]
        if found.shape != truth.shape:
            shapes = f"{tuple(found.shape)} for a truth {tuple(truth.shape)}"
            raise ValueError(f"map {shapes}")
        guesses, labels = guesses.cpu(), labels.cpu()
        ours = found.cpu() == torch.arange(len(guesses))[:, None, None]  # (S, H, W)
        theirs = truth.cpu() == torch.arange(len(labels))[:, None, None]
        ours, theirs = ours.flatten(1).double(), theirs.flatten(1).double()
        shared = ours @ theirs.T  # (S, T) pixels
        union = ours.sum(1)[:, None] + theirs.sum(1) - shared
        ratio = torch.where(guesses[:, None] == labels, shared / union, 0)
        row, column = (ratio > 0.5).nonzero(as_tuple=True)
        iou.index_add_(0, guesses[row], ratio[row, column])
        matches += guesses[row].bincount(minlength=num_classes)
        segments += torch.cat([guesses, labels]).bincount(minlength=num_classes)
    recognition = 2 * matches / segments  # 0 / 0: NaN
    quality = torch.where(segments > 0, iou / matches.clamp(min=1), torch.nan)
    return quality * recognition, quality, recognition


def greedy_assignment(cost: np.ndarray) -> _Assignment:
    """Take the cheapest pair still free, again and again: one to one, but not optimal.

    cost (N, M): finite numbers. Gives two index arrays of min(N, M), rows ascending.
    Raises ValueError if cost is not a finite matrix.

    Example:
        >>> import numpy as np
        >>> rows, columns = greedy_assignment(np.array([[1, 2], [2, 9]]))
        >>> rows.tolist(), columns.tolist()
        ([0, 1], [0, 1])
    """
    cost = np.array(cost, dtype=np.float64)  # a copy, to cross out in
    if cost.ndim != 2 or not np.isfinite(cost).all():
        raise ValueError(f"expected a matrix of finite costs, got shape {cost.shape}")
    pairs = []
    for _ in range(min(cost.shape)):
        row, column = np.unravel_index(cost.argmin(), cost.shape)
        pairs.append((row, column))
        cost[row], cost[:, column] = np.inf, np.inf
    rows, columns = np.array(sorted(pairs), dtype=np.int64).reshape(len(pairs), 2).T
    return rows, columns


def non_maximum_suppression(
    boxes: Tensor, scores: Tensor, iou_threshold: float
) -> Tensor:
    """Indices of the boxes kept, by falling score: what DETR does without.

    boxes (N, 4) corners, scores (N,). A box is dropped if its IoU with a kept box of
    higher score is above `iou_threshold`. Raises ValueError if the numbers differ.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]])
        >>> non_maximum_suppression(boxes, torch.tensor([0.8, 0.9, 0.7]), 0.5)
        tensor([1, 2])
    """
    if len(boxes) != len(scores):
        raise ValueError(f"{len(boxes)} boxes for {len(scores)} scores")
    order = scores.argsort(descending=True, stable=True)
    close = box_iou(boxes[order], boxes[order])[0] > iou_threshold
    kept = torch.zeros_like(order, dtype=torch.bool)
    for i in range(len(boxes)):
        kept[i] = not (close[i] & kept).any()
    return order[kept]


def shifted_square_giou(side: float, shift: float) -> float:
    """GIoU of a square and its copy moved by `shift` along one axis, in closed form.

    While they overlap the hull is their union, and GIoU is the IoU, (s - d) / (s + d);
    apart, the gap counts: -(d - s) / (d + s). One formula: (s - d) / (s + d). Raises
    ValueError for a side that is not positive or a negative shift.

    Example:
        >>> [shifted_square_giou(1, d) for d in (0, 1, 3)]
        [1.0, 0.0, -0.5]
    """
    if side <= 0 or shift < 0:
        raise ValueError(f"expected side > 0 and shift >= 0, got {side} and {shift}")
    return (side - shift) / (side + shift)


def inflated_score(probability: float, no_object_weight: float = 0.1) -> float:
    """The score that the class loss wants of a query which is right this often.

    A share r of queries has an object, with weight 1 in the cross-entropy; the others
    have none, with weight w. The mean loss -r log p - w (1 - r) log(1 - p) is least at
    p = r / (r + w (1 - r)). Raises ValueError if the probability is not in [0, 1] or
    the weight is not positive.

    Example:
        >>> round(inflated_score(0.5), 3)  # right every second time
        0.909
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"expected a probability in [0, 1], got {probability}")
    if not no_object_weight > 0:
        raise ValueError(f"expected a positive weight, got {no_object_weight}")
    return probability / (probability + no_object_weight * (1 - probability))
