"""What a page may name: snippets, figures, tables, values, terms, formulas, evidence.

One Python-Markdown extension, `scripts.markdown`, built on the extension points of Python-Markdown
and pymdown-extensions only, so that any site generator that uses them can render our pages.
"""

from __future__ import annotations

from typing import Any

from markdown import Markdown
from pymdownx.blocks import BlocksExtension, BlocksProcessor

from scripts.markdown import checks, listings, math, races, results, snippets, terms


class PageExtension(BlocksExtension):
    """Registers every block and inline form."""

    def extendMarkdownBlocks(self, md: Markdown, block_mgr: BlocksProcessor) -> None:  # noqa: N802
        for block in (
            snippets.SnippetBlock,
            results.FigureBlock,
            results.TableBlock,
            results.OutputBlock,
            listings.EvidenceBlock,
            listings.CatalogueBlock,
            listings.GlossaryBlock,
            listings.TopicsBlock,
            listings.TotalsBlock,
            listings.NotebookBlock,
            listings.SearchBlock,
            races.RacesBlock,
            races.GpuBlock,
            races.BuildsBlock,
        ):
            block_mgr.register(block, self.getConfigs())
        # Before backslash escapes (180) and links (160), after code spans (190).
        md.inlinePatterns.register(results.ValueProcessor(md), "value", 185)
        md.treeprocessors.register(math.MathTreeprocessor(md), "math", -5)
        md.treeprocessors.register(terms.TermTreeprocessor(md), "terms", -10)
        md.postprocessors.register(checks.LeftoverPostprocessor(md), "leftovers", -10)


def makeExtension(**options: Any) -> PageExtension:  # noqa: N802
    return PageExtension(**options)
