"""``dsctool demo``: every other command once, on scenes made for it, with a page that explains what came out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from dsctool.cli.options import Device
from dsctool.cli.plan import Record, Step


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
QUICK = Budget(scenes=40, val_scenes=8, side=128, epochs=2)
HUDDLE = 0.35
CLASSES = "fish,pebble,shell,starfish"
"""Those that a small model learns within minutes; crabs and eels, in heaps, take it longer."""
STUFF_SHARE = 75
"""Stuff on fewer of a scene's pixels than one in so many is left out: 4096 of COCO's usual 640 x 480."""
SHOWN = 6
"""Images that are drawn: the most huddled ones."""


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
    from dsctool.evaluation.huddle.ranking import most_huddled
    from dsctool.visualize.pages.demo import Part, write_demo_page

    budget = QUICK if quick else FULL
    record = Record.at(output / "demo.json", {"quick": quick, "seed": seed})
    making = plan_scenes(output, budget, seed)
    record.run(making, device)
    images = most_huddled(making.makes, count=SHOWN)
    steps = [making, *plan(output, budget, images, seed=seed)]
    for step in steps[1:]:
        record.run(step, device)
    report = output / "report.html"
    parts = [Part(step.title, step.command, record.seconds[step.command]) for step in steps]
    write_demo_page(report, output, images=images, parts=parts)
    typer.echo(f"\n{report}")


def plan_scenes(output: Path, budget: Budget, seed: int) -> Step:
    """The command that makes the data set."""
    scenes = output / "scenes"
    words = ["data", "synth", "--output", str(scenes), "--train-images", str(budget.scenes)]
    words += ["--val-images", str(budget.val_scenes), "--size", f"{budget.side}x{budget.side}"]
    words += ["--classes", CLASSES, "--huddle", str(HUDDLE), "--seed", str(seed)]
    return Step("Make scenes", tuple(words), scenes / "annotations/instances_val.json")


def plan(output: Path, budget: Budget, images: list[str], *, seed: int) -> list[Step]:
    """The commands after it. images: file names, of the val split, to draw."""
    scenes = output / "scenes"
    steps = []
    for name, config in (("dsc", "dsc_detectors_tiny"), ("htc", "htc_tiny")):
        steps += [training(output / name, config, scenes, budget, seed), _evaluation(output / name, scenes)]
    pictures = [str(scenes / "val" / name) for name in images]
    return [*steps, _huddles(output, scenes), *_drawings(output, pictures, budget)]


def _huddles(output: Path, scenes: Path) -> Step:
    words = ["huddle-report", "--ground-truth", str(scenes / "annotations/instances_val.json")]
    words += ["--predictions", str(output / "dsc/predictions.json")]
    words += ["--baseline", str(output / "htc/predictions.json"), "--images", str(scenes / "val")]
    words += ["--bootstrap", "200", "--output", str(output / "huddle")]
    return Step("Measure where things crowd", tuple(words), output / "huddle/report.html")


def _drawings(output: Path, pictures: list[str], budget: Budget) -> list[Step]:
    best = str(output / "dsc/best.pt")
    found, switch, panoptic = (output / name for name in ("found", "switch", "panoptic"))
    drawing = ["predict", best, *pictures, "--stages", "--output", str(found)]
    switching = ["visualize-switch", best, *pictures[:2], "--stretch", "--output", str(switch)]
    switching += ["--json", str(switch / "switch.json")]
    dividing = ["predict", best, *pictures[:3], f"panoptic.stuff_area={budget.side**2 // STUFF_SHARE}", "--panoptic"]
    dividing += ["--output", str(panoptic)]
    return [
        Step("Draw what the model finds", tuple(drawing), found / "predictions.json"),
        Step("Give every pixel to a thing or to stuff", tuple(dividing), panoptic / "panoptic.json"),
        Step("Draw the learned switch", tuple(switching), switch / "switch.json"),
    ]


def training(run: Path, config: str, scenes: Path, budget: Budget, seed: int) -> Step:
    """The command that trains a model. run: its folder."""
    sizes = f"{{short_sides: [{budget.side}], long_side: {budget.side}}}"
    overrides = (
        f"data.train_resize={sizes}",
        f"data.test_resize={sizes}",
        "data.semantic=stuffthingmaps",  # sand and rock are learnt as well
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
