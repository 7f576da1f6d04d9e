"""Show what the lab is doing, and for how long: a live line on a terminal, plain lines with a pulse in a log.

`corral lab up` and the build of the programs report through it; the tests give it a console that goes nowhere.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import rich.console
import rich.markup
import rich.progress

_PULSE = 30.0


class Step:
    """One thing in progress. `note` may be called often: a log gets a line every half minute only."""

    def __init__(self, console: rich.console.Console, title: str) -> None:
        self._console = console
        self._title = title
        self._begun = time.monotonic()
        self._spoken = self._begun
        self._live: rich.progress.Progress | None = None
        self._task = rich.progress.TaskID(0)

    @property
    def elapsed(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self._begun

    def note(self, text: str) -> None:
        """Say what is being waited for."""
        if self._live is not None:
            self._live.update(self._task, note=rich.markup.escape(text))
        elif time.monotonic() - self._spoken >= _PULSE:
            self._spoken = time.monotonic()
            self._console.print(f"  {self._title}: {self.elapsed:.0f} s, {text}", markup=False, highlight=False)

    @contextlib.contextmanager
    def shown(self, hint: str) -> Iterator[None]:
        """Keep the live line on the terminal while the block runs."""
        if not self._console.is_terminal:
            self._console.print(f"… {self._title}{f' ({hint})' if hint else ''}", markup=False, highlight=False)
            yield
            return
        columns = (
            rich.progress.SpinnerColumn(),
            rich.progress.TextColumn("{task.description}"),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TextColumn("[dim]{task.fields[note]}"),
        )
        with rich.progress.Progress(*columns, console=self._console, transient=True) as live:
            self._task = live.add_task(rich.markup.escape(self._title), total=None, note=rich.markup.escape(hint))
            self._live = live
            yield


class Steps:
    """The steps of one command, on one console."""

    def __init__(self, console: rich.console.Console) -> None:
        self.console = console

    @contextlib.contextmanager
    def step(self, title: str, *, hint: str = "") -> Iterator[Step]:
        """Show `title` (and `hint`, what to expect) while the block runs; leave one line with the time it took."""
        step = Step(self.console, title)
        try:
            with step.shown(hint):
                yield step
        except BaseException:
            self.console.print(f"✗ {title} [dim]after {step.elapsed:.1f} s[/dim]", highlight=False)
            raise
        self.console.print(f"✓ {title} [dim]{step.elapsed:.1f} s[/dim]", highlight=False)

    def say(self, text: str) -> None:
        """A line of its own, as it is."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def silent() -> Steps:
    """Steps that nobody sees."""
    return Steps(rich.console.Console(quiet=True))
