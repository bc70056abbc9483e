"""Which instances are huddled, and which images count as crowded.

For the instances of an image that are no crowds: one is *huddled at T_O* when its largest overlap with another of them
is greater than T_O; without a neighbour the overlap is 0. The image belongs to the subset (T_O, T_P) when the share of
its instances that are huddled at T_O is greater than T_P. Images without instances belong to none.
"""

from __future__ import annotations

import numpy as np

from dsctool.evaluation.tables import Bools, Floats, Ints, TruthTable


def huddled_per_image(truth: TruthTable, overlaps: Floats, t_o: float) -> Ints:
    """``(images,)``: how many instances are huddled at ``t_o``."""
    return np.bincount(truth.image[overlaps > t_o], minlength=len(truth.images))


def images_of_cell(truth: TruthTable, overlaps: Floats, t_o: float, t_p: float) -> Bools:
    """``(images,)``: which belong to the subset (T_O, T_P)."""
    instances = truth.instances_per_image
    share = huddled_per_image(truth, overlaps, t_o) / np.maximum(instances, 1)
    return np.asarray((instances > 0) & (share > t_p))
