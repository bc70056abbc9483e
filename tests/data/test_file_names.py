"""Files are found under other spellings of their names where exactly one fits, and never outside their folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from unicodedata import normalize

import pytest
from PIL import Image

from dsctool.config.schema import DataConfig
from dsctool.data.checks import check_data, check_for_training
from dsctool.data.coco import CocoDataset
from dsctool.data.file_names import hint, image_path, only_file
from tests.data.pieces import HEIGHT, WIDTH, pieces, write_pieces

_NAME = "Zäpfchen_ö1.png"

FOUND = {
    "another Unicode form": (normalize("NFD", _NAME), normalize("NFC", _NAME)),
    "and the other way round": (normalize("NFC", _NAME), normalize("NFD", _NAME)),
    "backslash": ("images\\img1.png", "images/img1.png"),
    "backslash in the file's name": ("images/img1.png", "images\\img1.png"),
    "mixed slashes": (".\\images/a\\img1.png", "images/a/img1.png"),
    "percent": ("my%20cell%231.png", "my cell#1.png"),
    "percent in the file's name": ("my cell.png", "my%20cell.png"),
    "letter case": ("IMG1.PNG", "img1.png"),
    "suffix in another case": ("img1.JPG", "img1.jpg"),
    "folders that are not there": ("data/upload/3/img1.png", "img1.png"),
    "some folders that are not there": ("train/sub/img1.png", "sub/img1.png"),
    "a folder that the name lacks": ("img1.png", "sub/img1.png"),
    "blanks around it": (" img1.png ", "img1.png"),
    "a doubled slash": ("sub//img1.png", "sub/img1.png"),
    "an address": ("https://x.org/a/img1.png?token=a%2Fb&v=1", "img1.png"),
    "an address in a store": ("s3://bucket/a/img1.png#1", "img1.png"),
    "wide characters": ("\uff49\uff4d\uff47\uff11.png", "img1.png"),
    "a blank that keeps words together": ("my\u00a0cell.png", "my cell.png"),
    "all of it": ("C%3A\\X\\SUB\\Caf%C3%A9 1.PNG".replace("C%3A", "c"), normalize("NFD", "sub/café 1.png")),
}


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize("kind", FOUND)
def test_the_only_file_that_fits_is_found(tmp_path: Path, kind: str) -> None:
    name, file = FOUND[kind]
    _touch(tmp_path, file, "another.png")
    assert image_path(tmp_path, name) == tmp_path / file
    assert only_file(tmp_path, name) == file


def test_a_file_of_just_that_name_goes_before_all_others(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png", "A.png", "sub/a.png", "sub/A.png")
    for name in ("a.png", "A.png", "sub/a.png", "sub/A.png"):
        assert image_path(tmp_path, name) == tmp_path / name


def test_where_several_fit_none_is_taken_and_they_are_named(tmp_path: Path) -> None:
    _touch(tmp_path, "a/img1.png", "b/img1.png")
    assert not image_path(tmp_path, "img1.png").exists()
    assert only_file(tmp_path, "img1.png") is None
    assert hint(tmp_path, "img1.png") == "'a/img1.png' and 'b/img1.png' fit: name one of them"


def test_letter_case_and_folders_decide_between_files(tmp_path: Path) -> None:
    _touch(tmp_path, "a/img1.png", "a/IMG1.png", "b/img1.png")
    assert image_path(tmp_path, "a\\IMG1.png") == tmp_path / "a/IMG1.png"
    assert image_path(tmp_path, "x/b/img1.png") == tmp_path / "b/img1.png"


def test_a_file_of_another_folder_is_not_taken(tmp_path: Path) -> None:
    """001.png of one class is not 001.png of another."""
    _touch(tmp_path, "dogs/001.png")
    assert not image_path(tmp_path, "cats/001.png").exists()
    assert hint(tmp_path, "cats/001.png") == "is 'dogs/001.png' meant, which is there?"


@pytest.mark.parametrize(("name", "meant"), [("img1.jpeg", "img1.jpg"), ("imge1.jpg", "img1.jpg")])
def test_a_similar_name_is_a_hint(tmp_path: Path, name: str, meant: str) -> None:
    _touch(tmp_path, "img1.jpg", "far-away.png")
    assert hint(tmp_path, name) == f"is '{meant}' meant, which is there?"


@pytest.mark.parametrize("name", ["../secret.png", "..\\secret.png", "/secret.png", "a/%2e%2e/%2e%2e/secret.png"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    _touch(tmp_path, "secret.png", "train/a.png")
    assert only_file(tmp_path / "train", name) is None
    _touch(tmp_path, "val/secret.png")
    assert only_file(tmp_path / "val", name) == "secret.png", "the last part of the name, in the folder"


def test_names_that_are_none_find_nothing(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png")
    for name in ("", " ", ".", "..", "\ud800.png", "x" * 5000, "a\0b.png"):
        assert only_file(tmp_path, name) is None


def test_check_and_training_take_the_same_files_and_say_so(tmp_path: Path) -> None:
    content = pieces()
    for entry in content["images"]:
        entry["file_name"] = f"D%20x\\{entry['file_name'].upper()}"
    files = write_pieces(tmp_path, content)
    (fault,) = check_data(tmp_path)
    assert (fault.subject, fault.severity) == ("file", "warning")
    assert "3 file names are written otherwise" in fault.message
    checked = check_for_training(files, DataConfig(), masks=True)
    assert [each.message for each in checked.faults] == [fault.message]
    dataset = CocoDataset.for_training(files, DataConfig(), exclude=checked.exclude, reading=checked.reading)
    assert len({float(dataset[index].image.mean()) for index in range(3)}) == 3


def test_a_file_that_is_guessed_for_two_names_is_a_fault(tmp_path: Path) -> None:
    content = pieces()
    content["images"][1]["file_name"] = "b/1.png"  # which is no file, and 1.png is another image's
    write_pieces(tmp_path, content)
    (fault,) = [fault for fault in check_data(tmp_path) if fault.severity == "error"]
    assert fault.id == 2
    assert "that of image 1 too" in fault.message


def test_a_missing_file_is_named_with_what_may_be_meant(tmp_path: Path) -> None:
    content = pieces()
    content["images"][1]["file_name"] = "2.jpg"
    write_pieces(tmp_path, content)
    (fault,) = check_data(tmp_path)
    assert fault.message.endswith("2.jpg: no such file: is '2.png' meant, which is there?")


@pytest.mark.parametrize("name", ["/data/upload/2.png", "../../2.png", "C:\\upload\\2.png"])
def test_a_name_that_leads_out_is_refused_with_what_may_be_meant(tmp_path: Path, name: str) -> None:
    content = pieces()
    content["images"][1]["file_name"] = name
    write_pieces(tmp_path, content)
    faults = [fault for fault in check_data(tmp_path) if fault.subject == "image"]
    assert [fault.id for fault in faults] == [2]
    assert "leads out of the image folder: is '2.png' meant" in faults[0].message


def test_images_that_are_learnt_and_measured_on_are_counted(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_pieces(tmp_path, split=split)
    Image.new("RGB", (WIDTH, HEIGHT), "red").save(tmp_path / "val" / "1.png")
    (fault,) = check_data(tmp_path)
    assert (fault.severity, fault.file.name) == ("note", "instances_val.json")
    assert fault.message.startswith("2 of 3 images are those of ")


def test_one_file_under_two_ids_is_a_warning(tmp_path: Path) -> None:
    content = pieces()
    content["images"].append({**content["images"][0], "id": 99})
    write_pieces(tmp_path, content)
    (fault,) = check_data(tmp_path)
    assert (fault.id, fault.severity, fault.kind) == (99, "warning", "duplicate")
    assert "file of image 1:" in fault.message


def test_a_copy_under_another_name_is_a_warning(tmp_path: Path) -> None:
    content = pieces()
    content["images"].append({**content["images"][0], "id": 99, "file_name": "copy.png"})
    files = write_pieces(tmp_path, content)
    shutil.copy(files.images / "1.png", files.images / "copy.png")
    (fault,) = check_data(tmp_path)
    assert (fault.id, fault.severity) == (99, "warning")
    assert "is a copy of the file of image 1:" in fault.message
