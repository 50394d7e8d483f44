"""What the page on face recognition claims, against references that share no code with it."""

import importlib
import math
import re

import numpy as np
import pytest
import scipy.interpolate
import scipy.ndimage
import scipy.optimize
import sklearn.metrics
import sklearn.model_selection
import sklearn.neighbors
import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from scipy.spatial.transform import Rotation
from skimage.transform import EuclideanTransform, SimilarityTransform
from torch.nn import functional as F

from snippets.face_recognition import (
    ARCFACE_TEMPLATE,
    ArcFace,
    CenterLoss,
    CosFace,
    SphereFace,
    align_face,
    arcface_template,
    cmc,
    combined_margin,
    contrastive_loss,
    cosine_from_distance,
    cosine_scores,
    equal_error_rate,
    flip_fuse,
    identify,
    impostor_pairs_needed,
    iou_nms,
    kfold_threshold,
    open_set_rate,
    pool_templates,
    random_pose,
    roc,
    semi_hard_triplets,
    similarity_2d,
    similarity_transform,
    softmax_logits,
    tar_at_far,
    threshold_at_far,
    triplet_loss,
    turn_face,
    umeyama,
)

HALVES = [torch.float16, torch.bfloat16]
WIDE = [torch.float32, torch.float64]
PUBLISHED = [
    [38.2946, 51.6963],
    [73.5318, 51.5014],
    [56.0252, 71.7366],
    [41.5493, 92.3655],
    [70.7299, 92.2041],
]


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def uniform(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def strided(x):
    """The same values, not contiguous."""
    return torch.stack([x, torch.zeros_like(x)], -1)[..., 0]


def refused(message, call, *args, **options):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call(*args, **options)


# --- alignment -----------------------------------------------------------------------------------


def test_the_template_is_the_published_one(agrees_with):
    agrees_with(arcface_template, "closed form: the five published points", arcface_template(), PUBLISHED, atol=1e-5)
    assert torch.equal(ARCFACE_TEMPLATE, arcface_template(112))
    assert ARCFACE_TEMPLATE.dtype == torch.float32


def test_the_template_is_new_at_each_import_and_nothing_else_is_there():
    module = importlib.import_module("snippets.face_recognition")
    module.ARCFACE_TEMPLATE.zero_()
    assert torch.equal(module.ARCFACE_TEMPLATE, arcface_template())
    with pytest.raises(AttributeError, match=r"^module 'snippets.face_recognition' has no attribute 'TEMPLATE'$"):
        module.TEMPLATE  # noqa: B018


def test_other_sizes_scale_about_the_corner_of_the_image(agrees_with):
    for size in (1, 32, 56, 224):
        # A share of the width, from edge to edge, does not depend on the size.
        theirs = (np.array(PUBLISHED) + 0.5) / 112 * size - 0.5
        agrees_with(arcface_template, "closed form: shares of the width", arcface_template(size), theirs, atol=4e-5)
    refused("size must be at least 1, got 0", arcface_template, 0)


def points(*shape, seed=0, dtype=torch.float64):
    """A set of points and a similar one, with noise."""
    source = 100 * normal(*shape, seed=seed, dtype=torch.float64)
    noise = normal(*shape, seed=seed + 100, dtype=torch.float64)
    return source.to(dtype), (0.7 * source.roll(1, -1) * torch.tensor([1.0, -1.0]) + 9 + 20 * noise).to(dtype)


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("count", [2, 3, 5, 68])
@pytest.mark.parametrize("with_scale", [True, False])
def test_umeyama_is_that_of_scikit_image(agrees_with, dtype, count, with_scale):
    transform = SimilarityTransform if with_scale else EuclideanTransform
    for seed in range(3):
        source, target = points(count, 2, seed=seed, dtype=dtype)
        theirs = transform.from_estimate(source.double().numpy(), target.double().numpy()).params[:2]
        ours = umeyama(source, target, with_scale)
        agrees_with(
            umeyama, f"skimage.transform.{transform.__name__}", ours, theirs,
            atol=1e-12 if dtype == torch.float64 else 4e-6,
        )  # fmt: skip
        assert ours.dtype == dtype
    assert torch.equal(umeyama(source, target), umeyama(source, target, True))


def test_mirrored_points_are_turned_never_mirrored(agrees_with):
    """Without the guard, the best orthogonal matrix for mirrored landmarks is the mirror itself."""
    template = arcface_template().double()
    mirrored = template * torch.tensor([-1.0, 1.0]) + torch.tensor([112.0, 0.0])
    ours = umeyama(mirrored, template)
    theirs = SimilarityTransform.from_estimate(mirrored.numpy(), template.numpy()).params[:2]
    agrees_with(umeyama, "skimage.transform.SimilarityTransform", ours, theirs, atol=1e-13)
    assert torch.linalg.det(ours[:, :2]) > 0
    centered = (template - template.mean(0)).T @ (mirrored - mirrored.mean(0))
    u, _, vh = np.linalg.svd(centered.numpy())
    assert np.linalg.det(u @ vh) == pytest.approx(-1)  # what no guard would return


def test_umeyama_in_space_is_scipys_rotation(agrees_with):
    source = normal(4, 9, 3, dtype=torch.float64)
    rotation = Rotation.random(4, random_state=1)
    for index in range(4):
        target = 3 * rotation[index].apply(source[index]) + [1, 2, 3] + 0.1 * normal(9, 3, seed=7).numpy()
        target = torch.from_numpy(target)
        matrix = umeyama(source[index], target, with_scale=False)
        centered = [(x - x.mean(0)).numpy() for x in (target, source[index])]
        theirs = Rotation.align_vectors(*centered)[0].as_matrix()
        agrees_with(
            umeyama, "scipy.spatial.transform.Rotation.align_vectors", matrix[:, :3], theirs, atol=1e-14
        )
        mirrored = target * torch.tensor([1.0, 1.0, -1.0])
        full = SimilarityTransform.from_estimate(source[index].numpy(), mirrored.numpy()).params[:3]
        agrees_with(
            umeyama, "skimage.transform.SimilarityTransform", umeyama(source[index], mirrored), full, atol=1e-13
        )


def test_no_other_similarity_is_nearer(agrees_with):
    source, target = points(5, 2, seed=4)

    def loss(p):
        (a, b, x, y) = p
        moved = source.numpy() @ np.array([[a, b], [-b, a]]) + [x, y]
        return ((moved - target.numpy()) ** 2).ravel().sum()

    best = scipy.optimize.minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).fun
    moved = similarity_transform(source, umeyama(source, target))
    agrees_with(
        umeyama, "scipy.optimize.minimize", (moved - target).square().sum(), best, atol=2e-10
    )
    agrees_with(
        similarity_2d, "scipy.optimize.minimize",
        (similarity_transform(source, similarity_2d(source, target)) - target).square().sum(), best, atol=2e-10,
    )  # fmt: skip


@pytest.mark.parametrize("solve", [umeyama, similarity_2d])
def test_batches_broadcast_and_empty_ones_pass(agrees_with, solve):
    source, target = points(3, 5, 2)
    template = target[0]
    theirs = [SimilarityTransform.from_estimate(s.numpy(), template.numpy()).params[:2] for s in source]
    ours = solve(strided(source), template)
    agrees_with(solve, "skimage.transform.SimilarityTransform", ours, theirs, atol=1e-12)
    assert torch.equal(solve(template, source)[1], solve(template, source[1]))
    assert solve(source[:0], template).shape == (0, 2, 3)
    assert solve(source[:, None], target).shape == (3, 3, 2, 3)


@pytest.mark.parametrize("solve", [umeyama, similarity_2d])
def test_points_in_a_line_fix_a_rotation_of_the_plane(agrees_with, solve):
    line = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    slope = torch.tensor([[0.0, 1.0], [0.0, 3.0], [0.0, 7.0]], dtype=torch.float64)
    theirs = [[0, -2, 0], [2, 0, 1]]
    agrees_with(solve, "closed form: a quarter turn, twice as large", solve(line, slope), theirs, atol=1e-14)
    agrees_with(solve, "closed form: identity", solve(line, line), np.eye(2, 3), atol=1e-14)


@pytest.mark.parametrize("solve", [umeyama, similarity_2d])
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_points_give_a_float32_matrix(agrees_with, solve, dtype):
    source, target = points(5, 2, dtype=dtype)
    theirs = SimilarityTransform.from_estimate(source.double().numpy(), target.double().numpy()).params[:2]
    ours = solve(source, target)
    assert ours.dtype == torch.float32
    agrees_with(solve, "skimage.transform.SimilarityTransform", ours, theirs, atol=1e-6)
    assert solve(source, target.double()).dtype == torch.float64


def test_points_without_a_best_rotation_are_refused():
    message = "points that coincide, or mirrored ones, fix no rotation"
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    same = torch.full((4, 2), 0.1)
    for source, target in [(same, square), (square, same), (torch.zeros(4, 2), torch.zeros(4, 2))]:
        refused(message, umeyama, source, target)
    refused(message, umeyama, square, square * torch.tensor([-1.0, 1.0]))  # each turn is equally bad
    refused(message, umeyama, torch.stack([square, same]), square)
    line = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    refused(message, umeyama, line, line)  # in space a line can still roll
    assert umeyama(square + 1e5, square).shape == (2, 3)
    assert umeyama(square * 1e-9, square).shape == (2, 3)
    refused("the source points coincide", similarity_2d, same, square)
    refused("the source points coincide", similarity_2d, torch.stack([square, same]), square)
    collapsed = similarity_2d(square, same)  # every point to one place: that has an answer
    assert torch.allclose(collapsed, torch.tensor([[0.0, 0.0, 0.1], [0.0, 0.0, 0.1]]))
    assert similarity_2d(square + 1e5, square).shape == (2, 3)


def test_shapes_and_values_that_are_no_points_are_refused():
    a, b = torch.zeros(5, 2), torch.zeros(4, 2)
    refused("expected two sets of points (..., N, D), got (5, 2) and (4, 2)", umeyama, a, b)
    refused("expected two sets of points (..., N, D), got (2,) and (5, 2)", umeyama, a[0], a)
    refused("expected two sets of points (..., N, D), got (2,) and (2,)", umeyama, a[0], a[0])
    refused("expected at least 2 points of 2 coordinates, got (1, 2) and (1, 2)", umeyama, a[:1], a[:1])
    refused("expected at least 2 points of 2 coordinates, got (5, 1) and (5, 1)", umeyama, a[:, :1], a[:, :1])
    for value in (torch.nan, torch.inf):
        bad = arcface_template()
        bad[0, 0] = value
        refused("points must be finite, got NaN or infinity", umeyama, bad, arcface_template())
        refused("points must be finite, got NaN or infinity", umeyama, arcface_template(), bad)
    message = "expected two sets of points (..., N, 2), got {} and {}"
    for x, y in [(a, b), (a[0], a[0]), (torch.zeros(5, 3), torch.zeros(5, 3)), (a[0], a)]:
        refused(message.format(tuple(x.shape), tuple(y.shape)), similarity_2d, x, y)


def test_gradients_of_the_fit_are_right(agrees_with):
    source, target = points(5, 2)
    for solve in (umeyama, similarity_2d):
        pair = source.clone().requires_grad_(), target.clone().requires_grad_()
        assert torch.autograd.gradcheck(solve, pair)
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    corner = square.clone().requires_grad_()
    similarity_2d(corner, square).sum().backward()
    assert corner.grad.isfinite().all()
    corner = square.clone().requires_grad_()
    umeyama(corner, square).sum().backward()
    assert corner.grad.isnan().any()  # two equal singular values, as the docstring says


def test_moving_points_is_that_of_scikit_image(agrees_with):
    source, target = points(5, 2)
    matrix = umeyama(source, target)
    theirs = SimilarityTransform(np.vstack([matrix.numpy(), [0, 0, 1]]))(source.numpy())
    ours = similarity_transform(source, matrix)
    agrees_with(similarity_transform, "skimage.transform.SimilarityTransform", ours, theirs, atol=1e-12)
    batch = similarity_transform(strided(source.expand(3, 5, 2)), matrix)
    assert batch.shape == (3, 5, 2)
    agrees_with(similarity_transform, "skimage.transform.SimilarityTransform", batch[1], theirs, atol=1e-12)
    assert similarity_transform(source, matrix.expand(4, 2, 3)).shape == (4, 5, 2)
    assert similarity_transform(source[:0], matrix).shape == (0, 2)


def test_moving_points_in_space_and_of_two_dtypes():
    matrix = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 0.0, 5.0], [0.0, 0.0, 1.0, 6.0]])
    moved = similarity_transform(torch.tensor([[1.0, 1.0, 1.0]], dtype=torch.float16), matrix)
    assert moved.tolist() == [[10.0, 6.0, 7.0]]
    assert moved.dtype == torch.float32
    message = "expected points (..., N, D) and a matrix (..., D, D + 1), got {} and {}"
    for shape, other in [((5, 2), (3, 4)), ((2,), (2, 3)), ((5, 2), (2, 2)), ((5, 3), (2, 3)), ((5, 2), (3,))]:
        refused(message.format(shape, other), similarity_transform, torch.zeros(shape), torch.zeros(other))
    refused(message.format((), (0, 1)), similarity_transform, torch.zeros(()), torch.zeros(0, 1))


def warped(image, landmarks, size):
    """align_face by scikit-image and SciPy: fit, invert, read bilinearly."""
    template = (np.array(PUBLISHED) + 0.5) * size / 112 - 0.5
    fit = SimilarityTransform.from_estimate(landmarks.double().numpy(), template)
    y, x = np.mgrid[:size, :size]
    origin = fit.inverse(np.stack([x.ravel(), y.ravel()], -1))
    rows = [read(channel, origin).reshape(size, size) for channel in image.double().numpy()]
    return np.stack(rows)


def read(channel, origin):
    return scipy.ndimage.map_coordinates(channel, origin[:, ::-1].T, order=1, mode="grid-constant")


def face(seed=0, height=60, width=80):
    """An image and five landmarks on it, turned and smaller than the template."""
    landmarks = (arcface_template().double() - 56) @ torch.tensor([[0.3, 0.1], [-0.1, 0.3]]).double()
    landmarks = landmarks + torch.tensor([width / 2, height / 2]) + normal(5, 2, seed=seed)
    return uniform(3, height, width, seed=seed, dtype=torch.float64), landmarks


@pytest.mark.parametrize("size", [1, 32, 112])
@pytest.mark.parametrize("dtype", WIDE)
def test_the_crop_is_what_scikit_image_and_scipy_read(agrees_with, size, dtype):
    image, landmarks = face()
    ours = align_face(image.to(dtype), landmarks, size)
    theirs = warped(image, landmarks, size)
    # The template is float32: its places are off by up to 4e-6 pixels.
    atol = 4e-6 if dtype == torch.float64 else 2e-5
    agrees_with(align_face, "scipy.ndimage.map_coordinates", ours, theirs, atol=atol)
    assert ours.dtype == dtype
    assert ours.shape == (3, size, size)


def test_batches_of_images_are_cut_each_by_its_own_landmarks(agrees_with):
    pairs = [face(seed) for seed in range(4)]
    images, landmarks = (torch.stack(part) for part in zip(*pairs, strict=True))
    ours = align_face(strided(images), strided(landmarks), 20)
    theirs = [warped(*pair, 20) for pair in pairs]
    agrees_with(align_face, "scipy.ndimage.map_coordinates", ours, theirs, atol=4e-6)
    grid = align_face(images.reshape(2, 2, 3, 60, 80), landmarks.reshape(2, 2, 5, 2), 20)
    assert torch.equal(grid.reshape(4, 3, 20, 20), ours)
    assert align_face(images[:0], landmarks[:0], 20).shape == (0, 3, 20, 20)
    assert align_face(images, landmarks).shape == (4, 3, 112, 112)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_images_are_read_at_exact_places(agrees_with, dtype):
    image, landmarks = face()
    image = image.to(dtype)
    ours = align_face(image, landmarks.float(), 32)
    assert ours.dtype == dtype
    atol = 64 * torch.finfo(dtype).eps
    agrees_with(align_face, "scipy.ndimage.map_coordinates", ours, warped(image, landmarks, 32), atol=atol / 100)


def test_landmarks_land_on_the_template():
    """A bright pixel at each landmark is bright at the template's place."""
    landmarks = torch.tensor([[20.0, 30.0], [40.0, 28.0], [31.0, 40.0], [24.0, 52.0], [42.0, 50.0]])
    image = torch.zeros(5, 70, 70)
    for index, (x, y) in enumerate(landmarks.long().tolist()):
        image[index, y, x] = 1.0
    crop = align_face(image, landmarks)
    peak = crop.flatten(1).argmax(1)
    found = torch.stack([peak % 112, peak // 112], -1)
    moved = similarity_transform(landmarks, umeyama(landmarks, arcface_template()))
    assert (found - moved).abs().max() < 1
    assert (moved - arcface_template()).norm(dim=1).max() < 8


def test_a_crop_twice_as_large_shows_the_same_region():
    _, landmarks = face()
    ramp = torch.arange(80.0).double().expand(1, 60, 80) + 100  # linear: averages are exact inside
    small, large = align_face(ramp, landmarks, 20), align_face(ramp, landmarks, 40)
    inner = (slice(None), slice(6, 14), slice(6, 14))
    assert torch.allclose(F.avg_pool2d(large, 2)[inner], small[inner], atol=1e-9)


def test_gradients_reach_image_and_landmarks():
    image, landmarks = face(height=30, width=30)
    pair = image[:1].requires_grad_(), landmarks.requires_grad_()
    assert torch.autograd.gradcheck(lambda i, p: align_face(i, p, 3), pair, atol=1e-4, fast_mode=True)


@pytest.mark.parametrize("cut", [align_face, lambda i, p: turn_face(i, p, 10.0)])
def test_images_and_landmarks_that_do_not_fit_are_refused(cut):
    image, landmarks = torch.zeros(2, 3, 8, 8), torch.zeros(2, 5, 2)
    message = "expected an image (..., C, H, W) and landmarks (..., 5, 2), got {} and {}"
    for i, p in [(image, landmarks[0]), (image[0], landmarks), (image[0, 0], landmarks[0]), (image[0], landmarks[0, :4])]:
        refused(message.format(tuple(i.shape), tuple(p.shape)), cut, i, p)
    message = "image and landmarks must be floating point, got {} and {}"
    refused(message.format("torch.uint8", "torch.float32"), cut, image.byte(), landmarks)
    refused(message.format("torch.float32", "torch.int64"), cut, image, landmarks.long())


# --- detection -----------------------------------------------------------------------------------


def boxes(count, seed=0):
    corner, side = 20 * uniform(count, 2, seed=seed), 1 + 9 * uniform(count, 2, seed=seed + 1)
    return torch.cat([corner, corner + side], 1)


def suppressed(candidates, scores, threshold):
    """Try every box from the best down, in Python."""
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        a = candidates[i]
        for j in kept:
            b = candidates[j]
            width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
            height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
            areas = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
            inter = width * height
            if inter > 0 and inter / (areas - inter) > threshold:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_suppression_keeps_what_brute_force_keeps(agrees_with, threshold, seed):
    candidates, scores = boxes(60, seed), (uniform(60, seed=seed + 9) * 20).round()
    theirs = suppressed(candidates.double().tolist(), scores.tolist(), threshold)
    ours = iou_nms(strided(candidates), scores, threshold)
    agrees_with(iou_nms, "brute force: every box against every kept one", ours, theirs)
    assert ours.dtype == torch.int64


def test_an_overlap_equal_to_the_threshold_stays():
    pair = torch.tensor([[0.0, 0.0, 2.0, 1.0], [1.0, 0.0, 3.0, 1.0]])  # IoU 1 / 3
    scores = torch.tensor([0.5, 0.6])
    assert iou_nms(pair, scores, 1 / 3 + 1e-6).tolist() == [1, 0]
    assert iou_nms(pair, scores, 1 / 3 - 1e-6).tolist() == [1]
    half = torch.tensor([[0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    assert iou_nms(half, scores, 0.5).tolist() == [1, 0]
    assert iou_nms(half, scores, 0.0).tolist() == [1]
    apart = torch.tensor([[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 2.0, 1.0]])
    assert iou_nms(apart, scores, 0.0).tolist() == [1, 0]


def test_boxes_without_area_and_no_boxes_at_all():
    flat = torch.tensor([[1.0, 1.0, 1.0, 5.0], [1.0, 1.0, 1.0, 5.0], [3.0, 3.0, 2.0, 2.0], [0.0, 0.0, 9.0, 9.0]])
    assert iou_nms(flat, torch.tensor([0.1, 0.2, 0.3, 0.4]), 0.0).tolist() == [3, 2, 1, 0]
    nothing = iou_nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert nothing.shape == (0,)
    assert nothing.dtype == torch.int64


@pytest.mark.parametrize("dtype", [*HALVES, torch.float64, torch.int64])
def test_areas_do_not_overflow_in_half_precision(dtype):
    large = torch.tensor([[0, 0, 512, 512], [256, 0, 768, 512], [4, 0, 516, 512]]).to(dtype)
    assert iou_nms(large, torch.tensor([3.0, 2.0, 1.0]).to(torch.float16), 0.5).tolist() == [0, 1]


def test_boxes_scores_and_thresholds_that_make_no_sense_are_refused():
    message = "expected boxes (N, 4) and scores (N,), got {} and {}"
    for shape, other in [((4,), (4,)), ((3, 5), (3,)), ((3, 4), (2,)), ((3, 4), (3, 1)), ((1, 3, 4), (1,))]:
        refused(message.format(shape, other), iou_nms, torch.zeros(shape), torch.zeros(other), 0.5)
    for threshold in (-0.1, 1.1, math.nan):
        refused(
            f"threshold must lie in 0 to 1, got {threshold}", iou_nms, torch.zeros(1, 4), torch.zeros(1), threshold
        )
    refused("scores must be numbers, got NaN", iou_nms, torch.zeros(1, 4), torch.tensor([torch.nan]), 0.5)


# --- pose ----------------------------------------------------------------------------------------


def turned(image, landmarks, yaw, pitch, roll):
    """turn_face pixel by pixel, with SciPy's rotations: axes right, down, towards the viewer."""
    where = landmarks.double().numpy()
    center = where.mean(0)
    radius = 1.75 * np.sqrt(((where - center) ** 2).sum(1)).max()
    # SciPy's angles turn counterclockwise about x, y, z; with y down that is clockwise.
    spin = Rotation.from_euler("yxz", [yaw, -pitch, roll], degrees=True)

    def move(xy, rotation):
        flat = (xy - center) / radius
        depth = np.sqrt(np.maximum(0, 1 - (flat**2).sum(1)))
        return rotation.apply(np.column_stack([flat, depth]))[:, :2] * radius + center

    y, x = np.mgrid[: image.shape[-2], : image.shape[-1]]
    grid = np.stack([x.ravel(), y.ravel()], -1).astype(float)
    inside = ((grid - center) ** 2).sum(1) < radius**2
    origin = np.where(inside[:, None], move(grid, spin.inv()), grid)
    seen = [read(channel, origin).reshape(image.shape[-2:]) for channel in image.double().numpy()]
    return np.stack(seen), move(where, spin)


ANGLES = [(0, 0, 0), (30, 0, 0), (0, 20, 0), (0, 0, 15), (-35, 15, -10), (60, -25, 180)]


@pytest.mark.parametrize("angles", ANGLES)
def test_a_turned_face_is_that_of_a_sphere_turned_by_scipy(agrees_with, angles):
    image, landmarks = face()
    before = image.clone(), landmarks.clone()
    ours, moved = turn_face(image, landmarks, *map(float, angles))
    theirs, there = turned(image, landmarks, *angles)
    reference = "brute force: scipy's Rotation of a sphere, read by map_coordinates"
    agrees_with(turn_face, reference, ours, theirs, atol=1e-13)
    agrees_with(turn_face, reference, moved, there, atol=1e-13)
    assert torch.equal(image, before[0])
    assert torch.equal(landmarks, before[1])


def test_each_image_of_a_batch_has_its_own_angles(agrees_with):
    images, landmarks = (torch.stack(part) for part in zip(*(face(seed) for seed in range(3)), strict=True))
    yaw, pitch, roll = (torch.tensor(angle).double() for angle in ([10.0, -20.0, 30.0], [5.0, 0.0, -5.0], [1.0, 2.0, 3.0]))
    ours, moved = turn_face(strided(images), strided(landmarks), yaw, pitch, roll)
    for index in range(3):
        theirs, there = turned(images[index], landmarks[index], *(float(a[index]) for a in (yaw, pitch, roll)))
        reference = "brute force: scipy's Rotation of a sphere, read by map_coordinates"
        agrees_with(turn_face, reference, ours[index], theirs, atol=1e-13)
        agrees_with(turn_face, reference, moved[index], there, atol=1e-13)
    empty, nowhere = turn_face(images[:0], landmarks[:0], 10.0)
    assert empty.shape == (0, 3, 60, 80)
    assert nowhere.shape == (0, 5, 2)
    assert turn_face(images, landmarks, 10.0)[0].shape == images.shape
    assert torch.equal(turn_face(images, landmarks, yaw)[0], turn_face(images, landmarks, yaw, 0.0, 0.0)[0])


def test_positive_angles_move_the_nose_right_and_down_and_roll_clockwise():
    image, landmarks = torch.zeros(1, 112, 112), arcface_template()
    right = turn_face(image, landmarks, 20.0)[1] - landmarks
    assert right[2, 0] > 10
    down = turn_face(image, landmarks, 0.0, 20.0)[1] - landmarks
    assert down[2, 1] > 10
    eyes = turn_face(image, landmarks, 0.0, 0.0, 20.0)[1]
    assert eyes[1, 1] > eyes[0, 1] + 5  # the right eye is lower: clockwise


@pytest.mark.parametrize("dtype", [*HALVES, *WIDE])
def test_dtypes_of_image_and_landmarks_are_kept(agrees_with, dtype):
    image, landmarks = face()
    image = image.to(dtype)
    seen, moved = turn_face(image, landmarks.float(), 25.0, 10.0, 5.0)
    assert (seen.dtype, moved.dtype) == (dtype, torch.float32)
    theirs, there = turned(image, landmarks.float(), 25, 10, 5)
    assert np.abs(moved.numpy() - there).max() < 1e-4
    assert np.abs(seen.double().numpy() - theirs).mean() < max(torch.finfo(dtype).eps, 1e-4)


def test_gradients_of_a_turned_face_are_finite():
    image, landmarks = face()
    image.requires_grad_()
    landmarks.requires_grad_()
    seen, moved = turn_face(image, landmarks, 40.0, 10.0, 5.0)
    (seen.sum() + moved.sum()).backward()
    assert image.grad.isfinite().all()
    assert landmarks.grad.isfinite().all()
    # Pixels beyond the sphere are seen once, as they are.
    assert torch.allclose(image.grad[:, 0, 0], torch.ones(3).double(), atol=1e-13)
    refused("landmarks that coincide show no head", turn_face, image, torch.ones(5, 2), 10.0)


def test_random_poses_are_drawn_within_their_limits(agrees_with):
    images, landmarks = (torch.stack(part) for part in zip(*(face(seed) for seed in range(4)), strict=True))
    for limits in [(40.0, 20.0, 10.0), (5.0, 0.0, 90.0)]:
        draws = torch.rand(3, 4, generator=torch.Generator().manual_seed(3))
        ours, moved = random_pose(images, landmarks, torch.Generator().manual_seed(3), *limits)
        angles = (np.array(limits)[:, None] * (2 * draws.double().numpy() - 1)).T
        for index in range(4):
            theirs, there = turned(images[index], landmarks[index], *angles[index])
            reference = "brute force: scipy's Rotation of a sphere, by the angles drawn"
            agrees_with(random_pose, reference, moved[index], there, atol=2e-5)
            assert np.abs(ours[index].numpy() - theirs).mean() < 1e-4
    defaults = random_pose(images, landmarks, torch.Generator().manual_seed(3))
    spelled = random_pose(images, landmarks, torch.Generator().manual_seed(3), 40.0, 20.0, 10.0)
    assert torch.equal(defaults[1], spelled[1])


def test_random_poses_depend_on_the_generator_alone():
    image, landmarks = face()
    torch.manual_seed(0)
    first = random_pose(image, landmarks, torch.Generator().manual_seed(5))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    again = random_pose(image, landmarks, torch.Generator().manual_seed(5))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert torch.equal(state, torch.get_rng_state())
    other = random_pose(image, landmarks, torch.Generator().manual_seed(6))
    assert not torch.equal(first[1], other[1])
    for limits in [(91.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, math.nan)]:
        refused(
            f"limits must lie in 0 to 90 degrees, got {limits}",
            random_pose, image, landmarks, torch.Generator(), *limits,
        )  # fmt: skip


# --- many-to-one ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*HALVES, *WIDE])
def test_a_template_is_the_direction_of_the_weighted_mean(agrees_with, dtype):
    embeddings = (normal(3, 4, 8, seed=1) * torch.tensor([1.0, 5.0, 0.1, 2.0])[:, None]).to(dtype)
    quality = uniform(3, 4, seed=2, dtype=dtype)
    unit = embeddings.double().numpy()
    unit = unit / np.linalg.norm(unit, axis=-1, keepdims=True)
    for weights in (None, quality):
        w = np.ones((3, 4)) if weights is None else weights.double().numpy()
        mean = np.stack([np.average(u, axis=0, weights=v) for u, v in zip(unit, w, strict=True)])
        theirs = mean / np.linalg.norm(mean, axis=-1, keepdims=True)
        ours = pool_templates(strided(embeddings), weights)
        atol = 1e-15 if dtype == torch.float64 else 4e-7
        agrees_with(pool_templates, "numpy.average", ours, theirs, atol=atol)
        assert ours.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_norms_as_quality_give_the_plain_mean_and_one_image_itself():
    embeddings = normal(6, 4, dtype=torch.float64)
    ours = pool_templates(embeddings, embeddings.norm(dim=-1))
    assert torch.allclose(ours, F.normalize(embeddings.mean(0), dim=0), atol=1e-15, rtol=0)
    assert torch.allclose(pool_templates(embeddings[:1]), F.normalize(embeddings[0], dim=0), atol=1e-15, rtol=0)
    only = pool_templates(embeddings, torch.tensor([0.0, 0.0, 3.0, 0.0, 0.0, 0.0]).double())
    assert torch.allclose(only, F.normalize(embeddings[2], dim=0), atol=1e-15, rtol=0)
    assert pool_templates(torch.zeros(0, 3, 4)).shape == (0, 4)
    assert pool_templates(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).tolist() == [0.0, 0.0]
    assert torch.autograd.gradcheck(pool_templates, (embeddings.requires_grad_(), uniform(6, dtype=torch.float64)))


def test_qualities_that_are_no_weights_are_refused():
    embeddings = torch.ones(3, 4)
    refused("expected (..., N, D), N > 0, got (4,)", pool_templates, embeddings[0])
    refused("expected (..., N, D), N > 0, got (0, 4)", pool_templates, embeddings[:0])
    refused("expected quality (3,), got (3, 1)", pool_templates, embeddings, torch.ones(3, 1))
    for bad in ([1.0, -1.0, 3.0], [0.0, 0.0, 0.0], [1.0, torch.inf, 1.0], [1.0, torch.nan, 1.0]):
        quality = torch.tensor(bad)
        refused(f"quality must be finite, 0 or more, not all 0, got {quality}", pool_templates, embeddings, quality)
    two = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    refused(
        f"quality must be finite, 0 or more, not all 0, got {two}", pool_templates, torch.ones(2, 3, 4), two
    )


def test_an_image_and_its_mirror_image_are_added(agrees_with):
    image, weight = normal(2, 3, 4, 5, dtype=torch.float64), normal(60, 7, seed=1, dtype=torch.float64)
    ours = flip_fuse(lambda x: x.flatten(1) @ weight, image)
    both = image.numpy() + image.numpy()[..., ::-1]
    theirs = both.reshape(2, -1) @ weight.numpy()
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    agrees_with(flip_fuse, "numpy.matmul", ours, theirs, atol=1e-14)
    half = flip_fuse(lambda x: x.flatten(1), image.half())
    assert half.dtype == torch.float32
    refused("expected images (B, C, H, W), got (3, 4, 5)", flip_fuse, torch.nn.Identity(), image[0])


# --- losses of pairs and triplets ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*HALVES, *WIDE])
@pytest.mark.parametrize("margin", [0.5, 1.0, 8.0])
def test_the_contrastive_loss_squares_that_of_pytorch_metric_learning(agrees_with, dtype, margin):
    a, b = normal(12, 4, dtype=dtype), normal(12, 4, seed=1, dtype=dtype)
    same = torch.arange(12) % 3 == 0
    ours = contrastive_loss(a, strided(b), same, margin)
    reference = losses.ContrastiveLoss(
        neg_margin=margin,
        distance=distances.LpDistance(normalize_embeddings=False),
        reducer=reducers.DoNothingReducer(),
    )
    left, right = torch.arange(12), torch.arange(12, 24)
    pairs = left[same], right[same], left[~same], right[~same]
    parts = reference(torch.cat([a, b]).double(), indices_tuple=pairs)
    total = sum(float((part["losses"] ** 2).sum()) for part in parts.values()) / 2 / 12
    atol = 1e-14 if dtype == torch.float64 else 2e-6
    agrees_with(contrastive_loss, "pytorch_metric_learning.losses.ContrastiveLoss", ours, total, atol=atol)
    assert ours.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(contrastive_loss(a, b, same), contrastive_loss(a, b, same, 1.0))


def test_equal_embeddings_have_a_finite_gradient():
    a = torch.ones(2, 3, requires_grad=True)
    contrastive_loss(a, torch.ones(2, 3), torch.tensor([True, False])).backward()
    assert a.grad.tolist() == [[0.0] * 3] * 2
    pair = normal(4, 3, dtype=torch.float64).requires_grad_(), normal(4, 3, seed=1, dtype=torch.float64).requires_grad_()
    same = torch.tensor([True, False, True, False])
    assert torch.autograd.gradcheck(lambda x, y: contrastive_loss(x, y, same, 5.0), pair)
    assert contrastive_loss(torch.zeros(0, 3), torch.zeros(0, 3), same[:0]).isnan()


def test_pairs_that_do_not_fit_are_refused():
    a, same = torch.zeros(3, 4), torch.ones(3, dtype=torch.bool)
    message = "expected a and b (B, D) and same (B,), got {}, {} and {}"
    for x, y, z in [(a, a[:2], same), (a[0], a[0], same), (a, a, same[:2]), (a, a, same[:, None])]:
        refused(message.format(*(tuple(t.shape) for t in (x, y, z))), contrastive_loss, x, y, z)
    refused("same must be boolean, got torch.int64", contrastive_loss, a, a, same.long())
    for margin in (0.0, -1.0, math.nan):
        refused(f"margin must be positive, got {margin}", contrastive_loss, a, a, same, margin)


@pytest.mark.parametrize("dtype", [*HALVES, *WIDE])
@pytest.mark.parametrize("margin", [0.0, 0.2, 2.0])
def test_the_triplet_loss_is_that_of_pytorch_metric_learning(agrees_with, dtype, margin):
    a, p, n = (F.normalize(normal(9, 4, seed=seed, dtype=torch.float64), dim=1).to(dtype) for seed in range(3))
    ours = triplet_loss(a, strided(p), n, margin)
    reference = losses.TripletMarginLoss(
        margin, distance=distances.LpDistance(normalize_embeddings=False, power=2), reducer=reducers.MeanReducer()
    )
    index = torch.arange(9)
    theirs = reference(torch.cat([a, p, n]).double(), torch.arange(27), indices_tuple=(index, index + 9, index + 18))
    atol = 1e-14 if dtype == torch.float64 else 5e-7
    agrees_with(triplet_loss, "pytorch_metric_learning.losses.TripletMarginLoss", ours, theirs, atol=atol)
    assert ours.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(triplet_loss(a, p, n), triplet_loss(a, p, n, 0.2))


def test_triplets_that_do_not_fit_are_refused():
    a = torch.zeros(3, 4)
    for x, y, z in [(a, a[:2], a), (a, a, a[:2]), (a[0], a[0], a[0])]:
        shapes = [tuple(t.shape) for t in (x, y, z)]
        refused(f"expected three tensors of one shape (B, D), got {shapes}", triplet_loss, x, y, z)
    for margin in (-0.1, math.nan):
        refused(f"margin must be 0 or more, got {margin}", triplet_loss, a, a, a, margin)
    assert triplet_loss(a[:0], a[:0], a[:0]).isnan()
    trio = [normal(3, 4, seed=seed, dtype=torch.float64).requires_grad_() for seed in range(3)]
    assert torch.autograd.gradcheck(lambda *t: triplet_loss(*t, margin=1.0), trio)


def test_semi_hard_negatives_are_those_of_brute_force(agrees_with):
    x, labels = F.normalize(normal(24, 3), dim=1), torch.arange(24) % 5
    squared = ((x[:, None] - x).double() ** 2).sum(-1)
    for margin in (0.05, 0.3, 2.0):
        theirs = []
        for a in range(24):
            for p in range(24):
                near = squared[a, p]
                far = [n for n in range(24) if labels[n] != labels[a] and near < squared[a, n] < near + margin]
                if a != p and labels[a] == labels[p] and far:
                    theirs.append((a, p, min(far, key=lambda n, a=a: squared[a, n])))
        ours = torch.stack(semi_hard_triplets(strided(x), labels, margin), -1)
        agrees_with(semi_hard_triplets, "brute force: every triplet", ours, theirs)
    assert torch.equal(semi_hard_triplets(x, labels)[2], semi_hard_triplets(x, labels, 0.2)[2])


def test_semi_hard_triplets_are_among_those_of_pytorch_metric_learning():
    x, labels = F.normalize(normal(30, 4, seed=3), dim=1), torch.arange(30) % 6
    miner = miners.TripletMarginMiner(
        0.3, "semihard", distance=distances.LpDistance(normalize_embeddings=False, power=2)
    )
    theirs = set(zip(*(index.tolist() for index in miner(x, labels)), strict=True))
    ours = set(zip(*(index.tolist() for index in semi_hard_triplets(x, labels, 0.3)), strict=True))
    assert ours <= theirs
    assert {t[:2] for t in ours} == {t[:2] for t in theirs}


def test_batches_without_semi_hard_triplets_give_none():
    x = normal(4, 3)
    for batch, labels in [(x[:0], torch.zeros(0).long()), (x, torch.arange(4)), (x, torch.zeros(4))]:
        found = semi_hard_triplets(batch, labels)
        assert [index.tolist() for index in found] == [[], [], []]
        assert all(index.dtype == torch.int64 for index in found)
    same_place = semi_hard_triplets(torch.zeros(3, 2), torch.tensor([0, 0, 1]))  # no farther than the pair
    assert [index.tolist() for index in same_place] == [[], [], []]
    half = semi_hard_triplets(normal(8, 3).half().requires_grad_(), torch.arange(8) % 2, 9.0)
    assert len(half[0]) > 0
    refused("expected embeddings (B, D) and labels (B,), got (3,) and (3,)", semi_hard_triplets, torch.zeros(3), torch.zeros(3))
    refused(
        "expected embeddings (B, D) and labels (B,), got (3, 2) and (2,)", semi_hard_triplets, torch.zeros(3, 2), torch.zeros(2)
    )
    for margin in (-0.1, math.nan):
        refused(f"margin must be 0 or more, got {margin}", semi_hard_triplets, torch.zeros(3, 2), torch.zeros(3), margin)


def test_the_center_loss_and_its_update_are_those_of_the_paper(agrees_with):
    loss = CenterLoss(5, 3)
    assert torch.equal(loss.centers, torch.zeros(5, 3))
    loss.centers.copy_(normal(5, 3, seed=4))
    assert not list(loss.parameters())
    assert list(loss.state_dict()) == ["centers"]
    x, labels = normal(8, 3), torch.tensor([0, 1, 1, 4, 4, 4, 0, 4])
    centers = loss.centers.double().numpy().copy()
    theirs = np.mean([((v - centers[k]) ** 2).sum() / 2 for v, k in zip(x.double().numpy(), labels, strict=True)])
    agrees_with(CenterLoss, "brute force: each embedding and its center", loss(x, labels), theirs, atol=4e-7)
    for rate in (0.5, 1.0):
        for k in range(5):
            mine = x.double().numpy()[labels.numpy() == k]
            centers[k] -= rate * sum(centers[k] - v for v in mine) / (1 + len(mine)) if len(mine) else 0
        loss.update(*((x, labels) if rate == 0.5 else (x, labels.int(), rate)))
        agrees_with(CenterLoss, "brute force: equation 4, class by class", loss.centers, centers, atol=4e-7)


@pytest.mark.parametrize("dtype", [*HALVES, *WIDE])
def test_the_center_loss_keeps_dtypes_and_passes_gradients(dtype):
    loss, labels = CenterLoss(5, 3), torch.tensor([0, 4])
    loss.centers += 1
    x = normal(2, 3, dtype=dtype).requires_grad_()
    value = loss(x, labels)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    value.backward()
    assert torch.allclose(x.grad, (x.detach() - 1) / 2, atol=1e-2)
    loss.update(x, labels)
    assert loss.centers.dtype == torch.float32
    assert not loss.centers.requires_grad
    assert loss(x[:0], labels[:0]).isnan()
    refused("dim and num_classes must be at least 1, got 0 and 3", CenterLoss, 3, 0)
    refused("dim and num_classes must be at least 1, got 3 and 0", CenterLoss, 0, 3)


# --- margins -------------------------------------------------------------------------------------

HEADS = [
    (SphereFace, losses.SphereFaceLoss, {"margin": 4}, {"margin": 4}),
    (SphereFace, losses.SphereFaceLoss, {"margin": 3}, {"margin": 3}),
    (SphereFace, losses.SphereFaceLoss, {"margin": 1}, {"margin": 1}),
    (CosFace, losses.CosFaceLoss, {}, {"margin": 0.35, "scale": 64}),
    (CosFace, losses.CosFaceLoss, {"scale": 10, "margin": 0.2}, {"margin": 0.2, "scale": 10}),
    (ArcFace, losses.ArcFaceLoss, {}, {"margin": math.degrees(0.5), "scale": 64}),
    (ArcFace, losses.ArcFaceLoss, {"scale": 10, "margin": 1.2}, {"margin": math.degrees(1.2), "scale": 10}),
]


def on_a_circle(theta, dtype=torch.float64):
    """Embeddings at given angles from class 0 of the unit matrix, (N, 2)."""
    theta = torch.as_tensor(theta, dtype=torch.float64)
    return torch.stack([theta.cos(), theta.sin()], -1).to(dtype)


def with_unit_weights(head, dtype=torch.float64):
    head.weight.data = torch.eye(2, dtype=dtype)
    return head


@pytest.mark.parametrize(("module", "reference", "options", "theirs"), HEADS)
@pytest.mark.parametrize("dtype", WIDE)
def test_losses_are_those_of_pytorch_metric_learning(agrees_with, module, reference, options, theirs, dtype):
    head = module(6, 11, **options).to(dtype)
    other = reference(11, 6, reducer=reducers.DoNothingReducer(), **theirs).to(dtype)
    other.W.data = head.weight.data.T.clone()
    x = normal(40, 6, dtype=dtype) * 3
    labels = torch.arange(40) % 11
    x[0] = -5 * head.weight.data[0]  # theta = pi: past every branch
    x[1] = 2 * head.weight.data[1]  # theta = 0
    ours = F.cross_entropy(head(strided(x), labels), labels, reduction="none")
    expected = other(x, labels)["loss"]["losses"]
    name = f"pytorch_metric_learning.losses.{reference.__name__}"
    if dtype == torch.float64:
        agrees_with(module, name, ours, expected, atol=9e-13)
    else:  # at 0 and pi the acos of a float32 cosine is off by up to 3e-4: theirs, not ours
        agrees_with(module, name, ours[2:], expected[2:], atol=4e-5)
    assert ours.dtype == dtype


def formula(module, theta, options):
    """The target's logit, from the paper's formula and the standard library, one angle at a time."""
    if module is SphereFace:
        m = options.get("margin", 4)
        k = min(int(theta * m / math.pi), m - 1)
        psi = (-1) ** k * math.cos(m * theta) - 2 * k
        blend = options.get("blend", 0.0)
        return (blend * math.cos(theta) + psi) / (1 + blend)
    s = options.get("scale", 64.0)
    if module is CosFace:
        return s * (math.cos(theta) - options.get("margin", 0.35))
    m = options.get("margin", 0.5)
    if options.get("easy_margin"):
        return s * (math.cos(theta + m) if theta < math.pi / 2 else math.cos(theta))
    return s * (math.cos(theta + m) if theta < math.pi - m else math.cos(theta) - m * math.sin(m))


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (SphereFace, {}),
        (SphereFace, {"margin": 2}),
        (SphereFace, {"margin": 3, "blend": 5.0}),
        (CosFace, {}),
        (ArcFace, {}),
        (ArcFace, {"easy_margin": True}),
        (ArcFace, {"margin": math.pi / 2, "scale": 1.0}),
        (ArcFace, {"margin": 0.0}),
    ],
)
def test_target_logits_follow_the_formula_at_all_angles(agrees_with, module, options):
    theta = torch.linspace(0, math.pi, 722, dtype=torch.float64)[1:-1:2]
    head = with_unit_weights(module(2, 2, **options))
    logits = head(on_a_circle(theta), torch.zeros(360, dtype=torch.int64))
    theirs = [formula(module, float(t), options) for t in theta]
    agrees_with(module, "closed form: the target's logit", logits[:, 0], theirs, atol=8e-13 if "scale" in vars(head) else 2e-14)
    others = [options.get("scale", 1.0 if module is SphereFace else 64.0) * math.sin(t) for t in theta]
    agrees_with(module, "closed form: no margin for the others", logits[:, 1], others, atol=1e-14)
    if not options.get("easy_margin"):
        assert (logits[1:, 0] < logits[:-1, 0]).all()  # falls all the way


def test_past_pi_the_naive_form_rewards_what_is_farther():
    head = with_unit_weights(ArcFace(2, 2))
    theta = torch.tensor([math.pi - 0.4, math.pi])
    ours = head(on_a_circle(theta), torch.zeros(2).long())[:, 0]
    naive = 64 * (theta.double() + 0.5).cos()
    assert ours[1] < ours[0]
    assert naive[1] > naive[0]
    loss = F.cross_entropy(torch.stack([ours[1], torch.tensor(0.0)])[None], torch.tensor([0]))
    assert loss.item() == pytest.approx(64 + 32 * math.sin(0.5), abs=1e-5)


@pytest.mark.parametrize("module", [SphereFace, CosFace, ArcFace])
def test_only_sphereface_looks_at_the_length_of_embeddings(module):
    head = module(4, 5).double()
    x, labels = normal(6, 4, dtype=torch.float64), torch.arange(6) % 5
    longer = head(3 * x, labels)
    expected = 3 * head(x, labels) if module is SphereFace else head(x, labels)
    assert torch.allclose(longer, expected, atol=1e-12, rtol=0)
    before = head(x, labels)
    head.weight.data *= torch.arange(1.0, 6.0).double()[:, None]
    assert torch.allclose(head(x, labels), before, atol=1e-12, rtol=0)


@pytest.mark.parametrize("module", [SphereFace, CosFace, ArcFace])
@pytest.mark.parametrize("dtype", [*HALVES, *WIDE])
def test_gradients_are_finite_at_0_and_pi_and_right_elsewhere(module, dtype):
    head = with_unit_weights(module(2, 2), dtype)
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], dtype=dtype).requires_grad_()
    logits = head(x, torch.zeros(4).long())
    assert logits.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert logits.isfinite().all()
    F.cross_entropy(logits, torch.zeros(4).long()).backward()
    assert x.grad.isfinite().all()
    assert head.weight.grad.isfinite().all()
    exact = torch.tensor([formula(module, t, {}) for t in (0.0, math.pi - 1e-12)])
    assert torch.allclose(logits[:2, 0].float(), exact.float(), atol=1e-4)


@pytest.mark.parametrize("module", [SphereFace, CosFace, ArcFace])
def test_gradients_are_those_of_differences(module):
    head = module(3, 4).double()
    x, labels = normal(5, 3, dtype=torch.float64).requires_grad_(), torch.arange(5) % 4

    def logits(x, weight):
        return torch.func.functional_call(head, {"weight": weight}, (x, labels))

    assert torch.autograd.gradcheck(logits, (x, head.weight))


@pytest.mark.parametrize("module", [SphereFace, CosFace, ArcFace])
def test_autocast_does_not_round_the_cosines(module):
    head = module(16, 7)
    x, labels = normal(9, 16), torch.arange(9) % 7
    plain = head(x, labels)
    with torch.autocast("cpu", torch.bfloat16):
        cast = head(x, labels)
    assert torch.equal(plain, cast)


def test_a_clamp_below_one_is_no_clamp_in_half_precision():
    assert torch.tensor(1 - 1e-7, dtype=torch.float16) == 1.0
    cosine = torch.ones((), dtype=torch.float32, requires_grad=True)
    cosine.acos().backward()
    assert cosine.grad == -torch.inf


@pytest.mark.parametrize("module", [SphereFace, CosFace, ArcFace])
def test_weights_are_unit_vectors_of_the_global_generator_and_batches_may_be_empty(module):
    torch.manual_seed(0)
    head = module(3, 5)
    assert head.weight.shape == (5, 3)
    assert isinstance(head.weight, torch.nn.Parameter)
    assert torch.allclose(head.weight.norm(dim=1), torch.ones(5))
    torch.manual_seed(0)
    assert torch.equal(module(3, 5).weight, head.weight)
    assert head(torch.zeros(0, 3), torch.zeros(0).long()).shape == (0, 5)
    assert head(torch.ones(2, 3), torch.tensor([0, 4], dtype=torch.int32)).shape == (2, 5)
    refused("dim and num_classes must be at least 1, got 0 and 3", module, 0, 3)
    refused("dim and num_classes must be at least 1, got 3 and 0", module, 3, 0)
    assert module(1, 1)(torch.ones(1, 1), torch.zeros(1).long()).shape == (1, 1)


@pytest.mark.parametrize("module", [SphereFace, CosFace, ArcFace, CenterLoss])
def test_labels_and_embeddings_that_do_not_fit_are_refused(module):
    head = CenterLoss(5, 3) if module is CenterLoss else module(3, 5)
    x, labels = torch.zeros(2, 3), torch.tensor([0, 4])
    for call in (head, head.update) if module is CenterLoss else (head,):
        refused("expected embeddings (B, 3), got (2, 4)", call, torch.zeros(2, 4), labels)
        refused("expected embeddings (B, 3), got (3,)", call, x[0], labels)
        refused("expected integer labels (2,), got (1,) of torch.int64", call, x, labels[:1])
        refused("expected integer labels (2,), got (2,) of torch.float32", call, x, labels.float())
        refused("labels must lie in 0 to 4, got 0 to 5", call, x, torch.tensor([0, 5]))
        refused("labels must lie in 0 to 4, got -1 to 4", call, x, torch.tensor([-1, 4]))


def test_margins_and_scales_that_make_no_sense_are_refused():
    for margin in (0, 2.5, -1):
        refused(f"margin must be a whole number from 1, got {margin}", SphereFace, 3, 5, margin)
    assert SphereFace(3, 5, 2.0).margin == 2
    for scale in (0, -1.0, math.nan):
        refused(f"scale must be positive, got {scale}", CosFace, 3, 5, scale)
        refused(f"scale must be positive and margin lie in 0 to pi / 2, got {scale} and 0.5", ArcFace, 3, 5, scale)
    for margin in (-0.1, 1.6, math.nan):
        refused(f"scale must be positive and margin lie in 0 to pi / 2, got 64.0 and {margin}", ArcFace, 3, 5, 64.0, margin)
    head = ArcFace(3, 5)
    assert (head.scale, head.margin, head.easy_margin) == (64.0, 0.5, False)
    assert (CosFace(3, 5).scale, CosFace(3, 5).margin) == (64.0, 0.35)
    assert (SphereFace(3, 5).margin, SphereFace(3, 5).blend) == (4, 0.0)


def test_plain_logits_are_products_and_prefer_long_weights(agrees_with):
    x, weight, bias = (normal(*s, seed=i, dtype=torch.float64) for i, s in enumerate([(6, 4), (3, 4), (3,)]))
    theirs = x.numpy() @ weight.numpy().T
    agrees_with(softmax_logits, "numpy.matmul", softmax_logits(strided(x), weight), theirs, atol=1e-14)
    agrees_with(softmax_logits, "numpy.matmul", softmax_logits(x, weight, bias), theirs + bias.numpy(), atol=1e-14)
    assert softmax_logits(x.half(), weight.half()).dtype == torch.float16
    assert softmax_logits(x[:0], weight).shape == (0, 3)
    message = "expected embeddings (B, D) and weight (C, D), got {} and {}"
    for shape, other in [((4,), (3, 4)), ((6, 4), (4,)), ((6, 4), (4, 3)), ((1, 6, 4), (3, 4))]:
        refused(message.format(shape, other), softmax_logits, torch.zeros(shape), torch.zeros(other))
    refused("expected bias (3,), got (4,)", softmax_logits, x, weight, torch.zeros(4))


@pytest.mark.parametrize(
    ("options", "same_as"),
    [
        ({}, (ArcFace, {"scale": 1.0})),
        ({"add": 0.0, "subtract": 0.35}, (CosFace, {"scale": 1.0})),
        ({"multiply": 1.35, "add": 0.3, "subtract": 0.2}, None),
        ({"multiply": 4.0, "add": 0.0}, None),
    ],
)
def test_the_combined_margin_is_equation_4(agrees_with, options, same_as):
    m1, m2, m3 = (options.get(key, value) for key, value in (("multiply", 1.0), ("add", 0.5), ("subtract", 0.0)))
    theta = np.linspace(0, np.pi, 400)
    cosine = torch.from_numpy(np.cos(theta))
    ours = combined_margin(strided(cosine), **options)
    last = (np.pi - m2) / m1
    theirs = np.where(theta <= last, np.cos(m1 * theta + m2), np.cos(theta) - np.cos(last) - 1) - m3
    agrees_with(combined_margin, "numpy.cos", ours, theirs, atol=2e-14)
    assert (ours[1:] < ours[:-1]).all()
    assert ours.dtype == torch.float64
    if same_as is not None:
        module, arguments = same_as
        inside = theta < last
        expected = [formula(module, t, arguments) for t in theta[inside]]
        agrees_with(combined_margin, "closed form: the target's logit", ours[inside], expected, atol=1e-14)


def test_the_combined_margin_has_finite_gradients_and_keeps_half_precision_apart(agrees_with):
    cosine = torch.tensor([1.0, -1.0, 1.0000001, -1.0000001, 0.3], requires_grad=True)
    value = combined_margin(cosine)
    value.sum().backward()
    assert cosine.grad.isfinite().all()
    last = math.pi - 0.5
    ends = [math.cos(0.5), -1 - math.cos(last) - 1]
    agrees_with(combined_margin, "closed form: theta = 0 and pi", value[:2], ends, atol=1e-6)
    for dtype in HALVES:
        assert combined_margin(torch.tensor([1.0], dtype=dtype)).dtype == torch.float32
    message = "multiply must be 1 or more and add lie in 0 to pi, got {} and {}"
    for multiply, add in [(0.9, 0.5), (math.nan, 0.5), (1.0, -0.1), (1.0, 3.2), (1.0, math.nan)]:
        refused(message.format(multiply, add), combined_margin, cosine, multiply, add)
    assert combined_margin(torch.tensor([0.5]), 1.0, math.pi).isfinite().all()
    assert combined_margin(torch.zeros(0)).shape == (0,)


# --- comparing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*HALVES, *WIDE])
def test_scores_are_cosines_of_every_row_with_every_row(agrees_with, dtype):
    a, b = 9 * normal(5, 8, dtype=dtype), 0.01 * normal(7, 8, seed=1, dtype=dtype)
    theirs = sklearn.metrics.pairwise.cosine_similarity(a.double().numpy(), b.double().numpy())
    ours = cosine_scores(strided(a), b)
    atol = 1e-15 if dtype == torch.float64 else 4e-7
    agrees_with(cosine_scores, "sklearn.metrics.pairwise.cosine_similarity", ours, theirs, atol=atol)
    assert ours.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert cosine_scores(a, b.double()).dtype == torch.float64
    paired = cosine_scores(a[:, None], b[:5, None]).flatten()
    assert torch.allclose(paired, ours[:, :5].diagonal(), atol=1e-6)


def test_scores_stay_within_one_and_a_zero_vector_scores_zero():
    a = uniform(500, 3) * 10
    own = cosine_scores(a, a)
    assert own.max() <= 1
    assert cosine_scores(a, -a).min() >= -1
    assert cosine_scores(torch.zeros(1, 3), a[:2]).tolist() == [[0.0, 0.0]]
    assert cosine_scores(a[:0], a).shape == (0, 500)
    message = "expected (..., M, D) and (..., N, D), got {} and {}"
    for shape, other in [((3,), (2, 3)), ((2, 3), (3,)), ((2, 3), (2, 4))]:
        refused(message.format(shape, other), cosine_scores, torch.zeros(shape), torch.zeros(other))
    pair = normal(2, 3, dtype=torch.float64).requires_grad_(), normal(2, 3, seed=1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(cosine_scores, pair)


def verification(count=300, seed=0, steps=None, dtype=torch.float64):
    """Scores that are higher for genuine pairs; with `steps` few values, so that many are equal."""
    same = uniform(count, seed=seed) < 0.4
    scores = normal(count, seed=seed + 1, dtype=torch.float64) + same
    if steps:
        scores = (scores * steps).round() / steps
    return scores.to(dtype), same


@pytest.mark.parametrize("steps", [None, 1, 4])
@pytest.mark.parametrize("dtype", [*HALVES, *WIDE])
def test_the_roc_is_that_of_scikit_learn_also_with_ties(agrees_with, steps, dtype):
    scores, same = verification(steps=steps, dtype=dtype)
    far, tar, thresholds = roc(strided(scores), same)
    theirs = sklearn.metrics.roc_curve(same.numpy(), scores.double().numpy(), drop_intermediate=False)
    for ours, other in zip((far, tar, thresholds), theirs, strict=True):
        agrees_with(roc, "sklearn.metrics.roc_curve", ours, other, atol=1e-15)
    assert (far.dtype, tar.dtype, thresholds.dtype) == (torch.float64, torch.float64, dtype)
    for index in range(0, len(far), 7):
        accepted = scores >= thresholds[index]
        assert float(far[index]) == pytest.approx(float(accepted[~same].double().mean()), abs=1e-15)
        assert float(tar[index]) == pytest.approx(float(accepted[same].double().mean()), abs=1e-15)
    square, _, _ = roc(scores.reshape(30, 10), same.long().reshape(30, 10))
    assert torch.equal(square, far)


def test_a_reversed_sign_turns_the_curve_over(agrees_with):
    scores, same = verification(seed=5)
    right, reversed_sign = equal_error_rate(scores, same), equal_error_rate(-scores, same)
    agrees_with(
        equal_error_rate, "closed form: the curve of the reversed sign is turned by half a turn",
        reversed_sign, 1 - right, atol=1e-15,
    )  # fmt: skip
    assert right < 0.3


CURVES = [roc, equal_error_rate, lambda s, y: tar_at_far(s, y, 0.1), lambda s, y: threshold_at_far(s, y, 0.1)]


@pytest.mark.parametrize("curve", CURVES)
def test_pairs_that_make_no_curve_are_refused(curve):
    scores, same = verification(6)
    message = "expected scores and same of one shape, scores floating point, got {} of {} and {}"
    refused(message.format("(6,)", "torch.float64", "(5,)"), curve, scores, same[:5])
    refused(message.format("(6,)", "torch.int64", "(6,)"), curve, scores.long(), same)
    refused("scores must be numbers, got NaN", curve, scores * torch.nan, same)
    refused("same must be boolean, or 0 and 1, got other values", curve, scores, 2 * same.long() - 1)
    refused("need both kinds, got 6 genuine, 0 impostor", curve, scores, torch.ones(6))
    refused("need both kinds, got 0 genuine, 6 impostor", curve, scores, torch.zeros(6))
    refused("need both kinds, got 0 genuine, 0 impostor", curve, scores[:0], same[:0])


@pytest.mark.parametrize("steps", [None, 1, 4])
@pytest.mark.parametrize("dtype", [torch.float16, *WIDE])
def test_the_operating_point_is_the_best_that_keeps_the_far(agrees_with, steps, dtype):
    scores, same = verification(steps=steps, seed=2, dtype=dtype)
    values = scores.double().numpy()
    genuine, impostor = values[same.numpy()], values[~same.numpy()]
    for far in (0.0, 0.001, 0.01, 0.1, 0.5, 1.0):
        allowed = [t for t in [*np.unique(values), np.inf] if (impostor >= t).mean() <= far]
        ours = threshold_at_far(strided(scores), same, far)
        agrees_with(threshold_at_far, "brute force: every threshold", ours, min(allowed))
        tar = tar_at_far(scores, same.int(), far)
        agrees_with(tar_at_far, "brute force: every threshold", tar, (genuine >= min(allowed)).mean(), atol=1e-15)
        curve = sklearn.metrics.roc_curve(same.numpy(), values, drop_intermediate=False)
        agrees_with(tar_at_far, "sklearn.metrics.roc_curve", tar, curve[1][curve[0] <= far].max(), atol=1e-15)
        assert (ours.dtype, tar.dtype) == (dtype, torch.float64)
    for far in (-0.1, 1.1, math.nan):
        refused(f"far must lie in 0 to 1, got {far}", threshold_at_far, scores, same, far)
        refused(f"far must lie in 0 to 1, got {far}", tar_at_far, scores, same, far)


def test_a_far_below_one_impostor_is_a_far_of_zero():
    scores, same = torch.tensor([0.9, 0.8, 0.7, 0.1]), torch.tensor([True, False, True, False])
    assert tar_at_far(scores, same, 0.49) == tar_at_far(scores, same, 0.0) == 0.5
    assert tar_at_far(scores, same, 0.5) == 1.0
    assert threshold_at_far(scores, ~same, 0.0) == torch.inf
    assert tar_at_far(scores, ~same, 0.0) == 0.0
    for count in (1000, 7):  # the share that is asked for is one that can be counted: it is reached
        impostors = torch.linspace(0, 1, count, dtype=torch.float64)
        far = 3 / count
        every = torch.cat([impostors, torch.ones(1).double()])
        kind = torch.arange(count + 1) == count
        threshold = threshold_at_far(every, kind, far)
        assert int((impostors >= threshold).sum()) == 3


@pytest.mark.parametrize("steps", [None, 1, 4])
def test_the_equal_error_rate_is_where_the_curve_of_scikit_learn_crosses(agrees_with, steps):
    for seed in range(4):
        scores, same = verification(seed=seed, steps=steps)
        far, tar, _ = sklearn.metrics.roc_curve(same.numpy(), scores.numpy(), drop_intermediate=False)
        # Along the polyline, by its length, where interpolation is single-valued.
        along = np.arange(len(far), dtype=float)
        crossing = scipy.optimize.brentq(
            lambda s, a=along, f=far, t=tar: np.interp(s, a, f) + np.interp(s, a, t) - 1, 0, along[-1], xtol=1e-14
        )
        ours = equal_error_rate(strided(scores), same)
        agrees_with(equal_error_rate, "scipy.optimize.brentq", ours, np.interp(crossing, along, far), atol=4e-15)
        assert ours.dtype == torch.float64


def test_the_equal_error_rate_of_perfect_useless_and_constant_scores():
    same = torch.tensor([True, True, False, False])
    assert equal_error_rate(torch.tensor([4.0, 3.0, 2.0, 1.0]), same) == 0
    assert equal_error_rate(torch.tensor([1.0, 2.0, 3.0, 4.0]), same) == 1
    assert equal_error_rate(torch.ones(4), same) == 0.5
    assert equal_error_rate(torch.ones(4).requires_grad_(), same).requires_grad is False
    assert not tar_at_far(torch.ones(4).requires_grad_(), same, 0.5).requires_grad


@pytest.mark.parametrize(("count", "folds"), [(60, 10), (61, 7), (60, 2), (12, 12)])
@pytest.mark.parametrize("steps", [None, 2])
def test_thresholds_of_folds_come_from_the_other_folds(agrees_with, count, folds, steps):
    scores, same = verification(count, seed=3, steps=steps)
    values, truth = scores.numpy(), same.numpy()
    accuracies, chosen = [], []
    for train, test in sklearn.model_selection.KFold(folds).split(values):
        grid = [np.inf, *np.unique(values[train])[::-1]]
        right = [((values[train] >= t) == truth[train]).mean() for t in grid]
        best = grid[int(np.argmax(np.round(right, 12)))]
        chosen.append(best)
        accuracies.append(((values[test] >= best) == truth[test]).mean())
    ours = kfold_threshold(strided(scores), same, folds)
    agrees_with(kfold_threshold, "sklearn.model_selection.KFold", ours[0], accuracies, atol=1e-15)
    agrees_with(kfold_threshold, "brute force: every threshold of the other folds", ours[1], chosen)
    if folds == 10:
        assert torch.equal(kfold_threshold(scores, same)[1], ours[1])
    for bad in (1, count + 1):
        refused(f"folds must lie in 2 to {count}, got {bad}", kfold_threshold, scores, same, bad)


def test_folds_need_both_kinds_among_the_others():
    scores = torch.tensor([0.9, 0.8, 0.2, 0.1])
    same = torch.tensor([True, True, False, False])
    refused("need both kinds, got 0 genuine, 2 impostor", kfold_threshold, scores, same, 2)
    refused("scores must be numbers, got NaN", kfold_threshold, scores * torch.nan, same, 2)


def test_identification_finds_the_nearest_of_scikit_learn(agrees_with):
    probe, gallery = normal(20, 6), normal(9, 6, seed=1)
    nearest = sklearn.neighbors.NearestNeighbors(n_neighbors=1, metric="cosine").fit(gallery.double().numpy())
    distance, theirs = nearest.kneighbors(probe.double().numpy())
    index, score = identify(strided(probe), gallery)
    agrees_with(identify, "sklearn.neighbors.NearestNeighbors", index, theirs[:, 0])
    agrees_with(identify, "sklearn.neighbors.NearestNeighbors", score, 1 - distance[:, 0], atol=4e-7)
    threshold = float(score.median())
    opened, same_score = identify(probe, gallery, threshold)
    assert torch.equal(same_score, score)
    assert torch.equal(opened, torch.where(score >= threshold, index, -1))
    assert (opened == -1).any()
    assert (opened[score == threshold] >= 0).all()
    assert identify(probe[:0], gallery)[0].shape == (0,)
    message = "expected probe (P, D) and gallery (G, D), G > 0, got {} and {}"
    for p, g in [(probe[0], gallery), (probe, gallery[0]), (probe, gallery[:0])]:
        refused(message.format(tuple(p.shape), tuple(g.shape)), identify, p, g)


def ranks(scores, probe_labels, gallery_labels):
    """0 for a probe whose own entry is first, counted one by one, ties against it."""
    found = []
    for row, label in zip(scores.tolist(), probe_labels.tolist(), strict=True):
        own = max(s for s, g in zip(row, gallery_labels.tolist(), strict=True) if g == label)
        found.append(sum(s >= own for s, g in zip(row, gallery_labels.tolist(), strict=True) if g != label))
    return found


@pytest.mark.parametrize("steps", [None, 2])
@pytest.mark.parametrize("entries", [8, 16])
def test_the_cmc_counts_ranks_one_by_one(agrees_with, steps, entries):
    gallery_labels = torch.arange(entries) % 8 + 100
    probe_labels = torch.arange(30) % 8 + 100
    scores = normal(30, entries) + (probe_labels[:, None] == gallery_labels)
    if steps:
        scores = (scores * steps).round() / steps
    theirs = [np.mean([r < k for r in ranks(scores, probe_labels, gallery_labels)]) for k in range(1, entries + 1)]
    ours = cmc(strided(scores), probe_labels, gallery_labels)
    agrees_with(cmc, "brute force: ranks one by one", ours, theirs, atol=1e-15)
    if steps is None and entries == 8:
        theirs = [
            sklearn.metrics.top_k_accuracy_score(probe_labels, scores.double().numpy(), k=k, labels=gallery_labels)
            for k in range(1, 8)
        ]
        agrees_with(cmc, "sklearn.metrics.top_k_accuracy_score", ours[:-1], theirs, atol=1e-15)
    assert ours.dtype == torch.float64
    if entries == 8:
        assert ours[-1] == 1


def test_a_network_that_gives_everyone_the_same_score_identifies_nobody():
    labels = torch.arange(4)
    assert cmc(torch.ones(4, 4), labels, labels).tolist() == [0.0, 0.0, 0.0, 1.0]
    assert cmc(torch.ones(1, 1, dtype=torch.float16), labels[:1], labels[:1]).tolist() == [1.0]
    assert open_set_rate(torch.ones(3, 2), torch.tensor([0, 1, 9]), torch.tensor([0, 1]), 1.0) == 0


@pytest.mark.parametrize("curve", [cmc, lambda s, p, g: open_set_rate(s, p, g, 0.1)])
def test_galleries_that_do_not_fit_are_refused(curve):
    scores, probe, gallery = torch.zeros(3, 2), torch.tensor([0, 1, 0]), torch.tensor([0, 1])
    message = "expected scores (P, G), probe_labels (P,) and gallery_labels (G,), got {}, {} and {}"
    for s, p, g in [
        (scores, probe[:2], gallery),
        (scores, probe, gallery[:1]),
        (scores[0], probe[0], gallery),
        (scores.T, probe, gallery),
        (scores[None], probe[None], gallery),
    ]:
        refused(message.format(*(tuple(t.shape) for t in (s, p, g))), curve, s, p, g)
    refused("scores must be numbers, got NaN", curve, scores * torch.nan, probe, gallery)


def test_closed_sets_need_everyone_and_open_sets_need_strangers():
    gallery = torch.tensor([0, 1])
    refused(
        "need probes that are in the gallery, got [7, 9]", cmc, torch.zeros(3, 2), torch.tensor([7, 1, 9]), gallery
    )
    refused("need probes that are in the gallery, got []", cmc, torch.zeros(0, 2), gallery[:0], gallery)
    message = "need known probes and strangers, got one kind only"
    for labels in ([0, 1, 1], [7, 8, 9], []):
        refused(
            message, open_set_rate, torch.zeros(len(labels), 2), torch.tensor(labels).long(), gallery, 0.1
        )
    refused("far must lie in 0 to 1, got 2", open_set_rate, torch.zeros(2, 2), torch.tensor([0, 7]), gallery, 2)


@pytest.mark.parametrize("steps", [None, 2])
@pytest.mark.parametrize("entries", [6, 12])
def test_open_sets_are_counted_probe_by_probe(agrees_with, steps, entries):
    gallery_labels, probe_labels = torch.arange(entries) % 6, torch.arange(60) % 12
    scores = normal(60, entries, seed=6) + 1.5 * (probe_labels[:, None] == gallery_labels)
    if steps:
        scores = (scores * steps).round() / steps
    best = scores.double().numpy().max(1)
    strangers = best[probe_labels.numpy() >= 6]
    known = [i for i in range(60) if probe_labels[i] < 6]
    found = ranks(scores[known], probe_labels[known], gallery_labels)
    for far in (0.0, 0.1, 0.3, 1.0):
        threshold = min(t for t in [*best, np.inf] if (strangers >= t).mean() <= far)
        right = [r == 0 and best[i] >= threshold for i, r in zip(known, found, strict=True)]
        ours = open_set_rate(strided(scores), probe_labels, gallery_labels, far)
        agrees_with(open_set_rate, "brute force: probe by probe", ours, np.mean(right), atol=1e-15)
        assert ours.dtype == torch.float64


def test_a_distance_of_unit_vectors_says_their_cosine(agrees_with):
    a, b = (F.normalize(normal(6, 4, seed=seed, dtype=torch.float64), dim=1) for seed in (0, 1))
    theirs = 1 - scipy.spatial.distance.cdist(a, b, "cosine")
    distance = torch.from_numpy(scipy.spatial.distance.cdist(a, b))
    ours = cosine_from_distance(strided(distance))
    agrees_with(cosine_from_distance, "scipy.spatial.distance.cdist", ours, theirs, atol=1e-15)
    squared = torch.from_numpy(scipy.spatial.distance.cdist(a, b, "sqeuclidean"))
    ours = cosine_from_distance(squared, squared=True)
    agrees_with(cosine_from_distance, "scipy.spatial.distance.cdist", ours, theirs, atol=1e-15)
    assert cosine_from_distance(torch.tensor([0.0, 2.0, 4.0]), True).tolist() == [1.0, 0.0, -1.0]
    assert cosine_from_distance(torch.tensor(2.0, dtype=torch.float16)).dtype == torch.float16
    for bad, squared in [(-0.1, False), (2.1, False), (-0.1, True), (4.1, True), (math.nan, False)]:
        value = torch.tensor([1.0, bad])
        refused(f"unit vectors are 0 to 2 apart, got {value}", cosine_from_distance, value, squared)


def test_enough_impostors_make_the_relative_error_small(agrees_with):
    for far, error in [(1e-3, 0.1), (1e-6, 0.5), (0.5, 0.01), (0.3, 1.0)]:
        count = impostor_pairs_needed(far, error)
        spread = scipy.stats.binom.std(count, far) / count / far
        assert spread <= error * (1 + 1e-9)
        if count > 1:
            assert scipy.stats.binom.std(count - 1, far) / (count - 1) / far > error
        theirs = math.ceil(round((1 - far) / far / error**2, 3))
        agrees_with(impostor_pairs_needed, "closed form: variance of a binomial share", count, theirs)
    message = "far must lie between 0 and 1 and relative_error be positive, got {} and {}"
    for far, error in [(0, 0.1), (1, 0.1), (0.1, 0), (0.1, -1.0), (math.nan, 0.1), (0.1, math.nan)]:
        refused(message.format(far, error), impostor_pairs_needed, far, error)
