"""``dsctool data synth``: generated scenes, and the published sets of them."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from dsctool.cli.output import counting

TRAIN_IMAGES, VAL_IMAGES, SEED, HUDDLE = 64, 16, 0, 0.5
"""Without a preset."""

Number = TypeVar("Number", int, float)


class PresetName(StrEnum):
    """Published sets."""

    HUDDLES = "huddles"


def synth(
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="A new folder.")],
    preset: Annotated[
        PresetName | None,
        typer.Option("--preset", help="The published set huddles-1: 2,000 and 500 images, all apart to all in heaps."),
    ] = None,
    train_images: Annotated[
        int | None, typer.Option("--train-images", min=1, show_default=str(TRAIN_IMAGES), help="Training images.")
    ] = None,
    val_images: Annotated[
        int | None, typer.Option("--val-images", min=0, show_default=str(VAL_IMAGES), help="Validation images.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, show_default=str(SEED), help="The same seed gives the same data set."),
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", metavar="HxW", help="Height and width in pixels; if not given, they vary.")
    ] = None,
    huddle: Annotated[
        float | None,
        typer.Option(
            "--huddle",
            min=0,
            max=1,
            show_default=str(HUDDLE),
            help="From 0, all apart, to 1, all in heaps of their class.",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option("--classes", metavar="NAME,..", help="Only these of crab, eel, fish, pebble, shell and starfish."),
    ] = None,
    images: Annotated[int | None, typer.Option("--images", min=1, hidden=True)] = None,
) -> None:
    """Make a data set of sea animals, shells and pebbles that hide each other, in COCO's format and layout.

    Masks are exact and hold visible pixels only. Stuff maps are made as well (data.semantic=stuffthingmaps).

    A preset says all of a set, so that results on it can be compared; its version and seed stand in the annotations'
    info. With other numbers of images, or another seed, it is not the published set, and info says so.

    Examples:

        dsctool data synth --output shapes --train-images 64 --val-images 16 --seed 1 --huddle 0.8

        dsctool data synth --output huddles --preset huddles
    """
    from dsctool.data.synthetic.dataset import synthesize, synthesize_preset
    from dsctool.data.synthetic.presets import HUDDLES
    from dsctool.data.synthetic.scenes import CLASSES

    count = train_images if images is None else images
    if preset is not None:
        given = {"--size": size, "--huddle": huddle, "--classes": classes}
        if fixed := [name for name, value in given.items() if value is not None]:
            raise typer.BadParameter(f"fixed by --preset {preset}; leave out one or the other", param_hint=fixed)
        chosen = HUDDLES.changed(images=count, val_images=val_images, seed=seed)
        with counting() as progress:
            synthesize_preset(output, chosen, progress=progress)
        typer.echo(f"{_made(output, chosen.images, chosen.val_images)}: {chosen.title}")
        return
    names = CLASSES if classes is None else tuple(name.strip() for name in classes.split(","))
    sides = None if size is None else _size(size)
    count, val_count = _given(count, TRAIN_IMAGES), _given(val_images, VAL_IMAGES)
    with counting() as progress:
        synthesize(
            output, images=count, val_images=val_count, seed=_given(seed, SEED), size=sides,
            huddle=_given(huddle, HUDDLE), classes=names, progress=progress,
        )  # fmt: skip
    typer.echo(_made(output, count, val_count))


def _given(value: Number | None, default: Number) -> Number:
    return default if value is None else value


def _made(output: Path, images: int, val_images: int) -> str:
    return f"{output}: {images} training and {val_images} validation images"


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text.strip(), re.IGNORECASE)
    if match is None:
        raise typer.BadParameter(f"'{text}' is not height x width in pixels, such as 192x256", param_hint="--size")
    return int(match[1]), int(match[2])
