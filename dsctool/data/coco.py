"""COCO-format instances as a torch data set.

Annotations are used as the published recipes use them: those without area, narrower or lower than one
pixel, or outside the image but for a sliver are left out; crowd regions become boxes in ``Targets.crowd`` and have
no mask. Category ids may have gaps: class ``i`` is the category with the i-th smallest id.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dsctool.config.schema import DataConfig
from dsctool.data.faults import Exclusions, exclusions
from dsctool.data.images import read_image
from dsctool.data.layout import SplitFiles
from dsctool.data.records import Annotation, AnnotationFile, Category, ImageInfo, read_annotation_file
from dsctool.data.rules import check_records
from dsctool.data.samplers import SampleKey
from dsctool.data.segmentations import decode_mask
from dsctool.data.semantic import read_semantic_map
from dsctool.data.transforms import Annotated, Sample, SampleInfo, Transform, inference_transform, train_transform
from dsctool.errors import DataError
from dsctool.structures import Size, mask_areas

MIN_SIDE = 32
"""With ``keep_empty: false``, images with a shorter side are dropped too, in pixels."""
SLIVER = 1e-5
"""Share of the image's side that a box inside it must exceed. Resized, flipped and cut, its ends are off by a few
float32 roundings, each at most 6e-8 of the side: what is so much longer stays a box at every scale."""


class CocoDataset(Dataset[Sample]):
    """Images and annotations of one split; build it with :meth:`for_training` or :meth:`for_evaluation`.

    Annotations stay in memory pickled, a fraction of what Python lists take (in every worker process): they are
    unpacked, and masks drawn, when their image is asked for.

    categories: by ascending id; the index is the class label. num_instances: annotations used that are not crowds.
    """

    def __init__(
        self,
        files: SplitFiles,
        content: AnnotationFile,
        *,
        transform: Transform,
        semantic: Literal["stuffthingmaps", "instances", "none"],
        masks: bool,
        keep_empty: bool,
        exclude: Exclusions,
    ) -> None:
        _check_semantic(files, semantic)
        self.files = files
        self.transform = transform
        self.semantic = semantic
        self.masks = masks
        self.categories = _categories(content)
        if semantic == "instances" and len(self.categories) > 254:
            raise DataError(
                f"{files.annotations}: data.semantic=instances takes at most 254 categories, not {len(self.categories)}"
            )
        images = _images(content, exclude)
        groups = _used_entries(content, images, exclude)
        self._images = [image for image in images if keep_empty or _is_worth_keeping(image, groups[image.id])]
        if not self._images:
            hint = "" if keep_empty else "; data.keep_empty=true keeps images without instances"
            raise DataError(f"{files.annotations}: no image is left to use{hint}")
        self.num_instances = sum(not entry["iscrowd"] for image in self._images for entry in groups[image.id])
        labels = {category.id: label for label, category in enumerate(self.categories)}
        self._records = [_packed(groups[image.id], labels, masks=masks) for image in self._images]

    @classmethod
    def for_training(
        cls,
        files: SplitFiles,
        config: DataConfig,
        *,
        masks: bool = True,
        exclude: Exclusions | None = None,
        content: AnnotationFile | None = None,
    ) -> Self:
        """The training images, randomly scaled and flipped.

        masks: give masks, and the semantic map of ``data.semantic``; False for detectors of boxes, whose data
            need no segmentations.
        exclude: entries to leave out, from a check of the same entries with the same ``masks``
            (:func:`dsctool.data.checks.check_for_training`): nothing is checked again. None checks the entries here
            (not the image files), and then does as ``data.on_error`` says.
        content: what is in the annotation file, where it has been read already.

        Raises:
            DataError: the annotation file cannot be used, or no image is left.
        """
        content = content or read_annotation_file(files.annotations)
        return cls(
            files,
            content,
            transform=train_transform(config),
            semantic=config.semantic if masks else "none",
            masks=masks,
            keep_empty=config.keep_empty,
            exclude=_checked(content, config, masks) if exclude is None else exclude,
        )

    @classmethod
    def for_evaluation(
        cls,
        files: SplitFiles,
        config: DataConfig,
        *,
        masks: bool = False,
        exclude: Exclusions | None = None,
        content: AnnotationFile | None = None,
    ) -> Self:
        """All images at the test size; targets have masks, and a semantic map, only with ``masks``."""
        content = content or read_annotation_file(files.annotations)
        return cls(
            files,
            content,
            transform=inference_transform(config),
            semantic=config.semantic if masks else "none",
            masks=masks,
            keep_empty=True,
            exclude=_checked(content, config, masks) if exclude is None else exclude,
        )

    def __len__(self) -> int:
        return len(self._images)

    def image_info(self, index: int) -> ImageInfo:
        """The image as the annotation file describes it."""
        return self._images[index]

    def annotations(self, index: int) -> list[Annotation]:
        """The annotations of an image that training uses, crowd regions included, in file order."""
        return [Annotation(*fields) for fields in pickle.loads(self._records[index])]

    def __getitem__(self, key: int | SampleKey) -> Sample:
        """Load and transform an image; a :class:`SampleKey` also fixes its augmentation.

        Raises:
            DataError: a file is missing, broken or of another size; the message names file and id.
        """
        if isinstance(key, int):
            return self._load(key)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(key.seed)  # torch.manual_seed would reach for CUDA as well
            return self._load(key.index)

    def _load(self, index: int) -> Sample:
        info = self._images[index]
        try:
            annotated = self._annotated(index)
        except DataError as error:
            raise DataError(f"{self.files.annotations}: image {info.id}: {error}") from None
        image, targets = self.transform(annotated)
        return Sample(image, targets, SampleInfo(info.id, annotated.size, info.file_name))

    def _annotated(self, index: int) -> Annotated:
        info = self._images[index]
        size = (info.height, info.width)
        annotations = self.annotations(index)
        instances = [annotation for annotation in annotations if not annotation.crowd]
        crowds = [annotation for annotation in annotations if annotation.crowd]
        sample = Annotated(
            image=read_image(self.files.images / info.file_name, size),
            boxes=_boxes(instances),
            labels=torch.tensor([annotation.label for annotation in instances], dtype=torch.int64),
            masks=_bitmaps(instances, size) if self.masks else None,
            crowd=_boxes(crowds),
        )
        if self.semantic == "instances" and sample.masks is not None:
            areas = mask_areas(sample.masks)
            background = len(self.categories)
            return replace(sample, crowd_masks=_bitmaps(crowds, size), background=background, areas=areas)
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


def _checked(content: AnnotationFile, config: DataConfig, masks: bool) -> Exclusions:
    return exclusions(check_records(content, masks=masks), config.on_error)


def _categories(content: AnnotationFile) -> list[Category]:
    return sorted(
        (Category(entry["id"], entry["name"]) for entry in content.categories), key=lambda category: category.id
    )


def _images(content: AnnotationFile, exclude: Exclusions) -> list[ImageInfo]:
    return [
        ImageInfo(entry["id"], entry["file_name"], entry["width"], entry["height"])
        for index, entry in enumerate(content.images)
        if index not in exclude.images
    ]


def _is_used(record: dict[str, Any], image: ImageInfo) -> bool:
    x, y, width, height = record["bbox"]
    inside_width = min(x + width, image.width) - max(x, 0)
    inside_height = min(y + height, image.height) - max(y, 0)
    inside = inside_width > SLIVER * image.width and inside_height > SLIVER * image.height
    return bool(record["area"] > 0 and width >= 1 and height >= 1 and inside)


def _used_entries(
    content: AnnotationFile, images: Sequence[ImageInfo], exclude: Exclusions
) -> dict[int, list[dict[str, Any]]]:
    """The annotations that training uses, in file order, by image."""
    by_id = {image.id: image for image in images}
    groups: dict[int, list[dict[str, Any]]] = {image.id: [] for image in images}
    for index, entry in enumerate(content.annotations):
        if index not in exclude.annotations:
            image = by_id.get(entry["image_id"])
            if image is not None and _is_used(entry, image):
                groups[image.id].append(entry)
    return groups


def _is_worth_keeping(image: ImageInfo, entries: Sequence[dict[str, Any]]) -> bool:
    """Without ``keep_empty``: whether an image is large enough and has an instance."""
    return min(image.width, image.height) >= MIN_SIDE and any(not entry["iscrowd"] for entry in entries)


def _packed(entries: Sequence[dict[str, Any]], labels: Mapping[int, int], *, masks: bool) -> bytes:
    """What :class:`Annotation` takes, of every annotation of an image."""
    return pickle.dumps(
        [
            (
                entry["id"],
                labels[entry["category_id"]],
                _corners(*entry["bbox"]),
                bool(entry["iscrowd"]),
                entry["segmentation"] if masks else None,
            )
            for entry in entries
        ]
    )


def _corners(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    return x, y, x + width, y + height


def _bitmaps(annotations: Sequence[Annotation], size: Size) -> Tensor:
    """``(G, h, w)`` uint8; the segmentations have been checked."""
    bitmaps = torch.zeros((len(annotations), *size), dtype=torch.uint8)
    for bitmap, annotation in zip(bitmaps, annotations, strict=True):
        assert annotation.segmentation is not None
        bitmap.copy_(decode_mask(annotation.segmentation, size))
    return bitmaps


def _boxes(annotations: Sequence[Annotation]) -> Tensor:
    return torch.tensor([annotation.box for annotation in annotations], dtype=torch.float32).reshape(-1, 4)
