"""Experiments: functions that measure once and leave results that pages and figures read."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from scripts.pipeline.paths import BUILD, SCRIPTS, ContentError, writing
from scripts.pipeline.source import Symbol, decorated

RESULTS = BUILD / "experiments"
Result = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Result])


def experiment(function: F) -> F:
    """Mark a function whose returned dict is kept and named on pages as `topic.function.key`."""
    return function


def module_path(topic: str) -> Path:
    return SCRIPTS / "experiments" / f"{topic}.py"


def experiments_of(topic: str) -> list[str]:
    return [node.name for node in decorated(module_path(topic), "experiment")]


def symbol(topic: str, name: str) -> Symbol:
    return module_path(topic), name


def result_path(topic: str, name: str) -> Path:
    return RESULTS / topic / f"{name}.json"


def run(topic: str, name: str) -> None:
    """Run one experiment and keep what it returns: numbers as JSON, arrays as NPZ, weights as PT."""
    import torch

    torch.set_num_threads(1)  # the same sums in the same order on every machine size
    function = getattr(importlib.import_module(f"scripts.experiments.{topic}"), name)
    save(topic, name, function())


def save(topic: str, name: str, result: Result) -> None:
    import numpy as np
    import torch

    arrays: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for key, value in result.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", key):
            raise ContentError(module_path(topic), f"{name} returns the key {key!r}", "use snake_case")
        if key == "weights":
            continue
        if isinstance(value, torch.Tensor):
            value = value.detach().numpy()
        if isinstance(value, np.ndarray):
            arrays[key] = value
        else:
            plain[key] = value
    path = result_path(topic, name)
    if arrays:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        writing(path.with_suffix(".npz"), buffer.getvalue())
        # Whoever depends on the JSON file depends on the arrays too.
        plain["_arrays"] = hashlib.sha256(buffer.getvalue()).hexdigest()[:16]
    else:
        path.with_suffix(".npz").unlink(missing_ok=True)
    if "weights" in result:
        buffer = io.BytesIO()
        torch.save(result["weights"], buffer)
        writing(path.with_suffix(".pt"), buffer.getvalue())
    try:
        text = json.dumps(plain, indent=1, ensure_ascii=False, default=_scalar)
    except TypeError as error:
        raise ContentError(
            module_path(topic),
            f"{name} returns {error}",
            "return plain numbers, strings, lists, tables or arrays",
        ) from None
    writing(path, text + "\n")


def _scalar(value: Any) -> Any:
    import numpy as np

    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__}, which is no result")


def load(topic: str, name: str) -> Result:
    """What an experiment returned, arrays included."""
    import numpy as np

    path = result_path(topic, name)
    result: Result = json.loads(path.read_text(encoding="utf-8"))
    if path.with_suffix(".npz").is_file():
        with np.load(path.with_suffix(".npz")) as arrays:
            result |= {key: arrays[key] for key in arrays.files}
    return result


def look_up(name: str) -> Any:
    """The value that a page names as `topic.experiment.key`.

    Raises:
        KeyError: no such experiment or key.
        FileNotFoundError: the experiment exists but has not been run yet.
    """
    topic, _, rest = name.partition(".")
    function, _, key = rest.partition(".")
    if function not in experiments_of(topic):
        raise KeyError(name)
    result = json.loads(result_path(topic, function).read_text(encoding="utf-8"))
    for part in key.split("."):
        result = result[int(part)] if isinstance(result, list) else result[part]
    return result
