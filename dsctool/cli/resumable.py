"""Folders of runs that go on where they were stopped (``--resume``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsctool.cli.output import clear_results
from dsctool.errors import DsctoolError


@dataclass(frozen=True)
class RunFiles:
    """What a command writes to its folder, as patterns.

    work: the name of the work file. results: what is there when a run has ended. record: what shows that a run was
    made here at all. own: everything. cut: what a run that was killed can leave of the file it was writing.
    """

    work: str
    results: str
    record: tuple[str, ...]
    own: tuple[str, ...]
    cut: tuple[str, ...]


def prepare_run(output: Path, files: RunFiles, *, resume: bool, overwrite: bool, inputs: Sequence[Path | None]) -> None:
    """Find everything that is in the way of a run, and clear the folder of an earlier one where ``overwrite`` says so.

    inputs: files that the run reads, which stay.
    """
    from dsctool.engine.work_file import refuse_running

    work = output / files.work
    refuse_running(work)
    stopped = work.exists()
    if resume and not stopped and any(output.glob(files.results)):
        raise DsctoolError(f"{output}: its run has ended: there is nothing to resume. --overwrite begins anew.")
    if stopped and not resume and not overwrite:
        raise DsctoolError(
            f"{output}: holds an unfinished run; go on with it by --resume, or begin anew with --overwrite"
        )
    clear_results(output, files.cut, overwrite=True, keep=inputs)
    if not (resume and stopped):
        ran = any(any(output.glob(name)) for name in files.record)
        clear_results(output, files.own, overwrite=overwrite, keep=inputs, made=lambda path: ran)
