"""The measurements of the OadTR page: recounted another way, repeatable, and plausible."""

from statistics import fmean, stdev

import numpy as np
import pytest
import sklearn.linear_model
import sklearn.metrics
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scripts.experiments import oadtr as experiments
from snippets.oadtr import Attention, CachedTokenAttention, sliding_windows

LOOKS, CUES, MARKS = slice(0, 4), slice(4, 6), slice(8, 16)


def mean_ap(scores, labels):
    """sklearn's per-frame mAP over the actions."""
    flat, truth = np.asarray(scores).reshape(-1, 9), np.asarray(labels).ravel()
    return fmean(sklearn.metrics.average_precision_score(truth == c, flat[:, c]) for c in range(1, 9))


# --- the small world -----------------------------------------------------------------------------


def clean_streams(own):
    """Streams without noise, as coordinates in the dictionary: (N, L, 16), labels, events."""
    features, labels, events = experiments._streams(20, 150, torch.Generator().manual_seed(3), own, noise=0.0)
    return features @ experiments._dictionary().T, labels, events


def test_each_action_shows_its_pair_and_its_own_mark_and_nothing_else():
    shown, labels, _ = clean_streams(own=0.7)
    for label in range(1, 9):
        expected = torch.zeros(16)
        expected[LOOKS][(label - 1) // 2] = 2.0
        expected[MARKS][label - 1] = 0.7
        frames = shown[labels == label]
        assert len(frames) > 20
        torch.testing.assert_close(frames, expected.expand_as(frames), rtol=0, atol=1e-5)


def test_without_a_mark_only_the_cue_tells_the_two_of_a_pair_apart():
    shown, labels, _ = clean_streams(own=0.0)
    assert shown[..., MARKS].abs().max() < 1e-5
    for pair in range(4):
        frames = shown[(labels == 2 * pair + 1) | (labels == 2 * pair + 2)]
        torch.testing.assert_close(frames, frames[:1].expand_as(frames), rtol=0, atol=1e-5)


def test_a_cue_of_two_frames_comes_two_to_six_frames_before_each_action():
    shown, labels, events = clean_streams(own=0.7)
    waits, lengths = set(), set()
    for row, truth, event in zip(shown, labels.tolist(), events.tolist(), strict=True):
        starts = [t for t in range(1, 140) if truth[t] and not truth[t - 1]]
        for start in starts:
            cue = max(t for t in range(start) if event[t] == 1)
            assert event[cue - 1] == 1
            waits.add(start - cue - 1)
            lengths.add(next(t for t in range(start, 151) if t == 150 or truth[t] != truth[start]) - start)
            says = row[cue, CUES].argmax()
            assert says == (truth[start] - 1) % 2
            assert sum(event[t] == 2 for t in range(cue + 1, start)) <= 1
    assert waits == {2, 3, 4, 5, 6}
    assert lengths <= set(range(6, 13))


def test_half_of_the_actions_have_a_false_start_of_one_frame_outside_any_action():
    shown, labels, events = clean_streams(own=0.7)
    false = events == 2
    assert (labels[false] == 0).all()
    assert torch.equal(shown[false][:, LOOKS].amax(1).round(), torch.full((int(false.sum()),), 2.0))
    assert 0.35 < int(false.sum()) / (int((events == 1).sum()) / 2) < 0.6


def test_the_page_states_the_world_as_it_is():
    labels = experiments._test_streams()[1]
    result = experiments.ablation(steps=0, seeds=(0,))
    assert result["test_frames"] == labels.numel() == 24 * 200
    assert result["action_share"] == pytest.approx(np.count_nonzero(labels) / labels.numel())
    assert (result["classes"], result["length"], result["future"]) == (8, 16, 4)
    assert result["gru_labels"] == 320
    assert 0.9 < result["gru_parameters"] / result["full_parameters"] < 1.1


# --- ablation ------------------------------------------------------------------------------------


def test_means_spreads_and_paired_gains_are_those_of_the_seeds():
    result = experiments.ablation(steps=2, seeds=(0, 1))
    by_model = {
        row["model"]: [seed["map"] for seed in result["seed_rows"] if seed["model"] == row["model"]]
        for row in result["rows"]
    }
    assert list(by_model) == ["last", "token", "last_decoder", "full", "unsupervised", "gru", "linear"]
    for row in result["rows"]:
        values = by_model[row["model"]]
        assert row["map"] == result[f"{row['model']}_map"] == pytest.approx(fmean(values))
        assert row["map_spread"] == pytest.approx(stdev(values))
    pairs = {
        "token_gain_alone": ("token", "last"),
        "token_gain": ("full", "last_decoder"),
        "decoder_gain_last": ("last_decoder", "last"),
        "decoder_gain": ("full", "token"),
        "supervision_gain": ("full", "unsupervised"),
        "gru_gain": ("gru", "full"),
    }
    for row in result["gain_rows"]:
        one, other = (by_model[name] for name in pairs.pop(row["comparison"]))
        gains = [a - b for a, b in zip(one, other, strict=True)]
        assert row["gain"] == pytest.approx(fmean(gains))
        assert row["spread"] == pytest.approx(stdev(gains))
        assert row["wins"] == sum(gain > 0 for gain in gains)
    assert not pairs
    assert result["similarity_last_newest"] == pytest.approx(1.0)
    assert [row["horizon"] for row in result["horizon_rows"]] == [1, 2, 3, 4]
    assert result["full_first"] == result["horizon_rows"][0]["full"]
    assert result["copy_last"] == result["horizon_rows"][-1]["copy"]


def test_the_early_ablation_is_the_late_one_with_other_steps():
    early = experiments.early(steps=2, seeds=(0, 1))
    late = experiments.ablation(steps=2, seeds=(0, 1))
    compared = [row["comparison"] for row in early["gain_rows"]]
    assert compared == ["token_gain_alone", "token_gain", "decoder_gain_last", "decoder_gain", "gru_gain"]
    assert early["gain_rows"] == [row for row in late["gain_rows"] if row["comparison"] in compared]
    for row in early["seed_rows"]:
        assert row | {"mcap": None} in [each | {"mcap": None} for each in late["seed_rows"]]
    assert early["full_map"] == late["full_map"]
    assert early["token_gain_wins"] == late["token_gain_wins"]


def test_a_seed_gives_the_same_model_again_and_another_seed_another():
    features, labels, _ = experiments._test_streams()
    one, again, other = (experiments._train_oadtr(seed, 2).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    score = experiments._score(experiments._train_gru(0, 2), features, labels)
    assert score["map"] == pytest.approx(mean_ap(score["now"], labels), abs=1e-12)


def test_anticipation_is_judged_against_the_frames_that_come():
    labels = torch.randint(0, 9, (3, 30), generator=torch.Generator().manual_seed(0))
    scores = torch.rand(3, 30, 4, 9, generator=torch.Generator().manual_seed(1))
    ours = experiments._anticipation(scores, labels)
    for k in range(1, 5):
        assert ours[k - 1] == pytest.approx(mean_ap(scores[:, : 30 - k, k - 1], labels[:, k:]), abs=1e-12)


def test_the_linear_detector_is_sklearns_ridge():
    features, labels, _ = experiments._streams(64, 120, torch.Generator().manual_seed(5))
    model = sklearn.linear_model.Ridge(alpha=10.0, fit_intercept=False)

    def rows(streams):
        flat = sliding_windows(streams, 3).flatten(2).flatten(0, 1).double().numpy()
        return np.concatenate([flat, np.ones((len(flat), 1))], 1)

    model.fit(rows(features), np.eye(9)[labels.flatten().numpy()])
    probe = features[:2]
    ours = experiments._linear(5, length=3)(probe)
    assert np.allclose(ours, model.predict(rows(probe)), atol=1e-9)


def test_the_leak_is_as_long_as_it_is_said_to_be():
    probe = torch.zeros(1, 30, 16)
    changed = probe.clone()
    changed[0, 20] = 1.0
    for shift in (0, 4):
        judge = experiments._linear(0, 8, shift)
        moved = (judge(changed) - judge(probe)).abs().amax(1) > 1e-9
        assert moved.nonzero()[:, 0].tolist() == list(range(20 - shift, 28 - shift))


# --- when it turns, history ----------------------------------------------------------------------


def test_with_only_the_cue_attention_wins_and_with_strong_frames_the_gru_does():
    result = experiments.turning(strengths=(0.0, 1.5), steps=200, seeds=(0,), patience=1)
    assert result["first_full"] > result["first_gru"] + 0.1
    assert result["last_gru"] > result["last_full"]
    assert result["turns_at"] == 1.5
    assert result["patient_full"] == pytest.approx(result["first_full"])
    assert result["patient_gru"] == pytest.approx(result["first_gru"])
    for row in result["rows"]:
        assert row["gap"] == pytest.approx(row["gru"] - row["full"])
        assert row["full_low"] <= row["full"] <= row["full_high"]


def test_history_reports_the_best_length_and_its_cost():
    result = experiments.history(lengths=(2, 5), steps=1, seeds=(0, 1))
    assert (
        result["best_map"] == max(result["map_2"], result["map_5"]) == result[f"map_{result['best_length']}"]
    )
    assert (result["first_map"], result["last_map"]) == (result["map_2"], result["map_5"])
    for row in result["rows"]:
        model = experiments._oadtr(row["length"]).requires_grad_(False).eval()
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model.detect(torch.zeros(1, row["length"], 32))
        heads = 9 * 32 * (2 + 4)
        assert row["cost"] == counter.get_total_flops() // 2 - heads + 16 * 32


# --- streaming -----------------------------------------------------------------------------------


def test_a_stream_is_exact_and_a_window_of_zeros_is_not():
    result = experiments.streaming(lengths=(4, 8), repeats=2)
    assert result["largest_error"] < 1e-5 < 1e-2 < result["blank_error"]
    assert result["blank_frames"] == 15  # until the last of the empty slots has left
    for row in result["rows"]:
        assert row["anew"] - row["cached"] == (row["length"] - 1) * 2048 * 64
        assert row["saved"] == pytest.approx(1 - row["cached"] / row["anew"])
        assert row["ratio"] == pytest.approx(row["window_time"] / row["stream_time"])
    saved = result["official_anew"] - result["official_cached"]
    assert saved == 63 * 3072 * 1024
    assert result["official_saved"] == pytest.approx(saved / result["official_anew"])


def test_the_gru_and_the_cached_token_cost_what_torch_counts():
    result = experiments.streaming(lengths=(4,), repeats=1)
    cell = torch.nn.GRUCell(2048, 64)
    assert result["gru_cost"] == cell.weight_ih.numel() + cell.weight_hh.numel()
    attention, token = Attention(1024, 8), torch.ones(1024)
    cache = CachedTokenAttention(attention.requires_grad_(False), token, 64)
    with FlopCounterMode(display=False) as counter:
        cache.step(torch.zeros(1024))
    scores_and_mix = 2 * 64 * 1024  # element by element, which the counter does not see
    assert result["one_layer_cached"] == counter.get_total_flops() // 2 + scores_and_mix
    assert result["one_layer_anew"] - result["one_layer_cached"] == 63 * attention.key_value.weight.numel()


# --- mistakes ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mistakes():
    return experiments.published_mistakes(steps=30)


@pytest.fixture(scope="module")
def judged():
    features, labels, _ = experiments._test_streams()
    now, _ = experiments._predict(experiments._train_oadtr(0, 30), features)
    return now.numpy(), labels.numpy()


def test_the_right_number_is_sklearns(mistakes, judged):
    right = mean_ap(*judged)
    for row in mistakes["rows"]:
        assert row["gap"] == pytest.approx(row["wrong"] - row["right"])
        if row["mistake"] != "leaking_window":
            assert row["right"] == pytest.approx(right, abs=1e-9)
    assert len(mistakes["rows"]) == mistakes["mistakes"] == 9


def test_each_wrong_number_is_computed_as_the_mistake_says(mistakes, judged):
    scores, labels = judged
    flat, truth = scores.reshape(-1, 9), labels.ravel()
    ap = sklearn.metrics.average_precision_score
    assert mistakes["background_counted_wrong"] == pytest.approx(
        fmean(ap(truth == c, flat[:, c]) for c in range(9))
    )
    inside = truth > 0
    assert mistakes["background_frames_wrong"] == pytest.approx(mean_ap(flat[inside], truth[inside]))
    per_video = [
        fmean(ap(t == c, s[:, c]) for c in range(1, 9) if (t == c).any())
        for s, t in zip(scores, labels, strict=True)
    ]
    assert mistakes["per_video_wrong"] == pytest.approx(fmean(per_video))
    weighted = [
        ap(
            truth == c,
            flat[:, c],
            sample_weight=np.where(truth == c, (truth != c).sum() / (truth == c).sum(), 1),
        )
        for c in range(1, 9)
    ]
    assert mistakes["calibrated_wrong"] == pytest.approx(fmean(weighted))


def test_the_mistakes_err_in_the_direction_that_the_page_tells(mistakes):
    for name in ("leaking_window", "interpolated", "background_frames", "calibrated"):
        assert mistakes[f"{name}_gap"] > 0
    for name in ("first_row", "last_frame"):
        assert mistakes[f"{name}_gap"] < 0


def test_ties_walked_in_order_give_any_number(mistakes):
    assert mistakes["ties_first"] == 1.0
    last = fmean(k / (80 + k) for k in range(1, 21))
    assert mistakes["ties_last"] == pytest.approx(last)
    assert mistakes["ties_right"] == pytest.approx(0.2)


def test_frames_that_the_official_loader_never_judges(mistakes):
    window, future, frames = 64, 8, 200
    judged = {end - 1 for end in range(window, frames - future)}
    assert mistakes["skipped_frames"] == 24 * (frames - len(judged))
    assert set(range(63)).isdisjoint(judged)
    assert set(range(frames - 9, frames)).isdisjoint(judged)
    assert {63, frames - 10} <= judged
