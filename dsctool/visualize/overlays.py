"""Pictures of a detector's results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from PIL import Image
from torch import Tensor

from dsctool.coco_results import Result
from dsctool.data.images import ImageSource, picture_of, shown_image
from dsctool.errors import DataError
from dsctool.files import whole_file
from dsctool.structures import Instances
from dsctool.terms import Size
from dsctool.visualize.colors import Color
from dsctool.visualize.draw import PLAIN, Style, draw_instances


def draw_found(found: Instances, image: ImageSource | None = None, *, style: Style = PLAIN) -> Image.Image:
    """Instances on ``image``, or on the picture that they carry, at its size; that may have been made smaller.

    Raises:
        DataError: there is no picture, or it cannot be used, or has another size than the instances.
    """
    source = found.image if image is None else image
    if source is None:
        raise DataError("these instances carry no picture: give one, as in draw('photo.jpg')")
    pixels = shown_image(Path(source)) if isinstance(source, str | PathLike) else picture_of(source).shown
    size = (pixels.shape[-2], pixels.shape[-1])
    smaller = image is None and found.encoded is not None and size != found.size
    if found.size not in (None, size) and not smaller:
        raise DataError(f"the picture has {size} pixels, these instances are in {found.size} (height, width)")
    return draw_instances(
        pixels,
        boxes=found.boxes,
        names=found.names,
        scores=found.scores,
        masks=found.masks if found.encoded is None else found.encoded,
        size=found.size if smaller else None,
        style=style,
        classes=[category.name for category in found.categories],
    )


def save_overlay(
    target: Path, image: Tensor, results: Sequence[Result], names: Mapping[int, str], *, size: Size | None = None,
    style: Style = PLAIN,
) -> None:  # fmt: skip
    """Write ``image`` with its results as JPEG to ``target``, whole or not at all.

    image: ``(3, h, w)`` uint8 RGB. names: of the categories, by id. size: ``(h, w)`` that the results are in, where the
    image was made smaller.
    """
    smaller = None if size == tuple(image.shape[-2:]) else size
    picture = draw_results(image, results, names, size=smaller, style=style)
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as file:
        picture.save(file, format="JPEG", quality=92, subsampling=0)


def draw_results(
    image: Image.Image | Tensor, results: Sequence[Result], names: Mapping[int, str], *, size: Size | None = None,
    style: Style = PLAIN, colors: Sequence[Color] | None = None,
) -> Image.Image:  # fmt: skip
    """``image``, a Pillow image or ``(3, h, w)`` uint8 RGB, with results on it.

    names: of the categories, by id. colors: of the results, in place of those that ``style`` gives. size: ``(h, w)``
    that the results are in, where the image has been brought to another one; lines and text are sized for the image as
    it is.
    """
    corners = [(x, y, x + width, y + height) for x, y, width, height in (result["bbox"] for result in results)]
    masks = [result["segmentation"] for result in results if "segmentation" in result]
    return draw_instances(
        image,
        boxes=corners,
        names=[names[result["category_id"]] for result in results],
        scores=[result["score"] for result in results],
        masks=masks if len(masks) == len(results) else None,
        size=size,
        style=style,
        classes=list(names.values()),
        colors=colors,
    )
