"""Processes and threads in Python: what they share, and what the global lock costs."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info


def _fork() -> Any:
    """Processes made by fork: they inherit everything and need nothing importable."""
    if "fork" not in multiprocessing.get_all_start_methods():
        raise RuntimeError("this system cannot fork: run it on Linux or macOS")
    return multiprocessing.get_context("fork")


def list_threads() -> list[tuple[str, int, bool]]:
    """Name, kernel id and daemon flag of each thread of this process known to Python.

    Threads that a library made in C, such as those of a BLAS, are not among them.

    Returns:
        One tuple a thread, in the order they were started.

    Example:
        >>> list_threads()[0][0]
        'MainThread'
    """
    # In a forked process, older Pythons remember the parent's id (CPython gh-132542).
    here, own_id = threading.current_thread(), threading.get_native_id()
    ids = [(t, own_id if t is here else t.native_id) for t in threading.enumerate()]
    # A thread is listed before the kernel has given it an id, for a moment.
    return [(t.name, number, t.daemon) for t, number in ids if number is not None]


def memory_after(kind: str, workers: int = 3) -> list[int]:
    """What the parent finds in a list of zeros when worker i has written i + 1 at i.

    Args:
        kind: "thread" or "process" for a list of Python; "shared" for processes that
            write into a tensor in shared memory.
        workers: how many write, one after the other.

    Raises:
        ValueError: `kind` is none of these, or `workers` is negative.
        RuntimeError: processes are asked for where the system cannot fork.

    Example:
        >>> memory_after("thread"), memory_after("process"), memory_after("shared")
        ([1, 2, 3], [0, 0, 0], [1, 2, 3])
    """
    if kind not in ("thread", "process", "shared"):
        raise ValueError(f"kind must be thread, process or shared, got {kind!r}")
    if workers < 0:
        raise ValueError(f"workers must not be negative, got {workers}")
    make = threading.Thread if kind == "thread" else _fork().Process
    cells: Any = [0] * workers
    if kind == "shared":
        cells = torch.zeros(workers).share_memory_()

    def write(i: int) -> None:
        cells[i] = i + 1

    for i in range(workers):
        worker = make(target=write, args=(i,))
        worker.start()
        worker.join()
    return [int(cell) for cell in cells]


def count_up(workers: int, times: int, lock: threading.Lock | None = None) -> int:
    """Let threads add 1 to a shared number, `times` each; return its last value.

    Between reading and writing each gives way once, as it might at any moment: without
    a lock another thread then reads the same number, and an addition is lost.

    Args:
        workers: number of threads.
        times: additions of each.
        lock: held from reading to writing, if given.

    Raises:
        ValueError: `workers` or `times` is negative.

    Example:
        >>> count_up(4, 100, threading.Lock())
        400
    """
    if min(workers, times) < 0:
        raise ValueError(f"negative workers or times: {workers}, {times}")
    total = 0

    def add() -> None:
        nonlocal total
        for _ in range(times):
            if lock is not None:
                lock.acquire()
            seen = total
            time.sleep(0)  # gives up the interpreter's lock
            total = seen + 1
            if lock is not None:
                lock.release()

    threads = [threading.Thread(target=add) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return total


def parallel_map(
    function: Callable[[Any], Any], items: Sequence[Any], workers: int, kind: str
) -> list[Any]:
    """`[function(x) for x in items]`, shared out among threads or processes.

    Worker i takes items i, i + workers, and so on. Processes are forked, so `function`
    may be a lambda; what it returns there goes through a pipe, and must be picklable.

    Args:
        function: called once an item; if it raises, so does this function.
        items: any sequence.
        workers: at least 1.
        kind: "thread" or "process".

    Raises:
        ValueError: `workers` is below 1, or `kind` neither of the two.
        RuntimeError: the system cannot fork.
        EOFError: a process ended without an answer; it was killed, for instance.

    Example:
        >>> parallel_map(lambda x: x * x, range(5), workers=2, kind="process")
        [0, 1, 4, 9, 16]
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if kind not in ("thread", "process"):
        raise ValueError(f"kind must be thread or process, got {kind!r}")
    context = _fork() if kind == "process" else None

    def work(i: int, send: Callable[[Any], None]) -> None:
        try:
            send(([function(x) for x in items[i::workers]], None))
        except BaseException as error:
            send(([], error))

    crew: list[Any] = []
    inboxes: list[Callable[[], Any]] = []
    for i in range(workers):
        if context is None:
            box: Any = queue.SimpleQueue()
            crew.append(threading.Thread(target=work, args=(i, box.put)))
            crew[i].start()
            inboxes.append(box.get)
        else:
            receiver, sender = context.Pipe()
            crew.append(context.Process(target=work, args=(i, sender.send)))
            crew[i].start()
            sender.close()  # the child has its own, and its death ends the stream
            inboxes.append(receiver.recv)
    # Read before joining: a worker with much to say cannot end before it is heard.
    answers = [receive() for receive in inboxes]
    for worker in crew:
        worker.join()
    results: list[Any] = [None] * len(items)
    for i, (part, error) in enumerate(answers):
        if error is not None:
            raise error
        results[i::workers] = part
    return results


def amdahl_speedup(serial: float, workers: int) -> float:
    """The largest speed-up of work of which a share must be done by one at a time.

    Args:
        serial: that share, from 0 to 1.
        workers: at least 1.

    Raises:
        ValueError: an argument is out of range.

    Source: Amdahl, 1967.

    Example:
        >>> amdahl_speedup(0.5, 2)
        1.3333333333333333
    """
    if not 0 <= serial <= 1:
        raise ValueError(f"serial must be from 0 to 1, got {serial}")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    return 1 / (serial + (1 - serial) / workers)


class PidDataset(Dataset[torch.Tensor]):
    """Items that say which process made them, and as which one in the life of its copy.

    Example:
        >>> PidDataset(3)[0].tolist() == [os.getpid(), 1]
        True
    """

    def __init__(self, size: int) -> None:
        if size < 0:
            raise ValueError(f"size must not be negative, got {size}")
        self.size = size
        self.made = 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        if not 0 <= index < self.size:
            raise IndexError(index)
        self.made += 1
        return torch.tensor([os.getpid(), self.made])  # (2,)


def made_by(dataset: PidDataset, num_workers: int) -> dict[int, list[int]]:
    """Which process of a DataLoader made which items, by its id, as each counted them.

    A worker is a process with its own copy of the dataset. What it writes there,
    neither the parent nor another worker ever sees.

    Args:
        dataset: left as it is, if `num_workers` is above 0.
        num_workers: as of the DataLoader; 0 means that the calling process does it all.

    Raises:
        ValueError: `num_workers` is negative (from the DataLoader).

    Example:
        >>> made_by(PidDataset(3), num_workers=0) == {os.getpid(): [1, 2, 3]}
        True
    """
    fork = _fork() if num_workers > 0 else None
    loader = DataLoader(
        dataset, batch_size=None, num_workers=num_workers, multiprocessing_context=fork
    )
    found: dict[int, list[int]] = {}
    for pid, number in (item.tolist() for item in loader):
        found.setdefault(pid, []).append(number)
    return found


class ShardedStream(IterableDataset[int]):
    """The numbers below `size`, each given by exactly one worker of a DataLoader.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> sorted(DataLoader(ShardedStream(5), batch_size=None, num_workers=2))
        [0, 1, 2, 3, 4]
    """

    def __init__(self, size: int) -> None:
        if size < 0:
            raise ValueError(f"size must not be negative, got {size}")
        self.size = size

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(range(first, self.size, step))
