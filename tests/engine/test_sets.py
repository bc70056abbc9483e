"""Opening the data of a run."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from dsctool.config.loading import load_config
from dsctool.data.samplers import SampleKey
from dsctool.engine.preflight import check_classes
from dsctool.engine.sets import check_sets, open_data, open_sets
from dsctool.errors import ConfigError, DataError
from dsctool.evaluation.coco import evaluate_all
from dsctool.structures import Targets
from tests.data.pieces import pieces, write_pieces
from tests.data.readings import counting_openings
from tests.engine.fakes import tiny_config


def test_no_semantic_maps_for_a_model_without_the_branch(synthetic_root: Path) -> None:
    """Not even the folder of stuff maps is asked for."""
    for semantic in ("instances", "stuffthingmaps"):
        config = load_config("cascade_mask_rcnn_tiny", [f"data.semantic={semantic}", "data.workers=0"])
        assert open_data(config, synthetic_root).train_set[0].targets.semantic is None


def test_semantic_maps_for_a_model_with_the_branch(synthetic_root: Path) -> None:
    config = load_config("htc_tiny", ["data.workers=0"])
    semantic = open_data(config, synthetic_root).train_set[0].targets.semantic
    assert semantic is not None
    assert semantic.max() == 6  # the background, after six classes


def test_too_few_channels_for_maps_of_the_instances(synthetic_root: Path) -> None:
    config = load_config("htc_tiny", ["model.cascade.semantic.num_classes=6", "data.workers=0"])
    with pytest.raises(ConfigError, match=r"semantic\.num_classes is 6 \(my\.yaml:3\), but .*6 classes and background"):
        check_classes(config, open_data(config, synthetic_root), {"model.cascade.semantic.num_classes": "my.yaml:3"})
    config = load_config("htc_tiny", ["model.cascade.semantic.num_classes=7", "data.workers=0"])
    check_classes(config, open_data(config, synthetic_root), {})


def test_maps_that_name_classes_the_branch_has_not_are_refused(tmp_path: Path, synthetic_root: Path) -> None:
    """Before training: the loss could only crash on them."""
    root = tmp_path / "data"
    shutil.copytree(synthetic_root, root)
    for path in (root / "train").iterdir():
        size = Image.open(path).size
        Image.new("L", size, 200).save(root / "stuffthingmaps" / "train" / f"{path.stem}.png")
    words = ["data.semantic=stuffthingmaps", "data.workers=0", "train.eval_interval=0"]
    with pytest.raises(DataError, match=r"image 1: .*000001\.png: holds the value 200; classes go from 0 to 182"):
        open_data(load_config("htc_tiny", words), root)
    enough = load_config("htc_tiny", [*words, "model.cascade.semantic.num_classes=201"])
    semantic = open_data(enough, root).train_set[0].targets.semantic
    assert semantic is not None
    assert (semantic == 200).all()


def test_a_run_with_several_evaluations_reads_every_annotation_file_once(
    run: Callable[..., str], tmp_path: Path
) -> None:
    with counting_openings() as openings:
        run(tmp_path / "run", tiny_config(epochs=3))
    assert openings["instances_train.json"] == openings["instances_val.json"] == 1


def _same(left: Targets, right: Targets) -> bool:
    return all(
        torch.equal(getattr(left, name), getattr(right, name)) for name in ("boxes", "labels", "masks", "semantic")
    )


def test_who_did_not_check_opens_the_same_sets(synthetic_root: Path, tmp_path: Path) -> None:
    """What the check found travels, small, to processes that read the files by themselves."""
    root = tmp_path / "data"
    shutil.copytree(synthetic_root, root)
    for name in ("instances_train.json", "instances_val.json"):
        content = json.loads((root / "annotations" / name).read_text())
        content["annotations"][0]["bbox"] = [1, 2]
        content["images"][1]["file_name"] = "nowhere.png"
        (root / "annotations" / name).write_text(json.dumps(content))
    words = ["data.workers=0", "data.on_error=skip", "data.keep_empty=false", "data.flip=0"]
    config = load_config("htc_tiny", words)
    checked = check_sets(config, root)
    sent = pickle.dumps(checked.without_readings())
    with counting_openings() as openings:
        theirs = open_sets(config, pickle.loads(sent))
    assert len(sent) < 10_000
    assert openings["instances_train.json"] == openings["instances_val.json"] == 1
    with counting_openings() as openings:
        own = open_sets(config, checked)
    assert not openings
    assert own.notes == theirs.notes
    assert len(own.train_set) == len(theirs.train_set) == 7
    assert own.train_set.num_instances == theirs.train_set.num_instances
    key = SampleKey(3, 5)
    assert _same(own.train_set[key].targets, theirs.train_set[key].targets)
    assert own.val is not None
    assert theirs.val is not None
    assert pickle.dumps(own.val.ground_truth.annotations) == pickle.dumps(theirs.val.ground_truth.annotations)


def test_ground_truth_is_as_good_after_an_evaluation_as_before(synthetic_root: Path) -> None:
    """It serves every evaluation of a run; its masks are encoded when it is opened."""
    data = open_data(load_config("htc_tiny", ["data.workers=0"]), synthetic_root).val
    assert data is not None
    truth = data.ground_truth
    rows = truth.annotations
    results = [
        {
            "image_id": truth.images[rows.image[row]].id,
            "category_id": truth.categories[rows.label[row]].id,
            "score": 0.5,
            "segmentation": truth.masks[row],
        }
        for row in range(len(rows))
    ]
    first = evaluate_all(truth, results)
    assert first == evaluate_all(truth, results) == evaluate_all(data.dataset.files.annotations, results)
    assert first.stats["segm"] is not None
    assert first.stats["segm"]["AP"] > 0.9


def test_instances_are_counted_as_they_are_used(synthetic_root: Path) -> None:
    train_set = open_data(
        load_config("htc_tiny", ["data.workers=0", "train.eval_interval=0"]), synthetic_root
    ).train_set
    annotations = [each for index in range(len(train_set)) for each in train_set.annotations(index)]
    assert train_set.num_instances == sum(not each.crowd for each in annotations) > 0


@pytest.mark.parametrize("name", ["htc_tiny", "detectors_tiny", "dsc_tiny", "cascade_mask_rcnn_tiny"])
def test_what_is_lived_with_is_said_and_classes_go_by_name(tmp_path: Path, name: str) -> None:
    """Losses on a validation split with other ids, and fewer classes, are of the model's labels."""
    train = pieces()
    train["categories"].insert(0, {"id": 0, "name": "dust"})
    train["annotations"][0]["segmentation"].append([5, 5, 9, 9])
    write_pieces(tmp_path, train)
    val = pieces()
    val["categories"] = [{"id": 1, "name": "debris"}, {"id": 2, "name": "cell"}]
    files = write_pieces(tmp_path, val, "val")
    data = open_data(load_config(name, ["train.val_losses=true", "data.workers=0"]), tmp_path)
    assert data.val is not None
    assert data.val.annotated is not None
    names = [category.name for category in data.train_set.categories]
    assert names == ["dust", "cell", "debris"]
    assert [names[label] for label in data.val.annotated[0].targets.labels] == ["debris", "cell", "debris", "cell"]
    notes = "\n".join(data.notes)
    assert "annotation 1: 1 of 2 polygons has fewer than 3 points: dropped" in notes
    assert f"{files.annotations}: has no categories dust: nothing of them is measured" in notes
    check_classes(load_config(name), data, {})
