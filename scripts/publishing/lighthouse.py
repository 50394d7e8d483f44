"""Lighthouse on the built site: phone, slow network simulated, on this machine."""

from __future__ import annotations

import gzip
import io
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from scripts.pipeline.browser import CHROMIUM, FLAGS, Host, served
from scripts.pipeline.paths import LANGUAGES, ROOT, SITE

PROGRAM = ROOT / "node_modules" / "lighthouse" / "cli" / "index.js"
NODE = Path(sys.executable).with_name("node")
JUDGED = ("accessibility", "best-practices", "seo")
PLACES = ("", "natural-language-processing/transformer/", "notebooks/transformer/", "catalogue/")
PAGES = [f"{language}/{place}" for language in LANGUAGES for place in PLACES]
RUNS = 5


class Compressing(Host):
    """Text goes out compressed, as from any static host."""

    def send_head(self) -> Any:
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        if path.suffix not in (".html", ".css", ".js", ".svg", ".webmanifest") or not path.is_file():
            return super().send_head()
        data = gzip.compress(path.read_bytes(), 6)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        return io.BytesIO(data)


def audit(url: str, *categories: str) -> dict[str, Any]:
    """Lighthouse's report of a page, with these categories only."""
    run = subprocess.run(
        [
            str(NODE),
            str(PROGRAM),
            url,
            "--quiet",
            "--output=json",
            f"--only-categories={','.join(categories)}",
            f"--chrome-flags={' '.join(['--headless=new', *FLAGS])}",
        ],
        env={**os.environ, "CHROME_PATH": str(CHROMIUM)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    report: dict[str, Any] = json.loads(run.stdout)
    return report


def faults(report: dict[str, Any]) -> dict[str, str]:
    """What costs a page points: audit → its title, for the audits that count."""
    counted = [ref["id"] for c in report["categories"].values() for ref in c["auditRefs"] if ref["weight"]]
    audits = {name: report["audits"][name] for name in counted}
    return {name: a["title"] for name, a in audits.items() if a["score"] is not None and a["score"] < 1}


def bench() -> None:
    """Median and range of five runs a page, to be read on a quiet machine."""
    click.echo(f"{'page':<46}{'score':>16}{'LCP, s':>18}{'blocked, ms':>16}{'CLS':>8}")
    with served(SITE, Compressing) as url:
        for page in PAGES:
            reports = [audit(url + page, "performance") for _ in range(RUNS)]
            scores = [100 * r["categories"]["performance"]["score"] for r in reports]
            paints, blocked, shifts = (
                [r["audits"][name]["numericValue"] for r in reports]
                for name in ("largest-contentful-paint", "total-blocking-time", "cumulative-layout-shift")
            )
            click.echo(
                f"{page:<46}{_spread(scores, 1, 0):>16}{_spread(paints, 1000, 2):>18}"
                f"{_spread(blocked, 1, 0):>16}{max(shifts):>8.3f}"
            )


def _spread(values: list[float], unit: float, digits: int) -> str:
    low, middle, high = (value / unit for value in (min(values), statistics.median(values), max(values)))
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"
