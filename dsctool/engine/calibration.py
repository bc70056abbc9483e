"""What an exported file is called with on pictures: whole ones, tiles, whatever its configuration says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from dsctool.data.image_files import number_images
from dsctool.engine.tiles import found_in_files
from dsctool.errors import DataError
from dsctool.interop.exported import ExportedDetector, Outputs
from dsctool.interop.onnx_precision import Inputs


def inputs_seen(exported: ExportedDetector, files: Sequence[Path], *, count: int) -> Iterator[Inputs]:
    """What ``exported`` is called with on ``count`` of ``files``, evenly chosen.

    Where it finds nothing is left out, since then some of its layers see nothing.

    Raises:
        DataError: it finds nothing in any of them.
    """
    seen: list[Inputs] = []

    def look(inputs: Sequence[Tensor], outputs: Outputs) -> None:
        if bool((outputs["count"] > 0).all()):
            seen.append({name: value.numpy() for name, value in zip(exported.form.inputs, inputs, strict=True)})

    places = np.linspace(0, len(files) - 1, num=min(count, len(files))).round().astype(int)
    pictures = number_images([files[place] for place in places])
    stream = found_in_files(
        exported.watched(look), pictures, exported.config.data, device=exported.device, preview=False
    )
    nothing = True
    for _ in stream:
        nothing = nothing and not seen
        yield from seen
        seen.clear()
    if nothing:
        raise DataError(
            f"{exported.source}: finds nothing in {len(places)} pictures of the training split, so that the ranges of "
            "its layers cannot be told: train for longer, or export float16"
        )
