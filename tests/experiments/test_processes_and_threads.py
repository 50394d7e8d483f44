"""The measurements of the processes and threads page: what must hold on any machine, at any load."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.experiments import processes_and_threads as experiments
from scripts.pipeline import java
from scripts.pipeline.experiment import experiments_of

STATES = ["NEW", "RUNNABLE", "BLOCKED", "WAITING", "TIMED_WAITING", "TERMINATED"]


@pytest.fixture
def no_jdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "machines", list)


@pytest.mark.jdk
def test_programs_print_what_the_page_says_of_them(jdk: Any) -> None:
    jdk(21)
    shown = experiments.programs()
    lines = {key: value["text"].splitlines() for key, value in shown.items() if isinstance(value, dict)}
    assert "main" in shown["threads"]
    assert shown["thread_count"] == len(shown["threads"]) == int(lines["list_threads"][-1].split()[0])
    assert [line.split()[0] for line in lines["thread_states"]] == STATES
    assert [line.split()[-1] for line in lines["shared_heap"][:4]] == ["1000", "1000", "1000", "3000"]
    assert lines["shared_heap"][-1] == "main still runs"
    for key in ("race_interpreted", "race_compiled"):
        assert len(lines[key]) == 5
        assert all(line.endswith(" lost         0") for line in lines[key][2:])
    assert lines["spawn_process"][-1] == "killed with: 137"
    assert "worker: finished" in lines["user"]
    assert "worker: finished" not in lines["daemon"]
    assert lines["virtual_threads"][1] == "through the gate: 10000"
    assert shown["race_interpreted"]["command"] == "java -Xint RaceCondition"
    assert shown["daemon"]["command"] == "java DaemonThreads daemon"
    newest = max(java.machines(), key=lambda found: found.feature)
    assert shown["list_threads_newest"]["machine"] == shown["stop_newest"]["machine"] == str(newest)
    assert shown["list_threads"]["machine"] == str(jdk(17))


@pytest.mark.jdk
def test_losses_are_shares_and_only_of_unguarded_counters(jdk: Any) -> None:
    jdk(17)
    result = experiments.losses(total=80_000, repeats=2, threads=(1, 2))
    assert [(row["threads"], row["kind"]) for row in result["unsafe_rows"]] == [
        (1, "plain int"),
        (1, "volatile int"),
        (2, "plain int"),
        (2, "volatile int"),
    ]
    for row in result["rows"]:
        assert len(row["shares"]) == 2
        assert 0 <= row["lowest"] <= row["median"] <= row["highest"] <= 1
        assert row["highest"] == 0 or (row["threads"] > 1 and row in result["unsafe_rows"])
    assert result["safe_worst"] == 0
    assert result["worst"] == max(row["highest"] for row in result["rows"])


@pytest.mark.jdk
def test_stacks_reserve_what_they_ask_for(jdk: Any) -> None:
    jdk(17)
    result = experiments.stacks(threads=10, sizes=(64, 256))
    assert [row["stack"] for row in result["rows"]] == [64, 256]
    assert all(row["reserved"] >= 10 * row["stack"] for row in result["rows"])
    assert result["largest"] == result["rows"][-1]["reserved"] > result["rows"][0]["reserved"]
    assert 0 <= result["largest_used"] < result["largest"]


@pytest.mark.jdk
def test_runs_with_an_unseen_flag_are_counted(jdk: Any) -> None:
    jdk(17)
    result = experiments.visibility(runs=1)
    assert {result["compiled"], result["interpreted"]} <= {0, 1}


def test_creation_is_measured_in_both_languages() -> None:
    result = experiments.creation(rounds=4)
    rows = {row["what"]: row for row in result["rows"]}
    assert {"python_program", "python_fork", "python_thread"} <= set(rows)
    assert all(0 < row["low"] <= row["median"] <= row["high"] for row in rows.values())
    ratio = rows["python_program"]["median"] / rows["python_thread"]["median"]
    assert result["python_process_over_thread"] == pytest.approx(ratio)
    if java.machines():
        assert {"java_program", "java_thread", "java_method_call"} <= set(rows)
        ratio = rows["java_program"]["median"] / rows["java_thread"]["median"]
        assert result["process_over_thread"] == pytest.approx(ratio)


def test_without_a_jdk_what_needs_one_is_none_and_the_rest_is_measured(no_jdk: None) -> None:
    assert not any(experiments.programs().values())
    losses = experiments.losses()
    assert losses["worst"] is losses["safe_worst"] is None
    assert {row["median"] for row in losses["rows"]} == {None}
    assert experiments.stacks()["largest"] is None
    assert experiments.visibility()["compiled"] is None
    creation = experiments.creation(rounds=4)
    assert creation["java_thread_us"] is creation["process_over_thread"] is creation["machine"] is None
    assert creation["python_thread_us"] > 0


def test_memory_is_shared_as_the_page_says() -> None:
    result = experiments.sharing(tries=2)
    assert (result["thread"], result["process"], result["shared"]) == ([1, 2, 3], [0, 0, 0], [1, 2, 3])
    assert result["locked"] == result["wanted"] == 1000
    assert 0 < result["unlocked_lowest"] <= result["unlocked_highest"] <= 1000
    assert (result["loader_processes"], result["loader_counts"]) == (2, [1, 2, 3])


def test_forked_workers_and_a_stored_generator_repeat_and_a_loader_does_not() -> None:
    assert experiments.seeds() == {"forked": 1, "loader_global": 2, "loader_stored": 1}


def test_waiting_overlaps_and_the_lock_keeps_one_processor_busy() -> None:
    result = experiments.gil(jobs=4, repeats=1, workers=(1, 4))
    assert len(result["rows"]) == 3 * 2 * 2
    assert [row["workers"] for row in result["last_rows"]] == [4] * 6
    for row in result["rows"]:
        assert 0 < row["lowest"] <= row["speedup"] <= row["highest"]
        assert row["busy"] >= 0
    assert result["wait_thread"] == result["rows"][7]["speedup"]
    assert result["python_thread_busy"] < 1.3, "one thread at a time, whatever the number of processors"


@pytest.mark.parametrize(("key", "serial"), [("five_percent_64", 0.05), ("half_64", 0.5)])
def test_amdahl_bounds_are_harmonic_means(key: str, serial: float) -> None:
    result = experiments.amdahl()
    seconds = serial + (1 - serial) / 64
    assert result[key] == pytest.approx(1 / seconds)
    curve = result["curves"][result["shares"].index(serial)]
    assert curve[0] == 1
    assert curve == sorted(curve)
    assert curve[-1] < 1 / serial


def totals(threads: int, times: int) -> set[int]:
    """What a counter can come to hold, over all orders of the threads' reads and writes."""
    State = tuple[int, tuple[tuple[int, int | None], ...]]  # the counter; steps left and number read
    start: State = (0, ((times, None),) * threads)
    seen, waiting, ends = {start}, [start], set()
    while waiting:
        count, each = waiting.pop()
        if all(left == 0 for left, _ in each):
            ends.add(count)
        for i, (left, held) in enumerate(each):
            if left:
                step = (left, count) if held is None else (left - 1, None)
                after: State = (
                    count if held is None else held + 1,
                    tuple(sorted((*each[:i], step, *each[i + 1 :]), key=str)),
                )
                if after not in seen:
                    seen.add(after)
                    waiting.append(after)
    return ends


@pytest.mark.parametrize(("threads", "times"), [(2, 2), (2, 5), (3, 2), (3, 3)])
def test_unguarded_totals_reach_from_two_to_the_right_one(threads: int, times: int) -> None:
    assert totals(threads, times) == set(range(2, threads * times + 1))


def test_bounds_of_a_single_thread_or_a_single_addition_are_others() -> None:
    assert totals(1, 4) == {4}
    assert totals(3, 1) == {1, 2, 3}


def test_every_experiment_is_run_here() -> None:
    with open(__file__, encoding="utf-8") as file:
        text = file.read()
    for name in experiments_of("processes_and_threads"):
        assert f"experiments.{name}(" in text, name
