"""`python -m scripts.pipeline COMMAND`: what the Makefile calls."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

# Waiting threads that spin starve the other worker on a small machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

from scripts.pipeline import (
    bench_build,
    benchmark,
    benchmark_gpu,
    check,
    mutants,
    serving,
    site,
    tasks,
    topic_template,
    translations,
)
from scripts.pipeline.paths import ARCHIVE, BUILD, SITE, relative
from scripts.publishing import offline


@contextmanager
def alone() -> Iterator[None]:
    """One pipeline at a time: a second one waits and says so."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            click.echo("waiting for another build to finish")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command(help="Make everything and publish it to site/.")
def build() -> None:
    with alone():
        site.build()


@main.command("zip", help="Pack site/ so that it opens from a folder.")
def pack() -> None:
    with alone():
        offline.archive(ARCHIVE)
        click.echo(f"{relative(ARCHIVE)}: {ARCHIVE.stat().st_size / 1e6:.1f} MB")


@main.command(help="Serve both languages with live reload; long work goes on behind.")
@click.option("--port", default=8000, show_default=True)
def serve(port: int) -> None:
    serving.serve(port)


@main.command(help="Bring results up to date: experiment, figure, notebook, evidence; all if none is named.")
@click.argument("selected", nargs=-1)
@click.option("--keep-going", is_flag=True, help="Go on after a failure.")
@click.option("--always", is_flag=True, help="Do the work even where nothing has changed.")
def update(selected: tuple[str, ...], keep_going: bool, always: bool) -> None:
    with alone():
        if not tasks.run(*selected, keep_going=keep_going, always=always):
            sys.exit(1)


@main.command(name="check", help="Check pages, snippets' places and translations, without building.")
def check_() -> None:
    if faults := check.faults():
        raise site.Refused([fault.message for fault in faults])


@main.command(name="mutants", help="Plant bugs in the snippets that changed, and tell which no test notices.")
def mutants_() -> None:
    if faults := mutants.run():
        raise site.Refused([fault.message for fault in faults])


@main.command(help="Record that a section is in step again though only one language changed.")
@click.argument("section", required=False)
def confirm(section: str | None) -> None:
    for recorded in translations.refresh(section):
        click.echo(f"recorded: {recorded}")


@main.command(name="new-topic", help="Scaffold every file of a topic.")
@click.argument("name")
@click.option("--category", default="computer-vision", show_default=True)
def new_topic(name: str, category: str) -> None:
    for path in topic_template.scaffold(name, category):
        click.echo(f"wrote {path}")


@main.command(help="Race snippets against their references: the topics or snippets named, or all.")
@click.argument("wanted", nargs=-1)
def bench(wanted: tuple[str, ...]) -> None:
    benchmark.run(*wanted)


@main.command(name="bench-gpu", help="Absolute times of the races on a CUDA device: of the topics named, or all.")
@click.argument("wanted", nargs=-1)
def bench_gpu(wanted: tuple[str, ...]) -> None:
    benchmark_gpu.run(*wanted)


@main.command(name="bench-build", help="Time builds beside a plain one, and tell what each redoes.")
def bench_build_() -> None:
    bench_build.run()


@main.command(name="bench-search", help="Measure search in a browser, against Material's and Pagefind's.")
def bench_search() -> None:
    from scripts.search import bench  # needs the browser's driver, which nothing else here does

    bench.run()


@main.command(name="bench-pages", help="Lighthouse's performance of the built site, median of five runs.")
def bench_pages() -> None:
    from scripts.publishing import lighthouse

    lighthouse.bench()


@main.command(help="Remove everything that was generated.")
def clean() -> None:
    for path in (BUILD, SITE):
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    main(prog_name="python -m scripts.pipeline")
