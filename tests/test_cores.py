"""Work on all cores. In programs of their own: this process has torch, and with it no work is shared out."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")

SETUP = """
import os
import numpy as np
from dsctool import cores
cores._ENOUGH, cores._cores = 1, lambda: 3
own = os.getpid()
squares = np.arange(1000) ** 2
def work(part):
    return squares[part].copy(), os.getpid()
"""


def said(program: str) -> str:
    """What a program prints that has no torch."""
    done = subprocess.run([sys.executable, "-c", SETUP + program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_parts_come_back_in_order_from_other_processes() -> None:
    assert (
        said("""
found = cores.on_all_cores(work, 1000)
assert own not in {process for _, process in found}
print(np.array_equal(np.concatenate([part for part, _ in found]), squares))
""")
        == "True"
    )


def test_processes_write_into_shared_bytes() -> None:
    assert (
        said("""
room = cores.shared_bytes(1000)
def write(part):
    room[part] = np.arange(1000)[part] % 251
cores.on_all_cores(write, 1000)
print(np.array_equal(room, np.arange(1000) % 251))
""")
        == "True"
    )


def test_little_work_stays() -> None:
    assert (
        said("""
((_, process),) = cores.on_all_cores(work, 1000, worth=501)
print(process == own, len(cores.on_all_cores(work, 1000, worth=500)) > 1)
""")
        == "True True"
    )


def test_a_process_that_is_killed_costs_only_time() -> None:
    assert (
        said("""
def fragile(part):
    if os.getpid() != own:
        os.kill(os.getpid(), 9)
    return work(part)
((found, process),) = cores.on_all_cores(fragile, 1000)
print(np.array_equal(found, squares) and process == own)
""")
        == "True"
    )


def test_errors_come_through() -> None:
    assert (
        said("""
def wrong(part):
    raise ValueError(f"part {part.start}")
try:
    cores.on_all_cores(wrong, 1000)
except ValueError as error:
    print(error)
""")
        == "part 0"
    )


def test_who_may_have_no_children_works_alone() -> None:
    assert (
        said("""
import multiprocessing
def inside(_):
    ((_, process),) = cores.on_all_cores(work, 1000)
    return process == os.getpid()
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.map(inside, [0]))
""")
        == "[True]"
    )


def test_an_evaluation_shared_out_has_the_same_numbers() -> None:
    assert (
        said("""
from dsctool.evaluation.coco import evaluate_all
from tests.evaluation.crowded import crowded_truth, noisy_results
truth = crowded_truth(seed=91)
results = noisy_results(truth, seed=92)
shared = evaluate_all(truth, results)
cores._ENOUGH = 10**9
alone = evaluate_all(truth, results)
print(shared.stats == alone.stats and shared.classes == alone.classes)
""")
        == "True"
    )
