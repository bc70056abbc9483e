"""Windows of images: where they are, and reading them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dsctool.config.tiles_schema import TilesConfig
from dsctool.data.bands import RGB, Channels
from dsctool.data.images import Decoded, image_size, read_image, read_picture
from dsctool.data.tiff_windows import TiffPage
from dsctool.data.tiles import fits, random_window, tiles_of
from dsctool.data.windows import InMemory, Preview, open_windows
from dsctool.errors import DataError
from dsctool.ops.spans import Window


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 60), st.floats(0, 0.5))
def test_windows_cover_the_image_and_overlap_enough(height: int, width: int, side: int, overlap: float) -> None:
    config = TilesConfig(size=side, overlap=overlap)
    windows = tiles_of((height, width), config)
    assert all(each.size == (min(height, side), min(width, side)) for each in windows)
    for axis, length in ((0, width), (1, height)):
        starts, stops = (sorted({each[at] for each in windows}) for at in (axis, axis + 2))
        assert (starts[0], stops[-1]) == (0, length)
        shared = [stop - start for stop, start in zip(stops[:-1], starts[1:], strict=True)]
        assert all(each >= round(side * overlap) for each in shared)
    assert len(set(windows)) == len(windows)
    assert fits((height, width), config) == (len(windows) == 1)


def test_random_windows_are_around_instances_where_they_shall() -> None:
    boxes = torch.tensor([[290.0, 100, 300, 120]])
    torch.manual_seed(0)
    for around, share in ((1.0, 1.0), (0.0, 0.1)):
        config = TilesConfig(size=50, around=around)
        windows = [random_window((200, 600), config, boxes) for _ in range(100)]
        assert all(each.size == (50, 50) and each.x1 >= 0 and each.x2 <= 600 and each.y2 <= 200 for each in windows)
        hit = [each for each in windows if each.x1 <= 295 <= each.x2 and each.y1 <= 110 <= each.y2]
        assert len(hit) == 100 if share == 1 else len(hit) < 100 * share
        assert len({each.x1 for each in windows}) > 20
    assert random_window((40, 30), TilesConfig(size=50, around=1.0), boxes[:0]) == Window(0, 0, 30, 40)


KINDS = ("rgb.png", "rgb.jpg", "grey.png", "grey16.png", "palette.png", "rgba.png", "turned.jpg", "cmyk.jpg")
TIFFS = ("raw", "tiff_lzw", "tiff_adobe_deflate")


def saved(path: Path) -> Path:
    """A picture of a kind, 70 x 50 pixels."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    match path.stem:
        case "grey":
            image = image.convert("L")
        case "grey16":
            image = Image.fromarray(random.integers(0, 65536, (50, 70), dtype=np.uint16))
        case "palette":
            image = image.quantize(16)
        case "rgba":
            image = image.convert("RGBA")
        case "cmyk":
            image = image.convert("CMYK")
    exif = Image.Exif()
    if path.stem == "turned":
        exif[0x0112] = 6
    if path.suffix == ".tif":
        image.save(path, compression=path.parent.name, strip_size=70 * 3 * 8)
    else:
        image.save(path, exif=exif)
    return path


@pytest.mark.parametrize("name", KINDS)
def test_windows_are_parts_of_what_is_read_whole(name: str, tmp_path: Path) -> None:
    assert_parts(saved(tmp_path / name))


@pytest.mark.parametrize("compression", TIFFS)
@pytest.mark.parametrize("name", ["rgb.tif", "grey.tif", "grey16.tif", "rgba.tif"])
def test_windows_of_tiffs(name: str, compression: str, tmp_path: Path) -> None:
    """By strips where tifffile is there and can decode them, else decoded whole by Pillow."""
    (tmp_path / compression).mkdir()
    assert_parts(saved(tmp_path / compression / name))


def test_windows_of_a_tiff_stored_in_tiles(tmp_path: Path) -> None:
    import tifffile

    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    path = tmp_path / "tiled.tif"
    tifffile.imwrite(path, pixels, tile=(16, 32), photometric="rgb", compression="zlib")
    assert_parts(path)
    with open_windows(path) as windows:
        assert isinstance(windows._source, TiffPage), "by tiles"


def assert_parts(path: Path, channels: Channels = RGB, *, streamed: bool | None = None) -> None:
    """streamed: whether parts are decoded one by one."""
    whole = read_picture(path, None, channels)
    with open_windows(path, channels=channels) as windows:
        assert windows.size == tuple(whole.pixels.shape[-2:]) == image_size(path)
        for window in (Window(0, 0, windows.size[1], windows.size[0]), Window(13, 7, 41, 33), Window(40, 20, 50, 50)):
            part, expected = windows.read(window), InMemory(whole).read(window)
            assert torch.equal(part.pixels, expected.pixels)
            if not any("black" in remark for remark in whole.remarks):
                assert torch.equal(part.shown, expected.shown)
        assert windows.remarks() == whole.remarks
        if streamed is not None:
            assert isinstance(windows._source, TiffPage) == streamed


RANGES = ("full", "minmax", "percentile", (100.0, 3000.0))


@pytest.mark.parametrize("span", RANGES)
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_windows_of_other_bands_and_ranges(bands: int, dtype: str, span: Any, tmp_path: Path) -> None:
    """A range that follows from the picture is that of the whole, wherever the window lies."""
    import tifffile

    top = 256 if dtype == "uint8" else 4096
    values = np.random.default_rng(0).integers(0, top, (50, 70, bands)).astype(dtype)
    values[:25] //= 3  # the ranges of windows differ
    path = tmp_path / "x.tif"
    rgb = bands in (3, 4)
    kind = {"photometric": "rgb" if rgb else "minisblack", "planarconfig": "contig"} if bands > 1 else {}
    tifffile.imwrite(path, values if bands > 1 else values[:, :, 0], compression="zlib", rowsperstrip=8, **kind)
    chosen_bands = {1: None, 2: (2, 1), 3: None, 4: (4, 1, 1), 8: (7, 2, 5)}[bands]
    channels = Channels({1: 1, 2: 2}.get(bands, 3), chosen_bands, span)
    if span == "full" and dtype == "float32":
        with (
            pytest.raises(DataError, match=r"x\.tif: holds 32-bit floating-point values"),
            open_windows(path, channels=channels),
        ):
            pass
        return
    simple = dtype in ("uint8", "uint16") and span in ("full", (100.0, 3000.0))
    assert_parts(path, channels, streamed=simple if bands in (1, 3, 8) else None)


def test_windows_of_what_says_no_value(tmp_path: Path) -> None:
    import tifffile

    values = np.random.default_rng(0).integers(0, 50, (50, 70)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", values, extratags=[(42113, "s", 0, "7", True)])
    for span in RANGES:
        assert_parts(tmp_path / "x.tif", Channels(1, None, span))


@pytest.mark.parametrize("page", [None, 1, 2, "stack"])
def test_windows_of_pages(page: Any, tmp_path: Path) -> None:
    import tifffile

    values = np.random.default_rng(0).integers(0, 256, (2, 50, 70), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="minisblack")
    assert_parts(tmp_path / "x.tif", Channels(2 if page == "stack" else 1, page=page), streamed=page != "stack")
    with (
        pytest.raises(DataError, match=r"has 2 pages, and data\.page is 3"),
        open_windows(tmp_path / "x.tif", channels=Channels(1, page=3)),
    ):
        pass


@pytest.mark.parametrize("mode", ["1", "LA", "L;4", "multiplied"])
def test_windows_of_kinds_that_are_left_to_the_whole_reading(mode: str, tmp_path: Path) -> None:
    """Fewer bits, alpha that colours are multiplied by: never streamed to other pixels than Pillow gives."""
    import tifffile

    random, path = np.random.default_rng(0), tmp_path / "x.tif"
    if mode == "multiplied":
        pixels = random.integers(0, 256, (50, 70, 4), dtype=np.uint8)
        tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=["assocalpha"])
    else:
        grey = Image.fromarray(random.integers(0, 256, (50, 70), dtype=np.uint8))
        grey.convert("1" if mode == "1" else "LA" if mode == "LA" else "L").save(path)
    for channels in (RGB, Channels(1, (1,)), Channels(1, (1,), (0.0, 99.0))):
        assert_parts(path, channels)


def test_what_is_nearly_black_is_shown_and_said(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (50, 70), dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "x.tif")
    with open_windows(tmp_path / "x.tif") as windows:
        preview = Preview((50, 70))
        for window in tiles_of((50, 70), TilesConfig(size=32, overlap=0.25)):
            preview.add(window, windows.read(window).shown)
        (said,) = windows.remarks()
        shown = windows.for_people(preview.pixels)
    assert "becomes black or nearly so: its 16-bit values are below 4096" in said
    assert int(preview.pixels.max()) < 16
    assert int(shown.max()) > 240
    assert len(shown.unique()) == len(preview.pixels.unique())


def test_broken_files_are_named(tmp_path: Path) -> None:
    whole = saved(tmp_path / "rgb.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    for name, said in (("cut.jpg", "cannot be decoded"), ("missing.png", "no such file")):
        with pytest.raises(DataError, match=rf"{name}: {said}"), open_windows(tmp_path / name):
            pass
    with open_windows(tmp_path / "rgb.jpg") as _, pytest.raises(ValueError, match="mine"):
        raise ValueError("mine")
    with pytest.raises(DataError, match="annotation says"), open_windows(tmp_path / "rgb.jpg", (5, 5)):
        pass


def test_images_above_the_decompression_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By windows, or where the annotation announces their size; else the message names the switch."""
    path = saved(tmp_path / "rgb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"rgb\.png: is larger than Pillow opens.*--tiles 1024"):
        read_image(path)
    assert image_size(path) == (50, 70)
    assert read_image(path, (50, 70)).shape == (3, 50, 70)
    with open_windows(path) as windows:
        assert windows.read(Window(0, 0, 20, 10)).pixels.shape == (3, 10, 20)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_previews_are_made_of_windows() -> None:
    whole = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)
    for longest, factor in ((70, 1), (20, 4)):
        preview = Preview((50, 70), longest=longest)
        for window in tiles_of((50, 70), TilesConfig(size=32, overlap=0.25)):
            preview.add(window, InMemory(Decoded(whole, whole)).read(window).shown)
        height, width = 50 // factor, 70 // factor
        cut = whole[:, : height * factor, : width * factor].float()
        means = cut.reshape(3, height, factor, width, factor).mean(dim=(2, 4)).round()
        assert torch.equal(preview.pixels.float(), means)
