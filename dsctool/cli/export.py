"""``dsctool export``: a checkpoint as a program that runs without this package, compared with the checkpoint."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.options import Checkpoint, Overrides
from dsctool.cli.output import keep_apart, prepare_file
from dsctool.errors import DsctoolError

if TYPE_CHECKING:
    from torch import Tensor

    from dsctool.engine.export_check import Differences
    from dsctool.interop.export_file import ExportInput
    from dsctool.interop.exported import ExportedDetector
    from dsctool.models.detector import Detector
    from dsctool.terms import Size


class Format(StrEnum):
    """What kind of file it is."""

    ONNX = "onnx"
    PT2 = "pt2"


class PixelType(StrEnum):
    """How images come."""

    UINT8 = "uint8"
    FLOAT32 = "float32"


def export(
    checkpoint: Checkpoint,
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="File to write: F.onnx or F.pt2.")],
    overrides: Overrides = None,
    file_format: Annotated[
        Format | None, typer.Option("--format", help="Whose file.  [default: by the ending of FILE]")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="HxW",
            help="One canvas for all pictures, sides multiples of 32; of one that is not square, pictures of the other "
            "orientation may not fit.  [default: any canvas, picture by picture]",
        ),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, metavar="N", help="Pictures at once, always as many.")] = 1,
    pixels: Annotated[
        PixelType,
        typer.Option("--input", help="Pictures of 0 to 255, normalised in the file; or normalised ones."),
    ] = PixelType.UINT8,
    opset: Annotated[int, typer.Option("--opset", min=19, max=23, help="Of ONNX.")] = 20,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Compare on pictures of this data set's val split.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Compare on these pictures.  [default: drawn ones]")
    ] = None,
    pictures: Annotated[
        int, typer.Option("--pictures", min=1, metavar="N", help="How many of them to compare on, at most.")
    ] = 5,
) -> None:
    """Write a checkpoint as a program for other tools, and see that it finds the same.

    ONNX files run in onnxruntime, on any machine; pt2 files where torch and torchvision are. In go images, resized and
    on a canvas, with their sizes there and their original sizes; out come boxes in the original pixels, scores, labels,
    masks of 28 x 28 probabilities over their boxes, and how many there are. What the file must say of itself, such as
    the classes and how pictures are resized, is JSON in its metadata. Beside an ONNX file a script of numpy, Pillow and
    onnxruntime shows how to use it.

    Before the file gets its name it runs beside the checkpoint on pictures. The largest differences are shown; where
    they are too large, no file is left. predict, eval and benchmark take exported files like checkpoints.

    Suppression by masks or by decaying scores, and conventions of mmdet 1.x, cannot be exported.

    Examples:

        dsctool export runs/first/best.pt --output first.onnx

        dsctool export runs/first/best.pt --size 640x640 --data datasets/cells --output first.onnx

        dsctool export runs/first/best.pt postprocess.score_threshold=0.3 --output first.pt2
    """
    import torch

    from dsctool.engine.export_check import Limits, differences
    from dsctool.interop.checkpoint import load_model
    from dsctool.interop.export_file import ExportInput
    from dsctool.interop.exported import load_exported
    from dsctool.interop.exporting import require_onnx

    form = _format(file_format, output)
    script = output.with_name(f"{output.stem}_example.py") if form is Format.ONNX else None
    keep_apart([output, *([script] if script else [])], [checkpoint])
    prepare_file(output)
    if form is Format.ONNX:
        require_onnx()
    wanted = ExportInput(pixels.value, _canvas(size), batch)
    detector = load_model(checkpoint, overrides=overrides or ())
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        made = Path(folder) / output.name
        _write(detector, made, form, wanted, opset)
        seconds = time.monotonic() - started
        exported = load_exported(made)
        with torch.no_grad():
            found = differences(detector, exported, _pictures(exported, data, images), count=pictures)
        _say(found, made.stat().st_size, seconds)
        wrong = found.beyond(Limits())
        if wrong:
            raise DsctoolError(
                f"{output}: not written, since what was made differs from {checkpoint}: {'; '.join(wrong)}. "
                f"Pictures: {', '.join(found.names)}"
            )
        made.replace(output)
    typer.echo(output)
    if script is not None and pixels is PixelType.UINT8:
        _write_script(detector, script, output)


def _format(given: Format | None, output: Path) -> Format:
    endings = {f".{each.value}": each for each in Format}
    by_name = endings.get(output.suffix.lower())
    if by_name is None:
        raise typer.BadParameter(f"{output.name} ends neither in .onnx nor in .pt2", param_hint="--output")
    if given is not None and given is not by_name:
        raise typer.BadParameter(f"{output.name} is the name of another kind of file", param_hint="--format")
    return by_name


def _canvas(size: str | None) -> Size | None:
    from dsctool.interop.export_file import LEAST, STRIDE

    if size is None:
        return None
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", size)
    sides = () if match is None else (int(match[1]), int(match[2]))
    if not sides or any(side % STRIDE or side < LEAST for side in sides):
        raise typer.BadParameter(
            f"{size!r} is not HEIGHTxWIDTH in multiples of {STRIDE} from {LEAST} on, as in 640x640", param_hint="--size"
        )
    return sides


def _write(detector: Detector, path: Path, form: Format, wanted: ExportInput, opset: int) -> None:
    from dsctool.interop.exporting import described, traced, write_onnx, write_pt2

    program, about = traced(detector, wanted), described(detector, wanted)
    if form is Format.ONNX:
        write_onnx(program, about, path, opset=opset)
        return
    with path.open("wb") as file:
        write_pt2(program, about, file)


def _pictures(exported: ExportedDetector, data: Path | None, images: Path | None) -> Iterator[tuple[str, Tensor]]:
    from dsctool.data.bands import Channels
    from dsctool.data.image_files import find_images
    from dsctool.data.layout import find_split
    from dsctool.engine.export_check import drawn_pictures, pictures_in

    config = exported.config.data
    if data is not None:
        held_out = config.val_share is not None
        images = find_split(data, config.train if held_out else config.val, "train" if held_out else "val").images
    if images is None:
        return drawn_pictures(len(config.mean))
    return pictures_in(find_images([images]), Channels.of(config))


def _say(found: Differences, size: int, seconds: float) -> None:
    typer.echo(f"{size / 2**20:.0f} MiB, made in {seconds:.0f} s")
    typer.echo(
        f"compared on {found.pictures} pictures with {found.found} detections: {found.alone} without a partner; "
        f"at most {found.box:.2g} px of boxes, {found.score:.2g} of scores, {found.mask:.2g} of mask probabilities, "
        f"{100 * found.pixels:.2g} % of the masks' pixels"
    )


def _write_script(detector: Detector, path: Path, output: Path) -> None:
    """An example of how the file is used without this package; of pictures that Pillow reads as they are needed."""
    import inspect

    from dsctool.data.bands import Channels
    from dsctool.files import write_text
    from dsctool.interop import onnx_example

    if not Channels.of(detector.config.data).plain:
        typer.echo("no example script: these pictures are not red, green and blue of 8 bits")
        return
    text = inspect.getsource(onnx_example).replace("model.onnx", output.name)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        typer.echo(f"{path}: is there already, and stays as it is")
        return
    write_text(path, text)
    typer.echo(f"{path}: how to use it with numpy, Pillow and onnxruntime alone")
