"""Pictures of a detector's results, as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
    corners = [(x, y, x + width, y + height) for x, y, width, height in (result["bbox"] for result in shown)]
    masks = [result["segmentation"] for result in shown if "segmentation" in result]
    picture = draw_instances(
        read_image(image, size),
        boxes=corners,
        names=[names[result["category_id"]] for result in shown],
        scores=[result["score"] for result in shown],
        masks=masks if len(masks) == len(shown) else None,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as file:
        picture.save(file, format="JPEG", quality=92, subsampling=0)
