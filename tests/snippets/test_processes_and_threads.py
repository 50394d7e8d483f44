"""Claims of the article on processes and threads, Java and Python."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from torch.utils.data import DataLoader

from snippets.processes_and_threads import (
    PidDataset,
    ShardedStream,
    amdahl_speedup,
    count_up,
    list_threads,
    made_by,
    memory_after,
    parallel_map,
)

# One bug a line: put into the Java program, it must make one of the program's tests fail.
PLANTED = {
    "CreationCost": [
        ("micros[rounds / 4]", "micros[rounds - 1]"),
        ("/ 1e3 / jobs", "/ 1e6 / jobs"),
    ],
    "DaemonThreads": [
        ('args[0].equals("daemon")', 'args[0].equals("user")'),
    ],
    "Deadlock": [
        ('eating("Dave", first, second', 'eating("Dave", second, first'),
        ("getThreadInfo(stuck)", "getThreadInfo(new long[] {stuck[0]})"),
        ("thread.getLockOwnerName()", "thread.getThreadName()"),
    ],
    "Interruption": [
        ("Thread.currentThread().interrupt();  // for", "Thread.interrupted();  // for"),
        ("boolean after = Thread.currentThread().isInterrupted();", "boolean after = true;"),
    ],
    "LazyOnce": [
        ("                if (seen == null) {\n", "                if (MADE.get() >= 0) {\n"),
        ("static final LazyOnce IT = new LazyOnce();", "static final LazyOnce IT = doubleChecked();"),
    ],
    "ListThreads": [
        ("info.isDaemon()", "!info.isDaemon()"),
        ("threads.length, Thread.activeCount()", "threads.length - 1, Thread.activeCount()"),
    ],
    "RaceCondition": [
        ("private synchronized void", "private void"),
        ("race.atomic::incrementAndGet", "() -> race.atomic.setPlain(race.atomic.getPlain() + 1)"),
        ("worker.join();", "worker.join(1);"),
    ],
    "RunnableInIo": [
        ("worker.getState());\n            new", "Thread.State.BLOCKED);\n            new"),
    ],
    "SharedHeapOwnStack": [
        ("= countTo(times)", "= countTo(times) + SHARED.get()"),
        ('"diver", kibibytes << 10', '"diver", 256L << 10'),
    ],
    "SpawnProcess": [
        ("exit 3", "exit 4"),
        ("slow.destroyForcibly();", "slow.destroy();"),
        ("child.getErrorStream()", "child.getInputStream()"),
    ],
    "StackMemory": [
        ('(kibibytes("VmSize") - reserved) >> 10', '(kibibytes("VmSize") - reserved) >> 12'),
        ('"VmRSS") - used', '"VmSize") - used'),
    ],
    "StartNotRun": [
        ("worker.start();\n        worker.join();", "worker.run();\n        worker.join();"),
        ('tell, "worker"', 'tell, "main"'),
        ('"TIME_WAITING", "TIMED_WAITING"', '"TIMED_WAITING", "TIMED_WAITING"'),
    ],
    "StopBreaks": [
        ("debit = 1;", "debit = 1;\n                credit = 1;"),
    ],
    "ThreadPool": [
        ("int end = Math.min(i + 10, n);", "int end = i + 10;"),
        ("newFixedThreadPool(threads)", "newCachedThreadPool()"),
    ],
    "ThreadStates": [
        ("LOCK.wait(60_000);", "LOCK.wait();"),
    ],
    "VirtualThreads": [
        ("through.incrementAndGet();", "through.set(through.get() | 1);"),
        ("one.isDaemon()", "!one.isDaemon()"),
    ],
    "Visibility": [
        ("private static volatile boolean", "private static boolean"),
    ],
}


def printed(program, *arguments, options=(), seconds=60.0):
    """The lines a program prints; it has to end well and complain of nothing."""
    run = program.run(*arguments, options=options, seconds=seconds)
    assert run.returncode == 0, run.stderr
    assert not run.stderr
    return run.stdout.splitlines()


# ---------------------------------------------------------------------------------- Java


def test_list_threads_finds_what_jstack_finds(java, agrees_with):
    program = java("ListThreads")
    with program.start("60") as process:
        lines = []
        while not (line := process.stdout.readline()).startswith(tuple("0123456789")):
            assert line, "it ended early"
            lines.append(line.rstrip("\n"))
        told = line
        dump = program.stack_dump(process)
        process.kill()
    rows = [re.fullmatch(r" *(\d+)  (\w+) +(true|false) +(.+)", line).groups() for line in lines[1:]]
    ours = sorted((name, daemon) for _, _, daemon, name in rows)
    # A number after # is a thread's id: those without one are the collector's and its like.
    listed = re.findall(r'^"(.*)" #\d+(?: \[\d+\])?( daemon)? prio', dump, re.M)
    hidden = re.compile(r"C\d CompilerThread|Sweeper thread|Service Thread|Monitor Deflation|Attach Listener")
    theirs = sorted((name, str(bool(daemon)).lower()) for name, daemon in listed if not hidden.match(name))
    assert ("main", "false") in ours
    assert {state for _, state, _, _ in rows} <= set(STATES)
    assert int(told.split()[0]) == len(rows)
    assert int(told.split()[-1]) == 1
    agrees_with(program, "other tool: jstack on the same process", ours, theirs)


STATES = ["NEW", "RUNNABLE", "BLOCKED", "WAITING", "TIMED_WAITING", "TERMINATED"]


def test_thread_states_come_in_the_order_of_the_constants(java, agrees_with):
    program = java("ThreadStates")
    lines = printed(program, seconds=20)
    reference = "closed form: the constants of java.lang.Thread.State"
    agrees_with(program, reference, [line.split()[0] for line in lines], STATES)


def test_run_is_a_call_and_start_a_thread(java, agrees_with):
    program = java("StartNotRun")
    ours = [re.split(r": +", line) for line in printed(program)]
    theirs = [
        ["run()", "run by main"],
        ["start()", "run by worker"],
        ["start() again", "IllegalThreadStateException"],
        ["TIME_WAITING", "no such state"],
        ["TIMED_WAITING", f"constant number {STATES.index('TIMED_WAITING')}"],
    ]
    agrees_with(program, "closed form: the contract of java.lang.Thread", ours, theirs)


@pytest.mark.parametrize(("threads", "times"), [(1, 1), (3, 1000), (5, 20_000)])
def test_locals_are_each_threads_own_and_the_heap_is_shared(java, agrees_with, threads, times):
    program = java("SharedHeapOwnStack")
    lines = printed(program, threads, times, options=("-Xint",))
    ours = [int(line.split()[-1]) for line in lines[: threads + 1]]
    agrees_with(program, "closed form: threads × counts", ours, [times] * threads + [threads * times])
    small, large = (int(re.search(r"(\d+) calls", line)[1]) for line in lines[threads + 1 : threads + 3])
    assert 4 * small < large, "each thread has the stack it asked for"
    assert lines[-1] == "main still runs"


def counts(program, threads, times, options=("-Xint",)):
    """The sums of the five ways of counting."""
    lines = printed(program, threads, times, options=options)
    found = [re.fullmatch(r"(.+?) +([\d,]+) of +([\d,]+), lost +([\d,]+)", line).groups() for line in lines]
    numbers = {name: [int(n.replace(",", "")) for n in rest] for name, *rest in found}
    for total, wanted, lost in numbers.values():
        assert wanted == threads * times
        assert total + lost == wanted
        assert total >= 0
    return {name: total for name, (total, _, _) in numbers.items()}


@pytest.mark.parametrize(("threads", "times"), [(1, 1000), (4, 50_000), (9, 10_001)])
def test_guarded_counters_are_exact(java, agrees_with, threads, times):
    program = java("RaceCondition")
    seen = counts(program, threads, times)
    exact = [seen[name] for name in ("synchronized", "AtomicInteger", "LongAdder")]
    agrees_with(program, "closed form: threads × counts", exact, [threads * times] * 3)


def test_guarded_counters_stay_exact_while_the_others_lose(java):
    """Each round counts twice as far as the last, until the unguarded counters have lost updates often
    enough: at once where threads run side by side, after many changes of thread on a single processor."""
    program = java("RaceCondition")
    # The first compiler keeps each read and write; the second might make one addition of a loop.
    simple = ("-XX:TieredStopAtLevel=1",)
    times, lost = 100_000, {"plain int": 0, "volatile int": 0}
    while lost["plain int"] < 4 or lost["volatile int"] < 1:
        assert times <= 200_000_000, f"unguarded counters have to lose updates sooner or later: {lost}"
        seen = counts(program, 4, times, simple)
        assert [seen[name] for name in ("synchronized", "AtomicInteger", "LongAdder")] == [4 * times] * 3
        for name in lost:
            lost[name] += seen[name] < 4 * times
        times *= 2


def test_one_thread_alone_loses_nothing(java):
    assert set(counts(java("RaceCondition"), 1, 20_000).values()) == {20_000}


# Compiled as a whole before the first turn of a loop, a field that is not volatile is read only once.
@pytest.mark.parametrize("options", [(), ("-Xint",), ("-Xcomp", "-XX:-TieredCompilation")])
def test_a_volatile_flag_is_seen(java, agrees_with, options):
    program = java("Visibility")
    lines = printed(program, 1, options=options, seconds=20)
    agrees_with(
        program, "closed form: a volatile read sees the last write", lines[:1], ["volatile flag: stopped"]
    )
    assert lines[1] in ("plain flag:    still spinning", "plain flag:    stopped")


def test_a_process_returns_what_python_gets_from_the_same_command(java, agrees_with):
    program = java("SpawnProcess")
    ours = [line.split(":", 1)[1].strip() for line in printed(program)]
    script = 'echo "$GREETING"; echo trouble >&2; exit 3'
    child = subprocess.run(
        ["sh", "-c", script],
        env={"GREETING": "hello from the child"},
        capture_output=True,
        text=True,
        check=False,
    )
    slow = subprocess.Popen(["sleep", "600"])
    slow.kill()
    theirs = [
        str(child.returncode),
        child.stdout.strip(),
        child.stderr.strip(),
        "true",
        "GREETING is null",
        "false",
        str(128 - slow.wait()),  # Python says -9, Java 128 + 9
    ]
    agrees_with(program, "subprocess.run", ours, theirs)


def test_a_machine_waits_for_user_threads(java):
    assert printed(java("DaemonThreads"), "user") == [
        "worker: daemon false, so a child of it: daemon false",
        "main: returns",
        "worker: finished",
        "virtual machine: ends",
    ]


@pytest.mark.parametrize("arguments", [(), ("daemon",)])
def test_the_machine_leaves_daemon_threads_behind(java, agrees_with, arguments):
    program = java("DaemonThreads")
    theirs = [
        "worker: daemon true, so a child of it: daemon true",
        "main: returns",
        "virtual machine: ends",
    ]
    reference = "closed form: The Java Language Specification, 12.8"
    agrees_with(program, reference, printed(program, *arguments), theirs)


def test_an_interrupt_is_a_flag_or_an_exception(java, agrees_with):
    program = java("Interruption")
    theirs = [
        "computing: saw the flag; flag true, restored to true",
        "sleeping: InterruptedException; flag false, restored to true",
        "in lockInterruptibly(): InterruptedException; flag false, restored to true",
    ]
    reference = "closed form: the contract of Thread.interrupt"
    agrees_with(program, reference, printed(program), theirs)


def test_stop_leaves_things_half_changed_or_is_refused(java, agrees_with):
    program = java("StopBreaks")
    end = "after stop(): debit 1, credit 0"
    if program.machine.feature >= 20:
        end = "stop(): UnsupportedOperationException"
    if program.machine.feature >= 26:
        end = "stop(): no such method"
    reference = "closed form: what stood before the pause has run, what stood after it has not"
    agrees_with(program, reference, printed(program), ["lock taken: debit 1, credit 0", end])


@pytest.mark.parametrize("threads", [1, 8])
def test_what_is_made_lazily_is_made_once(java, agrees_with, threads):
    program = java("LazyOnce")
    ours = [[int(number) for number in re.findall(r"\d+", line)] for line in printed(program, threads)]
    agrees_with(program, "closed form: one object", ours, [[1, 1], [1, 1]])


def test_a_thread_blocked_in_a_system_call_is_runnable(java, agrees_with):
    program = java("RunnableInIo")
    states = [line.split()[-1] for line in printed(program)]
    agrees_with(program, "closed form: the contract of Thread.State", states, ["RUNNABLE", "TERMINATED"])


def test_a_deadlock_is_found_and_cured_by_an_order(java, agrees_with):
    program = java("Deadlock")
    *found, cured = printed(program, seconds=20)
    pairs = [re.fullmatch(r"(\w+) waits for a lock that (\w+) holds", line).groups() for line in found]
    agrees_with(program, "closed form: a cycle of two", pairs, [("Alice", "Bob"), ("Bob", "Alice")])
    assert cured == "in one order: both have eaten"


@pytest.mark.parametrize(("threads", "n"), [(1, 0), (2, 1), (2, 10_003), (7, 1000)])
def test_a_pool_shares_tasks_among_few_threads(java, agrees_with, threads, n):
    program = java("ThreadPool")
    tasks, *rest = printed(program, threads, n)
    numbers = [int(number) for number in re.findall(r"\d+", tasks)]
    expected = [-(-n // 10), n * (n + 1) * (2 * n + 1) // 6]
    agrees_with(program, "closed form: n(n + 1)(2n + 1)/6", numbers, expected)
    assert rest == [
        f"no more than {threads} threads: true",
        'task failed: For input string: "x"',
        "ended: true",
        "after shutdown: RejectedExecutionException",
    ]


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_virtual_threads_all_wait_and_all_come_through(java, agrees_with, count):
    program = java("VirtualThreads")
    alive, through, nature, refused = printed(program, count)
    agrees_with(program, "closed form: the number started", int(through.split()[-1]), count)
    if count > 1000:
        assert alive == f"{count} virtual threads alive, listed by JMX: none of them"
    assert nature == 'virtual true, daemon true, name ""'
    assert refused == "setDaemon(false): IllegalArgumentException"


# In place of `true`: it logs that it was called, and after the ten calls that warm up it sleeps.
SLEEPY = """#!/bin/sh
echo >> {log}
n=$(wc -l < {log})
[ "$n" -le 10 ] || sleep 0.$((n - 10))
"""


def test_creation_costs_are_quartiles(java, agrees_with, tmp_path, monkeypatch):
    program = java("CreationCost")
    log, sleepy = tmp_path / "log", tmp_path / "true"
    sleepy.write_text(SLEEPY.format(log=log))
    sleepy.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    rows = {line[:15].strip(): [float(x) for x in line[15:].split()] for line in printed(program, 4)}
    assert log.read_text().count("\n") == 10 + 4
    assert list(rows)[:2] == ["process", "platform thread"]
    assert ("virtual thread" in rows) == (program.machine.feature >= 21)
    assert all(0 < low <= middle <= high for low, middle, high in rows.values())
    slept = [2e5, 3e5, 4e5]  # of 0.1, 0.2, 0.3 and 0.4 s; a machine may add to them, not take away
    ours = [min(pair) for pair in zip(rows["process"], slept, strict=True)]
    agrees_with(program, "closed form: processes that sleep for a known time", ours, slept)


def test_stacks_are_reserved_and_hardly_used(java, agrees_with, monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")  # or glibc reserves 64 MiB a thread for its own use
    program = java("StackMemory")
    head, reserved, used = printed(program, 50, 64)
    assert head == "threads 50, stack 64 MiB"
    ratio = int(reserved.split()[1]) / (50 * 64)
    agrees_with(program, "closed form: threads × size of a stack", round(ratio), 1)
    assert int(used.split()[2]) < 4 * 1024


# -------------------------------------------------------------------------------- Python


def test_list_threads_names_what_was_started(agrees_with):
    end = threading.Event()
    before = list_threads()
    threads = [threading.Thread(target=end.wait, name=f"w{i}", daemon=i % 2 == 0) for i in range(3)]
    for thread in threads:
        thread.start()
    try:
        now = list_threads()
        agrees_with(list_threads, "sys._current_frames", len(now), len(sys._current_frames()))
        assert [row for row in now if row not in before] == [
            ("w0", threads[0].native_id, True),
            ("w1", threads[1].native_id, False),
            ("w2", threads[2].native_id, True),
        ]
        assert {row[1] for row in now} <= {int(name) for name in os.listdir("/proc/self/task")}
    finally:
        end.set()
    for thread in threads:
        thread.join()
    assert list_threads() == before
    assert before[0] == ("MainThread", os.getpid(), False)


def test_a_forked_process_lists_its_own_id(agrees_with):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, str(list_threads()[0][1]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    agrees_with(list_threads, "os.fork", int(os.read(reader, 20)), child)
    os.close(reader)
    os.close(writer)


def test_list_threads_leaves_out_a_thread_that_the_kernel_does_not_know_yet(monkeypatch):
    unborn = threading.Thread()
    monkeypatch.setattr(threading, "enumerate", lambda: [threading.main_thread(), unborn])
    assert [name for name, _, _ in list_threads()] == ["MainThread"]


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_threads_share_memory_and_processes_share_what_is_put_there(agrees_with, workers):
    ours = [memory_after(kind, workers) for kind in ("thread", "process", "shared")]
    written = list(range(1, workers + 1))
    agrees_with(
        memory_after, "closed form: one list, its copies, one tensor", ours, [written, [0] * workers, written]
    )


def test_three_workers_write_unless_told_otherwise():
    assert memory_after("thread") == [1, 2, 3]
    assert {type(number) for number in memory_after("shared")} == {int}


@pytest.mark.parametrize(
    ("kind", "workers", "told"),
    [
        ("fiber", 1, "kind must be thread, process or shared, got 'fiber'"),
        ("thread", -1, "workers must not be negative, got -1"),
    ],
)
def test_memory_after_refuses(kind, workers, told):
    with pytest.raises(ValueError, match=f"^{told}$"):
        memory_after(kind, workers)


def test_without_fork_processes_are_refused_in_words_and_threads_still_run(monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    for refused in (
        lambda: memory_after("process"),
        lambda: memory_after("shared"),
        lambda: parallel_map(abs, [1], 1, "process"),
        lambda: made_by(PidDataset(1), 1),
    ):
        with pytest.raises(RuntimeError, match=r"^this system cannot fork: run it on Linux or macOS$"):
            refused()
    assert memory_after("thread", 1) == [1]
    assert parallel_map(abs, [-1], 1, "thread") == [1]
    assert made_by(PidDataset(1), 0) == {os.getpid(): [1]}


def test_processes_are_forked_whatever_the_default_is():
    class Local(PidDataset):
        """What only a fork can bring into another process."""

    method = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        assert memory_after("process", 1) == [0]
        assert parallel_map(lambda x: -x, [1], 1, "process") == [-1]
        assert list(made_by(Local(1), 1).values()) == [[1]]
    finally:
        multiprocessing.set_start_method(method, force=True)


@pytest.mark.parametrize(("workers", "times"), [(0, 5), (1, 0), (1, 7), (2, 1), (5, 200)])
def test_with_a_lock_no_addition_is_lost(agrees_with, workers, times):
    counted = count_up(workers, times, threading.Lock())
    agrees_with(count_up, "closed form: workers × times", counted, workers * times)


def test_one_thread_needs_no_lock(agrees_with):
    agrees_with(count_up, "closed form: workers × times", count_up(1, 50), 50)


def test_without_a_lock_additions_are_lost_sooner_or_later():
    assert any(count_up(8, 500) < 4000 for _ in range(50))


def test_a_lock_is_free_afterwards():
    lock = threading.Lock()
    assert count_up(2, 3, lock) == 6
    assert not lock.locked()


@pytest.mark.parametrize(("workers", "times"), [(-1, 1), (1, -1)])
def test_count_up_refuses_negative_numbers(workers, times):
    with pytest.raises(ValueError, match=f"^negative workers or times: {workers}, {times}$"):
        count_up(workers, times)


@pytest.mark.parametrize("kind", ["thread", "process"])
@pytest.mark.parametrize(("items", "workers"), [([], 1), ([3], 1), (range(7), 3), ((5, 1), 4)])
def test_parallel_map_is_map(agrees_with, kind, items, workers):
    ours = parallel_map(lambda x: 2 * x + 1, items, workers, kind)
    agrees_with(parallel_map, "builtins.map", ours, list(map(lambda x: 2 * x + 1, items)))  # noqa: C417


@pytest.mark.parametrize(("kind", "library"), [("thread", threading), ("process", multiprocessing)])
def test_items_are_dealt_out_in_turn(kind, library):
    both_are_there = library.Barrier(2)

    def where(i):
        if i < 2:
            both_are_there.wait(60)
        return os.getpid(), threading.get_native_id()

    seen = parallel_map(where, range(5), 2, kind)
    assert seen[0] == seen[2] == seen[4] != seen[1]
    assert seen[1] == seen[3]
    assert ({pid for pid, _ in seen} == {os.getpid()}) == (kind == "thread")


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_what_a_worker_raises_reaches_the_caller(kind):
    with pytest.raises(ZeroDivisionError, match="modulo by zero"):
        parallel_map(lambda x: 1 // x, [1, 2, 0], 2, kind)
    with pytest.raises(ZeroDivisionError, match="modulo by zero"):
        parallel_map(lambda x: 1 // x, [0, 2], 2, kind)


def test_the_death_of_a_process_is_heard():
    with pytest.raises(EOFError):
        parallel_map(lambda _: os._exit(1), [0], 1, "process")
    with pytest.raises(EOFError):
        parallel_map(lambda x: os._exit(1) if x == 0 else x, [0, 1, 2], 3, "process")


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_even_an_exit_reaches_the_caller(kind):
    with pytest.raises(SystemExit, match=r"^4$"):
        parallel_map(sys.exit, [4], 1, kind)


class _UnspeakableError(Exception):
    def __reduce__(self):
        raise TypeError("not to be pickled")


def test_what_does_not_go_through_a_pipe_goes_between_threads():
    def fail(_):
        raise _UnspeakableError

    assert parallel_map(lambda _: threading, [0], 1, "thread") == [threading]
    with pytest.raises(TypeError, match="cannot pickle 'module' object"):
        parallel_map(lambda _: threading, [0], 1, "process")
    with pytest.raises(_UnspeakableError):
        parallel_map(fail, [0], 1, "thread")
    with pytest.raises(EOFError):
        parallel_map(fail, [0], 1, "process")


def test_a_long_answer_does_not_block_the_pipe():
    assert parallel_map(lambda n: "x" * n, [300_000], 1, "process") == ["x" * 300_000]


@pytest.mark.parametrize(
    ("workers", "kind", "told"),
    [
        (0, "thread", "workers must be at least 1, got 0"),
        (1, "fiber", "kind must be thread or process, got 'fiber'"),
    ],
)
def test_parallel_map_refuses(workers, kind, told):
    with pytest.raises(ValueError, match=f"^{told}$"):
        parallel_map(abs, [1], workers, kind)


def test_no_process_or_thread_is_left_behind():
    before = threading.active_count()
    for kind in ("thread", "process"):
        assert parallel_map(abs, range(-2, 2), 2, kind) == [2, 1, 0, 1]
    assert threading.active_count() == before
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("serial", "workers"), [(0.0, 1), (0.0, 8), (1.0, 8), (0.5, 2), (0.25, 4), (0.1, 10)]
)
def test_amdahl_counts_the_ticks_of_a_schedule(agrees_with, serial, workers):
    ticks, left, work = 0, round(1200 * serial), 1200
    parallel = work - left
    while left or parallel > 0:
        if left:
            left -= 1
        else:
            parallel -= workers
        ticks += 1
    ours = amdahl_speedup(serial, workers)
    agrees_with(amdahl_speedup, "brute force: a schedule tick by tick", ours, work / ticks, atol=1e-14)


def test_a_program_that_four_workers_make_two_and_a_half_times_as_fast_gains_four_from_sixteen():
    assert amdahl_speedup(0.2, 4) == pytest.approx(2.5)
    assert amdahl_speedup(0.2, 16) == pytest.approx(4)
    assert amdahl_speedup(0.2, 10**9) == pytest.approx(5)


@pytest.mark.parametrize(
    ("serial", "workers", "told"),
    [
        (-0.1, 1, "serial must be from 0 to 1, got -0.1"),
        (1.5, 1, "serial must be from 0 to 1, got 1.5"),
        (0.5, 0, "workers must be at least 1, got 0"),
    ],
)
def test_amdahl_refuses(serial, workers, told):
    with pytest.raises(ValueError, match=f"^{told}$"):
        amdahl_speedup(serial, workers)


def test_a_pid_dataset_counts_what_it_has_made(agrees_with):
    dataset = PidDataset(2)
    seen = [dataset[1].tolist(), dataset[0].tolist(), dataset[1].tolist()]
    itself = int(os.readlink("/proc/self"))  # the kernel's word for it
    agrees_with(PidDataset, "other tool: the link /proc/self", seen, [[itself, n] for n in (1, 2, 3)])
    assert len(dataset) == 2
    for index in (2, -1):
        with pytest.raises(IndexError, match=f"^{index}$"):
            dataset[index]


def test_a_dataset_may_be_empty_and_not_negative():
    assert len(PidDataset(0)) == 0
    with pytest.raises(ValueError, match=r"^size must not be negative, got -1$"):
        PidDataset(-1)


@pytest.mark.parametrize(("size", "workers"), [(5, 0), (5, 1), (5, 2), (1, 2)])
def test_workers_count_each_for_itself(agrees_with, size, workers):
    dataset = PidDataset(size)
    found = made_by(dataset, workers)
    shares = [list(range(1, len(range(i, size, max(workers, 1))) + 1)) for i in range(max(workers, 1))]
    ours = [number for numbers in found.values() for number in numbers]
    agrees_with(
        made_by, "closed form: items are dealt out in turn", ours, [n for share in shares for n in share]
    )
    assert len(found) == sum(bool(share) for share in shares)
    assert (os.getpid() in found) == (workers == 0)
    assert dataset.made == (size if workers == 0 else 0)


def test_made_by_refuses_negative_workers():
    with pytest.raises(ValueError, match="num_workers"):
        made_by(PidDataset(1), -1)


@pytest.mark.parametrize(("size", "workers"), [(0, 0), (5, 0), (5, 1), (7, 2), (1, 2)])
def test_a_sharded_stream_gives_each_number_once(agrees_with, size, workers):
    stream = DataLoader(ShardedStream(size), batch_size=None, num_workers=workers)
    agrees_with(ShardedStream, "builtins.range", sorted(stream), list(range(size)))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_worker_takes_the_numbers_of_its_turn(monkeypatch, workers):
    info = SimpleNamespace(id=workers - 1, num_workers=workers)
    monkeypatch.setattr("snippets.processes_and_threads.get_worker_info", lambda: info)
    assert list(ShardedStream(7)) == [n for n in range(7) if n % workers == workers - 1]


def test_a_stream_must_not_be_negative():
    with pytest.raises(ValueError, match=r"^size must not be negative, got -1$"):
        ShardedStream(-1)
