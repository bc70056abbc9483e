"""Exports, read as the programs they are for read them, and taken back in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from dsctool.data.checks import check_data
from dsctool.data.exporting.sets import Options, export_set
from dsctool.data.importing.importer import import_set
from dsctool.data.importing.record import Options as ImportOptions
from dsctool.data.shapes import drawn
from dsctool.errors import DataError
from tests.data.importing.foreign import HEIGHT, WIDTH, binary_masks, label_images, things
from tests.data.importing.test_kinds import largest_errors, masks_of


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with holes, parts, neighbours and overlaps, as masks."""
    folder = tmp_path_factory.mktemp("crowded")
    binary_masks(folder / "source", things(overlaps=True))
    import_set("binary-masks", folder / "source", folder / "set", ImportOptions())
    return folder / "set"


def errors_between(one: Path, other: Path) -> int:
    """The largest of all pictures' errors."""
    largest = 0
    for part in ("train", "val"):
        theirs = masks_of(other / f"annotations/instances_{part}.json")
        assert set(theirs) == set(masks_of(one / f"annotations/instances_{part}.json"))
        for found in theirs.values():
            largest = max(largest, *largest_errors(found, things(overlaps=True)).values())
    return largest


@pytest.mark.parametrize("kind", ["coco", "yolo"])
@pytest.mark.parametrize(("simplify", "error"), [(0.0, 0), (0.75, 1)])
@pytest.mark.parametrize("label_studio", [False, True])
def test_polygons_come_back(
    kind: str, simplify: float, error: int, label_studio: bool, crowded: Path, tmp_path: Path
) -> None:
    """Exactly where every point is kept, else to a pixel of border."""
    export_set(kind, crowded, tmp_path / "out", Options(simplify, label_studio))
    import_set(kind, tmp_path / "out", tmp_path / "back", ImportOptions())
    assert errors_between(crowded, tmp_path / "back") <= error
    assert check_data(tmp_path / "back") == []


def test_label_images_come_back_but_for_what_is_covered(crowded: Path, tmp_path: Path) -> None:
    done = export_set("label-images", crowded, tmp_path / "out", Options())
    assert "belong to several instances" in done.notes[0]
    covered = int((things(overlaps=True)[5].mask & things(overlaps=True)[6].mask).sum()) * 5
    assert done.notes[0].startswith(f"{covered} pixels")

    apart = tmp_path / "apart"
    label_images(apart / "source", things(overlaps=False))
    import_set("label-images", apart / "source", apart / "set", ImportOptions())
    export_set("label-images", apart / "set", apart / "out", Options())
    import_set("label-images", apart / "out", apart / "back", ImportOptions())
    for part in ("train", "val"):
        before, after = (masks_of(apart / name / f"annotations/instances_{part}.json") for name in ("set", "back"))
        assert {name: [c for c, _ in each] for name, each in before.items()} == {
            name: [c for c, _ in each] for name, each in after.items()
        }
        for name, each in before.items():
            assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(each, after[name], strict=True))


def read_as_cvat(content: dict[str, Any]) -> dict[str, list[tuple[str, list[NDArray[np.uint8]]]]]:
    """As CVAT's importer does: each polygon of three points or more is a shape, those of an annotation a group."""
    names = {each["id"]: each["name"] for each in content["categories"]}
    files = {each["id"]: each for each in content["images"]}
    found: dict[str, list[tuple[str, list[NDArray[np.uint8]]]]] = {each["file_name"]: [] for each in content["images"]}
    for each in content["annotations"]:
        assert not each["iscrowd"]
        image = files[each["image_id"]]
        shapes = []
        for polygon in each["segmentation"]:
            assert len(polygon) % 2 == 0
            assert len(polygon) >= 6
            shapes.append(coco_mask.decode(drawn([polygon], (image["height"], image["width"]))))
        found[image["file_name"]].append((names[each["category_id"]], shapes))
    return found


def read_as_label_studio(content: dict[str, Any]) -> list[tuple[str, list[tuple[float, float]]]]:
    """As its converter does: each polygon is a region, in percent of the picture's sides, and so is each box."""
    names = {each["id"]: each["name"] for each in content["categories"]}
    images = {each["id"]: each for each in content["images"]}
    found = []
    for each in content["annotations"]:
        width, height = images[each["image_id"]]["width"], images[each["image_id"]]["height"]
        assert "bbox" not in each
        for flat in each["segmentation"]:
            points = [(x / width * 100, y / height * 100) for x, y in zip(flat[::2], flat[1::2], strict=True)]
            found.append((names[each["category_id"]], points))
    return found


def test_cvat_reads_it(crowded: Path, tmp_path: Path) -> None:
    export_set("coco", crowded, tmp_path / "out", Options(simplify=0))
    for part in ("train", "val"):
        shown = read_as_cvat(json.loads((tmp_path / f"out/annotations/instances_{part}.json").read_text()))
        for shapes in shown.values():
            whole = [(name, np.any(each, axis=0)) for name, each in shapes]
            assert set(largest_errors(whole, things(overlaps=True)).values()) == {0}
            assert sorted(len(each) for _, each in shapes) == [1] * 6 + [2]


def test_label_studio_reads_it(crowded: Path, tmp_path: Path) -> None:
    export_set("coco", crowded, tmp_path / "out", Options(label_studio=True))
    content = json.loads((tmp_path / "out/annotations/instances_val.json").read_text())
    shown = read_as_label_studio(content)
    masks = []
    for name, points in shown:
        assert all(0 <= value <= 100 for point in points for value in point)
        flat = [value for x, y in points for value in (x / 100 * WIDTH, y / 100 * HEIGHT)]
        masks.append((name, coco_mask.decode(drawn([flat], (HEIGHT, WIDTH))).astype(bool)))
    assert max(largest_errors(masks, things(overlaps=True)).values()) <= 1


def test_polygons_stay_as_they_are(tmp_path: Path) -> None:
    """What was drawn by hand has no steps to take out."""
    root = tmp_path / "set"
    (root / "annotations").mkdir(parents=True)
    (root / "train").mkdir()
    Image.new("RGB", (20, 10)).save(root / "train" / "a.png")
    polygon = [1.25, 1, 9.5, 2, 4, 8.75]
    crowd = {"size": [10, 20], "counts": [100, 50, 50]}
    annotations = [
        {"id": 5, "image_id": 3, "category_id": 7, "segmentation": [polygon], "iscrowd": 0},
        {"id": 6, "image_id": 3, "category_id": 7, "segmentation": crowd, "iscrowd": 1},
    ]
    images = [{"id": 3, "file_name": "a.png", "width": 20, "height": 10}]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "it's"}]}
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    export_set("coco", root, tmp_path / "coco", Options())
    written = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    assert written["annotations"][0]["segmentation"] == [polygon]
    assert [each["iscrowd"] for each in written["annotations"]] == [0, 1]
    done = export_set("coco", root, tmp_path / "studio", Options(label_studio=True))
    assert "left out: 1 crowd regions" in done.notes
    done = export_set("yolo", root, tmp_path / "yolo", Options(link=True))
    assert done.notes == ("left out: 1 crowd regions",)
    assert (tmp_path / "yolo/labels/train/a.txt").read_text() == "0 0.0625 0.1 0.475 0.2 0.2 0.875\n"
    assert (tmp_path / "yolo/images/train/a.png").samefile(root / "train/a.png")
    assert "0: 'it''s'" in (tmp_path / "yolo/data.yaml").read_text()
    with pytest.raises(DataError, match="is there already"):
        export_set("yolo", root, tmp_path / "yolo", Options())


def test_generated_scenes_come_back_to_the_letter(synthetic_root: Path, tmp_path: Path) -> None:
    """Pictures of both parts have the same names."""
    export_set("label-images", synthetic_root, tmp_path / "out", Options())
    import_set("label-images", tmp_path / "out", tmp_path / "back", ImportOptions())
    for part in ("train", "val"):
        before, after = (
            annotated(root / f"annotations/instances_{part}.json") for root in (synthetic_root, tmp_path / "back")
        )
        assert before == after


def annotated(file: Path) -> list[tuple[str, str, object, object, object]]:
    content = json.loads(file.read_text())
    names = {each["id"]: each["file_name"] for each in content["images"]}
    classes = {each["id"]: each["name"] for each in content["categories"]}
    return [
        (names[each["image_id"]], classes[each["category_id"]], each["segmentation"], each["area"], each["bbox"])
        for each in content["annotations"]
    ]
