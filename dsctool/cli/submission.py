"""``dsctool eval --test-dev``: what COCO's server takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import typer

from dsctool.cli.options import ComputedIn, as_option
from dsctool.cli.output import counting, keep_apart, prepare_folder
from dsctool.cli.resumable import RunFiles, prepare_run
from dsctool.cli.run_model import inference_processes

WORK = "test-dev.work.jsonl"
_ZIPS = tuple(f"{kind}/detections_*_results.zip" for kind in ("bbox", "segm"))
FILES = RunFiles(
    work=WORK,
    results=_ZIPS[0],
    record=(*_ZIPS, WORK),
    own=(*_ZIPS, WORK),
    cut=tuple(f"{kind}/.detections_*_results.zip.*.tmp" for kind in ("bbox", "segm")),
)


class Submission(NamedTuple):
    """What is run, and where its results go. config: the name of published weights' configuration."""

    checkpoint: Path
    config: str | None
    overrides: Sequence[str]
    data: Path
    output: Path
    algorithm: str | None
    precision: ComputedIn
    device: str


def check_options(*, test_dev: bool, needed: Mapping[str, object], others: Mapping[str, object]) -> None:
    """Refuse what makes no sense together. needed: options of ``--test-dev`` alone. others: those it cannot have."""
    if not test_dev:
        given = [name for name, value in needed.items() if value]
        if given:
            more = ", --counts or --operating-point" if given == ["--output"] else ""
            raise typer.BadParameter(f"{', '.join(given)}: only with --test-dev{more}")
        return
    given = [name for name, value in others.items() if value]
    if given:
        raise typer.BadParameter(
            f"--test-dev cannot have {', '.join(given)}: the annotations of these images are with COCO's server, which "
            "alone measures; --test-dev only writes the files to upload"
        )
    if not needed["--output"]:
        raise typer.BadParameter("--test-dev needs --output DIR, the folder for the files to upload")


def write_test_dev(submission: Submission, *, resume: bool, overwrite: bool) -> None:
    """Run a checkpoint on COCO's test-dev images, and write what the server takes."""
    from dsctool.engine.submission import (
        UnannotatedSet,
        algorithm_name,
        results_name,
        run_unannotated,
        write_submission,
    )
    from dsctool.engine.work_file import WorkFile, describe_run
    from dsctool.interop.checkpoint import load_model

    if resume and overwrite:
        raise typer.BadParameter("--resume goes on with what is there, --overwrite removes it: give one of them")
    checkpoint, config, overrides, data, output, algorithm, precision, device = submission
    with inference_processes(device, precision) as (processes, chosen), counting() as progress, ExitStack() as stack:
        work: WorkFile | None = None
        with processes.together():
            model = load_model(checkpoint, overrides=overrides, device=chosen, config=config)
            images = UnannotatedSet.open(model, data, progress if processes.first else None)
            name = results_name(images.name, algorithm_name(algorithm or config or checkpoint.stem))
            if processes.first:
                prepare_folder(output)
                keep_apart([output / WORK], [checkpoint])
                prepare_run(output, FILES, resume=resume, overwrite=overwrite, inputs=[checkpoint])
                run = describe_run(
                    checkpoint, images.images, config=config, overrides=list(overrides), test_dev=images.name,
                    device=chosen.type, **as_option(precision),
                )  # fmt: skip
                work = stack.enter_context((WorkFile.resume if resume else WorkFile.begin)(output / WORK, run))
        try:
            limits = run_unannotated(model, images, work, progress, precision=precision.value, processes=processes)
        except KeyboardInterrupt:
            if work is not None:
                total = len(images.reading.images)
                typer.echo(f"{output}: {len(work)} of {total} images are done; go on by --resume", err=True)
            raise
        if work is None:
            return
        count = len(work)
        paths = write_submission(work, output, name, masks=model.has_masks)
        work.remove()
    for path in paths:
        kind = f"{images.name}, {path.parent.name}"
        typer.echo(f"{path}: results for {count} images; to be uploaded to COCO's server as {kind}")
    for note in limits.notes(model.config):
        typer.echo(note, err=True)
