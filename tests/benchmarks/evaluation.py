"""``dsctool eval`` and ``huddle-report`` at COCO's size, beside the others: ``python -m tests.benchmarks.evaluation``.

Makes the set of :mod:`tests.benchmarks.evaluation_set` from a seed and runs every command in a process of its own, in
turns. Prints the seconds from its start to its end (and those of all cores), their ratio to hotcoco's, the most memory
it held, and the largest difference of any of the twelve numbers of boxes and masks (ours: and of every category's
three) from pycocotools'. hotcoco and faster-coco-eval are measured where they are installed. pycocotools takes minutes:
it runs once, and its numbers are kept beside the set (``--no-differences`` does without them).

    python -m tests.benchmarks.evaluation --folder sets --rounds 5 --only eval hotcoco --no-differences
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.coco_evaluators import MODULES, installed
from tests.benchmarks.processes import REPOSITORY, Usage, measured

OURS = {
    "eval": ["eval", "--per-class"],
    "eval --huddle --errors": ["eval", "--per-class", "--huddle", "--errors", "errors"],
    "huddle-report": ["huddle-report", "--output", "report"],
    "huddle-report --bootstrap 200": ["huddle-report", "--output", "report", "--bootstrap", "200"],
}
UNIT = "hotcoco"
"""Times are compared with this one's."""
ONCE = {"pycocotools"}
"""Too slow for more than one round."""
COLUMNS = ("runs", "min s", "median s", "cpu s", f"x {UNIT}", "peak MiB", "largest difference")


@dataclass(frozen=True)
class Files:
    """The set, by the names that :mod:`tests.benchmarks.evaluation_set` prints."""

    truth: Path
    results: Path
    baseline: Path


Numbers = dict[str, dict[str, list[Any]]]
"""Of ``bbox`` and ``segm``: the twelve ``stats``, and AP, AP50 and AP75 of all ``classes``."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*OURS, *installed()]
    parser.add_argument("--folder", type=Path, help="where the set is kept, and found again; otherwise it is not kept")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--differences", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--checkout", type=Path, default=REPOSITORY, help="another checkout of dsctool, to measure it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (given.folder or Path(scratch)).resolve()
        files = made(folder, images=given.images, seed=given.seed)
        usages, numbers = measure(given.only, files, rounds=given.rounds, checkout=given.checkout.resolve())
        print(line("", COLUMNS))
        for name in given.only:
            counted = given.differences and name in numbers
            difference = largest_difference(numbers[name], reference(files, name)) if counted else None
            print(row(name, usages[name], usages.get(UNIT), difference))


def made(folder: Path, *, images: int, seed: int) -> Files:
    """The set in ``folder``, made by a process that does not leave this one its memory."""
    words = ["-m", "tests.benchmarks.evaluation_set", folder, "--images", str(images), "--seed", str(seed)]
    return Files(*map(Path, measured([sys.executable, *words]).output.splitlines()))


def measure(
    names: list[str], files: Files, *, rounds: int, checkout: Path
) -> tuple[dict[str, list[Usage]], dict[str, Numbers]]:
    """Every run of every command, and what those found that write numbers."""
    usages: dict[str, list[Usage]] = {name: [] for name in names}
    numbers = {}
    for number in range(rounds):
        for name in names:
            if number and name in ONCE:
                continue
            with tempfile.TemporaryDirectory() as scratch:
                usages[name].append(run(name, files, Path(scratch), checkout))
                if (found := Path(scratch, "numbers.json")).exists():
                    numbers[name] = read_numbers(found)
                    keep_reference(files, name, found)
            print(f"round {number + 1}: {name} {usages[name][-1].seconds:.2f} s", file=sys.stderr)
    return usages, numbers


def run(name: str, files: Files, scratch: Path, checkout: Path) -> Usage:
    """Run one command, which writes to ``scratch``."""
    numbers = scratch / "numbers.json"
    if name in MODULES:
        words = ["-m", "tests.benchmarks.coco_evaluators", name, files.truth, files.results, numbers]
        return measured([sys.executable, *words])
    command, *options = OURS[name]
    options = [str(scratch / word) if word in ("report", "errors") else word for word in options]
    compared = ["--baseline", files.baseline] if command == "huddle-report" else ["--json", numbers]
    inputs = ["--ground-truth", files.truth, "--predictions", files.results]
    return measured([sys.executable, "-m", "dsctool", command, *inputs, *compared, *options], checkout=checkout)


# --- the numbers ------------------------------------------------------------------------------------


def read_numbers(path: Path) -> Numbers:
    """What an evaluator wrote, or ``dsctool eval --json``."""
    content = json.loads(path.read_text())
    if "per_class" not in content:
        return content
    return {
        kind: {
            "stats": list(content[kind].values()),
            "classes": [list(category[kind].values()) for category in content["per_class"]],
        }
        for kind in ("bbox", "segm")
    }


def reference(files: Files, name: str) -> Numbers:
    """pycocotools' numbers, kept beside the set: with the area of masks for ours, of the boxes for the others."""
    path = reference_path(files, name)
    if not path.exists():
        words = ["-m", "tests.benchmarks.coco_evaluators", "pycocotools", files.truth, files.results, path]
        measured([sys.executable, *words, *(["--mask-areas"] if name in OURS else [])])
    return read_numbers(path)


def keep_reference(files: Files, name: str, found: Path) -> None:
    """What pycocotools found in a run that was measured need not be counted again."""
    if name == "pycocotools":
        shutil.copyfile(found, reference_path(files, name))


def reference_path(files: Files, name: str) -> Path:
    """Where the numbers lie that those of ``name`` must equal."""
    return files.truth.with_name("mask_areas.json" if name in OURS else "box_areas.json")


def largest_difference(found: Numbers, expected: Numbers) -> float:
    """Of any number that both have."""
    return max(
        abs(mine - theirs)
        for kind in expected
        for part in found[kind]
        for mine, theirs in zip(_flat(found[kind][part]), _flat(expected[kind][part]), strict=True)
    )


def _flat(values: list[Any]) -> list[float]:
    return [number for value in values for number in (value if isinstance(value, list) else [value])]


def row(name: str, runs: list[Usage], unit: list[Usage] | None, difference: float | None) -> str:
    """What a command took, as a line of the table."""
    seconds = [usage.seconds for usage in runs]
    median = statistics.median(seconds)
    cells = [
        str(len(runs)),
        f"{min(seconds):.2f}",
        f"{median:.2f}",
        f"{statistics.median(usage.cpu for usage in runs):.2f}",
        "-" if unit is None else f"{median / statistics.median(usage.seconds for usage in unit):.2f}",
        f"{max(usage.peak for usage in runs):.0f}",
        "-" if difference is None else f"{difference:.1e}",
    ]
    return line(name, cells)


def line(name: str, cells: Sequence[str]) -> str:
    """Columns as wide as their titles, or wider."""
    return f"{name:30} " + "  ".join(
        f"{cell:>{max(len(title), 8)}}" for cell, title in zip(cells, COLUMNS, strict=True)
    )


if __name__ == "__main__":
    main()
