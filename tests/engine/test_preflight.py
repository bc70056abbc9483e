"""What a run refuses, before anything is written, and what it says about what it takes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dsctool.config.schema import Config
from dsctool.engine.preflight import try_detection
from dsctool.engine.sets import open_data
from dsctool.errors import CheckpointError, ConfigError, DataError, OutOfMemoryError
from dsctool.interop.checkpoint import load_checkpoint
from tests.engine.fakes import FakeDetector, tiny_config


def test_an_existing_folder_is_refused(tmp_path: Path, run: Callable[..., str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"exists already.*--resume"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_used(tmp_path: Path, run: Callable[..., str]) -> None:
    run(tmp_path, tiny_config(epochs=1))
    assert (tmp_path / "best.pt").exists()


def test_nothing_to_resume(tmp_path: Path, run: Callable[..., str]) -> None:
    with pytest.raises(CheckpointError, match=r"last\.pt.*nothing to resume"):
        run(tmp_path / "absent", resume=True)
    assert not (tmp_path / "absent").exists()


def test_resuming_another_experiment_is_refused(tmp_path: Path, run: Callable[..., str]) -> None:
    run(tmp_path / "run", tiny_config(epochs=1))
    with pytest.raises(ConfigError, match=r"train\.seed: 0 in the run, 3 now"):
        run(tmp_path / "run", tiny_config(epochs=1, seed=3), resume=True)


def test_a_conflict_of_classes_names_both_sources(tmp_path: Path, run: Callable[..., str]) -> None:
    values = tiny_config().model_dump()
    values["model"]["num_classes"] = 80
    with pytest.raises(ConfigError) as caught:
        run(tmp_path / "run", Config.model_validate(values), provenance={"model.num_classes": "my.yaml:7"})
    message = str(caught.value)
    assert "model.num_classes is 80 (my.yaml:7)" in message
    assert "instances_train.json has 6 categories" in message
    assert not (tmp_path / "run").exists()


def test_frozen_layers_need_weights(tmp_path: Path, run: Callable[..., str]) -> None:
    values = tiny_config().model_dump()
    values["model"]["backbone"]["frozen_stages"] = 1
    with pytest.raises(ConfigError) as caught:
        run(tmp_path / "run", Config.model_validate(values))
    for key in ("model.backbone.weights", "train.weights", "model.backbone.frozen_stages"):
        assert key in str(caught.value)
    assert not (tmp_path / "run").exists()


def with_values(config: Config, block: str, **values: object) -> Config:
    return config.model_copy(update={block: getattr(config, block).model_copy(update=values)})


def test_starting_from_the_weights_of_another_run(tmp_path: Path, run: Callable[..., str]) -> None:
    run(tmp_path / "first", tiny_config(epochs=1))
    source = tmp_path / "first" / "last.pt"
    config = tiny_config(epochs=1, weights=str(source))
    shown = run(tmp_path / "second", with_values(config, "optim", lr=1e-9, weight_decay=0.0))
    assert f"train.weights={source}: 9 loaded, 0 missing, 0 unexpected, 0 reshaped" in shown
    first, second = (load_checkpoint(tmp_path / name / "last.pt").model["head.weight"] for name in ("first", "second"))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)


def test_weights_that_fit_partly_are_refused_unless_told(tmp_path: Path, run: Callable[..., str]) -> None:
    source = tmp_path / "other.pt"
    torch.save({"conv.weight": torch.zeros(4, 3, 3, 3), "backbone.x": torch.zeros(1)}, source)
    with pytest.raises(CheckpointError, match=r"conv\.bias(.|\n)*1 loaded, 7 missing, 1 unexpected, 0 reshaped"):
        run(tmp_path / "run", tiny_config(weights=str(source)))
    assert not (tmp_path / "run").exists()
    shown = run(tmp_path / "run", tiny_config(epochs=1, weights=str(source), partial_weights=True))
    assert "unexpected: backbone.x" in shown


@pytest.fixture
def faulty_root(tmp_path: Path, synthetic_root: Path) -> Path:
    """A training image is cut short, and an annotation belongs to no image."""
    root = tmp_path / "faulty"
    (root / "annotations").mkdir(parents=True)
    (root / "train").mkdir()
    for path in (synthetic_root / "train").iterdir():
        (root / "train" / path.name).write_bytes(path.read_bytes())
    (root / "val").symlink_to(synthetic_root / "val")
    content = json.loads((synthetic_root / "annotations" / "instances_train.json").read_text())
    content["annotations"].append({**content["annotations"][0], "id": 999, "image_id": 777})
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    truth = "annotations/instances_val.json"
    (root / truth).symlink_to(synthetic_root / truth)
    broken = root / "train" / content["images"][0]["file_name"]
    broken.write_bytes(broken.read_bytes()[:500])
    return root


def test_faulty_data_are_refused_in_the_words_of_the_check(
    tmp_path: Path, run: Callable[..., str], faulty_root: Path
) -> None:
    from dsctool.data.checks import check_data

    with pytest.raises(DataError) as caught:
        run(tmp_path / "run", data=faulty_root)
    faults = [str(fault) for fault in check_data(faulty_root) if fault.severity == "error"]
    assert len(faults) == 2
    for fault in faults:
        assert fault in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_faulty_data_are_skipped_on_request(tmp_path: Path, run: Callable[..., str], faulty_root: Path) -> None:
    values = tiny_config(epochs=1).model_dump()
    values["data"]["on_error"] = "skip"
    shown = run(tmp_path / "run", Config.model_validate(values), data=faulty_root)
    assert "7 images" in shown
    assert "instances_train.json (data.on_error=skip): images 1, annotations 1" in shown


def test_a_broken_validation_image_is_found_before_training(
    tmp_path: Path, run: Callable[..., str], synthetic_root: Path
) -> None:
    """Not after the first epoch."""
    root = tmp_path / "data"
    shutil.copytree(synthetic_root, root)
    broken = min((root / "val").iterdir())
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=broken.name):
        run(tmp_path / "run", data=root)
    assert not (tmp_path / "run").exists()


def test_what_fails_at_test_size_fails_before_the_first_step(tmp_path: Path, run: Callable[..., str]) -> None:
    def crash(model: FakeDetector) -> None:
        def hook(number: int) -> None:
            raise RuntimeError("out of memory")

        model.on_detect = hook

    with pytest.raises(OutOfMemoryError, match="out of memory while detecting in "):
        run(tmp_path / "run", prepare=crash)
    assert not (tmp_path / "run").exists()
    with pytest.raises(OutOfMemoryError, match="out of memory while detecting in "):
        run(tmp_path / "run", tiny_config(eval_interval=2), prepare=crash)
    run(tmp_path / "run", tiny_config(epochs=1, eval_interval=0), prepare=crash)


def test_detection_is_tried_once_on_two_images_by_a_new_run(tmp_path: Path, run: Callable[..., str]) -> None:
    before_first_step: list[int] = []

    def watch(model: FakeDetector) -> None:
        def hook(number: int) -> None:
            if number == 1:
                before_first_step.append(model.calls["detect"])

        model.on_losses = hook

    run(tmp_path / "run", tiny_config(epochs=1), prepare=watch)
    run(tmp_path / "run", tiny_config(epochs=2), prepare=watch, resume=True)
    assert before_first_step == [2, 0]


def test_the_trial_leaves_model_and_random_numbers_alone(synthetic_root: Path) -> None:
    config = tiny_config()
    val = open_data(config, synthetic_root).val
    assert val is not None
    model = FakeDetector(len(val.dataset.categories)).train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state, told = torch.get_rng_state(), []
    try_detection(
        model, val, config.data, device=torch.device("cpu"), progress=lambda *numbers: told.append(numbers[1:])
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert told == [(1, 2), (2, 2)]
