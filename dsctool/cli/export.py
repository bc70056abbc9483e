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
from dsctool.cli.output import counting, keep_apart, prepare_file
from dsctool.errors import DsctoolError
from dsctool.files import room_for

if TYPE_CHECKING:
    from torch import Tensor

    from dsctool.interop.export_file import ExportedFile
    from dsctool.interop.exported import ExportedDetector
    from dsctool.models.detector import Detector
    from dsctool.terms import Size


CALIBRATED = 64
"""Pictures that the ranges of int8 layers are taken from."""


class Format(StrEnum):
    """What kind of file it is."""

    ONNX = "onnx"
    PT2 = "pt2"


class LayerPrecision(StrEnum):
    """What layers with weights compute in."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"


class PixelType(StrEnum):
    """How images come."""

    UINT8 = "uint8"
    FLOAT32 = "float32"
    PICTURE = "picture"


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
        typer.Option(
            "--input",
            help="Resized pictures of 0 to 255, normalised in the file; or normalised ones; or a picture as it was "
            "read, resized in the file (with --size).",
        ),
    ] = PixelType.UINT8,
    precision: Annotated[
        LayerPrecision,
        typer.Option(
            "--precision",
            help="What convolutions and linear layers compute in: float16 halves the file and is for GPUs, int8 makes "
            "it a quarter and is for CPUs; int8 needs --data, for ranges on train and what it costs on val. Only ONNX.",
        ),
    ] = LayerPrecision.FLOAT32,
    ap_loss: Annotated[
        float, typer.Option("--ap-loss", min=0.0, metavar="AP", help="With int8: the most of box and mask AP to lose.")
    ] = 0.01,
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
    from dsctool.interop.checkpoint import load_model
    from dsctool.interop.export_file import ExportInput
    from dsctool.interop.exported import load_exported
    from dsctool.interop.exporting import described, require_onnx

    form = _format(file_format, output)
    script = output.with_name(f"{output.stem}_example.py") if form is Format.ONNX else None
    keep_apart([output, *([script] if script else [])], [checkpoint])
    prepare_file(output)
    if form is Format.ONNX:
        require_onnx()
    wanted = ExportInput(pixels.value, _canvas(size), batch)
    if precision is not LayerPrecision.FLOAT32 and form is not Format.ONNX:
        raise typer.BadParameter("pt2 files compute in float32; give an ONNX file", param_hint="--precision")
    if pixels is PixelType.PICTURE and (wanted.canvas is None or batch > 1):
        raise typer.BadParameter("picture is of one, on a canvas: give --size, no --batch", param_hint="--input")
    if precision is LayerPrecision.INT8 and data is None:
        raise typer.BadParameter(
            "int8 takes the ranges of layers from a data set's train split, and says what it costs on val: give --data",
            param_hint="--precision",
        )
    detector = load_model(checkpoint, overrides=overrides or ())
    if wanted.canvas is not None and detector.config.model.backbone.norm == "group":
        typer.echo(
            "Group norms see the whole canvas: where pictures leave much of it empty, results differ from those of the "
            "checkpoint, which pads less. Take the smallest --size that they fit on."
        )
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        made = Path(folder) / output.name
        with room_for(output):
            _write(detector, made, form, described(detector, wanted, precision.value), opset)
            if precision is LayerPrecision.INT8:
                assert data is not None
                made = _quantised(made, data)
        exported = load_exported(made)
        typer.echo(f"{made.stat().st_size / 2**20:.0f} MiB, made in {time.monotonic() - started:.0f} s")
        if precision is LayerPrecision.INT8:
            assert data is not None
            wrong = _costs(detector, exported, data, ap_loss)
        else:
            wrong = _differs(detector, exported, _pictures(exported, data, images), pictures)
        if wrong:
            raise DsctoolError(f"{output}: not written, since what was made differs from {checkpoint}: {wrong}")
        made.replace(output)
    typer.echo(output)
    if script is not None and pixels is not PixelType.FLOAT32:
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


def _write(detector: Detector, path: Path, form: Format, about: ExportedFile, opset: int) -> None:
    from dsctool.interop.exporting import traced, write_onnx, write_pt2

    program = traced(detector, about.input)
    if form is Format.ONNX:
        write_onnx(program, about, path, opset=opset)
        return
    with path.open("wb") as file:
        write_pt2(program, about, file)


def _quantised(made: Path, data: Path) -> Path:
    """A file of the same in int8, by what it sees of the training split."""
    from dsctool.data.image_files import find_images
    from dsctool.data.layout import find_split
    from dsctool.engine.calibration import inputs_seen
    from dsctool.interop.exported import load_exported
    from dsctool.interop.exporting import quiet
    from dsctool.interop.onnx_precision import write_int8

    exported, target = load_exported(made), made.with_name(f"int8-{made.name}")
    files = find_images([find_split(data, exported.config.data.train, "train").images])
    with quiet():
        write_int8(made, target, inputs_seen(exported, files, count=CALIBRATED))
    return target


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


def _differs(detector: Detector, exported: ExportedDetector, pictures: Iterator[tuple[str, Tensor]], count: int) -> str:
    """What differs more than it may, in words."""
    import torch

    from dsctool.engine.export_check import Limits, differences

    with torch.no_grad():
        found = differences(detector, exported, pictures, count=count)
    typer.echo(
        f"compared on {found.pictures} pictures with {found.found} detections: {found.alone} without a partner; "
        f"at most {found.box:.2g} px of boxes, {found.score:.2g} of scores, {found.mask:.2g} of mask probabilities, "
        f"{100 * found.pixels:.2g} % of the masks' pixels"
    )
    wrong = found.beyond(Limits.of(exported.precision, exported.form.pixels))
    return f"{'; '.join(wrong)}. Pictures: {', '.join(found.names)}" if wrong else ""


def _costs(detector: Detector, exported: ExportedDetector, data: Path, most: float) -> str:
    """Which AP falls by more than ``most``, in words."""
    from dsctool.engine.export_check import ap_cost
    from dsctool.terms import KIND_NAMES

    with counting() as progress:
        found = ap_cost(detector, exported, data, progress)
    changes = [f"{KIND_NAMES[kind]} {before:.4f} -> {after:.4f}" for kind, (before, after) in found.items()]
    typer.echo(f"AP on the val split, of the checkpoint and in int8: {', '.join(changes)}")
    lost = [KIND_NAMES[kind] for kind, (before, after) in found.items() if not before - after <= most]
    return f"more than {most:g} of {' and '.join(lost)} AP is lost (--ap-loss)" if lost else ""


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
