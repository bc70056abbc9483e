"""Panoptic quality of small models at the demo's budget: ``python -m tests.benchmarks.panoptic DIR``.

Makes the demo's scenes, trains each model on them as the demo does and with each of several seeds, and measures what
is made of its instances and its stuff where a pixel of several instances goes to the higher score, and where it goes to
the larger mask probability: PQ, SQ and RQ, and what became of the true things that an instance had matched, by their
largest overlap with another. Means over seeds, with intervals of 95 % (Student's t). Runs that DIR has are not
repeated, and one that was stopped goes on. A run takes four to eight minutes of a core.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypedDict

from dsctool.cli.demo import FULL, STUFF_SHARE, plan_scenes, training
from dsctool.data.image_files import ImageFile
from dsctool.data.panoptic import Segment, read_panoptic
from dsctool.data.panoptic_rules import ImageId
from dsctool.data.pictures import picture_batches
from dsctool.engine.inference import detections, device_of, to_results
from dsctool.engine.panoptic import panoptic_fusion
from dsctool.engine.split_results import open_split
from dsctool.evaluation.huddle.panoptic.losses import fusion_losses
from dsctool.evaluation.huddle.panoptic.schema import OverlapLosses
from dsctool.evaluation.huddle.panoptic.things import things_table
from dsctool.evaluation.overlaps import largest_overlaps
from dsctool.evaluation.panoptic import GroupQuality, Matching, pair_result, quality_of
from dsctool.interop.checkpoint import load_model
from dsctool.models.panoptic import Things
from dsctool.terms import PixelRule
from tests.benchmarks.augmentation import T, dsctool, spread

MODELS = ("htc_tiny", "dsc_tiny", "detectors_tiny")
PIXELS: tuple[PixelRule, ...] = ("score", "probability")
ABOVE = (-1.0, 0.0, 0.2, 0.4, 0.6)
"""Overlaps of boxes that divide the things: none, up to 0.2, and so on."""


class Losses(TypedDict):
    """Counts of true things, as in :class:`dsctool.evaluation.huddle.panoptic.schema.OverlapLosses`."""

    true: int
    found: int
    kept: int
    dropped: int
    cut: int
    gained: int


class PixelMeasured(TypedDict):
    """quality: PQ, SQ and RQ, in points, of all, things and stuff. losses: for each of ``ABOVE``."""

    quality: dict[str, list[float]]
    losses: list[Losses]


LOSSES: tuple[Literal["true", "found", "kept", "dropped", "cut", "gained"], ...] = (
    "true", "found", "kept", "dropped", "cut", "gained",
)  # fmt: skip
Measured = dict[PixelRule, PixelMeasured]


def main() -> None:
    """Train and measure what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3, choices=range(2, len(T) + 2))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    args = parser.parse_args()
    making = plan_scenes(args.folder, FULL, seed=0)
    if not making.makes.exists():
        dsctool(*making.words)
    scenes = args.folder / "scenes"
    found: dict[str, list[Measured]] = {model: [] for model in args.models}
    for seed in range(args.seeds):  # all models of a seed, so that what is there can be compared at any time
        for model in args.models:
            found[model].append(measured(args.folder / f"{model}-{seed}", model, scenes, seed))
            print(f"{model}, seed {seed}: {json.dumps(found[model][-1]['score']['quality'])}", flush=True)
    for line in [*quality_table(found), "", *loss_table(found)]:
        print(line)


def measured(run: Path, model: str, scenes: Path, seed: int) -> Measured:
    """Of the best weights of a run, which is trained where it is missing."""
    numbers = run / "panoptic.json"
    if not numbers.exists():
        if not (run / "best.pt").exists():
            training_step = training(run, model, scenes, FULL, seed)
            dsctool(*training_step.continued())
        numbers.write_text(json.dumps(measure(run / "best.pt", scenes)))
    content: Measured = json.loads(numbers.read_text())
    return content


def measure(checkpoint: Path, scenes: Path) -> Measured:
    """Both rules on what the model finds in one pass over the val split."""
    model = load_model(checkpoint, overrides=[f"panoptic.stuff_area={FULL.side**2 // STUFF_SHARE}"])
    files, data = open_split(model, scenes, "val")
    infos = [data.dataset.image_info(index) for index in range(len(data.dataset))]
    images = [ImageFile(files.images / info.file_name, info.id, info.size) for info in infos]
    truth = read_panoptic(scenes / "annotations/panoptic_val.json")
    fusion = panoptic_fusion(model)
    assert {(each.id, each.name) for each in fusion.categories} == {(each.id, each.name) for each in truth.categories}
    things: dict[ImageId, Things] = {}
    matchings: dict[PixelRule, list[Matching]] = {pixel: [] for pixel in PIXELS}
    batches = picture_batches(images, model.config.data)
    for picture, found in detections(model, batches, device=device_of(model), semantic=True):
        results = to_results(found, picture.image_id, model.categories)
        things[picture.image_id] = fusion.things(found, results)
        for pixel in PIXELS:
            fused = replace(fusion, settings=replace(fusion.settings, pixel=pixel))(picture, found, results)
            segments = [Segment(each.id, each.category) for each in fused.segments]
            name = picture.file_name
            pairs = pair_result(truth, picture.image_id, segments, fused.ids, png=name, where=name)
            matchings[pixel].append(Matching.of(pairs))
    table = things_table(truth)
    overlaps = largest_overlaps(table, "box", same_class=False)
    losses = fusion_losses(
        truth, table, overlaps, things.__getitem__, settings=fusion.settings, above=ABOVE, pixels=PIXELS
    )["losses"]
    rows = {each["pixel"]: [_losses(row) for row in each["overlaps"]] for each in losses}
    result: Measured = {}
    for pixel in PIXELS:
        quality = quality_of(truth, Matching.join(matchings[pixel]))
        numbers = {name: _group(getattr(quality, name)) for name in ("all", "things", "stuff")}
        result[pixel] = PixelMeasured(quality=numbers, losses=rows[pixel])
    return result


def quality_table(found: dict[str, list[Measured]]) -> list[str]:
    """PQ, SQ and RQ of each model under each rule, and how much PQ the second rule gains."""
    lines = ["PQ / SQ / RQ in points"]
    for model, runs in found.items():
        for pixel in PIXELS:
            for group in ("all", "things", "stuff"):
                values = [[run[pixel]["quality"][group][key] for run in runs] for key in range(3)]
                lines.append(f"{model:<16}{pixel:<12}{group:<7}" + "   ".join(spread(each) for each in values))
        gains = [run[PIXELS[1]]["quality"]["things"][0] - run[PIXELS[0]]["quality"]["things"][0] for run in runs]
        lines.append(f"{model:<16}PQ of things, {PIXELS[1]} - {PIXELS[0]}: {spread(gains)}")
    return lines


def loss_table(found: dict[str, list[Measured]]) -> list[str]:
    """True things by their largest overlap, over all seeds."""
    lines = ["true things over all seeds, by largest overlap: " + ", ".join(LOSSES)]
    for model, runs in found.items():
        for pixel in PIXELS:
            for row, above in enumerate(ABOVE):
                sums = [sum(run[pixel]["losses"][row][key] for run in runs) for key in LOSSES]
                where = "none" if above < 0 else f"> {above}"
                lines.append(f"{model:<16}{pixel:<12}{where:<7}" + "".join(f"{each:>8}" for each in sums))
    return lines


def _losses(row: OverlapLosses) -> Losses:
    return Losses(
        true=row["true"], found=row["found"], kept=row["kept"], dropped=row["dropped"], cut=row["cut"],
        gained=row["gained"],
    )  # fmt: skip


def _group(quality: GroupQuality) -> list[float]:
    return [100 * quality.pq, 100 * quality.sq, 100 * quality.rq]


if __name__ == "__main__":
    main()
