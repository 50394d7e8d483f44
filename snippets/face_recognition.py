"""Face recognition: find, align, embed with a margin, compare and set a threshold."""

from collections.abc import Callable
from math import ceil, cos, pi, prod, sin

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def arcface_template(size: int = 112) -> Tensor:
    """Where the five landmarks of an aligned face belong, (5, 2) pixels, x then y.

    Left eye, right eye, nose tip, left and right corner of the mouth, as the viewer
    sees them. At 112 these are the published numbers, `ARCFACE_TEMPLATE`. Pixel i has
    its center at coordinate i, so another size scales about -0.5, the image's corner.
    Raises ValueError if size is below 1.
    Source: InsightFace, the code of Deng et al. 2019, whose crops are 112 x 112.

    Example:
        >>> arcface_template()[2]
        tensor([56.0252, 71.7366])
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    points = [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
    return (torch.tensor(points) + 0.5) * (size / 112) - 0.5


def __getattr__(name: str) -> Tensor:
    """`ARCFACE_TEMPLATE`, a new one each time, so that nobody can change another's."""
    if name == "ARCFACE_TEMPLATE":
        return arcface_template()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def umeyama(source: Tensor, target: Tensor, with_scale: bool = True) -> Tensor:
    """The rotation, scale and shift that bring one set of points nearest to another.

    Minimizes sum ||y_i - (s R x_i + t)||^2 over s > 0 and proper rotations R: never a
    mirror image. source and target (..., N, D), leading axes broadcast; gives
    [s R | t], (..., D, D + 1), at least float32. with_scale False keeps s = 1.
    Points in a line determine a rotation of the plane, coincident ones do not: where no
    rotation is best, ValueError; likewise for other shapes and non-finite values.
    Computed in float64. Gradients reach both sets, unless the covariance has two equal
    singular values, where those of the SVD do not exist.
    Source: Umeyama 1991, equations 34 to 43.

    Example:
        >>> import torch
        >>> square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
        >>> umeyama(square, 2 * square + 3).round(decimals=4) + 0.0
        tensor([[2., 0., 3.],
                [0., 2., 3.]])
    """
    shapes = f"{tuple(source.shape)} and {tuple(target.shape)}"
    if source.ndim < 2 or source.shape[-2:] != target.shape[-2:]:
        raise ValueError(f"expected two sets of points (..., N, D), got {shapes}")
    if source.shape[-2] < 2 or source.shape[-1] < 2:
        raise ValueError(f"expected at least 2 points of 2 coordinates, got {shapes}")
    dtype = torch.promote_types(source.dtype, target.dtype)
    x, y = source.double(), target.double()
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("points must be finite, got NaN or infinity")
    x_mean, y_mean = x.mean(-2, keepdim=True), y.mean(-2, keepdim=True)
    covariance = (y - y_mean).mT @ (x - x_mean)  # (..., D, D), times N
    u, sigma, vh = torch.linalg.svd(covariance)
    # The best orthogonal matrix may be a reflection: then turn its weakest axis round.
    sign = torch.linalg.det(u @ vh).round()[..., None]  # (..., 1)
    sigma = torch.cat([sigma[..., :-1], sign * sigma[..., -1:]], -1)  # (..., D)
    size = x.square().sum((-2, -1)) * y.square().sum((-2, -1))
    if not (sigma[..., -2:].sum(-1) > 1e-12 * size.sqrt()).all():
        raise ValueError("points that coincide, or mirrored ones, fix no rotation")
    rotation = torch.cat([u[..., :-1], sign[..., None] * u[..., -1:]], -1) @ vh
    if with_scale:
        variance = (x - x_mean).square().sum((-2, -1))
        rotation = (sigma.sum(-1) / variance)[..., None, None] * rotation
    shift = y_mean.mT - rotation @ x_mean.mT  # (..., D, 1)
    matrix = torch.cat([rotation, shift], -1)
    return matrix.to(torch.promote_types(dtype, torch.float32))


def similarity_transform(points: Tensor, matrix: Tensor) -> Tensor:
    """Move points by a matrix [A | t]: x becomes A x + t.

    points (..., N, D), matrix (..., D, D + 1), leading axes broadcast; gives
    (..., N, D), of the wider of the two dtypes. Raises ValueError for other shapes.

    Example:
        >>> import torch
        >>> quarter_turn = torch.tensor([[0.0, -1.0, 5.0], [1.0, 0.0, 0.0]])
        >>> similarity_transform(torch.tensor([[1.0, 2.0]]), quarter_turn)
        tensor([[3., 1.]])
    """
    if points.ndim < 2 or matrix.shape[-2:] != (points.shape[-1], points.shape[-1] + 1):
        raise ValueError(
            "expected points (..., N, D) and a matrix (..., D, D + 1), "
            f"got {tuple(points.shape)} and {tuple(matrix.shape)}"
        )
    dtype = torch.promote_types(points.dtype, matrix.dtype)
    points, matrix = (x.to(dtype) for x in (points, matrix))
    return points @ matrix[..., :-1].mT + matrix[..., None, :, -1]


def _check_face(image: Tensor, landmarks: Tensor) -> None:
    if image.ndim < 3 or landmarks.shape != (*image.shape[:-3], 5, 2):
        raise ValueError(
            "expected an image (..., C, H, W) and landmarks (..., 5, 2), "
            f"got {tuple(image.shape)} and {tuple(landmarks.shape)}"
        )
    if not (image.is_floating_point() and landmarks.is_floating_point()):
        raise ValueError(
            "image and landmarks must be floating point, "
            f"got {image.dtype} and {landmarks.dtype}"
        )


def _pixels(height: int, width: int, like: Tensor) -> Tensor:
    """The centers of an image's pixels, (H, W, 2), x then y, at least float32."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    y, x = (
        torch.arange(n, device=like.device, dtype=dtype) for n in (height, width)
    )
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def _resample(image: Tensor, points: Tensor) -> Tensor:
    """Read image (..., C, H, W) at points (..., h, w, 2) in pixels, 0 outside."""
    *batch, channels, height, width = image.shape
    # With align_corners False the outer edges, half a pixel beyond centers, are +-1.
    grid = (2 * points + 1) / points.new_tensor([width, height]) - 1
    flat = image.reshape(prod(batch), channels, height, width).to(points.dtype)
    grid = grid.reshape(prod(batch), *grid.shape[-3:])
    read = F.grid_sample(flat, grid, align_corners=False)
    return read.reshape(*batch, *read.shape[1:]).to(image.dtype)


def align_face(image: Tensor, landmarks: Tensor, size: int = 112) -> Tensor:
    """Cut out a face so that its landmarks fall on the template.

    image (..., C, H, W) floating point, landmarks (..., 5, 2) in pixels, x then y, in
    the template's order. Gives (..., C, size, size): bilinear, 0 outside the image.
    Gradients reach image and landmarks. A crop much smaller than the face in the image
    aliases, as bilinear reading does; blur the image first.
    Raises ValueError for other shapes or dtypes, or landmarks that fix no rotation.
    Source: Deng et al. 2019, section 3.1: five landmarks, a similarity transformation.

    Example:
        >>> import torch
        >>> image = torch.rand(3, 112, 112)
        >>> torch.allclose(align_face(image, arcface_template()), image, atol=1e-3)
        True
    """
    _check_face(image, landmarks)
    pixels = _pixels(size, size, landmarks.double())
    template = arcface_template(size).to(landmarks.device)
    matrix = umeyama(landmarks.double(), template)  # (..., 2, 3)
    # Each pixel of the crop asks where it comes from: x = A^-1 y - A^-1 t.
    inverse = torch.linalg.inv(matrix[..., :2])
    points = pixels.flatten(0, 1) @ inverse.mT  # (..., size^2, 2)
    points -= (inverse @ matrix[..., 2:]).mT
    points = points.to(torch.promote_types(image.dtype, torch.float32))
    return _resample(image, points.unflatten(-2, (size, size)))


def _area(low: Tensor, high: Tensor) -> Tensor:
    """Of boxes from low to high, both (N, 2); 0 for those that are turned round."""
    return (high - low).clamp(min=0).prod(1)


def iou_nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Greedy non-maximum suppression: drop whatever overlaps a better box too much.

    boxes (N, 4) as x1, y1, x2, y2, scores (N,). Gives the indices kept, best first,
    (K,) int64. A box goes if its IoU with a kept one is *above* `threshold`; of equal
    scores the lower index wins; boxes without area overlap with nothing.
    Raises ValueError for other shapes, a threshold outside 0 to 1, or NaN scores.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10.0]])
        >>> iou_nms(boxes, torch.tensor([0.6, 0.9, 0.8]), threshold=0.5)
        tensor([1, 2])
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise ValueError(
            "expected boxes (N, 4) and scores (N,), "
            f"got {tuple(boxes.shape)} and {tuple(scores.shape)}"
        )
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must lie in 0 to 1, got {threshold}")
    if scores.isnan().any():
        raise ValueError("scores must be numbers, got NaN")
    # Half precision would round coordinates beyond 2048 and overflow in areas.
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
    area = _area(boxes[:, :2], boxes[:, 2:])  # (N,)
    waiting = scores.argsort(descending=True, stable=True)
    kept = []
    while waiting.numel():
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        low = torch.maximum(boxes[best, :2], boxes[waiting, :2])
        high = torch.minimum(boxes[best, 2:], boxes[waiting, 2:])
        overlap = _area(low, high)
        union = area[best] + area[waiting] - overlap
        waiting = waiting[overlap <= threshold * union]  # no division: 0 / 0 stays
    return torch.stack(kept) if kept else waiting


def turn_face(
    image: Tensor,
    landmarks: Tensor,
    yaw: float | Tensor,
    pitch: float | Tensor = 0.0,
    roll: float | Tensor = 0.0,
) -> tuple[Tensor, Tensor]:
    """Turn a face in space as if the head were a sphere, and see it from the front.

    image (..., C, H, W), landmarks (..., 5, 2) in pixels; angles in degrees, numbers or
    tensors (...): positive yaw moves the nose right, pitch down, roll clockwise. Gives
    image and landmarks of the same shapes. The sphere's center is the mean of the
    landmarks, its radius 1.75 times the distance of the farthest; outside of it the
    image stays. What the camera did not see is filled by its mirror image at the rim.
    Raises ValueError for other shapes or dtypes, or landmarks that coincide.
    Source: after Masi et al. 2016, who turn a generic three-dimensional face.

    Example:
        >>> import torch
        >>> eyes_nose_mouth = [[38, 52], [74, 52], [56, 72], [42, 92], [71, 92.0]]
        >>> image, points = torch.rand(3, 112, 112), torch.tensor(eyes_nose_mouth)
        >>> image, points = turn_face(image, points, yaw=30.0)
        >>> points[2].round()  # the tip of the nose
        tensor([80., 72.])
    """
    _check_face(image, landmarks)
    height, width = image.shape[-2:]
    pixels = _pixels(height, width, image)
    points = landmarks.to(pixels)
    center = points.mean(-2, keepdim=True)  # (..., 1, 2)
    reach = torch.linalg.vector_norm(points - center, dim=-1).amax(-1)
    radius = reach[..., None, None] * 1.75  # (..., 1, 1)
    if not (radius > 0).all():
        raise ValueError("landmarks that coincide show no head")
    turn = _rotation(yaw, pitch, roll).to(pixels)  # (..., 3, 3)

    def turned(flat: Tensor, by: Tensor) -> Tensor:
        """Lift points (..., N, 2) to the sphere, turn it, and look from the front."""
        unit = (flat - center) / radius
        depth = 1 - unit.square().sum(-1, keepdim=True)
        depth = depth.clamp(min=1e-12).sqrt()  # 0 has no gradient
        lifted = torch.cat([unit, depth], -1) @ by.mT
        seen: Tensor = center + radius * lifted[..., :2]
        return seen

    flat = pixels.flatten(0, 1)  # (H W, 2)
    inside = (flat - center).square().sum(-1, keepdim=True) < radius.square()
    origin = torch.where(inside, turned(flat, turn.mT), flat)  # (..., H W, 2)
    moved = turned(points, turn).to(landmarks.dtype)
    return _resample(image, origin.unflatten(-2, (height, width))), moved


def _rotation(*degrees: float | Tensor) -> Tensor:
    """Yaw, then pitch, then roll; x right, y down, z to the viewer. (..., 3, 3)."""
    angles = [torch.as_tensor(angle, dtype=torch.float64) for angle in degrees]
    turn = torch.eye(3, dtype=torch.float64, device=angles[0].device)
    for angle, (first, second) in zip(angles, ((0, 2), (1, 2), (1, 0)), strict=True):
        c, s = angle.deg2rad().cos(), angle.deg2rad().sin()
        step = torch.zeros(*angle.shape, 3, 3, dtype=c.dtype, device=c.device)
        step[..., range(3), range(3)] = 1.0
        step[..., first, first] = step[..., second, second] = c
        step[..., first, second], step[..., second, first] = s, -s
        turn = step @ turn
    return turn


def random_pose(
    image: Tensor,
    landmarks: Tensor,
    generator: torch.Generator,
    max_yaw: float = 40.0,
    max_pitch: float = 20.0,
    max_roll: float = 10.0,
) -> tuple[Tensor, Tensor]:
    """One-to-many augmentation: the same face in another, random pose.

    image (..., C, H, W), landmarks (..., 5, 2) in pixels; every image gets its own yaw,
    pitch and roll, uniform within plus and minus its limit in degrees. Gives image and
    landmarks of the same shapes, see `turn_face`.
    Raises ValueError for other shapes or dtypes, or limits outside 0 to 90.

    Example:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> image, points = torch.rand(8, 3, 48, 48), 16 + 16 * torch.rand(8, 5, 2)
        >>> image, points = random_pose(image, points, generator)
        >>> image.shape, points.shape
        (torch.Size([8, 3, 48, 48]), torch.Size([8, 5, 2]))
    """
    limits = (max_yaw, max_pitch, max_roll)
    if not all(0 <= limit <= 90 for limit in limits):
        raise ValueError(f"limits must lie in 0 to 90 degrees, got {limits}")
    batch = image.shape[:-3]
    draws = torch.rand(3, *batch, generator=generator, device=generator.device)
    yaw, pitch, roll = (
        (limit * (2 * draw - 1)).to(image.device)
        for limit, draw in zip(limits, draws, strict=True)
    )
    return turn_face(image, landmarks, yaw, pitch, roll)


def _unit(x: Tensor) -> Tensor:
    """Vectors (..., D) scaled to length 1, at least float32; a zero vector stays."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    # By 1 instead of 0: F.normalize divides by 1e-12, and so the gradient explodes.
    unit: Tensor = x / length.masked_fill(length == 0, 1)
    return unit


def pool_templates(embeddings: Tensor, quality: Tensor | None = None) -> Tensor:
    """Many-to-one: one unit vector for the several images of one person.

    embeddings (..., N, D) of any length, scaled to 1 first; quality (..., N), weights
    of 0 or more, equal if not given. Gives (..., D): the direction of the weighted
    mean. With the embeddings' own norms as quality, it is their plain mean's direction.
    Raises ValueError for other shapes, no embedding, or weights that are negative, not
    finite or all zero.
    Source: the templates of Klare et al. 2015 (IJB-A), several images of one person.

    Example:
        >>> import torch
        >>> images = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
        >>> pool_templates(images, quality=torch.tensor([3.0, 4.0]))
        tensor([0.6000, 0.8000])
    """
    if embeddings.ndim < 2 or embeddings.shape[-2] == 0:
        raise ValueError(f"expected (..., N, D), N > 0, got {tuple(embeddings.shape)}")
    unit = _unit(embeddings)
    if quality is None:
        return _unit(unit.sum(-2))
    shape = unit.shape[:-1]
    if quality.shape != shape:
        raise ValueError(
            f"expected quality {tuple(shape)}, got {tuple(quality.shape)}"
        )
    largest = quality.amax(-1)
    if (quality < 0).any() or not ((largest > 0) & largest.isfinite()).all():
        raise ValueError(f"quality must be finite, 0 or more, not all 0, got {quality}")
    return _unit((quality[..., None] * unit).sum(-2))


def flip_fuse(model: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """Embed an image and its mirror image, and add the two: a template of two views.

    model: (B, C, H, W) to (B, D), in eval mode. Gives (B, D) of length 1. Do the same
    to both sides of every comparison. Raises ValueError for images of other shapes.
    Source: the test-time practice of Wang et al. 2018, section 4.1, who concatenate.

    Example:
        >>> import torch
        >>> image = torch.rand(2, 3, 8, 8)
        >>> model = lambda x: x.flatten(1)
        >>> fused = flip_fuse(model, image)
        >>> torch.allclose(fused, flip_fuse(model, image.flip(-1)))
        True
    """
    if image.ndim != 4:
        raise ValueError(f"expected images (B, C, H, W), got {tuple(image.shape)}")
    return _unit(model(image) + model(image.flip(-1)))


def _check_labels(
    embeddings: Tensor, labels: Tensor, num_classes: int, dim: int
) -> None:
    shape = tuple(embeddings.shape)
    if len(shape) != 2 or shape[1] != dim:
        raise ValueError(f"expected embeddings (B, {dim}), got {shape}")
    if labels.shape != shape[:1] or labels.is_floating_point():
        raise ValueError(
            f"expected integer labels ({shape[0]},), "
            f"got {tuple(labels.shape)} of {labels.dtype}"
        )
    if labels.numel() and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"labels must lie in 0 to {num_classes - 1}, "
            f"got {int(labels.min())} to {int(labels.max())}"
        )


def _new_weight(dim: int, num_classes: int) -> nn.Parameter:
    """Random directions, (num_classes, dim); only their direction will matter."""
    if dim < 1 or num_classes < 1:
        raise ValueError(
            f"dim and num_classes must be at least 1, got {dim} and {num_classes}"
        )
    return nn.Parameter(F.normalize(torch.randn(num_classes, dim), dim=1))


def _cosines(embeddings: Tensor, weight: Tensor) -> Tensor:
    """cos(theta) of each embedding with each class, (B, C), at least float32.

    Also under autocast, which would compute the product in half precision: near 1 its
    steps are 2^-11, and the angle is off by 0.03.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        return F.linear(_unit(embeddings), _unit(weight)).clamp(-1, 1)


def softmax_logits(
    embeddings: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """The logits of an ordinary classifier: w_j . x + b_j, without any margin.

    embeddings (B, D), weight (C, D), bias (C,). Gives (B, C). Both lengths count, and a
    class with a long weight is preferred. Raises ValueError for other shapes.

    Example:
        >>> import torch
        >>> weight = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
        >>> softmax_logits(torch.tensor([[2.0, 1.0]]), weight)  # nearer to the first
        tensor([[2., 3.]])
    """
    dims = embeddings.ndim, weight.ndim
    if dims != (2, 2) or embeddings.shape[1] != weight.shape[1]:
        raise ValueError(
            "expected embeddings (B, D) and weight (C, D), "
            f"got {tuple(embeddings.shape)} and {tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"expected bias ({len(weight)},), got {tuple(bias.shape)}")
    return F.linear(embeddings, weight, bias)


def _check_positive(**named: float) -> None:
    for name, value in named.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")


def contrastive_loss(
    a: Tensor, b: Tensor, same: Tensor, margin: float = 1.0
) -> Tensor:
    """Pull pairs of one person together, push others out to a distance of `margin`.

    Mean of d^2 / 2 for equal and max(0, margin - d)^2 / 2 for different people, with d
    the Euclidean distance. a, b (B, D), same (B,) boolean. Gives a scalar, at least
    float32, NaN for no pairs. The gradient is finite, 0 for a = b.
    Raises ValueError for other shapes or dtypes, or a margin that is not positive.
    Source: Hadsell et al. 2006, equation 4, where Y = 1 marks *different* ones.

    Example:
        >>> import torch
        >>> a, b = torch.zeros(2, 2), torch.tensor([[0.6, 0.8], [0.3, 0.4]])
        >>> contrastive_loss(a, b, torch.tensor([True, False]), margin=1.0)
        tensor(0.3125)
    """
    if a.ndim != 2 or a.shape != b.shape or same.shape != a.shape[:1]:
        raise ValueError(
            "expected a and b (B, D) and same (B,), "
            f"got {tuple(a.shape)}, {tuple(b.shape)} and {tuple(same.shape)}"
        )
    if same.dtype != torch.bool:
        raise ValueError(f"same must be boolean, got {same.dtype}")
    _check_positive(margin=margin)
    dtype = torch.promote_types(a.dtype, torch.float32)
    distance = torch.linalg.vector_norm(a.to(dtype) - b, dim=1)  # (B,)
    gap = torch.where(same, distance, (margin - distance).clamp(min=0))
    return gap.square().mean() / 2


def triplet_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 0.2
) -> Tensor:
    """Make the other image of a person nearer than a stranger, by a margin.

    Mean of max(0, ||a - p||^2 - ||a - n||^2 + margin), all (B, D); distances *squared*.
    Gives a scalar, at least float32, NaN for no triplets. FaceNet's embeddings have
    length 1: normalize first, or the margin means nothing.
    Raises ValueError for other shapes or a negative margin.
    Source: Schroff et al. 2015 (FaceNet), equation 3, margin 0.2.

    Example:
        >>> import torch
        >>> anchor, positive = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.8, 0.6]])
        >>> triplet_loss(anchor, positive, torch.tensor([[0.6, 0.8]]), margin=0.5)
        tensor(0.1000)
    """
    if anchor.ndim != 2 or not anchor.shape == positive.shape == negative.shape:
        shapes = [tuple(x.shape) for x in (anchor, positive, negative)]
        raise ValueError(f"expected three tensors of one shape (B, D), got {shapes}")
    if not margin >= 0:
        raise ValueError(f"margin must be 0 or more, got {margin}")
    dtype = torch.promote_types(anchor.dtype, torch.float32)
    anchor, positive, negative = (x.to(dtype) for x in (anchor, positive, negative))
    near = (anchor - positive).square().sum(1)  # (B,)
    far = (anchor - negative).square().sum(1)
    return (near - far + margin).clamp(min=0).mean()


def semi_hard_triplets(
    embeddings: Tensor, labels: Tensor, margin: float = 0.2
) -> tuple[Tensor, Tensor, Tensor]:
    """For each pair of one person, the nearest stranger who is farther than the pair.

    embeddings (B, D), labels (B,) integer. Gives the indices of anchors, positives and
    negatives, (T,) int64 each: for every ordered pair, the negative with the smallest
    ||a - n||^2 above ||a - p||^2 and below ||a - p||^2 + margin; pairs without one are
    left out. Nearer strangers, the hardest, may collapse the training.
    Raises ValueError for other shapes or dtypes, or a negative margin.
    Source: Schroff et al. 2015, section 3.2, equation 4.

    Example:
        >>> import torch
        >>> points = torch.tensor([[0.0], [0.5], [0.4], [0.6]])
        >>> semi_hard_triplets(points, torch.tensor([0, 0, 1, 2]))
        (tensor([0]), tensor([1]), tensor([3]))
    """
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            "expected embeddings (B, D) and labels (B,), "
            f"got {tuple(embeddings.shape)} and {tuple(labels.shape)}"
        )
    if not margin >= 0:
        raise ValueError(f"margin must be 0 or more, got {margin}")
    x = embeddings.detach().to(torch.promote_types(embeddings.dtype, torch.float32))
    exact = "donot_use_mm_for_euclid_dist"
    squared = torch.cdist(x, x, compute_mode=exact).square()  # (B, B)
    same = labels[:, None] == labels
    anchor, positive = same.fill_diagonal_(False).nonzero(as_tuple=True)  # (P,)
    near, far = squared[anchor, positive][:, None], squared[anchor]  # (P, 1), (P, B)
    stranger = labels[anchor][:, None] != labels
    usable = stranger & (far > near) & (far < near + margin)
    negative = far.masked_fill(~usable, torch.inf).argmin(1) if len(anchor) else anchor
    found = usable.any(1)
    return anchor[found], positive[found], negative[found]


class CenterLoss(nn.Module):
    """Pull each embedding towards the center of its class; used *beside* softmax.

    Mean over the batch of ||x - c||^2 / 2, with c the class's center. embeddings
    (B, dim), labels (B,) integer. Gives a scalar, at least float32. `centers`
    (num_classes, dim) is a buffer, at 0 first, and no parameter: after each step call
    `update`, which moves every center seen by rate times sum(x - c) / (1 + count).
    Raises ValueError for other shapes, dtypes or labels.
    Source: Wen et al. 2016, equations 2 to 4. They sum over the batch; in both terms of
    equation 5, so that lambda is the same.

    Example:
        >>> import torch
        >>> loss = CenterLoss(num_classes=2, dim=2)
        >>> x, labels = torch.tensor([[2.0, 0.0], [4.0, 0.0]]), torch.tensor([1, 1])
        >>> loss(x, labels)
        tensor(5.)
        >>> loss.update(x, labels)
        >>> loss.centers
        tensor([[0., 0.],
                [1., 0.]])
    """

    centers: Tensor

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        # In the shape of a head's weights, where the sizes are checked.
        centers = torch.zeros_like(_new_weight(dim, num_classes))
        self.register_buffer("centers", centers)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        _check_labels(embeddings, labels, *self.centers.shape)
        away = embeddings - self.centers[labels]  # (B, D), at least float32
        return away.square().sum(1).mean() / 2

    def update(self, embeddings: Tensor, labels: Tensor, rate: float = 0.5) -> None:
        _check_labels(embeddings, labels, *self.centers.shape)
        away = embeddings.detach().to(self.centers) - self.centers[labels]  # (B, D)
        total = torch.zeros_like(self.centers).index_add_(0, labels.long(), away)
        count = labels.long().bincount(minlength=len(self.centers))[:, None]
        self.centers += rate * total / (1 + count)


class SphereFace(nn.Module):
    """Multiplicative angular margin: the target's angle counts `margin` times.

    Logits ||x|| cos(theta_j), but ||x|| psi(theta) for the label, with
    psi(theta) = (-1)^k cos(m theta) - 2 k for theta in [k pi / m, (k + 1) pi / m].
    embeddings (B, dim), labels (B,) integer; gives (B, num_classes), at least float32.
    `blend`, lambda in the paper, softens the margin while it is large: the target is
    (lambda cos(theta) + psi(theta)) / (1 + lambda). Lower it from some 1000 to 5.
    Raises ValueError for other shapes, dtypes or labels, or a margin below 1.
    Source: Liu et al. 2017, equations 6 and 7; lambda is Liu et al. 2016, section 4.

    Example:
        >>> import torch
        >>> head = SphereFace(dim=2, num_classes=2, margin=4)
        >>> _ = head.weight.data.copy_(torch.eye(2))
        >>> head(torch.tensor([[2.0, 2.0]]), torch.tensor([0])).detach()  # 45 degrees
        tensor([[-2.8284,  2.0000]])
    """

    def __init__(
        self, dim: int, num_classes: int, margin: int = 4, blend: float = 0.0
    ) -> None:
        super().__init__()
        if margin < 1 or margin != int(margin):
            raise ValueError(f"margin must be a whole number from 1, got {margin}")
        self.weight = _new_weight(dim, num_classes)  # (num_classes, dim)
        self.margin, self.blend = int(margin), blend

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        _check_labels(embeddings, labels, *self.weight.shape)
        cosine = _cosines(embeddings, self.weight)  # (B, num_classes)
        index = labels[:, None].long()
        target = cosine.gather(1, index)
        # Chebyshev: cos((n + 1) t) = 2 cos(t) cos(n t) - cos((n - 1) t). No acos, whose
        # gradient is infinite at 0 and pi; k is a constant on each piece.
        before, multiple = torch.ones_like(target), target
        for _ in range(self.margin - 1):
            before, multiple = multiple, 2 * target * multiple - before
        k = (target.detach().acos() * self.margin / pi).floor()
        psi = (1 - 2 * (k % 2)) * multiple - 2 * k
        mixed = (self.blend * target + psi) / (1 + self.blend)
        length = embeddings.to(cosine.dtype).norm(dim=1, keepdim=True)
        logits: Tensor = length * cosine.scatter(1, index, mixed)
        return logits


class CosFace(nn.Module):
    """Additive cosine margin: s (cos(theta) - m) for the label, s cos(theta_j) else.

    embeddings (B, dim), labels (B,) integer; gives logits (B, num_classes), at least
    float32, for `cross_entropy`. Embeddings and weights are scaled to length 1.
    Raises ValueError for other shapes, dtypes or labels, or a scale not positive.
    Source: Wang et al. 2018 (CosFace), equation 4; m = 0.35, s = 64.

    Example:
        >>> import torch
        >>> head = CosFace(dim=2, num_classes=2, scale=10, margin=0.35)
        >>> _ = head.weight.data.copy_(torch.eye(2))
        >>> head(torch.tensor([[6.0, 8.0]]), torch.tensor([0])).detach()
        tensor([[2.5000, 8.0000]])
    """

    def __init__(
        self, dim: int, num_classes: int, scale: float = 64.0, margin: float = 0.35
    ) -> None:
        super().__init__()
        _check_positive(scale=scale)
        self.weight = _new_weight(dim, num_classes)  # (num_classes, dim)
        self.scale, self.margin = scale, margin

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        _check_labels(embeddings, labels, *self.weight.shape)
        cosine = _cosines(embeddings, self.weight)  # (B, num_classes)
        index = labels[:, None].long()
        target = cosine.gather(1, index) - self.margin
        return self.scale * cosine.scatter(1, index, target)


class ArcFace(nn.Module):
    """Additive angular margin: s cos(theta + m) for the label, s cos(theta_j) else.

    embeddings (B, dim), labels (B,) integer; gives logits (B, num_classes), at least
    float32, for `cross_entropy`. Embeddings and weights are scaled to length 1, the
    margin is in radians. Past theta = pi - m, where cos(theta + m) would rise again,
    the target is s (cos(theta) - m sin(m)); with `easy_margin` there is a margin only
    where cos(theta) > 0. Gradients are finite for all angles.
    Raises ValueError for other shapes, dtypes or labels, a scale that is not positive,
    or a margin outside 0 to pi / 2.
    Source: Deng et al. 2019, equation 3; both branches are from its first code.

    Example:
        >>> import torch
        >>> head = ArcFace(dim=2, num_classes=2, scale=10, margin=0.5)
        >>> _ = head.weight.data.copy_(torch.eye(2))
        >>> head(torch.tensor([[6.0, 8.0]]), torch.tensor([0])).detach()
        tensor([[1.4301, 8.0000]])
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        scale: float = 64.0,
        margin: float = 0.5,
        easy_margin: bool = False,
    ) -> None:
        super().__init__()
        if not scale > 0 or not 0 <= margin <= pi / 2:
            raise ValueError(
                "scale must be positive and margin lie in 0 to pi / 2, "
                f"got {scale} and {margin}"
            )
        self.weight = _new_weight(dim, num_classes)  # (num_classes, dim)
        self.scale, self.margin, self.easy_margin = scale, margin, easy_margin

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        _check_labels(embeddings, labels, *self.weight.shape)
        cosine = _cosines(embeddings, self.weight)  # (B, num_classes)
        index = labels[:, None].long()
        target = cosine.gather(1, index)
        # At 0 and pi the root's gradient is infinite; the sine is 0 there, with none.
        square = 1 - target.square()
        flat = square <= 0
        sine = square.masked_fill(flat, 1).sqrt().masked_fill(flat, 0)
        moved = target * cos(self.margin) - sine * sin(self.margin)  # cos(theta + m)
        if self.easy_margin:
            moved = torch.where(target > 0, moved, target)
        else:
            past = target - self.margin * sin(self.margin)
            moved = torch.where(target > -cos(self.margin), moved, past)
        return self.scale * cosine.scatter(1, index, moved)


def cosine_scores(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity of every row of one set with every row of the other.

    a (..., M, D), b (..., N, D), leading axes broadcast; gives (..., M, N), at least
    float32, in -1 to 1. A zero vector scores 0. For pairs of rows take
    `cosine_scores(a[:, None], b[:, None]).flatten()`.
    Raises ValueError for other shapes.

    Example:
        >>> import torch
        >>> a, b = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0], [-3.0, -4.0]])
        >>> cosine_scores(a, b)
        tensor([[ 0.8000, -1.0000]])
    """
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-1]:
        raise ValueError(
            "expected (..., M, D) and (..., N, D), "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    dtype = torch.promote_types(a.dtype, b.dtype)
    unit_a, unit_b = (_unit(x.to(dtype)) for x in (a, b))
    return (unit_a @ unit_b.mT).clamp_(-1, 1)


def _pairs(scores: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and truth of pairs as flat tensors, after a look at their values."""
    if scores.shape != same.shape or not scores.is_floating_point():
        raise ValueError(
            "expected scores and same of one shape, scores floating point, got "
            f"{tuple(scores.shape)} of {scores.dtype} and {tuple(same.shape)}"
        )
    if scores.isnan().any():
        raise ValueError("scores must be numbers, got NaN")
    if not ((same == 0) | (same == 1)).all():
        raise ValueError("same must be boolean, or 0 and 1, got other values")
    return scores.detach().flatten(), same.flatten() == 1


def roc(scores: Tensor, same: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """False and true accept rate at every threshold that changes anything.

    scores and same of one shape: a similarity, higher for more alike, and whether the
    pair is of one person. Accept if score >= threshold. Gives far and tar, float64, and
    the thresholds, from infinity (nothing accepted) down to the lowest score. Equal
    scores are accepted together, in one step.
    Raises ValueError for other shapes or dtypes, NaN, or only one kind of pair.

    Example:
        >>> import torch
        >>> same = torch.tensor([True, True, False, False])
        >>> far, tar, thresholds = roc(torch.tensor([0.9, 0.5, 0.5, 0.1]), same)
        >>> far.tolist(), tar.tolist()
        ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])
    """
    scores, same = _pairs(scores, same)
    genuine = int(same.sum())
    impostor = same.numel() - genuine
    if genuine == 0 or impostor == 0:
        raise ValueError(f"need both kinds, got {genuine} genuine, {impostor} impostor")
    scores, order = scores.sort(descending=True)
    accepted = same[order].cumsum(0)
    last = torch.ones_like(same)  # of each run of equal scores
    last[:-1] = scores[1:] != scores[:-1]
    position = last.nonzero()[:, 0]
    tar = accepted[position].double() / genuine
    far = (position + 1 - accepted[position]).double() / impostor
    thresholds = F.pad(scores[position], (1, 0), value=torch.inf)
    return F.pad(far, (1, 0)), F.pad(tar, (1, 0)), thresholds


def threshold_at_far(scores: Tensor, same: Tensor, far: float) -> Tensor:
    """The lowest threshold at which no more than a share `far` of impostors get in.

    Choose it on held-out pairs, then accept where score >= threshold. A scalar of the
    scores' dtype, infinity if even the best score belongs to too many impostors. The
    share is counted, never interpolated; with fewer than 1 / far impostor pairs, none
    may get in. Arguments and errors as in `roc`; far must lie in 0 to 1.

    Example:
        >>> import torch
        >>> scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
        >>> same = torch.tensor([True, True, False, True, False])
        >>> threshold_at_far(scores, same, far=0.5)
        tensor(0.6000)
    """
    if not 0 <= far <= 1:
        raise ValueError(f"far must lie in 0 to 1, got {far}")
    rates, _, thresholds = roc(scores, same)
    return thresholds[(rates <= far).sum() - 1]


def tar_at_far(scores: Tensor, same: Tensor, far: float) -> Tensor:
    """Share of genuine pairs accepted when at most a share `far` of impostors are.

    A float64 scalar: the highest TAR on the ROC whose measured FAR is not above `far`;
    no interpolation, and equal scores stand or fall together. With fewer than 1 / far
    impostor pairs this is the TAR at FAR 0. Arguments and errors as in `roc`; far must
    lie in 0 to 1.

    Example:
        >>> import torch
        >>> scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
        >>> same = torch.tensor([True, True, False, True, False])
        >>> tar_at_far(scores, same, far=0.1)
        tensor(0.6667, dtype=torch.float64)
    """
    threshold = threshold_at_far(scores, same, far)
    return (scores.detach()[same == 1] >= threshold).double().mean()


def equal_error_rate(scores: Tensor, same: Tensor) -> Tensor:
    """The error rate where as many impostors are accepted as genuine pairs rejected.

    A float64 scalar: where FAR = 1 - TAR on the ROC, its points joined by straight
    lines. 0 for perfect scores, 1/2 if all are equal. Arguments and errors as in `roc`.

    Example:
        >>> import torch
        >>> scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
        >>> equal_error_rate(scores, torch.tensor([True, False, True, False]))
        tensor(0.5000, dtype=torch.float64)
    """
    far, tar, _ = roc(scores, same)
    excess = far + tar - 1  # rises from -1 to 1
    after = int((excess < 0).sum())
    step = excess[after] - excess[after - 1]
    return far[after] - excess[after] / step * (far[after] - far[after - 1])


def kfold_threshold(
    scores: Tensor, same: Tensor, folds: int = 10
) -> tuple[Tensor, Tensor]:
    """Accuracy of each fold at the threshold that was best on all the others.

    scores and same (N,), cut in order into `folds` parts as equal as possible, as in
    LFW's list of pairs. Gives (folds,) accuracies, float64, and (folds,) thresholds:
    the highest of those with the best accuracy. Report the accuracies' mean, and their
    standard deviation over the square root of folds.
    Raises ValueError as `roc` does, or for folds outside 2 to N.
    Source: Huang et al. 2007 (LFW): ten folds, 6,000 pairs.

    Example:
        >>> import torch
        >>> scores = torch.tensor([0.9, 0.2, 0.7, 0.1, 0.8, 0.75])
        >>> same = torch.tensor([True, False, True, False, True, False])
        >>> kfold_threshold(scores, same, folds=3)[0]
        tensor([1.0000, 0.5000, 0.5000], dtype=torch.float64)
    """
    scores, same = _pairs(scores, same)
    if not 2 <= folds <= len(scores):
        raise ValueError(f"folds must lie in 2 to {len(scores)}, got {folds}")
    accuracies, chosen = [], []
    for part in torch.arange(len(scores), device=scores.device).tensor_split(folds):
        others = torch.ones_like(same)
        others[part] = False
        far, tar, thresholds = roc(scores[others], same[others])
        genuine = same[others].sum()
        impostor = others.sum() - genuine
        # Pairs judged rightly, but for a constant; whole, so that ties are ties.
        best = (tar * genuine - far * impostor).round().argmax()
        accepted = scores[part] >= thresholds[best]
        accuracies.append((accepted == same[part]).double().mean())
        chosen.append(thresholds[best])
    return torch.stack(accuracies), torch.stack(chosen)


def identify(
    probe: Tensor, gallery: Tensor, threshold: float | None = None
) -> tuple[Tensor, Tensor]:
    """The gallery's most similar entry for each probe, and how similar it is.

    probe (P, D), gallery (G, D). Gives index (P,) int64 and cosine (P,). With a
    `threshold` the set is open: index -1 for a probe whose best score is below it.
    Without one, a stranger is always taken for somebody.
    Raises ValueError for other shapes or an empty gallery.

    Example:
        >>> import torch
        >>> gallery = torch.eye(3)
        >>> probe = torch.tensor([[0.1, 0.9, 0.0], [1.0, 1.0, 1.0]])
        >>> identify(probe, gallery, threshold=0.7)[0]
        tensor([ 1, -1])
    """
    if probe.ndim != 2 or gallery.ndim != 2 or len(gallery) == 0:
        raise ValueError(
            "expected probe (P, D) and gallery (G, D), G > 0, "
            f"got {tuple(probe.shape)} and {tuple(gallery.shape)}"
        )
    score, index = cosine_scores(probe, gallery).max(1)
    if threshold is not None:
        index = torch.where(score >= threshold, index, -1)
    return index, score


def _check_gallery(
    scores: Tensor, probe_labels: Tensor, gallery_labels: Tensor
) -> None:
    if scores.shape != (*probe_labels.shape, *gallery_labels.shape) or scores.ndim != 2:
        raise ValueError(
            "expected scores (P, G), probe_labels (P,) and gallery_labels (G,), got "
            f"{tuple(scores.shape)}, {tuple(probe_labels.shape)} and "
            f"{tuple(gallery_labels.shape)}"
        )
    if scores.isnan().any():
        raise ValueError("scores must be numbers, got NaN")


def cmc(scores: Tensor, probe_labels: Tensor, gallery_labels: Tensor) -> Tensor:
    """Share of probes whose own entry is among the best k of the gallery, for each k.

    scores (P, G) similarities, labels (P,) and (G,) integers. Gives (G,) float64 for
    k = 1 to G; element 0 is the rank-1 rate. Closed set: each probe needs an entry in
    the gallery; with several, the best counts. Ties count against the probe, so that
    equal scores for all are no success.
    Raises ValueError for other shapes, NaN, no probe, or a probe without an entry.

    Example:
        >>> import torch
        >>> scores = torch.tensor([[0.9, 0.1, 0.3], [0.6, 0.5, 0.2]])
        >>> cmc(scores, torch.tensor([7, 8]), torch.tensor([7, 8, 9]))
        tensor([0.5000, 1.0000, 1.0000], dtype=torch.float64)
    """
    _check_gallery(scores, probe_labels, gallery_labels)
    own = probe_labels[:, None] == gallery_labels  # (P, G)
    if not len(own) or not own.any(1).all():
        missing = probe_labels[~own.any(1)].tolist()
        raise ValueError(f"need probes that are in the gallery, got {missing}")
    best = scores.where(own, -torch.inf).amax(1, keepdim=True)
    before = ((scores >= best) & ~own).sum(1, dtype=torch.int32)  # (P,): stand above
    found = before.bincount(minlength=scores.shape[1])  # (G,): probes, by rank
    return found.cumsum(0).double() / len(scores)


def open_set_rate(
    scores: Tensor, probe_labels: Tensor, gallery_labels: Tensor, far: float
) -> Tensor:
    """Share of known probes identified rightly, while few strangers pass for anyone.

    scores (P, G) similarities, labels (P,) and (G,) integers. Probes whose label is not
    in the gallery are strangers. The threshold is the lowest that the best score of at
    most a share `far` of them reaches, the false positive identification rate; a known
    probe counts if its own entry beats all others and reaches it too.
    Gives a float64 scalar. Raises ValueError for other shapes, NaN, a gallery or a kind
    of probe that is missing, or far outside 0 to 1.

    Example:
        >>> import torch
        >>> scores = torch.tensor([[0.9, 0.1], [0.6, 0.7], [0.65, 0.2]])
        >>> probe_labels, gallery_labels = torch.tensor([0, 1, 5]), torch.tensor([0, 1])
        >>> open_set_rate(scores, probe_labels, gallery_labels, far=0.0)
        tensor(1., dtype=torch.float64)
    """
    _check_gallery(scores, probe_labels, gallery_labels)
    own = probe_labels[:, None] == gallery_labels  # (P, G)
    known = own.any(1)
    if not known.any() or known.all():
        raise ValueError("need known probes and strangers, got one kind only")
    best = scores.amax(1)
    threshold = threshold_at_far(best, known, far)
    others = scores.masked_fill(own, -torch.inf).amax(1)
    mine = scores.masked_fill(~own, -torch.inf).amax(1)
    right = (mine > others) & (mine >= threshold)
    return right[known].double().mean()


def similarity_2d(source: Tensor, target: Tensor) -> Tensor:
    """The best rotation, scale and shift in the plane, without an SVD.

    source and target (..., N, 2); gives [s R | t], (..., 2, 3), at least float32. Taken
    as complex numbers, w = a z + b, with a = sum conj(z) w / sum |z|^2 for centered z
    and w: linear least squares, whose a cannot be a reflection. Gradients exist where
    the result does. Raises ValueError for other shapes, or source points that coincide.

    Example:
        >>> import torch
        >>> points = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
        >>> similarity_2d(points, torch.tensor([[0.0, 0.0], [0.0, 3.0]])) + 0.0
        tensor([[ 0., -3.,  0.],
                [ 3.,  0.,  0.]])
    """
    shape = source.shape[-2:]
    if len(shape) != 2 or shape[1] != 2 or shape != target.shape[-2:]:
        raise ValueError(
            "expected two sets of points (..., N, 2), "
            f"got {tuple(source.shape)} and {tuple(target.shape)}"
        )
    dtype = torch.promote_types(source.dtype, target.dtype)
    z, w = (torch.complex(*p.double().unbind(-1)) for p in (source, target))  # (..., N)
    z_mean, w_mean = z.mean(-1), w.mean(-1)
    away = z - z_mean[..., None]
    size = away.abs().square().sum(-1)
    share = size / z.abs().square().sum(-1)  # NaN if all lie at the origin
    if not (share > 1e-24).all():
        raise ValueError("the source points coincide")
    a = (away.conj() * w).sum(-1) / size  # the mean of w drops out
    b = w_mean - a * z_mean
    rows = [a.real, -a.imag, b.real, a.imag, a.real, b.imag]
    stacked = torch.stack(torch.broadcast_tensors(*rows), -1)
    matrix: Tensor = stacked.unflatten(-1, (2, 3))
    return matrix.to(torch.promote_types(dtype, torch.float32))


def cosine_from_distance(distance: Tensor, squared: bool = False) -> Tensor:
    """The cosine of two unit vectors that lie this far apart: 1 - d^2 / 2.

    distance, of any shape, 0 to 2, or with `squared` already squared, 0 to 4. Turns a
    threshold on distances (accept *below*) into one on cosines (accept *above*).
    Raises ValueError for a distance that unit vectors cannot have.

    Example:
        >>> import torch
        >>> cosine_from_distance(torch.tensor([0.0, 1.0, 2.0]))
        tensor([ 1.0000,  0.5000, -1.0000])
    """
    square = distance if squared else distance.square()
    if not ((distance >= 0) & (square <= 4)).all():
        raise ValueError(f"unit vectors are 0 to 2 apart, got {distance}")
    return 1 - square / 2


def impostor_pairs_needed(far: float, relative_error: float) -> int:
    """Independent impostor pairs for which a FAR is known to a relative error.

    The number accepted is binomial, so the standard error of the measured share is
    sqrt(far (1 - far) / n); relative to far it is at most `relative_error` from
    n = (1 - far) / (far relative_error^2). Pairs that share a person are not
    independent, and more of them are needed.
    Raises ValueError for far outside 0 to 1, or an error that is not positive.

    Example:
        >>> impostor_pairs_needed(far=1e-3, relative_error=0.1)
        99900
    """
    if not 0 < far < 1 or not relative_error > 0:
        raise ValueError(
            "far must lie between 0 and 1 and relative_error be positive, "
            f"got {far} and {relative_error}"
        )
    return ceil(round((1 - far) / (far * relative_error**2), 6))


def combined_margin(
    cosine: Tensor, multiply: float = 1.0, add: float = 0.5, subtract: float = 0.0
) -> Tensor:
    """One target for all three margins: cos(m1 theta + m2) - m3.

    cosine, of any shape, -1 to 1, float32 or float64: half precision is too coarse for
    angles. `multiply` is SphereFace's m1, `add` ArcFace's m2, `subtract` CosFace's m3.
    This falls with theta only as far as m1 theta + m2 <= pi; past that angle the target
    goes on parallel to cos(theta), without a jump. Gradients are finite.
    Raises ValueError unless multiply is 1 or more and add lies in 0 to pi.
    Source: Deng et al. 2019, equation 4.

    Example:
        >>> import torch
        >>> combined_margin(torch.tensor([0.6, 0.0]), add=0.0, subtract=0.35)
        tensor([ 0.2500, -0.3500])
    """
    if not multiply >= 1 or not 0 <= add <= pi:
        raise ValueError(
            "multiply must be 1 or more and add lie in 0 to pi, "
            f"got {multiply} and {add}"
        )
    flat = cosine.abs() >= 1  # angle 0 or pi, where acos has no gradient
    theta = cosine.masked_fill(flat, 0).acos()
    theta = torch.where(flat, (cosine < 0) * pi, theta)
    last = (pi - add) / multiply  # the angle where the first branch ends, at -1
    inside = (multiply * theta + add).cos()
    return torch.where(theta <= last, inside, cosine - cos(last) - 1) - subtract
