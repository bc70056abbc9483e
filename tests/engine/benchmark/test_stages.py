"""What passes on a clock, by stage."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dsctool.config.loading import load_config
from dsctool.engine.benchmark.stages import CudaClock, FlopClock, Stages, WallClock, told_apart
from dsctool.models.build import build_detector
from dsctool.models.detector import Detector


class Ticks:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.time = 0

    def now(self) -> int:
        return self.time

    def between(self, first: int, second: int) -> float:
        return second - first


def test_time_belongs_to_the_innermost_stage() -> None:
    clock = Ticks()
    stages = Stages(clock)
    clock.time += 100  # nobody's
    with stages.stage("outer"):
        clock.time += 1
        with stages.stage("inner"):
            clock.time += 20
        clock.time += 3
        with stages.stage("inner"):
            clock.time += 40
    clock.time += 100
    with stages.stage("outer"):
        clock.time += 5
    assert stages.spent() == {"inner": 60, "outer": 9}
    assert list(stages.spent()) == ["inner", "outer"], "in the order in which they ended"


def test_a_whole_stage_has_none_inside() -> None:
    clock = Ticks()
    stages = Stages(clock)
    with stages.stage("all", whole=True):
        clock.time += 1
        with stages.stage("inner"), stages.stage("innermost", whole=True):
            clock.time += 2
        with stages.stage("inner"):
            clock.time += 4
    with stages.stage("inner"):
        clock.time += 8
    assert stages.spent() == {"all": 7, "inner": 8}


def test_a_stage_ends_with_its_error() -> None:
    clock = Ticks()
    stages = Stages(clock)

    def fails() -> None:
        with stages.stage("outer"), stages.stage("inner", whole=True):
            clock.time += 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    with stages.stage("next"):
        clock.time += 2
    assert stages.spent() == {"inner": 1, "outer": 0, "next": 2}


def detector(name: str) -> Detector:
    torch.manual_seed(0)
    return build_detector(load_config(name, ["model.num_classes=3"])).eval()


STAGES = ["proposals", "stage 1", "stage 2", "stage 3", "between stages"]
EXPECTED = {
    "cascade_mask_rcnn_tiny": ["backbone", "neck", *STAGES, "masks", "suppression"],
    "htc_tiny": ["backbone", "neck", "proposals", "semantic branch", *STAGES[1:], "masks", "suppression"],
    "detectors_tiny": [
        "backbone", "neck", "RFP pass 2", "proposals", "semantic branch", *STAGES[1:], "masks", "suppression",
    ],
    "dsc_tiny": ["backbone", "neck", "proposals", "semantic branch", *STAGES[1:], "masks", "suppression"],
}  # fmt: skip


@pytest.mark.parametrize("name", list(EXPECTED))
def test_stages_of_every_cascade(name: str) -> None:
    model = detector(name)
    untouched = {module: set(vars(module)) for module in model.modules()}
    stages = Stages(WallClock())
    image = torch.randn(1, 3, 64, 64)
    with told_apart(model, stages):
        found = model.detect(image)
    assert list(stages.spent()) == EXPECTED[name]
    assert {module: set(vars(module)) for module in model.modules()} == untouched, "the model is as it was"
    (again,) = model.detect(image)
    assert torch.equal(found[0].boxes, again.boxes)


def test_a_detector_that_is_told_apart_in_an_error_is_as_it_was() -> None:
    model = detector("htc_tiny")
    with pytest.raises(RuntimeError), told_apart(model, Stages(WallClock())):
        model.detect(torch.randn(1, 7, 64, 64))
    assert "forward" not in vars(model.backbone)


def test_seconds_of_the_stages_are_those_of_all() -> None:
    model = detector("htc_tiny")
    stages = Stages(WallClock())
    start = time.perf_counter()
    with told_apart(model, stages), stages.stage("other"):
        model.detect(torch.randn(1, 3, 64, 64))
    whole = time.perf_counter() - start
    assert 0.8 * whole < sum(stages.spent().values()) <= whole


def test_operations_by_hand() -> None:
    """The backbone's first convolution and a stage's classifier, a multiplication and an addition each."""
    model = detector("htc_tiny")
    counts = []
    for module in (model.backbone.conv1, model.cascade.box_stages[0].head.classifier):  # type: ignore[union-attr,index]
        with FlopCounterMode(display=False) as counter:
            clock = FlopClock(counter)
            stages = Stages(clock)
            with stages.stage("it"), torch.no_grad():
                weight = module.weight  # type: ignore[union-attr]
                module(torch.zeros(1, *weight.shape[1:2], *((32, 32) if weight.dim() == 4 else ())))  # type: ignore[operator]
        counts.append(stages.spent()["it"])
    conv, linear = model.backbone.conv1.weight, model.cascade.box_stages[0].head.classifier.weight  # type: ignore[union-attr,index]
    assert counts == [2 * conv.numel() * 16 * 16, 2 * linear.numel()]  # type: ignore[operator,union-attr]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_events_measure_the_gpu_and_not_the_host() -> None:
    a = torch.rand(4096, 4096, device="cuda")
    stages = Stages(CudaClock())
    for _ in range(3):
        with stages.stage("product"):
            a @ a
        with stages.stage("nothing"):
            pass
    spent = stages.spent()
    assert spent["product"] > 10 * spent["nothing"] >= 0
    marks = [CudaClock().now() for _ in range(3)]
    assert all(CudaClock().between(first, second) >= 0 for first, second in pairwise(marks))
