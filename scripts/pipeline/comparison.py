"""One comparison of a snippet with an independent reference: what `agrees_with` measures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

ROUNDING = 64  # units in the last place that rounding alone may cost


@dataclass(frozen=True)
class Comparison:
    """One call of `agrees_with`."""

    test: str
    snippet: str
    reference: str
    dtype: str
    max_abs: float
    max_rel: float
    atol: float
    rtol: float
    floor: float  # the error that rounding alone explains, for this dtype and magnitude
    count: int
    within: bool
    complaint: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    test: str, snippet: Any, reference: str, ours: Any, theirs: Any, atol: float, rtol: float
) -> Comparison:
    """Measure how far `ours` is from `theirs`, elementwise, NaN equal to NaN."""
    import numpy as np

    name = getattr(snippet, "__qualname__", str(snippet)).split(".")[0]
    a, dtype, eps = _array(ours)
    b, _, _ = _array(theirs)

    def seen(max_abs: float, max_rel: float, floor: float, complaint: str = "") -> Comparison:
        return Comparison(
            test,
            name,
            reference,
            dtype,
            max_abs,
            max_rel,
            atol,
            rtol,
            floor,
            int(a.size),
            not complaint,
            complaint,
        )

    if a.shape != b.shape:
        return seen(float("inf"), float("inf"), 0.0, f"shape {a.shape}, but {reference} has {b.shape}")
    if a.dtype.kind not in "fc" and b.dtype.kind not in "fc":
        equal = a == b
        wrong = int(a.size - np.count_nonzero(equal))
        return seen(
            float(wrong),
            float(wrong),
            0.0,
            f"{wrong} of {a.size} values differ from {reference}" if wrong else "",
        )
    wide = np.complex128 if "c" in (a.dtype.kind, b.dtype.kind) else np.float64
    a, b = a.astype(wide), b.astype(wide)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(same, 0.0, np.abs(a - b))
        size = np.abs(b)
        relative_error = np.where(same, 0.0, error / size)
        bad = ~same & ~(error <= atol + rtol * size)
    finite = size[np.isfinite(size)]
    scale = float(finite.max()) if finite.size else 0.0
    worst = float(error.max()) if error.size else 0.0
    text = f"off by {worst:.3g} from {reference} (atol={atol:g}, rtol={rtol:g})" if bad.any() else ""
    return seen(worst, float(relative_error.max()) if error.size else 0.0, ROUNDING * eps * scale, text)


def _array(value: Any) -> tuple[Any, str, float]:
    """The value as an array, its dtype's name and the machine epsilon of that dtype."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        eps = torch.finfo(value.dtype).eps if value.dtype.is_floating_point else 0.0
        wide = value.detach().cpu()
        return (wide.double() if wide.is_floating_point() else wide).numpy(), dtype, eps
    array = np.asarray(value)
    eps = float(np.finfo(array.dtype).eps) if array.dtype.kind in "fc" else 0.0
    return array, "text" if array.dtype.kind == "U" else str(array.dtype), eps
