"""What the copy buttons yield, taken from the clipboard of a real browser."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from typing import Any

import pytest

from scripts.pipeline import java
from scripts.pipeline.pages import pages
from scripts.pipeline.paths import LANGUAGES
from scripts.pipeline.source import find_snippet

pytestmark = pytest.mark.browser

ARTICLE = "computer-vision/dilated-convolution/"
COPIES = ("snippet", "standalone")

# Presses every button of a page: what lies on the clipboard once it says that it has copied, by snippet and kind.
PRESS_ALL = """async (kinds) => {
  const status = document.getElementById("site-status"), found = {};
  for (const block of document.querySelectorAll(".snippet")) {
    const texts = found[block.dataset.snippet] = {};
    for (const kind of kinds) {
      const button = block.querySelector(`button[data-copy="${kind}"]`);
      if (!button) continue;
      status.textContent = "";
      await navigator.clipboard.writeText("nothing copied");
      const told = new Promise((done) => {
        new MutationObserver(() => { if (status.textContent) done(); }).observe(status, { childList: true });
      });
      button.click();
      await told;
      texts[kind] = await navigator.clipboard.readText();
    }
  }
  return found;
}"""

# Runs each file the way a reader would: alone, in its own folder, with torch and numpy only. These take
# seconds to import, so that is done once and each file runs in a fork.
HARNESS = """
import doctest, importlib.util, os, pathlib, sys, traceback
import numpy, torch

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("snippets", "scripts", "tests"):
            raise ImportError(f"{name} belongs to the project")

sys.meta_path.insert(0, Blocked())

def run(path):
    os.chdir(path.parent)
    spec = importlib.util.spec_from_file_location("pasted", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["pasted"] = module
    spec.loader.exec_module(module)
    results = doctest.testmod(module, verbose=False)
    return results.attempted and not results.failed

failed = 0
for path in map(pathlib.Path, sys.argv[1:]):
    child = os.fork()
    if not child:
        try:
            passed = run(path)
        except BaseException:
            passed = traceback.print_exc()
        print(path, "passes" if passed else "fails", flush=True)
        os._exit(not passed)  # to take the interpreter down in order, torch and all, takes a second
    failed += os.waitpid(child, 0)[1] != 0
sys.exit(min(failed, 99))
"""


@pytest.fixture(scope="module")
def copied(browser: Any, site_url: str) -> dict[tuple[str, str], tuple[str, str]]:
    """(language, snippet) → the clipboard's text for the snippet and for what runs as pasted; one text
    where these are the same and share a button."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    context = browser.new_context()
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site_url.rstrip("/"))
    view = context.new_page()
    for language in LANGUAGES:
        for source in pages(language):
            if not source.blocks("snippet"):
                continue
            view.goto(f"{site_url}{language}/{source.url}")
            # Exercises fold their solutions away; a reader unfolds them first.
            view.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
            view.locator(f"button[data-copy={COPIES[1]}]").first.click(trial=True)  # it can be reached by a pointer
            for name, texts in view.evaluate(PRESS_ALL, COPIES).items():
                whole = texts["standalone"]
                found[language, name] = (texts.get("snippet", whole), whole)
    context.close()
    return found


def runnable(copied, language):
    """Each stand-alone form of a programming language, once, by the snippet's name."""
    found = {}
    for (_, name), (_, text) in copied.items():
        assert found.setdefault(name, text) == text, f"{name} is not the same in both languages"
    return {name: text for name, text in sorted(found.items()) if find_snippet(name).language == language}


def test_every_block_named_on_a_page_was_copied(copied):
    named = {(la, n.name) for la in LANGUAGES for p in pages(la) for n in p.blocks("snippet")}
    assert set(copied) == named
    assert len(named) >= 16


def test_the_snippet_is_the_source_byte_for_byte(copied):
    for (_, name), (shown, _) in copied.items():
        snippet = find_snippet(name)
        assert snippet is not None
        assert shown == snippet.source
        assert shown.strip() in snippet.path.read_text(encoding="utf-8") or "." in snippet.name


def test_stand_alone_forms_import_torch_numpy_and_the_standard_library_only(copied):
    allowed = {"torch", "numpy"} | set(sys.stdlib_module_names)
    for name, text in runnable(copied, "python").items():
        for node in ast.walk(ast.parse(text)):
            modules = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
            )
            assert {m.split(".")[0] for m in modules} <= allowed, name


def test_stand_alone_forms_have_no_undefined_or_unused_name(copied, tmp_path):
    for number, text in enumerate(runnable(copied, "python").values()):
        (tmp_path / f"pasted_{number}.py").write_text(text, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", "F", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout


def run_alone(folder, texts):
    """What the harness says to files of these texts."""
    harness = folder / "harness.py"
    harness.write_text(HARNESS, encoding="utf-8")
    paths = []
    for number, text in enumerate(texts):
        paths.append(folder / str(number) / "pasted.py")
        paths[-1].parent.mkdir()
        paths[-1].write_bytes(text.encode())
    return subprocess.run(
        [sys.executable, "-I", harness, *paths], cwd=folder, capture_output=True, text=True, check=False
    )


def test_stand_alone_forms_run_and_their_examples_pass(copied, tmp_path):
    run = run_alone(tmp_path, runnable(copied, "python").values())
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.jdk
def test_java_files_compile_without_a_warning_and_run_alone(copied, tmp_path, jdk):
    programs = runnable(copied, "java")
    assert programs
    for name, text in programs.items():
        snippet = find_snippet(name)
        folder = tmp_path / snippet.name
        folder.mkdir()
        public = re.search(r"^public final class (\w+)", text, re.M)[1]
        (folder / f"{public}.java").write_bytes(text.encode())
        machine = jdk(snippet.release)
        options = java.compiler_options(snippet.release)
        assert java.compile_file(folder / f"{public}.java", folder / "classes", options) == "", name
        run = java.Program(public, folder / "classes", machine).run()
        assert run.returncode == 0, (name, run.stderr)
        assert run.stdout.strip(), name


def test_the_harness_catches_a_wrong_example_and_a_project_import(tmp_path):
    example = 'def f():\n    """\n    >>> f()\n    %d\n    """\n    return 1\n'
    faults = [example % 2, "import snippets\n", "x = 1\n", "torch.zeros(1)\n"]
    run = run_alone(tmp_path, [*faults, example % 1])
    assert run.returncode == len(faults), run.stdout + run.stderr


@pytest.mark.parametrize("kind", ["snippet", "standalone"])
@pytest.mark.parametrize(("language", "told"), [("zh", "已复制"), ("en", "Copied")])
def test_buttons_work_by_keyboard_and_tell_screen_readers(page, site_url, kind, language, told):
    page.goto(f"{site_url}{language}/{ARTICLE}")
    page.locator(f'button[data-copy="{kind}"]').first.focus()
    page.keyboard.press("Enter")
    status = page.locator("#site-status[role=status]")
    status.filter(has_text=told).wait_for(state="attached", timeout=30_000)
    assert "def effective_kernel_size" in page.evaluate("navigator.clipboard.readText()")


def test_a_block_reads_well_without_javascript(browser, site_url):
    context = browser.new_context(java_script_enabled=False)
    view = context.new_page()
    view.goto(f"{site_url}en/{ARTICLE}")
    block = view.locator('[data-snippet="dilated_convolution.effective_kernel_size"]')
    assert "def effective_kernel_size" in block.inner_text()
    assert not block.locator(".snippet-copies").is_visible(), "buttons that cannot work are not shown"
    assert view.locator(".katex-mathml").count() > 20
    assert view.locator("figure.drawn img").first.is_visible()
    context.close()


@pytest.mark.parametrize("number", [1, 3, 12])
def test_a_line_of_code_has_an_address(page: Any, site_url: str, number: int) -> None:
    """#code-NAME-LINE marks that line and brings it into view, on arrival and on the page itself."""
    snippet = find_snippet("dilated_convolution.dilated_conv2d")
    assert snippet is not None
    marked = "() => [...CSS.highlights.get('line') ?? []].map(String)"
    above = "() => [...CSS.highlights.get('line')][0].getBoundingClientRect().top"
    page.goto(f"{site_url}en/{ARTICLE}#code-dilated_conv2d-{number}")
    assert page.evaluate(marked) == [snippet.source.splitlines()[number - 1]]
    assert 0 < page.evaluate(above) < 900
    page.evaluate("location.hash = 'code-dilated_conv2d-2'")
    page.wait_for_timeout(100)
    assert page.evaluate(marked) == [snippet.source.splitlines()[1]]
    page.evaluate("location.hash = 'code-dilated_conv2d-9999'")
    page.wait_for_timeout(100)
    assert page.evaluate(marked) == []


@pytest.mark.parametrize("place", ["%E0%A4", "code-nothing-1", "code-dilated_conv2d-0"])
def test_an_address_of_no_line_does_no_harm(page: Any, site_url: str, place: str) -> None:
    page.goto(f"{site_url}en/{ARTICLE}#{place}")
    page.locator('button[data-copy="snippet"]').first.click()
    page.locator("button.copied").wait_for()
