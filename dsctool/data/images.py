"""Reading image files as they come.

Whatever the file holds becomes 8-bit RGB, the way OpenCV's colour mode (which mmdet and detectron2's
numbers were made with) reads it: grey is repeated, palettes are looked up, an alpha channel is dropped
without blending, CMYK is converted without a colour profile, and of 16-bit values the high byte stays.
Files with several frames give their first. Other channels, ranges and pages are taken where a
:class:`~dsctool.data.bands.Channels` asks for them.

EXIF orientation: OpenCV, and with it mmdet, turns the image; COCO annotations mean the width and height
they state. So the image is turned as EXIF says, unless only the stored orientation has the annotated
size. A turn by 180 degrees or a mirroring keeps the size, and is applied.

A file that ends early is an error; it never becomes a picture with grey rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from dsctool.data.bands import (
    NODATA,
    RGB,
    Channels,
    Extremes,
    Raster,
    Values,
    as_tensor,
    chosen,
    for_people,
    remarks,
    to_bytes,
    without_gaps,
)
from dsctool.data.decoding import any_size, decoding
from dsctool.data.orientation import as_stored, chosen_size, turned_size, upright
from dsctool.data.tiff import chosen_pages, is_tiff, read_tiff, tiff_size
from dsctool.errors import DataError
from dsctool.terms import Size

ImageSource = str | PathLike[str] | Image.Image | NDArray[Any] | Tensor
"""A picture as a program has it: a file's path, a Pillow image, ``(h, w, 3)`` uint8 in RGB order (also ``(h, w)`` grey
and ``(h, w, 4)`` with alpha), or a ``(3, h, w)`` uint8 tensor. OpenCV's arrays are BGR: give ``array[..., ::-1]``.
Models of other channels take as many; uint16 and, where ``data.image_range`` says what they mean, other types too."""

_PIECE = 1 << 20  # pixels
_PAGED = ("TIFF", "GIF", "PNG", "WEBP")
_SUBFILE_TYPE, _BITS, _PLANES, _SAMPLES, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 254, 258, 284, 277, 338, 339  # TIFF tags
_AS_THEY_ARE = ("L", "LA", "RGB", "RGBA", "RGBX", "I;16", "I;16B", "I;16L", "I;16N", "I", "F")


@dataclass(frozen=True)
class Decoded:
    """A picture for a network and for people.

    pixels: ``(c, h, w)`` uint8, the channels that were asked for. shown: ``(3, h, w)`` uint8 RGB to draw on.
    remarks: what to tell of it, without its name.
    """

    pixels: Tensor
    shown: Tensor
    remarks: tuple[str, ...] = ()


def read_image(path: Path, size: Size | None = None, channels: Channels = RGB) -> Tensor:
    """The image as ``(channels.count, h, w)`` uint8: RGB, unless ``channels`` says otherwise.

    size: ``(h, w)`` that the annotations mean; None takes what the file has.

    Raises:
        DataError: the file is missing, cut, no image, of a kind that cannot become these channels, or of another size;
            or of more pixels than Pillow's limit against decompression bombs, where ``size`` does not announce them.
    """
    with decoding(path), any_size(size is not None):
        raster = read_raster(path, size, channels)
        return as_tensor(to_bytes(chosen(raster, channels, str(path)), channels.span, str(path)))


def read_picture(path: Path, size: Size | None = None, channels: Channels = RGB) -> Decoded:
    """As :func:`read_image`, with what people see and should know."""
    with decoding(path), any_size(size is not None):
        return _decoded(read_raster(path, size, channels, count_pages=True), channels, str(path))


def shown_image(path: Path, size: Size | None = None) -> Tensor:
    """A file of any kind as ``(3, h, w)`` uint8 RGB to look at, whatever a model would take of it.

    Raises:
        DataError: the file cannot be decoded at all.
    """
    try:
        return read_picture(path, size).shown
    except DataError:
        with decoding(path), any_size(size is not None):
            raster = read_raster(path, size, Channels(count=0))
            bands = min(raster.values.shape[2], 3)
            channels = Channels(bands, tuple(range(1, bands + 1)), "percentile")
            return _decoded(raster, channels, str(path)).shown


def image_pixels(source: ImageSource, *, name: str = "image") -> Tensor:
    """The picture as ``(3, h, w)`` uint8 RGB, by the same rules whatever it comes in; ``name`` is its name in errors.

    Raises:
        DataError: as :func:`read_image`; an array or a tensor of another shape or type; no picture at all.
    """
    return picture_of(source, name=name).pixels


def picture_of(source: ImageSource, channels: Channels = RGB, *, name: str = "image") -> Decoded:
    """The picture in the channels that are asked for, with what people see; errors as for :func:`image_pixels`."""
    if isinstance(source, str | PathLike):
        return read_picture(Path(source), None, channels)
    if isinstance(source, Tensor):
        return _decoded(Raster(_checked_tensor(source, channels, name)), channels, name)
    if isinstance(source, np.ndarray):
        values = _checked_array(source, channels, name)
        return _decoded(Raster(values, extra=int(channels.count == 3 and values.shape[2] == 4)), channels, name)
    if not isinstance(source, Image.Image):
        raise DataError(
            f"{name}: give a path, a Pillow image or an (h, w, 3) uint8 array in RGB order, not {type(source).__name__}"
        )
    with decoding(Path(name)):
        raster = _from_pillow(source, None, channels, Path(name), count_pages=False)
    return _decoded(raster, channels, name)


def image_size(path: Path, size: Size | None = None) -> Size:
    """``(h, w)`` that :func:`read_image` would give, from the file's header alone.

    Raises:
        DataError: the file is missing, no image, or of another size than asked for.
    """
    with decoding(path), any_size():
        try:
            with Image.open(path) as image:
                _refuse_stubs(image)
                return chosen_size(_stored_size(image), _orientation(image), size, path)[0]
        except UnidentifiedImageError:
            if not is_tiff(path):
                raise
            return tiff_size(path, size)


def _checked_tensor(tensor: Tensor, channels: Channels, name: str) -> Values:
    wanted = channels.count if channels.bands is None else max(channels.bands)
    types = _types(channels)
    fits = tensor.ndim == 3 and (len(tensor) == wanted or (channels.bands is not None and len(tensor) > wanted))
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind not in types or not fits or tensor.numel() == 0:
        batch = "; predict() takes normalised batches" if tensor.ndim == 4 else ""
        order = " uint8 in RGB order, 0 to 255" if channels.plain else f" {' or '.join(types)}"
        raise DataError(f"{name}: a tensor must be ({wanted}, h, w){order}, not {tuple(tensor.shape)} {kind}{batch}")
    return tensor.to("cpu", copy=True).permute(1, 2, 0).numpy()  # results keep it, and callers reuse their buffers


def _checked_array(array: NDArray[Any], channels: Channels, name: str) -> Values:
    types = _types(channels)
    pictures = array.ndim == 2 or (array.ndim == 3 and (not channels.plain or array.shape[2] in (3, 4)))
    if array.dtype.name not in types or not pictures or array.size == 0:
        batch = "; give the pictures of a batch as a list" if array.ndim == 4 else ""
        shapes = "(h, w, 3) uint8 in RGB order, 0 to 255, or (h, w) for grey"
        if not channels.plain:
            shapes = f"(h, w, bands), or (h, w) for one band, of {' or '.join(types)}"
        raise DataError(f"{name}: an array must be {shapes}, not {array.shape} {array.dtype}{batch}")
    array = array.astype(array.dtype.newbyteorder("="))  # a copy: results keep it
    return array if array.ndim == 3 else array[:, :, None]


def _types(channels: Channels) -> tuple[str, ...]:
    """Of arrays: those that ``full`` says something of, or all numbers."""
    if channels.span == "full":
        return "uint8", "uint16"
    return "uint8", "uint16", "int16", "uint32", "int32", "float32", "float64"


def _decoded(raster: Raster, channels: Channels, name: str) -> Decoded:
    values = chosen(raster, channels, name)
    found = to_bytes(values, channels.span, name)
    pixels = as_tensor(found)
    plain = len(pixels) == 3 and not raster.deep
    shown = pixels if plain else for_people(raster, values, found, channels)
    return Decoded(pixels, shown, remarks(raster, Extremes.of(values, found), channels))


def read_raster(path: Path, size: Size | None, channels: Channels, *, count_pages: bool = False) -> Raster:
    """The values of a file; to be called within :func:`~dsctool.data.decoding.decoding`."""
    try:
        with Image.open(path) as image:
            _refuse_stubs(image)
            if not _beyond_pillow(image, channels):
                return _from_pillow(image, size, channels, path, count_pages=count_pages)
    except UnidentifiedImageError:
        if not is_tiff(path):
            raise
    return read_tiff(path, size, channels)


def _refuse_stubs(image: Image.Image) -> None:
    """Of formats that Pillow recognises, and cannot read."""
    if isinstance(image, ImageFile.StubImageFile):
        raise UnidentifiedImageError


def _beyond_pillow(image: Image.Image, channels: Channels) -> bool:
    """Whether it is a TIFF file of which Pillow would give the high bytes alone, not all bands, or nothing."""
    if image.format != "TIFF":
        return False
    tags = image.tag_v2  # type: ignore[attr-defined]
    if channels.plain:
        return _halves(image) and tags.get(_PLANES, 1) == 2
    return _halves(image) or tags.get(_SAMPLES, 1) > len(image.getbands())


def _halves(image: Image.Image) -> bool:
    """Whether Pillow gives the high bytes of 16-bit values: where there are several channels."""
    if image.format == "TIFF":
        bits = image.tag_v2.get(_BITS, (1,))  # type: ignore[attr-defined]
        return max(bits) > 8 and image.tag_v2.get(_SAMPLES, 1) > 1  # type: ignore[attr-defined]
    return (
        image.format == "PNG"
        and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
        and image.mode[0] != "I"
    )


def _from_pillow(image: Image.Image, size: Size | None, channels: Channels, path: Path, *, count_pages: bool) -> Raster:
    if channels.page is None:
        frame = _frame(image, size, channels, path)
        return replace(frame, pages=len(_pages(image)) if count_pages else 1)
    pages = _pages(image)
    frames = []
    for number in chosen_pages(len(pages), channels, path):
        if len(pages) > 1:
            image.seek(pages[number])
        frames.append(_frame(image, size, channels, path))
    if len(frames) == 1:
        return frames[0]
    return Raster(np.concatenate([frame.values for frame in frames], axis=2), pages=len(pages))


def _pages(image: Image.Image) -> list[int]:
    """The frames that are pages; smaller copies and masks of a TIFF's first one are none."""
    count = getattr(image, "n_frames", 1) if image.format in _PAGED else 1
    if image.format != "TIFF" or count == 1:
        return list(range(count))
    pages, size = [], None
    for number in range(count):
        image.seek(number)
        size = size or image.size
        if image.size == size and not (number and int(image.tag_v2.get(_SUBFILE_TYPE, 0)) & 5):  # type: ignore[attr-defined]
            pages.append(number)
    return pages


def _frame(image: Image.Image, size: Size | None, channels: Channels, path: Path) -> Raster:
    """The frame that the image is at."""
    halved = _halves(image)
    orientation = _orientation(image)  # which decodes a PNG file
    _, turn = chosen_size(_stored_size(image), orientation, size, path)
    kind = _widened(image)
    spare = _spare(image)
    nodata = image.tag_v2.get(NODATA) if image.format == "TIFF" else None  # type: ignore[attr-defined]
    image.load()
    if halved and not channels.plain:
        if image.format != "PNG" or not path.is_file():
            raise DataError(f"{path}: Pillow gives the high bytes of its 16-bit values alone: give the file's path")
        raster = _deep_png(path)
    else:
        raster = _values(image, channels, halved=halved, kind=kind)
    values = without_gaps(raster.values, nodata, channels.span)
    if image.format == "TIFF":  # Pillow has turned it
        values = values if turn else as_stored(values, orientation)
    elif turn:
        values = upright(values, orientation)
    return Raster(values, raster.extra, halved=raster.halved, spare=spare)


def _spare(image: Image.Image) -> int:
    """How many bands of a TIFF file that Pillow takes for alpha, or leaves out, it does not call so."""
    if image.format != "TIFF" or image.mode not in ("L", "LA", "RGB", "RGBA", "RGBX"):
        return 0
    kinds = image.tag_v2.get(_EXTRA_SAMPLES, ())  # type: ignore[attr-defined]
    return sum(kind == 0 for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))


def _values(image: Image.Image, channels: Channels, *, halved: bool, kind: type[np.integer[Any]] | None) -> Raster:
    """kind: of the values, where Pillow gives them as others."""
    mode = image.mode
    if kind is np.int8:
        return Raster(np.array(image).view(np.int8)[:, :, None])
    if mode[0] in "IF":
        values = np.array(image)
        return Raster(values.astype(kind or values.dtype.newbyteorder("="), copy=False)[:, :, None])
    if channels.plain:
        return Raster(_as_rgb(image), halved=halved)
    if mode == "1":
        image = image.convert("L")
    elif mode not in _AS_THEY_ARE:
        transparent = "transparency" in image.info or mode in ("PA", "La", "RGBa")
        image = image.convert("RGBA" if transparent else "RGB")
    values = np.array(image)
    values = values if values.ndim == 3 else values[:, :, None]
    return Raster(values, extra=int(image.mode in ("LA", "RGBA", "RGBX")), halved=halved)


def _as_rgb(image: Image.Image) -> Values:
    """Piece by piece: Pillow would hold large images four times."""
    values = np.empty((image.height, image.width, 3), dtype=np.uint8)
    rows = max(1, _PIECE // image.width)
    for top in range(0, image.height, rows):
        piece = image if rows >= image.height else image.crop((0, top, image.width, min(top + rows, image.height)))
        values[top : top + rows] = np.asarray(
            (piece.convert("RGBA") if image.mode in ("P", "PA") else piece).convert("RGB")
        )
    return values


def _deep_png(path: Path) -> Raster:
    """Values of 16 bits in several channels: Pillow gives either byte of each, as it is told the order of the bytes."""
    with Image.open(path) as image:
        order = str(image.tile[0][3]).removesuffix("B")
    if order == "LA;16":  # whose four bytes are as many as RGBA's
        values = _read_as(path, "RGBA").view(">u2")
    else:
        values = _read_as(path, f"{order}B").astype(np.uint16) << 8 | _read_as(path, f"{order}L")
    return Raster(values.astype(np.uint16), extra=int(values.shape[2] in (2, 4)))


def _read_as(path: Path, order: str) -> Values:
    with Image.open(path) as image:
        image.tile = [(*tile[:3], order) for tile in image.tile]  # type: ignore[misc]
        return np.array(image)


def _widened(image: Image.Image) -> type[np.integer[Any]] | None:
    """What a TIFF file holds that Pillow gives as signed values of 32 bits, or without their sign."""
    if image.format != "TIFF" or image.mode not in ("I", "L"):
        return None
    tags = image.tag_v2  # type: ignore[attr-defined]
    kinds: dict[tuple[int, int], type[np.integer[Any]]] = {(8, 2): np.int8, (16, 2): np.int16, (32, 1): np.uint32}
    return kinds.get((tags.get(_BITS, (1,))[0], tags.get(_SAMPLE_FORMAT, (1,))[0]))


def _stored_size(image: Image.Image) -> Size:
    size = (image.height, image.width)
    return turned_size(size, _orientation(image)) if image.format == "TIFF" else size  # Pillow says the turned one


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever a broken EXIF block brings about
        return 1  # it says nothing, and does no harm
    return orientation if isinstance(orientation, int) else 1
