"""Running a detector over images: COCO results out, full-size masks never held."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from dsctool.coco_results import Result, coco_results
from dsctool.config.schema import DataConfig
from dsctool.data.image_files import ImageFile
from dsctool.data.images import read_image
from dsctool.data.records import Category
from dsctool.data.transforms import Batch, SampleInfo, inference_transform, pad_images
from dsctool.errors import DataError
from dsctool.ops.masks import encode_masks
from dsctool.structures import Detections, Size

OnImage = Callable[[SampleInfo, list[Result]], None]
"""Called after every image with its results, by descending score."""

OnStages = Callable[[SampleInfo, Detections], None]
"""Called after every image with its detections and their masks of every stage."""


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
    model: Model, batches: Iterable[Batch], *, device: torch.device, stage_masks: bool = False
) -> Iterator[tuple[SampleInfo, Detections]]:
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


def run_inference(
    model: Model,
    loader: Iterable[Batch],
    categories: Sequence[Category],
    *,
    device: torch.device,
    on_image: OnImage | None = None,
    on_stages: OnStages | None = None,
    on_candidates: OnImage | None = None,
) -> list[Result]:
    """The results of every image that ``loader`` gives, in its order.

    model: on ``device``; it runs in eval mode and is left in the mode it came in. categories: by label; their
    ids are what results name. Values are written with the digits that give back the same float32. on_candidates: gets
    what suppression chose from, where the model's configuration keeps it (``postprocess.keep_candidates``).
    """
    results: list[Result] = []
    for info, found in detections(model, loader, device=device, stage_masks=on_stages is not None):
        own = to_results(found, info.image_id, categories)
        results += own
        if on_stages is not None:
            on_stages(info, found)
        if on_candidates is not None and found.candidates is not None:
            on_candidates(info, to_results(found.candidates, info.image_id, categories))
        if on_image is not None:
            on_image(info, own)
    return results


def to_results(detections: Detections, image_id: int, categories: Sequence[Category]) -> list[Result]:
    """The detections of one image as COCO results."""
    probs = detections.mask_probs
    return coco_results(
        boxes=detections.boxes,
        scores=detections.scores,
        masks=None if probs is None else encode_masks(probs, detections.boxes, detections.size),
        category_ids=[categories[label].id for label in detections.labels.tolist()],
        image_id=image_id,
    )


def image_batches(
    files: Iterable[ImageFile], config: DataConfig, *, on_fault: Callable[[ImageFile, DataError], None]
) -> Iterator[Batch]:
    """Image files one by one, ready for :func:`run_inference`; ``file_name`` is the path.

    Files that cannot be read are given to ``on_fault`` and left out.
    """
    transform = inference_transform(config)
    for file in files:
        try:
            pixels = read_image(file.path, file.size)
        except DataError as error:
            on_fault(file, error)
            continue
        size = (pixels.shape[-2], pixels.shape[-1])
        batch = pad_images([transform.image(pixels)], config.pad_divisor)
        yield batch, [], [SampleInfo(image_id=file.id, original_size=size, file_name=str(file.path))]


@contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(training)
