"""Several models in turns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dsctool.engine.benchmark import measure
from dsctool.engine.benchmark.measure import Spread, matrix_peak, product_type, run_in_turns
from dsctool.engine.benchmark.stages import Stages

CPU = torch.device("cpu")


class Fixed:
    """Takes the seconds that it is given, in the one stage ``work``; multiplies a matrix each time."""

    windows = None

    def __init__(self, log: list[str], name: str, side: int = 8) -> None:
        self.log, self.name, self.matrix = log, name, torch.rand(side, side)

    def __call__(self, stages: Stages[Any]) -> int:
        self.log.append(self.name)
        with stages.stage("work"):
            self.matrix @ self.matrix
        with stages.stage("rest"):
            pass
        return 6


def test_spread() -> None:
    assert Spread.of([3.0, 1.0, 10.0]) == Spread(median=3.0, least=1.0, most=10.0)


def test_models_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    monkeypatch.setattr(measure, "matrix_peak", lambda device: log.append("peak") or 1e9)
    said: list[tuple[str, int, int]] = []
    bench = run_in_turns(
        {"a": Fixed(log, "a"), "b": Fixed(log, "b", side=16)}, CPU, pictures=2, rounds=3,
        progress=lambda *words: said.append(words),
    )  # fmt: skip
    assert log == ["a", "a", "b", "b", *["peak", "a", "b"] * 3], "warm up, count, then in turns"
    assert [done for _, done, _ in said] == list(range(1, 9))
    assert {of for _, _, of in said} == {8}
    a, b = bench.models["a"], bench.models["b"]
    assert a.ratio == Spread(1.0, 1.0, 1.0)
    assert a.instances == b.instances == 3
    assert (a.flops, b.flops) == ({"work": 2 * 8**3 / 2}, {"work": 2 * 16**3 / 2}), "of a picture"
    assert list(a.stages) == ["work", "rest"]


def test_ratios_are_taken_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slows down tenfold in the second round changes no ratio."""
    seconds = iter([1.0, 3.0, 10.0, 30.0, 1.0, 3.0])
    monkeypatch.setattr(measure, "_seconds", lambda subject, device: {"work": next(seconds)})
    monkeypatch.setattr(measure, "matrix_peak", lambda device: 1e9)
    bench = run_in_turns({"a": Fixed([], "a"), "b": Fixed([], "b")}, CPU, pictures=1, rounds=3)
    assert bench.models["b"].ratio == Spread(3.0, 3.0, 3.0)
    assert bench.models["b"].seconds == Spread(3.0, 3.0, 30.0)


def test_share_of_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_seconds", lambda subject, device: {"work": 2.0, "rest": 2.0})
    monkeypatch.setattr(measure, "matrix_peak", lambda device: 1000.0)
    bench = run_in_turns({"a": Fixed([], "a", side=10)}, CPU, pictures=1, rounds=1)
    assert bench.share("a", "work") == 2000 / 2 / 1000
    assert bench.share("a") == 2000 / 4 / 1000
    assert bench.share("a", "rest") is None


def test_the_peak_is_a_speed_that_products_reach() -> None:
    side = 512
    a = torch.rand(side, side)
    peak = matrix_peak(CPU, repeats=3)
    assert 1e8 < peak < 1e16
    assert a.shape == (side, side)


@pytest.mark.parametrize("rounded", [True, False])
def test_products_are_rounded_as_convolutions_while_they_are_timed(
    monkeypatch: pytest.MonkeyPatch, rounded: bool, device: torch.device
) -> None:
    seen = []

    def look(place: torch.device) -> None:
        seen.append(torch.backends.cuda.matmul.allow_tf32)

    monkeypatch.setattr(measure, "_wait", look)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", rounded)
    monkeypatch.setitem(measure.PEAK_SIDE, device.type, 64)
    before = torch.backends.cuda.matmul.allow_tf32
    matrix_peak(device, repeats=1)
    assert seen == [rounded, rounded]
    assert torch.backends.cuda.matmul.allow_tf32 == before


@pytest.mark.parametrize(
    ("place", "allowed", "capability", "expected"),
    [
        ("cpu", True, (9, 0), "float32"),
        ("cuda", True, (9, 0), "TF32"),
        ("cuda", True, (8, 0), "TF32"),
        ("cuda", True, (7, 5), "float32"),
        ("cuda", False, (9, 0), "float32"),
    ],
)
def test_what_convolutions_multiply(
    monkeypatch: pytest.MonkeyPatch, place: str, allowed: bool, capability: tuple[int, int], expected: str
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert product_type(torch.device(place)) == expected
