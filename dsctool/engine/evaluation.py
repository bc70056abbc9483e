"""A detector measured on a split of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dsctool.config.schema import DataConfig
from dsctool.data.checks import DECODE_LIMIT, Progress, check_split
from dsctool.data.coco import CocoDataset
from dsctool.data.faults import Exclusions, exclusions
from dsctool.data.layout import SplitFiles
from dsctool.data.loader import eval_loader
from dsctool.data.records import AnnotationFile, Category, read_annotation_file
from dsctool.engine.inference import Model, OnImage, Result, run_inference
from dsctool.errors import DataError
from dsctool.evaluation.coco import Evaluation, evaluate_all


@dataclass(frozen=True)
class EvaluationSet:
    """A split to measure on.

    ground_truth: its COCO file, or what is in it without what ``data.on_error: skip`` leaves out.
    note: what was left out, for people; empty where nothing was.
    """

    dataset: CocoDataset
    ground_truth: Path | dict[str, Any]
    note: str = ""


def open_evaluation_set(
    files: SplitFiles,
    config: DataConfig,
    *,
    masks: bool,
    decode_images: bool = False,
    progress: Progress | None = None,
) -> EvaluationSet:
    """Open a split, its annotations and images checked as for training; semantic maps are not needed.

    masks: also check the segmentations, where the file has any.
    decode_images: read every pixel, as far as training does; False looks at the files' headers only.
    progress: told how many images are checked.

    Raises:
        DataError: there are faults and ``data.on_error`` is ``fail``; the message has one line per fault.
    """
    content = read_annotation_file(files.annotations)
    with_masks = masks and any(isinstance(entry, dict) and entry.get("segmentation") for entry in content.annotations)
    faults = check_split(
        replace(files, semantic_maps=None),
        decode_images=decode_images and len(content.images) <= DECODE_LIMIT,
        masks=with_masks,
        progress=progress,
    )
    exclude = exclusions(faults, config.on_error)
    dataset = CocoDataset.for_evaluation(files, config, exclude=exclude)
    if exclude == Exclusions():
        return EvaluationSet(dataset, files.annotations)
    counts = f"{len(exclude.images)} images and {len(exclude.annotations)} annotations"
    note = f"left out of {files.annotations}: {counts} (data.on_error=skip)"
    return EvaluationSet(dataset, _remaining(content, exclude), note)


def evaluate_detector(
    model: Model,
    data: EvaluationSet,
    config: DataConfig,
    categories: Sequence[Category],
    *,
    device: torch.device,
    on_image: OnImage | None = None,
) -> tuple[Evaluation, list[Result]]:
    """COCO numbers of a detector, and its results. categories: by label, with the data set's ids."""
    loader = eval_loader(data.dataset, config)
    results = run_inference(model, loader, categories, device=device, on_image=on_image)
    return evaluate_all(data.ground_truth, results), results


def match_categories(model: Sequence[Category], data: Sequence[Category], file: Path) -> list[Category]:
    """The data set's category for every label of a model: they must have the same names, ids may differ.

    Raises:
        DataError: they do not; the message names ``file`` and the categories that one of them lacks.
    """
    if list(model) == list(data):
        return list(data)
    by_name = {category.name: category for category in data}
    names = [category.name for category in model]
    if len(by_name) == len(data) and sorted(names) == sorted(by_name):
        return [by_name[name] for name in names]
    if sorted(names) == sorted(category.name for category in data):
        raise DataError(f"{file}: several categories have one name, and their ids are not the model's: rename them.")
    raise DataError(
        f"{file}: its categories are not the model's. Only in the data: {_listed(set(by_name) - set(names))}; "
        f"only in the model: {_listed(set(names) - set(by_name))}. Names must agree; ids may differ."
    )


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "none"


def _remaining(content: AnnotationFile, exclude: Exclusions) -> dict[str, Any]:
    return {
        "images": [entry for index, entry in enumerate(content.images) if index not in exclude.images],
        "annotations": [entry for index, entry in enumerate(content.annotations) if index not in exclude.annotations],
        "categories": content.categories,
    }
