"""Java snippets are held to what all snippets are held to; without a JDK the site still builds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import html

from scripts.pipeline import evidence, java
from scripts.pipeline.java import JavaSnippet
from scripts.pipeline.paths import LANGUAGES, ContentError
from scripts.pipeline.source import find_snippet, snippets_of
from tests.conftest import missing
from tests.pipeline.conftest import Project

TOPIC = "processes_and_threads"
HELLO = """/** Greets. */
public final class Hello {
    private Hello() { }

    public static void main(String[] args) {
        java.util.List<String> words = new java.util.ArrayList<>(java.util.List.of("hello"));
        System.out.println(words.get(0));
    }
}
"""


@pytest.fixture
def hello(jdk) -> JavaSnippet:
    jdk(17)
    return JavaSnippet("sample", "Hello", HELLO)


def test_a_program_is_compiled_once_and_run_elsewhere(hello):
    program = java.program(hello)
    run = program.run()
    assert (run.returncode, run.stdout) == (0, "hello\n")
    assert java.program(hello).classes == program.classes
    assert java.program(replace(hello, text=HELLO.replace("hello", "bye"))).classes != program.classes


def test_a_warning_of_the_compiler_is_an_error_with_its_line(hello):
    careless = replace(hello, text=HELLO.replace("new java.util.ArrayList<>", "new java.util.ArrayList"))
    with pytest.raises(ContentError, match=r"snippets/sample/Hello\.java:6: javac: .*rawtypes"):
        java.program(careless)


def test_a_program_that_does_not_end_is_stopped(hello):
    endless = replace(
        hello, text=HELLO.replace("System.out", "while (args.length == 0) { }\n        System.out")
    )
    with pytest.raises(subprocess.TimeoutExpired):
        java.program(endless).run(seconds=1.0)


def test_a_planted_bug_has_to_be_clear_and_to_compile(hello):
    assert "bye" in hello.planted('"hello"', '"bye"').text
    with pytest.raises(ContentError, match="stands in it 0 times"):
        hello.planted("farewell", "x")
    with pytest.raises(ContentError, match="stands in it 2 times"):
        hello.planted("Hello", "x")
    with pytest.raises(ContentError, match="javac"):
        hello.planted("words.get(0)", "words.nothing(0)")


def test_a_hollow_program_prints_nothing(hello):
    with hello.hollow():
        assert java.program(hello).run().stdout == ""
    assert java.program(hello).run().stdout == "hello\n"


def test_what_needs_a_newer_java_is_run_by_one_that_has_it(jdk):
    snippet = find_snippet(f"{TOPIC}.VirtualThreads")
    assert snippet.release == 21
    assert java.program(snippet).machine.feature >= 21
    assert jdk(21).feature >= 21


def test_every_java_snippet_has_a_planted_bug_that_its_tests_notice():
    for snippet in snippets_of(TOPIC):
        if snippet.planted_by_hand:
            planted = evidence.standing(snippet).record["mutants"]
            assert planted["mutants"] == planted["killed"] >= 1, snippet.name
            assert not planted["survivors"]


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ("tests", "no test executes it"),
        ("mutants", "no bug has been planted in it: name one under PLANTED"),
        ("references", "no independent reference"),
    ],
)
def test_a_java_snippet_is_not_verified_without(jdk, lost, told):
    jdk(17)
    snippet = find_snippet(f"{TOPIC}.ThreadPool")
    record = evidence.standing(snippet).record
    assert evidence._gap(snippet, record) == ""
    assert told in evidence._gap(snippet, {**record, lost: type(record[lost])()})


def test_a_planted_bug_that_no_test_notices_is_told(jdk):
    jdk(17)
    snippet = find_snippet(f"{TOPIC}.ThreadPool")
    record = evidence.standing(snippet).record
    survivor = {"change": "- a\n+ b", "reason": "", "outcome": "noticed by no test"}
    planted = {**record["mutants"], "survivors": [survivor]}
    assert "noticed by no test" in evidence._gap(snippet, {**record, "mutants": planted})


def test_planted_bugs_are_tried_one_by_one(jdk, project: Project, tmp_path: Path):
    jdk(17)
    tests = f"tests/snippets/test_{TOPIC}.py"
    project.edit(
        tests,
        '("worker.start();\\n        worker.join();", "worker.run();\\n        worker.join();"),',
        '("// an ordinary call", "// harmless"), ("worker.run();", "worker.walk();"), ("worker", "sloth"),',
    )
    names = [snippet.name for snippet in snippets_of(TOPIC)]
    noticing = f"{tests}::test_run_is_a_call_and_start_a_thread"
    plan, result = tmp_path / "plan.json", tmp_path / "result.json"
    chosen = {name: [noticing] if name == "StartNotRun" else [] for name in names}
    plan.write_text(json.dumps({"topic": TOPIC, "snippets": chosen, "result": str(result)}), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", tests, f"--hollow={plan}", "-p", "no:cacheprovider", "-q"]
    subprocess.run(
        command, cwd=project.root, env=project.environment(), capture_output=True, check=True, timeout=200
    )
    found = json.loads(result.read_text(encoding="utf-8"))
    assert found["vacuous"] == []
    (name, planted), *others = found["planted"].items()
    assert (name, others) == ("StartNotRun", [])
    outcomes = [(survivor["change"][:8], survivor["outcome"]) for survivor in planted["survivors"]]
    assert outcomes[0] == ("- // an ", "noticed by no test")
    assert "javac: error: cannot find symbol" in outcomes[1][1]
    assert "times" in outcomes[2][1]
    assert (planted["mutants"], planted["killed"], len(planted["caught"])) == (5, 2, 2)


def test_a_java_file_on_no_page_is_an_orphan(project: Project):
    (project.root / "snippets" / TOPIC / "Hello.java").write_text(HELLO, encoding="utf-8")
    (project.root / "snippets" / "elsewhere").mkdir()
    (project.root / "snippets" / "elsewhere" / "Hello.java").write_text(HELLO, encoding="utf-8")
    lines = project.errors("check")
    assert any(f"snippets/{TOPIC}/Hello.java" in line for line in lines)
    assert any("snippets/elsewhere/Hello.java" in line and "no topic" in line for line in lines)


def test_without_a_jdk_the_site_is_built_and_says_so(project: Project, tmp_path: Path, monkeypatch):
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("git", "sh", "env", "true", "sleep"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("NOTHING_SKIPPED", raising=False)
    run = project.run("build")
    assert run.returncode == 0, run.stdout + run.stderr
    java_names = {s.qualified for s in snippets_of(TOPIC) if s.language == "java"}
    for name in java_names:
        assert f"{name.split('.')[1]} is unverified: this machine has nothing that runs java" in run.stdout
    for language in LANGUAGES:
        page = project.root / "site" / language / "programming/processes-and-threads/index.html"
        tree = html.fromstring(page.read_text(encoding="utf-8"))
        states = {
            block.get("data-snippet"): block.xpath(".//*[contains(@class, 'state-')]/@class")[0]
            for block in tree.xpath("//*[@data-snippet]")
        }
        assert {name for name, state in states.items() if "state-unverified" in state} == java_names
        assert len(states) > len(java_names), "the Python snippets stay verified"
        assert len(tree.xpath("//figure[@class='output']//samp")) == 0


def test_without_a_jdk_ci_fails(monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="JDK that runs Java 17 is missing"):
        missing("a JDK that runs Java 17")
    monkeypatch.delenv("CI")
    monkeypatch.delenv("NOTHING_SKIPPED", raising=False)
    with pytest.raises(pytest.skip.Exception, match="JDK that runs Java 17 is not installed"):
        missing("a JDK that runs Java 17")
