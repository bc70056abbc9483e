"""Commands at once: their ends, their order, and what a signal does."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from dsctool.cli.plan import Step
from dsctool.cli.side_by_side import Crew, Ended, Job
from dsctool.engine.signals import StopRequest

PROGRAM = (sys.executable, "-S", "-c", "import sys; exec(sys.argv[1])")


def job(folder: Path, name: str, *codes: str, after: tuple[str, ...] = ()) -> Job:
    return Job(name, [Step(name, (code,), folder / name) for code in codes], folder / f"{name}.log", after)


def ends(jobs: list[Job], places: int = 2) -> dict[str, Ended]:
    with StopRequest() as stop:
        crew = Crew(["auto"] * places, threads=1, program=PROGRAM)
        return {ended.job.name: ended for ended in crew.run(jobs, stop=stop)}


def test_a_failure_does_not_keep_others_from_running(tmp_path: Path) -> None:
    bad = "print('first'); print('the reason', file=sys.stderr); sys.exit(3)"
    found = ends([job(tmp_path, "bad", bad, "print('never')"), job(tmp_path, "good", "pass", "print('second')")])
    assert found["good"].reason is None
    assert (tmp_path / "good.log").read_text().count("$ dsctool") == 2
    reason = found["bad"].reason
    assert reason is not None
    assert "exit code 3: the reason (" in reason
    assert "never" not in (tmp_path / "bad.log").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is there on Linux alone")
def test_a_log_without_room_does_not_keep_others_from_running(tmp_path: Path) -> None:
    full = Job("full", [Step("full", ("pass",), tmp_path / "full")], Path("/dev/full"))
    found = ends([full, job(tmp_path, "good", "pass")], places=1)
    assert found["good"].reason is None
    reason = found["full"].reason
    assert reason is not None
    assert reason.startswith("/dev/full: the disk is full")


def test_jobs_wait_for_what_they_need(tmp_path: Path) -> None:
    file = tmp_path / "made"
    first = f"import time; time.sleep(0.3); open({str(file)!r}, 'w')"
    jobs = [
        job(tmp_path, "needs", f"open({str(file)!r})", after=("makes",)),
        job(tmp_path, "hopeless", "pass", after=("fails",)),
        job(tmp_path, "fails", "sys.exit(1)"),
        job(tmp_path, "makes", first),
        job(tmp_path, "done before", "pass", after=("not here",)),
    ]
    found = ends(jobs)
    assert found["needs"].reason is None
    assert found["done before"].reason is None
    assert found["hopeless"].reason == "what it needs has failed"
    assert not (tmp_path / "hopeless.log").exists()


def test_as_many_at_once_as_there_are_places(tmp_path: Path) -> None:
    """The second waits for a word of the first, which waits for one of the second."""
    meet = (
        "import time, pathlib; own, other = {!r}, {!r}; pathlib.Path(own).touch()\n"
        "for _ in range(100):\n"
        "    if pathlib.Path(other).exists(): break\n"
        "    time.sleep(0.1)\n"
        "else: sys.exit(1)"
    )
    places = [str(tmp_path / name) for name in ("x", "y")]
    jobs = [job(tmp_path, "one", meet.format(*places)), job(tmp_path, "two", meet.format(*places[::-1]))]
    assert all(ended.reason is None for ended in ends(jobs).values())


def test_a_signal_is_passed_on_and_nothing_more_begins(tmp_path: Path) -> None:
    started = tmp_path / "started"
    waits = (
        "import signal, time, pathlib; signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        f"pathlib.Path({str(started)!r}).touch(); time.sleep(60)"
    )
    jobs = [job(tmp_path, "runs", waits, "pass"), job(tmp_path, "waits", "pass")]
    began = time.monotonic()
    with StopRequest() as stop:
        found = []
        crew = Crew(["auto"], program=PROGRAM)
        iterator = crew.run(jobs, stop=_When(stop, started))  # type: ignore[arg-type]
        found = list(iterator)
    assert time.monotonic() - began < 30
    assert [(ended.job.name, ended.stopped, ended.reason) for ended in found] == [("runs", True, None)]
    assert not (tmp_path / "waits.log").exists()


class _When:
    """A request that comes when a file is there."""

    def __init__(self, stop: StopRequest, file: Path) -> None:
        self.stop, self.file = stop, file

    def poll(self) -> signal.Signals | None:
        return signal.SIGTERM if self.file.exists() else None


@pytest.mark.parametrize("threads", [None, 3])
def test_threads_and_devices(tmp_path: Path, threads: int | None) -> None:
    code = "import os; print('threads', os.environ.get('OMP_NUM_THREADS'))"
    with StopRequest() as stop:
        list(Crew(["auto"], threads, program=PROGRAM).run([job(tmp_path, "one", code)], stop=stop))
    if threads:
        assert "threads 3" in (tmp_path / "one.log").read_text()
