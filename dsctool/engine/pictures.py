"""A detector on pictures that a program has at hand, in whatever form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from dsctool.config.schema import DataConfig
from dsctool.data.images import ImageSource, image_pixels
from dsctool.data.transforms import Batch, SampleInfo, inference_transform, pad_images
from dsctool.engine.inference import detections, device_of
from dsctool.models.detector import Detector, to_instances
from dsctool.structures import Instances


def find_instances(model: Detector, sources: Sequence[ImageSource], *, score: float) -> list[Instances]:
    """What :meth:`Detector.predict_images` gives for a list: all images are read before the first one runs."""
    pictures = [image_pixels(source, name=f"image {number}") for number, source in enumerate(sources, start=1)]
    stream = detections(model, _one_by_one(pictures, model.config.data), device=device_of(model))
    return [
        to_instances(found[found.scores >= score], categories=model.categories, image=picture).to("cpu")
        for picture, (_, found) in zip(pictures, stream, strict=True)
    ]


def _one_by_one(pictures: Sequence[Tensor], config: DataConfig) -> Iterator[Batch]:
    """Pictures ``(3, h, w)`` uint8 RGB, each as a batch of its own."""
    transform = inference_transform(config)
    for number, picture in enumerate(pictures, start=1):
        info = SampleInfo(image_id=number, original_size=(picture.shape[-2], picture.shape[-1]), file_name="")
        yield pad_images([transform.image(picture)], config.pad_divisor), [], [info]
