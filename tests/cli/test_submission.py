"""``dsctool eval --test-dev``: the files that COCO's server takes, going on after a stop, and what is refused."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dsctool.cli.app import app
from dsctool.engine import submission as engine
from dsctool.engine.submission import algorithm_name
from tests.cli.test_evaluate import run, save_tiny, val_categories

pytestmark = pytest.mark.usefixtures("one_thread")

WORK = "test-dev.work.jsonl"
NAME = "detections_test-dev2017_best_results"
TTA = ["--tta", "data.tta.short_sides=[48,64]"]


@pytest.fixture(scope="module")
def coco(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test-dev images as COCO has them: without annotations. Not to be written to."""
    root = tmp_path_factory.mktemp("coco")
    content = json.loads(next((synthetic_root / "annotations").glob("instances_val*.json")).read_text())
    del content["annotations"]
    for number, image in enumerate(content["images"]):
        image["id"] = 1000 - number  # not in order
    (root / "annotations").mkdir()
    (root / "annotations/image_info_test-dev2017.json").write_text(json.dumps({"info": {}, **content}))
    shutil.copytree(synthetic_root / "val", root / "test2017")
    return root


@pytest.fixture(scope="module")
def checkpoint(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "best.pt", val_categories(synthetic_root))


def words(checkpoint: Path, coco: Path, output: Path, *more: str | Path) -> list[str | Path]:
    return [checkpoint, *more, "--data", coco, "--test-dev", "--output", output, "--device", "cpu"]


@pytest.fixture(scope="module")
def whole(checkpoint: Path, coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run in several views that was never stopped. Not to be written to."""
    output = tmp_path_factory.mktemp("whole") / "upload"
    result = run(*words(checkpoint, coco, output, *TTA))
    assert result.exit_code == 0, result.stderr
    return output


def submitted(path: Path) -> list[dict[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"{path.stem}.json"], "one file, and no folder"
        assert archive.testzip() is None
        content = json.loads(archive.read(f"{path.stem}.json"))
    assert isinstance(content, list)
    return content


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_the_server_takes(whole: Path, coco: Path) -> None:
    assert set(contents(whole)) == {f"bbox/{NAME}.zip", f"segm/{NAME}.zip"}
    boxes, masks = (submitted(whole / kind / f"{NAME}.zip") for kind in ("bbox", "segm"))
    table = json.loads((coco / "annotations/image_info_test-dev2017.json").read_text())
    sizes = {image["id"]: [image["height"], image["width"]] for image in table["images"]}
    assert {each["image_id"] for each in boxes} == set(sizes)
    assert {each["category_id"] for each in boxes} <= {category["id"] for category in table["categories"]}
    assert len(boxes) == len(masks) > 0
    for box, mask in zip(boxes, masks, strict=True):
        assert list(box) == ["image_id", "category_id", "bbox", "score"]
        assert list(mask) == ["image_id", "category_id", "segmentation", "score"]
        assert [box[key] for key in ("image_id", "category_id", "score")] == [
            mask[key] for key in ("image_id", "category_id", "score")
        ]
        assert box["bbox"] == [round(value, 2) for value in box["bbox"]]
        assert isinstance(mask["segmentation"]["counts"], str)
        assert mask["segmentation"]["size"] == sizes[mask["image_id"]]


def test_the_results_are_those_of_predict(checkpoint: Path, coco: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    assert run(*words(checkpoint, coco, tmp_path / "upload", "--algorithm", "tiny_1")).exit_code == 0
    table = coco / "annotations/image_info_test-dev2017.json"
    predict = [checkpoint, coco / "test2017", "--images-json", table, "--output", tmp_path / "found", "--no-overlays"]
    done = CliRunner().invoke(app, ["predict", *(str(word) for word in predict), "--device", "cpu"])
    assert done.exit_code == 0, done.stderr
    found = json.loads((tmp_path / "found/predictions.json").read_text())
    masks = submitted(tmp_path / "upload/segm/detections_test-dev2017_tiny-1_results.zip")
    assert masks == [{key: each[key] for key in ("image_id", "category_id", "segmentation", "score")} for each in found]


def test_a_run_that_was_stopped_goes_on(
    checkpoint: Path, coco: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Ctrl-C after two images, then by a kill in the middle of a line, then while the files are written."""
    output = tmp_path / "upload"
    going = words(checkpoint, coco, output, *TTA)
    found = engine.found_in_set

    def two(*args: Any, **options: Any) -> Iterator[Any]:
        for number, each in enumerate(found(*args, **options)):
            if number == 2:
                raise KeyboardInterrupt
            yield each

    with monkeypatch.context() as patch:
        patch.setattr(engine, "found_in_set", two)
        stopped = run(*going)
    assert stopped.exit_code == 130
    assert "2 of 4 images are done; go on by --resume" in stopped.stderr
    assert set(contents(output)) == {WORK}
    with (output / WORK).open("ab") as file:
        file.write(b'{"image": {"id": 9')
    refused = run(*going)
    assert refused.exit_code == 1
    assert "holds an unfinished run; go on with it by --resume" in refused.stderr
    other = run(*words(checkpoint, coco, output, "--resume"))
    assert other.exit_code == 1
    assert "other overrides" in other.stderr

    def fail(result: Any, kind: str) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_submitted", fail)
        assert run(*going, "--resume").exit_code == 1
    assert set(contents(output)) == {WORK}, "files are whole or absent"
    assert run(*going, "--resume").exit_code == 0
    assert contents(output) == contents(whole)
    again = run(*going, "--resume")
    assert again.exit_code == 1
    assert "its run has ended" in again.stderr
    assert "has results of an earlier run" in run(*going).stderr
    assert run(*going, "--overwrite").exit_code == 0
    assert contents(output) == contents(whole)


def test_images_without_results_are_run_as_well(checkpoint: Path, coco: Path, tmp_path: Path) -> None:
    result = run(*words(checkpoint, coco, tmp_path, "postprocess.score_threshold=1.0"))
    assert result.exit_code == 0, result.stderr
    assert "results for 4 images" in result.stdout
    assert submitted(tmp_path / f"segm/{NAME}.zip") == []


def test_boxes_only(synthetic_root: Path, coco: Path, tmp_path: Path) -> None:
    from dsctool.config.loading import load_config
    from dsctool.interop.checkpoint import Checkpoint, save_checkpoint
    from dsctool.models.build import build_detector

    overrides = ["data.workers=0", "data.test_resize.short_sides=[64]", "model.cascade.mask_head=null"]
    config, categories = load_config("cascade_mask_rcnn_tiny", overrides), val_categories(synthetic_root)
    model = build_detector(config, num_classes=len(categories)).state_dict()
    save_checkpoint(tmp_path / "best.pt", Checkpoint(config=config, categories=categories, model=model))
    result = run(*words(tmp_path / "best.pt", coco, tmp_path / "upload"))
    assert result.exit_code == 0, result.stderr
    assert set(contents(tmp_path / "upload")) == {f"bbox/{NAME}.zip"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--huddle"], "--huddle"),
        (["--errors", "errors"], "--errors"),
        (["--per-class", "--max-dets", "auto"], "--per-class, --max-dets"),
        (["--predictions", "found.json"], "--predictions"),
        (["--json", "-"], "--json"),
        (["--split", "train"], "--split"),
        (["--ground-truth", "gt.json"], "--ground-truth"),
        (["--resume", "--overwrite"], "--overwrite removes it"),
    ],
)
def test_what_makes_no_sense_with_it(checkpoint: Path, coco: Path, tmp_path: Path, more: list[str], said: str) -> None:
    result = run(*words(checkpoint, coco, tmp_path / "upload", *more))
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert not (tmp_path / "upload").exists()


def test_its_options_need_it(checkpoint: Path, coco: Path, tmp_path: Path) -> None:
    for more in (["--output", "upload"], ["--resume"], ["--algorithm", "x"]):
        result = run(checkpoint, "--data", coco, *more)
        assert result.exit_code == 2
        assert f"{more[0]}: only with --test-dev" in result.stderr
    assert "needs --output DIR" in run(checkpoint, "--data", coco, "--test-dev").stderr
    assert run(checkpoint, "--test-dev", "--output", tmp_path).exit_code == 2


def test_images_without_annotations_are_good_for_nothing_else(checkpoint: Path, coco: Path, tmp_path: Path) -> None:
    table = "annotations/image_info_test-dev2017.json"
    layout = [f"data.val.annotations={table}", "data.val.images=test2017"]
    result = run(checkpoint, *layout, "--data", coco)
    assert result.exit_code == 1
    assert f"{coco / table}: missing key 'annotations'" in result.stderr
    assert "--test-dev" in result.stderr
    (tmp_path / "dt.json").write_text("[]")
    result = run("--ground-truth", coco / table, "--predictions", tmp_path / "dt.json")
    assert result.exit_code == 1
    assert "--test-dev" in result.stderr


def test_what_is_missing_is_found_before_anything_runs(
    checkpoint: Path, coco: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    root = tmp_path / "coco"
    shutil.copytree(coco, root)
    lost = min((root / "test2017").iterdir())
    lost.unlink()
    result = run(*words(checkpoint, root, tmp_path / "upload", "data.on_error=skip"))
    assert result.exit_code == 1
    assert str(lost) in result.stderr
    assert "skip" not in result.stderr, "every image is needed"
    shutil.rmtree(root / "test2017")
    assert "put or link them there" in run(*words(checkpoint, root, tmp_path / "upload")).stderr
    assert "image_info_test-dev2017.json" in run(*words(checkpoint, synthetic_root, tmp_path / "upload")).stderr
    assert not (tmp_path / "upload").exists()


@pytest.mark.parametrize(
    ("text", "name"), [("htc_r50_fpn_1x_coco", "htc-r50-fpn-1x-coco"), ("a b/c_", "a-b-c"), ("___", "model")]
)
def test_names_of_algorithms(text: str, name: str) -> None:
    assert algorithm_name(text) == name
