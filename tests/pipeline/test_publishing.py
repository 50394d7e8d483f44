"""What publishing leaves out of a site: rules, fonts and text that no reader would miss."""

from __future__ import annotations

import io
from html import unescape
from pathlib import Path

import pytest
from fontTools.ttLib import TTFont
from lxml import html

from scripts.pipeline.paths import DOCS
from scripts.publishing import copies, fonts, styles

MAIN = DOCS / "assets" / "katex" / "fonts" / "KaTeX_Main-Regular.woff2"


@pytest.mark.parametrize(
    ("sheet", "kept"),
    [
        (".a{top:0}", ".a {top:0;}"),
        (".b{top:0}", ""),
        (".a,.b .a,#b{top:0}", ".a {top:0;}"),
        (".a:not(.b){top:0}", ".a:not(.b) {top:0;}"),
        ("#i>[dir=rtl]{top:0}", ""),
        ('#i [rel~="x"],p{top:0}', '#i [rel~="x"],p {top:0;}'),
        ('[href^="b"]{top:0}', '[href^="b"] {top:0;}'),
        ("@media print{.b{top:0}}", ""),
        ("@media print{.a{top:0}.b{top:0}}", "@media print {.a {top:0;}}"),
        (":root{--x:1;--y:var(--x)}p{top:var(--y)}", ":root {--x:1;--y:var(--x);} p {top:var(--y);}"),
        (":root{--x:1;--y:var(--x)}", ""),
        ("@keyframes k{to{top:0}}p{animation:k 1s}", "@keyframes k{to{top:0}} p {animation:k 1s;}"),
        ("@keyframes k{to{top:0}}p{animation:none}", "p {animation:none;}"),
        ("@page{margin:1mm}/* gone */", "@page{margin:1mm}"),
        ("p{background:url('data:x;{}')}", "p {background:url('data:x;{}');}"),
    ],
)
def test_a_style_sheet_keeps_what_a_page_can_use(sheet, kept):
    def bare(text):
        return "".join(text.split()).replace('"', "'")

    assert bare(styles.purged(sheet, {"p", "a", "i", "x"})) == bare(kept)


def test_what_a_page_can_use_is_every_class_id_and_value():
    page = '<p class="a b" id=c><i data-x="d e" hidden>f</i>'
    assert styles.words_of(page) == {"p", "i", "a", "b", "a b", "c", "d", "e", "d e"}
    assert {"md-top", "hidden"} <= styles.words_in_script("x.classList.add('md-top'); x.hidden = 1")


@pytest.mark.parametrize(
    ("address", "moved"),
    [
        ("url(a.woff2)", "url(k/l/a.woff2)"),
        ('url("a.woff2")', 'url("k/l/a.woff2")'),
        ('url("data:x")', 'url("data:x")'),
        ("url(data:x)", "url(data:x)"),
        ("url('#a')", "url('#a')"),
        ("url(/a)", "url(/a)"),
        ("url(x://a)", "url(x://a)"),
    ],
)
def test_addresses_in_a_style_sheet_move_with_it(address, moved):
    assert styles.moved(f"p{{background:{address}}}", Path("k/l")) == f"p{{background:{moved}}}"


def test_a_font_holds_the_signs_asked_for_and_is_the_same_each_time():
    data = fonts.subset(MAIN, {"a", "∑", "1"})
    face = TTFont(io.BytesIO(data))
    assert set(face.getBestCmap()) == {ord("a"), ord("1")} | ({ord("∑")} & set(TTFont(MAIN).getBestCmap()))
    assert data == fonts.subset(MAIN, ["1", "∑", "a"])
    assert len(data) < MAIN.stat().st_size / 10


def test_fonts_are_cut_to_what_formulas_draw_in_them(tmp_path):
    sheet = (
        "@font-face{font-family:KaTeX_Main;font-style:normal;font-weight:400;src:url(main.woff2) format('woff2')}\n"
        "@font-face{font-family:KaTeX_Main;font-style:normal;font-weight:700;src:url(bold.woff2)}\n"
        "@font-face{font-family:KaTeX_Math;font-style:italic;font-weight:400;src:url(math.woff2)}\n"
        ".katex{font:normal 1.21em KaTeX_Main,serif}\n.katex .v{font-family:KaTeX_Math;font-style:italic}\n"
    )
    for name in ("main", "bold", "math"):
        (tmp_path / f"{name}.woff2").write_bytes(MAIN.read_bytes())
    page = (
        '<p>z<span class="katex"><span class="katex-mathml">y</span>'
        '<span class="katex-html">1<span class="v">b<i>c</i></span>2</span></span></p>'
    )
    light = fonts.lighten(tmp_path, sheet, [page, "<p>no formula</p>"])
    assert light.count("@font-face") == 2
    assert "bold" not in light
    held = {path.name.split(".")[0]: TTFont(path).getBestCmap() for path in (tmp_path / "fonts").iterdir()}
    assert {name: "".join(map(chr, signs)) for name, signs in held.items()} == {"main": "12", "math": "bc"}
    assert all(f"url(fonts/{path.name})" in light for path in (tmp_path / "fonts").iterdir())


def test_stand_alone_forms_name_what_the_page_shows():
    def snippet(name, shown, form):
        return (
            f'<div class="snippet" data-snippet="t.{name}" id="code-{name}"><div class="highlight"><pre tabindex="0">'
            f"<code><span>{shown}</span>\n</code></pre></div><template data-standalone>{form}\n</template></div>"
        )

    gap = copies.GAP
    page = (
        "<article>"
        + snippet("a", "def a(): 1 &lt; 2", f"import x{gap}def _h(): 0{gap}def a(): 1 &lt; 2")
        + snippet("b", "def b(): 3", f"import x{gap}def a(): 1 &lt; 2{gap}def _h(): 0{gap}def _g(): 9{gap}def b(): 3")
        + "</article>"
    )
    packed = copies.packed(page)
    assert packed.count("def _h") == packed.count("import x") == packed.count("def b") == packed.count("def _g") == 1
    assert packed.count("def a") == 1
    tree = html.fromstring(packed)
    (shared,) = tree.xpath("//template[@data-parts]")
    for before, after in zip(html.fromstring(page).xpath("//template"), tree.xpath("//template[@data-standalone]"), strict=True):
        text = after.text or ""
        for part in after:
            if place := part.get("data-part"):
                text += shared[int(place)].text
            else:
                (code,) = tree.xpath(f"//div[@id='{part.get('data-shown')}']//code")
                text += code.text_content().removesuffix("\n")
            text += part.tail or ""
        assert text == before.text_content()
    assert unescape(packed).count("1 < 2") == 1


def test_a_page_that_repeats_nothing_stays_as_it_is():
    page = "<article><p>x</p></article>"
    assert copies.packed(page) == page
