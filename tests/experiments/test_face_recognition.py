"""The measurements of the face recognition page: recounted another way, repeatable, plausible after a short training."""

import math
from itertools import combinations
from statistics import fmean, stdev

import numpy as np
import pytest
import sklearn.metrics
import torch

from scripts.experiments import face_recognition as experiments
from snippets.face_recognition import arcface_template, umeyama


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def plain_conditions(count, **changes):
    """Conditions without any chance: a head of radius 12 in the middle, looking straight on."""
    how = experiments._conditions(count, seeded(), jitter=0.0)
    how["radius"] = torch.full((count,), 12.0)
    return how | {name: torch.full((count,), value) for name, value in changes.items()}


# --- the toy world -------------------------------------------------------------------------------


def test_frontal_landmarks_are_where_the_traits_say():
    people = experiments._people(5, seeded(1))
    how = plain_conditions(5)
    points = experiments._draw(people, how, seeded())["landmarks"]
    left, right, nose, mouth_left, mouth_right = points.unbind(1)
    middle, lift = 23.5, 12.0
    torch.testing.assert_close(right[:, 0] - left[:, 0], 2 * lift * people["eye_x"], rtol=0, atol=1e-4)
    torch.testing.assert_close(left[:, 1], middle + lift * people["eye_y"], rtol=0, atol=1e-4)
    torch.testing.assert_close(
        nose,
        torch.stack([torch.full((5,), middle), middle + lift * (people["eye_y"] + people["nose_length"])], 1),
    )
    torch.testing.assert_close(mouth_right[:, 0] - mouth_left[:, 0], 2 * lift * people["mouth_width"])
    torch.testing.assert_close(mouth_left[:, 1], middle + lift * people["mouth_y"])


def test_a_rolled_head_turns_its_landmarks_about_its_center():
    people, angle = experiments._people(4, seeded(2)), 0.6
    straight = experiments._draw(people, plain_conditions(4), seeded())["landmarks"] - 23.5
    rolled = experiments._draw(people, plain_conditions(4, roll=angle), seeded())["landmarks"] - 23.5
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    torch.testing.assert_close(rolled, straight @ turn.T)


def test_the_landmarks_lie_on_what_they_name():
    people = experiments._people(40, seeded(3))
    quiet = plain_conditions(40, yaw=0.3, roll=-0.4)
    photos = experiments._draw(people | {"eye_width": torch.full((40,), 0.2)}, quiet, seeded())
    eyes = photos["landmarks"][:, :2]
    beside = eyes + 0.15 * 12 * torch.tensor([math.cos(-0.4), math.sin(-0.4)])  # white, right of the iris
    images = photos["images"]
    grid = 2 * (torch.cat([eyes, beside], 1) + 0.5) / 48 - 1
    seen = torch.nn.functional.grid_sample(images, grid[:, None], align_corners=False)[:, :, 0]  # (B, 3, 4)
    iris, white = seen[..., :2].mean((1, 2)), seen[..., 2:].mean((1, 2))
    assert float((white - iris).mean()) > 0.15


def test_the_nose_moves_more_than_the_mouth_when_the_head_turns():
    people = experiments._people(10, seeded(4))
    for sign in (-1.0, 1.0):
        turned = experiments._draw(people, plain_conditions(10, yaw=sign * 0.5), seeded())["landmarks"]
        shift = sign * (turned - 23.5)[..., 0]
        assert (shift[:, 2] > shift[:, 3:].mean(1) + 1).all()
        assert (shift[:, 3:].mean(1) > 0).all()


def test_a_bald_oval_head_just_fills_its_box():
    people = experiments._people(6, seeded(5))
    bare = {"hair_volume": 0.0, "hair_length": -0.6, "ears": 0.0, "jaw": 2.0}
    people |= {name: torch.full((6,), value) for name, value in bare.items()}
    photos = experiments._draw(people, plain_conditions(6, roll=0.5), seeded())
    for cover, box in zip(photos["cover"], photos["boxes"], strict=True):
        y, x = (cover > 0.5).nonzero().T
        found = torch.stack([x.min(), y.min(), x.max(), y.max()])
        assert (found - box).abs().max() < 1.6  # the crown of the head sits a little high


def test_photos_repeat_and_people_do_not():
    people, labels = experiments._people(3, seeded(6)), torch.tensor([0, 0, 1, 2])
    one, two = (experiments._photos(people, labels, seeded(7), **experiments._EVERYDAY) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert one["images"].min() >= 0
    assert one["images"].max() <= 1
    still = experiments._photos(people, labels, seeded(8), fixed_yaw=30.0, occluder=2.0)
    assert still["how_yaw"].rad2deg().tolist() == pytest.approx([30.0] * 4)
    assert still["how_occluder"].tolist() == [2] * 4


def test_scenes_hold_their_faces_where_they_say():
    people = experiments._people(9, seeded(9))
    world = experiments._scenes(people, 30, seeded(10))
    assert world["images"].shape == (30, 3, 96, 96)
    assert world["present"].any(1).all()
    assert not world["present"].all()
    boxes, landmarks = world["boxes"], world["landmarks"]
    inside = (landmarks > boxes[:, :, None, :2]) & (landmarks < boxes[:, :, None, 2:])
    assert inside[world["present"]].float().mean() > 0.97  # the tip of a turned nose may stand out
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    quadrant = (middle[..., 0] > 47.5).long() + 2 * (middle[..., 1] > 47.5).long()
    assert torch.equal(quadrant, torch.arange(4).expand(30, -1))


def test_an_upright_box_is_cut_out_as_it_is():
    image = torch.rand(2, 3, 48, 48, generator=seeded())
    box = torch.tensor([[7.5, 5.5, 39.5, 37.5], [3.5, 10.5, 35.5, 40.5]])  # the second is not square
    crops = experiments._box_crop(image, box)
    torch.testing.assert_close(crops[0], image[0, :, 6:38, 8:40], rtol=0, atol=2e-4)
    torch.testing.assert_close(crops[1], image[1, :, 10:42, 4:36], rtol=0, atol=2e-4)


def test_landmarks_start_from_the_box_and_are_mended_twice():
    images = torch.rand(2, 3, 48, 48, generator=seeded())
    boxes = torch.tensor([[8.0, 6.0, 40.0, 38.0], [10.0, 10.0, 30.0, 34.0]])
    right = torch.tensor(
        [1.0, 0.0] * 5
    )  # a model that always sees everything a pixel of the crop further right
    still, moved = (
        experiments._landmarks(lambda crops, by=by: (by * right).expand(len(crops), 10), images, boxes)
        for by in (0, 1)
    )
    torch.testing.assert_close(still, experiments._upright(boxes), rtol=0, atol=1e-4)
    step = torch.tensor([32.0, 24.0]) / 32  # the longer side of each box, in pixels of the crop
    torch.testing.assert_close(
        moved[..., 0] - still[..., 0], 2 * step[:, None].expand(2, 5), rtol=0, atol=1e-4
    )
    torch.testing.assert_close(moved[..., 1], still[..., 1], rtol=0, atol=1e-4)


# --- measuring -----------------------------------------------------------------------------------


def test_pairs_and_galleries_are_counted_as_by_hand():
    embeddings, labels = torch.randn(12, 5, generator=seeded(11)), torch.arange(3).repeat_interleave(4)
    scores, same = experiments._pair_scores(embeddings, labels)
    unit = (embeddings / embeddings.norm(dim=1, keepdim=True)).numpy()
    pairs = list(combinations(range(12), 2))
    np.testing.assert_allclose(scores, [unit[i] @ unit[j] for i, j in pairs], atol=1e-6)
    assert same.tolist() == [i // 4 == j // 4 for i, j in pairs]
    table, probes, gallery = experiments._against_gallery(embeddings, labels, 2)
    assert probes.tolist() == [0, 0, 1, 1, 2, 2]
    assert gallery.tolist() == [0, 1, 2]
    template = unit[4] + unit[5]
    np.testing.assert_allclose(
        table[:, 1], [unit[i] @ template / np.linalg.norm(template) for i in (2, 3, 6, 7, 10, 11)], atol=1e-6
    )


def test_scores_agree_with_scikit_learn():
    generator = seeded(12)
    labels = torch.arange(20).repeat_interleave(8)
    embeddings = torch.randn(20, 16, generator=generator)[labels] + 1.5 * torch.randn(
        160, 16, generator=generator
    )
    found = experiments._scores(embeddings, labels)
    scores, same = experiments._pair_scores(embeddings, labels)
    far, tar, _ = sklearn.metrics.roc_curve(same, scores, drop_intermediate=False)
    assert found["tar"] == pytest.approx(tar[far <= 0.01].max())
    assert found["tar_strict"] == pytest.approx(tar[far <= 0.001].max())
    assert found["eer"] == pytest.approx(far[np.argmin(np.abs(far + tar - 1))], abs=2e-3)
    by_person = embeddings.unflatten(0, (20, 8))
    probes = torch.nn.functional.normalize(by_person[:, 4:].flatten(0, 1), dim=1)
    first = torch.nn.functional.normalize(by_person[:, 0], dim=1)
    right = ((probes @ first.T).argmax(1) == torch.arange(20).repeat_interleave(4)).double().mean()
    assert found["single_rank1"] == pytest.approx(float(right))
    assert found["template_tar"] > found["single_tar"]


def test_overlap_of_shifted_squares():
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 1.0, 1.0]])
    others = torch.tensor([[2.0, 0.0, 6.0, 4.0], [5.0, 5.0, 6.0, 6.0]])
    assert experiments._overlap(boxes, others).tolist() == pytest.approx([8 / 24, 0.0])


def test_landmark_error_is_in_heights_of_the_face():
    truth = torch.tensor([[[0.0, 0.0], [10.0, 0.0], [5.0, 5.0], [1.0, 10.0], [9.0, 10.0]]])
    assert experiments._landmark_error(truth + torch.tensor([3.0, 4.0]), truth).tolist() == pytest.approx(
        [0.5]
    )


# --- without training ----------------------------------------------------------------------------


def test_target_logits_are_the_formulas():
    result = experiments.target_logits()
    theta = np.radians(result["degrees"])
    np.testing.assert_allclose(result["softmax"], np.cos(theta), atol=1e-9)
    np.testing.assert_allclose(result["cosface"], np.cos(theta) - 0.35, atol=1e-9)
    before, after = theta < math.pi - 0.5 - 1e-3, theta > math.pi - 0.5 + 1e-3
    np.testing.assert_allclose(result["arcface"][before], np.cos(theta + 0.5)[before], atol=2e-4)
    np.testing.assert_allclose(
        result["arcface"][after], (np.cos(theta) - 0.5 * math.sin(0.5))[after], atol=1e-9
    )
    k = np.minimum(np.floor(theta * 4 / math.pi), 3)
    np.testing.assert_allclose(
        result["sphereface"][:-1], ((-1) ** k * np.cos(4 * theta) - 2 * k)[:-1], atol=1e-9
    )
    assert (np.diff(result["arcface"]) < 0).all()
    assert (np.diff(result["naive"])[theta[:-1] > math.pi - 0.5] > 0).all()
    far = math.radians(result["far_degrees"])
    assert result["naive_loss"] == pytest.approx(math.log1p(math.exp(-64 * math.cos(far + 0.5))))
    assert result["arcface_loss"] == pytest.approx(
        math.log1p(math.exp(-64 * (math.cos(far) - 0.5 * math.sin(0.5))))
    )
    assert result["naive_loss"] < result["arcface_loss"]


def test_samples_are_aligned_as_the_figure_claims():
    result = experiments.samples()
    matrix = umeyama(torch.tensor(result["before_points"]), arcface_template(64))
    moved = torch.tensor(result["before_points"]) @ matrix[..., :2].mT + matrix[:, None, :, 2]
    np.testing.assert_allclose(result["after_points"], moved, atol=1e-4)
    assert 1 < result["after_error"] < 12
    assert result["sheet"].shape == (7, 6, 3, 48, 48)
    assert np.abs(result["turned"][2] - result["drawn"][2]).max() < 0.02
    assert np.abs(result["turned"][0] - result["turned"][2]).mean() > 0.02


def test_a_margin_on_every_class_is_no_margin():
    plain, everywhere, target = experiments._margin_losses(seeded(13))
    assert everywhere == pytest.approx(plain, abs=1e-4)
    assert target > plain + 5


def test_past_the_turn_the_naive_logit_rises_with_the_angle():
    naive, kept = experiments._slopes(math.radians(170))
    assert naive == pytest.approx(-64 * math.sin(math.radians(170) + 0.5) * math.pi / 180)
    assert kept == pytest.approx(-64 * math.sin(math.radians(170)) * math.pi / 180, rel=1e-5)
    assert kept < 0 < naive


def test_the_gradient_through_acos_is_lost_on_the_class_weight():
    assert experiments._finite_at_zero() == (0.0, 1.0)


def test_without_the_sign_a_mirrored_face_is_fitted_by_a_mirror():
    points = arcface_template()
    mirrored = points * torch.tensor([-1.0, 1.0])
    assert torch.linalg.det(experiments._naive_umeyama(mirrored, points)) == pytest.approx(-1)
    assert torch.linalg.det(experiments._naive_umeyama(points, points)) == pytest.approx(1)


# --- short trainings -----------------------------------------------------------------------------


@pytest.fixture
def small_world(monkeypatch):
    """Fewer people to train on, so that little time is spent on drawing them."""
    monkeypatch.setattr(experiments, "_PEOPLE", 50)


@pytest.mark.usefixtures("small_world")
def test_losses_summarize_their_seeds_and_learn_something():
    result = experiments.losses(steps=40, seeds=(0, 1), people=16)
    assert [row["loss"] for row in result["rows"]] == ["softmax", "sphereface", "cosface", "arcface"]
    for row in result["rows"]:
        runs = [run for run in result["seed_rows"] if run["loss"] == row["loss"]]
        for key in ("tar", "eer", "held_far", "threshold"):
            values = [run[key] for run in runs]
            assert row[key] == result[f"{row['loss']}_{key}"] == pytest.approx(fmean(values))
            assert row[f"{key}_spread"] == pytest.approx(stdev(values))
        assert row["tar"] > 0.025  # by chance 0.01
        assert row["eer"] < 0.45
        curve = result[f"roc_{row['loss']}"]
        assert (np.diff(curve) >= 0).all()
        assert curve[-1] == 1
        at = np.argmin(np.abs(result["roc_far"] - 0.01))
        assert curve[at] == pytest.approx(row["tar"], abs=0.02)
    assert (result["genuine"], result["impostor"]) == (16 * 28, 128 * 127 // 2 - 16 * 28)
    tars = {row["loss"]: row["tar"] for row in result["rows"]}
    assert result["best_loss"] == max(tars, key=tars.get)
    assert result["tar_range"] == pytest.approx(max(tars.values()) - min(tars.values()))
    assert result["held_far_low"] <= result["held_far_high"]
    assert len(result["nuisance_rows"]) == 9


@pytest.mark.usefixtures("small_world")
def test_the_pipeline_counts_every_face_once():
    result = experiments.stages(
        steps=30, detector_steps=200, landmark_steps=60, seeds=(0,), people=16, scenes=24
    )
    assert result["scene_known"] == sum(result[f"scene_{name}"] for name in ("right", "confused", "rejected"))
    assert result["scene_strangers"] == result["scene_stopped"] + result["scene_accepted"]
    assert result["scene_found"] == result["scene_known"] + result["scene_strangers"] <= result["scene_faces"]
    assert result["scene_recall"] == pytest.approx(result["scene_found"] / result["scene_faces"])
    found = result["scene_found"]
    assert result["scene_precision"] == pytest.approx(found / (found + result["scene_false"]))
    assert result["scene_recall"] > 0.6
    assert result["sees_faces"] > 0.6
    tar = {row["variant"]: row["tar"] for row in result["rows"]}
    assert result["skipped_alignment_loss"] == pytest.approx(tar["full"] - tar["skipped_alignment"])
    assert tar["true_landmarks"] > 0.025
    assert [row["yaw"] for row in result["pose_rows"]] == [0, 15, 30, 45, 60]
    assert result["noise_tar_0"] > result["noise_tar_5"]
    assert set(result["weights"]) == {"detector", "landmarker", "embedding"}
    assert len(result["shown_faces"]) == len(result["shown_scenes"])


@pytest.mark.usefixtures("small_world")
def test_groups_share_one_threshold():
    result = experiments.groups(steps=10, seeds=(0,), people=12, training_people=50)
    assert [(row["training"], row["group"]) for row in result["rows"]] == [
        ("skewed", "varied"),
        ("skewed", "uniform"),
        ("balanced", "varied"),
        ("balanced", "uniform"),
    ]
    ratio = result["skewed_uniform_far"] / result["skewed_varied_far"]
    assert result["skewed_ratio"] == pytest.approx(ratio)
    uniform = experiments._alike(experiments._people(5, seeded()))
    assert all(len(set(uniform[name].tolist())) == 1 for name in ("skin", "hair", "hairline"))
    assert len(set(uniform["eye_x"].tolist())) == 5
    mixed = experiments._mixed(0.4)(experiments._people(5, seeded()))
    assert (mixed["skin"] == 0.6).tolist() == [True, True, False, False, False]


def test_the_circle_measures_its_own_points():
    result = experiments.circle(steps=10, people=4, photos=6)
    points = result["arcface_points"] / np.linalg.norm(result["arcface_points"], axis=1, keepdims=True)
    means = np.stack([points[result["labels"] == person].mean(0) for person in range(4)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    own = np.degrees(np.arccos(np.clip((points * means[result["labels"]]).sum(1), -1, 1)))
    assert result["arcface_within"] == pytest.approx(own.mean(), abs=0.05)
    between = min(np.degrees(np.arccos(np.clip(a @ b, -1, 1))) for a, b in combinations(means, 2))
    assert result["arcface_between"] == pytest.approx(between, abs=0.05)


@pytest.mark.usefixtures("small_world")
def test_mistakes_that_need_no_luck_show_themselves():
    result = experiments.published_mistakes(steps=30, people=16)
    assert result["mistakes"] == len(result["rows"]) == 12
    assert result["reversed_wrong"] == pytest.approx(1 - result["reversed_right"], abs=1e-3)
    assert result["every_class_wrong"] == pytest.approx(0, abs=1e-4)
    assert result["every_class_right"] > 5
    assert result["half_bound"] == 1.0
    assert result["reflection_right"] == 0
    assert result["reflection_wrong"] > 0.01
    assert result["test_threshold_wrong"] > result["test_threshold_right"] - 0.02  # nearly always above
    assert result["constant_threshold_wrong"] != pytest.approx(result["constant_threshold_right"], rel=0.2)
    assert result["past_pi_right"] < 0 < result["past_pi_wrong"]
    assert (result["gradient_at_zero_wrong"], result["gradient_at_zero_right"]) == (0.0, 1.0)
