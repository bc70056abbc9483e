"""What an exported file says of itself, beside its program: all that is needed to use it.

It is JSON, under the name ``dsctool`` in the metadata of an ONNX file, and as ``dsctool.json`` in a pt2 file::

    format      "dsctool-exported"
    version     1
    input       how images come: see ExportInput
    config      the resolved configuration as plain mappings, with its schema version
    categories  [{"id": 1, "name": "person"}, ...]: the class with label i is the i-th
    precision   what the layers compute in: float32, float16 or int8
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

from dsctool.config.loading import config_from_mapping
from dsctool.config.schema import Config
from dsctool.data.records import Category
from dsctool.errors import CheckpointError, ConfigError, DamagedError
from dsctool.terms import Size

FORMAT, VERSION = "dsctool-exported", 1
KEY, FILE = "dsctool", "dsctool.json"
SUFFIXES = (".onnx", ".pt2")
STRIDE = 32
"""Sides of a canvas are multiples of this, in pixels."""
LEAST = 96
"""Sides of a canvas have at least so many pixels: with fewer, the coarsest map has one row, of which a traced program
knows that it is one."""
Pixels = Literal["uint8", "float32", "picture"]
LayerPrecision = Literal["float32", "float16", "int8"]
INPUTS = ("images", "sizes", "original_sizes")


@dataclass(frozen=True)
class ExportInput:
    """How images come in.

    pixels: ``uint8``: resized, from 0 to 255, normalised by the program; ``float32``: resized and normalised;
    ``picture``: one as it was read, which the program resizes, so that it has ``images`` as its only input.
    canvas: (h, w) that every image is padded to; None: any with sides that are multiples of :data:`STRIDE` pixels, from
    :data:`LEAST` on.
    batch: images at once.
    """

    pixels: Pixels = "uint8"
    canvas: Size | None = None
    batch: int = 1

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs of a program, in their order."""
        return INPUTS[:1] if self.pixels == "picture" else INPUTS


@dataclass(frozen=True)
class ExportedFile:
    """What a file says of itself."""

    input: ExportInput
    config: Config
    categories: list[Category]
    precision: LayerPrecision = "float32"

    def to_json(self) -> str:
        """As it is written."""
        return json.dumps(
            {
                "format": FORMAT,
                "version": VERSION,
                "input": asdict(self.input),
                "config": self.config.model_dump(mode="json"),
                "categories": [{"id": category.id, "name": category.name} for category in self.categories],
                "precision": self.precision,
            }
        )


def read_description(text: str | None, source: object) -> ExportedFile:
    """What :meth:`ExportedFile.to_json` wrote into ``source``.

    Raises:
        CheckpointError: it is the file of another program, or of a newer release of this one, or damaged.
    """
    if text is None:
        raise CheckpointError(f"{source}: was not written by dsctool export, so nothing says how to use it.")
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise KeyError("format")
        version = content["version"]
        if version > VERSION:
            raise CheckpointError(
                f"{source}: written by a newer dsctool (version {version} of exported files, this one reads up to "
                f"{VERSION}). Update dsctool to read it."
            )
        return ExportedFile(
            input=_input(content["input"]),
            config=config_from_mapping(content["config"], source=str(source)),
            categories=[Category(int(each["id"]), str(each["name"])) for each in content["categories"]],
            precision=_precision(content.get("precision", "float32")),
        )
    except ConfigError as error:
        raise CheckpointError(
            f"{source}: its configuration is not valid here, so another release of dsctool wrote it.\n{error}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(
            f"{source}: what dsctool export wrote about it is damaged ({error}). Export again."
        ) from error


def _input(content: dict[str, Any]) -> ExportInput:
    canvas: Sequence[int] | None = content["canvas"]
    if content["pixels"] not in get_args(Pixels):
        raise ValueError(f"pixels: {content['pixels']}")
    return ExportInput(
        pixels=content["pixels"],
        canvas=None if canvas is None else (int(canvas[0]), int(canvas[1])),
        batch=int(content["batch"]),
    )


def _precision(name: object) -> LayerPrecision:
    for each in get_args(LayerPrecision):
        if name == each:
            return cast("LayerPrecision", each)
    raise ValueError(f"precision: {name}")


def outputs_of(config: Config) -> list[str]:
    """The names of the outputs of a program, in their order; :class:`~dsctool.models.exportable.Exportable`'s."""
    masks = ["masks"] if config.model.cascade.has_masks else []
    return ["boxes", "scores", "labels", *masks, "count"]
