"""Pictures of a detector's results, as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from dsctool.data.images import read_image
from dsctool.files import whole_file
from dsctool.structures import Size
from dsctool.visualize.draw import draw_instances

if TYPE_CHECKING:
    from dsctool.engine.inference import Result


def save_overlay(
    target: Path, image: Path, results: Sequence[Result], names: Mapping[int, str], *, size: Size, threshold: float
) -> None:
    """Write ``image`` with its results of at least ``threshold`` as JPEG to ``target``, whole or not at all.

    names: of the categories, by id. size: ``(h, w)`` that the results are in.
    """
    shown = [result for result in results if result["score"] >= threshold]
    picture = draw_results(read_image(image, size), shown, names)
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as file:
        picture.save(file, format="JPEG", quality=92, subsampling=0)


def draw_results(
    image: Image.Image | Tensor, results: Sequence[Result], names: Mapping[int, str], *, size: Size | None = None
) -> Image.Image:
    """``image``, a Pillow image or ``(3, h, w)`` uint8 RGB, with results on it.

    names: of the categories, by id. size: ``(h, w)`` that the results are in, where the image has been brought to
    another one; lines and text are sized for the image as it is.
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
    )
