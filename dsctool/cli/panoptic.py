"""``dsctool eval --panoptic``: panoptic quality, of files or of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dsctool.cli.options import ComputedIn, Split
from dsctool.cli.output import beside, counting, keep_apart, prepare_file, write_json
from dsctool.cli.run_model import inference_processes
from dsctool.cli.tables import print_table
from dsctool.errors import DsctoolError

if TYPE_CHECKING:
    from dsctool.data.image_files import ImageFile
    from dsctool.data.semantic_results import SemanticResults
    from dsctool.evaluation.panoptic import CategoryQuality, GroupQuality, PanopticQuality


def check_panoptic_options(
    *,
    checkpoint: Path | None,
    data: Path | None,
    ground_truth: Path | None,
    predictions: Path | None,
    for_models: Mapping[str, object],
    others: Mapping[str, object],
) -> None:
    """Refuse what makes no sense with ``--panoptic``. others: options that it cannot have. for_models: that files
    cannot have."""
    given = [name for name, value in others.items() if value]
    if given:
        raise typer.BadParameter(f"--panoptic cannot have {', '.join(given)}: it measures panoptic quality alone")
    if checkpoint is not None and data is not None:
        if ground_truth is not None or predictions is not None:
            raise typer.BadParameter(
                "--panoptic runs CHECKPOINT on --data DIR, or compares --ground-truth FILE and --predictions FILE; "
                "predict --panoptic writes results"
            )
        return
    if checkpoint is not None or data is not None:
        raise typer.BadParameter("--panoptic needs CHECKPOINT and --data DIR, to run a model")
    running = [name for name, value in for_models.items() if value]
    if running:
        raise typer.BadParameter(f"--panoptic of two files cannot have {', '.join(running)}, for it runs no model")
    if ground_truth is None or predictions is None:
        raise typer.BadParameter(
            "--panoptic needs CHECKPOINT and --data DIR, or --ground-truth FILE and --predictions FILE, both panoptic "
            "JSON"
        )


def measure_panoptic(
    ground_truth: Path, predictions: Path, *, json_file: Path | None = None, per_class: bool = False
) -> None:
    """Compare two panoptic files, and show the numbers."""
    from dsctool.evaluation.panoptic import evaluate_panoptic

    keep_apart([json_file], [ground_truth, predictions])
    prepare_file(json_file)
    with counting() as progress:
        quality = evaluate_panoptic(ground_truth, predictions, progress=progress)
    _give(quality, json_file, per_class=per_class)


def measure_panoptic_model(
    checkpoint: Path,
    overrides: Sequence[str],
    root: Path,
    split: Split,
    *,
    config: str | None,
    precision: ComputedIn,
    device: str,
    json_file: Path | None = None,
    per_class: bool = False,
) -> None:
    """Run a model on a split that has panoptic truth, and show the numbers. config: of a published file."""
    from dsctool.engine.panoptic_quality import panoptic_on_split
    from dsctool.interop.checkpoint import load_model

    with inference_processes(device, precision) as (processes, chosen):
        if processes.first:
            keep_apart([json_file], [checkpoint])
            prepare_file(json_file)
        model = load_model(checkpoint, overrides=overrides, device=chosen, config=config)
        with counting() as progress:
            quality = panoptic_on_split(
                model,
                root,
                split=split.value,
                precision=precision.value,
                progress=progress if processes.first else None,
                processes=processes,
            )
        if processes.first:
            _give(quality, json_file, per_class=per_class)


def _give(quality: PanopticQuality, json_file: Path | None, *, per_class: bool) -> None:
    if json_file is not None:
        write_json(json_file, as_json(quality), indent=2)
    with beside(json_file):
        show_panoptic(quality, per_class=per_class)


def as_json(quality: PanopticQuality) -> dict[str, object]:
    """All numbers; those of a category whether or not there is something to measure."""
    return {
        **{name: _group(each) for name, each in _groups(quality).items()},
        "per_class": [_category(each) for each in quality.categories],
        "images": quality.images,
    }


def show_panoptic(quality: PanopticQuality, *, per_class: bool) -> None:
    """The table that panopticapi prints; before it, where asked for, one of the categories."""
    if per_class:
        rows = [
            [str(row.id), row.name, "thing" if row.is_thing else "stuff", *_cells(row),
             str(row.tp), str(row.fp), str(row.fn)]
            for row in quality.categories
        ]  # fmt: skip
        print_table(["id", "category", "kind", "PQ", "SQ", "RQ", "TP", "FP", "FN"], rows)
        if not all(row.counted for row in quality.categories):
            typer.echo("-1: no segment of the category counts")
        typer.echo()
    rows = [[name, *_cells(each), str(each.n)] for name, each in _groups(quality).items()]
    print_table(["", "PQ", "SQ", "RQ", "categories"], rows)
    for note in quality.notes:
        typer.echo(note)


def _groups(quality: PanopticQuality) -> dict[str, GroupQuality]:
    return {"all": quality.all, "things": quality.things, "stuff": quality.stuff}


def _group(quality: GroupQuality) -> dict[str, float]:
    return {"PQ": quality.pq, "SQ": quality.sq, "RQ": quality.rq, "n": quality.n}


def _category(quality: CategoryQuality) -> dict[str, object]:
    return {
        "id": quality.id,
        "name": quality.name,
        "isthing": int(quality.is_thing),
        "PQ": quality.pq,
        "SQ": quality.sq,
        "RQ": quality.rq,
        "TP": quality.tp,
        "FP": quality.fp,
        "FN": quality.fn,
        "iou": quality.iou,
    }


def _cells(quality: CategoryQuality | GroupQuality) -> list[str]:
    return ["-1" if value == -1 else f"{value:.3f}" for value in (quality.pq, quality.sq, quality.rq)]


def panoptic_options(semantic: Path | None, labels: Path | None) -> dict[str, str | bool]:
    """What a work file says of a panoptic run: the files that it reads by their content."""
    import hashlib

    files = {"semantic": semantic, "stuff_labels": labels}
    read = {key: hashlib.sha256(path.read_bytes()).hexdigest() for key, path in files.items() if path is not None}
    return {"panoptic": True, **read}


def check_semantic(semantic: SemanticResults, files: Sequence[ImageFile]) -> None:
    """Results that have none of the images are about others, or call them something else.

    Sizes are compared now where they are known, and when an image is decoded where not.
    """
    if not any(file.id in semantic for file in files):
        raise DsctoolError(
            f"{semantic.path}: has stuff of none of these images, whose ids begin with {files[0].id}. "
            "--images-json FILE gives images the ids that a COCO file has for them"
        )
    for file in files:
        if file.size is not None:
            semantic.check(file.id, file.size)
