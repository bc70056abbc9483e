"""Stopping a run from outside: a signal sets a flag, and the run stops where it can be continued."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

from dsctool.errors import DsctoolError

EXIT_INTERRUPTED = 75
"""Exit code of a command that a signal stopped after saving: run it again with ``--resume`` (EX_TEMPFAIL)."""

_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]


class StopRequestedError(Exception):
    """A signal asked the run to stop; the message is the signal's name."""


class RunInterruptedError(DsctoolError):
    """A signal stopped the run at a step boundary; it is saved, and the message says how to continue."""


class StopRequest:
    """While the block runs, SIGTERM, SIGINT and SIGUSR1 only set ``received``; a second SIGINT ends at once.

    Outside the main thread, where Python cannot handle signals, nothing is installed.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._interrupted = False
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def poll(self) -> signal.Signals | None:
        """The signal that has arrived, if any: the one place where a run asks."""
        return self.received

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True
        self.received = signal.Signals(number)
