"""Image files on their way to a detector, decoded once for everybody who looks at them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from dsctool.config.schema import DataConfig
from dsctool.data.image_files import ImageFile
from dsctool.data.images import read_image
from dsctool.data.transforms import SampleInfo, inference_transform, pad_images
from dsctool.errors import DataError
from dsctool.structures import ImageBatch, Targets
from dsctool.terms import Size


@dataclass(frozen=True)
class Picture(SampleInfo):
    """A decoded image file; ``file_name`` is its path.

    pixels: ``(3, h, w)`` uint8 RGB. input_size: ``(h, w)`` that the network sees it in, without padding.
    """

    file: ImageFile
    pixels: Tensor
    input_size: Size


def picture_batches(
    files: Iterable[ImageFile],
    config: DataConfig,
    *,
    on_fault: Callable[[DataError], None] | None = None,
) -> Iterator[tuple[ImageBatch, list[Targets], list[Picture]]]:
    """Image files one by one, resized and normalised for a detector.

    Files that cannot be read are told to ``on_fault`` and left out; without it they raise their DataError.
    """
    transform = inference_transform(config)
    for file in files:
        try:
            pixels = read_image(file.path, file.size)
        except DataError as error:
            if on_fault is None:
                raise
            on_fault(error)
            continue
        batch = pad_images([transform.image(pixels)], config.pad_divisor)
        size = (pixels.shape[-2], pixels.shape[-1])
        yield batch, [], [Picture(file.id, size, str(file.path), file, pixels, batch.sizes[0])]
