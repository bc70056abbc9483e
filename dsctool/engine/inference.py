"""Running a detector over images: COCO results out, full-size masks never held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NotRequired, Protocol, TypedDict, TypeVar, cast

import torch
from torch import Tensor

from dsctool.data.image_files import ImageFile, find_images, number_images
from dsctool.data.pictures import picture_batches
from dsctool.data.records import Category
from dsctool.data.transforms import SampleInfo
from dsctool.engine.environment import pick_device
from dsctool.interop.checkpoint import load_model
from dsctool.models.detector import Detector
from dsctool.ops.masks import Rle, encode_masks, paste_masks
from dsctool.structures import Detections, ImageBatch, Instances, Size, Targets

Info = TypeVar("Info", bound=SampleInfo)
"""What is known of an image besides the network's input."""
Source = Path | str
"""An image file, or a folder of them."""


class Result(TypedDict):
    """One detection as COCO's results files have it.

    bbox: ``[x, y, width, height]`` in pixels of the original image. segmentation: absent without masks.
    """

    image_id: int
    category_id: int
    bbox: list[float]
    score: float
    segmentation: NotRequired[Rle]


class Model(Protocol):
    """What inference needs of a :class:`~dsctool.models.detector.Detector`."""

    training: bool

    def detect(
        self,
        images: Tensor,
        sizes: Sequence[Size] | None = None,
        original_sizes: Sequence[Size] | None = None,
        *,
        stage_masks: bool = False,
    ) -> list[Detections]:
        """Detections per image, in the pixels of its original size."""

    def train(self, mode: bool = True) -> object:
        """Switch between training and evaluation."""


def detections(
    model: Model,
    batches: Iterable[tuple[ImageBatch, Sequence[Targets], Sequence[Info]]],
    *,
    device: torch.device,
    stage_masks: bool = False,
) -> Iterator[tuple[Info, Detections]]:
    """What ``model`` finds in every image of ``batches``, in their order: the one loop that runs a model over images.

    model: on ``device``; it runs in eval mode, and is back in the mode it came in when the iteration ends or is closed.
    stage_masks: give the masks of every stage as well.
    """
    with _evaluating(model):
        for images, _, infos in batches:
            found = model.detect(
                images.tensor.to(device),
                images.sizes,
                [info.original_size for info in infos],
                stage_masks=stage_masks,
            )
            yield from zip(infos, found, strict=True)


def predict_images(
    model: Detector | Path | str, images: Source | Sequence[Source], *, device: str | None = None
) -> Iterator[tuple[ImageFile, Instances]]:
    """What a detector finds in image files, one after the other: memory does not grow with their number.

    model: a detector, or a checkpoint. images: files, and folders of them. device: as ``dsctool predict --device`` has
    it; None is where a detector is, and ``auto`` for a checkpoint. Instances are in the pixels of the file, turned as
    its EXIF data say.

    Raises:
        DataError: a file cannot be read, or there are no images.
    """
    detector = ready(model, device)
    paths = [Path(each) for each in ([images] if isinstance(images, str | Path) else images)]
    batches = picture_batches(number_images(find_images(paths)), detector.config.data)
    for picture, found in detections(detector, batches, device=device_of(detector)):
        yield picture.file, instances(found)


def ready(model: Detector | Path | str, device: str | None) -> Detector:
    """The detector, or that of a checkpoint, on its device; arguments as for :func:`predict_images`."""
    if isinstance(model, str | Path):
        return load_model(model, device=pick_device(device or "auto"))
    return model if device is None else model.to(pick_device(device))


def device_of(model: Detector) -> torch.device:
    """Where its weights are."""
    return next(model.parameters()).device


def keep_candidates(model: Detector, count: int = 1000) -> None:
    """Have ``model`` give the best ``count`` boxes before suppression as well, unless it is set to give some."""
    cascade = cast("Any", model.cascade)
    if not cascade.postprocess.keep_candidates:
        cascade.postprocess = replace(cascade.postprocess, keep_candidates=count)


def instances(found: Detections) -> Instances:
    """Finished results of one image: masks pasted to bitmaps of the image's size."""
    masks = None if found.mask_probs is None else paste_masks(found.mask_probs, found.boxes, found.size)
    return Instances(boxes=found.boxes, scores=found.scores, labels=found.labels, masks=masks)


def to_results(detections: Detections, image_id: int, categories: Sequence[Category]) -> list[Result]:
    """The detections of one image as COCO results."""
    boxes = detections.boxes.float()
    corners = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)
    results = [
        Result(image_id=image_id, category_id=categories[label].id, bbox=box, score=score)
        for label, box, score in zip(
            detections.labels.tolist(),
            [_shortest(box) for box in corners.cpu()],
            _shortest(detections.scores.float().cpu()),
            strict=True,
        )
    ]
    if detections.mask_probs is not None:
        masks = encode_masks(detections.mask_probs, detections.boxes, detections.size)
        for result, mask in zip(results, masks, strict=True):
            result["segmentation"] = mask
    return results


@contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(training)


def _shortest(values: Tensor) -> list[float]:
    """The shortest decimals that give back the same float32: half the text of a results file."""
    return [float(str(value)) for value in values.numpy()]
