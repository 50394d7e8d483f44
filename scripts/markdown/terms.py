"""`[word](term:id)`: a glossary term at its first use, with its definition on hover."""

from __future__ import annotations

import xml.etree.ElementTree as etree
from difflib import get_close_matches

from markdown.treeprocessors import Treeprocessor

from scripts.markdown.context import page
from scripts.pipeline.words import glossary


class TermTreeprocessor(Treeprocessor):
    def run(self, root: etree.Element) -> None:
        for link in root.iter("a"):
            scheme, _, key = link.get("href", "").partition(":")
            if scheme != "term":
                continue
            here, terms = page(), glossary()
            if key not in terms:
                near = get_close_matches(key, terms, n=1)
                raise here.error(
                    f"unknown glossary term {key!r}",
                    f"did you mean {near[0]!r}?" if near else "add it to docs/glossary.yml",
                    f"term:{key}",
                )
            link.set("href", f"{here.to_root}glossary/#{key}")
            link.set("class", "term")
            link.set("title", terms[key].definitions[here.language])
