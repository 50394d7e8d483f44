"""What a fresh machine is told when something is missing: one clear line."""

from __future__ import annotations

import re
import socket
import subprocess
import sys

import pytest

from scripts import set_up
from scripts.pipeline.paths import ROOT


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ("...\nOSError: [Errno 28] No space left on device\n", "the disk is full"),
        ("NewConnectionError: Temporary failure in name resolution", "no network"),
        (
            "ERROR: No matching distribution found for torch==9",
            "ERROR: No matching distribution found for torch==9",
        ),
    ],
)
def test_pip_is_explained_in_one_line(log, told):
    assert told in set_up.explain(log)
    assert "\n" not in set_up.explain(log)


def test_an_old_python_is_named(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 0))
    with pytest.raises(SystemExit, match=r"Python 3\.11 or newer is needed"):
        set_up.main(".venv")


def test_a_full_disk_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(set_up.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2**20}))
    with pytest.raises(SystemExit, match=r"4 GB of free disk are needed, there are 0\.0"):
        set_up.main(str(tmp_path / "venv"))


def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = subprocess.run(
            [sys.executable, "-m", "scripts.pipeline", "serve", "--port", str(port)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert run.returncode == 1
    assert (
        run.stderr
        == f"Error: make serve: port {port} is in use — stop what uses it, or: make serve PORT={port + 1}\n"
    )


def test_every_requirement_is_pinned_to_one_version():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins), pins
    named = {
        re.split(r"[=\[]", line)[0].lower()
        for line in (ROOT / "requirements.in").read_text().splitlines()
        if line and not line.startswith("#")
    }
    assert named <= {pin.split("==")[0].lower() for pin in pins}
