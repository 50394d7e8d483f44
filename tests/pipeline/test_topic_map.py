"""The map of the topics: columns by prerequisites, few crossings, no line through a box."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from scripts.markdown import topic_map

SHELVES = {
    "vision": ["dilated", "metrics", "pooling", "oadtr", "detr", "faces"],
    "language": ["transformer", "linear"],
    "deep": ["upsampling", "diffusion", "control"],
    "code": ["threads", "kernels"],
}
NEEDS = {
    **{topic: [] for shelf in SHELVES.values() for topic in shelf},
    "pooling": ["dilated"],
    "oadtr": ["transformer"],
    "linear": ["transformer"],
    "detr": ["transformer", "metrics"],
    "diffusion": ["transformer", "upsampling"],
    "control": ["diffusion", "dilated"],
    "kernels": ["threads", "control"],
}


def test_each_topic_stands_after_all_it_needs():
    layout = topic_map.arrange(SHELVES, NEEDS)
    for topic, needs in NEEDS.items():
        after = max((layout.column[need] + 1 for need in needs), default=0)
        assert layout.column[topic] == after
    assert layout.columns == 4
    assert sorted(layout.edges) == sorted((need, topic) for topic in NEEDS for need in NEEDS[topic])


def test_no_two_boxes_share_a_place_and_each_column_of_a_band_is_filled_from_the_top():
    """The style sheet knows a box's column only; its row follows from the order of the boxes."""
    layout = topic_map.arrange(SHELVES, NEEDS)
    assert len({(layout.column[topic], layout.y[topic]) for topic in NEEDS}) == len(NEEDS)
    top = 0.0
    for band in layout.bands.values():
        rows: dict[int, int] = {}
        for topic in band:
            row = rows[layout.column[topic]] = rows.get(layout.column[topic], -1) + 1
            assert layout.y[topic] == top + row + 0.5, topic
        top += max(rows.values()) + 1 + topic_map.BAND_GAP
    assert layout.height == top - topic_map.BAND_GAP


def test_lines_start_and_end_at_their_boxes_and_pass_between_the_others():
    layout = topic_map.arrange(SHELVES, NEEDS)
    lines = dict(topic_map.paths(layout))
    assert set(lines) == set(layout.edges)
    gutter = topic_map.WIDTH * topic_map.GUTTERS / layout.columns
    width = (topic_map.WIDTH - gutter * (layout.columns - 1)) / layout.columns
    for (first, then), path in lines.items():
        numbers = [float(n) for n in re.findall(r"[\d.]+", path)]
        assert numbers[:2] == [
            pytest.approx(layout.column[first] * (width + gutter) + width, abs=0.1),
            layout.y[first] * topic_map.ROW,
        ]
        assert numbers[-2:] == [
            pytest.approx(layout.column[then] * (width + gutter), abs=0.1),
            layout.y[then] * topic_map.ROW,
        ]
        passing = [float(y) / topic_map.ROW for y in re.findall(r"([\d.]+)H", path)]
        assert len(passing) == layout.column[then] - layout.column[first] - 1
        for y in passing:
            assert all(abs(y - middle) >= 0.5 for middle in layout.y.values()), "through a box"


def test_a_band_moves_to_where_lines_do_not_cross():
    shelves = {"a": ["a1"], "b": ["b1", "b2"], "c": ["c1", "c2"]}
    needs = {"a1": [], "b1": [], "b2": ["b1"], "c1": [], "c2": ["a1"]}
    as_given = topic_map._arranged(shelves, needs)
    assert topic_map._crossings(as_given) == 1
    layout = topic_map.arrange(shelves, needs)
    assert topic_map._crossings(layout) == 0
    assert layout.bands == {"a": ["a1"], "c": ["c1", "c2"], "b": ["b1", "b2"]}


def test_the_given_order_is_kept_where_nothing_speaks_against_it():
    layout = topic_map.arrange({"a": ["x", "y"], "b": ["z"]}, {"x": [], "y": [], "z": []})
    assert layout.bands == {"a": ["x", "y"], "b": ["z"]}
    assert list(topic_map.paths(layout)) == []
    assert layout.columns == 1


def test_the_same_topics_give_the_same_lines():
    first, again = (list(topic_map.paths(topic_map.arrange(SHELVES, NEEDS))) for _ in range(2))
    assert first == again


def test_two_lines_from_different_topics_do_not_run_in_one_gap():
    layout = topic_map.arrange(SHELVES, NEEDS)
    runs = {}
    for (first, _), path in topic_map.paths(layout):
        numbers = re.findall(r"([\d.]+) ([\d.]+)H([\d.]+)", path)
        for start, y, end in numbers:
            assert runs.setdefault((start, y, end), first) == first
    assert runs


def test_topics_that_need_each_other_are_refused():
    with pytest.raises(ValueError, match="a → b → a"):
        topic_map.columns_of({"a": ["b"], "b": ["a"]})


def test_crossings_are_counted():
    layout = topic_map.Layout(
        bands={},
        column={"a": 0, "b": 0, "c": 1, "d": 1},
        y={"a": 0.5, "b": 1.5, "c": 0.5, "d": 1.5},
        columns=2,
        height=2,
        edges=[("a", "d"), ("b", "c")],
    )
    assert topic_map._crossings(layout) == 1
    assert all(low < high for low, high in pairwise(topic_map._gaps(layout)))
