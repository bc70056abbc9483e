"""Weights of images count like copies of them."""

from __future__ import annotations

import numpy as np
import pytest

from dsctool.evaluation import precision
from dsctool.evaluation.comparison import compare
from dsctool.evaluation.huddle.matched import image_precision, ranking_of
from dsctool.evaluation.matching import View
from dsctool.evaluation.precision import Curves, mean_precision
from dsctool.terms import Kind
from tests.evaluation.crowded import Json, crowded_truth, noisy_results, pycocotools_numbers


def copied(truth: Json, results: list[Json], copies: dict[int, int]) -> tuple[Json, list[Json]]:
    """The set with every image as often as ``copies`` says, under new ids in the order of the old ones."""
    images, annotations, found = [], [], []
    for image in sorted(truth["images"], key=lambda each: each["id"]):
        for _ in range(copies[image["id"]]):
            images.append(image | {"id": len(images) + 1})
            for entry in truth["annotations"]:
                if entry["image_id"] == image["id"]:
                    annotations.append(entry | {"id": len(annotations) + 1, "image_id": len(images)})
            found += [entry | {"image_id": len(images)} for entry in results if entry["image_id"] == image["id"]]
    return truth | {"images": images, "annotations": annotations}, found


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_weights_are_copies(kind: Kind) -> None:
    """Without ties: with them, the order among copies would matter a little."""
    source = crowded_truth(seed=31)
    results = noisy_results(source, seed=32, ties=False)
    compared = compare(source, results)
    table = compared.truth
    curves = Curves(ranking_of(compared, [compared.everything]))
    weights = np.random.default_rng(33).integers(0, 4, size=(5, len(table.images)))
    values = curves.average_precision(weights)[:, compared.kinds.index(kind)]
    for row, value in zip(weights, mean_precision(values), strict=True):
        more, found = copied(source, results, dict(zip(table.images, row.tolist(), strict=True)))
        ids = [image["id"] for image in more["images"]]
        assert value == pytest.approx(pycocotools_numbers(more, found, kind, ids)[0], abs=1e-12)


def test_images_by_themselves() -> None:
    source = crowded_truth(seed=34)
    results = noisy_results(source, seed=35)
    compared = compare(source, results)
    own = image_precision(compared, "segm")
    for image, value in zip(compared.truth.images, own, strict=True):
        expected = pycocotools_numbers(source, results, "segm", [image])[0]
        assert (np.isnan(value) and expected == -1) or value == pytest.approx(expected, abs=1e-12)
    assert np.nanmax(own) > 0


@pytest.mark.parametrize("at_once", [1, 1 << 10, 1 << 20])
@pytest.mark.parametrize("samples", [1, 3, 8])
def test_numbers_do_not_depend_on_how_much_is_done_at_once(
    monkeypatch: pytest.MonkeyPatch, at_once: int, samples: int
) -> None:
    """Also with several views, ignored detections, categories of very different sizes, and none."""
    source = crowded_truth(seed=36)
    source["categories"] += [{"id": 1000 + number, "name": f"none {number}"} for number in range(3)]
    compared = compare(source, noisy_results(source, seed=37))
    random = np.random.default_rng(38)
    wanted = compared.truth.wanted
    views = [compared.everything, *(View(wanted & (random.random(len(wanted)) < share)) for share in (0.1, 0.5, 0.0))]
    weights = random.integers(0, 3, size=(11, len(compared.truth.images)))
    ranking = ranking_of(compared, views)
    expected = Curves(ranking).average_precision(weights)
    monkeypatch.setattr(precision, "_AT_ONCE", at_once)
    monkeypatch.setattr(precision, "_SAMPLES", samples)
    assert Curves(ranking).average_precision(weights) == pytest.approx(expected, abs=1e-15)
    first = Curves(ranking, levels=2).average_precision(weights)
    assert first == pytest.approx(expected[:, :, :2], abs=1e-15)
    assert (expected[..., -3:] == -1).all()
    assert expected[:, -1].max() == -1
