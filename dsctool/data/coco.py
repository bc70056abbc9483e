"""COCO-format instances as a torch data set.

Annotations are used as the published recipes use them: those without area, narrower or lower than one
pixel, or outside the image but for a sliver are left out; crowd regions become boxes in ``Targets.crowd`` and have
no mask. Category ids may have gaps: class ``i`` is the category with the i-th smallest id.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from dsctool.config.model_schema import GeometryName
from dsctool.config.schema import DataConfig
from dsctool.data.augment import train_transform
from dsctool.data.bands import RGB, Channels
from dsctool.data.columns import Annotations, Reading, read_columns
from dsctool.data.faults import Exclusions, exclusions
from dsctool.data.file_names import image_path
from dsctool.data.images import read_image
from dsctool.data.layout import SplitFiles
from dsctool.data.records import Annotation, ImageInfo, read_annotation_file
from dsctool.data.repeats import Repeats, read_weights, repeats_by_class
from dsctool.data.rules import Needs
from dsctool.data.samplers import SampleKey
from dsctool.data.semantic import read_semantic_map
from dsctool.data.shapes import Shapes
from dsctool.data.transforms import (
    Annotated,
    Sample,
    SampleInfo,
    Transform,
    Unchanged,
    inference_transform,
)
from dsctool.data.usage import Usage
from dsctool.errors import ConfigError, DataError
from dsctool.rle import Bools, Ints
from dsctool.structures import mask_areas
from dsctool.terms import Size

MIN_SIDE = 32
"""With ``keep_empty: false``, images with a shorter side are dropped too, in pixels."""


class CocoDataset(Dataset[Sample]):
    """Images and annotations of one split; build it with :meth:`for_training` or :meth:`for_evaluation`.

    Annotations stay in memory as flat arrays, one copy for all worker processes; masks are drawn when their image is
    asked for.

    categories: by ascending id; the index is the class label. num_instances: annotations used that are not crowds.
    most_instances: of them, the most in one image.
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
    ) -> None:
        _check_semantic(files, semantic)
        self.files = files
        self.transform = transform
        self.semantic = semantic
        self.masks = masks
        self.channels = channels
        self.categories = reading.categories
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
        self._images = _Images.of([reading.images[row] for row in chosen.tolist()])
        self._instances = _Instances.of(reading.annotations, usage.used, chosen, masks=masks)

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
        if threshold is None and self.files.weights is None:
            return None
        repeats = np.ones(len(self))
        if threshold is not None:
            repeats = repeats_by_class(*self._instances.shown(), count=len(self), threshold=threshold)
        if self.files.weights is not None:
            weights = read_weights(self.files.weights, [info.file_name for info in reading.images])
            repeats *= [weights.get(self.image_info(index).file_name, 1.0) for index in range(len(self))]
        return repeats

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
        sample = Annotated(
            image=read_image(image_path(self.files.images, info.file_name), size, self.channels),
            boxes=self._instances.corners[instances],
            labels=self._instances.label[instances].long(),
            masks=self._instances.bitmaps(instances, size) if self.masks else None,
            crowd=self._instances.corners[crowds],
        )
        if self.semantic == "instances" and sample.masks is not None:
            areas = mask_areas(sample.masks)
            background = len(self.categories)
            return replace(
                sample, crowd_masks=self._instances.bitmaps(crowds, size), background=background, areas=areas
            )
        if self.semantic == "stuffthingmaps" and self.files.semantic_maps is not None:
            classes = self.files.semantic_classes
            return replace(sample, semantic=read_semantic_map(self.files.semantic_maps, info, classes=classes))
        return sample


def _check_semantic(files: SplitFiles, semantic: str) -> None:
    if semantic == "stuffthingmaps" and files.semantic_maps is None:
        raise DataError(
            f"{files.annotations}: data.semantic is stuffthingmaps, but there is no folder of maps "
            f"(stuffthingmaps/{files.images.name}). Name it in the split's semantic_maps, "
            "or set data.semantic=instances (maps drawn from the masks) or none"
        )


def _read(files: SplitFiles, masks: bool) -> Reading:
    return read_columns(read_annotation_file(files.annotations), Needs(masks=masks))


# --- flat arrays ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Images:
    """Images in arrays: tensors, which processes share however they are started. ends: of the names in ``text``."""

    id: Tensor
    height: Tensor
    width: Tensor
    text: Tensor
    ends: Tensor

    @classmethod
    def of(cls, infos: list[ImageInfo]) -> Self:
        names = [info.file_name.encode(errors="surrogatepass") for info in infos]
        return cls(
            id=torch.tensor([info.id for info in infos]),
            height=torch.tensor([info.height for info in infos]),
            width=torch.tensor([info.width for info in infos]),
            text=torch.frombuffer(bytearray(b"".join(names)), dtype=torch.uint8),
            ends=torch.tensor([len(name) for name in names]).cumsum(0),
        )

    def __len__(self) -> int:
        return len(self.id)

    def info(self, index: int) -> ImageInfo:
        index = range(len(self))[index]
        first = int(self.ends[index - 1]) if index else 0
        name = self.text[first : int(self.ends[index])].numpy().tobytes().decode(errors="surrogatepass")
        return ImageInfo(int(self.id[index]), name, int(self.width[index]), int(self.height[index]))


@dataclass(frozen=True)
class _Instances:
    """Annotations in arrays, as :class:`Annotations` has them. order: the used ones, image by image. ends: of each
    image in ``order``. corners: ``(m, 4)``, x1, y1, x2, y2. shapes: the arrays of :class:`Shapes`."""

    order: Tensor
    ends: Tensor
    id: Tensor
    label: Tensor
    corners: Tensor
    crowd: Tensor
    shapes: tuple[Tensor, ...]

    @classmethod
    def of(cls, annotations: Annotations, used: Bools, images: Ints, *, masks: bool) -> Self:
        """images: ``(k,)``, rows of the reading's images that are kept."""
        number = np.full(annotations.image.max(initial=-1) + 1, -1)
        number[images[images < len(number)]] = np.flatnonzero(images < len(number))
        image = number[annotations.image]
        rows = np.flatnonzero(used & (image >= 0))
        order = rows[np.argsort(image[rows], kind="stable")]
        ends = np.searchsorted(image[order], np.arange(len(images)), side="right")
        start, extent = annotations.box[:, :2], annotations.box[:, 2:]
        corners = np.concatenate([start, start + extent], axis=1).astype(np.float32)
        shapes = [getattr(annotations.shapes, each.name) for each in fields(Shapes)] if masks else []
        return cls(
            order=torch.from_numpy(order),
            ends=torch.from_numpy(ends),
            id=torch.from_numpy(annotations.id),
            label=torch.from_numpy(annotations.label),
            corners=torch.from_numpy(corners),
            crowd=torch.from_numpy(annotations.crowd),
            shapes=tuple(torch.from_numpy(_writable(each)) for each in shapes),
        )

    def rows(self, image: int) -> Tensor:
        """The annotations of an image, in the order of the file."""
        first = int(self.ends[image - 1]) if image else 0
        return self.order[first : int(self.ends[image])]

    def shown(self) -> tuple[Ints, Ints]:
        """The image and the class of every instance that is no crowd."""
        images = np.repeat(np.arange(len(self.ends)), np.diff(self.ends.numpy(), prepend=0))
        instances = ~self.crowd[self.order].numpy()
        return images[instances], self.label[self.order].numpy()[instances].astype(np.int64)

    def annotations(self, image: int) -> list[Annotation]:
        """The same, one by one."""
        rows = self.rows(image)
        columns = (self.id, self.label, self.corners, self.crowd)
        values = zip(*(column[rows].tolist() for column in columns), strict=True)
        return [Annotation(id_, label, tuple(box), crowd) for id_, label, box, crowd in values]

    def bitmaps(self, rows: Tensor, size: Size) -> Tensor:
        """``(G, h, w)`` uint8."""
        shapes = Shapes(*(each.numpy() for each in self.shapes))
        bitmaps = torch.zeros((len(rows), *size), dtype=torch.uint8)
        for bitmap, row in zip(bitmaps, rows.tolist(), strict=True):
            bitmap.copy_(torch.from_numpy(shapes.bitmap(row, size)))
        return bitmaps


def _writable(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return array if array.flags.writeable else array.copy()
