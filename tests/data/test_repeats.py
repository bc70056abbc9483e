"""Rare classes and weighted images come more often."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsctool.config.loading import load_config, override_config
from dsctool.data.repeats import read_weights, repeats_by_class
from dsctool.engine.sets import open_data
from dsctool.errors import ConfigError, DataError
from tests.data.test_augmented_sets import configured, loader


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=30), st.floats(0.01, 1))
def test_repeat_factors_by_their_definition(shown: list[tuple[int, int]], threshold: float) -> None:
    """r(I) = max over the classes c of I of max(1, sqrt(t / f(c)))."""
    images, labels = (np.array([pair[axis] for pair in shown], dtype=np.int64) for axis in (0, 1))
    found = repeats_by_class(images, labels, count=6, threshold=threshold)
    for image in range(6):
        classes = {label for other, label in shown if other == image}
        shares = [len({other for other, label in shown if label == each}) / 6 for each in classes]
        assert found[image] == pytest.approx(max([1, *(math.sqrt(threshold / share) for share in shares)]))


def classes_by_image(root: Path) -> dict[str, set[int]]:
    content = json.loads((root / "annotations" / "instances_train.json").read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    found: dict[str, set[int]] = {name: set() for name in names.values()}
    for each in content["annotations"]:
        found[names[each["image_id"]]].add(each["category_id"])
    return found


def test_a_run_sees_rare_classes_more_often(synthetic_root: Path) -> None:
    config = configured("data.repeat_factor=1.0", "data.group_by_aspect=true")
    dataset = open_data(config, synthetic_root).train_set
    classes = classes_by_image(synthetic_root)
    images = Counter(each for shown in classes.values() for each in shown)
    for index, repeats in enumerate(dataset.repeats):  # type: ignore[arg-type]
        shown = classes[dataset.image_info(index).file_name]
        assert repeats == pytest.approx(max(math.sqrt(8 / images[each]) for each in shown))
    batches = loader(dataset, config)
    epochs = [[info.image_id for (batch,) in batches.epoch(number) for info in batch[2]] for number in range(3)]
    assert {len(epoch) for epoch in epochs} == {len(epochs[0])}
    assert len(epochs[0]) > 8
    assert all(set(epoch) == set(range(1, 9)) for epoch in epochs)


def test_weights_of_a_file_multiply(tmp_path: Path, synthetic_root: Path) -> None:
    names = sorted(classes_by_image(synthetic_root))
    (tmp_path / "weights.json").write_text(json.dumps({names[0]: 0, names[1]: 2.5}))
    for each in ("annotations", "train"):
        (tmp_path / each).symlink_to(synthetic_root / each)
    plain = configured("data.train.weights=weights.json")
    both = configured("data.train.weights=weights.json", "data.repeat_factor=1.0")
    only = open_data(configured("data.repeat_factor=1.0"), tmp_path).train_set.repeats
    repeats = open_data(plain, tmp_path).train_set.repeats
    assert repeats is not None
    assert repeats.tolist() == [0, 2.5, 1, 1, 1, 1, 1, 1]
    assert np.allclose(open_data(both, tmp_path).train_set.repeats, repeats * only)  # type: ignore[arg-type, operator]
    (tmp_path / "weights.json").write_text(json.dumps(dict.fromkeys(names, 0)))
    with pytest.raises(DataError, match=r"weights\.json: its weights leave no image"):
        loader(open_data(plain, tmp_path).train_set, plain)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], r"w\.json: must be an object .* as in {\"a\.png\": 2}"),
        ({"a.png": -1}, r"the weight of a\.png is -1"),
        ({"a.png": True}, r"the weight of a\.png is True"),
        ({"a.png": "2"}, r"the weight of a\.png is '2'"),
        ({"a.png": math.inf}, r"the weight of a\.png is inf"),
        ({"c.png": 1, "b.png": 1}, r"no such image in the annotations: c\.png$"),
        (dict.fromkeys("vwxyz", 1), r"annotations: v, w, x and 2 more"),
        (None, r"w\.json: must be an object"),
    ],
)
def test_faulty_weights(tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "w.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=said):
        read_weights(path, ["a.png", "b.png"])


def test_weights_that_are_not_there(tmp_path: Path, synthetic_root: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: no such file"):
        open_data(configured("data.train.weights=none.json"), synthetic_root)
    with pytest.raises(ConfigError, match=r"val\.weights has no use"):
        override_config(load_config("htc_tiny"), ["data.val.weights=w.json"])
