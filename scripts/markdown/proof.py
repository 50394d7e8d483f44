"""Evidence as a reader sees it: one quiet line under each snippet, the whole table behind it."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from html import escape
from itertools import groupby
from typing import Any

from scripts.markdown.context import page
from scripts.pipeline import benchmark, evidence, mutants
from scripts.pipeline.snippet import Snippet

HALF_PRECISION = ("float16", "bfloat16")


def evidence_line(snippet: Snippet) -> str:
    """The `<details>` under a snippet: state, tests, largest error, versions."""
    here = page()
    found = evidence.standing(snippet)
    parts = [badge(found.state)]
    if found.record:
        parts += [
            count_tests(len(found.record["tests"])),
            *_worst(found.record),
            *_caught(snippet),
            *_raced(snippet),
            _ran_by(snippet, found.record),
        ]
    elif found.reason:
        parts.append(escape(found.reason) if here.preview else "")
    summary = '<span class="dot"> · </span>'.join(part for part in parts if part)
    body = _table(snippet, found.record) if found.record else ""
    return f'<details class="proof proof-{found.state}"><summary>{summary}</summary>{body}</details>'


def badge(state: str) -> str:
    return f'<span class="state state-{state}">{page().say(f"state_{state}")}</span>'


def count_tests(count: int) -> str:
    return page().say("tests_count_one" if count == 1 else "tests_count", count=count)


def error_text(error: float) -> str:
    """1.2e-07 as 1.2 × 10⁻⁷, an exact zero as 0."""
    if error == 0:
        return "0"
    if not math.isfinite(error):  # shapes that differ, or a NaN where none belongs
        return "∞" if error > 0 else "NaN"
    digits, exponent = f"{error:.1e}".split("e")
    power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits} × 10{power}"


def reference_name(reference: str, html: bool = True) -> str:
    """`torch.…conv2d` as code; "brute force: …" in the reader's language."""
    kind, colon, rest = reference.partition(": ")
    if colon:
        label = page().say(kind.replace(" ", "_"))
        return f'{label} (<span lang="en">{escape(rest)}</span>)' if html else label
    return f"<code>{escape(reference)}</code>"


def least_flattering(references: list[dict[str, Any]]) -> dict[str, Any]:
    """The comparison with the largest error; half precision, whose errors are its own, comes last."""
    full = [seen for seen in references if seen["dtype"] not in HALF_PRECISION] or references
    libraries_first = sorted(full, key=lambda seen: ":" in seen["reference"])
    return max(libraries_first, key=lambda seen: seen["max_abs"])


def _worst(record: dict[str, Any]) -> list[str]:
    if not record["references"]:
        return []
    worst = least_flattering(record["references"])
    reference = reference_name(worst["reference"], html=False)
    if worst["max_abs"] == 0:
        return [page().say("exact_agreement", reference=reference)]
    return [page().say("largest_error", error=error_text(worst["max_abs"]), reference=reference)]


def _caught(snippet: Snippet) -> list[str]:
    """How many of the bugs planted in the snippet its tests caught."""
    entry = mutants.standing(snippet)
    if not entry or not mutants.planted(entry):
        return []
    return [page().say("bugs_caught", caught=mutants.caught(entry), planted=mutants.planted(entry))]


def _raced(snippet: Snippet) -> list[str]:
    """How long it takes beside the fastest reference."""
    record = benchmark.standing(snippet)
    if record is None:
        return []
    library = benchmark.fastest(record["sizes"][-1]).split(".")[0]
    return [page().say("race_short", ratio=times_text(benchmark.time_ratio(record)), library=library)]


def times_text(value: float) -> str:
    """A ratio in two significant digits, more only before the point."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}" if value >= 0.01 else "< 0.01"


def _race(snippet: Snippet) -> str:
    """Time and memory at the largest size raced, and why they are what they are where they miss the goal."""
    record, here = benchmark.standing(snippet), page()
    if record is None:
        return ""
    size = record["sizes"][-1]
    reference = benchmark.fastest(size)
    seen, memory = size["references"][reference], benchmark.memory_ratio(size)
    words = here.say(
        "race_long",
        shape=record["shape"][here.language],
        size=" × ".join(f"{number:,}" for number in size["size"]),
        reference=f"<code>{escape(reference)}</code>",
        ratio=escape(times_text(seen["ratio"])),
        low=escape(times_text(seen["low"])),
        high=escape(times_text(seen["high"])),
        memory="–" if memory is None else escape(times_text(memory)),
    )
    reason = {} if benchmark.meets_goal(record) else benchmark.reasons().get(snippet.qualified, {})
    why = f" {escape(reason[here.language])}" if reason else ""
    more = f'<a href="{here.to_root}about/speed/#{snippet.topic.replace("_", "-")}">{here.say("race_more")}</a>'
    return f"<p>{words}{why} {more}</p>"


def _changes(snippet: Snippet) -> str:
    """What was done to plant bugs, and the changes that no test notices, with the reasons."""
    entry, here = mutants.standing(snippet), page()
    if not entry or not entry["mutants"]:
        return ""
    noticed = here.say("changes_noticed", caught=mutants.caught(entry), count=entry["mutants"])
    if caught := entry.get("caught"):  # planted by hand: few enough to show
        rows = "".join(f"<li>{_change(change)}</li>" for change in caught)
        return f'<p>{noticed}</p><ul class="proof-changes" lang="en">{rows}</ul>'
    if not entry["survivors"]:
        return f"<p>{noticed}</p>"
    for_a_reason = defaultdict(list)
    for survivor in entry["survivors"]:
        for_a_reason[survivor["reason"]].append(survivor["change"])
    rows = "".join(
        f"<li>{'<br>'.join(_changed_lines(changes))}<br>{escape(reason) or here.say('change_unexplained')}</li>"
        for reason, changes in for_a_reason.items()
    )
    return f'<p>{noticed}{here.say("changes_unnoticed")}</p><ul class="proof-changes" lang="en">{rows}</ul>'


def _changed_lines(changes: list[str]) -> list[str]:
    """Changes of one and the same line one after another: the line once, then what it became."""
    shown = []
    for old, group in groupby(changes, key=lambda change: re.findall("^-.*", change, re.MULTILINE)):
        new = (line for change in group for line in change.splitlines() if not line.startswith("-"))
        shown.append(_change("\n".join([*old, *new])))
    return shown


def _change(change: str) -> str:
    return f"<code>{'</code><br><code>'.join(escape(line) for line in change.splitlines())}</code>"


def _ran_by(snippet: Snippet, record: dict[str, Any]) -> str:
    machines: list[str] = record.get("machines", [])
    versions = evidence.load(snippet.topic)["versions"]
    return page().say("list_separator").join(machines) or f"torch {versions['torch']}"


def _table(snippet: Snippet, record: dict[str, Any]) -> str:
    here = page()
    heads = "".join(
        f'<th scope="col">{here.say(key)}</th>'
        for key in ("reference", "dtype", "cases", "values_compared", "max_abs", "max_rel", "tolerance")
    )
    rows = "".join(
        f"<tr><td>{reference_name(seen['reference'])}</td><td>{seen['dtype']}</td><td>{seen['cases']}</td>"
        f"<td>{seen['values']}</td><td>{error_text(seen['max_abs'])}</td><td>{error_text(seen['max_rel'])}</td>"
        f"<td>{error_text(seen['atol'])}</td></tr>"
        for seen in record["references"]
    )
    # One entry a test function, with the number of cases it was run on.
    functions = Counter(test.split("::")[-1].split("[")[0] for test in record["tests"])
    tests = "".join(
        f"<li><code>{escape(name)}</code>{f' × {count}' if count > 1 else ''}</li>"
        for name, count in functions.items()
    )
    topic = evidence.load(snippet.topic)
    libraries = (f"{name} {version}" for name, version in topic["versions"].items())
    versions = ", ".join([*record.get("machines", []), *libraries])
    lines = record["lines"]
    branches = record["branches"]
    lines_text = here.say(
        "lines_executed",
        lines=f"{lines['executed']}/{lines['executed'] + len(lines['missing'])}",
        branches=f"{branches['executed']}/{branches['executed'] + len(branches['missing'])}",
    )
    measured = f"<p>{lines_text}</p>" if lines["executed"] else ""  # no coverage tool looks into a JVM here
    return (
        f'<div class="proof-body"><div class="proof-scroll" tabindex="0"><table class="data"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{measured}"
        f'<p>{here.say("tests_ran")} (<a href="{here.to_root}snippets/test_{snippet.topic}.py">{here.say("test")}</a>)</p>'
        f'<ul class="proof-tests" lang="en">{tests}</ul>{_changes(snippet)}{_race(snippet)}'
        f"<p>{here.say('ran_on', date=topic['date'], commit=topic['commit'] or '–')} · Python {topic['python']}, {versions}"
        f" · {here.say('source_hash', hash=record['hash'])}</p></div>"
    )
