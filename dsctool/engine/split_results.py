"""A detector on a split of a data set: its results there, and what COCO's evaluation says about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import get_args

import torch

from dsctool.coco_results import Result
from dsctool.config.schema import DataConfig, TrainConfig
from dsctool.data.classes import lacking, match_categories
from dsctool.data.layout import SplitFiles, find_split
from dsctool.data.records import Category
from dsctool.data.transforms import SampleInfo
from dsctool.engine.inference import Model, Runnable, device_of, ready, to_results
from dsctool.engine.limits import LimitCount, crowding_notes
from dsctool.engine.precision import require
from dsctool.engine.processes import LONE, Processes
from dsctool.engine.sets import EvaluationSet, open_evaluation_set, open_part
from dsctool.engine.tiles import found_in_set, worst_shrunk
from dsctool.engine.views import in_views
from dsctool.errors import DataError
from dsctool.evaluation.coco import Evaluation, evaluate_all, evaluate_comparison
from dsctool.evaluation.comparison import Comparison, compare
from dsctool.evaluation.protocol import Protocol, up_to
from dsctool.evaluation.sources import GroundTruthSource
from dsctool.structures import Detections
from dsctool.terms import Precision, Progress, Role

Found = tuple[SampleInfo, Detections]
"""An image, and what is in it."""
Watch = Callable[[Iterator[Found]], Iterable[Found]]
"""Passes on what it is given, and may say how far it is, or stop it by an exception."""


@dataclass(frozen=True)
class SplitResults:
    """files: of the split. ground_truth: what the results are about, without what ``data.on_error`` leaves out.

    candidates: boxes before NMS, where the detector keeps them. protocol: how the model's configuration counts.
    notes: for people, on what was left out of the data, and by the detector's limits.
    """

    files: SplitFiles
    ground_truth: GroundTruthSource
    results: list[Result]
    candidates: list[Result]
    protocol: Protocol
    notes: tuple[str, ...]


def evaluate_model(
    model: Runnable | Path | str,
    data: Path | str,
    *,
    split: Role = "val",
    device: str | None = None,
    precision: Precision = "float32",
    progress: Progress | None = None,
) -> Evaluation:
    """COCO's numbers of a detector on a split of the data set in the folder ``data``: what ``dsctool eval`` prints.

    >>> dsctool.evaluate_model("runs/x/best.pt", "datasets/coco").stats["segm"]["AP"]

    ``train.eval_max_dets`` of the model's configuration says how many detections count. A model that was trained with
    ``data.val_share`` is measured on the images that were held out then; ``data.val_share=null`` changes that.

    model: a detector, or a checkpoint. device: as ``dsctool eval --device`` has
    it; None is where a detector is, and ``auto`` for a checkpoint. precision: what the detector computes
    in. progress: told how many images are done.

    Raises:
        DataError: the data set has faults, or other categories than the model, or there is no such split.
    """
    run = run_on_split(ready(model, device), Path(data), split=split, precision=precision, progress=progress)
    evaluation = evaluate_all(run.ground_truth, run.results, protocol=run.protocol)
    return replace(evaluation, notes=[*run.notes, *evaluation.notes])


def run_on_split(
    model: Runnable,
    root: Path,
    *,
    split: Role = "val",
    task: str = "eval",
    precision: Precision = "float32",
    progress: Progress | None = None,
    processes: Processes = LONE,
) -> SplitResults:
    """What ``model`` finds in a split of the data set ``root``, as :func:`evaluate_model` measures it.

    task: what running the model is called in ``progress``. processes: share the images; the first one has all results,
    the others none.
    """
    require(precision, device_of(model))
    config = model.config.data
    files, data = open_split(model, root, split, progress=progress, processes=processes)
    categories = match_categories(model.categories, data.dataset.categories, files.annotations, data.dataset.met)

    limits = LimitCount()
    shown = in_views(task, config.tta)

    def watched(found: Iterator[Found]) -> Iterator[Found]:
        for number, image in enumerate(found, start=1):
            limits.add(image[1])
            yield image
            if progress is not None:
                progress(shown, min(number * processes.ranks.world, len(data.dataset)), len(data.dataset))

    device = device_of(model)
    results, candidates = _collect(
        model, data, config, categories, device=device, watch=watched, precision=precision, processes=processes
    )
    limits = LimitCount.total(processes.gather(limits) or [])
    said = limits.notes(model.config, instances=data.dataset.most_instances)
    said = said or crowding_notes(model.config, [data.dataset], training=False)
    protocol = protocol_of(model.config.train)
    lacks = lacking(model.categories, data.dataset.categories)
    shrunk = worst_shrunk(data.dataset, config)
    notes = (*data.notes, *shrunk, *([f"{files.annotations}: {lacks}"] if lacks else []), *said)
    return SplitResults(files, data.ground_truth, results, candidates, protocol, notes)


def open_split(
    model: Runnable, root: Path, split: Role, *, progress: Progress | None = None, processes: Processes = LONE
) -> tuple[SplitFiles, EvaluationSet]:
    """What ``model`` is measured on: a split of the data set ``root``, or what its training left out of the images.

    Raises:
        DataError: there is no such split, or it has faults.
    """
    if split not in get_args(Role):
        raise DataError(f"{split}: no split; there are {' and '.join(get_args(Role))}")
    config, masks = model.config.data, model.has_masks
    if config.val_share is None:
        files = find_split(root, config.val if split == "val" else config.train, split)
        return files, open_evaluation_set(files, config, masks=masks, progress=progress, processes=processes)
    files, seed = find_split(root, config.train, "train"), model.config.train.seed
    part = open_part(files, config, split, seed=seed, masks=masks, progress=progress, processes=processes)
    return files, part


def evaluate_detector(
    model: Model,
    data: EvaluationSet,
    config: DataConfig,
    categories: Sequence[Category | None],
    *,
    device: torch.device,
    watch: Watch = iter,
    protocol: Protocol | None = None,
    processes: Processes = LONE,
    timeout: float = 0,
) -> tuple[Evaluation, Comparison | None]:
    """COCO numbers of a detector on a split that is open, and its results beside the truth, for further analyses.

    processes: share the images; the first one measures, tells the others the numbers and has the comparison.
    timeout: seconds that loading may take.

    categories: by label, with the data set's ids. watch: sees every image when its instances have been found.
    protocol: how they are counted, as COCO does where None.
    """
    results, _ = _collect(
        model, data, config, categories, device=device, watch=watch, processes=processes, timeout=timeout
    )

    def measure() -> tuple[Evaluation, Comparison | None]:
        comparison = compare(data.ground_truth, results, protocol=protocol)
        return evaluate_comparison(comparison), comparison

    return processes.on_first(measure, send=lambda measured: (measured[0], None))


def protocol_of(config: TrainConfig) -> Protocol:
    """How a run counts."""
    return Protocol(max_dets=up_to(config.eval_max_dets))


def _collect(
    model: Model,
    data: EvaluationSet,
    config: DataConfig,
    categories: Sequence[Category | None],
    *,
    device: torch.device,
    watch: Watch,
    processes: Processes,
    precision: Precision = "float32",
    timeout: float = 0,
) -> tuple[list[Result], list[Result]]:
    """The results over a split, and the candidates where the model keeps them, image by image in the first process."""
    results: list[list[Result]] = []
    candidates: list[list[Result]] = []
    stream = found_in_set(
        model, data.dataset, config, device=device, ranks=processes.ranks, precision=precision, timeout=timeout
    )
    with processes.together():
        for info, found in watch(stream):
            results.append(to_results(found, info.image_id, categories))
            kept = found.candidates
            candidates.append([] if kept is None else to_results(kept, info.image_id, categories))
    return _in_turns(processes.gather(results)), _in_turns(processes.gather(candidates))


def _in_turns(shares: list[list[list[Result]]] | None) -> list[Result]:
    """What the processes found, in the order of the images: one of each, one after the other."""
    rounds = zip_longest(*(shares or []), fillvalue=[])
    return list(chain.from_iterable(chain.from_iterable(rounds)))
