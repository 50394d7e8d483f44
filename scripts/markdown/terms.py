"""`[word](term:id)`: a glossary term at its first use, with its definition on hover."""

from __future__ import annotations

import xml.etree.ElementTree as etree

from markdown.treeprocessors import Treeprocessor

from scripts.markdown.context import page
from scripts.pipeline.names import complaint
from scripts.pipeline.words import glossary


class TermTreeprocessor(Treeprocessor):
    def run(self, root: etree.Element) -> None:
        for link in root.iter("a"):
            scheme, _, key = link.get("href", "").partition(":")
            if scheme != "term":
                continue
            here = page()
            if fault := complaint("term", key):
                raise here.error(*fault, f"term:{key}")
            link.set("href", f"{here.to_root}glossary/#{key}")
            link.set("class", "term")
            link.set("title", glossary()[key].definitions[here.language])
