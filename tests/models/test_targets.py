"""Properties of sampling (assignment is checked against recordings in ``tests/parity``)."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from dsctool.models.targets import BACKGROUND, IGNORED, RoiSampling, sample


@given(
    st.lists(st.sampled_from([IGNORED, BACKGROUND, 0, 1]), max_size=40),
    st.integers(1, 30),
    st.floats(0, 1),
)
def test_sampling_keeps_its_bounds_and_order(kinds: list[int], count: int, fraction: float) -> None:
    assigned = torch.tensor(kinds, dtype=torch.int64)
    (found,) = sample([assigned], count=count, positive_fraction=fraction)
    positives, negatives = found.positives, found.negatives
    assert bool((assigned[positives] >= 0).all())
    assert bool((assigned[negatives] == BACKGROUND).all())
    for drawn in (positives, negatives):
        assert drawn.tolist() == sorted(set(drawn.tolist()))
    available_positives, available = int((assigned >= 0).sum()), int((assigned == BACKGROUND).sum())
    assert len(positives) == min(int(count * fraction), available_positives)
    assert len(negatives) == min(count - len(positives), available)


def test_annotated_boxes_join_the_proposals_and_are_marked() -> None:
    gt = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 70.0, 70.0]])
    proposals = torch.tensor([[51.0, 51.0, 70.0, 70.0], [90.0, 90.0, 95.0, 95.0]])
    sampling = RoiSampling(iou_threshold=0.5, low_quality_matches=False, count=8, positive_fraction=0.5)
    (samples,) = sampling([proposals], [gt])
    assert samples.positive_gt.tolist() == [0, 1, 1]
    assert samples.is_gt.tolist() == [True, True, False, False]
    assert samples.labels(torch.tensor([4, 7]), 9).tolist() == [4, 7, 7, 9]
    assert torch.equal(samples.positive_boxes, torch.cat([gt, proposals[:1]]))


def test_the_seed_decides_which_are_drawn() -> None:
    assigned = torch.full((1000,), BACKGROUND)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(sample([assigned], count=10, positive_fraction=0.5)[0].negatives.tolist())
    assert drawn[0] == drawn[1] != drawn[2]
