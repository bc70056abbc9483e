"""Panoptic quality of a detector on a split of a data set, image by image: no results are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path

from dsctool.data.file_names import image_path
from dsctool.data.image_files import ImageFile
from dsctool.data.panoptic import PanopticFile, Segment, read_panoptic
from dsctool.data.panoptic_truth import panoptic_beside
from dsctool.data.pictures import picture_batches
from dsctool.engine.inference import detections, device_of, to_results
from dsctool.engine.panoptic import PanopticFusion, panoptic_fusion
from dsctool.engine.precision import require
from dsctool.engine.processes import LONE, Processes
from dsctool.engine.split_results import open_split
from dsctool.engine.views import in_views
from dsctool.errors import DataError, DsctoolError
from dsctool.evaluation.panoptic import Matching, PanopticQuality, pair_result, quality_of
from dsctool.models.detector import Detector
from dsctool.terms import Precision, Progress, Role


def panoptic_on_split(
    model: Detector,
    root: Path,
    *,
    split: Role = "val",
    labels: Path | None = None,
    semantic: Path | None = None,
    precision: Precision = "float32",
    progress: Progress | None = None,
    processes: Processes = LONE,
) -> PanopticQuality:
    """PQ of ``model``'s panoptic results, as ``predict --panoptic`` makes them, on a split of the data set ``root``.

    The truth is ``annotations/panoptic_<split>.json``, with PNGs beside it; its categories have the names of the
    model's classes and stuff, whatever their ids. The images are those that AP is measured on: with ``data.val_share``
    those that were held out.

    labels, semantic: as for :func:`~dsctool.engine.panoptic.panoptic_fusion`. processes: share the images; every one
    gets the numbers.

    Raises:
        DataError: the split has faults, or no such truth, or one that lacks an image or a category of the model.
        DsctoolError: the model cannot make panoptic results.
    """
    device = device_of(model)
    require(precision, device)
    config = model.config.data
    if config.tiles is not None:
        raise DsctoolError("panoptic results are of whole images: set data.tiles=null")
    files, data = open_split(model, root, split, progress=progress, processes=processes)
    infos = [data.dataset.image_info(index) for index in range(len(data.dataset))]
    images = [ImageFile(image_path(files.images, info.file_name), info.id, info.size) for info in infos]
    with processes.together():
        truth = _of_images(read_panoptic(panoptic_beside(files.annotations)), images)
        fusion = panoptic_fusion(model, labels=labels, semantic=semantic, precision=precision)
        ids = _matched_categories(fusion, truth)
    ranks = processes.ranks
    own: list[Matching] = []
    with processes.together():
        for matching in _matchings(fusion, truth, images[ranks.rank :: ranks.world], ids, precision=precision):
            own.append(matching)
            if progress is not None:
                done = min(len(own) * ranks.world, len(images))
                progress(in_views("eval", config.tta), done, len(images))
    shares = processes.gather(own) or []

    def measure() -> PanopticQuality:
        in_turns = chain.from_iterable(zip_longest(*shares))
        matchings = [matching for matching in in_turns if matching is not None]
        return quality_of(truth, Matching.join(matchings), notes=data.notes)

    return processes.on_first(measure)


def _matchings(
    fusion: PanopticFusion,
    truth: PanopticFile,
    images: Sequence[ImageFile],
    ids: dict[int, int],
    *,
    precision: Precision,
) -> Iterator[Matching]:
    model = fusion.model
    batches = picture_batches(images, model.config.data)
    asked = fusion.semantic is None
    for picture, found in detections(model, batches, device=device_of(model), semantic=asked, precision=precision):
        results = to_results(found, picture.image_id, model.categories)
        fused = fusion(picture, found, results)
        segments = [Segment(segment.id, ids[segment.category]) for segment in fused.segments]
        name = picture.file_name
        yield Matching.of(pair_result(truth, picture.image_id, segments, fused.ids, png=name, where=name))


def _matched_categories(fusion: PanopticFusion, truth: PanopticFile) -> dict[int, int]:
    """The truth's id for every id of the model's panoptic categories: they have the same names."""
    known = {(each.name, each.is_thing): each.id for each in truth.categories}
    missing = [each.name for each in fusion.categories if (each.name, each.is_thing) not in known]
    if missing:
        shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        raise DataError(f"{truth.path}: lacks categories of the model: {shown}. Names must agree; ids may differ")
    return {each.id: known[each.name, each.is_thing] for each in fusion.categories}


def _of_images(truth: PanopticFile, images: Sequence[ImageFile]) -> PanopticFile:
    """The truth of these images alone, in their order."""
    for image in images:
        if image.id not in truth.entries:
            raise DataError(f"{truth.path}: image {image.id} of the split has no entry in annotations")
    return replace(truth, entries={image.id: truth.entries[image.id] for image in images})
