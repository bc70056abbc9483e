"""Arguments and options that several subcommands share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.errors import DataError

if TYPE_CHECKING:
    from dsctool.evaluation.protocol import Protocol


def shipped_names(incomplete: str) -> list[str]:
    """The shipped configurations whose names begin so, for the shell's completion."""
    from dsctool.config.names import shipped_paths

    return [name for name in shipped_paths() if name.startswith(incomplete)]


def with_tta(overrides: Sequence[str], tta: bool) -> list[str]:
    """The values to change, which may change test-time augmentation itself."""
    return [*(["data.tta={}"] if tta else []), *overrides]


def with_tiles(overrides: Sequence[str], size: int | None, overlap: float | None, batch: int | None) -> list[str]:
    """The values to change, which may change tiles themselves."""
    further = {"overlap": overlap, "batch": batch}
    given = {name: value for name, value in further.items() if value is not None}
    if size is None:
        if given:
            raise typer.BadParameter("is for --tiles PIXELS", param_hint=f"--{next(iter(given))}")
        return list(overrides)
    return [f"data.tiles.size={size}", *(f"data.tiles.{name}={value:g}" for name, value in given.items()), *overrides]


class Split(StrEnum):
    """Which part of the data set."""

    VAL = "val"
    TRAIN = "train"


class ComputedIn(StrEnum):
    """The precisions."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


CHECKPOINT_HELP = "A best.pt or last.pt that dsctool train wrote, or a published .pth file (dsctool convert)."
CONFIG_HELP = "Name of a shipped configuration, or a YAML file."
Checkpoint = Annotated[Path, typer.Argument(metavar="CHECKPOINT", help=CHECKPOINT_HELP)]
ConfigName = Annotated[str, typer.Argument(metavar="CONFIG", help=CONFIG_HELP, autocompletion=shipped_names)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Values to change, as in optim.lr=0.01 postprocess.nms=mask"),
]
TTA = Annotated[
    bool,
    typer.Option(
        "--tta", help="See every image in several views: the ten of the DetectoRS paper, or as data.tta.KEY=VALUE says."
    ),
]
TILES_HELP = "Look at larger images by square windows of this side, and stitch what they find; data.tiles.KEY=VALUE."
Tiles = Annotated[int | None, typer.Option("--tiles", metavar="PIXELS", min=1, help=TILES_HELP)]
Overlap = Annotated[
    float | None,
    typer.Option(
        "--overlap",
        metavar="SHARE",
        min=0,
        max=0.5,
        help="With --tiles: what a window shares with the next one.  [default: 0.25]",
    ),
]
TilesAtOnce = Annotated[
    int | None, typer.Option("--batch", metavar="N", min=1, help="With --tiles: windows at once.  [default: 1]")
]
IMAGES_HELP = (
    "Image files, folders of them, and patterns in quotes, as in 'photos/*.png'; and values to change, as in "
    "postprocess.nms=mask: a word KEY=VALUE that is no file's name is one."
)
DataRoot = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="Data set: annotations/, one folder per split, or as configured.")
]
SplitName = Annotated[Split, typer.Option("--split", help="Part of the data set.")]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="auto (CUDA, else cpu), cpu, cuda, cuda:N or mps.")
]
PrecisionName = Annotated[
    ComputedIn, typer.Option("--precision", help="What the network computes in; half of float32 is faster on a GPU.")
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Also write the result to a JSON file; - is standard output."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the results that an earlier run left in the folder.")
]
MaxDets = Annotated[
    str | None,
    typer.Option(
        "--max-dets",
        metavar="N|1,10,N|auto",
        help="Detections that count per image and class, those of highest score; an AR for each number. auto: the most "
        "instances of one class in one image, at least 100.  [default: COCO's 1,10,100]",
    ),
]
Areas = Annotated[
    str | None,
    typer.Option(
        "--areas",
        metavar="NAME:LOW:HIGH,...",
        help="Ranges of areas with numbers of their own, as in small:0:320,medium:320:970,large:970:inf; both ends "
        "belong to them.  [default: COCO's small, medium and large]",
    ),
]


def as_option(precision: ComputedIn) -> dict[str, str]:
    """What a work file says of it: nothing about float32, which is what runs were before there was a choice."""
    return {} if precision is ComputedIn.FLOAT32 else {"precision": precision.value}


_OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)*=.*", re.DOTALL)


def is_override(word: str) -> bool:
    """Whether it is ``KEY=VALUE``, and not the name of a file."""
    return _OVERRIDE.fullmatch(word) is not None and not Path(word).exists()


def images_and_overrides(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Apart again: ``KEY=VALUE`` is an override unless there is a file of that name."""
    overrides = [word for word in words if is_override(word)]
    return [Path(word) for word in words if word not in overrides], overrides


def protocol_from(max_dets: str | None, areas: str | None = None, *, otherwise: Protocol | None = None) -> Protocol:
    """What ``--max-dets`` and ``--areas`` say; where they say nothing it is as in ``otherwise``, or COCO's."""
    from dsctool.evaluation.protocol import Protocol, parse_areas, parse_max_dets

    otherwise = otherwise or Protocol()
    try:
        return Protocol(
            max_dets=otherwise.max_dets if max_dets is None else parse_max_dets(max_dets),
            areas=otherwise.areas if areas is None else parse_areas(areas),
        )
    except DataError as error:
        raise typer.BadParameter(str(error)) from None
