"""The command that compares many adversarial sets, on a few; and what it does where numbers differ."""

from __future__ import annotations

import sys

import pytest

from tests.benchmarks import adversarial
from tests.benchmarks.adversarial import Compared, compare, described
from tests.evaluation import oracle


def test_nothing_differs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["adversarial", "--sets", "4", "--processes", "1"])
    with pytest.raises(SystemExit) as ended:
        adversarial.main()
    assert not ended.value.code
    assert " 0 sets with a difference above 1e-12" in capsys.readouterr().out


def test_a_difference_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*given: object, **limits: object) -> object:
        numbers, classes = oracle.oracle(*given, **limits)  # type: ignore[arg-type]
        return numbers, [row | {"AP75": row["AP75"] + 1e-9} for row in classes]

    monkeypatch.setattr(adversarial, "oracle", wrong)
    found = compare(3)
    assert found.difference == pytest.approx(1e-9)
    assert found.place.startswith("set 3, ")
    assert found.place.endswith("AP75")
    line = described([found, Compared(7, 0.0, "set 4, segm: AP")])
    assert line.startswith(f"2 sets, {found.count + 7} numbers: 1 sets with a difference above 1e-12")
    assert line.endswith("the largest is 1.0e-09 (" + found.place + ")")


def test_a_number_that_is_missing_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adversarial, "oracle", lambda *_, **__: ({"AP": 0.5}, []))
    assert compare(3).difference == float("inf")
