"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes that share the cores
    os.environ["OMP_NUM_THREADS"] = "1"  # also for the commands that it starts
    torch.set_num_threads(1)

torch.backends.cudnn.allow_tf32 = False  # rounds the inputs of convolutions, to a thousandth

RECORDINGS = Path(__file__).parent / "parity" / "recordings"
"""Numbers recorded from the published implementations."""


SLOW = ("parity", "e2e", "interop", "cli")
"""Folders whose files begin first, so that no process is left with one at the end."""


def pytest_collection_finish() -> None:
    """What is imported by now stays: looking through it for garbage took a twentieth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, else as they were found."""
    items.sort(key=lambda item: not any(folder in item.path.parts for folder in SLOW))


@pytest.fixture(scope="session", autouse=True)
def nothing_waits_for_the_disk() -> Iterator[None]:
    """No test cuts the power: files need not have reached the disk, which takes longer than many a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(
    params=[
        "cpu",
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
    ]
)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device there is: the CPU always, CUDA where present."""
    return torch.device(request.param)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets that ``DSCTOOL_TEST_DATA`` names."""
    folder = os.environ.get("DSCTOOL_TEST_DATA")
    if not folder:
        pytest.skip("DSCTOOL_TEST_DATA does not name a folder of real data")
    return Path(folder)


@pytest.fixture(scope="session")
def synthetic_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated data set of the standard layout: 8 training and 4 validation images. Not to be written to."""
    from dsctool.data.synthetic.dataset import synthesize

    root = tmp_path_factory.mktemp("synthetic") / "shapes"
    synthesize(root, images=8, val_images=4, seed=0)
    return root
