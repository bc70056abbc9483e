"""Our numbers against pycocotools' on sets that are made to be hard: ``python -m tests.benchmarks.adversarial``.

Every set of :mod:`tests.evaluation.adversarial` is measured with several limits of detections and ranges of areas, for
boxes and for masks. Prints how many sets and numbers were compared (COCO's twelve or those that the limits give, and
those of every category), and the largest difference and where it is; exits with 1 where one is above 1e-12.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Literal

from dsctool.evaluation.coco import evaluate_all
from dsctool.evaluation.protocol import AreaRange, Protocol
from tests.evaluation.adversarial import Json, adversarial_set
from tests.evaluation.oracle import oracle

TOLERANCE = 1e-12
LIVECELL_AREAS = (AreaRange("small", 0, 320), AreaRange("medium", 320, 970), AreaRange("large", 970, 1e10))
PROTOCOLS = (Protocol(), Protocol(max_dets=(1, 10, 500)), Protocol(max_dets=(2, 5), areas=LIVECELL_AREAS))
KINDS: tuple[Literal["bbox", "segm"], ...] = ("bbox", "segm")


@dataclass(frozen=True)
class Compared:
    """count: numbers that were compared. difference: the largest; place: where it is."""

    count: int
    difference: float
    place: str


def compare(seed: int) -> Compared:
    """Every number of one set."""
    truth, results = adversarial_set(seed)
    differences = [each for protocol in PROTOCOLS for each in _differences(truth, results, protocol)]
    difference, place = max(differences)
    return Compared(len(differences), difference, f"set {seed}, {place}")


def _differences(truth: Json, results: list[Json], protocol: Protocol) -> Iterator[tuple[float, str]]:
    """By what each number is."""
    found = evaluate_all(truth, results, protocol=protocol)
    for kind in KINDS:
        stats, classes = _expected(truth, results, kind, protocol)
        numbers = found.stats[kind]
        where = f"{kind}, at most {protocol.limits} detections"
        if numbers is None or len(found.classes) != len(classes):
            yield float("inf"), f"{where}: no numbers"
            continue
        yield from _beside(numbers, stats, where)
        for mine, theirs in zip(found.classes, classes, strict=True):
            yield from _beside(getattr(mine, kind), theirs, f"{where}, category {mine.id}")


def _expected(
    truth: Json, results: list[Json], kind: str, protocol: Protocol
) -> tuple[dict[str, float], list[dict[str, float]]]:
    areas = {area.key: (area.low, area.high) for area in protocol.areas}
    return oracle(truth, results, kind, max_dets=protocol.limits, areas=areas)


def _beside(mine: Mapping[str, float], theirs: Mapping[str, float], where: str) -> Iterator[tuple[float, str]]:
    if mine.keys() != theirs.keys():
        yield float("inf"), f"{where}: {', '.join(mine)} instead of {', '.join(theirs)}"
        return
    for name, value in theirs.items():
        yield abs(mine[name] - value), f"{where}: {name}"


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="of the first set")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    given = parser.parse_args()
    with ProcessPoolExecutor(given.processes) as pool:
        compared = list(pool.map(compare, range(given.seed, given.seed + given.sets), chunksize=20))
    print(described(compared))
    raise SystemExit(max(each.difference for each in compared) > TOLERANCE)


def described(compared: list[Compared]) -> str:
    """All sets in a line."""
    worst = max(compared, key=lambda each: each.difference)
    above = sum(each.difference > TOLERANCE for each in compared)
    return (
        f"{len(compared)} sets, {sum(each.count for each in compared):,} numbers: {above} sets with a difference above "
        f"{TOLERANCE:g}; the largest is {worst.difference:.1e} ({worst.place})"
    )


if __name__ == "__main__":
    main()
