"""One style sheet in place of several, without the rules, variables and animations that no page can use."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import tinycss2
from tinycss2.ast import AtRule, Node, QualifiedRule

from scripts.publishing.tags import tags

NESTING = {"media", "supports", "layer", "container"}


def words_of(html: str) -> set[str]:
    """Every element's name, class, id and attribute value of a page: what selectors can ask for."""
    found = tags(html)
    values = [value for tag in found for value in tag.attributes.values() if value]
    return {tag.name for tag in found} | {word for value in values for word in (*value.split(), value)}


def words_in_script(script: str) -> set[str]:
    """Every word of a script, which may set any of them as a class or as an attribute's value."""
    return set(re.findall(r"[\w-]+", script))


def moved(sheet: str, folder: Path) -> str:
    """The style sheet for a place from which its old folder is `folder`."""
    return re.sub(r"url\((['\"]?)(?!['\"/#]|data:|\w+://)", rf"url(\g<1>{folder.as_posix()}/", sheet)


def purged(sheet: str, used: set[str]) -> str:
    """The style sheet with only those selectors whose elements, classes, ids and attribute values are all in `used`."""

    def asked_for(rule: QualifiedRule) -> bool:
        selectors = [part for part in _selectors(rule.prelude) if _applies(part, used)]
        rule.prelude = tinycss2.parse_component_value_list(",".join(map(tinycss2.serialize, selectors)))
        return bool(selectors)

    before, text = "", _filtered(sheet, asked_for)
    while text != before:  # what read a variable may itself have been one that nothing reads
        before, text = text, _without_idle_names(text)
    return text


def _without_idle_names(sheet: str) -> str:
    """No variable that nothing reads, no animation that nothing runs."""
    read = set(re.findall(r"var\(\s*(--[\w-]+)", sheet))
    run = words_in_script(" ".join(re.findall(r"animation(?:-name)?:([^;}]+)", sheet)))

    def says_something(rule: QualifiedRule) -> bool:
        content = tinycss2.parse_blocks_contents(rule.content, skip_comments=True, skip_whitespace=True)
        rule.content = [
            part
            for part in content
            if part.type != "declaration" or not part.name.startswith("--") or part.name in read
        ]
        return bool(rule.content)

    return _filtered(sheet, says_something, run)


def _filtered(sheet: str, keep: Callable[[QualifiedRule], bool], run: set[str] | None = None) -> str:
    def walk(rules: Iterable[Node]) -> Iterator[Node]:
        for rule in rules:
            if isinstance(rule, QualifiedRule):
                if keep(rule):
                    yield rule
            elif isinstance(rule, AtRule) and rule.at_keyword in NESTING and rule.content is not None:
                inner = tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True)
                rule.content = list(walk(inner))
                if rule.content:
                    yield rule
            elif run is None or not rule.at_keyword.endswith("keyframes") or _name(rule) in run:
                yield rule

    rules = tinycss2.parse_stylesheet(sheet, skip_comments=True, skip_whitespace=True)
    return "".join(rule.serialize() + "\n" for rule in walk(rules))


def _name(rule: AtRule) -> str:
    return str(tinycss2.serialize(rule.prelude)).strip()


def _selectors(prelude: list[Node]) -> Iterator[list[Node]]:
    """A list of selectors, at its commas."""
    part: list[Node] = []
    for node in prelude:
        if node == ",":
            yield part
            part = []
        else:
            part.append(node)
    yield part


def _applies(selector: list[Node], used: set[str]) -> bool:
    """Whether what it names is used; inside :is(), :not() and the like nothing is asked."""
    before = None
    for node in selector:
        named = node.type == "hash" or (node.type == "ident" and before != ":")
        if named and node.value not in used:
            return False
        if node.type == "[] block" and any(value not in used for value in _values_asked(node.content)):
            return False
        before = node
    return True


def _values_asked(content: list[Node]) -> list[str]:
    """The value of `[name=value]` and of `[name~=value]`; the beginning or end of one cannot be looked up."""
    signs = [at for at, node in enumerate(content) if node in ("=", "~=")]
    return [node.value for at in signs for node in content[at + 1 :] if node.type in ("string", "ident")]
