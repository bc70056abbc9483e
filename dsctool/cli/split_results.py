"""A checkpoint's results on a split of a data set, for the commands that measure them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dsctool.cli.output import counting, image_progress

if TYPE_CHECKING:
    from dsctool.coco_results import Result
    from dsctool.data.layout import SplitFiles
    from dsctool.evaluation.sources import GroundTruthSource


class Split(StrEnum):
    """Which part of the data set."""

    VAL = "val"
    TRAIN = "train"


@dataclass(frozen=True)
class SplitResults:
    """files: of the split. ground_truth: what the results are about, without what ``data.on_error`` leaves out.

    candidates: boxes before NMS, where the configuration keeps them.
    """

    files: SplitFiles
    ground_truth: GroundTruthSource
    results: list[Result]
    candidates: list[Result]


def predict_split(
    path: Path, overrides: list[str], root: Path, split: Split, *, device: str, task: str
) -> SplitResults:
    """Run a checkpoint on a split. overrides: of its configuration. task: what its progress is called."""
    from dsctool.config.loading import override_config
    from dsctool.data.layout import find_split
    from dsctool.data.loader import eval_loader
    from dsctool.engine.environment import pick_device
    from dsctool.engine.evaluation import match_categories
    from dsctool.engine.inference import run_inference
    from dsctool.engine.sets import open_evaluation_set
    from dsctool.interop.checkpoint import detector_from, load_checkpoint

    chosen = pick_device(device)
    checkpoint = load_checkpoint(path)
    config = override_config(checkpoint.config, overrides, source=str(path)) if overrides else checkpoint.config
    files = find_split(root, config.data.val if split is Split.VAL else config.data.train, split.value)
    model = detector_from(replace(checkpoint, config=config), source=path).to(chosen)
    with counting() as progress:
        data = open_evaluation_set(files, config.data, masks=model.has_masks, progress=progress)
    categories = match_categories(checkpoint.categories, data.dataset.categories, files.annotations)
    for note in data.notes:
        typer.echo(note, err=True)
    loader = eval_loader(data.dataset, config.data)
    candidates: list[Result] = []
    with image_progress(len(data.dataset), task) as advance:
        results = run_inference(
            model,
            loader,
            categories,
            device=chosen,
            on_image=lambda info, found: advance(),
            on_candidates=lambda info, found: candidates.extend(found),
        )
    return SplitResults(files, data.ground_truth, results, candidates)
