"""Which mask belongs to which picture, in the layouts that people have."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsctool.data.importing.files import Images
from dsctool.data.importing.mask_files import pair_masks
from dsctool.data.importing.record import Options
from dsctool.errors import DataError

LAYOUTS = {
    "Penn-Fudan": ({"PNGImages/a.png": ["PedMasks/a_mask.png"]}, None),
    "Cellpose": ({"a.tif": ["a_cp_masks.png"], "b.tif": ["b_cp_masks.png"]}, None),
    "nnU-Net": ({"imagesTr/a_0000.png": ["labelsTr/a.png"]}, None),
    "parts in folders": ({"train/images/a.png": ["train/masks/a.png"], "val/images/a.png": ["val/masks/a.png"]}, None),
    "folders of parts": ({"images/train/a.png": ["masks/train/a.png"]}, None),
    "any folder beside": ({"leaves/a.jpg": ["leaf masks/a.png"]}, None),
    "classes": ({"images/a.png": ["masks/cat/a.png", "masks/dog/a.png"]}, ["cat", "dog"]),
    "plates": ({"images/p1/a.png": ["masks/p1/a.png"], "images/p2/a.png": ["masks/p2/a.png"]}, None),
    "classes and parts": ({"images/train/a.png": ["masks/train/cat/a.png"]}, ["cat"]),
}
FILES = {
    "numbered": ({"images/a.png": ["masks/a_1.png", "masks/a_cat_0.png"], "images/a_b.png": ["masks/a_b_2.png"]}, None),
    "folders": ({"images/a.png": ["masks/a/0.png", "masks/a/1.png"]}, None),
    "Data Science Bowl": ({"x/images/x.png": ["x/masks/0f.png"], "y/images/y.png": ["y/masks/1f.png"]}, None),
    "classes": ({"images/a.png": ["masks/cat/a_0.png", "masks/dog/a_0.png"]}, ["cat", "dog"]),
}


def pairs(root: Path, names: list[str], *, per_instance: bool, options: Options = Options()) -> dict[str, list[str]]:  # noqa: B008
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    images = Images(root)
    found, _ = pair_masks(images, options, per_instance=per_instance)
    return {images.name(each.path): [images.name(mask.path) for mask, _ in each.masks] for each in found}


@pytest.mark.parametrize(
    ("wanted", "classes", "per_instance"),
    [(*each, per_instance) for per_instance, layouts in ((False, LAYOUTS), (True, FILES)) for each in layouts.values()],
    ids=[*LAYOUTS, *(f"{name}, a file an instance" for name in FILES)],
)
def test_layouts(wanted: dict[str, list[str]], classes: list[str] | None, per_instance: bool, tmp_path: Path) -> None:
    names = [*wanted, *(mask for masks in wanted.values() for mask in masks)]
    assert pairs(tmp_path, names, per_instance=per_instance) == wanted
    found, notes = pair_masks(Images(tmp_path), Options(), per_instance=per_instance)
    assert notes == []
    assert [name for each in found for _, name in each.masks if name] == (classes or [])
    for each in found:
        assert each.split == next(
            (part for part in ("train", "val") if part in str(each.path.relative_to(tmp_path))), None
        )


def test_named_folders_win(tmp_path: Path) -> None:
    options = Options(images=Path("masks of old"), masks=Path("truth"))
    names = ["masks of old/a.png", "truth/a.png", "other/a.png"]
    assert pairs(tmp_path, names, per_instance=False, options=options) == {"masks of old/a.png": ["truth/a.png"]}
    with pytest.raises(DataError, match="nowhere: no such folder"):
        pair_masks(Images(tmp_path), Options(masks=Path("nowhere")), per_instance=False)


def test_what_fits_twice_or_never_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png: is the mask of each of 2 pictures: images/a\.jpg, images/a\.png"):
        pairs(tmp_path / "x", ["images/a.jpg", "images/a.png", "masks/a.png"], per_instance=False)
    with pytest.raises(DataError, match="no masks were found among 2 image files: name the folders"):
        pairs(tmp_path / "y", ["a.png", "b.png"], per_instance=False)
    with pytest.raises(DataError, match=r"c\.png: no picture is called 'c'"):
        pairs(tmp_path / "z", ["images/a.png", "images/b.png", "masks/c.png"], per_instance=False)
