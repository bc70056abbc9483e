"""Commands that run at once, a few at a time, and go on where they were stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from dsctool.cli.plan import WITH_DEVICE, Step
from dsctool.engine.signals import StopRequest
from dsctool.errors import DiskFullError
from dsctool.files import room_for

_POLL = 0.2
"""Seconds between two looks at whether a signal has come."""


@dataclass(frozen=True)
class Job:
    """Commands one after the other, which stop at the first that fails. after: jobs that must have ended well before.

    steps: those that are still to be done. log: what they print.
    """

    name: str
    steps: Sequence[Step]
    log: Path
    after: Sequence[str] = ()


@dataclass(frozen=True)
class Ended:
    """How a job ended. reason: what was wrong; None where nothing was. stopped: by a signal, so that it can go on."""

    job: Job
    seconds: float
    reason: str | None = None
    stopped: bool = False


@dataclass
class Crew:
    """Runs jobs, as many at once as there are places.

    devices: of each place, as ``--device`` takes it. threads: of the CPU that each has; None: as many as there are.
    program: what takes the words of a command.
    """

    devices: Sequence[str]
    threads: int | None = None
    program: Sequence[str] = (sys.executable, "-m", "dsctool")
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: bool = False

    def run(self, jobs: Sequence[Job], *, stop: StopRequest) -> Iterator[Ended]:
        """Every job's end, as it comes: in order, but for those that wait for others.

        A signal is passed on to what runs, whose ends still come, and no further job begins.
        """
        free: SimpleQueue[str] = SimpleQueue()
        for device in self.devices:
            free.put(device)
        waiting = list(jobs)
        names, well, running = {job.name for job in jobs}, set[str](), dict[Future[Ended], Job]()
        with ThreadPoolExecutor(len(self.devices)) as pool:
            while waiting or running:
                if stop.poll() is not None:
                    self._stop()
                    waiting.clear()
                for job in _ready(waiting, names - well)[: len(self.devices) - len(running)]:
                    waiting.remove(job)
                    running[pool.submit(self._run, job, free)] = job
                if not running:
                    yield from (Ended(job, 0.0, "what it needs has failed") for job in waiting)
                    return
                done, _ = wait(running, timeout=_POLL, return_when=FIRST_COMPLETED)
                for future in done:
                    running.pop(future)
                    ended = future.result()
                    if ended.reason is None and not ended.stopped:
                        well.add(ended.job.name)
                    yield ended

    def _stop(self) -> None:
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
            for process in self._running.values():
                process.terminate()

    def _run(self, job: Job, free: SimpleQueue[str]) -> Ended:
        device = free.get()
        began = time.monotonic()
        try:
            for step in job.steps:
                code = self._call(job, step, device)
                if code is None or (code and self._stopping):
                    return Ended(job, time.monotonic() - began, stopped=True)
                if code:
                    reason = f"`{step.command}` ended with exit code {code}: {_last_line(job.log)} ({job.log})"
                    return Ended(job, time.monotonic() - began, reason)
            return Ended(job, time.monotonic() - began)
        except (OSError, DiskFullError) as error:  # of its log: others may write where there is room
            return Ended(job, time.monotonic() - began, str(error))
        finally:
            free.put(device)

    def _call(self, job: Job, step: Step, device: str) -> int | None:
        """The exit code; None where nothing was begun any more."""
        words = step.continued()
        if words[0] in WITH_DEVICE and device != "auto":
            words = (*words, "--device", device)
        with room_for(job.log.parent):
            job.log.parent.mkdir(parents=True, exist_ok=True)
        with room_for(job.log), job.log.open("ab") as log:
            log.write(f"\n$ {step.command}\n".encode())
            log.flush()
            with self._lock:
                if self._stopping:
                    return None
                process = subprocess.Popen(
                    [*self.program, *words],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment(),
                )
                self._running[job.name] = process
            code = process.wait()
            with self._lock:
                del self._running[job.name]
        return code if code >= 0 else 128 - code

    def _environment(self) -> Mapping[str, str]:
        # Unbuffered, so that an error is what a log ends with.
        threads = {} if self.threads is None else {"OMP_NUM_THREADS": str(self.threads)}
        return os.environ | {"PYTHONUNBUFFERED": "1"} | threads


def _ready(jobs: Sequence[Job], missing: set[str]) -> list[Job]:
    return [job for job in jobs if missing.isdisjoint(job.after)]


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line for line in lines if line.strip()]
    return said[-1].strip()[:300] if said else "it said nothing"
