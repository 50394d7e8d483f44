"""What a page tells machines of itself: JSON-LD, how to cite it, when it changed, how long it takes to read."""

from __future__ import annotations

import json
import re
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

from scripts.pipeline.pages import Page, article, pages, shelves
from scripts.pipeline.paths import ROOT
from scripts.pipeline.words import say

LICENCE = "https://creativecommons.org/licenses/by/4.0/"
CHARACTERS_A_MINUTE, WORDS_A_MINUTE = 350, 200  # technical text, read to be understood


@lru_cache(maxsize=1024)
def changed(path: Path) -> str | None:
    """The day of the last commit that changed a file (YYYY-MM-DD); None outside a repository."""
    git = ["git", "log", "-1", "--format=%cs", "--", str(path)]
    run = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    return run.stdout.strip() or None


def minutes(page: Page) -> int:
    """Minutes to read a page's prose, at the pace of technical text in its language."""
    text = re.sub(r"\$\$?.+?\$\$?|\]\([^)]*\)|\{[^}]*\}", " ", "\n".join(t for _, t in page.running_text()))
    characters = len(re.findall(r"[\u4e00-\u9fff]", text))
    words = len(re.findall(r"[A-Za-z][\w'-]*", text))
    return max(1, round(characters / CHARACTERS_A_MINUTE + words / WORDS_A_MINUTE))


def json_ld(page: Page, url: str, image: str) -> dict[str, Any]:
    """schema.org's description of a page.

    Args:
        page: the page.
        url: its canonical address.
        image: the address of its picture.
    """
    data: dict[str, Any] = {
        "@context": "https://schema.org",
        "@type": "TechArticle" if page.topic else "WebPage",
        "headline": page.title,
        "description": page.meta.get("description", ""),
        "inLanguage": page.language,
        "url": url,
        "image": image,
        "license": LICENCE,
        "isAccessibleForFree": True,
        "author": {"@type": "Organization", "name": "Proven DL"},
        "isPartOf": {"@type": "WebSite", "name": say("site_name", page.language)},
    }
    if day := changed(page.path):
        data["dateModified"] = day
    if page.topic:
        data["keywords"] = page.meta["aliases"][page.language]
        data["citation"] = page.meta["paper"]
        data["timeRequired"] = f"PT{minutes(page)}M"
    return data


def bibtex(page: Page, url: str) -> str:
    """A BibTeX entry for an article."""
    day = changed(page.path) or ""
    year, _, month = day[:7].partition("-")
    fields = {
        "author": "{Proven DL}",
        "title": f"{{{page.title}}}",
        "year": year,
        "month": month.lstrip("0"),
        "url": url,
        "language": {"zh": "chinese", "en": "english"}[page.language],
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return f"@online{{proven-dl-{page.path.stem}-{page.language},\n" + "\n".join(lines) + "\n}"


def gb_t_7714(page: Page, url: str) -> tuple[str, str]:
    """A reference by GB/T 7714-2015, section 8.8 (electronic resources), in two parts: between them
    stands the day of access, which only the reader's browser knows.
    """
    day = changed(page.path)
    return f"Proven DL. {page.title}[EB/OL]. " + (f"({day})" if day else ""), f". {url}."


def neighbours(page: Page) -> tuple[list[Page], list[Page]]:
    """What a reader needs before an article, and where it leads: the articles that need it, or else the
    next one that needs nothing unread.
    """
    if not page.topic:
        return [], []
    first = [found for topic in page.meta["prerequisites"] if (found := article(topic, page.language))]
    order = [other for shelf in shelves(page.language).values() for other in shelf]
    then = [other for other in order if page.topic in other.meta["prerequisites"]]
    if not then and page in order:
        at = order.index(page)
        known = {page.topic, *page.meta["prerequisites"]}
        rest = (other for other in order[at + 1 :] + order[:at] if other.topic not in known)
        then = [other for other in rest if known.issuperset(other.meta["prerequisites"])][:1]
    return first, then


def about(rendered: Any, language: str, root: str) -> dict[str, Any] | None:
    """Everything the theme says of a page of `docs/`; None for other pages, such as notebooks.

    Args:
        rendered: MkDocs' page.
        language: the language of its site.
        root: the address of the whole site, without a slash at the end.
    """
    name = rendered.file.src_uri.removesuffix(".md")
    page = next((p for p in pages(language) if p.name == name), None)
    if page is None:
        return None
    address, image = f"{root}/{language}/{page.url}", f"{root}/{language}/cards/{page.name}.png"
    first, then = neighbours(page)
    return {
        "topic": page.topic,
        "title": page.title,
        "description": page.meta.get("description", ""),
        "address": address,
        "image": image,
        "changed": changed(page.path),
        "minutes": minutes(page),
        "first": first,
        "then": then,
        "bibtex": bibtex(page, address),
        "gb_t_7714": gb_t_7714(page, address),
        # "</script>" must not end the element that holds this.
        "json_ld": json.dumps(json_ld(page, address, image), ensure_ascii=False).replace("</", "<\\/"),
    }
