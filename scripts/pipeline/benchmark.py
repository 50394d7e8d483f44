"""`make bench`: what each snippet costs in time and memory beside the library that does the same.

A race is a function of `scripts/benchmarks/<topic>.py` that prepares one size and says who starts.
All starters take turns in one run, so that what slows the machine slows them all; the records, kept
in `tests/benchmarks/`, hold the medians of the ratios with their spread.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import math
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median, quantiles
from timeit import timeit
from typing import Any

import click

from scripts.pipeline import evidence
from scripts.pipeline.paths import DOCS, SCRIPTS, TESTS, ContentError, read_json, topics, writing
from scripts.pipeline.snippet import Snippet
from scripts.pipeline.source import Symbol, behaviour_hash, decorated, find_snippet
from scripts.pipeline.words import read_yaml

RECORDS = TESTS / "benchmarks"
REASONS = DOCS / "slower.yml"  # why a snippet stays slower or larger than its reference, in both languages
GOAL = 1.2  # times the reference's time, and times its peak memory
FAINT = 2**20  # bytes: a peak below it is bookkeeping, not the data
THREADS = 1
ROUNDS, FEWEST = 9, 3  # rounds a size is run, and for how many even when one takes long
BLOCK, PATIENCE = 0.02, 4.0  # seconds a starter runs in a round at least, and all rounds should take at most
SLOW = 1.0  # seconds: whoever takes longer runs once
Call = Callable[[], Any]
Size = tuple[int, ...]


@dataclass(frozen=True)
class Start:
    """Who starts at one size: calls that compute the same from inputs already made."""

    ours: Call
    references: Mapping[str, Call]
    naive: Call | None = None


@dataclass(frozen=True)
class Race:
    """A snippet against its references at three sizes.

    `exponent` is the theory's: time grows like (product of a size's numbers) ** exponent.
    `shape` says what a size counts and `naive` what form blogs publish, each by language.
    """

    snippet: str
    sizes: tuple[Size, ...]
    exponent: float
    shape: Mapping[str, str]
    naive: Mapping[str, str] | None
    prepare: Callable[..., Start]


def race(
    snippet: str,
    *,
    sizes: Iterable[int | Size],
    exponent: float,
    shape: Mapping[str, str],
    naive: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Start]], Race]:
    """Mark a function that prepares a size of `topic.snippet`, its numbers given as arguments."""
    as_tuples = tuple(size if isinstance(size, tuple) else (size,) for size in sizes)
    return lambda prepare: Race(snippet, as_tuples, exponent, shape, naive, prepare)


def module_path(topic: str) -> Path:
    return SCRIPTS / "benchmarks" / f"{topic}.py"


def races_of(topic: str) -> dict[str, Race]:
    """A topic's races by the name of their snippet, in source order."""
    if not module_path(topic).is_file():
        return {}
    module = importlib.import_module(f"scripts.benchmarks.{topic}")
    return {one.snippet.partition(".")[2]: one for one in vars(module).values() if isinstance(one, Race)}


def unraced(topic: str) -> dict[str, str]:
    """Snippets that no library has, each with what it is instead."""
    return dict(importlib.import_module(f"scripts.benchmarks.{topic}").UNRACED)


def _symbols(topic: str) -> dict[str, Symbol]:
    """Where each race stands, found by its decorator: a page need not import what races need."""
    found: dict[str, Symbol] = {}
    for node in decorated(module_path(topic), "race"):
        match node.decorator_list:
            case [ast.Call(args=[ast.Constant(value=str(name))])]:
                found[name.partition(".")[2]] = (module_path(topic), node.name)
    return found


def fingerprint(snippet: Snippet) -> str:
    """What a record speaks of: the snippet, and the race it ran."""
    race_as_it_is = behaviour_hash([_symbols(snippet.topic)[snippet.name]], follow_imports=False)
    return hashlib.sha256(f"{snippet.hash} {race_as_it_is}".encode()).hexdigest()[:16]


def path(topic: str) -> Path:
    return RECORDS / f"{topic}.json"


def load(topic: str) -> dict[str, Any]:
    """The topic's records by snippet."""
    return read_json(path(topic)) or {}


def standing(snippet: Snippet) -> dict[str, Any] | None:
    """The record of the snippet as it stands; None if it has none or has changed since."""
    if snippet.name not in _symbols(snippet.topic):
        return None
    record = load(snippet.topic).get(snippet.name)
    return record if record and record["hash"] == fingerprint(snippet) else None


def fastest(size: dict[str, Any]) -> str:
    """The reference that is hardest to beat at this size."""
    return str(max(size["references"], key=lambda name: size["references"][name]["ratio"]))


def time_ratio(record: dict[str, Any]) -> float:
    """Ours over the fastest reference, at the largest size."""
    size = record["sizes"][-1]
    return float(size["references"][fastest(size)]["ratio"])


def memory_ratio(size: dict[str, Any]) -> float | None:
    """Our peak over that of the fastest reference; None where ours is too small to matter."""
    if size["ours"]["bytes"] < FAINT:
        return None
    return float(size["ours"]["bytes"] / max(size["references"][fastest(size)]["bytes"], FAINT))


def reasons() -> dict[str, dict[str, str]]:
    """Why snippets miss the goal, by language."""
    found: dict[str, dict[str, str]] = read_yaml(REASONS)
    return found


def meets_goal(record: dict[str, Any]) -> bool:
    return time_ratio(record) <= GOAL and (memory_ratio(record["sizes"][-1]) or 0) <= GOAL


def growth(record: dict[str, Any]) -> float:
    """The slope of our time over size."""
    sizes = [math.prod(size["size"]) for size in record["sizes"]]
    return slope(sizes, [size["ours"]["seconds"] for size in record["sizes"]])


def slope(sizes: list[int], seconds: list[float]) -> float:
    """Of the line fitted through the logarithms of both, by least squares: the exponent of growth."""
    import numpy as np

    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def machine() -> str:
    """Processor and number of cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def run(*wanted: str) -> None:
    """Run the races of the topics or snippets named, all if none is, and keep their records.

    Raises:
        ContentError: a name is neither a topic's nor a race's.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(THREADS):  # NumPy's and SciPy's linear algebra has threads of its own
        _run(wanted)


def _run(wanted: tuple[str, ...]) -> None:
    chosen = [
        one
        for topic in topics()
        for one in races_of(topic).values()
        if not wanted or topic in wanted or one.snippet in wanted
    ]
    if not chosen:
        raise ContentError("make bench", f"no race is called {' '.join(wanted)}", "name topics or snippets")
    for one in chosen:
        topic, _, name = one.snippet.partition(".")
        record = _record(one)
        # In the module's order; a race that was renamed or removed leaves no record behind.
        records = {key: record if key == name else load(topic).get(key) for key in races_of(topic)}
        kept = {key: value for key, value in records.items() if value}
        writing(path(topic), json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
        click.echo(line(one.snippet, record))


def snippet_of(one: Race) -> Snippet:
    """The snippet that a race names.

    Raises:
        ContentError: there is none.
    """
    snippet = find_snippet(one.snippet)
    if snippet is None:
        place = module_path(one.snippet.partition(".")[0])
        raise ContentError(place, f"there is no snippet {one.snippet!r}", "correct the name")
    return snippet


def _record(one: Race) -> dict[str, Any]:
    snippet = snippet_of(one)
    sizes = [measure(one.prepare(*size), size) for size in one.sizes]
    libraries = {name.split(".")[0] for size in sizes for name in size["references"]} | {"torch"}
    return {
        "hash": fingerprint(snippet),
        "date": date.today().isoformat(),
        "machine": machine(),
        "threads": THREADS,
        "versions": {n: evidence.version(n) for n in sorted(libraries - set(sys.stdlib_module_names))},
        "exponent": one.exponent,
        "shape": dict(one.shape),
        "naive": dict(one.naive) if one.naive else None,
        "sizes": sizes,
    }


def line(name: str, record: dict[str, Any]) -> str:
    """A record in one line of a terminal."""
    size = record["sizes"][-1]
    memory = memory_ratio(size)
    naive = size["naive"]
    return (
        f"{'   ' if meets_goal(record) else ' ! '}{name:<52} {size['ours']['seconds'] * 1e3:9.3f} ms"
        f"  {time_ratio(record):6.2f} × {fastest(size)}"
        f"  memory {f'{memory:.2f}' if memory is not None else '–'}"
        f"  naive {'–' if naive is None else format(naive['times'], '.3g')} ×"
        f"  grows {growth(record):.2f} ({record['exponent']:g})"
    )


def peak(call: Call) -> int:
    """Bytes that one call holds at most at a time beyond its inputs, whoever allocates them."""
    import memray

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "peak.bin")
        with memray.Tracker(file):
            kept = call()
        del kept
        return int(memray.FileReader(file).metadata.peak_memory)


def measure(start: Start, size: Size, peak_of: Callable[[Call], int] = peak) -> dict[str, Any]:
    """Times in turn and peak memory of all starters at one size; `peak_of` tells the bytes of a call."""
    import torch
    from torch.utils.benchmark import Timer

    torch.set_num_threads(THREADS)  # Timer does so too, but not for peaks
    starters = {"ours": start.ours, **start.references} | ({"naive": start.naive} if start.naive else {})
    timers = {
        name: Timer("call()", globals={"call": call}, num_threads=THREADS) for name, call in starters.items()
    }
    first = {name: timeit(call, number=1) for name, call in starters.items()}  # a Timer would warm up before
    times: dict[str, list[float]] = {name: [] for name in timers}
    times |= {name: [seconds] for name, seconds in first.items() if seconds > SLOW}
    again = {name: timer for name, timer in timers.items() if not times[name]}
    number = {name: max(1, math.ceil(BLOCK / again[name].timeit(1).mean)) for name in again}
    expected = sum(number[name] * first[name] for name in again)
    rounds = max(FEWEST, min(ROUNDS, int(PATIENCE / expected))) if again else 1
    for _ in range(rounds):
        for name, timer in again.items():
            times[name].append(timer.timeit(number[name]).mean)
    peaks = {name: peak_of(call) for name, call in starters.items()}
    return {
        "size": list(size),
        "rounds": rounds,
        "ours": {"seconds": _digits(median(times["ours"])), "bytes": peaks["ours"]},
        "references": {
            name: _beside(times["ours"], times[name]) | {"bytes": peaks[name]} for name in start.references
        },
        "naive": {"times": _digits(median(_ratios(times["naive"], times["ours"])))} if start.naive else None,
    }


def _ratios(these: list[float], those: list[float]) -> list[float]:
    """Of the same rounds; a single run is set beside the others' median."""
    if len(these) != len(those):
        return [median(these) / median(those)]
    return [a / b for a, b in zip(these, those, strict=True)]


def _beside(ours: list[float], theirs: list[float]) -> dict[str, float]:
    ratios = _ratios(ours, theirs)
    low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    found = {"seconds": median(theirs), "ratio": median(ratios), "low": low, "high": high}
    return {key: _digits(value) for key, value in found.items()}


def _digits(value: float) -> float:
    """Three significant digits: more would be noise in the record."""
    return float(f"{value:.3g}")
