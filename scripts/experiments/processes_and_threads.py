"""What the programs of the article print, and what processes, threads and the lock between them cost.

Where there is no JDK, whatever needs one is None, and the page says so.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median, quantiles
from typing import Any

import torch

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
    keys = ["program", "fork", "thread", "virtual_thread", "method_call"]
    names = [f"{language}_{key}" for key in keys for language in ("java", "python")]
    rows: list[Row] = [
        {"what": name, "low": low, "median": middle, "high": high}
        for name in names
        if name in times
        for low, middle, high in [times[name]]
    ]
    medians = {name: times[name][1] if name in times else None for name in names}
    virtual, thread, process = (medians[f"java_{key}"] for key in ("virtual_thread", "thread", "program"))
    return {
        "rows": rows,
        "rounds": rounds,
        "machine": str(made.machine) if made else None,
        "thread_over_virtual": thread / virtual if thread and virtual else None,
        "process_over_thread": process / thread if process and thread else None,
        "python_process_over_thread": times["python_program"][1] / times["python_thread"][1],
        **{f"{name}_us": value for name, value in medians.items() if not name.startswith("python_v")},
    }


@experiment
def losses(total: int = 240_000, repeats: int = 5, threads: Sequence[int] = (1, 2, 4, 8)) -> dict[str, Any]:
    """Which share of the additions five counters lose, by the number of threads, in the interpreter."""
    made = _program("RaceCondition")
    kinds = ["plain int", "volatile int", "synchronized", "AtomicInteger", "LongAdder"]
    rows: list[Row] = []
    for count in threads:
        shares: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(repeats if made else 0):
            assert made is not None
            printed = made.run(count, total // count, options=("-Xint",)).stdout
            for line in printed.splitlines():
                lost = int(line.rsplit(maxsplit=1)[-1].replace(",", ""))
                shares[line[:14].strip()].append(lost / (total // count * count))
        for kind in kinds:
            row: Row = {"threads": count, "kind": kind, "median": None, "lowest": None, "highest": None}
            if seen := shares[kind]:
                row |= {"median": median(seen), "lowest": min(seen), "highest": max(seen)}
            rows.append(row)
    unsafe = [row for row in rows if row["kind"] in kinds[:2]]
    safe = [row for row in rows if row["kind"] not in kinds[:2]]
    worst = max((row["highest"] for row in unsafe if row["highest"] is not None), default=None)
    return {
        "rows": rows,
        "unsafe_rows": unsafe,
        "total": total,
        "repeats": repeats,
        "worst": worst,
        "safe_worst": max((row["highest"] for row in safe if row["highest"] is not None), default=None),
    }


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


def _wait(seconds: float) -> None:
    time.sleep(seconds)


def _multiply(size: int) -> float:
    x = torch.full((size, size), 0.5)
    return float((x @ x)[0, 0])


@experiment
def gil(jobs: int = 8, repeats: int = 5, workers: Sequence[int] = (1, 2, 4)) -> dict[str, Any]:
    """Speed-up of eight jobs over a plain loop: three kinds of work, threads against processes."""
    torch.set_num_threads(1)
    tasks: dict[str, tuple[Callable[[Any], Any], Any]] = {
        "python": (_spin, 400_000),
        "wait": (_wait, 0.05),
        "torch": (_multiply, 768),
    }
    rows: list[Row] = []
    for task, (function, argument) in tasks.items():
        function(argument)
        items = [argument] * jobs
        loops: list[float] = []
        pools: dict[tuple[str, int], list[float]] = {}
        for _ in range(repeats):
            # Loop and pool side by side, so that a busy machine slows both.
            for kind in ("thread", "process"):
                for count in workers:
                    start = time.perf_counter()
                    for item in items:
                        function(item)
                    middle = time.perf_counter()
                    parallel_map(function, items, count, kind)
                    pools.setdefault((kind, count), []).append(time.perf_counter() - middle)
                    loops.append(middle - start)
        for (kind, count), seen in pools.items():
            rows.append(
                {
                    "task": task,
                    "kind": kind,
                    "workers": count,
                    # Of the fastest runs: those that nothing else on the machine disturbed.
                    "speedup": min(loops) / min(seen),
                    "typical": median(loops) / median(seen),
                }
            )
    at = {(row["task"], row["kind"], row["workers"]): row["speedup"] for row in rows}
    last = workers[-1]
    return {
        "rows": rows,
        "last_rows": [row for row in rows if row["workers"] == last],
        "jobs": jobs,
        "repeats": repeats,
        "processors": len(os.sched_getaffinity(0)),
        **{f"{task}_{kind}": at[task, kind, last] for task in tasks for kind in ("thread", "process")},
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
