"""What is wrong with a source is named with file, key and object, and nothing is left of a data set."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dsctool.data.checks import check_data
from dsctool.data.importing.importer import import_set
from dsctool.data.importing.record import Options
from dsctool.errors import DataError
from tests.data.importing.foreign import NAMES, WRITERS, Thing, save_pictures, things


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    def write(name: str) -> Path:
        source = tmp_path / "source"
        source.mkdir()
        found: Sequence[Thing] = things(overlaps=False)
        WRITERS[name][1](source, found)
        return source

    return write


def refused(kind: str, source: Path, match: str, options: Options | None = None) -> None:
    with pytest.raises(DataError, match=match):
        import_set(kind, source, source.parent / "new", options or Options())
    assert sorted(path.name for path in source.parent.iterdir()) == [source.name]


def changed(file: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def replaced(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


LABELME = [
    (lambda c: c["shapes"][1].pop("label"), r"a\.json: shapes\[1\]: missing key 'label'"),
    (lambda c: c["shapes"][2]["points"].__setitem__(0, [1]), r"shapes\[2\]\.points\[0\]: must be x and y, not 1 num"),
    (lambda c: c["shapes"][2].__setitem__("points", [["x", 1]] * 3), r"points\[0\]\[0\]: must be a finite number"),
    (lambda c: c["shapes"][1].__setitem__("mask", "@"), r"shapes\[1\]\.mask: is not a picture in base 64"),
    (lambda c: c["shapes"][2].__setitem__("shape_type", "star"), r"shape_type 'star' is not known"),
    (lambda c: c["shapes"][2].__setitem__("points", [[0, 0], [9e6, 0], [0, 9]]), r"reaches far out of the image"),
    (lambda c: c.__setitem__("imagePath", "../../../etc/x.png"), r"imagePath: no image file .*leads out of it"),
    (lambda c: c.__setitem__("imageHeight", 47), r"is 64 x 48 pixels, the annotation says 64 x 47"),
]


@pytest.mark.parametrize(("change", "match"), LABELME)
def test_labelme(change: Callable[[Any], object], match: str, written: Callable[[str], Path]) -> None:
    source = written("LabelMe")
    changed(source / "json" / "a.json", change)
    refused("labelme", source, match)


CVAT = [
    ('label="cell"', "", r"image 'a\.png': mask 1: missing attribute 'label'"),
    ("rle='", "rle='9,", r"rle covers \d+ pixels, and its box has \d+ x \d+"),
    ("points='", "points='x,", r"image 'a\.png': polygon 2: points must be"),
    ("<points ", "<star ", r"shape 'star' is not known"),
    ("<meta>", "<track id='0'/><meta>", r"has tracks of a video"),
    ("name='a.png'", "name='/etc/passwd'", r"image '/etc/passwd': no image file"),
    ("</annotations>", "", r"annotations\.xml: is not valid XML.*cut short"),
]


@pytest.mark.parametrize(("old", "new", "match"), CVAT)
def test_cvat(old: str, new: str, match: str, written: Callable[[str], Path]) -> None:
    source = written("CVAT")
    replaced(source / "annotations.xml", old, new)
    refused("cvat", source, match)


def test_entities_of_xml_are_refused(written: Callable[[str], Path]) -> None:
    source = written("CVAT")
    bomb = "<!DOCTYPE x [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;&a;'>]><annotations>"
    replaced(source / "annotations.xml", "<annotations>", bomb)
    refused("cvat", source, "defines entities")
    text = (source / "annotations.xml").read_text().replace("utf-8", "utf-16")
    (source / "annotations.xml").write_bytes(text.encode("utf-16"))
    refused("cvat", source, "is not UTF-8 text")


YOLO = [
    ("7 0.1 0.1 0.5 0.5 0.2 0.7\n", r"a\.txt: line 1: class 7 has no name"),
    ("0 0.1 0.1 0.5 0.5 0.2\n", r"a\.txt: line 1: has 5 coordinates"),
    ("\n0 12 13 40 41 12 50\n", r"a\.txt: line 2: coordinates must be shares"),
    ("0 a b c d e f\n", r"a\.txt: line 1: must be numbers"),
]


@pytest.mark.parametrize(("text", "match"), YOLO)
def test_yolo(text: str, match: str, written: Callable[[str], Path]) -> None:
    source = written("YOLO")
    (source / "labels/train/a.txt").write_text(text)
    refused("yolo", source, match)


COCO = [
    (lambda c: c["annotations"][3].__setitem__("category_id", 9), r"annotations\[3\]\.category_id: no category has"),
    (lambda c: c["annotations"][3].__setitem__("image_id", 9), r"annotations\[3\]\.image_id: no image has the id 9"),
    (
        lambda c: c["annotations"][0]["segmentation"].__setitem__("counts", [5]),
        r"\[0\]\.segmentation: RLE counts cover",
    ),
    (lambda c: c["images"][0].__setitem__("file_name", "z.png"), r"images\[0\]\.file_name: no image file 'z\.png'"),
    (lambda c: c["images"][0].__setitem__("width", "wide"), r"images\[0\]\.width: must be a finite number"),
    (lambda c: c["annotations"][1]["segmentation"][0].append(1), r"\[1\]\.segmentation: polygon 1 has an odd number"),
]


@pytest.mark.parametrize(("change", "match"), COCO)
def test_coco(change: Callable[[Any], object], match: str, written: Callable[[str], Path]) -> None:
    source = written("FiftyOne COCO")
    changed(source / "labels.json", change)
    refused("coco", source, match)


LABEL_STUDIO = [
    (lambda r: r["value"].__setitem__("rle", r["value"]["rle"][:40]), r"result\[0\]\.value\.rle: the mask ends early"),
    (lambda r: r.__setitem__("original_width", 60), r"its results name several sizes"),
    (lambda r: r["value"].__setitem__("brushlabels", ["a", "b"]), r"value\.brushlabels: 2 classes"),
    (lambda r: r.__setitem__("type", "stars"), r"type 'stars' is not known"),
    (lambda r: r["value"]["rle"].__setitem__(0, 300), r"must be bytes"),
]


@pytest.mark.parametrize(("change", "match"), LABEL_STUDIO)
def test_label_studio(change: Callable[[Any], object], match: str, written: Callable[[str], Path]) -> None:
    source = written("Label Studio")
    changed(source / "export.json", lambda c: change(c[0]["annotations"][1]["result"][0]))
    refused("label-studio", source, match)


DARWIN = [
    (lambda c: c["annotations"][-1]["raster_layer"]["dense_rle"].append(1), r"dense_rle: must be values and lengths"),
    (lambda c: c["annotations"][2].__setitem__("id", "other"), r"annotations\[2\]: mask other is in no raster layer"),
    (lambda c: c["annotations"][0]["polygon"]["paths"][0][0].pop("x"), r"paths\[0\]\[0\]: missing key 'x'"),
    (lambda c: c["item"]["slots"][0].__setitem__("type", "video"), r"item\.slots\[0\]\.type: is 'video'"),
]


@pytest.mark.parametrize(("change", "match"), DARWIN)
def test_darwin(change: Callable[[Any], object], match: str, written: Callable[[str], Path]) -> None:
    source = written("Darwin")
    changed(source / "a.json", change)
    refused("darwin", source, match)


def test_via_asks_for_the_class(written: Callable[[str], Path]) -> None:
    source = written("VIA")

    def add(content: Any) -> None:
        for entry in content["_via_img_metadata"].values():
            for region in entry["regions"]:
                region["region_attributes"]["quality"] = {"good": True, "bad": False}

    changed(source / "via.json", add)
    refused("via", source, r"--class-key one of kind, quality")
    refused("via", source, "no region has the attribute 'x': kind, quality", Options(class_key="x"))
    done = import_set("via", source, source.parent / "new", Options(class_key="quality"))
    assert done.classes == ("good",)


def test_masks_that_fit_no_picture_and_damaged_ones(written: Callable[[str], Path]) -> None:
    source = written("label images, CSV")
    (source / "masks" / "a.tif").rename(source / "masks" / "z.tif")
    refused("label-images", source, r"z\.tif: no picture is called 'z'")
    (source / "masks" / "z.tif").rename(source / "masks" / "a.tif")
    replaced(source / "classes.csv", "a.png,2,debris", "b.png,2,debris")
    refused("label-images", source, r"a\.tif: value 2: has no class in .*classes\.csv")
    (source / "classes.csv").unlink()
    Image.fromarray(np.zeros((8, 9), dtype=np.uint8)).save(source / "masks" / "a.tif")
    refused("label-images", source, r"a\.png: is 64 x 48 pixels, the annotation says 9 x 8")
    (source / "masks" / "a.tif").unlink()
    Image.fromarray(np.zeros((48, 64), dtype=np.uint8)).save(source / "masks" / "a.jpg")
    refused("label-images", source, r"a\.jpg: is a JPEG, which changes values")
    (source / "masks" / "a.jpg").unlink()
    data = (source / "images" / "b.png").read_bytes()
    (source / "images" / "b.png").write_bytes(data[: len(data) // 2])
    refused("label-images", source, r"new/annotations/instances_train\.json: image \d: .*/new/train/b\.png: cannot")


def test_voc_names_what_has_no_class(written: Callable[[str], Path]) -> None:
    source = written("Pascal VOC")
    file = source / "VOCdevkit/VOC2012/SegmentationClass/a.png"
    Image.fromarray(np.zeros((48, 64), dtype=np.uint8)).save(file)
    refused("voc", source, r"a\.png: value 1: has no class in SegmentationClass/a\.png")
    file.unlink()
    refused("voc", source, r"SegmentationClass/a\.png: no such file")


def test_boxes_and_lines_are_counted(tmp_path: Path) -> None:
    """And boxes become rectangles where they may."""
    save_pictures(tmp_path / "in")
    square = {"label": "a", "shape_type": "rectangle", "points": [[30, 20], [10, 5]]}
    disc = {"label": "b", "shape_type": "circle", "points": [[40, 30], [40, 40]]}
    line = {"label": "c", "shape_type": "line", "points": [[1, 1], [2, 2]]}
    flat = {"label": "b", "shape_type": "polygon", "points": [[1, 1], [2, 2], [3, 3]]}
    for name in ("a", "b"):
        content = {"shapes": [square, disc, line, flat], "imagePath": f"{name}.png"}
        content |= {"imageHeight": 48, "imageWidth": 64}
        (tmp_path / "in" / f"{name}.json").write_text(json.dumps(content))
    done = import_set("labelme", tmp_path / "in", tmp_path / "new", Options())
    assert done.classes == ("b",)
    assert done.notes[0] == "left out, since they are no areas: 2 line"
    assert done.notes[1].startswith("left out: 2 objects of which only a box is known; --boxes")
    assert done.notes[2].startswith("2 instances without a pixel left out, the first at ")
    done = import_set("labelme", tmp_path / "in", tmp_path / "boxes", Options(boxes=True), share=0, link=True)
    assert done.classes == ("a", "b")
    content = json.loads((tmp_path / "boxes/annotations/instances_train.json").read_text())
    assert [each["area"] for each in content["annotations"][:1]] == [20 * 15]
    assert abs(content["annotations"][1]["area"] - 100 * np.pi) < 6
    assert (tmp_path / "boxes/train/a.png").samefile(tmp_path / "in/a.png")
    refused_again = Options()
    with pytest.raises(DataError, match="is there already"):
        import_set("labelme", tmp_path / "in", tmp_path / "boxes", refused_again)


def test_a_picture_may_be_in_the_json(written: Callable[[str], Path]) -> None:
    """As LabelMe stores it; older files have no sizes, where there is a picture."""
    source = written("LabelMe")
    data = (source / "photos" / "a.png").read_bytes()
    changed(source / "json" / "a.json", lambda c: c.__setitem__("imageData", base64.b64encode(data).decode()))
    changed(source / "json" / "b.json", lambda c: (c.pop("imageHeight"), c.pop("imageWidth")))
    (source / "photos" / "a.png").unlink()
    import_set("labelme", source, source.parent / "new", Options(), share=0)
    assert (source.parent / "new/train/a.png").read_bytes() == data
    assert check_data(source.parent / "new") == []
    changed(source / "json" / "a.json", lambda c: c.__setitem__("imageData", None))
    with pytest.raises(DataError, match=r"a\.json: imagePath: no image file '\.\.\\photos\\a\.png'"):
        import_set("labelme", source, source.parent / "other", Options())


def test_masks_of_one_object_may_be_jpegs(tmp_path: Path) -> None:
    save_pictures(tmp_path / "in/images")
    for name in NAMES:
        mask = np.zeros((48, 64), dtype=np.uint8)
        mask[8:24, 16:40] = 255
        (tmp_path / "in/masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / f"in/masks/{name}_1.jpg", quality=60)
    import_set("binary-masks", tmp_path / "in", tmp_path / "new", Options(), share=0)
    content = json.loads((tmp_path / "new/annotations/instances_train.json").read_text())
    assert {each["area"] for each in content["annotations"]} == {16 * 24}


def test_voc_in_colours(written: Callable[[str], Path]) -> None:
    """Of objects and of classes, as CVAT writes them: grey is a colour too, and VOC's border is none."""
    source = written("Pascal VOC")
    root = source / "VOCdevkit/VOC2012"
    classes = {1: (128, 128, 128), 2: (250, 50, 83)}
    (root / "labelmap.txt").write_text("background:0,0,0::\ncell:128,128,128::\ndebris:250,50,83::\n")
    for name in NAMES:
        for folder, colours in (
            ("SegmentationClass", classes),
            ("SegmentationObject", {n: (n, 90, 7) for n in range(9)}),
        ):
            values = np.asarray(Image.open(root / folder / f"{name}.png"))
            picture = np.zeros((*values.shape, 3), dtype=np.uint8)
            for value in np.unique(values).tolist():
                picture[values == value] = {0: (0, 0, 0), 255: (224, 224, 192)}.get(value) or colours[value]
            Image.fromarray(picture).save(root / folder / f"{name}.png")
    done = import_set("voc", source, source.parent / "new", Options())
    assert done.instances == {"train": 15, "val": 10}
    assert done.classes == ("cell", "debris")
