"""``dsctool demo``: every other command once, on scenes made for it, with a page that explains what came out."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.options import Device
from dsctool.cli.output import prepare_folder, write_json

if TYPE_CHECKING:
    from dsctool.visualize.pages.demo import Part


@dataclass(frozen=True)
class Budget:
    """How much the demo does.

    scenes, val_scenes: images of the set. side: of the scenes, in pixels. epochs: of each model.
    """

    scenes: int
    val_scenes: int
    side: int
    epochs: int


FULL = Budget(scenes=96, val_scenes=40, side=192, epochs=5)
QUICK = Budget(scenes=48, val_scenes=12, side=160, epochs=2)
HUDDLE = 0.35
CLASSES = "fish,pebble,shell,starfish"
"""Those that a small model learns within minutes; crabs and eels, in heaps, take it longer."""
SHOWN = 6
"""Images that are drawn: the most huddled ones."""


@dataclass(frozen=True)
class Step:
    """One command of the demo. makes: a file that is there when it has run."""

    title: str
    words: tuple[str, ...]
    makes: Path

    @property
    def command(self) -> str:
        """As one would type it."""
        return shlex.join(["dsctool", *self.words])


def demo(
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Folder for everything the demo makes.")
    ] = Path("demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer, smaller scenes and shorter training.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the scenes and of training.")] = 0,
    device: Device = "auto",
) -> None:
    """Show what dsctool does: make scenes, train two models, compare them, draw what they see.

    Trains dsc_detectors_tiny (switchable convolutions and a recursive pyramid under a shape-guided cascade)
    and htc_tiny with one budget, measures both, above all where objects crowd, and ends with DIR/report.html.
    Every part is a command that is printed, and its files stay; a demo that was stopped continues where it was.

    Example:

        dsctool demo --output demo
    """
    from dsctool.visualize.pages.demo import write_demo_page

    budget = QUICK if quick else FULL
    record = _Record.at(output, {"quick": quick, "seed": seed})
    making = plan_scenes(output, budget, seed)
    record.run(making, device)
    images = most_huddled(output / "scenes", count=SHOWN)
    steps = [making, *plan(output, budget, images, seed=seed)]
    for step in steps[1:]:
        record.run(step, device)
    report = output / "report.html"
    write_demo_page(report, output, images=images, parts=[record.part(step) for step in steps])
    typer.echo(f"\n{report}")


def plan_scenes(output: Path, budget: Budget, seed: int) -> Step:
    """The command that makes the data set."""
    scenes = output / "scenes"
    words = ["data", "synth", "--output", str(scenes), "--images", str(budget.scenes)]
    words += ["--val-images", str(budget.val_scenes), "--size", f"{budget.side}x{budget.side}"]
    words += ["--classes", CLASSES, "--huddle", str(HUDDLE), "--seed", str(seed)]
    return Step("Make scenes", tuple(words), scenes / "annotations/instances_val.json")


def plan(output: Path, budget: Budget, images: list[str], *, seed: int) -> list[Step]:
    """The commands after it. images: file names, of the val split, to draw."""
    scenes = output / "scenes"
    steps = []
    for name, config in (("dsc", "dsc_detectors_tiny"), ("htc", "htc_tiny")):
        steps += [_training(output / name, config, scenes, budget, seed), _evaluation(output / name, scenes)]
    pictures = [str(scenes / "val" / name) for name in images]
    return [*steps, _huddles(output, scenes), *_drawings(output, pictures)]


def _huddles(output: Path, scenes: Path) -> Step:
    words = ["huddle-report", "--ground-truth", str(scenes / "annotations/instances_val.json")]
    words += ["--predictions", str(output / "dsc/predictions.json")]
    words += ["--baseline", str(output / "htc/predictions.json"), "--images", str(scenes / "val")]
    words += ["--bootstrap", "200", "--output", str(output / "huddle")]
    return Step("Measure where things crowd", tuple(words), output / "huddle/report.html")


def _drawings(output: Path, pictures: list[str]) -> list[Step]:
    best, found, switch = str(output / "dsc/best.pt"), output / "found", output / "switch"
    drawing = ["predict", best, *pictures, "--stages", "--output", str(found)]
    switching = ["visualize-switch", best, *pictures[:2], "--stretch", "--output", str(switch)]
    switching += ["--json", str(switch / "switch.json")]
    return [
        Step("Draw what the model finds", tuple(drawing), found / "predictions.json"),
        Step("Draw the learned switch", tuple(switching), switch / "switch.json"),
    ]


def _training(run: Path, config: str, scenes: Path, budget: Budget, seed: int) -> Step:
    sizes = f"{{short_sides: [{budget.side}], long_side: {budget.side}}}"
    overrides = (
        f"data.train_resize={sizes}",
        f"data.test_resize={sizes}",
        f"train.epochs={budget.epochs}",
        "train.batch_size=2",  # more steps in the same time
        "train.eval_interval=0",  # it is measured afterwards
        "model.rpn.test_max_proposals=100",
        "optim.lr=5e-3",  # ten times the configuration's, as there is little time
        "optim.decay=linear",
        "optim.warmup_steps=40",
        f"train.seed={seed}",
    )
    return Step(f"Train {config}", ("train", config, *overrides, "--data", f"{scenes}", "--output", f"{run}"), run)


def _evaluation(run: Path, scenes: Path) -> Step:
    words = ("eval", f"{run / 'best.pt'}", "--data", f"{scenes}", "--json", f"{run / 'stats.json'}")
    return Step(f"Measure {run.name}", (*words, "--predictions", f"{run / 'predictions.json'}"), run / "stats.json")


def most_huddled(scenes: Path, *, count: int) -> list[str]:
    """File names of the val images with the most instances whose box overlaps another one by an IoU above 0.2."""
    import torch

    from dsctool.ops.boxes import box_iou

    content = json.loads((scenes / "annotations/instances_val.json").read_text())
    boxes: dict[int, list[list[float]]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        boxes[annotation["image_id"]].append([x, y, x + width, y + height])
    crowded = {}
    for image, corners in boxes.items():
        overlap = box_iou(torch.tensor(corners).reshape(-1, 4), torch.tensor(corners).reshape(-1, 4))
        crowded[image] = int((overlap.fill_diagonal_(0) > 0.2).any(dim=1).sum())
    ranked = sorted(content["images"], key=lambda image: (-crowded[image["id"]], image["id"]))
    return [image["file_name"] for image in ranked[:count]]


@dataclass(frozen=True)
class _Record:
    """``demo.json``: the demo's options, and how long each command took that has run."""

    path: Path
    options: dict[str, int]
    seconds: dict[str, float]

    @classmethod
    def at(cls, folder: Path, options: dict[str, int]) -> _Record:
        """The record of the demo in ``folder``, which may be new."""
        from dsctool.errors import DsctoolError
        from dsctool.files import read_json

        path = folder / "demo.json"
        if not path.exists():
            prepare_folder(folder)
            if any(folder.iterdir()):
                raise DsctoolError(f"{folder}: is not empty and holds no demo; name a new folder with --output")
            record = cls(path, options, {})
            record.save()
            return record
        content = read_json(path)
        if not isinstance(content, dict) or content.get("options") != options:
            raise DsctoolError(f"{folder}: holds a demo with other options; name another folder with --output")
        return cls(path, options, dict(content["seconds"]))

    def save(self) -> None:
        write_json(self.path, {"options": self.options, "seconds": self.seconds}, indent=2)

    def run(self, step: Step, device: str) -> None:
        """Run a command that has not run yet, or was stopped."""
        if step.command in self.seconds and step.makes.exists():
            typer.echo(f"done before: {step.command}")
            return
        typer.echo(f"\n{step.title}:\n$ {step.command}\n")
        begun = time.monotonic()
        _call(_continuing(step), device)
        self.seconds[step.command] = round(time.monotonic() - begun, 1)
        self.save()

    def part(self, step: Step) -> Part:
        """A command for the page."""
        from dsctool.visualize.pages.demo import Part

        return Part(step.title, step.command, self.seconds[step.command])


def _continuing(step: Step) -> tuple[str, ...]:
    """The words of a step, so that what an earlier try left does not stand in its way."""
    if step.words[0] == "train" and (step.makes / "last.pt").exists():
        return (*step.words, "--resume")
    if step.words[0] in ("train", "data"):
        shutil.rmtree(Path(step.words[step.words.index("--output") + 1]), ignore_errors=True)
    return step.words


def _call(words: tuple[str, ...], device: str) -> None:
    """Run ``dsctool WORDS`` as a process of its own, which gives back its memory and is what a shell would run.

    SIGINT and SIGTERM are the command's: training saves and ends with exit code 75, and so does the demo.
    """
    takes_device = words[0] in ("train", "eval", "predict", "visualize-switch")
    arguments = [*words, "--device", device] if takes_device and device != "auto" else list(words)
    with subprocess.Popen([sys.executable, "-m", "dsctool", *arguments]) as process, _passing_on(process):
        code = process.wait()
    if code:
        raise typer.Exit(code if code > 0 else 128 - code)


@contextmanager
def _passing_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """SIGTERM goes on to ``process``; SIGINT reaches it from the terminal, and this process waits for its end."""
    handlers = {
        signal.SIGTERM: lambda number, frame: process.send_signal(number),
        signal.SIGINT: lambda number, frame: None,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
