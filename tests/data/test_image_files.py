"""Which files a folder, a pattern or a name stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsctool.data.image_files import find_images, search_images
from dsctool.errors import DataError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name in (
        "b.jpg", "a.PNG", "clip.mp4", "raw.HEIC", "notes", ".hidden.png", "film.mpg",
        "inner/c.tif", "inner/deep/d.webp", "inner/deep/d.json", ".cache/e.png", "results/f.jpg",
    ):  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def names(root: Path, found: list[Path]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in found]


def test_a_folder(photos: Path) -> None:
    found = search_images([photos])
    assert names(photos, found.images) == ["a.PNG", "b.jpg"]
    assert found.note == "ignored 4 files: .heic, .mp4, .mpg, no suffix"
    assert find_images([photos]) == found.images


def test_folders_in_it(photos: Path) -> None:
    found = search_images([photos], recursive=True, output=photos / "results")
    assert names(photos, found.images) == ["a.PNG", "b.jpg", "inner/c.tif", "inner/deep/d.webp"]
    assert found.note == "ignored 5 files: .heic, .json, .mp4, .mpg, no suffix"
    assert "results/f.jpg" in names(photos, search_images([photos], recursive=True).images)
    assert names(photos, search_images([photos / "results"], recursive=True, output=photos / "results").images)


def test_links_to_folders_are_not_entered(photos: Path) -> None:
    (photos / "inner" / "again").symlink_to(photos)
    assert len(search_images([photos], recursive=True).images) == 5


@pytest.mark.parametrize(
    ("pattern", "recursive", "expected"),
    [
        ("*.jpg", False, ["b.jpg"]),
        ("*", False, ["a.PNG", "b.jpg"]),
        ("[ab].*", False, ["a.PNG", "b.jpg"]),
        ("**/*.[tw]*", False, ["inner/c.tif", "inner/deep/d.webp"]),
        ("inn*", True, ["inner/c.tif", "inner/deep/d.webp"]),
    ],
)
def test_patterns(photos: Path, pattern: str, recursive: bool, expected: list[str]) -> None:
    found = search_images([photos / pattern, photos / expected[0]], recursive=recursive)
    assert names(photos, found.images) == expected


def test_a_name_that_looks_like_a_pattern_is_a_name(photos: Path) -> None:
    (photos / "[b].jpg").write_bytes(b"")
    assert names(photos, find_images([photos / "[b].jpg"])) == ["[b].jpg"]


def test_a_file_is_taken_whatever_it_is_called(photos: Path) -> None:
    found = search_images([photos / "clip.mp4", photos])
    assert names(photos, found.images) == ["a.PNG", "b.jpg", "clip.mp4"]
    assert found.note == "ignored 3 files: .heic, .mpg, no suffix"


def test_a_link_to_nothing_is_not_passed_over(photos: Path) -> None:
    (photos / "gone.png").symlink_to(photos / "nothing.png")
    for source in (photos, photos / "*.png"):
        assert "gone.png" in names(photos, find_images([source])), "reading it says what is wrong"


@pytest.mark.parametrize(
    ("source", "recursive", "said"),
    [
        ("none", False, r"none: no such file or folder"),
        ("*.bmp", False, r"\*\.bmp: fits no image"),
        ("*.mp4", False, r"\*\.mp4: fits no image; ignored 1 file: \.mp4"),
        ("empty", False, r"empty: no images in this folder \(--recursive also searches the folders in it\); ignored 1"),
        ("empty", True, r"empty: no images in this folder or in those within it"),
    ],
)
def test_nothing_to_look_at(photos: Path, source: str, recursive: bool, said: str) -> None:
    (photos / "empty" / "inner").mkdir(parents=True)
    (photos / "empty" / "x.mov").write_bytes(b"")
    with pytest.raises(DataError, match=said):
        search_images([photos / source], recursive=recursive)
