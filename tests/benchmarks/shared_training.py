"""Training shared out to 1, 2 and 4 processes, of one effective batch: ``python -m tests.benchmarks.shared_training``.

Prints by how much the losses of each of 20 steps differ from one process's, relative to their size: of SGD, with losses
divided by what all processes count and batch norms synchronised. All that is float32 is float64 here (``--float32``
leaves it as it is). The sums of several processes have another order: in float32 that changes the seventh digit, until
a proposal changes sides of a threshold by it, and other samples are drawn from then on. In float64 none does.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

SIZES = "{short_sides: [96], long_side: 96}"
RECIPE = (
    "optim.kind=sgd", "optim.warmup_steps=5", "train.epochs=2", "train.log_interval=1", "train.eval_interval=0",
    "train.loss_counts=all", "train.sync_batch_norm=true", "data.workers=0",
    f"data.train_resize={SIZES}", f"data.test_resize={SIZES}",
)  # fmt: skip
EFFECTIVE_BATCH, IMAGES = 4, 40


def main(words: Sequence[str] | None = None) -> None:
    """Train, and print a line for each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", default=["htc_tiny", "detectors_tiny", "dsc_tiny"])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--float32", action="store_true")
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    if not given.float32:
        compute_in_float64()
    from dsctool.data.synthetic.dataset import synthesize

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        synthesize(root / "scenes", images=IMAGES, val_images=1, seed=0, size=(96, 96))
        for config in given.configs:
            runs = [losses(config, root, processes) for processes in given.processes]
            for step, (first, *others) in enumerate(zip(*runs, strict=True), start=1):
                worst = max(abs(other[name] / first[name] - 1) for other in others for name in first if first[name])
                print(f"{config}, step {step}: loss {first['loss']:.4f}, {worst:.1e} apart", flush=True)


def compute_in_float64() -> None:
    """Before anything of dsctool is imported."""
    assert not any(name.split(".")[0] == "dsctool" for name in sys.modules)
    torch.float32 = torch.float = torch.float64
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]


def losses(config: str, root: Path, processes: int) -> list[dict[str, float]]:
    """Of every step."""
    from tests.e2e.test_train import dsctool
    from tests.engine.several import started_together

    output = root / f"{config}-{processes}"
    own = f"train.batch_size={EFFECTIVE_BATCH // processes}"
    words = ("train", config, *RECIPE, own, "--data", root / "scenes", "--output", output)
    told = started_together(processes, lambda: dsctool(*words), timeout=3600)
    assert [kind for kind, _ in told] == ["gave"] * processes, told
    lines = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    return [{name: line[name] for name in line if "loss" in name} for line in lines if line["kind"] == "train"]


if __name__ == "__main__":
    main()
