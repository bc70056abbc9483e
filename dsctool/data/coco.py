"""COCO-format instances as a torch data set.

Annotations are used as the published recipes use them: those without area, narrower or lower than one
pixel, or outside the image but for a sliver are left out; crowd regions become boxes in ``Targets.crowd`` and have
no mask. Category ids may have gaps: class ``i`` is the category with the i-th smallest id.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dsctool.config.model_schema import GeometryName
from dsctool.config.schema import DataConfig
from dsctool.config.tiles_schema import TilesConfig
from dsctool.data.arrays import Images, Instances
from dsctool.data.augment import settled, train_transform
from dsctool.data.bands import RGB, Channels
from dsctool.data.classes import met_categories
from dsctool.data.columns import Reading, read_columns
from dsctool.data.drawing import Undrawn, areas_of, bitmaps
from dsctool.data.faults import Exclusions, exclusions
from dsctool.data.file_names import image_path
from dsctool.data.images import read_image
from dsctool.data.layout import SplitFiles
from dsctool.data.records import Annotation, ImageInfo, read_annotation_file
from dsctool.data.repeats import Repeats, read_weights, repeats_by_class
from dsctool.data.rules import Needs
from dsctool.data.samplers import SampleKey
from dsctool.data.semantic import read_semantic_map
from dsctool.data.tiles import fits, most_in_a_tile, random_window, tiles_of
from dsctool.data.transforms import (
    Annotated,
    Sample,
    SampleInfo,
    Transform,
    Unchanged,
    inference_transform,
)
from dsctool.data.usage import Usage
from dsctool.data.windows import read_window
from dsctool.errors import ConfigError, DataError
from dsctool.ops.spans import Window
from dsctool.rle import Bools

MIN_SIDE = 32
"""With ``keep_empty: false``, images with a shorter side are dropped too, in pixels."""


class CocoDataset(Dataset[Sample]):
    """Images and annotations of one split; build it with :meth:`for_training` or :meth:`for_evaluation`.

    Annotations stay in memory as flat arrays, one copy for all worker processes; masks are drawn when their image is
    asked for.

    categories: by ascending id; the index is the class label. met: ids of those that annotations have.
    num_instances: annotations used that are not crowds.
    most_instances: of them, the most in one image, or in one tile of ``data.tiles``.
    repeats: how often each image is trained on in an epoch, on average; None: once.
    notes: what is not used, for people.
    """

    def __init__(
        self,
        files: SplitFiles,
        reading: Reading,
        *,
        transform: Transform | Unchanged,
        semantic: Literal["stuffthingmaps", "instances", "none"],
        masks: bool,
        keep_empty: bool,
        exclude: Exclusions,
        channels: Channels = RGB,
        tiles: TilesConfig | None = None,
        cut: bool = False,
    ) -> None:
        """tiles: by which the detector looks at images. cut: give a random one of them in place of a larger image."""
        _check_semantic(files, semantic)
        self.files = files
        self.transform = transform
        self.semantic = semantic
        self.masks = masks
        self.channels = channels
        self.categories = reading.categories
        self.met = met_categories(reading)
        if semantic == "instances" and len(self.categories) > 254:
            raise DataError(
                f"{files.annotations}: data.semantic=instances takes at most 254 categories, not {len(self.categories)}"
            )
        usage = Usage.of(reading)
        kept = ~np.isin(reading.places, list(exclude.images))
        if not keep_empty:
            kept &= (reading.sizes.min(axis=1) >= MIN_SIDE) & (usage.instances > 0)
        if not kept.any():
            hint = "" if keep_empty else "; data.keep_empty=true keeps images without instances"
            raise DataError(f"{files.annotations}: no image is left to use{hint}")
        self.repeats: Repeats | None = None
        self.num_instances = int(usage.instances[kept].sum())
        self.most_instances = int(usage.instances[kept].max())
        self.notes = (f"{files.annotations}: {usage.note}",) if usage.note else ()
        chosen = np.flatnonzero(kept)
        self._filled = torch.from_numpy(np.flatnonzero(usage.instances[kept]))
        self._images = Images.of([reading.images[row] for row in chosen.tolist()])
        self._instances = Instances.of(reading.annotations, usage.used, chosen, masks=masks)
        self.tiles = tiles if cut else None
        if tiles is not None:
            self.most_instances = self._most_in_a_tile(tiles)

    @classmethod
    def for_training(
        cls,
        files: SplitFiles,
        config: DataConfig,
        *,
        masks: bool = True,
        exclude: Exclusions | None = None,
        reading: Reading | None = None,
        geometry: GeometryName = "current",
    ) -> Self:
        """The training images, randomly scaled and flipped, and as ``config`` says augmented otherwise.

        geometry: of the model, ``model.geometry``.
        masks: give masks, and the semantic map of ``data.semantic``; False for detectors of boxes, whose data
            need no segmentations.
        exclude, reading: from a check of the same entries with the same ``masks``
            (:func:`dsctool.data.checks.check_for_training`). None reads and checks the entries here (not the image
            files), and then does as ``data.on_error`` says.

        Raises:
            DataError: the annotation file cannot be used, no image is left, or nothing to learn from.
            ConfigError: instances cannot be pasted without masks.
        """
        if config.copy_paste is not None and not masks:
            raise ConfigError(
                "data.copy_paste needs masks, to cut instances out; with boxes only set data.copy_paste=null"
            )
        reading = reading or _read(files, masks)
        dataset = cls(
            files,
            reading,
            transform=train_transform(config, geometry),
            semantic=config.semantic if masks else "none",
            masks=masks,
            keep_empty=config.keep_empty,
            exclude=exclusions(reading.faults, config.on_error) if exclude is None else exclude,
            channels=Channels.of(config),
            tiles=config.tiles,
            cut=True,
        )
        if not dataset.num_instances:
            reason = Usage.of(reading).reason or "no image with instances is left"
            raise DataError(f"{files.annotations}: has nothing to train on: {reason}")
        dataset.repeats = dataset._repeats(reading, config.repeat_factor)
        if config.copy_paste is not None:
            dataset.transform = train_transform(config, geometry, another=dataset._any_with_instances)
        return dataset

    @classmethod
    def for_evaluation(
        cls,
        files: SplitFiles,
        config: DataConfig,
        *,
        masks: bool = False,
        exclude: Exclusions | None = None,
        reading: Reading | None = None,
    ) -> Self:
        """All images at the test size; targets have masks, and a semantic map, only with ``masks``."""
        reading = reading or _read(files, masks)
        return cls(
            files,
            reading,
            transform=inference_transform(config),
            semantic=config.semantic if masks else "none",
            masks=masks,
            keep_empty=True,
            exclude=exclusions(reading.faults, config.on_error) if exclude is None else exclude,
            channels=Channels.of(config),
            tiles=config.tiles,
        )

    def __len__(self) -> int:
        return len(self._images)

    def image_info(self, index: int) -> ImageInfo:
        """The image as the annotation file describes it."""
        return self._images.info(index)

    def annotations(self, index: int) -> list[Annotation]:
        """The annotations of an image that training uses, crowd regions included, in file order."""
        return self._instances.annotations(index)

    def _repeats(self, reading: Reading, threshold: float | None) -> Repeats | None:
        tiles = [1] * len(self) if self.tiles is None else self._tiles_of_images(self.tiles)
        if threshold is None and self.files.weights is None and max(tiles) == 1:
            return None
        repeats = np.asarray(tiles, dtype=np.float64)
        if threshold is not None:
            repeats *= repeats_by_class(*self._instances.shown(), count=len(self), threshold=threshold)
        if self.files.weights is not None:
            weights = read_weights(self.files.weights, [info.file_name for info in reading.images])
            repeats *= [weights.get(self.image_info(index).file_name, 1.0) for index in range(len(self))]
        return repeats

    def _tiles_of_images(self, tiles: TilesConfig) -> list[int]:
        return [len(tiles_of(self.image_info(index).size, tiles)) for index in range(len(self))]

    def _most_in_a_tile(self, tiles: TilesConfig) -> int:
        """Instances, of all images."""
        most = 0
        for index in range(len(self)):
            rows = self._instances.rows(index)
            boxes = self._instances.corners[rows[~self._instances.crowd[rows]]]
            size = self.image_info(index).size
            most = max(most, len(boxes) if fits(size, tiles) else most_in_a_tile(size, tiles, boxes))
        return most

    @property
    def landscape(self) -> Bools:
        """``(images,)``: which are wider than high."""
        landscape: Bools = (self._images.width > self._images.height).numpy()
        return landscape

    def __getitem__(self, key: int | SampleKey) -> Sample:
        """Load and transform an image; a :class:`SampleKey` also fixes its augmentation and what losses draw.

        Raises:
            DataError: a file is missing, broken or of another size; the message names file and id.
        """
        if isinstance(key, int):
            return self._load(key)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(key.seed)  # torch.manual_seed would reach for CUDA as well
            sample = self._load(key.index)
        return replace(sample, targets=replace(sample.targets, seed=key.seed))

    def _load(self, index: int) -> Sample:
        info = self.image_info(index)
        annotated = self._named(index)
        image, targets = self.transform(annotated)
        return Sample(image, targets, SampleInfo(info.id, annotated.size, info.file_name))

    def _any_with_instances(self) -> Annotated:
        """The annotated image of one drawn at random."""
        return self._named(int(self._filled[torch.randint(len(self._filled), ())]))

    def _named(self, index: int) -> Annotated:
        try:
            return self._annotated(index)
        except DataError as error:
            raise DataError(f"{self.files.annotations}: image {self.image_info(index).id}: {error}") from None

    def _annotated(self, index: int) -> Annotated:
        info = self.image_info(index)
        size = (info.height, info.width)
        rows = self._instances.rows(index)
        crowd = self._instances.crowd[rows]
        instances, crowds = rows[~crowd], rows[crowd]
        if self.tiles is not None and not fits(size, self.tiles):
            window = random_window(size, self.tiles, self._instances.corners[instances])
            return self._in_window(info, window, instances, crowds, self.tiles.min_visible)
        sample = Annotated(
            image=read_image(image_path(self.files.images, info.file_name), size, self.channels),
            boxes=self._instances.corners[instances],
            labels=self._instances.label[instances].long(),
            crowd=self._instances.corners[crowds],
        )
        if self.masks:
            masks = self._instances.masks(instances, size)
            if self.semantic == "instances":
                undrawn = Undrawn(masks, self._instances.masks(crowds, size), size)
                return replace(sample, undrawn=undrawn, background=len(self.categories), areas=areas_of(masks))
            sample = replace(sample, undrawn=Undrawn(masks, None, size))
        if self.semantic == "stuffthingmaps" and self.files.semantic_maps is not None:
            classes = self.files.semantic_classes
            return replace(sample, semantic=read_semantic_map(self.files.semantic_maps, info, classes=classes))
        return sample

    def _in_window(
        self, info: ImageInfo, window: Window, instances: Tensor, crowds: Tensor, min_visible: float
    ) -> Annotated:
        """A part of an image, with what there is in it; no mask is drawn larger than the part."""
        known = self._instances
        instances, crowds = (rows[known.meet(rows, window)] for rows in (instances, crowds))

        def drawn(rows: Tensor) -> tuple[Tensor, Tensor]:
            """What the window shows of masks, and their whole areas."""
            masks = known.masks(rows, info.size)
            inside = [mask.inside(window).moved(-window.x1, -window.y1) for mask in masks]
            return bitmaps(inside, window.size), areas_of(masks)

        masks = areas = crowd_masks = crowd_areas = None
        if self.masks:
            masks, areas = drawn(instances)
        if self.semantic == "instances" and self.masks:
            crowd_masks, crowd_areas = drawn(crowds)
        semantic = None
        if self.semantic == "stuffthingmaps" and self.files.semantic_maps is not None:
            whole = read_semantic_map(self.files.semantic_maps, info, classes=self.files.semantic_classes)
            semantic = whole[window.y1 : window.y2, window.x1 : window.x2].contiguous()
        image = read_window(image_path(self.files.images, info.file_name), window, info.size, self.channels)
        corner = torch.tensor([window.x1, window.y1] * 2)
        whole_boxes = [known.corners[rows] for rows in (instances, crowds)]
        part = Annotated(
            image=image,
            boxes=whole_boxes[0] - corner,
            labels=known.label[instances].long(),
            masks=masks,
            crowd=whole_boxes[1] - corner,
            crowd_masks=crowd_masks,
            semantic=semantic,
            background=len(self.categories) if crowd_masks is not None else None,
            areas=areas if crowd_masks is not None else None,
        )
        before = replace(part, boxes=whole_boxes[0], crowd=whole_boxes[1])
        return settled(part, before, min_visible=min_visible, areas=(areas, crowd_areas))


def _check_semantic(files: SplitFiles, semantic: str) -> None:
    if semantic == "stuffthingmaps" and files.semantic_maps is None:
        raise DataError(
            f"{files.annotations}: data.semantic is stuffthingmaps, but there is no folder of maps "
            f"(stuffthingmaps/{files.images.name}). Name it in the split's semantic_maps, "
            "or set data.semantic=instances (maps drawn from the masks) or none"
        )


def _read(files: SplitFiles, masks: bool) -> Reading:
    return read_columns(read_annotation_file(files.annotations), Needs(masks=masks))
