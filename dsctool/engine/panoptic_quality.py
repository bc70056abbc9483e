"""Panoptic quality of a detector on a split of a data set, image by image: no results are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path

from dsctool.data.image_files import ImageFile
from dsctool.data.layout import find_split
from dsctool.data.panoptic import PanopticFile, Segment, read_panoptic
from dsctool.data.panoptic_rules import ImageId
from dsctool.data.panoptic_truth import panoptic_beside
from dsctool.data.pictures import picture_batches
from dsctool.engine.inference import detections, device_of, to_results
from dsctool.engine.panoptic import PanopticFusion, panoptic_fusion
from dsctool.engine.precision import require
from dsctool.engine.processes import LONE, Processes
from dsctool.engine.views import in_views
from dsctool.errors import DataError
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

    The truth is ``annotations/panoptic_<split>.json``, with PNGs beside it; its images are those of the split, and its
    categories have the names of the model's classes and stuff, whatever their ids.

    labels, semantic: as for :func:`~dsctool.engine.panoptic.panoptic_fusion`. processes: share the images; every one
    gets the numbers.

    Raises:
        DataError: there is no such truth, or it lacks a category of the model; an image or a PNG cannot be read.
        DsctoolError: the model cannot make panoptic results.
    """
    device = device_of(model)
    require(precision, device)
    config = model.config.data
    with processes.together():
        files = find_split(root, config.val if split == "val" else config.train, split)
        truth = read_panoptic(panoptic_beside(files.annotations))
        fusion = panoptic_fusion(model, labels=labels, semantic=semantic, precision=precision)
        ids = _matched_categories(fusion, truth)
        images = [_image_file(truth, image_id, files.images) for image_id in truth.entries]
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
        return quality_of(truth, Matching.join([matching for matching in in_turns if matching is not None]))

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


def _image_file(truth: PanopticFile, image_id: ImageId, folder: Path) -> ImageFile:
    info = truth.images.get(image_id)
    if info is None or not info.file_name:
        raise DataError(f"{truth.path}: image {image_id} is in no entry of 'images', where its name is")
    if not isinstance(image_id, int):
        raise DataError(f"{truth.path}: image {image_id!r}: to run a model on it, its id must be a number")
    return ImageFile(folder / info.file_name, image_id, info.size if info.height else None)
