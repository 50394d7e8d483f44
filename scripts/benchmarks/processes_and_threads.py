"""Races of processes and threads: what has a counterpart in Python's own libraries."""

from __future__ import annotations

import concurrent.futures
import multiprocessing.pool

from scripts.pipeline.benchmark import Start, race
from snippets import processes_and_threads as ours

_JAVA = "a Java program that shows how the language behaves, not a routine to be called"
UNRACED = {
    "list_threads": "reads what the interpreter lists",
    "memory_after": "starts a process to look into it",
    "count_up": "shows what threads do to a shared number",
    "amdahl_speedup": "a formula of a few numbers",
    "PidDataset": "shows which process made an item",
    "made_by": "shows which process made an item",
    "ShardedStream": "splits a range among workers",
    **dict.fromkeys(
        (
            "CreationCost", "DaemonThreads", "Deadlock", "Interruption", "LazyOnce", "ListThreads", "RaceCondition",
            "RunnableInIo", "SharedHeapOwnStack", "SpawnProcess", "StackMemory", "StartNotRun", "StopBreaks",
            "ThreadPool", "ThreadStates", "VirtualThreads", "Visibility",
        ),
        _JAVA,
    ),
}  # fmt: skip


def _square(number: int) -> int:
    return number * number


@race(
    "processes_and_threads.parallel_map",
    sizes=(1000, 4000, 16_000),
    exponent=1,
    shape={"zh": "两个线程分担的小任务数", "en": "small tasks for two threads"},
)
def parallel_map(tasks: int) -> Start:
    items = list(range(tasks))

    def executor() -> list[int]:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            return list(pool.map(_square, items))

    def pool() -> list[int]:
        with multiprocessing.pool.ThreadPool(2) as workers:
            return workers.map(_square, items)

    return Start(
        lambda: ours.parallel_map(_square, items, 2, "thread"),
        {"concurrent.futures.ThreadPoolExecutor": executor, "multiprocessing.pool.ThreadPool": pool},
    )
