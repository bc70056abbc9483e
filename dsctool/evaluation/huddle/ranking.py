"""Which images are the most crowded ones."""

from __future__ import annotations

import numpy as np

from dsctool.evaluation.huddle.subsets import huddled_per_image
from dsctool.evaluation.overlaps import largest_overlaps
from dsctool.evaluation.sources import GroundTruthSource, load_ground_truth
from dsctool.evaluation.tables import truth_table


def most_huddled(ground_truth: GroundTruthSource, *, count: int, t_o: float = 0.2) -> list[str]:
    """File names of the ``count`` images with the most instances whose box overlaps another's by more than ``t_o``."""
    truth = load_ground_truth(ground_truth)
    table = truth_table(truth)
    huddled = huddled_per_image(table, largest_overlaps(table, "box", same_class=False), t_o)
    ranked = np.argsort(-huddled, kind="stable")[:count]
    return [truth.images[row].file_name for row in ranked.tolist()]
