"""Speed as a reader sees it: a word in the line of evidence, a table and a plot on the page about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

from scripts.markdown.context import page
from scripts.markdown.listings import Listing, link_to, measured_table
from scripts.markdown.proof import times_text
from scripts.markdown.results import drawn_images
from scripts.pipeline import bench_build, benchmark, benchmark_gpu, growth
from scripts.pipeline.pages import article
from scripts.pipeline.paths import topics
from scripts.pipeline.source import all_snippets, snippets_of


class RacesBlock(Listing):
    """`/// races | topic`: what its snippets cost beside the libraries, and how the cost grows."""

    NAME = "races"
    ARGUMENT = True

    def html(self) -> str:
        here, topic = page(), self.argument
        if topic not in topics():
            raise here.error(f"unknown topic {topic!r}", f"topics: {', '.join(topics())}", topic)
        records = {snippet: benchmark.standing(snippet) for snippet in snippets_of(topic)}
        raced = {snippet: record for snippet, record in records.items() if record}
        if not raced:
            return f"<p>{here.say('race_none')}</p>"
        heads = [here.say(f"race_{key}") for key in ("snippet", "size", "time", "ratio", "memory", "naive_times", "growth")]
        rows = [row for snippet, record in raced.items() for row in self._rows(link_to(snippet), record)]
        reasons = benchmark.reasons()
        slower = "".join(
            f"<li>{link_to(snippet)}{here.say('colon')}{escape(reasons[snippet.qualified][here.language])}</li>"
            for snippet, record in raced.items()
            if snippet.qualified in reasons and not benchmark.meets_goal(record)
        )
        why = f"<p>{here.say('race_reasons')}</p><ul>{slower}</ul>" if slower else ""
        return f"{self._plot(topic)}{measured_table(heads, rows)}{why}{self._where(list(raced.values()))}"

    def _rows(self, link: str, record: dict[str, Any]) -> Iterator[str]:
        here, sizes = page(), record["sizes"]
        said = [escape(record["shape"][here.language])]
        for best in dict.fromkeys(benchmark.fastest(size) for size in sizes):
            breaking = escape(best).replace(".", ".<wbr>").replace("_", "_<wbr>")
            said.append(f"{here.say('race_reference')}{here.say('colon')}<code>{breaking}</code>")
        if record["naive"]:
            said.append(f"{here.say('race_naive')}{here.say('colon')}{escape(record['naive'][here.language])}")
        below = "".join(f"<br><small>{words}</small>" for words in said)
        span = f' rowspan="{len(sizes)}"'
        slope = f'<td class="number"{span}>{benchmark.growth(record):.2f} ({record["exponent"]:g})</td>'
        for number, size in enumerate(sizes):
            seen = size["references"][benchmark.fastest(size)]
            memory = benchmark.memory_ratio(size)
            name = f'<th scope="row"{span}>{link}{below}</th>' if number == 0 else ""
            yield (
                f'<tr>{name}<td class="number">{extent(size["size"])}</td>'
                f'<td class="number">{duration(size["ours"]["seconds"])}</td>'
                f'<td class="number">{times(seen["ratio"])} <small>({times(seen["low"])}–{times(seen["high"])})</small></td>'
                f'<td class="number">{"–" if memory is None else times(memory)}</td>'
                f'<td class="number">{times(size["naive"]["times"]) if size["naive"] else "–"}</td>'
                f"{slope if number == 0 else ''}</tr>"
            )

    def _plot(self, topic: str) -> str:
        here = page()
        if not all(path.is_file() for path in growth.paths(topic)):
            return f'<p class="pending">{here.say("pending_figure")}</p>'
        home = article(topic, here.language)
        alt = here.say("race_plot", title=home.title if home else topic)
        return f'<figure class="drawn"><div class="drawn-images">{drawn_images(growth.SHELF, topic, alt)}</div></figure>'

    def _where(self, records: list[dict[str, Any]]) -> str:
        """Machine, threads and versions: the records of a topic may come from several runs."""
        seen = dict.fromkeys(
            page().say(
                "race_measured_on",
                date=record["date"],
                machine=record["machine"],
                threads=record["threads"],
            )
            for record in records
        )
        versions = {name: version for record in records for name, version in record["versions"].items()}
        return measured_with(" ".join(seen), versions)


def duration(seconds: float) -> str:
    """In the unit that gives the fewest digits."""
    units = (("s", 1.0), ("ms", 1e-3))
    # From 0.9995 on, three digits round up to a whole one.
    unit, size = next((known for known in units if seconds >= 0.9995 * known[1]), ("µs", 1e-6))
    value = seconds / size
    return f"{value:,.0f} {unit}" if value >= 999.5 else f"{value:.3g} {unit}"  # never with an exponent


def times(value: float) -> str:
    return escape(times_text(value))


def extent(size: Iterable[int]) -> str:
    """The numbers of a size."""
    return " × ".join(f"{number:,}" for number in size)


def measured_with(where: str, versions: Mapping[str, str]) -> str:
    """The line below a table: when and where it was measured, and with what."""
    shown = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return f"<p><small>{escape(where)} {escape(shown)}</small></p>"


class GpuBlock(Listing):
    """`/// gpu`: absolute times on a GPU, from the record of `make bench-gpu`."""

    NAME = "gpu"

    def html(self) -> str:
        here, record = page(), benchmark_gpu.load()
        if record is None:
            return f"<p>{here.say('gpu_none')}</p>"
        heads = [here.say(f"race_{key}") for key in ("snippet", "size")]
        for kind in benchmark_gpu.PRECISIONS:
            heads += [f"{kind}{here.say('gpu_of', who=here.say(who))}" for who in ("gpu_ours", "gpu_library")]
        rows = []
        for snippet in all_snippets().values():
            if found := benchmark_gpu.standing(record, snippet):
                cells = "".join(f'<td class="number">{text}</td>' for text in self._cells(found))
                cells += f"<td>{'●' if found['waits'] else '–'}</td>"
                rows.append(f'<tr><th scope="row" class="raced">{link_to(snippet)}</th>{cells}</tr>')
        where = here.say("gpu_measured_on", date=record["date"], device=record["device"])
        return measured_table([*heads, here.say("gpu_waits")], rows) + measured_with(where, record["versions"])

    def _cells(self, found: dict[str, Any]) -> Iterator[str]:
        yield extent(found["size"])
        for kind in benchmark_gpu.PRECISIONS:
            measured = found[kind]
            yield duration(measured["ours"]["seconds"]) if measured else "–"
            beside = measured and measured["references"]
            yield duration(beside[benchmark.fastest(measured)]["seconds"]) if beside else "–"


class BuildsBlock(Listing):
    """`/// builds`: how long builds take and what they redo, from the record of `make bench-build`."""

    NAME = "builds"

    def html(self) -> str:
        here, record = page(), bench_build.load()
        if record is None:
            return f"<p>{here.say('build_none')}</p>"
        rows = []
        for name, build in record["builds"].items():
            goal = bench_build.GOALS.get(name)
            rows.append(
                f'<tr><th scope="row">{here.say(f"build_{name}")}</th>'
                f'<td class="number">{duration(build["seconds"])}</td>'
                f'<td class="number">{times(build["seconds"] / record["plain"])}</td>'
                f'<td class="number">{duration(goal) if goal else "–"}</td>'
                f"<td>{self._redone(build['redone'])}</td></tr>"
            )
        heads = [here.say(f"build_{key}") for key in ("which", "time", "ratio", "goal", "redone")]
        growth = record["growth"]
        copies = here.say("list_separator").join(
            here.say("build_copies", count=count, seconds=f"{seconds:g}") for count, seconds in growth["seconds"].items()
        )
        words = here.say("build_growth", copies=copies, slope=f"{growth['slope']:.2f}")
        plain = here.say("build_plain", seconds=f"{record['plain']:g}", date=record["date"], machine=record["machine"])
        return f"{measured_table(heads, rows)}<p><small>{escape(plain)}</small></p><p>{words}</p>"

    def _redone(self, counts: dict[str, int]) -> str:
        here = page()
        return here.say("list_separator").join(
            f"{here.say(f'build_{kind}')} {count}" for kind, count in counts.items()
        ) or "–"
