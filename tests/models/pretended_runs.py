"""Detectors at work on a device that is not there, in a process of its own: prints every :class:`Run`, as JSON."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Literal

import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from dsctool.config.schema import OptimConfig, TTAConfig
from dsctool.data.transforms import Batch, SampleInfo
from dsctool.engine.inference import detections, device_of, to_results
from dsctool.engine.optim import build_optimizer
from dsctool.engine.step import optimizer_step
from dsctool.models.detector import Detector
from dsctool.structures import Detections, ImageBatch, Instances
from dsctool.terms import Precision
from tests.models.tiny import one_box, tiny_detector
from tests.pretended_device import DEVICE, pretend

FAMILIES = ("cascade_mask_rcnn_tiny", "htc_tiny", "detectors_tiny", "dsc_tiny", "fast_dsc_tiny", "dsc_detectors_tiny")
AUGMENTED = ("htc_tiny", "fast_dsc_tiny")
"""Those that are seen in several views: what the others add is before proposals, and slow."""
VIEWS, IMAGES = 2, 2
FEW = (
    "model.cascade.samples=16",
    "model.rpn.train_max_proposals=16",
    "model.rpn.test_max_proposals=16",
    "postprocess.max_per_image=6",
    "postprocess.mask_candidates=9",
    "postprocess.score_threshold=0.02",
)
"""Even less than in other tests: every operator goes through Python."""
HEIGHT, WIDTH = 96, 128
SIZES = [(HEIGHT, WIDTH), (HEIGHT - 16, WIDTH)]

HALVED = ("detectors_tiny", "fast_dsc_tiny")
"""Those that also train in half precision."""

Work = Callable[[Detector], list[Tensor]]
"""Gives numbers, ``()`` each, that tell what came out."""


@dataclass(frozen=True)
class Run:
    """What became of one piece of work on the device.

    reads, uploads, waiting: as :class:`tests.pretended_device.Traffic` has them.
    values: what came out; expected: what comes out on the CPU.
    error: what went wrong instead; empty if nothing did.
    """

    reads: dict[str, int]
    uploads: dict[str, int]
    waiting: dict[str, int]
    values: list[float]
    expected: list[float]
    error: str = ""


def main() -> None:
    """All runs of the models that are named, else of every one."""
    runs = {name: asdict(run) for family in sys.argv[1:] or FAMILIES for name, run in _runs(family)}
    print(json.dumps(runs))


def _runs(family: str) -> Iterator[tuple[str, Run]]:
    here, there, batch = _detector(family).eval(), _detector(family).eval(), _batch()
    with pretend():
        there.to(DEVICE)
    works: dict[str, Work] = {
        "detect soft": partial(_detected, batch=batch),
        "evaluate box": partial(_evaluated, batch=batch),
        "predict mask": partial(_predicted, batch=batch),
    }
    if family in AUGMENTED:
        works["average mask"] = partial(_augmented, batch=_picture(), merge="average")
        works["union box"] = partial(_augmented, batch=_picture(), merge="union")
    works["adamw float32"] = partial(_stepped, batch=batch, optimiser="adamw", precision="float32")
    if family in HALVED:
        works["sgd bfloat16"] = partial(_stepped, batch=batch, optimiser="sgd", precision="bfloat16")
    for name, work in works.items():
        kind = name.split()[-1]
        for model in (here, there):
            model.postprocess = replace(model.postprocess, nms=kind if kind in ("soft", "mask") else "box")
        # The CPU has other operators compute in half precision.
        expected = [] if kind == "bfloat16" else [number.item() for number in work(here)]
        yield f"{family} {name}", _run(work, there, expected)


def _run(work: Work, there: Detector, expected: list[float]) -> Run:
    error = ""
    with pretend() as traffic:
        try:
            found = work(there)
        except Exception:  # of this piece, not of all that follow
            found, error = [], traceback.format_exc()
    reads, uploads, waiting = dict(traffic.reads), dict(traffic.uploads), dict(traffic.waiting)
    with pretend():
        values = [number.item() for number in found]
    return Run(reads, uploads, waiting, values, expected, error)


def _detected(model: Detector, batch: Batch) -> list[Tensor]:
    return [number for _, found in detections(model, [batch], device=device_of(model)) for number in _numbers(found)]


def _predicted(model: Detector, batch: Batch) -> list[Tensor]:
    images = batch[0].tensor.to(device_of(model), non_blocking=True)
    return [number for found in model.predict(images, SIZES) for number in _numbers(found)]


def _evaluated(model: Detector, batch: Batch) -> list[Tensor]:
    found = detections(model, [batch], device=device_of(model))
    results = [result for info, each in found for result in to_results(each, info.image_id, model.categories)]
    areas = [coco_mask.area(result["segmentation"]) for result in results]
    return [torch.tensor(float(number)) for number in [*areas, *(result["score"] for result in results)]]


def _augmented(model: Detector, batch: Batch, merge: Literal["average", "union"]) -> list[Tensor]:
    before = model.config
    data = before.data.model_copy(update={"tta": TTAConfig(short_sides=(64,), merge=merge)})
    model.config = before.model_copy(update={"data": data})
    try:
        return _detected(model, batch)
    finally:
        model.config = before


def _stepped(model: Detector, batch: Batch, optimiser: Literal["sgd", "adamw"], precision: Precision) -> list[Tensor]:
    optimizer = build_optimizer(model.train(), OptimConfig(kind=optimiser))
    torch.manual_seed(0)
    result = optimizer_step(model, optimizer, [batch], rate=1e-5, max_norm=1.0, precision=precision)
    return [*result.losses.values(), result.grad_norm, *(weight.abs().sum() for weight in model.parameters())]


def _numbers(found: Detections | Instances) -> list[Tensor]:
    """Sums over the boxes, the scores and the masks of what was found, and how much there is."""
    masks = found.mask_probs if isinstance(found, Detections) else found.masks
    assert masks is not None
    return [found.boxes.sum(), found.scores.sum(), masks.float().mean(dim=(1, 2)).sum(), torch.tensor(len(found))]


def _detector(family: str) -> Detector:
    model = tiny_detector(family, FEW)
    for path, parameter in model.named_parameters():
        if path.endswith("classifier.weight"):  # fresh ones hardly tell one class from another
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def _batch() -> Batch:
    images = torch.randn(len(SIZES), 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    images[1, :, SIZES[1][0] :] = 0
    infos = [SampleInfo(number, size, f"{number}.jpg") for number, size in enumerate(SIZES)]
    return ImageBatch(images, SIZES), [one_box(HEIGHT, WIDTH), one_box(HEIGHT, WIDTH, count=3)], infos


def _picture() -> Batch:
    """One image as test-time augmentation takes it."""
    pixels = torch.randint(0, 256, (1, 3, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(0)).byte()
    return ImageBatch(pixels, SIZES[:1]), [], [SampleInfo(0, SIZES[0], "0.jpg")]


if __name__ == "__main__":
    main()
