"""Results beside their ground truth: read, paired and matched once, for all analyses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from dsctool.evaluation.matching import Matches, Pairs, View, find_near, find_pairs, match
from dsctool.evaluation.pairing import Overlapping
from dsctool.evaluation.predictions import Predictions
from dsctool.evaluation.protocol import AreaRange, Protocol
from dsctool.evaluation.sources import (
    GroundTruth,
    GroundTruthSource,
    PredictionsSource,
    load_both,
)
from dsctool.evaluation.tables import DetectionTable, TruthTable, detection_table, truth_table
from dsctool.terms import KINDS, Kind


class Comparison:
    """One file of results, and what can match.

    source, results: as they were read. kinds: boxes, and masks where both sides have them. protocol:
    resolved; detections beyond its limit are not in the table.
    """

    def __init__(
        self,
        *,
        source: GroundTruth,
        results: Predictions,
        truth: TruthTable,
        detections: DetectionTable,
        kinds: tuple[Kind, ...],
        protocol: Protocol,
    ) -> None:
        self.source = source
        self.results = results
        self.truth = truth
        self.detections = detections
        self.kinds = kinds
        self.protocol = protocol
        self._near: dict[Kind, Overlapping] = {}
        self._pairs: dict[Kind, Pairs] = {}

    @cached_property
    def everything(self) -> View:
        """All instances."""
        return View(self.truth.wanted)

    def of_area(self, area: AreaRange) -> View:
        """The instances of a range of areas."""
        truth = self.truth
        return View(truth.wanted & (truth.area >= area.low) & (truth.area <= area.high), area.low, area.high)

    def near(self, kind: Kind) -> Overlapping:
        """Pairs of one category that can match, or nearly; found on the first call."""
        if kind not in self._near:
            self._near[kind] = find_near(self.truth, self.detections, kind)
        return self._near[kind]

    def pairs(self, kind: Kind) -> Pairs:
        """Those that can match, in the order in which detections prefer them."""
        if kind not in self._pairs:
            self._pairs[kind] = find_pairs(self.near(kind), kind)
        return self._pairs[kind]

    def matches(self, kind: Kind, views: Sequence[View]) -> list[Matches]:
        """One matching per view."""
        return match(self.pairs(kind), self.truth, self.detections, views)


def compare(
    ground_truth: GroundTruthSource, predictions: PredictionsSource, *, protocol: Protocol | None = None
) -> Comparison:
    """Sources are paths or what is in the files; they are not changed.

    Raises ``DataError``, which names the file and the entry.
    """
    source, results = load_both(ground_truth, predictions)
    with_masks = source.has_masks and (results.has_masks or not len(results))
    truth = truth_table(source)
    protocol = (protocol or Protocol()).resolved(truth.most_instances)
    return Comparison(
        source=source,
        results=results,
        truth=truth,
        detections=detection_table(results, truth, limit=protocol.limits[-1]),
        kinds=KINDS if with_masks else ("bbox",),
        protocol=protocol,
    )
