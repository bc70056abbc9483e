"""From a file's values to a network's channels."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsctool.config.loading import load_config
from dsctool.data.bands import (
    PERCENTILES,
    RGB,
    Channels,
    Extremes,
    Raster,
    Span,
    chosen,
    for_people,
    remarks,
    rgb,
    to_bytes,
)
from dsctool.errors import DataError


def raster(bands: int, *, extra: int = 0) -> Raster:
    return Raster(np.random.default_rng(0).integers(0, 4000, (5, 7, bands)).astype(np.uint16), extra)


def one(pixel: float, low: float, high: float) -> int:
    """A pixel by itself, as the documentation has it."""
    if np.isnan(pixel) or high <= low:
        return 0
    return round(min(max((pixel - low) / (high - low), 0.0), 1.0) * 255)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([np.uint8, np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64]),
    st.sampled_from(["minmax", "percentile", (-10.0, 90.0), (100.0, 40000.0)]),
    st.integers(0, 2**31),
)
def test_ranges_are_their_definition(dtype: Any, span: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else None
    low, high = (-500, 500) if info is None else (max(info.min, -500), min(info.max, 60_000))
    values = rng.integers(low, high, (6, 5, 2)).astype(dtype)
    if info is None:
        values[0, 0, 1] = np.nan
    found = to_bytes(values, span, "x")
    assert found.dtype == np.uint8
    for band in (0, 1):
        known = values[..., band][~np.isnan(values[..., band].astype(float))].astype(float)
        ends = {"minmax": (known.min(), known.max()), "percentile": tuple(np.percentile(known, PERCENTILES))}
        expected = [one(float(pixel), *ends.get(span, span)) for pixel in values[..., band].ravel()]
        assert np.abs(found[..., band].ravel() - np.array(expected)).max() <= 1  # float32 at a half
        assert (found[..., band].ravel() == expected).mean() > 0.9


def test_a_flat_band_becomes_black_and_warns_of_nothing() -> None:
    flat = np.full((4, 4, 1), 700, np.uint16)
    for span in ("minmax", "percentile"):
        assert not to_bytes(flat, span, "x").any()
    assert not to_bytes(np.full((4, 4, 1), np.nan, np.float32), "minmax", "x").any()


@pytest.mark.parametrize(
    ("dtype", "lowest", "said"),
    [
        (np.int16, -70, r"signed 16-bit values, from -70 to 999.*data\.image_range=\[-70, 999\]"),
        (np.int32, 70_000, "signed 32-bit values"),
        (np.uint32, 70_000, "32-bit values"),
        (np.float32, 0.5, "32-bit floating-point values"),
    ],
)
def test_values_that_full_says_nothing_of_are_named(dtype: Any, lowest: float, said: str) -> None:
    values = np.full((3, 3, 1), 999, dtype)
    values[0, 0] = lowest
    with pytest.raises(DataError, match=said):
        to_bytes(values, "full", "x.tif")


def test_the_high_byte_stays() -> None:
    values = raster(2).values
    assert (to_bytes(values, "full", "x") == values // 256).all()
    assert (to_bytes(values.astype(np.int32), "full", "x") == values // 256).all()


@pytest.mark.parametrize(
    ("bands", "extra", "count", "expected"),
    [
        (1, 0, 3, [0, 0, 0]),
        (2, 1, 3, [0, 0, 0]),
        (3, 0, 3, [0, 1, 2]),
        (4, 1, 3, [0, 1, 2]),
        (4, 1, 4, [0, 1, 2, 3]),
        (5, 2, 3, [0, 1, 2]),
        (2, 1, 1, [0]),
        (2, 0, 2, [0, 1]),
        (8, 0, 8, list(range(8))),
    ],
)
def test_bands_that_need_no_choice(bands: int, extra: int, count: int, expected: list[int]) -> None:
    found = raster(bands, extra=extra)
    assert (chosen(found, Channels(count), "x") == found.values[..., expected]).all()


@pytest.mark.parametrize(("bands", "count"), [(2, 3), (8, 3), (4, 3), (3, 4), (1, 2), (5, 1)])
def test_bands_that_need_a_choice(bands: int, count: int) -> None:
    with pytest.raises(
        DataError, match=rf"x\.tif: has {bands} band.* of 16-bit values, and {count} channel.*channels="
    ):
        chosen(raster(bands), Channels(count), "x.tif")


def test_bands_are_chosen_by_number() -> None:
    found = raster(8)
    assert (chosen(found, Channels(3, (5, 3, 3)), "x") == found.values[..., [4, 2, 2]]).all()
    with pytest.raises(DataError, match=r"has 8 bands of 16-bit values, and data\.channels asks for number 9"):
        chosen(found, Channels(3, (9, 1, 1)), "x")


def test_grey_of_colours_is_pillows() -> None:
    from PIL import Image

    colours = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    grey = np.asarray(Image.fromarray(colours).convert("L")).astype(int)
    assert np.abs(chosen(Raster(colours), Channels(1), "x")[..., 0] - grey).max() <= 1


def test_a_few_pixels_that_always_shine_do_not_light_a_picture() -> None:
    values = np.full((60, 60, 1), 300, np.uint16)
    values[0, :3] = 65535
    for span, words in (
        ("full", "but for a few pixels, its 16-bit values"),
        ("minmax", "far above all"),
    ):
        channels = Channels(1, span=cast("Span", span))
        found = to_bytes(values, channels.span, "x")
        (told,) = remarks(Raster(values), Extremes.of(values, found), channels)
        assert words in told
        assert "Set data.image_range to percentile" in told
        top, rest = (Extremes.of(values[rows], found[rows]) for rows in (slice(2), slice(2, 60)))
        assert top.with_part(rest) == Extremes.of(values, found)
    values[:10] = 40000
    assert remarks(Raster(values), Extremes.of(values, to_bytes(values, "full", "x")), Channels(1)) == ()


def test_what_is_told() -> None:
    as_ones = Raster(np.eye(3, dtype=np.uint8)[..., None])

    def told(found: Raster, channels: Channels = RGB) -> tuple[str, ...]:
        values = chosen(found, channels, "x")
        return remarks(found, Extremes.of(values, to_bytes(values, channels.span, "x")), channels)

    assert told(Raster(np.zeros((3, 3, 3), np.uint8))) == ("is black: all its values are 0",)
    assert told(Raster(np.full((3, 3, 3), 16, np.uint8))) == ()
    assert "below 2 of 256. Set data.image_range to percentile, minmax or [0, 1]" in told(as_ones)[0]
    assert told(as_ones, Channels(span="minmax")) == ()
    assert told(Raster(np.zeros((3, 3, 1), np.uint16))) == ("is black: all its values are 0",)
    assert "no two values" in told(Raster(np.full((3, 3, 1), np.nan, np.float32)), Channels(span="minmax"))[0]
    (dim,) = told(raster(1))
    assert "nearly so: its 16-bit values are below 4096 of 65536" in dim
    assert "[0, 4095]" in dim
    assert told(raster(1), Channels(span="percentile")) == ()
    assert told(Raster(raster(1).values * 16)) == ()
    (halved,) = told(Raster(np.full((3, 3, 3), 7, np.uint8), halved=True))
    assert "below 2048" in halved
    assert "of which the first was taken" in told(Raster(np.full((3, 3, 3), 99, np.uint8), pages=3))[0]
    assert "becomes black" in told(raster(1), Channels(span=(5000.0, 9000.0)))[0]
    assert "becomes white" in told(raster(1), Channels(span=(-9.0, -5.0)))[0]


def test_people_see_colours_and_not_black() -> None:
    for count in (1, 2, 3, 8):
        pixels = torch.arange(count, dtype=torch.uint8)[:, None, None].expand(count, 2, 2)
        first = {1: [0, 0, 0], 2: [0, 1, 0]}.get(count, [0, 1, 2])
        assert rgb(pixels)[:, 0, 0].tolist() == first
    dim = raster(1)
    values = chosen(dim, RGB, "x")
    assert int(for_people(dim, values, to_bytes(values, "full", "x"), RGB).max()) == 255
    own = Channels(3, None, (0.0, 1e6))
    assert int(for_people(dim, values, to_bytes(values, own.span, "x"), own).max()) < 2  # as the network sees it


def test_a_configuration_says_it() -> None:
    assert Channels.of(load_config("htc_r50_fpn_1x_coco").data).plain
    changed = ["model.backbone.in_channels=2", "data.mean=[1,2]", "data.std=[1,2]", "data.channels=[4,2]"]
    data = load_config("htc_tiny", [*changed, "data.image_range=[0,4095]", "data.page=stack"]).data
    assert Channels.of(data) == Channels(2, (4, 2), (0.0, 4095.0), "stack")
