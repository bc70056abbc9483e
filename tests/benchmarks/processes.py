"""Commands in processes of their own: seconds, and the most memory they held."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
INTERVAL = 0.2
"""Seconds between looks at a command's family, which stop it for a moment."""


@dataclass(frozen=True)
class Usage:
    """What a command took.

    seconds: from its start to its end. cpu: seconds of all cores, which say more on a busy machine.
    peak: MiB that were resident at most; where a command starts others, of all of them together, looked at five times
        a second.
    output: what it printed.
    """

    seconds: float
    cpu: float
    peak: float
    output: str


def measured(words: Sequence[object], *, checkout: Path = REPOSITORY) -> Usage:
    """Run a command in ``checkout``, whose packages it imports.

    A child's peak counts from the fork on, so whoever calls this must be small. Raises SystemExit where it fails.
    """
    environment = os.environ | {"PYTHONPATH": str(checkout), "COLUMNS": "120"}
    with tempfile.TemporaryFile("w+") as log:
        start = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, words)), stdout=log, stderr=subprocess.STDOUT, cwd=checkout, env=environment
        )
        family, pid, looked = 0.0, 0, start
        while not pid:
            time.sleep(0.01)
            if time.perf_counter() - looked > INTERVAL:
                family = max(family, together(process.pid))
                looked = time.perf_counter()
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        output = log.read()
    if process.returncode != 0:
        raise SystemExit(f"exit code {process.returncode}: {' '.join(map(str, words))}\n{output[-3000:]}")
    return Usage(seconds, usage.ru_utime + usage.ru_stime, max(usage.ru_maxrss / 1024, family), output)


def together(pid: int) -> float:
    """MiB of a process and all that it started, those that live, without counting a page twice; 0 where it is alone."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, _text(children).split())
    return sum(map(_share, found)) if len(found) > 1 else 0.0


def _share(pid: int) -> float:
    """MiB; a page that several processes have counts in parts."""
    lines = map(str.split, _text(Path(f"/proc/{pid}/smaps_rollup")).splitlines())
    return sum(int(line[1]) for line in lines if line[0] == "Pss:") / 1024


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended since
        return ""
