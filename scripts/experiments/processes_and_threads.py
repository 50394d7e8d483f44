"""What the programs of the article print, and what processes, threads and the lock between them cost.

Where there is no JDK, whatever needs one is None, and the page says so.
"""

from __future__ import annotations

import os
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from scripts.pipeline.experiment import experiment
from scripts.pipeline.java import JavaSnippet, Program, machines, program
from scripts.pipeline.source import find_snippet
from snippets.processes_and_threads import (
    PidDataset,
    _fork,
    amdahl_speedup,
    count_up,
    made_by,
    memory_after,
    parallel_map,
)

Row = dict[str, Any]


def _program(name: str, newest: bool = False) -> Program | None:
    """A compiled Java snippet; on the newest machine if asked for. None where nothing runs it."""
    snippet = find_snippet(f"processes_and_threads.{name}")
    assert isinstance(snippet, JavaSnippet), name
    if not snippet.toolchain:
        return None
    made = program(snippet)
    return replace(made, machine=max(machines(), key=lambda m: m.feature)) if newest else made


def _output(
    name: str, *arguments: object, options: tuple[str, ...] = (), newest: bool = False
) -> dict[str, str] | None:
    """What a program prints, for a page to show."""
    made = _program(name, newest)
    if made is None:
        return None
    run = made.run(*arguments, options=options)
    run.check_returncode()
    command = " ".join(["java", *options, name, *map(str, arguments)])
    return {"text": run.stdout, "command": command, "machine": str(made.machine)}


@experiment
def programs() -> dict[str, Any]:
    """The output of one run of each program."""
    outputs = {
        "list_threads": _output("ListThreads"),
        "list_threads_newest": _output("ListThreads", newest=True),
        "thread_states": _output("ThreadStates"),
        "start_not_run": _output("StartNotRun"),
        "shared_heap": _output("SharedHeapOwnStack"),
        "race_compiled": _output("RaceCondition"),
        "race_interpreted": _output("RaceCondition", options=("-Xint",)),
        "visibility": _output("Visibility"),
        "spawn_process": _output("SpawnProcess"),
        "daemon": _output("DaemonThreads", "daemon"),
        "user": _output("DaemonThreads", "user"),
        "interruption": _output("Interruption"),
        "stop": _output("StopBreaks"),
        "stop_newest": _output("StopBreaks", newest=True),
        "deadlock": _output("Deadlock"),
        "thread_pool": _output("ThreadPool"),
        "virtual_threads": _output("VirtualThreads"),
        "stack_memory": _output("StackMemory"),
        "creation_cost": _output("CreationCost", newest=True),
    }
    listed = outputs["list_threads"]
    rows = listed["text"].splitlines()[1:-1] if listed else []
    return {
        **outputs,
        "threads": [row.split(maxsplit=3)[-1] for row in rows],
        "thread_count": len(rows) or None,
    }


class _Draws(Dataset[list[int]]):
    """A number of NumPy's global generator, and one of a generator stored in the dataset."""

    def __init__(self) -> None:
        self.own = np.random.default_rng(0)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> list[int]:
        return [np.random.randint(2**31), int(self.own.integers(2**31))]


@experiment
def seeds() -> dict[str, Any]:
    """How many different numbers two workers draw first: forked ones, and those of a DataLoader."""
    np.random.seed(0)  # as a training script does
    forked = parallel_map(lambda _: np.random.randint(2**31), range(2), 2, "process")
    loader = DataLoader(_Draws(), batch_size=None, num_workers=2, multiprocessing_context=_fork())
    draws = list(loader)  # one item a worker
    return {
        "forked": len(set(forked)),
        "loader_global": len({item[0] for item in draws}),
        "loader_stored": len({item[1] for item in draws}),
    }


@experiment
def sharing(tries: int = 20) -> dict[str, Any]:
    """What Python's threads and processes see of each other's memory."""
    counted = [count_up(4, 250) for _ in range(tries)]
    workers = made_by(PidDataset(6), 2)
    return {
        "thread": memory_after("thread"),
        "process": memory_after("process"),
        "shared": memory_after("shared"),
        "wanted": 4 * 250,
        "tries": tries,
        "unlocked_lowest": min(counted),
        "unlocked_highest": max(counted),
        "unlocked_wrong": sum(total != 1000 for total in counted),
        "locked": count_up(4, 250, threading.Lock()),
        "loader_processes": len(workers),
        "loader_counts": next(iter(workers.values())),
    }


def _micros(job: Callable[[], object], rounds: int, jobs: int) -> list[float]:
    """Quartiles over rounds of the microseconds that one job takes."""
    job()
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(jobs):
            job()
        taken.append((time.perf_counter() - start) * 1e6 / jobs)
    return quantiles(taken, n=4)


def _started(make: Callable[..., Any]) -> Callable[[], None]:
    def job() -> None:
        worker = make(target=int)
        worker.start()
        worker.join()

    return job


@experiment
def creation(rounds: int = 20) -> dict[str, Any]:
    """Starting something that does nothing and waiting for its end, in both languages."""
    times = {
        "python_program": _micros(lambda: subprocess.run(["true"], check=True), rounds, 1),
        "python_fork": _micros(_started(_fork().Process), rounds, 1),
        "python_thread": _micros(_started(threading.Thread), rounds, 50),
    }
    made = _program("CreationCost", newest=True)
    if made:
        for line in made.run(rounds).stdout.splitlines():
            key = {"process": "program", "platform thread": "thread"}.get(
                line[:15].strip(), line[:15].strip()
            )
            times[f"java_{key.replace(' ', '_')}"] = [float(x) for x in line[15:].split()]
    names = ["java_program", "python_program", "python_fork", "java_thread", "python_thread"]
    names += ["java_virtual_thread", "java_method_call"]
    rows: list[Row] = [
        {"what": name, "low": low, "median": middle, "high": high}
        for name in names
        if name in times
        for low, middle, high in [times[name]]
    ]
    medians = {name: times[name][1] if name in times else None for name in names}
    process, thread, virtual = (medians[f"java_{key}"] for key in ("program", "thread", "virtual_thread"))
    return {
        "rows": rows,
        "rounds": rounds,
        "machine": str(made.machine) if made else None,
        "thread_over_virtual": thread / virtual if thread and virtual else None,
        "process_over_thread": process / thread if process and thread else None,
        "python_process_over_thread": times["python_program"][1] / times["python_thread"][1],
        **{f"{name}_us": value for name, value in medians.items()},
    }


@experiment
def losses(total: int = 4_800_000, repeats: int = 5, threads: Sequence[int] = (1, 2, 4, 8)) -> dict[str, Any]:
    """Which share of the additions five counters lose, by the number of threads.

    Only the first of the two compilers works: it keeps each read and write, and is fast.
    """
    made = _program("RaceCondition")
    unsafe, safe = ["plain int", "volatile int"], ["synchronized", "AtomicInteger", "LongAdder"]
    rows: list[Row] = []
    for count in threads:
        shares: dict[str, list[float]] = {kind: [] for kind in unsafe + safe}
        for _ in range(repeats if made else 0):
            assert made is not None
            printed = made.run(count, total // count, options=("-XX:TieredStopAtLevel=1",)).stdout
            for line in printed.splitlines():
                lost = int(line.rsplit(maxsplit=1)[-1].replace(",", ""))
                shares[line[:14].strip()].append(lost / (total // count * count))
        for kind, seen in shares.items():
            row: Row = {"threads": count, "kind": kind, "shares": seen}
            row |= {"median": None, "lowest": None, "highest": None}
            if seen:
                row |= {"median": median(seen), "lowest": min(seen), "highest": max(seen)}
            rows.append(row)
    return {
        "rows": rows,
        "unsafe_rows": [row for row in rows if row["kind"] in unsafe],
        "total": total,
        "repeats": repeats,
        "worst": _worst(rows, unsafe),
        "safe_worst": _worst(rows, safe),
    }


def _worst(rows: list[Row], kinds: list[str]) -> float | None:
    return max((share for row in rows if row["kind"] in kinds for share in row["shares"]), default=None)


@experiment
def visibility(runs: int = 5) -> dict[str, Any]:
    """How often a thread that spins on a plain flag had not noticed it after 300 ms."""
    made = _program("Visibility")
    unseen: dict[str, int | None] = {"compiled": None, "interpreted": None}
    for mode, options in (("compiled", ()), ("interpreted", ("-Xint",))):
        if made:
            printed = [made.run(300, options=options).stdout for _ in range(runs)]
            unseen[mode] = sum("still spinning" in text for text in printed)
    return {"runs": runs, **unseen}


@experiment
def stacks(threads: int = 100, sizes: Sequence[int] = (1, 8, 64)) -> dict[str, Any]:
    """Address space and memory of waiting threads, by the size of stack they ask for."""
    made = _program("StackMemory")
    rows: list[Row] = []
    for size in sizes:
        row: Row = {"stack": size, "reserved": None, "used": None}
        if made:
            _, reserved, used = made.run(threads, size).stdout.splitlines()
            row |= {"reserved": int(reserved.split()[1]), "used": int(used.split()[2]) * threads / 1024}
        rows.append(row)
    return {
        "rows": rows,
        "threads": threads,
        "largest": rows[-1]["reserved"],
        "largest_used": rows[-1]["used"],
    }


def _spin(steps: int) -> int:
    total = 0
    for i in range(steps):
        total += i * i
    return total


def _multiply(size: int) -> float:
    x = torch.full((size, size), 0.5)
    return float((x @ x)[0, 0])


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that a piece of work took, and how many processors it kept busy, its children included."""

    def used() -> float:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    start, before = time.perf_counter(), used()
    work()
    seconds = time.perf_counter() - start
    return seconds, (used() - before) / seconds


@experiment
def gil(jobs: int = 8, repeats: int = 5, workers: Sequence[int] = (1, 2, 4)) -> dict[str, Any]:
    """Speed-up of eight jobs over a plain loop: three kinds of work, threads against processes."""
    torch.set_num_threads(1)
    tasks: dict[str, tuple[Callable[[Any], Any], Any]] = {
        "python": (_spin, 400_000),
        "wait": (time.sleep, 0.05),
        "torch": (_multiply, 768),
    }
    rows: list[Row] = []
    for task, (function, argument) in tasks.items():
        items = [argument] * jobs
        function(argument)
        seen: dict[tuple[str, int], list[tuple[float, float]]] = {}
        # Fork first: a child made right after threads have used MKL may hang in it. A thread that
        # is joined in Python is still busy giving back MKL's memory, and fork copies it half done.
        for kind in ("process", "thread"):
            for _ in range(repeats):
                loop, _ = _timed(partial(list, map(function, items)))
                for count in workers:
                    pool, busy = _timed(partial(parallel_map, function, items, count, kind))
                    seen.setdefault((kind, count), []).append((loop / pool, busy))
        for (kind, count), pairs in seen.items():
            speedups = [speedup for speedup, _ in pairs]
            rows.append(
                {
                    "task": task,
                    "kind": kind,
                    "workers": count,
                    "speedup": median(speedups),
                    "lowest": min(speedups),
                    "highest": max(speedups),
                    "busy": median(busy for _, busy in pairs),
                }
            )
    last = [row for row in rows if row["workers"] == workers[-1]]
    return {
        "rows": rows,
        "last_rows": last,
        "jobs": jobs,
        "repeats": repeats,
        "workers": workers[-1],
        "processors": len(os.sched_getaffinity(0)),
        **{f"{row['task']}_{row['kind']}": row["speedup"] for row in last},
        **{f"{row['task']}_{row['kind']}_busy": row["busy"] for row in last},
    }


@experiment
def amdahl(workers: Sequence[int] = (1, 2, 4, 8, 16, 32, 64)) -> dict[str, Any]:
    """Amdahl's bound for four serial shares."""
    shares = (0.0, 0.05, 0.2, 0.5)
    return {
        "workers": list(workers),
        "shares": list(shares),
        "curves": [[amdahl_speedup(share, n) for n in workers] for share in shares],
        "five_percent_64": amdahl_speedup(0.05, 64),
        "half_64": amdahl_speedup(0.5, 64),
    }
