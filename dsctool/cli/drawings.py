"""The pictures that ``dsctool predict`` draws of every image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dsctool.coco_results import Result
    from dsctool.data.image_files import ImageFile
    from dsctool.data.pictures import Picture
    from dsctool.engine.inference import Runnable
    from dsctool.engine.object_sizes import SmallCount
    from dsctool.engine.panoptic import PanopticFusion
    from dsctool.engine.work_file import PanopticEntry
    from dsctool.structures import Detections
    from dsctool.visualize.draw import Style


class ColorBy(StrEnum):
    """What has a colour of its own."""

    CLASS = "class"
    INSTANCE = "instance"


NoLabels = Annotated[bool, typer.Option("--no-labels", help="Overlays without names.")]
Coloring = Annotated[
    ColorBy | None,
    typer.Option(
        "--color", help="Overlays with a legend and counts below them, and a colour for each class or each instance."
    ),
]


@dataclass(frozen=True)
class Targets:
    """What is written where: files, then folders; None is not wanted."""

    results: Path
    candidates: Path | None
    table: Path
    overlays: Path | None
    stages: Path | None
    panoptic: Path | None

    @property
    def files(self) -> list[Path | None]:
        """Those that are no pictures."""
        return [self.results, self.candidates, self.table, self.panoptic]


Draw = Callable[["Picture", "Detections", "list[Result]"], "PanopticEntry | None"]


def style_of(no_labels: bool, color: ColorBy | None) -> Style:
    """What ``--no-labels`` and ``--color`` say."""
    from dsctool.visualize.draw import Style

    return Style(labels=not no_labels, color=None if color is None else color.value)


def as_option(no_labels: bool, color: ColorBy | None) -> dict[str, object]:
    """What a work file says of it: nothing about what overlays were before there was a choice."""
    return ({"no_labels": True} if no_labels else {}) | ({"color": color.value} if color is not None else {})


def drawings(
    files: list[ImageFile], model: Runnable, targets: Targets, thresholds: Mapping[int, float],
    fusion: PanopticFusion | None, style: Style,
) -> Draw:  # fmt: skip
    """Draws what is wanted of an image, under a name of its own; gives what the panoptic file says of it."""
    from dsctool.coco_results import reaching
    from dsctool.data.image_files import output_names

    named = dict(zip([file.id for file in files], output_names([file.path for file in files]), strict=True))
    categories = {category.id: category.name for category in model.categories}
    kinds = {} if fusion is None else {category.id: category for category in fusion.categories}

    def draw(picture: Picture, found: Detections, results: list[Result]) -> PanopticEntry | None:
        name = f"{named[picture.image_id]}.jpg"
        segments = None
        if fusion is not None and targets.panoptic is not None:
            from dsctool.data.panoptic import png_folder
            from dsctool.engine.panoptic import save_fused
            from dsctool.visualize.panoptic import save_panoptic

            fused = fusion(picture, found, results)
            png = f"{named[picture.image_id]}.png"
            segments = save_fused(fused, picture.image_id, png_folder(targets.panoptic), png)
            if targets.overlays is not None:
                save_panoptic(targets.overlays / name, picture.shown, fused, kinds, labels=style.labels)
        elif targets.overlays is not None:
            from dsctool.visualize.overlays import save_overlay

            shown = reaching(results, thresholds)
            size = picture.original_size
            save_overlay(targets.overlays / name, picture.shown, shown, categories, size=size, style=style)
        if targets.stages is not None:
            from dsctool.visualize.stages import save_strip

            lowest = [thresholds[category.id] for category in model.categories]
            save_strip(targets.stages / name, picture.shown, found, thresholds=lowest)
        return segments

    return draw


def counted(draw: Draw, small: SmallCount) -> Draw:
    """The same, and the sizes of what was found are counted."""

    def both(picture: Picture, found: Detections, results: list[Result]) -> PanopticEntry | None:
        small.add(results, picture.original_size)
        return draw(picture, found, results)

    return both
