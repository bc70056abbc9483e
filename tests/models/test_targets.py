"""Properties of sampling (assignment is checked against recordings in ``tests/parity``)."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from dsctool.models.targets import BACKGROUND, IGNORED, RoiSampling, assign, positive_rows, sample


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


@given(st.integers(0, 10_000))
def test_boxes_that_do_not_take_part_are_as_if_they_were_not_there(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 8, (14, 2), generator=generator).float()
    boxes = torch.cat([corners, corners + torch.randint(1, 6, (14, 2), generator=generator)], dim=1)
    boxes, gts = boxes[:12], boxes[12 : 12 + seed % 3]
    among = torch.rand(12, generator=generator) < 0.6
    limits = {"positive_iou": 0.7, "negative_iou": 0.3, "min_positive_iou": 0.3, "low_quality_matches": True}
    assigned = assign(boxes, gts, among=among, **limits)  # type: ignore[arg-type]
    assert torch.equal(assigned[among], assign(boxes[among], gts, **limits))  # type: ignore[arg-type]
    assert assigned[~among].eq(IGNORED).all()


def test_images_are_sampled_one_after_the_other() -> None:
    """All at once gives what each gives by itself, in their order: draws and rows."""
    assigned = [torch.randint(-2, 3, (60,), generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    torch.manual_seed(5)
    together = sample(assigned, count=12, positive_fraction=0.25)
    torch.manual_seed(5)
    for found, each in zip(together, assigned, strict=True):
        (alone,) = sample([each], count=12, positive_fraction=0.25)
        assert torch.equal(found.positives, alone.positives)
        assert torch.equal(found.negatives, alone.negatives)
        assert torch.equal(torch.nonzero(each >= 0).flatten()[found.positive_ranks], found.positives)


def test_rows_of_a_batch() -> None:
    sampling = RoiSampling(iou_threshold=0.5, low_quality_matches=False, count=3, positive_fraction=1.0)
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 70.0, 70.0], [0.0, 0.0, 10.0, 9.0]])
    samples = sampling([boxes, boxes[1:]], [boxes[:1], boxes[:1]])
    assert [s.num_gt for s in samples] == [1, 1]
    labels = torch.cat([s.labels(torch.tensor([4]), 9) for s in samples])
    assert torch.equal(positive_rows(samples), torch.nonzero(labels == 4).flatten())
    again = sampling.reassign(samples, [s.boxes.flip(0) for s in samples], [boxes[:1], boxes[:1]])
    assert torch.equal(positive_rows(again), torch.nonzero(torch.cat([s.assigned for s in again]) >= 0).flatten())
