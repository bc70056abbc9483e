"""The real command line in several processes: what one process gives, two give."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dsctool.interop.checkpoint import load_checkpoint
from tests.e2e.test_train import SMALL, dsctool, environment, wait_for_line
from tests.engine.several import started_together

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")

STEADY = ["optim.kind=sgd", "optim.lr=1e-3", "data.workers=0", "train.loss_counts=all", "train.sync_batch_norm=true"]
"""What a rounding changes in the weights stays as small: AdamW divides it by gradients that are as small."""


def shared(world: int, *words: str | Path) -> list[str]:
    """What each process of a command prints."""
    told = started_together(world, lambda: dsctool(*words))
    assert [kind for kind, _ in told] == ["gave"] * world, told
    return [text for _, text in told]


def losses(run: Path) -> list[dict[str, float]]:
    lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if "loss" in k} for line in lines if line["kind"] == "train"]


@pytest.mark.parametrize("name", ["htc_tiny", "detectors_tiny", "dsc_tiny"])
def test_two_processes_train_as_one(tmp_path: Path, synthetic_root: Path, name: str) -> None:
    words = ["train", name, *SMALL, *STEADY, "train.epochs=1", "train.eval_interval=0", "--data", str(synthetic_root)]
    square = [
        "data.train_resize={short_sides: [64], long_side: 64}",
        "data.pad_divisor=64",
        "data.group_by_aspect=false",
    ]
    dsctool(*words, *square, "--output", tmp_path / "one")
    less_memory = ["train.batch_size=1", "train.checkpoint_activations=true", "train.masks_at_once=5"]
    said = shared(2, *words, *square, *less_memory, "--output", tmp_path / "two")
    assert said[1] == ""
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) >= 4
    for ours, theirs in zip(one, two, strict=True):
        assert ours.keys() <= theirs.keys()
        assert {k: theirs[k] for k in ours} == pytest.approx(ours, rel=1e-5, abs=1e-6)
    first, second = (load_checkpoint(tmp_path / run / "last.pt").model for run in ("one", "two"))
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=1e-4, atol=1e-6, msg=key)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, synthetic_root: Path) -> Path:
    output = tmp_path_factory.mktemp("trained") / "run"
    dsctool(
        "train", "htc_tiny", *SMALL, "train.epochs=1", "postprocess.score_threshold=0", "train.eval_interval=0",
        "data.val_share=0.4", "data.semantic=stuffthingmaps", "--data", synthetic_root, "--output", output,
    )  # fmt: skip
    return output / "best.pt"


@pytest.mark.parametrize(
    "how",
    [["data.val_share=null", "--precision", "bfloat16"], ["--tta", "data.tta={short_sides: [64]}"]],
    ids=["half precision", "views of images held out"],
)
def test_two_processes_measure_as_one(tmp_path: Path, trained: Path, synthetic_root: Path, how: list[str]) -> None:
    words = ["eval", trained, *how, "--data", synthetic_root]
    files = [[tmp_path / f"{kind}{count}.json" for kind in ("stats", "results")] for count in (1, 2)]
    alone = dsctool(*words, "--json", files[0][0], "--predictions", files[0][1])
    first, second = shared(2, *words, "--json", files[1][0], "--predictions", files[1][1])
    assert first == alone
    assert second == ""
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    assert len(json.loads(files[0][1].read_text())) > 10


def test_two_processes_predict_as_one(tmp_path: Path, trained: Path, synthetic_root: Path) -> None:
    every = ["--panoptic", "panoptic.min_score=0", "panoptic.stuff_area=1"]
    words: list[str | Path] = ["predict", trained, synthetic_root / "val", *every]
    one, two = (["--output", tmp_path / run, "--table", tmp_path / run / "cells.csv"] for run in ("one", "two"))
    dsctool(*words, *one)
    _, second = shared(2, *words, *two)
    assert second == ""
    files = []
    for run in ("one", "two"):
        files.append({p.relative_to(tmp_path / run): p.read_bytes() for p in (tmp_path / run).rglob("*.*")})
    assert files[0] == files[1]
    assert len(files[0]) == 5 + 2 * len(list((synthetic_root / "val").iterdir())), "an overlay and a map of each"


def test_torchrun_and_a_signal_to_one_process(tmp_path: Path, synthetic_root: Path) -> None:
    """Started by torchrun itself; stopped in one process, all stop, saved; one process alone ends the run."""
    run = tmp_path / "run"
    words = [
        "htc_tiny",
        *SMALL,
        "train.epochs=2",
        "train.eval_interval=0",
        "train.batch_size=1",
        "data.workers=0",
        "--data",
        str(synthetic_root),
    ]
    words = ["train", *words, "--output", str(run), "--device", "cpu"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.Popen(
        [*torchrun, "-m", "dsctool", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    wait_for_line(run / "metrics.jsonl", 2, process)
    tasks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(tasks[1]), signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    assert f"SIGTERM: saved {run / 'last.pt'} after step" in errors, errors
    assert errors.count("SIGTERM: saved") == 1
    assert "Traceback (most recent call last)" not in output
    state = load_checkpoint(run / "last.pt").training
    assert state is not None
    assert state.images == 2
    dsctool(*words[:-2], "--resume")
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines() if '"train"' in line]
    assert steps == list(range(1, len(steps) + 1))
    assert steps[-1] == load_checkpoint(run / "last.pt").training.step > state.step  # type: ignore[union-attr]
