"""What a checkpoint and its exported file find, compared."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from dsctool.engine.export_check import Differences, Limits, drawn_pictures, partners_of
from dsctool.structures import Detections


def found(rows: list[tuple[float, float, int]], *, shift: float = 0.0, prob: float = 0.9) -> Detections:
    """Boxes of 20 x 20 pixels at x, with scores and labels."""
    boxes = torch.tensor([[x + shift, 5.0, x + 20 + shift, 25.0] for x, _, _ in rows]).reshape(-1, 4)
    return Detections(
        boxes,
        torch.tensor([score for _, score, _ in rows]),
        torch.tensor([label for _, _, label in rows], dtype=torch.int64),
        torch.full((len(rows), 28, 28), prob),
        (40, 100),
    )


def test_partners_have_the_class_and_nearly_the_box_and_the_score() -> None:
    ours = found([(0, 0.9, 0), (30, 0.8, 1), (60, 0.7, 0), (5, 0.6, 0)])
    theirs = found([(30, 0.8, 1), (0, 0.9, 0), (60, 0.7, 1), (5, 0.65, 0)])  # in another order; of another class; score
    rows, partners = partners_of(ours, theirs)
    assert (rows.tolist(), partners.tolist()) == ([0, 1], [1, 0])
    for nothing in (found([]), ours):
        rows, partners = partners_of(nothing, found([]))
        assert len(rows) == len(partners) == 0


def test_no_detection_is_the_partner_of_two() -> None:
    twice = found([(0, 0.9, 0), (0, 0.9, 0)])
    rows, partners = partners_of(twice, found([(0, 0.9, 0)]))
    assert (rows.tolist(), partners.tolist()) == ([0], [0])


def test_differences_add_up_over_pictures() -> None:
    both = Differences()
    both.add("a", found([(0, 0.9, 0), (50, 0.5, 1)]), found([(0, 0.9, 0), (50, 0.501, 1)], shift=0.25, prob=0.8))
    both.add("b", found([(10, 0.9, 0)]), found([]))
    assert (both.pictures, both.found, both.alone, both.names) == (2, 3, 1, ["a", "b"])
    assert both.box == 0.25
    assert both.score == pytest.approx(0.001, abs=1e-6)
    assert both.mask == pytest.approx(0.1, abs=1e-6)
    assert both.pixels == 0.0  # a quarter of a pixel moves no pixel's centre across the border


def test_pixels_are_counted_on_masks() -> None:
    both = Differences()
    both.add("a", found([(0, 0.9, 0)]), found([(0, 0.9, 0)], shift=1.0))
    assert both.pixels == pytest.approx(2 * 20 / 400)  # a column on either side


def test_what_is_beyond_the_limits_is_named() -> None:
    both = Differences()
    both.add("a", found([(0, 0.9, 0), (50, 0.5, 1)]), found([(0, 0.9, 0)], shift=0.5, prob=0.2))
    words = both.beyond(Limits())
    named = ["boxes", "mask probabilities", "pixels of masks", "detections without a partner"]
    assert [word.split(":")[0] for word in words] == named
    assert words[0] == "boxes: 0.5 px, of which 0.1 may be"
    assert Differences().beyond(Limits()) == []
    broken = Differences()
    broken.box = float("nan")
    assert broken.beyond(Limits())


def test_drawn_pictures_are_always_the_same() -> None:
    first, again = (list(islice(drawn_pictures(4), 2)) for _ in range(2))
    for (name, picture), (same, other) in zip(first, again, strict=True):
        assert name == same
        assert picture.shape[0] == 4
        assert picture.dtype == torch.uint8
        assert torch.equal(picture, other)
        assert torch.equal(picture[0], picture[3])
