"""Races of face recognition, on galleries and lists of pairs as they are verified and searched."""

from __future__ import annotations

import numpy as np
import pytorch_metric_learning.losses
import scipy.ndimage
import sklearn.metrics
import sklearn.neighbors
import torch
from numpy.typing import NDArray
from skimage.transform import SimilarityTransform
from torch import Tensor

from scripts.pipeline.benchmark import Start, race
from snippets import face_recognition as ours

PAIRS = {"zh": "人脸对的得分数", "en": "scores of pairs"}
VECTORS = {"zh": "待查人脸 × 库中人脸，128 维", "en": "probes × gallery, 128 dimensions"}
SCORES = {"zh": "待查人脸 × 库中人脸", "en": "probes × gallery"}
BATCH = {"zh": "一批里的三元组数，512 维", "en": "triplets in a batch, 512 dimensions"}
FACES = {"zh": "对齐后的人脸数，3 × 112 × 112", "en": "aligned faces, 3 × 112 × 112"}
CLASSES = {"zh": "批量 × 类别数，512 维", "en": "batch × classes, 512 dimensions"}
LOOP = {"zh": "逐对循环", "en": "a loop over pairs"}

_FEW = "a formula of a few numbers"
_DRAWS = "no library here turns faces like that"
UNRACED = {
    "arcface_template": "five published points",
    "similarity_transform": "one matrix product",
    "iou_nms": "no library here has it",
    "turn_face": _DRAWS,
    "random_pose": _DRAWS,
    "pool_templates": "a mean, scaled to length one",
    "flip_fuse": "runs the reader's model twice",
    "softmax_logits": "one matrix product",
    "semi_hard_triplets": "libraries mine within another definition of semi-hard",
    "contrastive_loss": "libraries take all pairs of a batch, a square of distances, where ours takes those given",
    "CenterLoss": "no library here updates centers by the paper's rule",
    "threshold_at_far": "reads what roc counts",
    "tar_at_far": "reads what roc counts",
    "equal_error_rate": "reads what roc counts",
    "kfold_threshold": "no library here has this protocol",
    "open_set_rate": "no library here has this protocol",
    "similarity_2d": "raced as umeyama, whose fit it repeats without an SVD",
    "cosine_from_distance": _FEW,
    "impostor_pairs_needed": _FEW,
    "combined_margin": "the three margins are raced by themselves",
}


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _labels(count: int, classes: int) -> Tensor:
    return torch.randint(classes, (count,), generator=torch.Generator().manual_seed(1))


def _scored(pairs: int) -> tuple[Tensor, Tensor]:
    """Scores of which one in ten is of a genuine pair."""
    same = _labels(pairs, 10) == 0
    return _normal(pairs) + 2.0 * same, same


@race(
    "face_recognition.umeyama",
    sizes=(5, 500, 50_000),
    exponent=1,
    shape={"zh": "平面上的点数", "en": "points in the plane"},
)
def umeyama(points: int) -> Start:
    source = _normal(points, 2).double()  # as the reference takes them
    target = 2.0 * source.flip(-1) * torch.tensor([1.0, -1.0]) + 3.0
    a, b = source.numpy(), target.numpy()

    def theirs() -> NDArray[np.float64]:
        fit: NDArray[np.float64] = SimilarityTransform.from_estimate(a, b).params[:2]
        return fit

    return Start(lambda: ours.umeyama(source, target), {"skimage.transform.SimilarityTransform": theirs})


@race("face_recognition.align_face", sizes=(1, 8, 64), exponent=1, shape=FACES)
def align_face(faces: int) -> Start:
    image = torch.rand(faces, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    landmarks = (ours.arcface_template() * 1.7 + 20).expand(faces, 5, 2).contiguous()
    arrays = image.numpy()

    def theirs() -> NDArray[np.float32]:
        made = []
        for array, points in zip(arrays, landmarks, strict=True):
            matrix = ours.umeyama(ours.arcface_template(), points).numpy()
            x, y = np.meshgrid(np.arange(112), np.arange(112))
            place = matrix[:, :2] @ np.stack([x.ravel(), y.ravel()]) + matrix[:, 2:]
            crops = [scipy.ndimage.map_coordinates(channel, place[::-1], order=1) for channel in array]
            made.append(np.stack(crops).reshape(3, 112, 112))
        return np.stack(made)

    return Start(lambda: ours.align_face(image, landmarks), {"scipy.ndimage.map_coordinates": theirs})


@race("face_recognition.triplet_loss", sizes=(256, 1024, 4096), exponent=1, shape=BATCH)
def triplet_loss(triplets: int) -> Start:
    anchor, positive, negative = (_normal(triplets, 512, seed=seed) for seed in range(3))
    loss = torch.nn.TripletMarginWithDistanceLoss(
        distance_function=lambda a, b: (a - b).square().sum(-1), margin=0.2
    )
    return Start(
        lambda: ours.triplet_loss(anchor, positive, negative),
        {"torch.nn.TripletMarginWithDistanceLoss": lambda: loss(anchor, positive, negative)},
    )


@race("face_recognition.SphereFace", sizes=((64, 1000), (64, 4000), (64, 16_000)), exponent=1, shape=CLASSES)
def sphere_face(batch: int, classes: int) -> Start:
    embeddings, labels = _normal(batch, 512), _labels(batch, classes)
    module = ours.SphereFace(512, classes).requires_grad_(False)
    loss = pytorch_metric_learning.losses.SphereFaceLoss(classes, 512, margin=4, scale=1).requires_grad_(False)
    return Start(
        lambda: torch.nn.functional.cross_entropy(module(embeddings, labels), labels),
        {"pytorch_metric_learning.losses.SphereFaceLoss": lambda: loss(embeddings, labels)},
    )


@race("face_recognition.CosFace", sizes=((64, 1000), (64, 4000), (64, 16_000)), exponent=1, shape=CLASSES)
def cos_face(batch: int, classes: int) -> Start:
    embeddings, labels = _normal(batch, 512), _labels(batch, classes)
    module = ours.CosFace(512, classes).requires_grad_(False)
    loss = pytorch_metric_learning.losses.CosFaceLoss(classes, 512).requires_grad_(False)
    return Start(
        lambda: torch.nn.functional.cross_entropy(module(embeddings, labels), labels),
        {"pytorch_metric_learning.losses.CosFaceLoss": lambda: loss(embeddings, labels)},
    )


@race("face_recognition.ArcFace", sizes=((64, 1000), (64, 4000), (64, 16_000)), exponent=1, shape=CLASSES)
def arc_face(batch: int, classes: int) -> Start:
    embeddings, labels = _normal(batch, 512), _labels(batch, classes)
    module = ours.ArcFace(512, classes).requires_grad_(False)
    loss = pytorch_metric_learning.losses.ArcFaceLoss(classes, 512).requires_grad_(False)
    return Start(
        lambda: torch.nn.functional.cross_entropy(module(embeddings, labels), labels),
        {"pytorch_metric_learning.losses.ArcFaceLoss": lambda: loss(embeddings, labels)},
    )


@race("face_recognition.cosine_scores", sizes=((200, 500), (500, 2000), (1000, 8000)), exponent=1, shape=VECTORS)
def cosine_scores(probes: int, gallery: int) -> Start:
    a, b = _normal(probes, 128), _normal(gallery, 128, seed=1)
    x, y = a.numpy(), b.numpy()
    return Start(
        lambda: ours.cosine_scores(a, b),
        {"sklearn.metrics.pairwise.cosine_similarity": lambda: sklearn.metrics.pairwise.cosine_similarity(x, y)},
    )


@race("face_recognition.roc", sizes=(10_000, 100_000, 1_000_000), exponent=1, shape=PAIRS)
def roc(pairs: int) -> Start:
    scores, same = _scored(pairs)
    truth, values = same.numpy(), scores.numpy()
    return Start(
        lambda: ours.roc(scores, same),
        {"sklearn.metrics.roc_curve": lambda: sklearn.metrics.roc_curve(truth, values, drop_intermediate=False)},
    )


@race("face_recognition.identify", sizes=((200, 500), (500, 2000), (1000, 8000)), exponent=1, shape=VECTORS)
def identify(probes: int, gallery: int) -> Start:
    probe, entries = _normal(probes, 128), _normal(gallery, 128, seed=1)
    fitted = sklearn.neighbors.NearestNeighbors(n_neighbors=1, metric="cosine").fit(entries.numpy())
    array = probe.numpy()
    return Start(
        lambda: ours.identify(probe, entries),
        {"sklearn.neighbors.NearestNeighbors": lambda: fitted.kneighbors(array)},
    )


@race("face_recognition.cmc", sizes=((100, 200), (200, 500), (500, 1000)), exponent=1, shape=SCORES, naive=LOOP)
def cmc(probes: int, gallery: int) -> Start:
    scores, wanted = _normal(probes, gallery), _labels(probes, gallery)
    entries = torch.arange(gallery)
    truth, values, names = wanted.numpy(), scores.numpy(), np.arange(gallery)

    def theirs() -> list[float]:
        """Of the ranks that are usually reported; ours gives all of them."""
        return [
            sklearn.metrics.top_k_accuracy_score(truth, values, k=k, labels=names) for k in (1, 5, 10, 20)
        ]

    def naive() -> list[float]:
        counts = [0] * gallery
        for row, label in enumerate(wanted.tolist()):
            own = scores[row, label]
            counts[sum(1 for score in scores[row].tolist() if score > own)] += 1
        return [int(count) for count in np.cumsum(counts)]

    return Start(
        lambda: ours.cmc(scores, wanted, entries), {"sklearn.metrics.top_k_accuracy_score": theirs}, naive
    )
