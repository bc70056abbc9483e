"""``dsctool eval --panoptic``: what it prints and writes, what it refuses."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from dsctool.cli.app import app
from dsctool.config.loading import load_config, override_config
from dsctool.data.records import Category
from dsctool.data.synthetic.scenes import CLASSES, STUFF
from dsctool.evaluation.panoptic import evaluate_panoptic
from dsctool.interop.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from dsctool.models.build import build_detector
from tests.engine.several import started_together
from tests.evaluation.panoptic_scenes import Scene, drawn, perturbed, write
from tests.models.tiny import NARROW


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["eval", "--panoptic", *(str(word) for word in words)])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("panoptic")
    random = np.random.default_rng(3)
    truths = [drawn(random) for _ in range(4)]
    found = [perturbed(random, truth) for truth in truths]
    return write(folder / "gt.json", truths), write(folder / "dt.json", found)


def words_of(files: tuple[Path, Path]) -> list[str | Path]:
    return ["--ground-truth", files[0], "--predictions", files[1]]


def test_the_table_and_the_file_have_what_was_measured(files: tuple[Path, Path], tmp_path: Path) -> None:
    result = run(*words_of(files), "--json", tmp_path / "new" / "pq.json")
    assert result.exit_code == 0, result.stderr
    quality = evaluate_panoptic(*files)
    content = json.loads((tmp_path / "new" / "pq.json").read_text())
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["PQ", "SQ", "RQ", "categories"]
    for line, (name, group) in zip(
        lines[1:], (("all", quality.all), ("things", quality.things), ("stuff", quality.stuff)), strict=True
    ):
        assert 0 < group.pq < 1
        assert line == [name, f"{group.pq:.3f}", f"{group.sq:.3f}", f"{group.rq:.3f}", str(group.n)]
        assert content[name] == {"PQ": group.pq, "SQ": group.sq, "RQ": group.rq, "n": group.n}
    assert content["images"] == 4
    for row, each in zip(content["per_class"], quality.categories, strict=True):
        assert (row["id"], row["TP"], row["FP"], row["FN"], row["iou"]) == (
            each.id,
            each.tp,
            each.fp,
            each.fn,
            each.iou,
        )
        assert (row["PQ"], row["SQ"], row["RQ"]) == (each.pq, each.sq, each.rq)


def test_per_class(files: tuple[Path, Path]) -> None:
    result = run(*words_of(files), "--per-class")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["id", "category", "kind", "PQ", "SQ", "RQ", "TP", "FP", "FN"]
    for each in evaluate_panoptic(*files).categories:
        kind = "thing" if each.is_thing else "stuff"
        numbers = ["-1" if value == -1 else f"{value:.3f}" for value in (each.pq, each.sq, each.rq)]
        assert [str(each.id), each.name, kind, *numbers, str(each.tp), str(each.fp), str(each.fn)] in rows
    assert ["7", "c7", "stuff", "-1", "-1", "-1", "0", "0", "0"] in rows
    assert "-1: no segment of the category counts" in result.stdout


def test_what_cannot_be_measured_is_minus_one(tmp_path: Path) -> None:
    path = write(tmp_path / "gt.json", [Scene(np.full((4, 4), 5), {5: 1})])
    result = run("--ground-truth", path, "--predictions", path)
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["stuff", "-1", "-1", "-1", "0"] in rows
    assert "-1: no segment of stuff counts" in result.stdout


def test_json_on_standard_output_is_alone_there(files: tuple[Path, Path]) -> None:
    result = run(*words_of(files), "--json", "-")
    assert json.loads(result.stdout)["all"]["n"] == 6
    assert result.stderr == run(*words_of(files)).stdout


def test_files_that_do_not_fit(files: tuple[Path, Path], tmp_path: Path) -> None:
    content = json.loads(files[1].read_text())
    del content["annotations"][2]
    (tmp_path / "dt.json").write_text(json.dumps(content))
    result = run("--ground-truth", files[0], "--predictions", tmp_path / "dt.json", "--json", tmp_path / "pq.json")
    assert result.exit_code == 1
    assert f"{tmp_path / 'dt.json'}: image 2 of {files[0]} has no entry in annotations" in result.stderr
    assert not (tmp_path / "pq.json").exists()


def test_input_is_not_written_over(files: tuple[Path, Path]) -> None:
    before = files[1].read_bytes()
    result = run(*words_of(files), "--json", files[1])
    assert result.exit_code == 1
    assert "would be written over" in result.stderr
    assert files[1].read_bytes() == before


OTHERS = [
    ["--max-dets", "10"], ["--areas", "small:0:9"], ["--huddle"], ["--errors", "x"], ["--candidates", "x.json"],
    ["--test-dev"], ["--output", "x"], ["--algorithm", "x"], ["--resume"], ["--overwrite"], ["--huddled-above", "0.2"],
    ["--score-threshold", "0.5"],
]  # fmt: skip
FOR_MODELS = [
    ["--weights", "x.pth"], ["--split", "train"], ["--tta"], ["--precision", "bfloat16"], ["--device", "cpu"],
]  # fmt: skip


@pytest.mark.parametrize("words", OTHERS, ids=lambda words: words[0])
def test_options_of_other_measurements_are_refused(files: tuple[Path, Path], words: list[str]) -> None:
    result = run(*words_of(files), *words)
    assert result.exit_code == 2
    assert f"--panoptic cannot have {words[0]}:" in " ".join(result.stderr.split())
    result = run("best.pt", "--data", "x", *words)
    assert f"--panoptic cannot have {words[0]}:" in " ".join(result.stderr.split())


@pytest.mark.parametrize("words", FOR_MODELS, ids=lambda words: words[0])
def test_files_are_not_run(files: tuple[Path, Path], words: list[str]) -> None:
    result = run(*words_of(files), *words)
    assert result.exit_code == 2
    assert f"--panoptic of two files cannot have {words[0]}," in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["best.pt"], "needs CHECKPOINT and --data DIR"),
        (["--data", "x"], "needs CHECKPOINT and --data DIR"),
        (["best.pt", "--data", "x", "--predictions", "x.json"], "predict --panoptic writes results"),
        (["--ground-truth", "gt.json"], "or --ground-truth FILE and --predictions FILE"),
        (["--predictions", "dt.json"], "or --ground-truth FILE and --predictions FILE"),
    ],
)
def test_wrong_usage(words: list[str], said: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


# --- a model ----------------------------------------------------------------------------------------

ALL = ("panoptic.min_score=0", "panoptic.stuff_area=1", "postprocess.score_threshold=0")
"""The scores of random weights are low, and the images small."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the classes of generated scenes; its semantic branch always says ``sand``, which is right where it is."""
    few = ["model.rpn.test_max_proposals=40", "postprocess.max_per_image=5", "data.test_resize.short_sides=[64]"]
    labels = f"panoptic.labels=[{', '.join((*CLASSES, *STUFF))}]"
    config = load_config("dsc_tiny", [*NARROW, *few, *ALL, "data.semantic=stuffthingmaps", labels])
    torch.manual_seed(0)
    model = build_detector(config, num_classes=len(CLASSES))
    head = model.get_submodule("cascade.semantic_head.logits")
    assert isinstance(head, torch.nn.Conv2d)
    assert head.bias is not None
    with torch.no_grad():
        head.bias[len(CLASSES)] = 20
    path = tmp_path_factory.mktemp("model") / "best.pt"
    categories = [Category(10 + label, name) for label, name in enumerate(CLASSES)]  # other ids than the truth's
    save_checkpoint(path, Checkpoint(config=config, categories=categories, model=model.state_dict()))
    return path


@pytest.mark.parametrize("words", [[], ["--tta", "data.tta={short_sides: [64], merge: average}"]], ids=["", "views"])
def test_a_model_has_the_numbers_of_what_it_predicts(
    checkpoint: Path, synthetic_root: Path, tmp_path: Path, words: list[str]
) -> None:
    truth = synthetic_root / "annotations/panoptic_val.json"
    made = tmp_path / "out"
    images = ["--images-json", str(synthetic_root / "annotations/instances_val.json")]
    predict = ["predict", str(checkpoint), str(synthetic_root / "val"), *words, "--panoptic", *images, "--no-overlays"]
    result = CliRunner().invoke(app, [*predict, "--output", str(made)])
    assert result.exit_code == 0, result.output
    content, ids = json.loads((made / "panoptic.json").read_text()), category_ids(truth)
    names = {category["id"]: category["name"] for category in content["categories"]}
    for entry in content["annotations"]:
        for segment in entry["segments_info"]:
            segment["category_id"] = ids[names[segment["category_id"]]]
    (made / "panoptic.json").write_text(json.dumps(content))
    result = run(checkpoint, "--data", synthetic_root, *words, "--per-class", "--json", tmp_path / "pq.json")
    assert result.exit_code == 0, result.output
    of_files = run("--ground-truth", truth, "--predictions", made / "panoptic.json", "--per-class")
    assert result.stdout == of_files.stdout
    assert json.loads((tmp_path / "pq.json").read_text())["stuff"]["PQ"] > 0.05, "there is something to compare"


def test_tiles_are_refused_by_name(checkpoint: Path, synthetic_root: Path, tmp_path: Path) -> None:
    """Also where a model was trained by them; it may look at whole images all the same."""
    trained = tmp_path / "best.pt"
    loaded = load_checkpoint(checkpoint)
    save_checkpoint(trained, replace(loaded, config=override_config(loaded.config, ["data.tiles.size=64"])))
    result = run(trained, "--data", synthetic_root)
    assert result.exit_code == 1
    assert "panoptic results are of whole images: set data.tiles=null" in result.stderr
    whole = run(trained, "data.tiles=null", "--data", synthetic_root)
    assert whole.exit_code == 0, whole.output
    assert whole.stdout == run(checkpoint, "--data", synthetic_root).stdout


def category_ids(truth: Path) -> dict[str, int]:
    return {category["name"]: category["id"] for category in json.loads(truth.read_text())["categories"]}


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
def test_two_processes_measure_as_one(checkpoint: Path, synthetic_root: Path, tmp_path: Path) -> None:
    def measured(path: Path) -> str:
        result = run(checkpoint, "--data", synthetic_root, "--json", path)
        assert result.exit_code == 0, result.output
        return result.stdout

    alone = measured(tmp_path / "one.json")
    told = started_together(2, lambda: measured(tmp_path / "two.json"))
    assert told == [("gave", alone), ("gave", "")]
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_truth_that_does_not_fit_a_model(checkpoint: Path, synthetic_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(synthetic_root, root)
    path = root / "annotations/panoptic_val.json"
    path.write_text(path.read_text().replace('"sand"', '"Sand"'))
    result = run(checkpoint, "--data", root)
    assert result.exit_code == 1
    assert f"{path}: lacks categories of the model: sand. Names must agree" in " ".join(result.stderr.split())
    path.unlink()
    result = run(checkpoint, "--data", root)
    assert result.exit_code == 1
    assert f"{path}: no such file: panoptic truth" in " ".join(result.stderr.split())


def test_held_out_images_are_measured(checkpoint: Path, synthetic_root: Path, tmp_path: Path) -> None:
    """Those of the training split, as AP is: what was trained on counts for nothing."""
    words = ["data.val_share=0.3", "--data", str(synthetic_root)]
    result = run(checkpoint, *words, "--json", tmp_path / "pq.json")
    assert result.exit_code == 0, result.output
    made = tmp_path / "found.json"
    done = CliRunner().invoke(app, ["eval", str(checkpoint), *words, "--predictions", str(made)])
    assert done.exit_code == 0, done.output
    images = {found["image_id"] for found in json.loads(made.read_text())}
    assert json.loads((tmp_path / "pq.json").read_text())["images"] == len(images) < 8
    assert "held out" in result.stdout
