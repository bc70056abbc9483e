"""Scenes: what is drawn is what is said to be visible."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dsctool.data.synthetic import layout
from dsctool.data.synthetic.figures import CLASSES, Figure, draw_figure
from dsctool.data.synthetic.layout import SIZES, Placed, arrange
from dsctool.data.synthetic.scenes import MIN_VISIBLE_PX, draw_scene
from dsctool.data.synthetic.shapes import Frame, blob, joined, tube


def _figure(side: int, red: float) -> Figure:
    picture = np.zeros((3, side, side), np.float32)
    picture[0] = red
    return Figure(0, np.ones((side, side), np.float32), picture)


def test_the_owner_of_a_pixel_is_what_was_painted_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three squares, each over the one before; the last hides the second."""
    below, hidden, above = (
        Placed(_figure(side, red), 20, left) for side, red, left in ((40, 1.0, 10), (20, 0.0, 40), (30, 0.5, 36))
    )
    monkeypatch.setattr(
        "dsctool.data.synthetic.scenes.arrange", lambda rng, size, huddle, labels, sizes: [below, hidden, above]
    )
    monkeypatch.setattr("dsctool.data.synthetic.scenes._weeds", lambda rng, size, count: [])
    scene = draw_scene(np.random.default_rng(0), (96, 96), 0.5)
    assert scene.labels == [0, 0], "what nothing is seen of is no object"
    assert (scene.owner == 0).sum() == 40 * 40 - 30 * 14
    assert (scene.owner[20:50, 36:66] == 1).all()
    red, green, _ = np.asarray(scene.image).astype(int).transpose(2, 0, 1)
    assert (red - green)[30:50, 40:60].max() < (red - green)[30:50, 15:30].min()


def test_what_is_lower_in_the_picture_is_in_front_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [(40.0, CLASSES.index("shell"), 4), (12.0, CLASSES.index("fish"), 5)]
    monkeypatch.setattr(layout, "_groups", lambda rng, size, labels, sizes: groups)
    placed = arrange(np.random.default_rng(5), (256, 256), 1.0, range(len(CLASSES)), SIZES)
    assert [each.figure.label for each in placed] == [4] * 4 + [2] * 5, "large ones lie below"
    for group in (placed[:4], placed[4:]):
        bottoms = [each.top + each.figure.coverage.shape[0] for each in group]
        assert bottoms == sorted(bottoms)


@pytest.mark.parametrize("label", range(len(CLASSES)), ids=CLASSES)
def test_a_class_has_the_size_asked_for_and_looks_different_every_time(label: int) -> None:
    rng = np.random.default_rng(label)
    figures = [draw_figure(rng, label, 60.0, angle) for angle in np.linspace(0, 6, 12)]
    sides = [math.sqrt(figure.coverage.size) for figure in figures]
    assert 45 < np.mean(sides) < 75
    assert len({figure.coverage.shape for figure in figures}) > 6
    for figure in figures:
        assert figure.picture.shape == (3, *figure.coverage.shape)
        assert figure.picture.dtype == figure.coverage.dtype == np.float32, "twice the bytes take twice the time"
        assert 0 <= figure.picture.min() < figure.picture.max() <= 1
        edges = (figure.coverage[0], figure.coverage[-1], figure.coverage[:, 0], figure.coverage[:, -1])
        assert all(edge.max() > 0 for edge in edges), "the window fits"
        assert (figure.coverage >= 0.5).sum() > MIN_VISIBLE_PX


def test_classes_differ_in_shape() -> None:
    """Pebbles fill their box, starfish and crabs are concave, eels are long and thin."""
    rng = np.random.default_rng(0)
    fill = {
        name: np.mean(
            [(figure.coverage >= 0.5).mean() for figure in (draw_figure(rng, label, 60, 0.0) for _ in range(9))]
        )
        for label, name in enumerate(CLASSES)
    }
    assert fill["pebble"] > 0.7
    assert max(fill["starfish"], fill["crab"]) < 0.5
    eel = draw_figure(rng, CLASSES.index("eel"), 60, 0.0).coverage
    assert eel.shape[1] > 2 * eel.shape[0]


def test_distances_of_solids() -> None:
    frame = Frame.turned(reach=(2, 2), scale=10.0, angle=0.7)
    disc = blob(frame, (1.0, 1.0), [], 0.5)
    rod = tube(frame, [(-1.0, 0.0), (1.0, 0.0)], [0.3, 0.3])
    both = joined([disc, rod])
    assert (disc.distance < 0).sum() == pytest.approx(math.pi * 100, rel=0.04)
    assert (rod.distance < 0).sum() == pytest.approx((2 * 0.6 + math.pi * 0.09) * 100, rel=0.03)
    np.testing.assert_array_equal(both.distance < 0, (disc.distance < 0) | (rod.distance < 0))
    middle = tuple(side // 2 for side in frame.x.shape)
    assert rod.height[middle] == pytest.approx(0.3)
    assert rod.along[middle] == pytest.approx(0.5)


@pytest.mark.parametrize("size", [(64, 64), (64, 300), (400, 90)])
def test_any_size_can_be_drawn(size: tuple[int, int]) -> None:
    for huddle in (0.0, 1.0):
        scene = draw_scene(np.random.default_rng(1), size, huddle)
        assert scene.image.size == (size[1], size[0])
        assert scene.labels
        assert set(np.unique(scene.owner)) == set(range(-1, len(scene.labels)))
