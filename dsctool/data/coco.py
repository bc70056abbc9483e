"""COCO-format instances as a torch data set.

Annotations are used as the published recipes use them: those without area, narrower or lower than one
pixel, or outside the image are left out; crowd regions become boxes in ``Targets.crowd`` and have no mask.
Category ids may have gaps: class ``i`` is the category with the i-th smallest id.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
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
from dsctool.data.segmentations import decode_mask, segmentation_problem
from dsctool.data.semantic import draw_semantic_map, read_semantic_map
from dsctool.data.transforms import Sample, SampleInfo, Transform, test_transform, train_transform
from dsctool.errors import DataError
from dsctool.structures import Targets

MIN_SIDE = 32
"""With ``keep_empty: false``, images with a shorter side are dropped too, in pixels."""


class CocoDataset(Dataset[Sample]):
    """Images and annotations of one split; build it with :meth:`for_training` or :meth:`for_evaluation`.

    Annotations stay in memory as text and are parsed, and masks drawn, when their image is asked for.

    categories: by ascending id; the index is the class label.
    """

    def __init__(
        self,
        files: SplitFiles,
        *,
        transform: Transform,
        semantic: Literal["stuffthingmaps", "instances", "none"],
        masks: bool,
        keep_empty: bool,
        exclude: Exclusions,
    ) -> None:
        _check_semantic(files, semantic)
        content = read_annotation_file(files.annotations)
        self.files = files
        self.transform = transform
        self.semantic = semantic
        self.masks = masks
        self.categories = _categories(content)
        if semantic == "instances" and len(self.categories) > 254:
            raise DataError(
                f"{files.annotations}: data.semantic=instances takes at most 254 categories, not {len(self.categories)}"
            )
        self._labels = {category.id: label for label, category in enumerate(self.categories)}
        self._images = _images(content, exclude)
        self._records = self._group(content, exclude)
        if not keep_empty:
            self._drop_empty()
        if not self._images:
            hint = "" if keep_empty else "; data.keep_empty=true keeps images without instances"
            raise DataError(f"{files.annotations}: no image is left to use{hint}")

    @classmethod
    def for_training(
        cls, files: SplitFiles, config: DataConfig, *, masks: bool = True, exclude: Exclusions | None = None
    ) -> Self:
        """The training images, randomly scaled and flipped.

        masks: give masks, and the semantic map of ``data.semantic``; False for detectors of boxes, whose data
            need no segmentations.
        exclude: entries to leave out, from :func:`dsctool.data.faults.exclusions`. None checks the entries here
            (not the image files), and then does as ``data.on_error`` says.

        Raises:
            DataError: the annotation file cannot be used, or no image is left.
        """
        return cls(
            files,
            transform=train_transform(config),
            semantic=config.semantic if masks else "none",
            masks=masks,
            keep_empty=config.keep_empty,
            exclude=_checked(files, config, masks) if exclude is None else exclude,
        )

    @classmethod
    def for_evaluation(
        cls, files: SplitFiles, config: DataConfig, *, masks: bool = False, exclude: Exclusions | None = None
    ) -> Self:
        """All images at the test size; targets have masks, and a semantic map, only with ``masks``."""
        return cls(
            files,
            transform=test_transform(config),
            semantic=config.semantic if masks else "none",
            masks=masks,
            keep_empty=True,
            exclude=_checked(files, config, masks) if exclude is None else exclude,
        )

    @property
    def image_ids(self) -> list[int]:
        """The annotation file's ids, in the order of the data set."""
        return [image.id for image in self._images]

    def __len__(self) -> int:
        return len(self._images)

    def image_info(self, index: int) -> ImageInfo:
        """The image as the annotation file describes it."""
        return self._images[index]

    def annotations(self, index: int) -> list[Annotation]:
        """The annotations of an image that training uses, crowd regions included, in file order."""
        image = self._images[index]
        records = json.loads(self._records.get(image.id, b"[]"))
        return [self._annotation(record) for record in records if _is_used(record, image)]

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
        size = (info.height, info.width)
        try:
            pixels = read_image(self.files.images / info.file_name, size)
            targets = self._targets(index)
        except DataError as error:
            raise DataError(f"{self.files.annotations}: image {info.id}: {error}") from None
        image, targets = self.transform(pixels, targets)
        return Sample(image, targets, SampleInfo(info.id, size, info.file_name))

    def _targets(self, index: int) -> Targets:
        annotations = self.annotations(index)
        instances = [annotation for annotation in annotations if not annotation.crowd]
        crowds = [annotation for annotation in annotations if annotation.crowd]
        info = self._images[index]
        masks = self._bitmaps(instances, info) if self.masks else None
        labels = torch.tensor([annotation.label for annotation in instances], dtype=torch.int64)
        semantic = None
        if self.semantic == "instances" and masks is not None:
            semantic = draw_semantic_map(masks, labels, self._bitmaps(crowds, info), background=len(self.categories))
        elif self.semantic == "stuffthingmaps" and self.files.semantic_maps is not None:
            semantic = read_semantic_map(self.files.semantic_maps, info, classes=self.files.semantic_classes)
        return Targets(
            boxes=_boxes(instances),
            labels=labels,
            masks=masks,
            crowd=_boxes(crowds),
            semantic=semantic,
        )

    def _bitmaps(self, annotations: Sequence[Annotation], info: ImageInfo) -> Tensor:
        """``(G, h, w)`` uint8."""
        size = (info.height, info.width)
        bitmaps = torch.zeros((len(annotations), *size), dtype=torch.uint8)
        for bitmap, annotation in zip(bitmaps, annotations, strict=True):
            problem = segmentation_problem(annotation.segmentation, size)
            if problem is not None and problem.severity == "error":
                raise DataError(f"annotation {annotation.id}: {problem.message}")
            assert annotation.segmentation is not None
            bitmap.copy_(decode_mask(annotation.segmentation, size))
        return bitmaps

    def _group(self, content: AnnotationFile, exclude: Exclusions) -> dict[int, bytes]:
        """The annotations of every image, as JSON text: a fraction of the memory of Python lists."""
        known = {image.id for image in self._images}
        groups: dict[int, list[dict[str, Any]]] = {}
        keys = ["id", "category_id", "bbox", "area", "iscrowd"] + (["segmentation"] if self.masks else [])
        for index, entry in enumerate(content.annotations):
            if index not in exclude.annotations and entry["image_id"] in known:
                groups.setdefault(entry["image_id"], []).append({key: entry[key] for key in keys})
        return {id_: json.dumps(group, separators=(",", ":")).encode() for id_, group in groups.items()}

    def _annotation(self, record: dict[str, Any]) -> Annotation:
        x, y, width, height = record["bbox"]
        return Annotation(
            id=record["id"],
            label=self._labels[record["category_id"]],
            box=(x, y, x + width, y + height),
            crowd=bool(record["iscrowd"]),
            segmentation=record.get("segmentation"),
        )

    def _drop_empty(self) -> None:
        kept = []
        for index, image in enumerate(self._images):
            large = min(image.width, image.height) >= MIN_SIDE
            if large and any(not annotation.crowd for annotation in self.annotations(index)):
                kept.append(image)
        self._images = kept


def _check_semantic(files: SplitFiles, semantic: str) -> None:
    if semantic == "stuffthingmaps" and files.semantic_maps is None:
        raise DataError(
            f"{files.annotations}: data.semantic is stuffthingmaps, but there is no folder of maps "
            f"(stuffthingmaps/{files.images.name}). Name it in the split's semantic_maps, "
            "or set data.semantic=instances (maps drawn from the masks) or none"
        )


def _checked(files: SplitFiles, config: DataConfig, masks: bool) -> Exclusions:
    return exclusions(check_records(read_annotation_file(files.annotations), masks=masks), config.on_error)


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
    return bool(record["area"] > 0 and width >= 1 and height >= 1 and inside_width > 0 and inside_height > 0)


def _boxes(annotations: Sequence[Annotation]) -> Tensor:
    return torch.tensor([annotation.box for annotation in annotations], dtype=torch.float32).reshape(-1, 4)
