"""Runs that are killed at random instants, again and again, beside one that never was: nothing may differ.

    python -m tests.benchmarks.kills htc_tiny detectors_tiny --kills 100

Each run trains with AdamW and a moving average, and evaluates after every epoch. It is killed by SIGKILL after a random
time, in training, evaluation or the writing of a file, and goes on with --resume until it ends; then the next begins,
until there were as many kills as asked for. Weights, averages, optimiser, best score and metrics.jsonl are compared bit
for bit with the run that nothing disturbed, and no temporary file may be left.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from typer.testing import CliRunner

from dsctool.cli.app import app
from dsctool.data.synthetic.dataset import synthesize
from dsctool.interop.checkpoint import load_checkpoint
from tests.e2e.test_train import SMALL
from tests.engine.test_trainer import TIMES

RECIPE = ["optim.kind=adamw", "train.ema=0.9", "train.checkpoint_interval=3", "train.log_interval=5"]


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)
    differences = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        synthesize(root / "data", images=8, val_images=4, seed=0)
        for config in given.configs:
            differences += compared(
                config, root, kills=given.kills, epochs=given.epochs, generator=random.Random(given.seed)
            )
    return min(differences, 1)


def compared(config: str, root: Path, *, kills: int, epochs: int, generator: random.Random) -> int:
    """How many runs of ``config``, killed ``kills`` times in all, differ from one that was not."""
    whole = root / config / "whole"
    started = time.monotonic()
    assert trained(config, root / "data", whole, epochs, patience=None) == 0
    length = time.monotonic() - started
    done = runs = differing = 0
    while done < kills:
        cut, own = root / config / f"cut{runs}", 0
        while True:
            patience = None if done >= kills else generator.uniform(0, length / 2)  # several kills a run
            code = trained(config, root / "data", cut, epochs, patience=patience)
            if code == 0:
                break
            assert code == -signal.SIGKILL, code
            done, own = done + 1, own + 1
        runs += 1
        found = differences(whole, cut)
        differing += bool(found)
        print(f"{config}: run {runs}, killed {own} times: {', '.join(found) or 'no difference'}", flush=True)
    print(f"{config}: {done} kills over {runs} runs of {length:.1f} s, {differing} of them differ", flush=True)
    return differing


def trained(config: str, data: Path, output: Path, epochs: int, *, patience: float | None) -> int:
    """Train in a process of its own, which is killed after ``patience`` seconds; its exit code."""
    words = ["train", config, *SMALL, *RECIPE, f"train.epochs={epochs}", "data.workers=0", "--data", str(data)]
    words += ["--output", str(output)]
    if (output / "last.pt").exists():
        words.append("--resume")
    elif output.exists():  # killed before there was anything to go on from
        for path in output.iterdir():
            path.unlink()
    process = multiprocessing.get_context("fork").Process(target=_command, args=(words,))
    process.start()
    process.join(timeout=patience)
    if process.is_alive():
        process.kill()
        process.join()
    assert process.exitcode is not None
    return process.exitcode


def _command(words: list[str]) -> None:
    torch.set_num_threads(1)
    done = CliRunner().invoke(app, [*words, "--device", "cpu"])
    if done.exit_code:
        print(done.output, file=sys.stderr)
    sys.exit(done.exit_code)


def differences(left: Path, right: Path) -> list[str]:
    """What is not the same in two folders of runs."""
    found = []
    for name in ("last.pt", "best.pt"):
        ours, theirs = load_checkpoint(left / name), load_checkpoint(right / name)
        parts = {"weights": (ours.model, theirs.model), "metrics": (ours.metrics, theirs.metrics)}
        if ours.training is not None and theirs.training is not None:
            for key in ("weights", "optimizer", "best", "step", "epoch", "batch"):
                parts[f"training.{key}"] = (getattr(ours.training, key), getattr(theirs.training, key))
        found += [f"{name}: {part}" for part, pair in parts.items() if not same(*pair)]
    if _recorded(left) != _recorded(right):
        found.append("metrics.jsonl")
    return [*found, *(path.name for path in right.rglob(".*.tmp"))]


def same(left: Any, right: Any) -> bool:
    """Whether plain containers hold the same, tensors bit for bit."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict) or hasattr(left, "keys"):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def _recorded(run: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


if __name__ == "__main__":
    sys.exit(main())
