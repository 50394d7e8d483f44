"""The picture that other sites show beside a link to a page, in the page's language."""

from __future__ import annotations

import io
import re
import unicodedata
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from scripts.pipeline.figure import font_file
from scripts.pipeline.pages import Page
from scripts.pipeline.paths import BUILD, writing
from scripts.pipeline.words import say

CARDS = BUILD / "cards"
SIZE = (1200, 630)  # what Open Graph's consumers crop to
MARGIN = 80
GROUND, INK, MUTED, ACCENT = "#0b3a5b", "#ffffff", "#c3d4e2", "#3fd0a4"


def card_path(page: Page) -> Path:
    return CARDS / page.language / f"{page.name}.png"


def draw(page: Page) -> None:
    """Draw a page's picture and keep it; the same bytes each time."""
    picture = Image.new("RGB", SIZE, GROUND)
    pen = ImageDraw.Draw(picture)
    width = SIZE[0] - 2 * MARGIN
    pen.rectangle((0, 0, 16, SIZE[1]), fill=ACCENT)
    pen.text((MARGIN, 70), say("site_name", page.language), font=_font(34), fill=ACCENT)
    y = 150
    for line in wrap(page.title, _font(72), width)[:2]:
        pen.text((MARGIN, y), line, font=_font(72), fill=INK)
        y += 96
    y += 20
    lines = wrap(str(page.meta.get("description", "")), _font(34), width)
    room = (SIZE[1] - 60 - y) // 50
    for line in lines[: room - 1] + [
        line if len(lines) <= room else line.rstrip(" ,，。.;；") + "…" for line in lines[room - 1 : room]
    ]:
        pen.text((MARGIN, y), line, font=_font(34), fill=MUTED)
        y += 50
    buffer = io.BytesIO()
    picture.quantize(32).save(buffer, format="PNG", optimize=True)
    writing(card_path(page), buffer.getvalue())


def wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines of at most `width` pixels: broken between words, and between Chinese characters, but never
    before closing punctuation.
    """
    lines, line = [], ""
    for part in _unbreakable(text):
        if line and font.getlength((line + part).rstrip()) > width:
            lines.append(line.rstrip())
            line = part.lstrip()
        else:
            line += part
    return [*lines, line.rstrip()] if line.strip() else lines


def _unbreakable(text: str) -> list[str]:
    parts: list[str] = []
    for piece in re.findall(r"[\u2e80-\u9fff\uff00-\uffef]|[^\s\u2e80-\u9fff\uff00-\uffef]+\s*|\s+", text):
        if parts and unicodedata.category(piece[0]) in ("Pe", "Pf", "Po"):
            parts[-1] += piece
        else:
            parts.append(piece)
    return parts


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_file(), size)


def icon(size: int) -> bytes:
    """The site's sign, as `docs/assets/favicon.svg` draws it, as PNG with the room that round icons need."""
    grain = 4  # drawn larger, then smoothed
    unit = size * grain / 32
    picture = Image.new("RGB", (size * grain, size * grain), "#0067a5")
    pen = ImageDraw.Draw(picture)
    points = [(8 * unit, 17 * unit), (13.5 * unit, 22.5 * unit), (24 * unit, 11 * unit)]
    pen.line(points, fill=INK, width=round(4 * unit), joint="curve")
    for x, y in (points[0], points[-1]):
        pen.ellipse((x - 2 * unit, y - 2 * unit, x + 2 * unit, y + 2 * unit), fill=INK)
    buffer = io.BytesIO()
    picture.resize((size, size), Image.Resampling.LANCZOS).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
