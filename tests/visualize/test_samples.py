"""The sheet of training samples shows what the loader gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dsctool.data.transforms import SampleInfo
from dsctool.engine.sets import open_data
from dsctool.structures import Targets
from dsctool.visualize import samples
from dsctool.visualize.samples import HEADER, MARGIN, TILE, TITLE, Shown, first_samples, save_samples
from tests.data.test_augmented_sets import configured, loader

MEAN, STD = (100.0, 110.0, 120.0), (50.0, 40.0, 30.0)


def sample(*, crowds: int = 0, masks: bool = True, name: str = "a.png") -> Shown:
    """An instance in the upper left of an image of 24 x 32 on a canvas of 32 x 32."""
    canvas = torch.ones(3, 32, 32)
    canvas[:, 24:] = 0
    bitmap = torch.zeros(1, 32, 32, dtype=torch.bool)
    bitmap[0, 4:12, 4:12] = True
    targets = Targets(
        boxes=torch.tensor([[4.0, 4.0, 12.0, 12.0]]),
        labels=torch.tensor([1]),
        masks=bitmap if masks else None,
        crowd=torch.tensor([[16.0, 8.0, 30.0, 20.0]])[:crowds],
    )
    return Shown(canvas, (24, 32), targets, SampleInfo(1, (48, 64), name))


def drawn(target: Path, *shown: Shown) -> np.ndarray:
    save_samples(target, shown, names=["cat", "dog"], mean=MEAN, std=STD, title="title", note="note")
    return np.asarray(Image.open(target))


def test_colours_are_those_of_the_image_and_padding_is_the_mean(tmp_path: Path) -> None:
    picture = drawn(tmp_path / "p.png", sample())
    top, left, scale = HEADER + TITLE, MARGIN, TILE // 32
    assert picture[top + 22 * scale, left + 20 * scale].tolist() == [150, 150, 150]
    assert picture[top + 30 * scale, left + 20 * scale].tolist() == [100, 110, 120]
    assert picture[top + 9 * scale, left + 9 * scale].tolist() != [150, 150, 150], "the tint of the mask"


def test_ignored_regions_are_hatched(tmp_path: Path) -> None:
    place = np.s_[HEADER + TITLE + 150 : HEADER + TITLE + 250, MARGIN + 300 : MARGIN + 400]
    plain, hatched = (drawn(tmp_path / "p.png", sample(crowds=count))[place] for count in (0, 1))
    assert len(np.unique(plain)) == 1
    assert 0.1 < (plain != hatched).any(-1).mean() < 0.6


def test_boxes_without_masks_and_images_without_anything(tmp_path: Path) -> None:
    empty = sample(masks=False)
    nothing = Targets(empty.targets.boxes[:0], empty.targets.labels[:0])
    pictures = [
        drawn(tmp_path / "p.png", empty),
        drawn(tmp_path / "p.png", Shown(empty.canvas, empty.size, nothing, empty.info)),
    ]
    assert (pictures[0] != pictures[1]).any()


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (4, 1), (5, 2)])
def test_the_grid_grows_by_rows(tmp_path: Path, count: int, rows: int) -> None:
    picture = drawn(tmp_path / "p.png", *[sample(name="folder/" * 40 + "end.png") for _ in range(count)])
    assert picture.shape[0] == HEADER + rows * (TITLE + TILE + MARGIN)


def test_titles_say_sizes_and_numbers() -> None:
    assert samples._titles(sample()) == ("a.png", "64 x 48 as 32 x 24, 1 instance")
    assert samples._titles(sample(crowds=1))[1].endswith("1 instance, 1 ignored")


def test_a_sheet_that_cannot_be_drawn_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="no room"):
        drawn(tmp_path / "p.png", sample())
    assert list(tmp_path.iterdir()) == []


def test_samples_are_the_first_of_the_run(synthetic_root: Path) -> None:
    config = configured("data.crop={size: 48}")
    dataset = open_data(config, synthetic_root).train_set
    found = first_samples(loader(dataset, config), 11)
    batches = loader(dataset, config)
    expected = [image for epoch in (0, 1) for (batch,) in batches.epoch(epoch) for image in batch[0].tensor]
    assert len(found) == 11
    assert all(torch.equal(one.canvas, other) for one, other in zip(found, expected, strict=False))
