"""Limits of the detector that follow the data: what ``auto`` stands for, and which limits an image outgrows.

Each of them can leave instances out of the results. ``postprocess.max_per_image`` binds first, with ``nms: mask``
together with ``mask_candidates``, which still hold duplicates. Behind them is ``rpn.test_max_proposals``, and behind
that ``test_pre_nms``: it is per level of the pyramid, where things of one size are all together, several anchors each.
Training has proposals of its own; annotated boxes are always among them, so that there the limits only thin out what is
learnt from. What a loss samples (``samples`` of the RPN and of the cascade) is no limit: every step draws anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from math import ceil
from typing import Final, Literal, TypeVar

from dsctool.config.model_schema import Block, CascadeRcnnConfig, ModelConfig
from dsctool.config.schema import Config

PUBLISHED_SIDE: Final = 800
"""Shorter side of the images that published proposal counts are for, in pixels."""
_B = TypeVar("_B", bound=Block)


@dataclass(frozen=True)
class LimitRule:
    """How large a limit is where it is ``auto``.

    key: dotted. published: the number of the published recipes; ``auto`` never gives less at their image size.
    per_instance: for each instance of the fullest image.
    images: of which the size counts; where they are smaller than published ones, ``published`` shrinks with them, as
        the anchors do. None: it stays.
    """

    key: str
    published: int
    per_instance: float
    images: Literal["train", "test"] | None = None

    def number(self, config: Config, instances: int) -> int:
        """The limit for images of up to ``instances`` instances."""
        sides = {
            None: PUBLISHED_SIDE,
            "train": config.data.train_side,
            "test": max(config.data.test_resize.short_sides),
        }
        side = sides[self.images]
        least = self.published * min(side, PUBLISHED_SIDE) / PUBLISHED_SIDE
        return ceil(max(least, self.per_instance * instances))

    def of(self, config: Config) -> int | str:
        """What ``config`` says: a number, or ``auto``."""
        return reduce(getattr, self.key.split("."), config)  # type: ignore[return-value]


RESULTS = LimitRule("postprocess.max_per_image", 100, 1.5)
MASK_CANDIDATES = LimitRule("postprocess.mask_candidates", 300, 3)
PROPOSALS = LimitRule("model.rpn.test_max_proposals", 1000, 5, "test")
ANCHORS = LimitRule("model.rpn.test_pre_nms", 1000, 10, "test")
TRAINING = (
    LimitRule("model.rpn.train_max_proposals", 2000, 5, "train"),
    LimitRule("model.rpn.train_pre_nms", 2000, 10, "train"),
)
RULES = (RESULTS, MASK_CANDIDATES, PROPOSALS, ANCHORS, *TRAINING)
"""Every key that may be ``auto``."""


def fit_limits(config: Config, *, instances: int = 0) -> Config:
    """``config`` with a number in place of every ``auto``.

    instances: the most that an image of the training split has; 0 where there are no data gives the published numbers.
    """
    return _filled(config, lambda rule: rule.number(config, instances))


def keep_limits(config: Config, stored: Config) -> Config:
    """``config`` with the value of ``stored`` in place of every ``auto``."""
    return _filled(config, lambda rule: rule.of(stored))


def open_limits(config: Config) -> list[str]:
    """The keys that are ``auto``."""
    return [rule.key for rule in RULES if rule.of(config) == "auto"]


def too_small(config: Config, instances: int, *, training: bool = False) -> list[LimitRule]:
    """The limits that are below what ``auto`` would give for images of so many instances; all are numbers.

    training: also those that only training has.
    """
    masks = config.postprocess.nms == "mask"
    rules = (RESULTS, *([MASK_CANDIDATES] if masks else []), PROPOSALS, ANCHORS, *(TRAINING if training else ()))
    return [rule for rule in rules if int(rule.of(config)) < rule.number(config, instances)]


def as_overrides(rules: Sequence[LimitRule], config: Config, instances: int) -> str:
    """What makes these limits fit images of so many instances, as one would type it."""
    return " ".join(f"{rule.key}={rule.number(config, instances)}" for rule in rules)


def published_limits() -> Config:
    """A configuration with the limits of the published ones."""
    return fit_limits(Config(model=ModelConfig(cascade=CascadeRcnnConfig())))


def _filled(config: Config, value: Callable[[LimitRule], int | str]) -> Config:
    for rule in RULES:
        if rule.of(config) == "auto":
            config = _with(config, rule.key.split("."), value(rule))
    return config


def _with(block: _B, keys: Sequence[str], value: int | str) -> _B:
    key, *rest = keys
    return block.model_copy(update={key: _with(getattr(block, key), rest, value) if rest else value})
