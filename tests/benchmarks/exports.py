"""Models beside their exported files: ``python -m tests.benchmarks.exports PICTURES [--models htc_tiny,...]``.

Every shipped model of ``--models`` gets random weights, is written as ONNX in float32 and float16 and as pt2
(``--formats``), and runs beside its files over ``--pictures`` (10) of the folder PICTURES, resized to ``--size``
(400x672: a quarter of the published pixels). A table in Markdown: size, seconds to export, largest differences, and
seconds of a picture from the file to COCO results, in turns, with the share of what matrix products reach here;
operations are PyTorch's.

What cannot be exported is in the table with the reason. ``--threads`` (1) of the CPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dsctool.config.loading import load_config
from dsctool.data.bands import Channels
from dsctool.data.image_files import find_images
from dsctool.data.records import Category
from dsctool.engine.benchmark.measure import Bench, run_in_turns
from dsctool.engine.benchmark.subjects import Inference, Subject
from dsctool.engine.export_check import Differences, differences, pictures_in
from dsctool.engine.inference import predict_images
from dsctool.errors import DsctoolError
from dsctool.interop.export_file import ExportInput, LayerPrecision
from dsctool.interop.exported import ExportedDetector, load_exported
from dsctool.interop.exporting import described, traced, write_onnx, write_pt2
from dsctool.models.build import COCO_CLASSES, build_detector
from dsctool.models.detector import Detector

TINY = ("htc_tiny", "detectors_tiny", "dsc_tiny", "fast_dsc_tiny", "cascade_mask_rcnn_tiny")
R50 = (
    "htc_r50_fpn_1x_coco",
    "detectors_htc_r50_1x_coco",
    "dsc_r50_fpn_1x_coco",
    "fast_dsc_r50_fpn_1x_coco",
    "cascade_mask_rcnn_r50_fpn_1x_coco",
)
HEAD = "| model | file | MiB | made in s | found, alone | boxes px | scores | masks | s a picture | ratio | of peak |"


def detector_of(name: str, pictures: Sequence[Path], short: int, long: int) -> Detector:
    """Random weights, always the same, calmed.

    They have no opinion, so that all that is proposed would be of every class. The score threshold is set for as many
    detections as a crowded picture has: half of what could be kept is above it in every picture.
    """
    sizes = [f"data.test_resize={{short_sides: [{short}], long_side: {long}}}"]

    def built(threshold: float) -> Detector:
        torch.manual_seed(0)
        detector = build_detector(load_config(name, [*sizes, f"postprocess.score_threshold={threshold}"])).eval()
        return calmed(detector, pictures[0])

    detector = built(0.0)
    detector = built(min(float(found.scores.median()) for _, found in predict_images(detector, pictures)))
    detector.categories = [Category(label + 1, f"class {label}") for label in range(COCO_CLASSES)]
    return detector


def calmed(detector: Detector, picture: Path) -> Detector:
    """Layers whose output has a standard deviation of 1 on ``picture``, as it comes to them.

    Random weights of deep models let features grow from layer to layer until all scores are 1.
    """

    def calm(layer: nn.Module, _: object, output: Tensor) -> Tensor:
        scale = output.std().clamp(min=1e-6) if output.numel() > 1 else torch.tensor(1.0)
        for each in layer.parameters(recurse=False):
            each.div_(scale)
        hooks.pop(layer).remove()  # heads see several levels: the first decides
        return output / scale

    hooks: dict[nn.Module, RemovableHandle] = {
        layer: layer.register_forward_hook(calm)
        for layer in detector.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    with torch.no_grad():
        for _ in predict_images(detector, picture):
            pass
    for hook in hooks.values():  # of what this picture did not come to
        hook.remove()
    return detector


def files_of(detector: Detector, kinds: Sequence[str], folder: Path) -> Iterator[tuple[str, Path | str, float]]:
    """What each file is called, where it is or why it cannot be, and how long it took."""
    for number, kind in enumerate(kinds):
        precision: LayerPrecision = "float16" if kind == "onnx float16" else "float32"
        path, start = folder / f"{number}.{kind[:4].strip()}", time.monotonic()
        try:
            about = described(detector, ExportInput(), precision)
            program = traced(detector, about.input)
            if kind == "pt2":
                with path.open("wb") as file:
                    write_pt2(program, about, file)
            else:
                write_onnx(program, about, path)
        except DsctoolError as error:
            yield kind, str(error), 0.0
        else:
            yield kind, path, time.monotonic() - start


def rows_of(
    name: str, kinds: Sequence[str], pictures: list[Path], sides: tuple[int, int], rounds: int
) -> Iterator[str]:
    """The lines of a model."""
    detector = detector_of(name, pictures, *sides)
    with TemporaryDirectory() as folder, torch.no_grad():
        made = list(files_of(detector, kinds, Path(folder)))
        exported = {kind: load_exported(path) for kind, path, _ in made if isinstance(path, Path)}
        compared = {kind: compare(detector, each, pictures) for kind, each in exported.items()}
        models: dict[str, Detector | ExportedDetector] = {"PyTorch": detector, **exported}
        subjects: dict[str, Subject] = {kind: Inference(each, pictures, 1) for kind, each in models.items()}
        bench = run_in_turns(subjects, torch.device("cpu"), pictures=len(pictures), rounds=rounds)
        yield f"| {name} | PyTorch | | | | | | | {times(bench, 'PyTorch')} |"
        for kind, path, seconds in made:
            if isinstance(path, str):
                yield f"| | {kind} | {path} | | | | | | | | |"
                continue
            found, mebibytes = compared[kind], path.stat().st_size / 2**20
            same = f"{found.found}, {found.alone} | {found.box:.1g} | {found.score:.1g} | {found.mask:.1g}"
            yield f"| | {kind} | {mebibytes:.0f} | {seconds:.0f} | {same} | {times(bench, kind)} |"


def compare(detector: Detector, exported: ExportedDetector, pictures: list[Path]) -> Differences:
    """On all pictures."""
    seen = pictures_in(pictures, Channels.of(exported.config.data))
    return differences(detector, exported, seen, count=len(pictures))


def times(bench: Bench, kind: str) -> str:
    """Seconds a picture, the ratio to PyTorch, and the share of the peak."""
    measured, ratio = bench.models[kind].seconds.median, bench.models[kind].ratio
    share = sum(bench.models["PyTorch"].flops.values()) / measured / bench.peak.median
    return f"{measured:.3f} | {ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f}) | {share:.0%}"


def main() -> None:
    """Read the command line, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default=",".join((*TINY, *R50)))
    parser.add_argument("--formats", default="onnx,onnx float16,pt2")
    parser.add_argument("--pictures", type=int, default=10)
    parser.add_argument("--size", default="400x672", help="short and long side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    short, long = map(int, given.size.split("x"))
    pictures = find_images([given.folder])[: given.pictures]
    print(HEAD, "|---" * 11 + "|", sep="\n", flush=True)
    for name in given.models.split(","):
        for row in rows_of(name, given.formats.split(","), pictures, (short, long), given.rounds):
            print(row, flush=True)


if __name__ == "__main__":
    main()
