"""Image files on their way to a detector, decoded once for everybody who looks at them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from dsctool.config.schema import DataConfig
from dsctool.data.bands import Channels
from dsctool.data.image_files import ImageFile
from dsctool.data.images import read_picture
from dsctool.data.transforms import SampleInfo, inference_transform, pad_images
from dsctool.errors import DataError
from dsctool.structures import ImageBatch, Targets
from dsctool.terms import Size


@dataclass(frozen=True)
class Picture(SampleInfo):
    """A decoded image file; ``file_name`` is its path.

    pixels: ``(c, h, w)`` uint8, the network's channels. input_size: ``(h, w)`` that the network sees it in, without
    padding. shown: ``(3, h, w)`` uint8 RGB, to draw on. remarks: what to tell of the file, without its name.
    """

    file: ImageFile
    pixels: Tensor
    input_size: Size
    shown: Tensor
    remarks: tuple[str, ...] = ()


class Remarks:
    """What was told of pictures, once for each kind."""

    def __init__(self) -> None:
        self._files: dict[str, list[str]] = {}

    def add(self, picture: Picture) -> None:
        """What is told of it."""
        for remark in picture.remarks:
            self.tell(picture, remark)

    def tell(self, picture: Picture, remark: str) -> None:
        """One thing more."""
        self._files.setdefault(remark, []).append(picture.file_name)

    def take(self, parts: Iterable[Remarks]) -> None:
        """All that ``parts`` have, and nothing else."""
        files: dict[str, list[str]] = {}
        for part in parts:
            for remark, names in part._files.items():
                files.setdefault(remark, []).extend(names)
        self._files = files

    def notes(self) -> list[str]:
        """A line for each kind: the first file and how many others, and what is told."""
        return [
            f"{min(names)}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {remark}"
            for remark, names in sorted(self._files.items())
        ]


def picture_batches(
    files: Iterable[ImageFile],
    config: DataConfig,
    *,
    on_fault: Callable[[DataError], None] | None = None,
) -> Iterator[tuple[ImageBatch, list[Targets], list[Picture]]]:
    """Image files one by one, resized and normalised for a detector.

    Files that cannot be read are told to ``on_fault`` and left out; without it they raise their DataError.
    """
    transform, channels = inference_transform(config), Channels.of(config)
    for file in files:
        try:
            decoded = read_picture(file.path, file.size, channels)
        except DataError as error:
            if on_fault is None:
                raise
            on_fault(error)
            continue
        pixels = decoded.pixels
        batch = pad_images([transform.image(pixels)], config.pad_divisor)
        size = (pixels.shape[-2], pixels.shape[-1])
        picture = Picture(file.id, size, str(file.path), file, pixels, batch.sizes[0], decoded.shown, decoded.remarks)
        yield batch, [], [picture]
