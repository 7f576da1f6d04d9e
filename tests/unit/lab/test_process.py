"""A daemon's life by its pid file: real processes, since it is the kernel's bookkeeping that matters here."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral_lab import errors, process

_STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[process.Daemon]:
    made = process.Daemon("sleeper", ("sleep", "60"), tmp_path / "sleeper.pid", tmp_path / "sleeper.log")
    yield made
    process.stop(made.pid_file)


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _wait_for(text: str, log: Path) -> None:
    deadline = time.monotonic() + 10
    while text not in process.tail(log):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_started_daemon_is_found_and_has_a_session_of_its_own(daemon: process.Daemon) -> None:
    running = process.start(daemon)
    assert process.find(daemon.pid_file) == running
    assert os.getsid(running.pid) == running.pid
    assert process.memory(running.pid) > 0


def test_a_second_start_leaves_it_and_other_arguments_replace_it(daemon: process.Daemon) -> None:
    first = process.start(daemon)
    assert process.start(daemon) == first
    other = process.Daemon(daemon.name, ("sleep", "61"), daemon.pid_file, daemon.log)
    second = process.start(other)
    assert second.pid != first.pid
    assert not _exists(first.pid)


def test_stop_leaves_neither_process_nor_zombie_nor_pid_file_and_may_be_repeated(daemon: process.Daemon) -> None:
    running = process.start(daemon)
    process.stop(daemon.pid_file)
    process.stop(daemon.pid_file)
    assert not _exists(running.pid)
    assert not daemon.pid_file.exists()


def test_a_daemon_that_ignores_sigterm_is_killed_at_the_deadline(tmp_path: Path) -> None:
    deaf = process.Daemon("deaf", (sys.executable, "-c", _STUBBORN), tmp_path / "deaf.pid", tmp_path / "deaf.log")
    running = process.start(deaf)
    try:
        _wait_for("deaf", deaf.log)
        begun = time.monotonic()
    finally:
        process.stop(deaf.pid_file, deadline=0.3)
    assert 0.3 <= time.monotonic() - begun < 5
    assert not _exists(running.pid)


def test_a_pid_that_another_process_has_now_is_not_ours_and_is_not_killed(daemon: process.Daemon) -> None:
    running = process.start(daemon)
    ours = daemon.pid_file.read_text()
    daemon.pid_file.write_text(f"{running.pid}\n{running.started - 1}\n{running.fingerprint}\n")
    assert process.find(daemon.pid_file) is None
    process.stop(daemon.pid_file)
    assert _exists(running.pid)
    daemon.pid_file.write_text(ours)


def test_a_killed_child_is_not_found_and_leaves_no_zombie(daemon: process.Daemon) -> None:
    running = process.start(daemon)
    os.kill(running.pid, signal.SIGKILL)
    os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
    assert process.find(daemon.pid_file) is None
    assert not _exists(running.pid)
    assert process.start(daemon).pid != running.pid


def test_kill_leaves_no_time_to_finish_and_may_be_repeated(tmp_path: Path) -> None:
    deaf = process.Daemon("deaf", (sys.executable, "-c", _STUBBORN), tmp_path / "deaf.pid", tmp_path / "deaf.log")
    running = process.start(deaf)
    process.kill(deaf.pid_file)
    process.kill(deaf.pid_file)
    assert not _exists(running.pid)
    assert process.find(deaf.pid_file) is None


@pytest.mark.parametrize("content", ["", "12", "one two three", "1 2 3 4"])
def test_a_broken_pid_file_names_nothing(tmp_path: Path, content: str) -> None:
    broken = tmp_path / "broken.pid"
    broken.write_text(content)
    assert process.find(broken) is None


def test_a_program_that_is_not_there_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    missing = process.Daemon("etcd", (str(tmp_path / "etcd"),), tmp_path / "etcd.pid", tmp_path / "etcd.log")
    with pytest.raises(errors.LabError, match=r"etcd could not be started: .*No such file") as raised:
        process.start(missing)
    assert raised.value.next_step
    assert process.find(missing.pid_file) is None


def test_output_is_appended_and_its_tail_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "echo.log"
    for word in ("first", "second"):
        echo = process.Daemon("echo", ("echo", word), tmp_path / "echo.pid", log)
        process.start(echo)
        _wait_for(word, log)
        process.stop(echo.pid_file)
    assert process.tail(log) == "first\nsecond"
    assert process.tail(log, lines=1) == "second"
    assert process.tail(tmp_path / "none") == ""
