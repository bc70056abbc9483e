"""Running a detector over images: COCO results out, full-size masks never held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from dsctool.coco_results import Result, coco_results
from dsctool.data.bands import Channels
from dsctool.data.image_files import ImageFile, find_images, number_images
from dsctool.data.images import Decoded, ImageSource, picture_of
from dsctool.data.records import Category
from dsctool.data.transforms import Batch, SampleInfo, inference_transform, pad_images
from dsctool.engine.environment import pick_device
from dsctool.engine.precision import computing_in, require
from dsctool.engine.views import detect_augmented
from dsctool.errors import CheckpointError, DsctoolError, memory_for
from dsctool.interop.checkpoint import load_model
from dsctool.interop.exported import ExportedDetector, is_exported, load_exported
from dsctool.models.detector import Detector, to_instances
from dsctool.ops.exchange import rows_where
from dsctool.ops.masks import encode_masks
from dsctool.structures import Detections, ImageBatch, Instances, Targets
from dsctool.terms import Precision, Size

Info = TypeVar("Info", bound=SampleInfo)
"""What is known of an image besides the network's input."""
Source = Path | str
"""An image file, or a folder of them."""
Runnable = Detector | ExportedDetector
"""What finds instances, and says of which classes."""


def load_runnable(
    path: Path | str, *, overrides: Sequence[str] = (), device: torch.device | str = "cpu", config: str | None = None
) -> Runnable:
    """The detector of a checkpoint, as :func:`dsctool.load_model` has it, or of an exported file."""
    if not is_exported(path):
        return load_model(path, overrides=overrides, device=device, config=config)
    if config is not None:
        raise CheckpointError(f"{path}: is an exported file, which has a configuration of its own.")
    return load_exported(path, overrides=overrides, device=device)


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
        semantic: bool = False,
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
    semantic: bool = False,
    precision: Precision = "float32",
) -> Iterator[tuple[Info, Detections]]:
    """What ``model`` finds in every image of ``batches``, in their order: the one loop that runs a model over images.

    model: on ``device``; it runs in eval mode, and is back in the mode it came in when the iteration ends or is closed.
    stage_masks: give the masks of every stage as well; with test-time augmentation there are none.
    semantic: the same of what the semantic branch says.
    precision: what the model computes in; what it finds is float32.
    """
    if isinstance(model, ExportedDetector) and precision != "float32":
        raise DsctoolError(f"{model.source}: is exported, and computes as it does: give no --precision")
    with _evaluating(model):
        for images, _, infos in batches:
            height, width = images.tensor.shape[-2:]
            task = f"detecting in {', '.join(info.file_name for info in infos)} on {width} x {height} pixels"
            remedy = "Lower data.test_resize, or look at large images by tiles (--tiles, data.tiles)."
            with memory_for(task, remedy=remedy), computing_in(precision, device):
                originals = [info.original_size for info in infos]
                if isinstance(model, Detector) and model.config.data.tta is not None:
                    pictures = (
                        picture[:, :height, :width]
                        for picture, (height, width) in zip(images.tensor, images.sizes, strict=True)
                    )
                    found = [detect_augmented(model, *each) for each in zip(pictures, originals, strict=True)]
                else:
                    tensor = images.tensor.to(device, non_blocking=True)
                    found = model.detect(tensor, images.sizes, originals, stage_masks=stage_masks, semantic=semantic)
            yield from zip(infos, found, strict=True)


def predict_images(
    model: Runnable | Path | str, images: Source | Sequence[Source], *, score: float = 0.0, device: str | None = None,
    precision: Precision = "float32",
) -> Iterator[tuple[ImageFile, Instances]]:  # fmt: skip
    """What a detector finds in image files, one after the other: memory does not grow with their number.

    model: a detector, or a checkpoint or an exported file. images: files, and folders of them. score: what scores less
    is left out before its mask is drawn at full size. device: as ``dsctool predict --device`` has it; None is where a
    detector is, and ``auto`` for a file. precision: what the detector computes in. Instances are on the CPU, in the
    pixels of the file, turned as its EXIF data say, and keep them for :meth:`Instances.draw`.

    Warns (:class:`~dsctool.errors.PictureWarning`) once of each: pictures that become black, or have pages that are not
    looked at; that are shrunk more than fourfold; in which many instances, of those that score at least 0.3, are so
    small that others may have been missed.

    Raises:
        DataError: a file cannot be read, or there are no images.
    """
    from dsctool.engine.tiles import found_in_files  # which stands on this module
    from dsctool.engine.told import Told

    detector = ready(model, device)
    paths = [Path(each) for each in ([images] if isinstance(images, str | Path) else images)]
    files = number_images(find_images(paths))
    require(precision, device_of(detector))
    device_, told = device_of(detector), Told(detector.config.data, above=1)
    for picture, found in found_in_files(detector, files, detector.config.data, device=device_, precision=precision):
        told.picture(picture.file_name, picture.original_size, picture.remarks)
        instances = _instances(detector, found, picture.shown, score)
        told.found(instances, picture.original_size)
        yield picture.file, instances
    told.end()


def find_instances(model: Detector, sources: Sequence[ImageSource], *, score: float) -> list[Instances]:
    """What :meth:`Detector.predict_images` gives for a list: all images are read before the first one runs."""
    from dsctool.engine.told import Told  # which stands on this module

    channels, told = Channels.of(model.config.data), Told(model.config.data, above=2)
    names = [str(each) if isinstance(each, str | PathLike) else f"image {n}" for n, each in enumerate(sources, start=1)]
    pictures = [picture_of(source, channels, name=name) for source, name in zip(sources, names, strict=True)]
    for name, picture in zip(names, pictures, strict=True):
        told.picture(name, _size(picture.pixels), picture.remarks)
    found = _found_in(model, pictures, score)
    for each, picture in zip(found, pictures, strict=True):
        told.found(each, _size(picture.pixels))
    told.end()
    return found


def _found_in(model: Detector, pictures: Sequence[Decoded], score: float) -> list[Instances]:
    if model.config.data.tiles is not None:
        from dsctool.engine.tiles import found_in_pictures  # which stands on this module

        found_ones = found_in_pictures(model, pictures, device=device_of(model))
        return [_instances(model, found, shown, score) for shown, found in found_ones]
    transform, divisor = inference_transform(model.config.data), model.config.data.pad_divisor
    infos = [SampleInfo(0, _size(picture.pixels), "") for picture in pictures]
    batches: Iterator[Batch] = (
        (pad_images([transform.image(picture.pixels)], divisor), [], [info])
        for picture, info in zip(pictures, infos, strict=True)
    )
    stream = detections(model, batches, device=device_of(model))
    found = zip(pictures, stream, strict=True)
    return [_instances(model, each, picture.shown, score) for picture, (_, each) in found]


def _size(pixels: Tensor) -> Size:
    return int(pixels.shape[-2]), int(pixels.shape[-1])


def _instances(model: Runnable, found: Detections, picture: Tensor, score: float) -> Instances:
    (rows,) = rows_where([found.scores >= score])
    found = found[rows]
    return to_instances(found, categories=model.categories, image=picture).to("cpu")


def ready(model: Runnable | Path | str, device: str | None) -> Runnable:
    """The detector, or that of a file, on its device; arguments as for :func:`predict_images`."""
    if isinstance(model, str | Path):
        return load_runnable(model, device=pick_device(device or "auto"))
    return model if device is None else model.to(pick_device(device))


def device_of(model: nn.Module | ExportedDetector) -> torch.device:
    """Where its weights are."""
    return model.device if isinstance(model, ExportedDetector) else next(model.parameters()).device


def keep_candidates(model: Runnable, count: int = 1000) -> None:
    """Have ``model`` give the best ``count`` boxes before suppression as well, unless it is set to give some.

    Raises:
        DsctoolError: it is exported, and gives what is left after suppression alone.
    """
    if isinstance(model, ExportedDetector):
        raise DsctoolError(f"{model.source}: is exported, without boxes before NMS: take the checkpoint it was made of")
    if not model.postprocess.keep_candidates:
        model.postprocess = replace(model.postprocess, keep_candidates=count)


def to_results(detections: Detections, image_id: int, categories: Sequence[Category | None]) -> list[Result]:
    """The detections of one image as COCO results.

    categories: by label; detections of classes that have None are left out.
    """
    chosen = [categories[label] for label in detections.labels.tolist()]
    probs, whole_pixels = detections.mask_probs, detections.whole_pixels
    results = coco_results(
        boxes=detections.boxes,
        scores=detections.scores,
        masks=detections.encoded
        if probs is None
        else encode_masks(probs, detections.boxes, detections.size, whole_pixels=whole_pixels),
        category_ids=[-1 if category is None else category.id for category in chosen],
        image_id=image_id,
    )
    return [result for result, category in zip(results, chosen, strict=True) if category is not None]


@contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(training)
