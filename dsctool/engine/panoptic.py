"""From what a detector finds in an image to a panoptic result, which has one segment for every pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dsctool.coco_results import Result
from dsctool.config.model_schema import STUFFTHINGMAPS_CLASSES
from dsctool.config.schema import Config, PanopticConfig
from dsctool.data.panoptic import PanopticCategory, segment_entries, write_ids
from dsctool.data.pictures import Picture
from dsctool.data.records import Category
from dsctool.data.semantic_results import SemanticResults, read_semantic_results
from dsctool.data.stuff import COCO_STUFF, LABELS, StuffChannels, category_color, name_channels, read_labels
from dsctool.engine.precision import computing_in
from dsctool.engine.sets import semantic_channels
from dsctool.engine.views import semantic_groups
from dsctool.engine.work_file import PanopticEntry
from dsctool.errors import DataError, DsctoolError, memory_for
from dsctool.interop.coco_categories import COCO_CATEGORIES
from dsctool.models.detector import Detector
from dsctool.models.panoptic import MIN_SCORES, Fused, FusionSettings, Stuff, Things, fuse, labelled_stuff
from dsctool.models.views import groups_of
from dsctool.ops.masks import paste_probabilities
from dsctool.structures import Detections
from dsctool.terms import Precision


@dataclass(frozen=True)
class PanopticFusion:
    """A detector's instances, and the stuff of its semantic branch or of a file.

    model: in eval mode.
    channels: of the semantic branch, and what they mean. semantic: stuff from a file, in place of the branch's.
    precision: what the branch computes in.
    """

    model: Detector
    channels: StuffChannels
    semantic: SemanticResults | None
    settings: FusionSettings
    precision: Precision = "float32"

    @property
    def categories(self) -> list[PanopticCategory]:
        """The detector's classes as things, then stuff."""
        return panoptic_categories(self.model, self.channels)

    def __call__(self, picture: Picture, found: Detections, results: Sequence[Result]) -> Fused:
        """The panoptic result of an image. results: ``found`` as COCO results.

        Raises:
            DataError: a mask of the semantic file does not fit the image.
        """
        return fuse(found.size, self.things(found, results), self._stuff(picture, found), self.settings)

    def things(self, found: Detections, results: Sequence[Result]) -> Things:
        """The instances of an image, for any rule. Their masks are drawn when they are asked for."""
        probs = found.mask_probs
        assert probs is not None

        def probability(row: int) -> NDArray[np.float32]:
            boxes = found.boxes[row : row + 1]
            pasted = paste_probabilities(probs[row : row + 1], boxes, found.size, whole_pixels=found.whole_pixels)
            return pasted[0].cpu().numpy()

        return Things(
            scores=[result["score"] for result in results],
            categories=[result["category_id"] for result in results],
            boxes=found.boxes.float().cpu().numpy(),
            mask=_decoded([result["segmentation"] for result in results]),
            probability=probability,
        )

    def _stuff(self, picture: Picture, found: Detections) -> Stuff:
        if self.semantic is not None:
            rows = self.semantic.of(picture.image_id, picture.original_size)
            return Stuff([category for category, _ in rows], _decoded([mask for _, mask in rows]))
        groups = self.channels.groups
        if found.semantic is not None:
            labels = groups_of(found.semantic, picture.input_size, picture.original_size, groups)
        else:  # in several views
            device = next(self.model.parameters()).device
            task, remedy = f"telling stuff in {picture.file_name}", "Lower data.test_resize, or cut large images."
            with memory_for(task, remedy=remedy), computing_in(self.precision, device):
                labels = semantic_groups(self.model, picture.pixels, groups)
        return labelled_stuff(labels.cpu().numpy(), [each.id for each in self.channels.stuff])


def panoptic_fusion(
    model: Detector, *, labels: Path | None = None, semantic: Path | None = None, precision: Precision = "float32"
) -> PanopticFusion:
    """How ``model``'s results become panoptic ones, by its configuration's ``panoptic``.

    labels: names of the semantic branch's channels, in place of ``panoptic.labels`` or COCO-Stuff's. semantic: COCO
    semantic results, in place of what the branch says.

    Raises:
        DsctoolError: the model has no masks; or it knows no stuff, and there is no file that does.
        DataError: a file cannot be used.
    """
    config = model.config
    if not model.has_masks:
        raise DsctoolError("a panoptic result needs masks, but this model has boxes only")
    if semantic is None and not (model.has_semantic and config.data.semantic == "stuffthingmaps"):
        why = (
            "its semantic branch learnt from the instances alone (data.semantic=instances)"
            if model.has_semantic
            else "it has no semantic branch"
        )
        raise DsctoolError(
            f"this model knows nothing of stuff: {why}. Give stuff by --semantic FILE (COCO semantic results), or "
            "train with data.semantic=stuffthingmaps"
        )
    channels = _channels(model, labels)
    if semantic is None and channels.count > (has := semantic_channels(config) or config.stuff_channels):
        source = labels or ("COCO-Stuff" if channels is COCO_STUFF else "panoptic.labels")
        raise DataError(f"{source}: names channel {channels.count - 1} (from 0 on), the semantic branch has {has}")
    results = None
    if semantic is not None:
        stuff = {each.id for each in channels.stuff}
        classes = COCO_CATEGORIES if channels is COCO_STUFF else model.categories
        results = read_semantic_results(semantic, stuff=stuff, things={each.id for each in classes})
    return PanopticFusion(model, channels, results, fusion_settings(config.panoptic), precision)


def save_fused(result: Fused, image_id: int, folder: Path, name: str) -> PanopticEntry:
    """Write the PNG ``name`` of an image to ``folder``, whole or not at all; what the JSON file says of it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    segments = [(segment.id, segment.category) for segment in result.segments]
    entries = segment_entries(result.ids, segments, where=f"image {image_id}:")
    write_ids(path, result.ids)
    return PanopticEntry(image_id=image_id, file_name=PurePath(name).as_posix(), segments_info=entries)


def fusion_settings(config: PanopticConfig) -> FusionSettings:
    """The settings that a configuration describes."""
    least = MIN_SCORES[config.rule] if config.min_score is None else config.min_score
    return FusionSettings(config.rule, least, config.overlap, config.stuff_area, config.pixel)


def panoptic_categories(model: Detector, channels: StuffChannels) -> list[PanopticCategory]:
    """The detector's classes as things, then stuff; colours follow from the ids."""
    things = [(each.id, each.name, True) for each in model.categories]
    stuff = [(each.id, each.name, False) for each in channels.stuff]
    return [
        PanopticCategory(id_, name, is_thing, category_color(id_, is_thing=is_thing))
        for id_, name, is_thing in (*things, *stuff)
    ]


def _channels(model: Detector, labels: Path | None) -> StuffChannels:
    names = model.config.panoptic.labels if labels is None else read_labels(labels)
    if names is None:
        if set(model.categories) <= set(COCO_CATEGORIES):
            return COCO_STUFF
        raise DsctoolError(
            "this model's classes are not COCO's, so its stuff has no names: give them by --stuff-labels FILE, a line "
            "'NUMBER: NAME' for each value of the semantic maps, as in the stuffthingmaps/labels.txt of generated data"
        )
    if (channels := name_channels(names, model.categories)) is None:
        raise DataError(f"{labels or 'panoptic.labels'}: names no stuff: all its names are classes of the detector")
    return channels


def with_stuff_names(config: Config, maps: Path | None, categories: Sequence[Category]) -> tuple[Config, list[str]]:
    """``config`` with the names that ``labels.txt`` beside a folder of semantic maps has, and what to say about it.

    As it is where it has names, where stuff is COCO-Stuff's, and where there is no such file.
    """
    path = None if maps is None else maps.parent / LABELS
    if path is None or not path.is_file() or config.panoptic.labels is not None:
        return config, []
    if config.data.semantic != "stuffthingmaps":
        return config, []
    try:
        names = read_labels(path)
    except DataError as error:
        return config, [f"{error}. Stuff has no names in this run; predict --panoptic will need --stuff-labels"]
    if set(categories) <= set(COCO_CATEGORIES) and len(names) <= STUFFTHINGMAPS_CLASSES:
        return config, []  # COCO-Stuff's own
    panoptic = config.panoptic.model_copy(update={"labels": names})
    return config.model_copy(update={"panoptic": panoptic}), []


def _decoded(masks: Sequence[Mapping[str, object]]) -> Callable[[int], NDArray[np.bool_]]:
    """Gives the bitmap of the i-th."""
    return lambda row: np.asarray(coco_mask.decode(dict(masks[row])), dtype=np.bool_)
