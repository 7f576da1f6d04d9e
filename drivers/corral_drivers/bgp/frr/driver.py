"""FRR's zebra and bgpd, for the host on which the process runs. The agent constructs the driver.

*Ours* is the whole configuration, or nothing: `marks` says how a process without memory knows it. The daemons are
started by the distribution, and read the file that we write when they start; while they run they are told on their
sockets, statement by statement, so that what does not change, sessions above all, notices nothing.

`bfdd` is asked for only where BFD is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import shutil

from corral_drivers import errors
from corral_drivers.bgp import lines, marks
from corral_drivers.bgp.frr import render, states, vty
from corral_drivers.bgp.model import Cause, Desired, Lines, Observed, Path, Session, Speaker
from corral_drivers.bgp.plan import Configure, Step, Write
from corral_drivers.bgp.port import Settings

_DEFAULTS = "traditional"
"""The profile whose defaults our statements count on: with another, FRR echoes others of them."""

_FORMER = ".before-corral"


class Frr:
    """The real daemons of one host."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._file = pathlib.Path(settings.file)
        self._mark = marks.mark(settings.cloud, settings.host)

    def render(self, speaker: Speaker | None, *, take_over: bool = False) -> Desired:
        return render.desired(speaker, self._mark, take_over=take_over)

    async def observe(self) -> Observed:
        return Observed(
            zebra=await self._running("zebra"),
            bgpd=await self._running("bgpd"),
            file=await asyncio.to_thread(_read, self._file),
        )

    async def apply(self, step: Step) -> None:
        match step:
            case Configure():
                await self._configure(step)
            case Write(text):
                await asyncio.to_thread(_write, self._file, text, self._mark)

    async def sessions(self) -> tuple[Session, ...]:
        async with self._conversation("bgpd") as bgpd:
            return states.sessions((await bgpd.run(states.SESSIONS)).text)

    async def announced(self) -> frozenset[str]:
        async with self._conversation("bgpd") as bgpd:
            found: set[str] = set()
            for session in states.sessions((await bgpd.run(states.SESSIONS)).text):
                if session.is_established:
                    for command in states.told(session.neighbor):
                        # A neighbor of one family only is refused for the other one.
                        answer = await bgpd.run(command)
                        found |= states.announced(answer.text) if answer.done else frozenset()
            return frozenset(found)

    def _conversation(self, daemon: str) -> contextlib.AbstractAsyncContextManager[vty.Vty]:
        return vty.conversation(vty.Line(self._settings.sockets, daemon, self._settings.within))

    async def _running(self, daemon: str) -> Lines:
        async with self._conversation(daemon) as one:
            text = await one.ask("show running-config")
        if (defaults := lines.defaults(text)) not in ("", _DEFAULTS):
            raise errors.Unavailable(
                Cause.UNSUPPORTED,
                f"{daemon} runs with the defaults {defaults!r}: set frr_profile={_DEFAULTS!r} in /etc/frr/daemons",
            )
        return lines.read(text)

    async def _configure(self, step: Configure) -> None:
        if any(path[-1].startswith("neighbor ") and path[-1].endswith(" bfd") for path in step.add):
            async with self._conversation("bfdd"):
                pass
        async with self._conversation(step.daemon) as one:
            for path in step.remove:
                # What is gone by now, or goes with another, is refused: the next look tells.
                await _say(one, path, _negated(path[-1]))
            for path in step.add:
                answer = await _say(one, path, path[-1])
                if answer.text.strip() and not answer.done:
                    raise errors.Unavailable(
                        Cause.FAILED, f"{step.daemon} refuses {': '.join(path)!r}: {answer.text.strip()[:200]}"
                    )
            await one.run("end")


async def _say(one: vty.Vty, path: Path, statement: str) -> vty.Answer:
    """Say a statement where it stands; the way there is gone anew each time, as a refusal may leave us anywhere."""
    for command in ("end", "configure terminal", *path[:-1]):
        answer = await one.run(command)
        if not answer.done:
            return answer
    return await one.run(statement)


def _negated(statement: str) -> str:
    return statement.removeprefix("no ") if statement.startswith("no ") else f"no {statement}"


def _read(path: pathlib.Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise errors.Unavailable(Cause.FAILED, f"read {path}: {error.strerror}") from error


def _write(path: pathlib.Path, text: str, mark: str) -> None:
    """Through another name; with the owner and mode of what was there, because FRR reads it as a user of its own.

    What carries no mark of ours is somebody's work, and stays beside it.
    """
    partial = path.with_name(f".{path.name}.new")
    try:
        former = path if path.exists() else path.parent
        if former is path and mark not in path.read_text(errors="replace"):
            shutil.copy2(path, path.with_name(path.name + _FORMER))
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            os.fchown(descriptor, former.stat().st_uid, former.stat().st_gid)
            os.fchmod(descriptor, 0o640)
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
        partial.replace(path)
    except OSError as error:
        raise errors.Unavailable(Cause.FAILED, f"write {path}: {error.strerror}") from error
