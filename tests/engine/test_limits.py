"""Limits of a detector and crowded data, from training over checkpoints to results: and what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dsctool.config.limits import fit_limits, open_limits
from dsctool.config.loading import load_config
from dsctool.config.schema import Config
from dsctool.engine.limits import LimitCount, crowding_notes
from dsctool.engine.setup import prepare, summary
from dsctool.engine.split_results import run_on_split
from dsctool.errors import ConfigError
from dsctool.interop.checkpoint import Checkpoint, load_checkpoint, load_model, save_checkpoint
from dsctool.models.detector import Detector
from dsctool.structures import Detections, LimitName
from tests.data.crowded import write_crowded
from tests.engine.fakes import tiny_config
from tests.models.tiny import SMALL

FAMILIES = ("cascade_mask_rcnn_tiny", "htc_tiny", "dsc_tiny", "fast_dsc_tiny", "detectors_tiny", "dsc_detectors_tiny")
SETTINGS = (
    *(word for word in SMALL if "max_" not in word),
    "model.num_classes=null",
    "data.workers=0",
    "data.train_resize.short_sides=[64]",
    "data.test_resize.short_sides=[64]",
)
"""As small as detectors of tests are, with the limits that the data give."""


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """110 instances in each training image, 220 in each validation image."""
    return write_crowded(tmp_path_factory.mktemp("crowded") / "data", train=110, val=220)


def fitted(name: str = "htc_tiny", *words: str, instances: int = 0) -> Config:
    return fit_limits(load_config(name, words), instances=instances)


# --- from the data into the checkpoint ---------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_from_the_data_to_what_a_checkpoint_finds(name: str, crowded: Path, tmp_path: Path) -> None:
    setup = prepare(load_config(name, [*SETTINGS, "train.eval_interval=0"]), data=crowded, device=torch.device("cpu"))
    assert open_limits(setup.config) == []
    assert setup.config.postprocess.max_per_image == 165
    assert setup.config.model.rpn.test_max_proposals == 550
    assert summary(setup)["limits"] == (
        "165 results of 550 proposals an image; at most 110 instances in a training image"
    )
    assert setup.model.config == setup.config
    path = tmp_path / "best.pt"
    save_checkpoint(path, Checkpoint(setup.config, setup.categories, setup.model.state_dict()))
    for overrides, count in ((["postprocess.score_threshold=0"], 165), (["postprocess.max_per_image=130"], 130)):
        model = load_model(path, overrides=overrides)
        assert model.postprocess.max_per_image == count
        (image,) = model.detect(torch.randn(1, 3, 64, 64))
        assert len(image) == count
    with pytest.raises(ConfigError, match=r"postprocess\.max_per_image=auto follows the training data.*give a number"):
        load_model(path, overrides=["postprocess.max_per_image=auto"])


def test_crowds_do_not_count(crowded: Path) -> None:
    """There is a crowd region in each image as well."""
    setup = prepare(load_config("htc_tiny", SETTINGS), data=crowded, device=torch.device("cpu"))
    assert [dataset.most_instances for dataset in setup.data.datasets] == [110, 220]


def test_a_run_and_its_continuation_have_the_stored_numbers(
    crowded: Path, tmp_path: Path, run: Callable[..., str]
) -> None:
    output = tmp_path / "run"
    shown = run(output, tiny_config(epochs=1), data=crowded)
    assert "limits           165 results of" in shown
    stored = load_checkpoint(output / "last.pt").config
    assert stored.postprocess.max_per_image == 165
    assert load_config(output / "config.yaml") == stored
    more = write_crowded(tmp_path / "more", train=300, val=20)
    run(output, tiny_config(epochs=2), data=more, resume=True)
    continued = load_checkpoint(output / "last.pt").config
    assert continued.postprocess == stored.postprocess, "300 instances change nothing in a run that goes on"
    assert continued.model == stored.model
    run(output, load_config(output / "config.yaml", ["train.epochs=3"]), data=crowded, resume=True)
    other = load_config(output / "config.yaml", ["postprocess.max_per_image=99"])
    with pytest.raises(ConfigError, match=r"postprocess\.max_per_image: 165 in the run, 99 now"):
        run(output, other, data=crowded, resume=True)


# --- what is said ------------------------------------------------------------------------------------


def found(*reached: LimitName) -> Detections:
    nothing = torch.zeros(0)
    return Detections(nothing.reshape(0, 4), nothing, nothing.long(), None, (9, 9), reached=frozenset(reached))


def counted(*images: Detections) -> LimitCount:
    count = LimitCount()
    for image in images:
        count.add(image)
    return count


def test_all_that_bind_are_said_together() -> None:
    config = fitted("htc_r50_fpn_1x_coco", "model.rpn.test_max_proposals=300")
    count = counted(found("max_per_image", "max_proposals"), found("max_per_image"))
    assert count.notes(config) == (
        "2 of 2 images reached postprocess.max_per_image=100 and 1 of 2 images reached "
        "model.rpn.test_max_proposals=300: instances may be missing. Set all of these, for 400 instances: "
        "postprocess.max_per_image=600 model.rpn.test_max_proposals=2000 model.rpn.test_pre_nms=4000",
    )


def test_the_number_of_instances_is_used_where_it_is_known() -> None:
    (note,) = counted(found("max_per_image")).notes(fitted("htc_r50_fpn_1x_coco"), instances=1000)
    assert note.endswith(
        "for 1000 instances: postprocess.max_per_image=1500 model.rpn.test_max_proposals=5000 "
        "model.rpn.test_pre_nms=10000"
    )


def test_a_model_that_is_sure_of_too_much_needs_no_room() -> None:
    """It found 100 things where no image has more than seven."""
    assert counted(found("max_per_image", "max_proposals")).notes(fitted("htc_r50_fpn_1x_coco"), instances=7) == ()


def test_candidates_of_mask_suppression() -> None:
    config = fitted("htc_r50_fpn_1x_coco", "postprocess.nms=mask")
    (note,) = counted(found(), found("mask_candidates")).notes(config)
    assert note.startswith("1 of 2 images reached postprocess.mask_candidates=300: instances may be missing.")
    assert "postprocess.mask_candidates=1200" in note
    assert "postprocess.max_per_image=600" in note


def test_a_limit_that_leaves_room_for_the_results_is_not_said() -> None:
    config = fitted("htc_r50_fpn_1x_coco")
    assert counted(found("max_proposals", "pre_nms")).notes(config) == ()
    assert counted(found()).notes(config) == ()
    assert counted().notes(config) == ()
    (note,) = counted(found("max_proposals")).notes(fitted("htc_tiny", "model.rpn.test_max_proposals=90"))
    assert note == (
        "1 of 1 images reached model.rpn.test_max_proposals=90: instances may be missing. Set all of these, for "
        "66 instances: model.rpn.test_max_proposals=330 model.rpn.test_pre_nms=660"
    )


def test_before_a_run(crowded: Path) -> None:
    fixed = ["postprocess.max_per_image=100", "model.rpn.test_max_proposals=105"]
    setup = prepare(
        load_config("htc_tiny", [*SETTINGS, *fixed, "optim.warmup_steps=0"]), data=crowded, device=torch.device("cpu")
    )
    folder = crowded / "annotations"
    small, *notes = setup.notes
    assert small.startswith(f"{folder / 'instances_train.json'}: 100 % of 220 instances are smaller than 8 pixels")
    assert tuple(notes) == (
        f"{folder / 'instances_train.json'}: up to 110 instances in an image, more than postprocess.max_per_image=100 "
        "and model.rpn.test_max_proposals=105: some cannot be found. Set all of these, for 110 instances: "
        "postprocess.max_per_image=165 model.rpn.test_max_proposals=550",
        f"{folder / 'instances_val.json'}: up to 220 instances in an image, more than postprocess.max_per_image=100 "
        "and model.rpn.test_max_proposals=105: some cannot be found. Set all of these, for 220 instances: "
        "postprocess.max_per_image=330 model.rpn.test_max_proposals=1100 model.rpn.test_pre_nms=2200 "
        "model.rpn.train_max_proposals=1100 model.rpn.train_pre_nms=2200",
    )
    assert crowding_notes(fitted(instances=220), setup.data.datasets, training=True) == ()


def test_after_an_evaluation(crowded: Path, tmp_path: Path) -> None:
    """Nothing that scores like an instance, or much of it: either way the data say how much there is."""
    overrides = ["postprocess.max_per_image=100", "postprocess.score_threshold=0"]
    setup = prepare(load_config("htc_tiny", [*SETTINGS, *overrides]), data=crowded, device=torch.device("cpu"))
    model = setup.model
    model.categories = setup.categories
    confident(model, objects=-9, classes=-9)
    (note,) = run_on_split(model, crowded).notes
    assert note.startswith(f"{crowded / 'annotations/instances_val.json'}: up to 220 instances in an image, more than")
    confident(model, objects=9, classes=0)
    (note,) = run_on_split(model, crowded).notes
    assert note.startswith("2 of 2 images reached postprocess.max_per_image=100 and 2 of 2 images reached model.rpn.")
    assert "for 220 instances: postprocess.max_per_image=330 model.rpn.test_max_proposals=1100" in note


def confident(model: Detector, *, objects: float, classes: float) -> None:
    """Have objectness and class logits near these numbers, the background's logit at 0."""
    with torch.no_grad():
        model.rpn.objectness.bias.fill_(objects)
        for stage in model.cascade.box_stages:  # type: ignore[union-attr]
            stage.head.classifier.bias[:-1] = classes  # type: ignore[union-attr, index]
            stage.head.classifier.weight.mul_(0.01)  # type: ignore[union-attr, operator]
