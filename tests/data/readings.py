"""How often files are opened, by whoever opens them."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

_counters: list[Counter[str]] = []


def _count(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _counters and isinstance(arguments[0], str | os.PathLike):
        for counter in _counters:
            counter[os.path.basename(arguments[0])] += 1  # noqa: PTH119 - also of what is no path


sys.addaudithook(_count)  # for ever: a hook cannot be taken away


@contextmanager
def counting_openings() -> Iterator[Counter[str]]:
    """How often this process opened files, by name, while the block ran."""
    counter: Counter[str] = Counter()
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters.remove(counter)
