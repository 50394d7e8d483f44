"""Style sheets and scripts whose name changes with their content, so that they may be kept forever."""

from __future__ import annotations

import hashlib
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


def fingerprint(folder: Path) -> dict[str, str]:
    """Rename our own assets below `folder` by a hash of their content: old name → new name."""
    renamed = {}
    for name in OURS:
        path = folder / name
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        new = path.with_name(f"{path.name.split('.')[0]}.{digest}{path.suffix}")
        path.rename(new)
        renamed[name] = new.relative_to(folder).as_posix()
    return renamed


def relinked(html: str, renamed: dict[str, str]) -> str:
    """The page asking for the new names."""

    def change(tag: Tag, text: str) -> str:
        if tag.name in ("link", "script"):
            for old, new in renamed.items():
                text = text.replace(f'{old}"', f'{new}"')
        return text

    return retag(html, change)
