"""``dsctool predict --for-editing``: what editors read of it, and that it comes back."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

import dsctool
from dsctool.cli.app import app
from dsctool.data.image_files import find_images, number_images
from dsctool.engine.work_file import ImageResults, WorkFile, describe_run
from dsctool.interop.checkpoint import OperatingPoint, load_checkpoint, store_operating_point
from tests.cli.test_predict import checkpoint_of, read, run, save_image
from tests.engine.several import started_together


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a detector with random weights finds in two images of one name."""
    folder = tmp_path_factory.mktemp("made")
    for seed, place in enumerate(("left", "right")):
        save_image(folder / place / "x.png", seed=seed)
    checkpoint = checkpoint_of(folder, "htc_tiny")
    words = ("--output", folder / "out", "--for-editing", folder / "edit", "--score-threshold", "0", "--no-overlays")
    result = run(checkpoint, folder / "left", folder / "right", *words)
    assert result.exit_code == 0, result.stderr
    assert "to edit, in 2 images" in result.stdout
    return folder


def data(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["data", *map(str, words)])
    return result.exit_code, result.output


def test_it_is_a_data_set_without_faults(made: Path) -> None:
    assert data("check", made / "edit") == (0, f"{made / 'edit'}: no faults\n")
    content = read(made / "edit/annotations/instances_default.json")
    assert [image["file_name"] for image in content["images"]] == ["left/x.png", "right/x.png"]
    assert (made / "edit/default/right/x.png").read_bytes() == (made / "right/x.png").read_bytes()


def test_every_mask_is_there_with_its_score(made: Path) -> None:
    content = read(made / "edit/annotations/instances_default.json")
    found = [each for each in read(made / "out/predictions.json") if coco_mask.area(each["segmentation"])]
    assert len(content["annotations"]) == len(found) > 0
    for annotation, result in zip(content["annotations"], found, strict=True):
        drawn = coco_mask.merge(coco_mask.frPyObjects(annotation["segmentation"], *result["segmentation"]["size"]))
        assert coco_mask.iou([drawn], [result["segmentation"]], [0])[0, 0] > 0.8, "specks are left out"
        assert annotation["attributes"]["score"] == pytest.approx(result["score"], abs=1e-4)
        assert (annotation["image_id"], annotation["category_id"]) == (result["image_id"], result["category_id"])


def as_cvat_reads(content: dict[str, Any]) -> list[tuple[str, str, int, list[float], dict[str, Any]]]:
    """Image, label, group, points and attributes of every shape: a polygon each, those of an instance one group."""
    labels = {each["id"]: each["name"] for each in content["categories"]}
    images = {each["id"]: each["file_name"] for each in content["images"]}
    shapes = []
    for annotation in content["annotations"]:
        assert isinstance(annotation["segmentation"], list), "run lengths become bitmaps, which have no corners to move"
        for polygon in annotation["segmentation"]:
            image, label = images[annotation["image_id"]], labels[annotation["category_id"]]
            shapes.append((image, label, annotation["id"], polygon, annotation["attributes"]))
    return shapes


def as_label_studio_reads(content: dict[str, Any]) -> list[tuple[str, list[list[float]]]]:
    """Label and points, in hundredths of the image's sides, of every polygon."""
    labels = {int(each["id"]): each["name"] for each in content["categories"]}
    images = {each["id"]: each for each in content["images"]}
    found = []
    for annotation in content["annotations"]:
        image = images[annotation["image_id"]]
        assert annotation["iscrowd"] == 0, "it reads no others"
        for polygon in annotation["segmentation"]:
            points = np.asarray(polygon).reshape(-1, 2) / (image["width"], image["height"]) * 100
            found.append((labels[int(annotation["category_id"])], points.tolist()))
    return found


def test_editors_read_it(made: Path) -> None:
    content = read(made / "edit/annotations/instances_default.json")
    shapes = as_cvat_reads(content)
    assert {shape[1] for shape in shapes} <= {"cup", "plate"}
    assert {shape[0] for shape in shapes} <= {"left/x.png", "right/x.png"}
    assert len({shape[2] for shape in shapes}) == len(content["annotations"])
    assert all(len(shape[3]) >= 6 and 0 <= shape[4]["score"] <= 1 for shape in shapes)
    polygons = as_label_studio_reads(content)
    assert len(polygons) == len(shapes)
    assert all(0 <= number <= 100 for _, points in polygons for point in points for number in point)


def test_what_was_edited_is_not_written_over(made: Path, tmp_path: Path) -> None:
    words = (made / "best.pt", made / "left", "--output", tmp_path / "out", "--no-overlays", "--for-editing")
    file = made / "edit/annotations/instances_default.json"
    before = file.read_bytes()
    result = run(*words, made / "edit")
    assert (result.exit_code, file.read_bytes()) == (1, before)
    assert "may have been edited" in result.stderr
    assert not list(tmp_path.glob("out/*"))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    result = run(*words, tmp_path / "foreign", "--overwrite")
    assert result.exit_code == 1
    assert "holds nothing to edit" in result.stderr


def test_boxes_stay_boxes(tmp_path: Path) -> None:
    save_image(tmp_path / "photos/a.png")
    overrides = ("model.cascade.mask_head=null", "data.semantic=none")
    checkpoint = checkpoint_of(tmp_path, "cascade_mask_rcnn_tiny", *overrides)
    words = ("--score-threshold", "0", "--no-overlays", "--for-editing", tmp_path / "edit")
    result = run(checkpoint, tmp_path / "photos", "--output", tmp_path / "out", *words)
    assert result.exit_code == 0, result.stderr
    content = json.loads((tmp_path / "edit/annotations/instances_default.json").read_text())
    assert content["annotations"]
    assert all("segmentation" not in each for each in content["annotations"])
    assert data("check", tmp_path / "edit", "--boxes-only")[0] == 0


def test_images_that_come_later(made: Path, tmp_path: Path) -> None:
    """What could not be read is not in it; a run that goes on writes anew, and not over what may have been edited."""
    save_image(tmp_path / "photos/a.png")
    whole = save_image(tmp_path / "photos/b.png", width=300, height=300, seed=1).read_bytes()
    (tmp_path / "photos/b.png").write_bytes(whole[:5000])
    words = (made / "best.pt", tmp_path / "photos", "--output", tmp_path / "out", "--no-overlays", "--for-editing")
    assert run(*words, tmp_path / "edit").exit_code == 1
    assert len(read(tmp_path / "edit/annotations/instances_default.json")["images"]) == 1
    (tmp_path / "photos/b.png").write_bytes(whole)
    refused = run(*words, tmp_path / "edit", "--resume")
    assert (refused.exit_code, "may have been edited" in refused.stderr) == (1, True)
    assert run(*words, tmp_path / "all", "--resume").exit_code == 0
    assert len(read(tmp_path / "all/annotations/instances_default.json")["images"]) == 2


# --- with thresholds of classes, in several processes, and after a stop ------------------------------

FILE = "annotations/instances_default.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``best.pt`` with a threshold for each class, ``photos``, and what a run that nothing stopped makes of them."""
    folder = tmp_path_factory.mktemp("whole")
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        save_image(folder / "photos" / name, seed=seed)
    checkpoint = checkpoint_of(folder, "htc_tiny", "postprocess.max_per_image=30")
    model = dsctool.load_model(checkpoint, device="cpu")
    found = model.predict_images(folder / "photos" / "a.png", score=0)
    cups, plates = (found.scores[found.labels == label] for label in (0, 1))
    thresholds = (float(cups.median()), float(plates.max()))
    store_operating_point(folder / "best.pt", OperatingPoint(thresholds, "f1", "segm", 0.5, images=2))
    result = run(*words_of(folder), "--output", folder / "out", "--for-editing", folder / "edit")
    assert result.exit_code == 0, result.stderr
    return folder


def words_of(folder: Path) -> list[str | Path]:
    return [folder / "best.pt", folder / "photos", "--no-overlays", "--score-threshold", "auto"]


def test_every_class_has_its_own_threshold(whole: Path) -> None:
    point = load_checkpoint(whole / "best.pt").operating_point
    assert point is not None
    limits = dict(zip((7, 90), point.thresholds, strict=True))
    found = [each for each in read(whole / "out/predictions.json") if coco_mask.area(each["segmentation"])]
    kept = [(each["image_id"], each["category_id"]) for each in found if each["score"] >= limits[each["category_id"]]]
    assert [(each["image_id"], each["category_id"]) for each in read(whole / "edit" / FILE)["annotations"]] == kept
    assert 0 < len(kept) < len(found)
    assert {kind for _, kind in kept} == {7, 90}


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
@pytest.mark.usefixtures("one_thread")
def test_several_processes_make_the_same_set(whole: Path, tmp_path: Path) -> None:
    words = [*words_of(whole), "--output", tmp_path / "out", "--for-editing", tmp_path / "edit"]
    told = started_together(2, lambda: run(*words).exit_code)
    assert told == [("gave", 0), ("gave", 0)]
    assert (tmp_path / "edit" / FILE).read_bytes() == (whole / "edit" / FILE).read_bytes()
    refused = started_together(2, lambda: run(*words, "--resume").exit_code)
    assert refused == [("gave", 1), ("gave", 1)], "it may have been edited"


@pytest.mark.parametrize("images", [1, 3])
def test_a_run_that_was_stopped(whole: Path, tmp_path: Path, images: int) -> None:
    """Between images, or while it made the set: pictures are there, and what they show is not."""
    out, edit = tmp_path / "out", tmp_path / "edit"
    files = number_images(find_images([whole / "photos"]))
    described = describe_run(
        whole / "best.pt", files, overrides=[], threshold="auto", stages=False, overlays=False, candidates=False,
        device="cpu",
    )  # fmt: skip
    out.mkdir()
    found = read(whole / "out/predictions.json")
    with WorkFile.begin(out / "predictions.work.jsonl", described) as work:
        for image in read(whole / "out/images.json")["images"][:images]:
            own = [each for each in found if each["image_id"] == image["id"]]
            work.add(ImageResults(image=image, results=own))
    if images == 3:
        (edit / "annotations").mkdir(parents=True)
        save_image(edit / "default" / "a.png")
        (edit / "default" / ".b.png.123.tmp").write_bytes(b"half")
        (edit / "annotations" / ".instances_default.json.123.tmp").write_text("{")
    result = run(*words_of(whole), "--output", out, "--for-editing", edit, "--resume")
    assert result.exit_code == 0, result.stderr
    names = sorted(path.relative_to(edit).as_posix() for path in edit.rglob("*") if path.is_file())
    assert names == [FILE, "default/a.png", "default/b.png", "default/c.png"]
    for name in names:
        assert (edit / name).read_bytes() == (whole / "edit" / name).read_bytes(), name


def test_results_and_what_is_edited_are_apart(whole: Path, tmp_path: Path) -> None:
    """In one folder, a run that was stopped could not go on."""
    result = run(*words_of(whole), "--output", tmp_path / "out", "--for-editing", tmp_path / "new" / ".." / "out")
    assert result.exit_code == 1
    assert "is the folder of the results; name another one for editing" in result.stderr
    assert not (tmp_path / "out" / FILE).exists()
