"""Style sheets and scripts whose name changes with their content, so that they may be kept forever."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from scripts.publishing.tags import Tag, retag

OURS = ("assets/site.css", "assets/site.js", "assets/katex/katex.min.css")
HASHED = (
    "assets/site.*.css",
    "assets/site.*.js",
    "assets/katex/katex.*.css",
    "assets/javascripts/bundle.*.js",
    "assets/stylesheets/*.css",
)

# What the theme brings for features that this site does not use.
UNUSED = ("assets/javascripts/lunr", "assets/javascripts/workers", "assets/images", "**/*.map")


def remove_unused(folder: Path) -> None:
    for pattern in UNUSED:
        for path in list(folder.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def fingerprint(folder: Path) -> dict[str, str]:
    """Rename our own assets below `folder` by a hash of their content: old name → new name."""
    renamed = {}
    for name in OURS:
        path = folder / name
        new = path.with_name(f"{path.name.split('.')[0]}.{digest(path)}{path.suffix}")
        path.rename(new)
        renamed[name] = new.relative_to(folder).as_posix()
    return renamed


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


def relinked(html: str, renamed: dict[str, str]) -> str:
    """The page asking for the new names."""

    def change(tag: Tag, text: str) -> str:
        if tag.name in ("link", "script"):
            for old, new in renamed.items():
                text = text.replace(f'{old}"', f'{new}"')
        return text

    return retag(html, change)
