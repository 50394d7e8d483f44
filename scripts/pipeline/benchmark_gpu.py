"""`make bench-gpu`: absolute times of the races at their largest size on a CUDA device, in float32 and bfloat16.

What a race's calls hold is moved to the device. A snippet whose result is not made there (it counts boxes in
Python, say, or is a race of Java) is left out.
"""

from __future__ import annotations

import copy
import json
import types
from collections.abc import Callable
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from scripts.pipeline import benchmark, evidence
from scripts.pipeline.benchmark import Call, Race, Start
from scripts.pipeline.paths import TESTS, ContentError, read_json, topics, writing
from scripts.pipeline.snippet import Snippet

if TYPE_CHECKING:
    import torch

RECORD = TESTS / "benchmarks" / "gpu.json"
PRECISIONS = ("float32", "bfloat16")


def load() -> dict[str, Any] | None:
    found: dict[str, Any] | None = read_json(RECORD)
    return found


def standing(record: dict[str, Any], snippet: Snippet) -> dict[str, Any] | None:
    """What the record holds of the snippet as it stands; None if nothing, or if it has changed since."""
    found: dict[str, Any] | None = record["races"].get(snippet.qualified)
    return found if found and found["hash"] == benchmark.fingerprint(snippet) else None


def moved(value: Any, device: str, dtype: torch.dtype) -> Any:
    """The same value on a device, its real numbers of another type; of a function, what its closure holds."""
    import torch

    def again(part: Any) -> Any:
        return moved(part, device, dtype)

    match value:
        case torch.Tensor():
            there = value.detach().to(device, dtype if value.is_floating_point() else None)
            return there.requires_grad_(value.requires_grad)
        case torch.nn.Module():
            return copy.deepcopy(value).to(device, dtype)
        case torch.Generator():
            return torch.Generator(device).manual_seed(value.initial_seed())
        case types.FunctionType(__closure__=cells):
            inside = tuple(types.CellType(again(cell.cell_contents)) for cell in cells or ())
            same = types.FunctionType(value.__code__, value.__globals__, value.__name__, value.__defaults__, inside)
            same.__kwdefaults__ = value.__kwdefaults__
            return same
        case list() | tuple():
            return type(value)(map(again, value))
        case dict():
            return {key: again(part) for key, part in value.items()}
    return value


def tensors(value: Any) -> list[torch.Tensor]:
    """All there are in a result."""
    import torch

    match value:
        case torch.Tensor():
            return [value]
        case dict():
            return [x for part in value.values() for x in tensors(part)]
        case list() | tuple():
            return [x for part in value for x in tensors(part)]
    return []


def runs_there(call: Call) -> bool:
    """Whether the call gives tensors, all of them on the device."""
    try:
        found = tensors(call())
    except Exception as error:  # a library may raise anything about a device or a type it was not made for
        click.echo(f"       left out: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        return False
    return bool(found) and all(x.is_cuda for x in found)


def waits(call: Call) -> bool:
    """Whether the host waits for the device within the call."""
    import torch

    torch.cuda.set_sync_debug_mode("error")
    try:
        call()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return True
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return False


def peak(call: Call) -> int:
    """Bytes that one call holds on the device at most, beyond what was there before."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kept = call()
    torch.cuda.synchronize()
    del kept
    return torch.cuda.max_memory_allocated() - before


def run(*wanted: str) -> None:
    """Measure the races of the topics named, all if none is, and keep the record.

    Raises:
        ContentError: there is no CUDA device.
    """
    import torch

    if not torch.cuda.is_available():
        raise ContentError("make bench-gpu", "this machine has no CUDA device", "run it where there is one")
    record: dict[str, Any] = {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name(),
        "versions": {"CUDA": torch.version.cuda},
        "races": {},
    }
    libraries = {"torch"}
    for topic in topics():
        for one in benchmark.races_of(topic).values():
            if wanted and topic not in wanted:
                continue
            found = _measured(one)
            if found:
                record["races"][one.snippet] = found
                libraries |= {name.split(".")[0] for kind in PRECISIONS for name in (found[kind] or {}).get("references", {})}
    record["versions"] |= {name: evidence.version(name) for name in sorted(libraries)}
    writing(RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _measured(one: Race) -> dict[str, Any] | None:
    import torch

    click.echo(one.snippet)
    size = one.sizes[-1]
    prepared = one.prepare(*size)
    found: dict[str, Any] = {"hash": benchmark.fingerprint(benchmark.snippet_of(one)), "size": list(size)}
    for kind in PRECISIONS:
        there = partial(moved, device="cuda", dtype=getattr(torch, kind))
        found[kind] = _in(prepared, size, there)
        if found[kind] and "waits" not in found:
            found["waits"] = waits(there(prepared.ours))
        torch.cuda.empty_cache()
    return found if any(found[kind] for kind in PRECISIONS) else None


def _in(prepared: Start, size: benchmark.Size, there: Callable[[Call], Call]) -> dict[str, Any] | None:
    ours = there(prepared.ours)
    if not runs_there(ours):
        return None
    references = {name: call for name, given in prepared.references.items() if runs_there(call := there(given))}
    found = benchmark.measure(Start(ours, references), size, peak)
    beside = "  ".join(f"{name} {times['seconds'] * 1e6:,.0f} µs" for name, times in found["references"].items())
    click.echo(f"       {found['ours']['seconds'] * 1e6:,.0f} µs  {beside}")
    return {"ours": found["ours"], "references": found["references"]}
