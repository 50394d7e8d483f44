"""The measurements of the DETR page: recounted another way, repeatable, and plausible after a short training."""

import numpy as np
import pytest
import scipy.optimize
import torch

from scripts.experiments import detr as experiments
from scripts.pipeline import experiment
from snippets.detr import HungarianMatcher, box_cxcywh_to_xyxy


def test_boxes_enclose_just_what_is_seen_and_segments_fill_the_picture() -> None:
    pictures, scenes = experiments._scenes(30, torch.Generator().manual_seed(1))
    again, _ = experiments._scenes(30, torch.Generator().manual_seed(1))
    assert torch.equal(pictures, again)
    numbers = set()
    for scene in scenes:
        assert (scene["masks"].sum(0) == 1).all()
        shapes = scene["labels"] < 3
        numbers.add(int(shapes.sum()))
        for mask, box in zip(scene["masks"], box_cxcywh_to_xyxy(scene["boxes"]) * 64, strict=True):
            y, x = mask.nonzero().T
            assert box.tolist() == pytest.approx(
                [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1], abs=1e-4
            )
    assert numbers == {1, 2, 3, 4}


def test_a_perfect_detector_scores_one_and_a_repeating_one_is_counted() -> None:
    _, scenes = experiments._scenes(20, torch.Generator().manual_seed(2))
    perfect = [one | {"scores": torch.ones(len(one["labels"]))} for one in experiments._truth(scenes)]
    score = experiments._score(perfect, scenes)
    assert score["ap"] == score["ap50"] == score["ap75"] == 1
    assert score["count_error"] == score["count_wrong"] == 0
    twice = [{key: torch.cat([value, value]) for key, value in one.items()} for one in perfect]
    score = experiments._score(twice, scenes)
    assert score["duplicates"] >= 1
    assert score["count_bias"] > 1
    assert score["count_wrong"] == 1


def test_the_worked_example_is_optimal_and_greedy_is_not() -> None:
    result = experiments.matching_example()
    cost = result["cost"].numpy()
    rows, columns = scipy.optimize.linear_sum_assignment(cost)
    assert result["total"] == pytest.approx(cost[rows, columns].sum())
    assert result["total"] == pytest.approx(result["best_by_trying"])
    assert {result[f"query_{j}"] for j in range(3)} == set(rows.tolist()) == {0, 1, 2}
    assert result["excess"] > 0.1
    assert (result["query_0"], result["query_1"]) == (1, 0)
    assert (result["greedy_query_0"], result["greedy_query_1"]) == (0, 1)
    parts = sum(result[f"{name}_term"] for name in ("class", "bbox", "giou"))
    assert torch.allclose(parts, result["cost"], atol=1e-5)
    assert result["orders"] == 60


def test_greedy_pays_more_the_more_boxes_there_are() -> None:
    result = experiments.assignments(count=100)
    assert result["few_different"] == result["few_excess"] == 0
    assert result["many_different"] > 0.4
    assert (np.diff(result["excess"]) >= -0.01).all()
    outputs, targets = experiments._problems(100, 8, noise=0.08, seed=8)
    costs = [cost.numpy() for cost in HungarianMatcher().costs(outputs, targets)]
    best = [cost[scipy.optimize.linear_sum_assignment(cost)].sum() for cost in costs]
    greedy = [cost[experiments.greedy_assignment(cost)].sum() for cost in costs]
    assert result["many_excess"] == pytest.approx(np.mean(np.subtract(greedy, best)), abs=1e-5)


def test_curves_and_codes() -> None:
    curve = experiments.giou_curve()
    assert curve["largest_error"] < 1e-12
    assert (curve["iou"][curve["shift"] > 1] == 0).all()
    assert (curve["giou"].diff() < 0).all()
    codes = experiments.position_codes()
    likeness = codes["likeness"][:9, :12]
    assert likeness.argmax() == codes["row"] * 12 + codes["column"]
    assert codes["padding"].sum() == 12 * 16 - 9 * 12


def test_every_mistake_is_worse() -> None:
    result = experiments.published_mistakes(count=100)
    assert len(result["rows"]) == 8
    for name in ("log_probability", "giou_sign", "no_object_first", "height_first", "centers_as_corners"):
        assert result[f"{name}_wrong"] < result[f"{name}_right"]
    assert result["batch_size_wrong"] == pytest.approx(8 * result["batch_size_right"], rel=1e-5)
    assert result["positions_in_values_wrong"] > 1e-3
    assert result["positions_in_values_right"] < 1e-6
    assert result["mask_inverted_wrong"] == pytest.approx(1)
    assert result["mask_inverted_right"] == 0
    assert 0.2 < result["log_changed"] < 0.9


def test_a_short_training_learns_and_gives_every_result() -> None:
    result = experiments.training(steps=60, mask_steps=4, pictures=12, shown=3)
    assert result["last_loss"] < 0.75 * result["first_loss"]
    assert len(result["history_loss"]) == 6
    assert [row["layer"] for row in result["layer_rows"]] == [1, 2, 3]
    assert result["layer_3_ap"] == result["ap"]
    assert result["sure"] == pytest.approx(1 / 1.1)
    assert len(result["bin_count"]) == 8
    assert result["overlap_pictures"] <= 12
    assert 0 <= result["pq"] <= 1
    assert result["pq"] == pytest.approx(np.mean([row["pq"] for row in result["panoptic_rows"]]))
    assert result["image"].shape == (3, 64, 64, 3)
    assert result["segment_map"].shape == (3, 64, 64)
    assert len(result["attention"]) == len(result["attention_rows"])
    assert {"model.decoder.query_position", "head.query.weight"} <= set(result["weights"])


def test_pictures_in_which_shapes_meet_are_told_apart() -> None:
    def scene(*boxes: tuple[float, ...]) -> dict[str, torch.Tensor]:
        sky = (0.5, 0.2, 1.0, 0.4)
        return {"labels": torch.tensor([0] * len(boxes) + [3]), "boxes": torch.tensor([*boxes, sky])}

    left, near, far = (0.2, 0.2, 0.2, 0.2), (0.35, 0.2, 0.2, 0.2), (0.8, 0.8, 0.2, 0.2)
    assert experiments._overlapping(scene(left, near))
    assert not experiments._overlapping(scene(left, far))
    assert not experiments._overlapping(scene(left))  # the sky does not count


def test_calibration_counts_queries_with_a_partner_of_their_class() -> None:
    found = {"scores": torch.tensor([0.9, 0.8, 0.7, 0.6]), "labels": torch.tensor([0, 1, 2, 3])}
    scene = {"labels": torch.tensor([2, 0, 3])}
    pairs = (torch.tensor([0, 2, 3]), torch.tensor([1, 0, 2]))
    rows = experiments._calibration([found], [pairs], [scene])
    assert rows.tolist() == [[pytest.approx(s), r] for s, r in ((0.9, 1), (0.8, 0), (0.7, 1))]
    for share in (0.01, 0.5, 0.99):
        score = torch.tensor(experiments.inflated_score(share))
        assert float(experiments._share_right(score)) == pytest.approx(share, rel=1e-5)


@torch.no_grad()
def test_the_leak_shows_only_once_the_norm_has_learned() -> None:
    torch.manual_seed(0)
    model, pictures = experiments._new().eval(), torch.randn(2, 3, 64, 64)
    outputs = model(pictures)
    assert torch.allclose(experiments._leaking(model, outputs)["pred_boxes"], outputs["pred_boxes"], atol=1e-4)
    torch.nn.init.normal_(model.decoder.norm.weight, 1, 0.3)
    outputs = model(pictures)
    assert (experiments._leaking(model, outputs)["pred_boxes"] - outputs["pred_boxes"]).abs().max() > 1e-3


def test_a_run_without_parts_is_repeatable_and_compares_seeds() -> None:
    result = experiments.ablations(steps=10, seeds=(0,), pictures=8)
    again = experiments._train(10, 0)[1]
    last = [h["loss_ce"] + 5 * h["loss_bbox"] + 2 * h["loss_giou"] for h in again]
    assert result["full_history"][0].tolist() == pytest.approx(last)
    assert [row["variant"] for row in result["rows"]] == ["full", "greedy", "no_auxiliary"]
    assert result["full_history"].shape == (1, 1)
    assert result["greedy_gain"] == result["full_ap50"] - result["greedy_ap50"]


@pytest.mark.skipif(not experiment.result_path("detr", "training").is_file(), reason="not trained yet")
def test_the_published_training_finds_four_shapes_of_five() -> None:
    result = experiment.load("detr", "training")
    assert result["ap50"] >= 0.8
    assert result["suppressed_count_error"] < result["count_error"]  # the page says so
