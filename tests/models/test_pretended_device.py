"""On a GPU that is not there: nothing mixes devices, and the host seldom waits.

A read stalls the host until the device has done everything before it, a blocking upload as well. What a step or a
detection may have of either is a budget; see :mod:`tests.pretended_device` for what counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.models.pretended_runs import AUGMENTED, FAMILIES, HALVED, IMAGES, VIEWS, Run

READS = 12
"""At most, in an optimiser step of two images, and in the detection of two."""
READS_FOR_RESULTS = 5
"""At most, for each image beside its detection: where its masks are and where their runs end, classes, and boxes."""
READS_OF_VIEWS = 8, 4
"""At most, under test-time augmentation: for the image, and more for each view."""
BATCH = 9
"""Tensors of the batch: the images, and boxes, labels, masks and the semantic map of each."""
DRAWS = {"cascade_mask_rcnn_tiny": 4, "htc_tiny": 7, "detectors_tiny": 7}
"""How often samples are drawn, which is done on the CPU; in DSC's families twice."""


STATEMENTS = {
    "there.sum().item()": (1, 0, 0),
    "bool((there > 2).all())": (1, 0, 0),
    "there.tolist()": (1, 0, 0),
    "there.cpu()": (1, 0, 0),
    "there[there > 2]": (1, 0, 0),
    "there.long().bincount()": (1, 0, 0),
    "there.repeat_interleave(there.long())": (1, 0, 0),
    "there.repeat_interleave(2)": (0, 0, 0),
    "there.masked_fill(there > 2, 0) + torch.arange(6, device=DEVICE)": (0, 0, 0),
    "torch.tensor([1.0], device=DEVICE)": (0, 1, 1),
    "there.new_tensor([1.0])": (0, 1, 1),
    "here.to(DEVICE)": (0, 1, 1),
    "here.to(DEVICE, non_blocking=True)": (0, 1, 0),
    "there[torch.tensor([0, 1])]": (0, 1, 1),
    "there + torch.tensor(1.0)": (0, 0, 0),
    "there + here": "tensors on two devices",
    "torch.cat([there, here])": "tensors on two devices",
}
"""Reads, uploads, and uploads that are waited for; or what is wrong. There are tensors ``here`` and ``there``."""
PROGRAM = """
import json, sys, torch
from tests.models.pretended_runs import main
from tests.pretended_device import DEVICE, pretend

found = {}
for statement in json.loads(sys.argv.pop()):
    with pretend():
        here = torch.arange(6.0)
        there = here.to(DEVICE)
    with pretend() as traffic:
        try:
            eval(statement)
        except RuntimeError as error:
            found[statement] = str(error)
        else:
            found[statement] = [sum(x.values()) for x in (traffic.reads, traffic.uploads, traffic.waiting)]
print(json.dumps(found))
main()
"""

Told = tuple[dict[str, Any], dict[str, Run]]


@pytest.fixture(scope="module")
def told() -> Told:
    """What each statement counts as, and every run by its name: the device is there in a process of its own."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(list(STATEMENTS))]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counted, runs = map(json.loads, done.stdout.splitlines())
    return counted, {name: Run(**values) for name, values in runs.items()}


@pytest.fixture(scope="module")
def runs(told: Told) -> dict[str, Run]:
    return told[1]


def checked(run: Run, *, reads: int, uploads: int) -> None:
    """The run went through, gave what it gives on the CPU, and exchanged no more; no upload was waited for."""
    assert not run.error, run.error
    assert run.values
    assert not run.expected or run.values == pytest.approx(run.expected, rel=1e-4, abs=1e-4)
    assert sum(run.reads.values()) <= reads, run.reads
    assert sum(run.uploads.values()) <= uploads, run.uploads
    assert not run.waiting, run.waiting


@pytest.mark.parametrize(
    ("kind", "family"),
    [*(("adamw float32", family) for family in FAMILIES), *(("sgd bfloat16", family) for family in HALVED)],
)
def test_a_step(runs: dict[str, Run], family: str, kind: str) -> None:
    run = runs[f"{family} {kind}"]
    checked(run, reads=READS, uploads=BATCH + DRAWS.get(family, 2))
    assert run.values == pytest.approx(runs[f"{family} adamw float32"].values, rel=0.3, abs=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_detecting(runs: dict[str, Run], family: str) -> None:
    """Nothing is sent but the images."""
    checked(runs[f"{family} detect soft"], reads=READS, uploads=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_predicting_bitmaps(runs: dict[str, Run], family: str) -> None:
    """Beside the images: what is to be pasted, twice, and of each image which masks are left."""
    checked(runs[f"{family} predict mask"], reads=READS, uploads=3 + IMAGES)


@pytest.mark.parametrize("family", FAMILIES)
def test_evaluating(runs: dict[str, Run], family: str) -> None:
    checked(runs[f"{family} evaluate box"], reads=READS + IMAGES * READS_FOR_RESULTS, uploads=1 + IMAGES)


@pytest.mark.parametrize("family", AUGMENTED)
@pytest.mark.parametrize("kind", ["average mask", "union box"])
def test_views(runs: dict[str, Run], family: str, kind: str) -> None:
    """Each view is sent for every look at it: three at most, and the first two to see that there are several."""
    of_image, of_view = READS_OF_VIEWS
    checked(runs[f"{family} {kind}"], reads=of_image + VIEWS * of_view, uploads=3 * VIEWS + 2 + 2)


def test_what_counts(told: Told) -> None:
    counted, _ = told
    for statement, counts in counted.items():
        expected = STATEMENTS[statement]
        assert counts.startswith(expected) if isinstance(expected, str) else tuple(counts) == expected, statement
