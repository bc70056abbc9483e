"""Weights of images count like copies of them."""

from __future__ import annotations

import numpy as np
import pytest

from dsctool.evaluation.comparison import compare
from dsctool.evaluation.huddle.matched import image_precision, ranking_of
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
