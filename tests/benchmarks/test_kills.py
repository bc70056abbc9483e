"""The command that kills runs: it finds what differs, and here nothing does."""

from __future__ import annotations

import sys

import pytest
import torch

from tests.benchmarks.kills import main, same


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
def test_a_kill_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cascade_mask_rcnn_tiny", "--kills", "1", "--epochs", "1"]) == 0
    assert "1 kills over 1 runs" in capsys.readouterr().out


def test_what_differs_is_seen() -> None:
    one = {"a": [torch.ones(2), 3], "b": None}
    assert same(one, {"a": [torch.ones(2), 3], "b": None})
    assert not same(one, {"a": [torch.tensor([1.0, 1.0 + 1e-7]), 3], "b": None})
    assert not same(one, {"a": [torch.ones(2), 3]})
