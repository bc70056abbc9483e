"""What programs are warned of, where commands print it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dsctool
from dsctool.errors import PictureWarning
from tests.models.tiny import tiny_detector

SMALL = ("data.test_resize={short_sides: [32], long_side: 48}", "postprocess.score_threshold=0")


@pytest.fixture(scope="module")
def model() -> dsctool.Detector:
    return tiny_detector("htc_tiny", SMALL)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two that are shrunk, one of 12 bits, and one as the model likes it."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number, size in enumerate([(150, 200), (160, 200), (32, 48)]):
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    Image.fromarray(random.integers(0, 4096, (32, 48), dtype=np.uint16)).save(folder / "3.png")
    return sorted(folder.iterdir())


def warned(work: Callable[[], object]) -> list[str]:
    """Each about a line of this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    assert {each.category for each in caught} <= {PictureWarning}
    assert {each.filename for each in caught} <= {__file__}
    return [str(each.message) for each in caught]


def both_ways(model: dsctool.Detector, photos: list[Path]) -> list[list[str]]:
    return [
        warned(lambda: model.predict_images(photos)),
        warned(lambda: [found for _, found in dsctool.predict_images(model, photos)]),
    ]


def test_pictures(model: dsctool.Detector, photos: list[Path]) -> None:
    """Once of each kind."""
    for said in both_ways(model, photos):
        assert len(said) == 2
        assert said[0].startswith(f"{photos[0]}: 200x150 is shrunk 5 times: a 40-pixel object becomes 9; use")
        assert said[1].startswith(f"{photos[3]}: becomes black or nearly so: its 16-bit values are below 4096")
    (said_of_pixels,) = warned(lambda: model.predict_images(np.asarray(Image.open(photos[1]))))
    assert said_of_pixels.startswith("image 1: 200x160 is shrunk 5 times")
    assert both_ways(model, photos[2:3]) == [[], []]


@pytest.mark.parametrize("tiles", ["null", "{size: 40}"])
def test_small_instances(photos: list[Path], monkeypatch: pytest.MonkeyPatch, tiles: str) -> None:
    """Of those alone that are likely to be there."""
    model = tiny_detector("htc_tiny", [*SMALL, f"data.tiles={tiles}"])
    monkeypatch.setattr("dsctool.engine.object_sizes.SMALL", 1000)
    quiet = both_ways(model, photos[2:3])
    monkeypatch.setattr("dsctool.engine.told.LIKELY", 0)
    assert quiet == [[], []]
    (note,) = warned(lambda: [found for _, found in dsctool.predict_images(model, photos[2])])
    assert note.startswith("100 % of ")
    assert ("--tiles 20" in note) == (tiles != "null")
