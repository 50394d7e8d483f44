"""What a page may name, rendered."""

from __future__ import annotations

import markdown
import pytest
from lxml import html

from scripts.markdown.context import PageContext, rendering
from scripts.markdown.proof import error_text, least_flattering
from scripts.pipeline import experiment, mutants
from scripts.pipeline.paths import ContentError
from scripts.pipeline.source import find_snippet

EXTENSIONS = [
    "attr_list",
    "pymdownx.superfences",
    "pymdownx.arithmatex",
    "pymdownx.blocks.details",
    "scripts.markdown",
]
RESULT = {
    "share": 0.2899,
    "count": 12345,
    "rates": [1, 2, 5],
    "good": True,
    "none": float("inf"),
    "drop": -3,
    "rows": [{"net": "plain", "iou": 0.5, "rates": [1, 2]}, {"net": "hybrid", "iou": None, "rates": [3]}],
}


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Render Markdown in a language; the experiment `gridding` returns RESULT."""
    monkeypatch.setattr(experiment, "RESULTS", tmp_path)
    experiment.save("dilated_convolution", "gridding", RESULT)
    source = tmp_path / "page.md"

    def render(text: str, language: str = "en", preview: bool = False) -> html.HtmlElement:
        source.write_text(text, encoding="utf-8")
        with rendering(PageContext(source, language, "../../", preview)):
            settings = {"pymdownx.arithmatex": {"generic": True}}
            body = markdown.markdown(text, extensions=EXTENSIONS, extension_configs=settings)
        return html.fromstring(f"<div>{body}</div>")

    return render


def value(page, spec: str, language: str = "en") -> str:
    return page(f"{{{{ dilated_convolution.gridding.{spec} }}}}", language).text_content()


@pytest.mark.parametrize(
    ("spec", "english", "chinese"),
    [
        ("share | .1%", "29.0%", "29.0%"),
        ("share", "0.29", "0.29"),
        ("count", "12,345", "12,345"),
        ("rates", "1, 2, 5", "1，2，5"),
        ("good", "yes", "是"),
        ("none", "∞", "∞"),
        ("drop", "−3", "−3"),
        ("rows.0.iou | .2f", "0.50", "0.50"),
    ],
)
def test_values_are_written_as_the_language_writes_them(page, spec, english, chinese):
    assert value(page, spec) == english
    assert value(page, spec, "zh") == chinese


def test_a_value_tells_where_it_comes_from(page):
    span = page("{{ dilated_convolution.gridding.count }}").xpath("//span[@class='value']")[0]
    assert span.get("title") == "Computed at build time: dilated_convolution.gridding.count"


def test_a_value_in_code_is_left_as_it_is_written(page):
    assert "{{ a.b }}" in page("`{{ a.b }}`").text_content()


def test_a_missing_result_is_pending_in_a_preview_and_refused_otherwise(page):
    text = "{{ dilated_convolution.hdc_rule.stacks }}"
    assert page(text, preview=True).xpath("//span[@class='value pending']")
    with pytest.raises(ContentError, match="has not been computed"):
        page(text)


TABLE = """/// table | dilated_convolution.gridding.rows
    columns:
      net: Net
      iou: "IoU | .1%"
      rates: Rates
    labels: {plain: Undilated}

A caption.
///
"""


def test_a_table_takes_headings_and_labels_from_the_page_and_rows_from_the_experiment(page):
    tree = page(TABLE)
    assert [th.text for th in tree.xpath("//th")] == ["Net", "IoU", "Rates"]
    assert [td.text for td in tree.xpath("//td")] == ["Undilated", "50.0%", "1, 2", "hybrid", "–", "3"]
    assert "Table 1" in tree.xpath("//figcaption")[0].text_content()
    assert "A caption." in tree.xpath("//figcaption")[0].text_content()


def test_a_method_is_shown_alone_and_copied_with_its_class(page):
    tree = page("/// snippet | dilated_convolution.ASPP.forward\n///\n")
    block = tree.xpath("//div[@data-snippet='dilated_convolution.ASPP.forward']")[0]
    code = block.xpath(".//pre/code")[0].text_content()
    assert code.startswith("def forward(self, x: Tensor)")
    template = block.xpath(".//template[@data-standalone]")[0].text_content()
    assert "class ASPP(nn.Module):" in template
    assert "import torch\n" in template


def test_the_text_of_a_block_is_the_source_byte_for_byte(page):
    tree = page("/// snippet | dilated_convolution.dilated_conv2d\n///\n")
    assert (
        tree.xpath("//pre/code")[0].text_content()
        == find_snippet("dilated_convolution.dilated_conv2d").source
    )


def test_a_reason_is_said_once_with_every_change_it_explains(page):
    def repeated(name):
        reasons = [survivor["reason"] for survivor in mutants.load()[name]["survivors"]]
        return len(reasons) - len(set(reasons))

    name = max(mutants.load(), key=repeated)
    survivors = mutants.load()[name]["survivors"]
    assert repeated(name) > 0
    items = page(f"/// snippet | {name}\n///\n").xpath("//ul[@class='proof-changes']/li")
    assert sorted(item.xpath("text()")[-1] for item in items) == sorted({each["reason"] for each in survivors})
    shown = [code.text for item in items for code in item.iter("code")]
    changed = [line for each in survivors for line in each["change"].splitlines() if line.startswith("+")]
    assert sorted(line for line in shown if line.startswith("+")) == sorted(changed)


def test_lines_can_be_highlighted(page):
    tree = page("/// snippet | dilated_convolution.effective_kernel_size\n    lines: 1 3-4\n///\n")
    assert len(tree.xpath("//span[@class='hll']")) == 3
    with pytest.raises(ContentError, match="line 99 is asked for"):
        page("/// snippet | dilated_convolution.effective_kernel_size\n    lines: 99\n///\n")


def test_a_formula_is_set_with_mathml_and_keeps_its_source(page):
    tree = page("A sum $\\sum_{i<n} x_i$。\n\n$$y = 1$$\n")
    inline, display = tree.xpath("//*[@data-tex]")
    assert inline.get("data-tex") == "\\sum_{i<n} x_i"
    assert display.get("class") == "formula-display"
    assert tree.xpath("//*[local-name()='math']")
    closed = inline.getparent()
    assert closed.get("class") == "formula-closed", "a line must not begin with a full stop"
    assert inline.tail == "。"


def test_a_term_leads_to_the_glossary(page):
    link = page("[field](term:receptive-field)", "zh").xpath("//a")[0]
    assert link.get("href") == "../../glossary/#receptive-field"
    assert "。" in link.get("title")


def test_errors_are_written_as_powers_of_ten():
    assert error_text(0.0) == "0"
    assert error_text(float("inf")) == "∞"
    assert error_text(float("nan")) == "NaN"
    assert error_text(1.234e-7) == "1.2 × 10⁻⁷"


def test_half_precision_does_not_hide_the_error_of_full_precision():
    seen = [
        {"reference": "a.f", "dtype": "float16", "max_abs": 0.1},
        {"reference": "a.f", "dtype": "float32", "max_abs": 1e-7},
    ]
    assert least_flattering(seen)["dtype"] == "float32"
    assert least_flattering(seen[:1])["dtype"] == "float16"
