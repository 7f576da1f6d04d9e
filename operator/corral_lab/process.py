"""Start, find and stop the lab's daemons: the control plane's programs, the hosts' libvirt daemons, agents.

A daemon outlives the command that started it, so its pid file is what the next command goes by. The file holds the pid
and the kernel's start time of that pid (field 22 of proc(5) /proc/pid/stat): a pid that was given to another program
since is never taken for ours, nor killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from corral_lab import errors, files

_PAGE = os.sysconf("SC_PAGE_SIZE")
_AFTER_SIGKILL = 10.0


@dataclass(frozen=True, slots=True)
class Daemon:
    """A program that is to run: `argv[0]` is its path (or a name on PATH); its output is appended to `log`."""

    name: str
    argv: tuple[str, ...]
    pid_file: Path
    log: Path
    grace: float = 10.0
    """Seconds from SIGTERM to SIGKILL where it is restarted."""

    @property
    def fingerprint(self) -> str:
        """Changes when the command line does, and so tells a daemon that must be restarted from one that may stay."""
        return hashlib.sha256("\0".join(self.argv).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Running:
    """A daemon that was seen alive. `started` is in clock ticks since the machine's boot."""

    pid: int
    started: int
    fingerprint: str


def start(daemon: Daemon) -> Running:
    """Make the daemon run: nothing where it does, with these arguments; with other arguments it is stopped first.

    It gets a session of its own, so that neither Ctrl-C nor the end of the terminal reaches it.
    Raises `errors.LabError` where the program can't be started.
    """
    running = find(daemon.pid_file)
    if running is not None and running.fingerprint == daemon.fingerprint:
        return running
    stop(daemon.pid_file, deadline=daemon.grace)
    pid = _spawn(daemon)
    running = Running(pid=pid, started=_started(pid) or 0, fingerprint=daemon.fingerprint)
    files.replace(daemon.pid_file, f"{running.pid}\n{running.started}\n{running.fingerprint}\n")
    return running


def find(pid_file: Path) -> Running | None:
    """The daemon of this pid file, or None where it does not run. A zombie does not run; our own is reaped."""
    try:
        pid, started, fingerprint = pid_file.read_text().split()
        running = Running(pid=int(pid), started=int(started), fingerprint=fingerprint)
    except (FileNotFoundError, ValueError):
        return None
    if _started(running.pid) == running.started:
        return running
    _reap(running.pid)
    return None


def stop(pid_file: Path, *, deadline: float = 10.0) -> None:
    """End the daemon of this pid file and delete the file: SIGTERM, and after `deadline` seconds SIGKILL.

    Nothing where it does not run. Raises `errors.LabError` where even SIGKILL does not end it.
    """
    running = find(pid_file)
    if running is not None and not _end(running, (signal.SIGTERM, deadline), (signal.SIGKILL, _AFTER_SIGKILL)):
        raise errors.LabError(
            f"Process {running.pid} of {pid_file} does not end, not even by SIGKILL.",
            next_step=f"See `cat /proc/{running.pid}/stack` for what in the kernel it waits for, then try again.",
        )
    pid_file.unlink(missing_ok=True)


def kill(pid_file: Path) -> None:
    """End the daemon of this pid file by SIGKILL, as an accident does: it finishes nothing. Nothing where none runs."""
    running = find(pid_file)
    if running is not None:
        _end(running, (signal.SIGKILL, _AFTER_SIGKILL))


def memory(pid: int) -> int:
    """Resident memory in bytes, 0 for a process that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (FileNotFoundError, ProcessLookupError):
        return 0


def tail(log: Path, *, lines: int = 12) -> str:
    """The log's last lines, each cut at 300 characters: what a person is shown when a daemon fails."""
    try:
        with log.open(errors="replace") as stream:
            return "\n".join(line.rstrip()[:300] for line in deque(stream, lines))
    except FileNotFoundError:
        return ""


def _spawn(daemon: Daemon) -> int:
    log = os.open(daemon.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return os.posix_spawnp(
            daemon.argv[0],
            daemon.argv,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
            setsid=True,
            # Python ignores these two, and a child would inherit that.
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )
    except OSError as error:
        raise errors.LabError(
            f"{daemon.name} could not be started: {daemon.argv[0]}: {error.strerror}.",
            next_step=f"Check that {daemon.argv[0]} is there and can be run by this user.",
        ) from error
    finally:
        os.close(log)


def _started(pid: int) -> int | None:
    """The start time of a live process; None for one that is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in field 2 may hold spaces and brackets; what follows its last bracket starts at field 3.
    fields = stat.rpartition(")")[2].split()
    state, threads, started = fields[0], int(fields[17]), int(fields[19])
    # While threads of a dying process remain, so do its sockets and files.
    return None if state in {"Z", "X"} and threads <= 1 else started


def _end(running: Running, *signals: tuple[signal.Signals, float]) -> bool:
    """Send each signal and give it so many seconds, until the process is gone.

    Through a pidfd, which stays with this process even if its pid goes to another meanwhile.
    """
    try:
        descriptor = os.pidfd_open(running.pid)
    except ProcessLookupError:
        return True
    try:
        if _started(running.pid) != running.started:
            return True
        for number, patience in signals:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
            if select.select([descriptor], [], [], patience)[0]:
                return True
        return False
    finally:
        os.close(descriptor)
        _reap(running.pid)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
