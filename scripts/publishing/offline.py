"""The book without a network: a service worker a language, and an archive that works from a folder."""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
import shutil
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

from scripts.pipeline.paths import SITE, writing
from scripts.pipeline.words import say
from scripts.publishing.card import icon
from scripts.publishing.tags import Tag, retag

WORKER = Path(__file__).with_name("worker.js")
READ = {".html", ".css", ".js", ".svg", ".woff2", ".png", ".webmanifest"}
ICONS = (192, 512)


def write_worker(folder: Path, language: str) -> None:
    """The service worker of a language's site, which names every file a reader of it may see."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix in READ):
        name = path.relative_to(folder).as_posix()
        if not name.startswith("cards/"):  # those are for other sites
            files[name] = base64.b64encode(hashlib.sha256(path.read_bytes()).digest()).decode()
    listed = json.dumps(files, separators=(",", ":"), ensure_ascii=False)
    version = hashlib.sha256(listed.encode()).hexdigest()[:12]
    text = WORKER.read_text(encoding="utf-8").replace("__LANGUAGE__", language)
    writing(folder / "worker.js", text.replace("__VERSION__", version).replace("__FILES__", listed))


def write_manifest(folder: Path, language: str) -> None:
    """What a browser needs to install the site as an application."""
    name = say("site_name", language)
    manifest = {
        "name": name,
        "short_name": name,
        "lang": language,
        "start_url": "./",
        "scope": "./",
        "display": "minimal-ui",
        "background_color": "#ffffff",
        "theme_color": "#0b3a5b",
        "icons": [
            {"src": f"assets/icon-{size}.png", "sizes": f"{size}x{size}", "type": "image/png"}
            for size in ICONS
        ],
    }
    for size in ICONS:
        writing(folder / "assets" / f"icon-{size}.png", icon(size))
    writing(folder / "site.webmanifest", json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")


def archive(target: Path) -> None:
    """Pack `site/` as a zip whose pages open from a folder: a file system serves no `index.html` by itself.

    Args:
        target: the zip to write; the same bytes for the same site.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_suffix(".part")
    with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(p for p in SITE.rglob("*") if p.is_file() and p.name != "worker.js"):
            name = path.relative_to(SITE).as_posix()
            data = path.read_bytes()
            if path.suffix == ".html":
                data = from_a_folder(data.decode(), name).encode()
            packed.writestr(
                zipfile.ZipInfo(f"proven-dl/{name}", (2020, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED
            )
    shutil.move(aside, target)


def from_a_folder(html: str, name: str) -> str:
    """The page with each link to a folder leading to the `index.html` in it, and no absolute path.

    Args:
        html: a page of `site/`.
        name: its path below `site/`.
    """

    def change(tag: Tag, text: str) -> str:
        for key in ("href", "src", "action"):
            address = tag.attributes.get(key)
            if address is None or (tag.name == "link" and "canonical" in (tag.attributes.get("rel") or "")):
                continue
            parts = urlsplit(address)
            if parts.scheme or parts.netloc or not parts.path:
                continue
            path = parts.path
            if path.startswith("/"):
                path = posixpath.relpath(path.lstrip("/") or ".", posixpath.dirname(name) or ".")
                path += "/" if parts.path.endswith("/") else ""
            if path.endswith("/") or posixpath.basename(path) in (".", ".."):
                path = f"{path.rstrip('/')}/index.html"
            text = text.replace(f'{key}="{address}"', f'{key}="{parts._replace(path=path).geturl()}"', 1)
        return text

    return retag(html, change)
