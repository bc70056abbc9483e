"""Half precision: which devices have it, what scaling does to a step, and that it all goes on after a stop."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dsctool.data.transforms import Batch, SampleInfo
from dsctool.engine.inference import detections
from dsctool.engine.precision import LossScale, computing_in, require
from dsctool.engine.signals import RunInterruptedError
from dsctool.engine.step import StepResult, optimizer_step
from dsctool.errors import ConfigError, TrainingError
from dsctool.interop.checkpoint import load_checkpoint
from dsctool.models.losses import Mean
from dsctool.structures import ImageBatch, Targets
from dsctool.terms import Precision
from tests.engine.fakes import FakeDetector, tiny_config
from tests.engine.test_trainer import assert_same, kill_at, lines
from tests.models.tiny import tiny_detector

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_cpu_computes_in_all_of_them(precision: Precision) -> None:
    require(precision, CPU)
    with computing_in(precision, CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == getattr(torch, precision)


def test_a_device_that_does_not_is_refused() -> None:
    require("float32", torch.device("meta"))
    with pytest.raises(ConfigError, match=r"meta does not compute in float16: .* another precision"):
        require("float16", torch.device("meta"))


class Dot(nn.Module):
    """A linear loss after a batch norm, whose statistics see what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, images: Tensor, targets: object, sizes: object) -> dict[str, Mean]:
        self.norm(images)
        losses = images.mean((2, 3)) @ self.weight
        return {"s1.loss_cls": Mean(losses.sum(), len(losses))}


def batch(brightness: float) -> Batch:
    targets = [Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))]
    return ImageBatch(torch.full((1, 3, 8, 8), brightness), [(8, 8)]), targets, [SampleInfo(7, (8, 8), "x.jpg")]


def steps(model: Dot, scale: LossScale | None, *brightness: float) -> list[StepResult]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return [
        optimizer_step(model, optimizer, [batch(1.0), batch(value)], rate=0.1, max_norm=2.0, scale=scale)
        for value in brightness
    ]


def test_a_scaled_step_is_the_same_step(device: torch.device) -> None:
    plain, scaled = Dot().to(device), Dot().to(device)
    scale = LossScale(device, max_skipped=1)
    for one, two in zip(steps(plain, None, 3.0, 5.0), steps(scaled, scale, 3.0, 5.0), strict=True):
        assert torch.equal(one.grad_norm, two.grad_norm)
        assert torch.equal(one.losses["s1.loss_cls"], two.losses["s1.loss_cls"])
    assert torch.equal(plain.weight, scaled.weight)


@pytest.mark.parametrize("brightness", [math.inf, math.nan, 1e36], ids=["loss", "loss that is none", "scaled gradient"])
def test_a_step_that_overflows_changes_nothing_but_the_scale(brightness: float, device: torch.device) -> None:
    model, scale = Dot().to(device), LossScale(device, max_skipped=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    factor = scale.factor
    (result,) = steps(model, scale, brightness)
    assert result.skipped
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert scale.factor == factor / 2
    assert not steps(model, scale, 1.0)[0].skipped
    assert not torch.equal(model.weight, before["weight"])


def test_too_many_skipped_in_a_row_stop_with_the_name_of_the_loss() -> None:
    model, scale = Dot(), LossScale(CPU, max_skipped=2)
    assert [result.skipped for result in steps(model, scale, math.inf, math.inf, 1.0, math.inf, math.inf)] == [
        True, True, False, True, True,
    ]  # fmt: skip
    with pytest.raises(
        TrainingError,
        match=r"3 steps in a row overflowed; in the last one the loss is not finite: s1\.loss_cls = inf "
        r"\(cascade stage 2\); image ids 7\. .*--resume with train\.precision=bfloat16",
    ):
        steps(model, scale, math.inf)


def test_the_scale_goes_on_from_its_state() -> None:
    scale, again = LossScale(CPU, max_skipped=2), LossScale(CPU, max_skipped=2)
    steps(Dot(), scale, math.inf, math.inf)
    again.load_state_dict(json.loads(json.dumps(scale.state_dict())))
    assert again.factor == scale.factor
    with pytest.raises(TrainingError, match="3 steps in a row"):
        steps(Dot(), again, math.inf)


def overflow(*calls: int) -> Callable[[FakeDetector], None]:
    """A detector with a loss that is infinite in these of its passes."""

    def prepare(model: FakeDetector) -> None:
        def hook(number: int) -> None:
            model.factors = {"s0.loss_mask": math.inf} if number in calls else {}

        model.on_losses = hook

    return prepare


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_resuming_in_half_precision_is_as_never_having_stopped(
    tmp_path: Path, run: Callable[..., str], precision: Precision
) -> None:
    config = tiny_config(precision=precision)
    shown = run(tmp_path / "whole", config)
    assert f"precision        {precision}, evaluations in float32" in shown
    for call in (2, 7):
        folder = tmp_path / f"cut {call}"
        with pytest.raises(RunInterruptedError):
            run(folder, config, prepare=kill_at(call))
        run(folder, config, resume=True)
        whole, cut = load_checkpoint(tmp_path / "whole/last.pt"), load_checkpoint(folder / "last.pt")
        assert_same(whole, cut)
        assert whole.training is not None
        assert cut.training is not None
        assert whole.training.loss_scale == cut.training.loss_scale
        assert (whole.training.loss_scale is not None) == (precision == "float16")


def test_half_precision_takes_other_steps(tmp_path: Path, run: Callable[..., str]) -> None:
    for precision in ("float32", "bfloat16"):
        run(tmp_path / precision, tiny_config(precision=precision))
    weights = [load_checkpoint(tmp_path / name / "last.pt").model["head.weight"] for name in ("float32", "bfloat16")]
    assert not torch.equal(*weights)
    torch.testing.assert_close(*weights, rtol=0.1, atol=0.02)
    assert all("skipped" not in line for line in lines(tmp_path / "bfloat16"))


def test_skipped_steps_are_counted_and_shown(tmp_path: Path, run: Callable[..., str]) -> None:
    config = tiny_config(precision="float16", log_interval=2)
    shown = run(tmp_path / "run", config, prepare=overflow(2, 5, 6))
    recorded = [line for line in lines(tmp_path / "run") if line["kind"] == "train"]
    assert [line["skipped"] for line in recorded] == [2, 0, 2, 0], "the first factor is too large for the first step"
    assert ["loss" in line for line in recorded] == [False, True, False, True]
    assert all(math.isfinite(value) for line in recorded for value in line.values() if isinstance(value, float))
    assert "  2 steps skipped" in shown
    assert "no loss" in shown
    weights = load_checkpoint(tmp_path / "run/last.pt").model
    assert all(value.isfinite().all() for value in weights.values())


def test_a_run_that_overflows_stops_and_goes_on_in_another_precision(tmp_path: Path, run: Callable[..., str]) -> None:
    config = tiny_config(precision="float16", max_skipped=2, checkpoint_interval=1)
    with pytest.raises(TrainingError, match=r"3 steps in a row .*s0\.loss_mask = (inf|-inf|nan) \(cascade stage 1\)"):
        run(tmp_path / "run", config, prepare=overflow(3, 4, 5))
    stopped = load_checkpoint(tmp_path / "run/last.pt").training
    assert stopped is not None
    assert stopped.step == 4, "the two that were skipped are steps of the run"
    run(tmp_path / "run", tiny_config(precision="bfloat16", checkpoint_interval=1), resume=True)
    finished = load_checkpoint(tmp_path / "run/last.pt")
    assert finished.training is not None
    assert (finished.training.step, finished.training.loss_scale) == (8, None)
    assert finished.config.train.precision == "bfloat16"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_without_scaling_a_loss_that_is_not_finite_stops_at_once(
    tmp_path: Path, run: Callable[..., str], precision: Precision
) -> None:
    with pytest.raises(TrainingError, match=r"^loss is not finite: s0\.loss_mask"):
        run(tmp_path / "run", tiny_config(precision=precision), prepare=overflow(3))


@pytest.mark.parametrize("merge", ["union", "average"])
def test_several_views_in_half_precision(merge: str) -> None:
    """With suppression by masks and the candidates kept: all that is found is float32, and near what float32 finds."""
    tta = f"data.tta={{short_sides: [64], merge: {merge}}}"
    words = [tta, "postprocess.nms=mask", "postprocess.mask_candidates=20", "postprocess.keep_candidates=5"]
    model = tiny_detector("dsc_detectors_tiny", words)
    picture = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    given: list[Batch] = [(ImageBatch(picture[None], [(64, 64)]), [], [SampleInfo(1, (64, 64), "x.jpg")])]
    ((_, expected),) = detections(model, given, device=CPU)
    ((_, found),) = detections(model, given, device=CPU, precision="bfloat16")
    assert found.mask_probs is not None
    assert {found.boxes.dtype, found.scores.dtype, found.mask_probs.dtype} == {torch.float32}
    assert len(found) > 0
    assert found.scores[0].item() == pytest.approx(expected.scores[0].item(), rel=0.05)
    assert not torch.equal(found.scores, expected.scores)
