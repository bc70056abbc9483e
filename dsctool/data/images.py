"""Reading image files as they come.

Whatever the file holds becomes 8-bit RGB, the way OpenCV's colour mode (which mmdet and detectron2's
numbers were made with) reads it: grey is repeated, palettes are looked up, an alpha channel is dropped
without blending, CMYK is converted without a colour profile, and of 16-bit values the high byte stays.
Files with several frames give their first.

EXIF orientation: OpenCV, and with it mmdet, turns the image; COCO annotations mean the width and height
they state. So the image is turned as EXIF says, unless only the stored orientation has the annotated
size. A turn by 180 degrees or a mirroring keeps the size, and is applied.

A file that ends early is an error; it never becomes a picture with grey rows.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor

from dsctool.data.decoding import DECODE_ERRORS, unreadable
from dsctool.errors import DataError
from dsctool.terms import Size

ImageSource = str | PathLike[str] | Image.Image | NDArray[Any] | Tensor
"""A picture as a program has it: a file's path, a Pillow image, ``(h, w, 3)`` uint8 in RGB order (also ``(h, w)`` grey
and ``(h, w, 4)`` with alpha), or a ``(3, h, w)`` uint8 tensor. OpenCV's arrays are BGR: give ``array[..., ::-1]``."""

# Pillow's exif_transpose turns the same way, but also writes the EXIF block anew, and fails on broken ones.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # the EXIF orientations that swap width and height


def read_image(path: Path, size: Size | None = None) -> Tensor:
    """The image as ``(3, h, w)`` uint8 RGB.

    size: ``(h, w)`` that the annotations mean; None takes what the file has.

    Raises:
        DataError: the file is missing, cut, no image, of a kind that cannot become 8-bit RGB, or of another size.
    """
    try:
        with Image.open(path) as image:
            return _pixels(image, size, path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except DECODE_ERRORS as error:
        raise unreadable(path, error) from None


def image_pixels(source: ImageSource, *, name: str = "image") -> Tensor:
    """The picture as ``(3, h, w)`` uint8 RGB, by the same rules whatever it comes in; ``name`` is its name in errors.

    Raises:
        DataError: as :func:`read_image`; an array or a tensor of another shape or type; no picture at all.
    """
    if isinstance(source, str | PathLike):
        return read_image(Path(source))
    if isinstance(source, Tensor):
        return _checked_tensor(source, name)
    if isinstance(source, np.ndarray):
        source = Image.fromarray(_checked_array(source, name))
    if not isinstance(source, Image.Image):
        raise DataError(
            f"{name}: give a path, a Pillow image or an (h, w, 3) uint8 array in RGB order, not {type(source).__name__}"
        )
    try:
        return _pixels(source, None, Path(name))
    except DECODE_ERRORS as error:
        raise unreadable(Path(name), error) from None


def _checked_tensor(tensor: Tensor, name: str) -> Tensor:
    if tensor.dtype != torch.uint8 or tensor.ndim != 3 or len(tensor) != 3 or tensor.numel() == 0:
        kind = f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
        batch = "; predict() takes normalised batches" if tensor.ndim == 4 else ""
        raise DataError(f"{name}: a tensor must be (3, h, w) uint8 in RGB order, 0 to 255, not {kind}{batch}")
    return tensor.to("cpu", copy=True)  # results keep it, and callers reuse their buffers


def _checked_array(array: NDArray[Any], name: str) -> NDArray[Any]:
    pictures = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not pictures or array.size == 0:
        batch = "; give the pictures of a batch as a list" if array.ndim == 4 else ""
        raise DataError(
            f"{name}: an array must be (h, w, 3) uint8 in RGB order, 0 to 255, or (h, w) for grey, "
            f"not {array.shape} {array.dtype}{batch}"
        )
    return array


def image_size(path: Path, size: Size | None = None) -> Size:
    """``(h, w)`` that :func:`read_image` would give, from the file's header alone.

    Raises:
        DataError: the file is missing, no image, or of another size than asked for.
    """
    try:
        with Image.open(path) as image:
            return _chosen_size(image, size, path)[0]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except DECODE_ERRORS as error:
        raise unreadable(path, error) from None


def _chosen_size(image: Image.Image, size: Size | None, path: Path) -> tuple[Size, bool]:
    """The size to use and whether the EXIF orientation is applied to get it."""
    stored = (image.height, image.width)
    turned = (image.width, image.height) if _orientation(image) in _SIDEWAYS else stored
    if size is None or turned == size:
        return turned, True
    if stored == size:
        return stored, False
    raise DataError(
        f"{path}: is {turned[1]} x {turned[0]} pixels, the annotation says {size[1]} x {size[0]} (width x height)"
    )


def _oriented(image: Image.Image, size: Size | None, path: Path) -> Image.Image:
    _, turn = _chosen_size(image, size, path)
    orientation = _orientation(image)
    return image.transpose(_UPRIGHT[orientation]) if turn and orientation in _UPRIGHT else image


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (*DECODE_ERRORS, KeyError, TypeError):
        return 1  # a broken EXIF block says nothing, and does no harm
    return orientation if isinstance(orientation, int) else 1


def _pixels(image: Image.Image, size: Size | None, path: Path) -> Tensor:
    image.load()
    return torch.from_numpy(_to_rgb(_oriented(image, size, path), path)).permute(2, 0, 1).contiguous()


def _to_rgb(image: Image.Image, path: Path) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow widens some files to 32 bits
        grey = np.asarray(image)
        if grey.size and (grey.min() < 0 or grey.max() > 0xFFFF):
            raise DataError(f"{path}: holds 32-bit values; save it with 8 or 16 bits a channel")
        return np.repeat((grey >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise DataError(f"{path}: holds floating-point values; save it with 8 or 16 bits a channel")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))
