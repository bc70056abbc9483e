"""``dsctool train`` from the outside: exit codes, messages, and nothing written on failure."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dsctool.cli.app import app
from dsctool.config.loading import load_config
from dsctool.config.schema import Config
from dsctool.engine import trainer
from dsctool.runs.history import read_history
from tests.engine.fakes import FakeDetector

OVERRIDES = [
    "train.epochs=1",
    "train.batch_size=2",
    "data.workers=0",
    "data.train_resize.short_sides=[48]",
    "data.test_resize.short_sides=[48]",
    "model.cascade.mask_head=null",
]


def build(config: Config, *, num_classes: int) -> FakeDetector:
    return FakeDetector(num_classes)


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, synthetic_root: Path, tmp_path: Path) -> Callable[..., Result]:
    """Calls the command with a fake detector; its run folder is ``tmp_path / "run"``."""
    monkeypatch.setattr(trainer, "train", partial(trainer.train, build=build))

    def invoke(*words: str, data: Path = synthetic_root, config: str = "cascade_mask_rcnn_tiny") -> Result:
        words = (config, *OVERRIDES, *words, "--data", str(data), "--output", str(tmp_path / "run"), "--device", "cpu")
        return CliRunner().invoke(app, ["train", *words])

    return invoke


def test_success(train: Callable[..., Result], tmp_path: Path) -> None:
    result = train()
    assert result.exit_code == 0, result.output
    assert "effective batch  2 images" in result.output
    best = tmp_path / "run" / "best.pt"
    assert result.output.splitlines()[-2].startswith(f"next             dsctool eval {best} --data ")  # not wrapped


def test_output_is_needed(synthetic_root: Path) -> None:
    result = CliRunner().invoke(app, ["train", "htc_tiny", "--data", str(synthetic_root)])
    assert result.exit_code == 2
    assert "--output" in result.output


def fails(result: Result, *parts: str) -> None:
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("dsctool: error: ")
    for part in parts:
        assert part in result.stderr, result.stderr


def test_saving_memory_is_for_dry_runs(synthetic_root: Path, tmp_path: Path) -> None:
    words = ["train", "htc_tiny", "--data", str(synthetic_root), "--output", str(tmp_path / "run"), "--save-memory"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "--dry-run" in result.output
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_kept(train: Callable[..., Result], tmp_path: Path) -> None:
    train()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    fails(train(), str(tmp_path / "run"), "--resume")
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()} == before


def test_a_truncated_checkpoint(train: Callable[..., Result], tmp_path: Path) -> None:
    train()
    last = tmp_path / "run" / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    (tmp_path / "run" / "previous.pt").unlink()
    fails(train("--resume"), str(last), "damaged or cut short")


def test_a_conflict_of_classes_names_the_override_and_the_file(
    train: Callable[..., Result], tmp_path: Path, synthetic_root: Path
) -> None:
    annotations = synthetic_root / "annotations" / "instances_train.json"
    fails(train("model.num_classes=80"), "model.num_classes is 80", "override #", f"{annotations} has 6 categories")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite(
    train: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(config: Config, *, num_classes: int) -> FakeDetector:
        model = FakeDetector(num_classes)
        model.factors = {"s0.loss_mask": math.nan}
        return model

    monkeypatch.setattr(trainer, "train", partial(trainer.train, build=broken))
    fails(train(), "s0.loss_mask = nan", "cascade stage 1", "image ids ")
    assert not (tmp_path / "run" / "best.pt").exists()


def resume(tmp_path: Path, data: Path, *words: str) -> Result:
    """Without naming a configuration."""
    words = (*words, "--output", str(tmp_path / "run"), "--resume", "--data", str(data), "--device", "cpu")
    return CliRunner().invoke(app, ["train", *words])


def test_resuming_finds_the_configuration_of_the_run(
    train: Callable[..., Result], tmp_path: Path, synthetic_root: Path
) -> None:
    train("optim.lr=0.3")
    before = load_config(tmp_path / "run/config.yaml")
    assert resume(tmp_path, synthetic_root).exit_code == 0
    assert load_config(tmp_path / "run/config.yaml") == before
    result = resume(tmp_path, synthetic_root, "train.epochs=2", "train.log_interval=3")
    assert result.exit_code == 0, result.output
    assert read_history(tmp_path / "run/metrics.jsonl").epoch == 2
    assert load_config(tmp_path / "run/config.yaml").train.log_interval == 3
    fails(resume(tmp_path, synthetic_root, "optim.lr=1"), "optim.lr: 0.3 in the run, 1.0 now")
    fails(resume(tmp_path, synthetic_root, "optim.rl=1"), "unknown key; the nearest is optim.lr")
    fails(resume(tmp_path, synthetic_root, "htc_tiny"), "the configuration differs")


def test_nothing_to_find_a_configuration_in(tmp_path: Path, synthetic_root: Path) -> None:
    fails(resume(tmp_path, synthetic_root), str(tmp_path / "run/config.yaml"), "no run to resume")
    words = ["train", "optim.lr=1", "--output", str(tmp_path / "run"), "--data", str(synthetic_root)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "name a configuration" in result.stderr
    assert not (tmp_path / "run").exists()


def test_the_last_words(train: Callable[..., Result], tmp_path: Path, synthetic_root: Path) -> None:
    """What came out, where it is, and commands that can be run as they stand."""
    run = tmp_path / "run"
    shown = train().output.splitlines()[-7:]
    assert re.fullmatch(r"finished +4 steps in 0:00:\d\d", shown[0])
    assert re.fullmatch(r"best +box AP 0\.\d{4} in epoch 1", shown[1])
    assert [line[17:] for line in shown[2:5]] == [
        f"{run / 'best.pt'} (to use)", f"{run / 'last.pt'} (to continue)", f"{run / 'report.html'} (to look at)",
    ]  # fmt: skip
    assert shown[5] == f"next             dsctool eval {run / 'best.pt'} --data {synthetic_root}"
    assert shown[6] == f"                 dsctool predict {run / 'best.pt'} IMAGES --output found"
    train_log = (run / "train.log").read_text()
    assert all(line in train_log for line in shown)


def test_never_evaluated(train: Callable[..., Result], tmp_path: Path) -> None:
    result = train("train.eval_interval=0")
    assert "best             never evaluated: best.pt has the last weights" in result.output
    assert (tmp_path / "run/report.html").exists()


def test_an_unknown_device(synthetic_root: Path, tmp_path: Path) -> None:
    words = ["train", "htc_tiny", "--data", str(synthetic_root), "--output", str(tmp_path / "run"), "--device", "gpu"]
    fails(CliRunner().invoke(app, words), "device 'gpu' cannot be used")
    assert not (tmp_path / "run").exists()


def break_data(root: Path, how: str) -> str:
    """Damage a copy of the generated set; returns what the message must name."""
    annotations = root / "annotations" / "instances_train.json"
    content = json.loads(annotations.read_text())
    image, annotation = content["images"][1], content["annotations"][0]
    match how:
        case "missing folder":
            shutil.rmtree(root)
            return str(root)
        case "empty JSON":
            annotations.write_text("")
            return str(annotations)
        case "list JSON":
            annotations.write_text("[]")
            return str(annotations)
        case "missing image":
            (root / "train" / image["file_name"]).unlink()
            return f"image {image['id']}"
        case "truncated JPEG":
            path = root / "train" / image["file_name"]
            path.write_bytes(path.read_bytes()[:300])
            return f"image {image['id']}"
        case "unknown category":
            annotation["category_id"] = 99
        case "negative box":
            annotation["bbox"][2] = -5
        case "no segmentation":
            annotation["segmentation"] = "none"
    annotations.write_text(json.dumps(content))
    return f"annotation {annotation['id']}"


@pytest.mark.parametrize(
    "how",
    [
        "missing folder",
        "empty JSON",
        "list JSON",
        "missing image",
        "truncated JPEG",
        "unknown category",
        "negative box",
        "no segmentation",
    ],
)
def test_broken_data_are_refused(train: Callable[..., Result], tmp_path: Path, synthetic_root: Path, how: str) -> None:
    root = tmp_path / "data"
    shutil.copytree(synthetic_root, root)
    named = break_data(root, how)
    fails(train("model.cascade.mask_head={}", data=root), named)
    assert not (tmp_path / "run").exists()


def test_a_signal_ends_with_its_own_code(
    train: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from dsctool.engine.signals import RunInterruptedError

    def stop(*args: object, **kwargs: object) -> None:
        raise RunInterruptedError("SIGTERM: saved last.pt")

    monkeypatch.setattr("dsctool.engine.trainer.train", stop)
    result = train()
    assert result.exit_code == 75
    assert result.stderr == "dsctool: SIGTERM: saved last.pt\n"


def test_help_has_an_example_and_needs_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['dsctool', 'train', '--help']\n"
        "from dsctool.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "dsctool train htc_tiny" in done.stdout
    assert "75" in done.stdout
