"""COCO's panoptic format: what is read, what is written, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dsctool.data.panoptic import (
    PanopticCategory,
    PanopticWriter,
    Segment,
    places_of,
    read_ids,
    read_panoptic,
    run_starts,
    write_ids,
)
from dsctool.data.panoptic_rules import LARGEST_SEGMENT
from dsctool.errors import DataError

CATEGORIES = [
    PanopticCategory(1, "person", True, (220, 20, 60), "person"),
    PanopticCategory(193, "grass-merged", False, (152, 251, 152), "plant"),
]
IDS = np.array([[0, 0, 7, 7, 7], [70_000, 0, 7, 0, 16_777_215], [70_000, 70_000, 0, 0, 16_777_215]], dtype=np.int32)
SEGMENTS = [(7, 1), (16_777_215, 193), (70_000, 1)]


def written(folder: Path, ids: np.ndarray = IDS, segments: list[tuple[int, int]] = SEGMENTS) -> Path:
    path = folder / "results" / "panoptic.json"
    with PanopticWriter(path, CATEGORIES) as writer:
        writer.add(3, "a/3.jpg", ids, segments, crowds=[70_000])
    return path


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


# --- reading and writing ----------------------------------------------------------------------------


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file = read_panoptic(written(tmp_path))
    assert list(file.categories) == CATEGORIES
    assert (file.images[3].file_name, file.images[3].size) == ("a/3.jpg", (3, 5))
    (entry,) = file.entries.values()
    assert (entry.image_id, entry.file_name, entry.size) == (3, "a/3.png", (3, 5))
    assert entry.segments == (
        Segment(7, 1, 4, (2, 0, 3, 2), False),
        Segment(16_777_215, 193, 2, (4, 1, 1, 2), False),
        Segment(70_000, 1, 3, (0, 1, 2, 2), True),
    )
    ids = file.ids(entry)
    assert ids.dtype == np.int32
    assert np.array_equal(ids, IDS)
    assert {path.name for path in (tmp_path / "results").rglob("*")} == {"panoptic.json", "panoptic", "a", "3.png"}


def test_pixels_are_red_then_green_then_blue(tmp_path: Path) -> None:
    write_ids(tmp_path / "x.png", np.array([[1 + 256 * 2 + 65536 * 3]]))
    with Image.open(tmp_path / "x.png") as image:
        assert (image.mode, image.getpixel((0, 0))) == ("RGB", (1, 2, 3))


def test_areas_and_boxes_are_counted_as_defined(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    ids = random.choice([0, 3, 9, 100_000, 16_777_215], size=(23, 31), p=[0.5, 0.3, 0.1, 0.09, 0.01]).astype(np.int32)
    file = read_panoptic(written(tmp_path, ids, [(100_000, 1), (9, 193), (3, 1), (16_777_215, 1)]))
    for segment in file.entries[3].segments:
        rows, columns = np.nonzero(ids == segment.id)
        box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert (segment.area, segment.bbox) == (len(rows), box)


def test_runs_and_places_as_defined() -> None:
    random = np.random.default_rng(1)
    one, other = (random.integers(0, 4, (9, 13)).astype(np.int32).repeat(3, 1) for _ in range(2))
    starts = run_starts(one, other)
    lengths = np.diff(starts, append=one.size)
    for ids in (one, other):
        assert np.array_equal(ids.ravel()[starts].repeat(lengths), ids.ravel())
    pairs = np.stack([one, other], -1).reshape(-1, 2)
    assert starts.tolist() == [
        pixel
        for pixel in range(one.size)
        if pixel % one.shape[1] == 0 or pairs[pixel].tolist() != pairs[pixel - 1].tolist()
    ]
    segments = [3, 1, LARGEST_SEGMENT]
    found = places_of(np.array([0, 1, 2, 3, LARGEST_SEGMENT, LARGEST_SEGMENT - 1]), segments)
    assert found.tolist() == [1, 3, 0, 2, 4, 0]
    assert places_of(np.array([0, 5]), []).tolist() == [1, 0]


def test_a_segment_without_pixels_is_left_out(tmp_path: Path) -> None:
    file = read_panoptic(written(tmp_path, segments=[*SEGMENTS, (8, 193)]))
    assert [segment.id for segment in file.entries[3].segments] == [7, 16_777_215, 70_000]


def test_results_need_no_more_than_ids_and_categories(tmp_path: Path) -> None:
    def strip(content: dict[str, Any]) -> None:
        del content["images"], content["categories"]
        for segment in content["annotations"][0]["segments_info"]:
            for key in ("area", "bbox", "iscrowd"):
                del segment[key]
            segment["category_id"] = 4711

    path = changed(written(tmp_path), strip)
    with pytest.raises(DataError, match="missing key 'categories'"):
        read_panoptic(path)
    file = read_panoptic(path, results=True)
    assert file.entries[3].segments[0] == Segment(7, 4711)
    assert np.array_equal(file.ids(file.entries[3]), IDS)


def test_images_may_have_names_for_ids(tmp_path: Path) -> None:
    with PanopticWriter(tmp_path / "x.json", CATEGORIES) as writer:
        writer.add("frankfurt_0", "frankfurt_0.png", IDS, SEGMENTS)
    assert list(read_panoptic(tmp_path / "x.json").entries) == ["frankfurt_0"]


def test_the_real_file_is_read_and_written_as_it_is(real_data: Path, tmp_path: Path) -> None:
    real = read_panoptic(real_data / "panoptic/coco-panoptic-2img/annotations/panoptic_val2017.json")
    assert (len(real.categories), sum(each.is_thing for each in real.categories)) == (133, 80)
    with PanopticWriter(tmp_path / "x.json", real.categories) as writer:
        for entry in real.entries.values():
            listed = [(segment.id, segment.category_id) for segment in entry.segments]
            crowds = [segment.id for segment in entry.segments if segment.is_crowd]
            assert crowds
            writer.add(entry.image_id, real.images[entry.image_id].file_name, real.ids(entry), listed, crowds)
    copy = read_panoptic(tmp_path / "x.json")
    assert (copy.categories, copy.images, copy.entries) == (real.categories, real.images, real.entries)


# --- what is refused in a file ----------------------------------------------------------------------


def at(*keys: str | int, to: object) -> Callable[[dict[str, Any]], object]:
    """A change of the value at ``keys``; to ``...``: it is removed."""

    def change(content: Any) -> None:
        *way, last = keys
        for key in way:
            content = content[key]
        if to is ...:
            del content[last]
        else:
            content[last] = to

    return change


ENTRY = ("annotations", 0)
SEGMENT = (*ENTRY, "segments_info", 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (at("annotations", to=...), "missing key 'annotations'"),
        (at("annotations", to={}), "'annotations' must be a list, not an object"),
        (at("annotations", 0, to=5), r"annotations\[0\]: must be an object, not a number"),
        (at(*ENTRY, "image_id", to=...), r"annotations\[0\]: missing key 'image_id'"),
        (at(*ENTRY, "image_id", to=1.5), r"annotations\[0\]: image_id must be a whole number or a text, not 1.5"),
        (at(*ENTRY, "image_id", to=4), "image 4: unknown image"),
        (at(*ENTRY, "file_name", to=...), "image 3: missing key 'file_name'"),
        (at(*ENTRY, "file_name", to="../3.png"), "image 3: file_name '../3.png' leads out of its folder"),
        (at(*ENTRY, "file_name", to="/3.png"), "image 3: file_name '/3.png' leads out of its folder"),
        (at(*ENTRY, "file_name", to=" "), "image 3: file_name must be a path, not ' '"),
        (at(*ENTRY, "segments_info", to=...), "image 3: missing key 'segments_info'"),
        (at(*ENTRY, "segments_info", to="ab"), "image 3: segments_info must be a list, not a string"),
        (at(*SEGMENT, to=None), r"image 3: segments_info\[1\] must be an object, not null"),
        (at(*SEGMENT, "id", to=...), r"image 3: segments_info\[1\] \(id null\): missing key 'id'"),
        (at(*SEGMENT, "id", to=0), r"image 3: segments_info\[1\] \(id 0\): id must be a whole number from 1 to 16777"),
        (at(*SEGMENT, "id", to=2**24), r"\(id 16777216\): id must be"),
        (at(*SEGMENT, "id", to=True), r"\(id True\): id must be"),
        (at(*SEGMENT, "id", to=7), r"image 3: segments_info\[1\] \(id 7\): duplicate id"),
        (at(*SEGMENT, "category_id", to=...), r"\(id 16777215\): missing key 'category_id'"),
        (at(*SEGMENT, "category_id", to="x"), "category_id must be a whole number, not 'x'"),
        (at(*SEGMENT, "category_id", to=2), r"\(id 16777215\): unknown category: category_id 2 is"),
        (at(*SEGMENT, "area", to=...), "missing key 'area'"),
        (at(*SEGMENT, "area", to=-1), "area must be a number of pixels, not -1"),
        (at(*SEGMENT, "area", to="4"), "area must be a number of pixels, not '4'"),
        (at(*SEGMENT, "iscrowd", to=2), "iscrowd must be 0 or 1, not 2"),
        (at(*SEGMENT, "bbox", to=[1, 2, 3]), "bbox must be four numbers"),
        (at("categories", 1, "id", to=...), r"categories\[1\] \(no id\): missing key 'id'"),
        (at("categories", 1, "id", to=1), "category 1: duplicate id"),
        (at("categories", 1, "id", to=1.5), "category 1.5: id must be a whole number"),
        (at("categories", 1, "isthing", to=...), "category 193: missing key 'isthing'"),
        (at("categories", 1, "isthing", to=2), "category 193: isthing must be 0 or 1, not 2"),
        (at("categories", 1, "name", to=5), "category 193: name must be text, not 5"),
        (at("categories", 1, "color", to=[0, 0, 256]), "category 193: color must be three whole numbers"),
        (at("categories", to=[]), "has no categories"),
        (at("images", 0, "id", to=...), r"images\[0\] \(no id\): missing key 'id'"),
    ],
)  # fmt: skip
def test_faults_are_named(tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str) -> None:
    path = changed(written(tmp_path), change)
    with pytest.raises(DataError, match=f"panoptic\\.json: ?.*{said}") as caught:
        read_panoptic(path)
    assert "\n" not in str(caught.value)


VALUES = [None, True, -1, 0, 3, 2**70, 1.5, "", "x", "\ud800", "a/../b", [], [1, 2, 3], {}, {"id": 1}]


def test_no_value_anywhere_does_worse_than_to_be_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    text = path.read_text()
    messages = []
    for way in _ways(json.loads(text)):
        for value in VALUES:
            content = json.loads(text)
            at(*way, to=value)(content)
            path.write_text(json.dumps(content))
            for results in (False, True):
                try:
                    read_panoptic(path, results=results)
                except DataError as error:
                    messages.append(str(error))
    assert len(messages) > 500
    assert all(message.startswith(str(path)) and "\n" not in message for message in messages)


def _ways(value: Any, way: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """To every value in it."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, each in inside for found in [(*way, key), *_ways(each, (*way, key))]]


def test_what_the_format_lets_be_missing_may_be_missing(tmp_path: Path) -> None:
    path = written(tmp_path)
    for change in (
        at("images", to=...),
        at(*SEGMENT, "bbox", to=...),
        at(*SEGMENT, "iscrowd", to=None),
        at("categories", 0, "color", to=...),
        at("categories", 0, "supercategory", to=...),
    ):
        changed(path, change)
    file = read_panoptic(path)
    assert file.categories[0] == PanopticCategory(1, "person", True, (0, 0, 0), "")
    assert (file.images, file.entries[3].size, file.entries[3].segments[1].bbox) == ({}, None, None)
    assert not file.entries[3].segments[1].is_crowd


def test_an_image_has_one_entry(tmp_path: Path) -> None:
    path = changed(written(tmp_path), lambda content: content["annotations"].append(content["annotations"][0]))
    for results in (False, True):
        with pytest.raises(DataError, match=r"panoptic\.json: image 3: duplicate image"):
            read_panoptic(path, results=results)


def test_the_file_is_called_json(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("{}")
    with pytest.raises(DataError, match=r"x\.txt: the name of a panoptic file ends in \.json"):
        read_panoptic(tmp_path / "x.txt")


# --- what is refused in a PNG -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16"])
def test_other_kinds_of_png_are_refused(tmp_path: Path, mode: str) -> None:
    """Their values would be taken for ids that they are not."""
    Image.new(mode, (4, 3)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match=f"x.png: a panoptic map is a PNG of the kind RGB, this is PNG .* {mode}"):
        read_ids(tmp_path / "x.png")


def test_pixels_that_a_compression_changed_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "x.png").open("wb") as file:
        Image.new("RGB", (4, 3)).save(file, "jpeg")
    with pytest.raises(DataError, match=r"x\.png: .* this is JPEG"):
        read_ids(tmp_path / "x.png")


def test_broken_pngs_name_the_file_and_the_image(tmp_path: Path) -> None:
    path = written(tmp_path)
    file = read_panoptic(path)
    png = file.folder / "a" / "3.png"
    write_ids(png, IDS[:2])
    with pytest.raises(DataError, match=r"3\.png: is 5 x 2 pixels, should be 5 x 3 .*\(image 3 of .*panoptic\.json\)"):
        file.ids(file.entries[3])
    png.write_bytes(png.read_bytes()[:50])
    with pytest.raises(DataError, match=r"3\.png: cannot be decoded: .*\(image 3 of "):
        file.ids(file.entries[3])
    png.unlink()
    with pytest.raises(DataError, match=r"3\.png: no such file \(image 3 of "):
        file.ids(file.entries[3])


# --- what is not written ----------------------------------------------------------------------------


def other(**changes: Any) -> dict[str, Any]:
    return {"image_id": 4, "file_name": "4.jpg", "ids": IDS, "segments": SEGMENTS} | changes


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (other(image_id=3), "image 3: is there already"),
        (other(file_name="../4.jpg"), "image 4: file_name '../4.jpg' leads out"),
        (other(file_name="/tmp/4.jpg"), "image 4: file_name '/tmp/4.jpg' leads out"),
        (other(file_name="C:\\4.jpg"), "image 4: file_name .* leads out"),
        (other(file_name="."), "image 4: file_name must be a path"),
        (other(file_name="A/3.png"), "image 4: file_name 'A/3.png': another image has the PNG"),
        (other(segments=SEGMENTS[:2]), "image 4: segment 70000 is in the pixels, and not in the list"),
        (other(segments=[*SEGMENTS, (7, 193)]), r"image 4: segments_info\[3\] \(id 7\): duplicate id"),
        (other(segments=[*SEGMENTS, (0, 193)]), r"image 4: segments_info\[3\] \(id 0\): id must be"),
        (other(segments=[*SEGMENTS, (8, 5)]), "image 4: segment 8: unknown category: 5"),
        (other(ids=IDS - 1), "image 4: ids must be whole numbers from 0 to 16777215"),
        (other(ids=IDS + 1), "image 4: ids must be whole numbers from 0 to 16777215"),
        (other(ids=IDS.astype(np.float32)), "image 4: ids must be whole numbers"),
        (other(ids=IDS[None]), r"image 4: ids must be \(h, w\), not \(1, 3, 5\)"),
    ],
)
def test_nothing_is_written_of_what_is_refused(tmp_path: Path, call: dict[str, Any], said: str) -> None:
    path = tmp_path / "panoptic.json"
    with PanopticWriter(path, CATEGORIES) as writer:
        writer.add(3, "a/3.jpg", IDS, SEGMENTS)
        with pytest.raises(DataError, match=f"panoptic\\.json: {said}"):
            writer.add(**call)
    assert list(read_panoptic(path).entries) == [3]
    assert {each.name for each in tmp_path.rglob("*")} == {"panoptic.json", "panoptic", "a", "3.png"}


def test_without_an_end_there_is_no_file(tmp_path: Path) -> None:
    def stop() -> None:
        with PanopticWriter(tmp_path / "x.json", CATEGORIES) as writer:
            writer.add(3, "3.jpg", IDS, SEGMENTS)
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stop()
    assert not (tmp_path / "x.json").exists()
    assert np.array_equal(read_ids(tmp_path / "x" / "3.png"), IDS)


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    path = written(tmp_path)
    with pytest.raises(DataError, match=r"panoptic\.json: is there already"):
        written(tmp_path)
    assert list(read_panoptic(path).entries) == [3]
    with pytest.raises(DataError, match=r"ends in \.json"):
        PanopticWriter(tmp_path / "x", CATEGORIES)
    with pytest.raises(DataError, match="two categories have one id"):
        PanopticWriter(tmp_path / "y.json", [*CATEGORIES, CATEGORIES[0]])
