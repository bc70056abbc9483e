"""What a running command shows: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from dsctool.runs.losses import explain_losses

if TYPE_CHECKING:
    from dsctool.terms import Progress

BAR_INTERVAL = 0.1
"""Seconds between two pictures of the bar."""
WIDTH = 80
"""Characters in a plain line, where they can be broken."""
PLAIN_INTERVAL = 30.0
"""Seconds between the plain lines about counted work."""


class Pace:
    """Seconds per step over a moving window, and what they say about the rest of the run."""

    def __init__(self, window: int = 100, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._steps: deque[float] = deque(maxlen=window)
        self._started = clock()
        self.evaluation: float = 0.0
        """Seconds that the last evaluation took."""

    def restart(self) -> None:
        """The next step starts now; what happened since the last step does not count."""
        self._started = self._clock()

    def step(self) -> float:
        """A step has ended, and the next one starts now; returns the seconds it took."""
        now = self._clock()
        self._steps.append(now - self._started)
        self._started = now
        return self._steps[-1]

    def evaluated(self) -> None:
        """An evaluation that started at the last ``restart`` has ended, and the next step starts now."""
        now = self._clock()
        self.evaluation = now - self._started
        self._started = now

    @property
    def step_time(self) -> float:
        """Mean seconds per step; 0 before the first step has ended."""
        return sum(self._steps) / len(self._steps) if self._steps else 0.0

    def eta(self, *, steps: int, evaluations: int) -> float:
        """Seconds that ``steps`` and ``evaluations`` will take."""
        return steps * self.step_time + evaluations * self.evaluation


@contextmanager
def counting(console: Console) -> Iterator[Progress]:
    """Shows counted work: a passing bar with the time left on a terminal, elsewhere a line now and then.

    It starts no thread: work that is shared out by forking processes would then stay in this one.
    """
    if not console.is_terminal:
        yield _plain_lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True, auto_refresh=False) as bar:
        tasks: dict[str, TaskID] = {}
        shown = -math.inf

        def count(what: str, done: int, total: int) -> None:
            nonlocal shown
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)
            now = time.monotonic()
            if done == total or now - shown >= BAR_INTERVAL:
                shown = now
                bar.refresh()

        yield count


def _plain_lines(console: Console) -> Progress:
    started: dict[str, float] = {}
    said = time.monotonic()

    def count(what: str, done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        first = now if done == 1 else started.get(what, now)  # when the first of them was done
        started[what] = first
        if now - said >= PLAIN_INTERVAL:
            said = now
            left = (now - first) / max(done - 1, 1) * (total - done)
            line = f"{what}: {done}/{total}, {duration(left)} left"
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    return count


class Journal:
    """Says things once: on the console, and in a log file where the run has one."""

    def __init__(self, console: Console, path: Path | None = None) -> None:
        self.console = console
        self._file = None if path is None else path.open("a", encoding="utf-8")

    def say(self, text: str) -> None:
        """Show ``text`` as it is, unwrapped, and log it with the time."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        self.note(text)

    def note(self, text: str) -> None:
        """Log ``text`` without showing it."""
        if self._file is not None:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            self._file.writelines(f"{stamp} {line}\n" for line in text.splitlines())
            self._file.flush()

    def close(self) -> None:
        """Close the log file."""
        if self._file is not None:
            self._file.close()


class RunProgress:
    """Progress of a whole run: every step moves the bar; every log interval shows the numbers.

    On a terminal: a live bar with the losses below it. Elsewhere: one plain line per log interval. The log file always
    gets the lines.
    """

    def __init__(self, journal: Journal, *, steps: int, done: int = 0) -> None:
        self._journal = journal
        self._steps = steps
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[status]}"),
        )
        self._task = self._bar.add_task("train", total=steps, completed=done, status="")
        self._losses = Text()
        self._explained = False
        self._live: Live | None = None
        if journal.console.is_terminal:
            self._live = Live(Group(self._bar, self._losses), console=journal.console, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def step(self, *, epoch: str) -> None:
        """One optimiser step is done, in ``epoch`` (such as ``epoch 3/12``)."""
        self._bar.update(self._task, advance=1, description=epoch)

    def numbers(
        self,
        *,
        step: int,
        epoch: str,
        losses: Mapping[str, float],
        rate: float,
        speed: float,
        memory: float,
        eta: float,
        skipped: int = 0,
    ) -> None:
        """The state at a log interval: losses, learning rate, images per second, GiB, seconds left of the whole run.

        The first time, what the losses are is said as well. losses: empty where all steps were ``skipped``.
        """
        tell = self._journal.say if self._live is None else self._journal.note
        if losses and not self._explained:
            tell("\n".join(f"{name:<18} {text}" for name, text in explain_losses(losses)))
            self._explained = True
        loss = f"loss {sum(losses.values()):.4f}" if losses else "no loss"
        used, left = f"{memory:.1f} GiB", f"{duration(eta)} left"
        left += f"  {skipped} steps skipped" if skipped else ""
        each = [f"{name} {value:.4f}" for name, value in losses.items()]
        self._bar.update(self._task, status=f"{loss}  {speed:.2f} img/s  {left}")
        self._losses.plain = "  ".join([f"lr {rate:.3g}", used, *each])
        line = f"{epoch}  step {step}/{self._steps}  lr {rate:.3g}  {loss}  {speed:.2f} img/s  {used}  {left}"
        tell("\n".join([line, *_filled(each)]))

    def status(self, text: str) -> None:
        """Say what is going on between steps."""
        self._bar.update(self._task, status=text)


def _filled(parts: Sequence[str]) -> list[str]:
    """The parts in as few indented lines as fit a terminal."""
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + 2 + len(part) > WIDTH:
            lines.append("")
        lines[-1] += f"  {part}"
    return lines


def duration(seconds: float) -> str:
    """``seconds`` as ``h:mm:ss``, with days where there are any."""
    return str(timedelta(seconds=round(seconds)))
