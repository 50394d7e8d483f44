"""What must not be left in a rendered page."""

from __future__ import annotations

import re

from markdown.postprocessors import Postprocessor

from scripts.markdown.context import page


class LeftoverPostprocessor(Postprocessor):
    """A block or value that nothing understood would be shown as text: refuse it."""

    def run(self, text: str) -> str:
        if found := re.search(r"<p>\s*(/{3,}[^\n<]*)", text):
            raise page().error(
                f"block not understood: {found[1].strip()}",
                "check its name and that its options are YAML, indented by four spaces; quote text with a colon",
                found[1].strip(),
            )
        outside_code = re.sub(r"<(code|template|script)\b.*?</\1>", "", text, flags=re.S)
        if found := re.search(r"\{\{[^}]*\}\}", outside_code):
            raise page().error(
                f"value not understood: {found[0]}", "write {{ topic.experiment.key | format }}", found[0]
            )
        return text
