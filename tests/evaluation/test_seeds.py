"""Intervals over seeds and images: as wide as chance makes numbers differ."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dsctool.evaluation.seeds import Estimate, mean_of, paired_difference, student, unpaired_difference

SEEDS, IMAGES, DRAWS = 5, 80, 120


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (30, 2.0423), (120, 1.9799), (1e6, 1.96)]
)
def test_student_is_that_of_tables(freedom: float, expected: float) -> None:
    assert student(freedom) == pytest.approx(expected, abs=2e-4)


def runs(
    random: np.random.Generator, scores: np.ndarray, seeds: np.ndarray, draws: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A row whose AP is the mean of the images' ``scores``, moved by its seeds and by noise of every run."""
    each = scores + seeds[:, None] + random.normal(0, 0.02, (len(seeds), len(scores)))
    return each.mean(axis=1), np.stack([each[:, draw].mean(axis=1) for draw in draws], axis=1)


def pair(random: np.random.Generator, *, shared: bool) -> tuple[np.ndarray, ...]:
    """Two rows of no difference: on images they differ by chance, as if the set were drawn from a large one."""
    draws = random.integers(IMAGES, size=(DRAWS, IMAGES))
    scores = random.normal(0.4, 0.2, IMAGES)
    common = random.normal(0, 0.03, SEEDS)
    rows = []
    for _ in range(2):
        seeds = (common if shared else 0) + random.normal(0, 0.01 if shared else 0.03, SEEDS)
        rows.append(runs(random, scores + random.normal(0, 0.05, IMAGES), seeds, draws))
    (own, own_drawn), (base, base_drawn) = rows
    return own, base, own_drawn, base_drawn


@pytest.mark.parametrize("shared", [False, True])
def test_intervals_of_no_difference_cover_zero_as_often_as_they_say(shared: bool) -> None:
    random = np.random.default_rng(3)
    covered = sum(paired_difference(*pair(random, shared=shared)).sign == 0 for _ in range(400))
    assert 0.92 * 400 <= covered <= 0.99 * 400


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("ratio", [0.1, 1, 2, 10])
def test_few_seeds_cover_as_well(seeds: int, ratio: float) -> None:
    """ratio: of the error by seeds to that by images."""
    random, held = np.random.default_rng(5), 0
    for _ in range(400):
        images = random.normal(0, 1, IMAGES)
        own = random.normal(0, ratio * math.sqrt(seeds / IMAGES), seeds)
        draws = images[random.integers(IMAGES, size=(DRAWS, IMAGES))].mean(axis=1)
        held += mean_of(own + images.mean(), own[:, None] + draws).sign == 0
    assert held >= 0.925 * 400


def test_pairs_are_worth_seeds_where_seeds_do_the_same_to_both() -> None:
    random = np.random.default_rng(4)
    rows = pair(random, shared=True)
    paired, unpaired = paired_difference(*rows), unpaired_difference(*rows)
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.by_seeds < 0.6 * unpaired.by_seeds
    assert paired.by_images < unpaired.by_images


def test_the_definition() -> None:
    values, drawn = np.array([0.3, 0.4, 0.35]), np.array([[0.3, 0.32], [0.4, 0.42], [0.35, 0.36]])
    found = mean_of(values, drawn)
    by_seeds, by_images = np.std(values, ddof=1) / math.sqrt(3), np.std(drawn.mean(axis=0), ddof=1)
    reach = math.hypot(student(2) * by_seeds, student(1e6) * by_images)
    assert found == Estimate(
        pytest.approx(0.35), pytest.approx(0.35 - reach), pytest.approx(0.35 + reach),
        pytest.approx(by_seeds), pytest.approx(by_images),
    )  # fmt: skip


def test_one_seed_has_the_interval_of_the_images() -> None:
    found = mean_of(np.array([0.4]), np.array([[0.38, 0.42, 0.4]]))
    assert math.isnan(found.by_seeds)
    assert found.high - found.value == pytest.approx(1.96 * 0.02, rel=1e-3)


def test_without_seeds_and_draws_nobody_can_tell() -> None:
    found = mean_of(np.array([0.4]), np.zeros((1, 0)))
    assert math.isnan(found.low)
    assert found.sign == 0


def test_what_is_nowhere_measured_has_no_interval() -> None:
    nothing = np.full(3, np.nan)
    found = paired_difference(nothing, nothing, np.full((3, 4), np.nan), np.full((3, 4), np.nan))
    assert math.isnan(found.value)
    assert math.isnan(found.low)


def test_equal_runs_differ_by_nothing_for_sure() -> None:
    values, drawn = np.array([0.3, 0.4]), np.array([[0.3, 0.31], [0.4, 0.41]])
    found = paired_difference(values, values, drawn, drawn)
    assert (found.value, found.low, found.high) == (0, 0, 0)
