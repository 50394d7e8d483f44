"""Make the virtual environment from pinned requirements; every failure is one clear line.

Standard library only, and old syntax only: it has to run on any Python to say that it is too old.
"""

import os
import shutil
import subprocess
import sys
import time

NEEDED = (3, 11)
GIGABYTES = 4  # torch, the site tools and room for results


def fail(message):
    sys.exit("set-up: " + message)


def explain(log):
    """One line out of the many of pip or npm."""
    text = log.lower()
    if "no space left" in text:
        return "the disk is full"
    if any(
        word in text
        for word in (
            "name or service not known",
            "temporary failure in name resolution",
            "connection refused",
            "network is unreachable",
            "max retries",
        )
    ):
        return "no network: the package index cannot be reached"
    lines = [line for line in log.splitlines() if line.startswith(("ERROR", "npm error"))]
    return lines[-1] if lines else (log.strip().splitlines() or ["the installer failed"])[-1]


def main(target):
    if sys.version_info < NEEDED:
        fail(
            "Python %d.%d or newer is needed, this is %s; try: make PYTHON=python3.11"
            % (*NEEDED, sys.version.split()[0])
        )
    if os.name == "nt":
        fail("Windows needs WSL: the tools expect a POSIX system")
    free = shutil.disk_usage(os.path.dirname(os.path.abspath(target)) or ".").free / 2**30
    if free < GIGABYTES:
        fail("%d GB of free disk are needed, there are %.1f" % (GIGABYTES, free))
    started = time.time()
    print("set-up: making %s from requirements.txt (a few minutes, once)" % target, flush=True)
    steps = [
        [sys.executable, "-m", "venv", target],
        [os.path.join(target, "bin", "pip"), "install", "--quiet", "--requirement", "requirements.txt"],
        [
            os.path.join(target, "bin", "pip"),
            "install",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--editable",
            ".",
        ],
        [
            os.path.join(target, "bin", "npm"),
            "ci",
            "--silent",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
        ],
    ]
    path = os.path.join(os.path.abspath(target), "bin") + os.pathsep + os.environ.get("PATH", "")
    for number, step in enumerate(steps, 1):
        run = subprocess.run(
            step,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=dict(os.environ, PATH=path),  # npm looks for its node there
        )
        if run.returncode:
            fail(explain(run.stdout))
        print("set-up: step %d of %d done, %.0f s" % (number, len(steps), time.time() - started), flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ".venv")
