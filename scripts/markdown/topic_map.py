"""Where each topic stands on the map of the home page, and how the lines between them run.

A topic stands in the column after the last of its prerequisites, in the band of its category. Within a
band, each column is filled from the top, so that a style sheet can place the boxes by their column alone;
lines that pass a column run in the gaps between its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, permutations

BAND_GAP = 0.25  # rows between two bands; `.map-band` has the same
GUTTERS = 0.2  # of the width; shared by the columns, as `.map ul` has it
WIDTH, ROW = 1000, 100  # units of the drawing: its whole width, and the height of a row
PERMUTED = 5  # so many bands can still be tried in every order

Edge = tuple[str, str]  # from what is needed to what needs it


@dataclass(frozen=True)
class Layout:
    """Bands from top to bottom, the topics of each in reading order; a topic's column and height, in rows."""

    bands: dict[str, list[str]]
    column: dict[str, int]
    y: dict[str, float]
    columns: int
    height: float
    edges: list[Edge]


def columns_of(needs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The column of each topic: one more than the last of its prerequisites.

    Raises:
        ValueError: topics need each other in a circle.
    """
    found: dict[str, int] = {}

    def column(topic: str, above: tuple[str, ...]) -> int:
        if topic in above:
            raise ValueError(" → ".join([*above[above.index(topic) :], topic]))
        if topic not in found:
            found[topic] = max((column(need, (*above, topic)) + 1 for need in needs[topic]), default=0)
        return found[topic]

    for topic in needs:
        column(topic, ())
    return found


def arrange(shelves: Mapping[str, Sequence[str]], needs: Mapping[str, Sequence[str]]) -> Layout:
    """The layout with the fewest crossings, then the shortest lines, then nearest to the given order.

    Args:
        shelves: the topics of each category.
        needs: the prerequisites of each topic, all of them topics.
    """
    orders = permutations(shelves) if len(shelves) <= PERMUTED else [tuple(shelves)]
    layouts = (_arranged({category: shelves[category] for category in order}, needs) for order in orders)
    return min(layouts, key=lambda layout: (_crossings(layout), round(_length(layout), 6)))


def _arranged(shelves: Mapping[str, Sequence[str]], needs: Mapping[str, Sequence[str]]) -> Layout:
    """Bands in the given order; in each column of a band, topics at the height of what they are tied to."""
    column = columns_of(needs)
    edges = [(need, topic) for topic in needs for need in needs[topic]]
    tied = {topic: [a if b == topic else b for a, b in edges if topic in (a, b)] for topic in needs}
    stacks = {
        (band, at): [topic for topic in shelf if column[topic] == at]
        for band, shelf in shelves.items()
        for at in sorted({column[topic] for topic in shelf})
    }
    for _ in range(4):
        y, _ = _heights(stacks)
        for key, stack in stacks.items():  # topics that are tied to nothing come last
            stacks[key] = sorted(
                stack,
                key=lambda topic: (
                    sum(y[other] for other in tied[topic]) / len(tied[topic]) if tied[topic] else 1e9
                ),
            )
            y, _ = _heights(stacks)
    y, height = _heights(stacks)
    bands = {band: sorted(shelf, key=lambda topic: (y[topic], column[topic])) for band, shelf in shelves.items()}
    return Layout(bands, column, y, max(column.values(), default=0) + 1, height, edges)


def _heights(stacks: Mapping[tuple[str, int], Sequence[str]]) -> tuple[dict[str, float], float]:
    """The height of each topic's middle, and of the whole."""
    y: dict[str, float] = {}
    top = 0.0
    for band in dict.fromkeys(band for band, _ in stacks):
        own = [stack for (name, _), stack in stacks.items() if name == band]
        y |= {topic: top + row + 0.5 for stack in own for row, topic in enumerate(stack)}
        top += max(map(len, own)) + BAND_GAP
    return y, top - BAND_GAP


def _crossings(layout: Layout) -> int:
    """Pairs of lines that cross, each taken as straight."""

    def at(edge: Edge, column: int) -> float:
        (x, y), (x2, y2) = ((layout.column[topic], layout.y[topic]) for topic in edge)
        return y + (y2 - y) * (column - x) / (x2 - x)

    count = 0
    for one, two in combinations(layout.edges, 2):
        first = max(layout.column[edge[0]] for edge in (one, two))
        last = min(layout.column[edge[1]] for edge in (one, two))
        count += sum(
            (at(one, x) - at(two, x)) * (at(one, x + 1) - at(two, x + 1)) < 0 for x in range(first, last)
        )
    return count


def _length(layout: Layout) -> float:
    return sum(abs(layout.y[a] - layout.y[b]) for a, b in layout.edges)


def paths(layout: Layout) -> Iterator[tuple[Edge, str]]:
    """Each line as SVG path data."""
    gutter = WIDTH * GUTTERS / layout.columns
    width = (WIDTH - gutter * (layout.columns - 1)) / layout.columns
    taken: dict[tuple[int, float], str] = {}  # what runs in a gap between the rows of a column
    for edge in layout.edges:
        start, end = (layout.column[topic] for topic in edge)
        y, goal = (layout.y[topic] for topic in edge)
        parts = [f"M{_n(start * (width + gutter) + width)} {_n(y * ROW)}"]
        for column in range(start + 1, end + 1):
            x = column * (width + gutter)
            if column == end:
                target = goal
            else:
                wish = y + (goal - y) / (end - column + 1)
                free = [gap for gap in _gaps(layout) if taken.get((column, gap), edge[0]) == edge[0]]
                target = min(free or _gaps(layout), key=lambda gap: (abs(gap - wish), gap))
                taken[column, target] = edge[0]
            bend = x - gutter / 2
            parts.append(f"C{_n(bend)} {_n(y * ROW)} {_n(bend)} {_n(target * ROW)} {_n(x)} {_n(target * ROW)}")
            if column < end:
                parts.append(f"H{_n(x + width)}")
            y = target
        yield edge, "".join(parts)


def _gaps(layout: Layout) -> list[float]:
    """The heights between two rows, where no box stands in any column."""
    middles = sorted(set(layout.y.values()))
    return [(low + high) / 2 for low, high in pairwise(middles)] or [layout.height]


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
