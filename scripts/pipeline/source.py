"""What a name needs: definitions and their closures, read from the syntax tree, nothing imported.

One idea serves the whole house: from a function, follow every name it uses to the definition of
that name. Written out, the closure of a snippet is its stand-alone form; hashed, the closure of an
experiment says when it has to run again.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import platform
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from scripts.pipeline import gates, java
from scripts.pipeline.paths import ROOT, SNIPPETS, ContentError, topics
from scripts.pipeline.snippet import Snippet

PROJECT_PACKAGES = ("snippets", "scripts")
DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Module:
    """A parsed module of this project."""

    name: str
    path: Path
    text: str
    tree: ast.Module = field(repr=False, compare=False)

    @cached_property
    def definitions(self) -> dict[str, ast.stmt]:
        """Top-level functions, classes and constants by name, in source order."""
        found: dict[str, ast.stmt] = {}
        for node in self.tree.body:
            if isinstance(node, DOCUMENTED):
                found[node.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    for leaf in ast.walk(target):
                        if isinstance(leaf, ast.Name):
                            found[leaf.id] = node
        return found

    @cached_property
    def imports(self) -> dict[str, tuple[ast.Import | ast.ImportFrom, ast.alias]]:
        """Top-level imports by the name they bind."""
        return {
            (alias.asname or alias.name.split(".")[0]): (node, alias)
            for node in self.tree.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
            if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
        }

    @property
    def public(self) -> list[str]:
        return [name for name in self.definitions if not name.startswith("_")]

    def find(self, qualified: str) -> ast.stmt | None:
        """The definition of `name` or `Class.method`."""
        first, _, rest = qualified.partition(".")
        node = self.definitions.get(first)
        if not rest:
            return node
        body = node.body if isinstance(node, ast.ClassDef) else []
        methods = (n for n in body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
        return next((n for n in methods if n.name == rest), None)

    def lines(self, node: ast.stmt) -> tuple[int, int]:
        """First and last line of a definition, decorators included."""
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(d.lineno for d in decorators)])
        return first, node.end_lineno or node.lineno

    def source(self, node: ast.stmt) -> str:
        first, last = self.lines(node)
        return "\n".join(self.text.splitlines()[first - 1 : last]) + "\n"


def read_module(path: Path) -> Module:
    """Parse a module of the project; the parse is remembered until the file changes."""
    try:
        changed = path.stat()
    except FileNotFoundError:
        raise ContentError(path, "this module does not exist", "create it") from None
    return _parse(path, changed.st_mtime_ns, changed.st_size)


@lru_cache(maxsize=256)
def _parse(path: Path, changed: int, size: int) -> Module:
    text = path.read_text(encoding="utf-8")
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts) if path.is_relative_to(ROOT) else path.stem
    try:
        tree = ast.parse(text, str(path))
    except SyntaxError as error:
        raise ContentError(path, f"syntax error: {error.msg}", "mend it", error.lineno) from None
    return Module(name.removesuffix(".__init__"), path, text, tree)


def _project_path(dotted: str | None) -> Path | None:
    if not dotted or dotted.split(".")[0] not in PROJECT_PACKAGES:
        return None
    stem = ROOT.joinpath(*dotted.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.is_file():
            return path
    return None


@lru_cache(maxsize=4096)  # one helper is behind dozens of results
def _names(node: ast.AST) -> frozenset[str]:
    return frozenset(leaf.id for leaf in ast.walk(node) if isinstance(leaf, ast.Name))


Symbol = tuple[Path, str]


def closure(start: Iterable[Symbol], follow_imports: bool = True) -> list[Symbol]:
    """Every definition that `start` needs, transitively, over all modules of the project."""
    seen: dict[Symbol, None] = {}
    modules: dict[Path, Module] = {}  # as they are now; each look at the file would cost time
    waiting = list(start)
    while waiting:
        path, name = waiting.pop()
        if (path, name) in seen:
            continue
        module = modules.get(path) or modules.setdefault(path, read_module(path))
        if name in module.definitions:
            seen[path, name] = None
            waiting += [(path, used) for used in sorted(_names(module.definitions[name]))]
        elif name in module.imports and follow_imports:
            waiting += _behind_import(*module.imports[name])
    return list(seen)


def _behind_import(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> Iterator[Symbol]:
    if isinstance(node, ast.ImportFrom):
        if whole := _project_path(f"{node.module}.{alias.name}"):
            yield from _whole(whole)
        elif origin := _project_path(node.module):
            yield origin, alias.name
    elif whole := _project_path(alias.name):
        yield from _whole(whole)


def _whole(path: Path) -> Iterator[Symbol]:
    return ((path, name) for name in read_module(path).definitions)


def behaviour_hash(start: Iterable[Symbol], *extra: object, follow_imports: bool = True) -> str:
    """Hash of all code reachable from `start`; comments and docstrings do not count."""
    parts = [repr(extra)]
    for path, name in sorted(closure(start, follow_imports)):
        parts.append(f"{path.relative_to(ROOT)}:{name}")
        parts.append(_without_docstrings(read_module(path).definitions[name]))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@lru_cache(maxsize=2048)
def _without_docstrings(node: ast.stmt) -> str:
    return behaviour(ast.unparse(node))


def behaviour(text: str) -> str:
    """The syntax tree of a source, without the docstrings of its functions and classes."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


@lru_cache(maxsize=1024)  # pages, catalogues and evidence all ask for it
def stand_alone(module: Module, *names: str) -> str:
    """Source that runs without this project: the imports and helpers that `names` need, no more."""
    needed = {name for _, name in closure(((module.path, n) for n in names), follow_imports=False)}
    nodes = list(dict.fromkeys(n for name, n in module.definitions.items() if name in needed))
    used = set().union(*(_names(node) for node in nodes)) if nodes else set()
    blocks = [module.source(node) for node in nodes]
    imports = _import_lines(module, used)
    return "\n\n".join(([imports] if imports else []) + blocks)


def _import_lines(module: Module, used: set[str]) -> str:
    """The module's imports cut down to the names in `used`, with its blank lines between groups."""
    out: list[str] = []
    previous = None
    for node in module.tree.body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            kept = node.names
        else:
            kept = [a for a in node.names if (a.asname or a.name.split(".")[0]) in used]
        if kept:
            if previous is not None and _gap(module, previous, node):
                out.append("")
            slim = (
                ast.Import(kept)
                if isinstance(node, ast.Import)
                else (ast.ImportFrom(node.module, kept, node.level))
            )
            out.append(ast.unparse(slim))
            previous = node
    return "\n".join(out) + "\n" if out else ""


def _gap(module: Module, before: ast.stmt, after: ast.stmt) -> bool:
    between = module.text.splitlines()[before.end_lineno or 0 : after.lineno - 1]
    return any(not line.strip() for line in between)


@dataclass(frozen=True)
class PythonSnippet(Snippet):
    """A definition of a topic's module: `topic.name` or `topic.Class.method`."""

    language = "python"
    planted_by_hand = False
    stands_in = "module"
    copies = ("snippet", "standalone")

    module: Module = field(repr=False)
    node: ast.stmt = field(repr=False, compare=False)

    @property
    def toolchain(self) -> str:
        return f"Python {platform.python_version()}"

    @property
    def path(self) -> Path:
        return self.module.path

    @property
    def lines(self) -> tuple[int, int]:
        return self.module.lines(self.node)

    @property
    def source(self) -> str:
        return textwrap.dedent(self.module.source(self.node))

    @cached_property
    def stand_alone(self) -> str:
        return stand_alone(self.module, self.owner)

    @property
    def signature(self) -> str:
        node = self.node
        if isinstance(node, ast.ClassDef):
            init = self.module.find(f"{self.name}.__init__")
            args = ast.unparse(init.args) if isinstance(init, ast.FunctionDef) else ""
            return f"{node.name}({args.removeprefix('self').removeprefix(', ')})"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            return f"{node.name}({ast.unparse(node.args)}){returns}"
        return self.name

    @property
    def docstring(self) -> str:
        node = self.node
        return (ast.get_docstring(node) or "") if isinstance(node, DOCUMENTED) else ""

    @property
    def calls(self) -> set[str]:
        called = (node.func for node in ast.walk(ast.parse(self.stand_alone)) if isinstance(node, ast.Call))
        return {f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "") for f in called}

    def hollow(self) -> AbstractContextManager[None]:
        return gates.hollow(importlib.import_module(self.module.name), self.owner)


def files_of(topic: str) -> list[Path]:
    """The files of code that readers can take from a topic, its module first."""
    return [SNIPPETS / f"{topic}.py", *(snippet.path for snippet in java.snippets_of(topic))]


def snippets_of(topic: str) -> list[Snippet]:
    """All public snippets of a topic, in source order, Java after Python."""
    module = read_module(SNIPPETS / f"{topic}.py")
    python = [PythonSnippet(topic, name, module, module.definitions[name]) for name in module.public]
    return [*python, *java.snippets_of(topic)]


def all_snippets() -> dict[str, Snippet]:
    return {s.qualified: s for topic in topics() for s in snippets_of(topic)}


def find_snippet(qualified: str) -> Snippet | None:
    """A snippet by `topic.name` or, in Python, `topic.Class.method`; None if there is none."""
    topic, _, name = qualified.partition(".")
    path = SNIPPETS / f"{topic}.py"
    if not path.is_file() or not name or name.startswith("_"):
        return None
    module = read_module(path)
    if (node := module.find(name)) is not None:
        return PythonSnippet(topic, name, module, node)
    return next((snippet for snippet in java.snippets_of(topic) if snippet.name == name), None)


def decorated(path: Path, decorator: str) -> list[ast.FunctionDef]:
    """Top-level functions of a module that carry `@decorator`."""
    if not path.is_file():
        return []
    return [
        node
        for node in read_module(path).definitions.values()
        if isinstance(node, ast.FunctionDef) and any(decorator in _names(d) for d in node.decorator_list)
    ]
