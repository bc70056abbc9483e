"""What is said where limits of a detector leave out instances: before a run by the data, then by what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dsctool.config.limits import (
    ANCHORS,
    MASK_CANDIDATES,
    PROPOSALS,
    RESULTS,
    LimitRule,
    as_overrides,
    published_limits,
    too_small,
)
from dsctool.config.schema import Config
from dsctool.structures import Detections, LimitName

if TYPE_CHECKING:
    from dsctool.data.coco import CocoDataset

GROWTH: Final = 4
"""Where results reach their limit and nobody knows the number of instances, so many times the limit are assumed."""
_RULES: dict[LimitName, LimitRule] = {
    "max_per_image": RESULTS,
    "mask_candidates": MASK_CANDIDATES,
    "max_proposals": PROPOSALS,
    "pre_nms": ANCHORS,
}


@dataclass
class LimitCount:
    """Counts the images that reach limits. images: seen so far. reached: of them, those that reached each limit."""

    images: int = 0
    reached: Counter[LimitName] = field(default_factory=Counter)

    def add(self, found: Detections) -> None:
        """Count an image's detections."""
        self.images += 1
        self.reached.update(found.reached)

    @classmethod
    def total(cls, counts: Sequence[LimitCount]) -> LimitCount:
        """Several counts of different images as one."""
        return cls(sum(each.images for each in counts), sum((each.reached for each in counts), Counter()))

    def notes(self, config: Config, *, instances: int = 0) -> tuple[str, ...]:
        """At most one sentence: how many images reached which limits, and what to set, all at once.

        config: of the detector, with numbers for limits. instances: the most in an image; 0 where nobody knows.
        """
        results, full = int(RESULTS.of(config)), bool(self.reached["max_per_image"] or self.reached["mask_candidates"])
        most = instances or (GROWTH * results if full else int(results / RESULTS.per_instance))
        small = too_small(config, most)
        # Proposals are many: where results still have room, those that were left out matter only if they are few.
        binding = [rule for rule in small if full or int(rule.of(config)) < max(results, instances)]
        counts = [(rule, self.reached[name]) for name, rule in _RULES.items() if self.reached[name] and rule in binding]
        if not counts:
            return ()
        shown = [f"{count} of {self.images} images reached {_setting(rule, config)}" for rule, count in counts]
        return (f"{_listed(shown)}: instances may be missing. {_advice(small, config, most)}",)


def crowding_notes(config: Config, datasets: Sequence[CocoDataset], *, training: bool) -> tuple[str, ...]:
    """A sentence for each data set with an image that has more instances than the limits of ``config``, all numbers."""
    counts = [(dataset.files.annotations, dataset.most_instances) for dataset in datasets]
    return tuple(
        f"{file}: up to {instances} instances in an image, more than {_listed(below)}: some cannot be found. "
        f"{_advice(too_small(config, instances, training=training), config, instances)}"
        for file, instances in counts
        if (below := _outgrown(config, instances))
    )


def published_notes(file: Path, instances: int) -> tuple[str, ...]:
    """The same for data alone: where an image has more instances than the limits of published configurations."""
    config = published_limits()
    below = _outgrown(config, instances)
    if not below:
        return ()
    settings = as_overrides(too_small(config, instances, training=True), config, instances)
    return (
        f"{file}: up to {instances} instances in an image, more than the published {_listed(below)}. "
        f"With a published configuration add _base_/crowded.yaml, or set all of these: {settings}",
    )


def _outgrown(config: Config, instances: int) -> list[str]:
    """The limits that are smaller than this number."""
    return [_setting(rule, config) for rule in too_small(config, instances) if int(rule.of(config)) < instances]


def _setting(rule: LimitRule, config: Config) -> str:
    return f"{rule.key}={rule.of(config)}"


def _advice(rules: Sequence[LimitRule], config: Config, instances: int) -> str:
    together = "Set all of these" if len(rules) > 1 else "Set"
    return f"{together}, for {instances} instances: {as_overrides(rules, config, instances)}"


def _listed(parts: Sequence[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
