"""A detector measured on a split of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from dsctool.coco_results import Result
from dsctool.config.schema import DataConfig
from dsctool.data.loader import eval_loader
from dsctool.data.records import Category
from dsctool.engine.inference import Model, OnImage, run_inference
from dsctool.engine.sets import EvaluationSet
from dsctool.errors import DataError
from dsctool.evaluation.coco import Evaluation, evaluate_all


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
