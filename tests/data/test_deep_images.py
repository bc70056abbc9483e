"""Files with more than 8 bits, other bands than red, green and blue, and several pages."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin

from dsctool.config.loading import load_config
from dsctool.data.bands import Channels
from dsctool.data.image_files import number_images
from dsctool.data.images import image_size, picture_of, read_image, read_picture, shown_image
from dsctool.data.pictures import Remarks, picture_batches
from dsctool.errors import DataError

RNG = np.random.default_rng(0)
SHAPE = (24, 40)
BYTES = RNG.integers(0, 256, (*SHAPE, 8), dtype=np.uint8)
DEEP = RNG.integers(600, 4000, (*SHAPE, 8)).astype(np.uint16)
PERCENTILE, MINMAX = Channels(span="percentile"), Channels(span="minmax")


def pixels(path: Path, channels: Channels = Channels()) -> NDArray[np.uint8]:  # noqa: B008
    return read_image(path, None, channels).permute(1, 2, 0).numpy()


def write_tiff(path: Path, values: NDArray[Any], **options: Any) -> Path:
    """By tifffile, of whatever bands; ``(h, w, bands)``."""
    import tifffile

    if options.get("planarconfig") == "separate":
        values = values.transpose(2, 0, 1)
    planes = {"planarconfig": "contig"} if values.ndim > 2 else {}
    tifffile.imwrite(path, values, **{"photometric": "minisblack", **planes, **options})
    return path


def write_deep_png(path: Path, values: NDArray[np.uint16]) -> Path:
    """16 bits a channel, which Pillow does not write."""
    height, width, bands = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def write_pages(path: Path, pages: list[NDArray[Any]]) -> Path:
    first, *rest = map(Image.fromarray, pages)
    first.save(path, save_all=True, append_images=rest)
    return path


def minmax(values: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = values.min(axis=(0, 1)), values.max(axis=(0, 1))
    return np.rint((values.astype(float) - low) / (high - low) * 255).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_dim_grey_is_told_of_and_stretched(tmp_path: Path, suffix: str) -> None:
    grey = (DEEP[..., 0] % 200).astype(np.uint16)
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(grey).save(path)
    read = read_picture(path)
    assert not read.pixels.any()
    assert "below 256 of 65536" in read.remarks[0]
    assert int(read.shown.max()) == 255  # people see what there is
    assert (pixels(path, MINMAX) == minmax(grey[..., None])).all()
    assert read_picture(path, None, PERCENTILE).remarks == ()
    assert (pixels(path, Channels(1, None, (0.0, 199.0)))[..., 0] == np.rint(grey * (255 / 199))).mean() > 0.99


@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_several_deep_bands(tmp_path: Path, planes: str) -> None:
    path = write_tiff(tmp_path / "x.tif", DEEP[..., :3], planarconfig=planes)
    assert (pixels(path) == DEEP[..., :3] >> 8).all()
    assert (pixels(path, MINMAX) == minmax(DEEP[..., :3])).all()
    assert image_size(path) == SHAPE
    with pytest.raises(DataError, match="is 40 x 24 pixels, the annotation says 41 x 24"):
        read_image(path, (24, 41))


@pytest.mark.parametrize("bands", [2, 3, 4])
def test_deep_png(tmp_path: Path, bands: int) -> None:
    path = write_deep_png(tmp_path / "x.png", DEEP[..., :bands])
    assert (pixels(path, Channels(bands, span="minmax")) == minmax(DEEP[..., :bands])).all()
    if bands > 2:
        assert (pixels(path) == DEEP[..., :3] >> 8).all()
        assert "below 4096" in read_picture(path).remarks[0]


@pytest.mark.parametrize("values", [BYTES, DEEP])
@pytest.mark.parametrize("bands", [1, 2, 4, 8])
def test_all_bands_or_some(tmp_path: Path, values: NDArray[Any], bands: int) -> None:
    stored = values[..., :bands]
    path = write_tiff(tmp_path / "x.tif", stored if bands > 1 else stored[..., 0], compression="zlib")
    expected = minmax(stored)
    assert (pixels(path, Channels(bands, span="minmax")) == expected).all()
    last = Channels(3, (bands, 1, bands), "minmax")
    assert (pixels(path, last) == expected[..., [bands - 1, 0, bands - 1]]).all()
    assert shown_image(path).shape == (3, *SHAPE)
    if bands > 1 and (bands, stored.dtype) != (2, np.uint8):  # grey and something, of which the grey is taken
        with pytest.raises(DataError, match=rf"x\.tif: has {bands} bands of .*-bit values, and 3 channels are taken"):
            read_image(path)


def test_alpha_of_a_deep_tiff_is_dropped(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", DEEP[..., :4], photometric="rgb", extrasamples=["unassalpha"])
    assert (pixels(path, MINMAX) == minmax(DEEP[..., :3])).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", ["unspecified", "unassalpha"])
def test_bands_that_are_left_out_and_are_no_alpha_are_told_of(tmp_path: Path, dtype: Any, kind: str) -> None:
    values = BYTES[..., :4].astype(dtype) * (257 if dtype is np.uint16 else 1)
    path = write_tiff(tmp_path / "x.tif", values, photometric="rgb", extrasamples=[kind])
    said = read_picture(path).remarks
    assert [remark.partition(",")[0] for remark in said] == (
        ["has more bands than grey or colours: the last is left out"] if kind == "unspecified" else []
    )
    assert read_picture(path, None, Channels(3, (4, 1, 2))).remarks == ()


def test_signed_and_floating_point(tmp_path: Path) -> None:
    signed = DEEP[..., 0].astype(np.int16) - 1000
    Image.fromarray(DEEP[..., 0]).save(tmp_path / "x.tif")
    path = write_tiff(tmp_path / "x.tif", signed)
    low, high = int(signed.min()), int(signed.max())
    with pytest.raises(DataError, match=rf"x\.tif: holds signed 16-bit values, from {low} to {high}"):
        read_image(path)
    assert (pixels(path, MINMAX) == minmax(signed[..., None])).all()
    heights = signed.astype(np.float32) / 7
    heights[0, 0] = np.nan
    path = write_tiff(tmp_path / "f.tif", heights)
    assert pixels(path, PERCENTILE)[0, 0].tolist() == [0, 0, 0]
    assert pixels(path, MINMAX).max() == 255


def test_signed_values_of_8_bits_are_not_taken_for_others(tmp_path: Path) -> None:
    signed = (BYTES[..., 0] // 2).astype(np.int8)
    path = write_tiff(tmp_path / "x.tif", signed)
    assert (read_image(path).numpy() == signed).all(), "none is below 0"
    signed -= 64
    path = write_tiff(tmp_path / "x.tif", signed)
    with pytest.raises(DataError, match=rf"holds signed 8-bit values, from {signed.min()} to {signed.max()}"):
        read_image(path)
    assert (pixels(path, MINMAX) == minmax(signed[..., None])).all()


def test_wide_whole_numbers_and_complex_ones(tmp_path: Path) -> None:
    wide = DEEP[..., 0].astype(np.uint32) * 1_000_000
    path = write_tiff(tmp_path / "x.tif", wide)
    low, high = int(wide.min()), int(wide.max())
    with pytest.raises(DataError, match=rf"holds 32-bit values, from {low} to {high}.*image_range=\[{low}, {high}\]"):
        read_image(path)
    assert (pixels(path, MINMAX) == minmax(wide[..., None])).mean() > 0.99
    path = write_tiff(tmp_path / "c.tif", DEEP[..., 0].astype(np.complex64))
    for channels in (Channels(), MINMAX):
        with pytest.raises(DataError, match=r"c\.tif: has 1 band of 64-bit complex values, which are no picture"):
            read_image(path, None, channels)


@pytest.mark.parametrize("bands", [1, 4])
def test_pixels_without_a_value_are_black_and_stretch_nothing(tmp_path: Path, bands: int) -> None:
    values = DEEP[..., :bands].astype(np.int16)
    values[:4] = -9999
    stored = values if bands > 1 else values[..., 0]
    path = write_tiff(tmp_path / "x.tif", stored, extratags=[(42113, "s", 0, "-9999", True)])
    found = pixels(path, Channels(bands, span="minmax"))
    assert not found[:4].any()
    assert (found[4:] == minmax(values[4:])).mean() > 0.99
    assert (found[4:].max(axis=(0, 1)) == 255).all()


@pytest.mark.parametrize("suffix", ["tif", "gif"])
def test_pages(tmp_path: Path, suffix: str) -> None:
    path = write_pages(tmp_path / f"x.{suffix}", [BYTES[..., number] for number in range(3)])
    read = read_picture(path)
    assert (read.pixels[0].numpy() == BYTES[..., 0]).all()
    assert "has 3 pages, of which the first was taken" in read.remarks[0]
    second = read_picture(path, None, Channels(page=2))
    assert (second.pixels[0].numpy() == BYTES[..., 1]).all()
    assert second.remarks == ()
    stack = Channels(page="stack") if suffix == "tif" else Channels(3, (1, 4, 7), page="stack")  # a GIF is in colours
    assert (pixels(path, stack) == BYTES[..., :3]).all()
    with pytest.raises(DataError, match=r"has 3 pages, and data\.page is 4"):
        read_image(path, None, Channels(page=4))


def test_pages_of_deep_bands(tmp_path: Path) -> None:
    pages = np.stack([DEEP[..., :2], DEEP[..., 2:4]])
    path = write_tiff(tmp_path / "x.tif", pages, planarconfig="contig")
    assert (pixels(path, Channels(2, span="minmax", page=2)) == minmax(DEEP[..., 2:4])).all()
    assert (pixels(path, Channels(4, span="minmax", page="stack")) == minmax(DEEP[..., :4])).all()
    assert "has 2 pages" in read_picture(path, None, Channels(2)).remarks[0]


def test_smaller_copies_of_a_page_are_none(tmp_path: Path) -> None:
    import tifffile

    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(BYTES[..., 0], photometric="minisblack")
        file.write(BYTES[::2, ::2, 0], photometric="minisblack", subfiletype=1)
    assert read_picture(tmp_path / "x.tif").remarks == ()


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_orientation_of_a_tiff_is_as_of_a_jpeg(tmp_path: Path, orientation: int, deep: bool) -> None:
    stored = DEEP[..., :3] if deep else BYTES[..., :3]
    path, span = tmp_path / "x.tif", "minmax" if deep else "full"
    if deep:
        write_tiff(path, stored, extratags=[(274, "H", 1, orientation, True)])
    else:
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[274] = orientation
        Image.fromarray(stored).save(path, tiffinfo=tags)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    expected = minmax(stored) if deep else stored
    Image.fromarray(expected).save(tmp_path / "x.png", exif=exif)
    channels = Channels(span=span)  # type: ignore[arg-type]
    for size in {None, SHAPE, SHAPE if orientation < 5 else SHAPE[::-1]}:
        assert (read_image(path, size, channels) == read_image(tmp_path / "x.png", size)).all()
        assert image_size(path, size) == image_size(tmp_path / "x.png", size)


def test_without_tifffile_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiff(tmp_path / "x.tif", BYTES)
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(DataError, match=r"x\.tif: .*pip install 'dsctool\[tiff\]'"):
        read_image(path)
    Image.fromarray(DEEP[..., 0]).save(tmp_path / "grey.tif")
    assert pixels(tmp_path / "grey.tif", PERCENTILE).max() == 255  # Pillow suffices


@pytest.mark.parametrize("values", [DEEP, DEEP[..., 0]])
def test_a_cut_tiff_is_never_a_different_picture(tmp_path: Path, values: NDArray[Any]) -> None:
    path = write_tiff(tmp_path / "x.tif", values, rowsperstrip=4)
    whole, channels = path.read_bytes(), Channels(values.shape[-1] if values.ndim == 3 else 1, span="minmax")
    for length in range(0, len(whole) - 1, 397):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"x\.tif: "):
            read_image(path, None, channels)


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("x / 0"), KeyError(7), AssertionError(), RecursionError(), MemoryError()]
)
def test_whatever_a_decoder_raises_names_the_file_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    paths = [tmp_path / name for name in ("a.png", "odd.bmp", "z.png")]
    for path in paths:
        Image.fromarray(BYTES[..., :3]).save(path)
    from PIL import BmpImagePlugin

    def fail(self: Image.Image) -> None:
        raise error

    monkeypatch.setattr(BmpImagePlugin.BmpImageFile, "load", fail)
    faults: list[str] = []
    data = load_config("htc_tiny").data
    read = list(picture_batches(number_images(paths), data, on_fault=lambda fault: faults.append(str(fault))))
    assert [picture.file.path for _, _, (picture,) in read] == [paths[0], paths[2]]
    assert len(faults) == 1
    assert f"{paths[1]}: cannot be decoded: " in faults[0]


def test_nothing_of_the_decoders_is_on_standard_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = tmp_path / "x.tif"
    Image.fromarray(BYTES[..., :3]).save(whole, compression="tiff_lzw")
    damaged = bytearray(whole.read_bytes())
    damaged[200:208] = b"\xff" * 8
    whole.write_bytes(damaged)
    many = write_tiff(tmp_path / "many.tif", BYTES)  # more samples than Pillow takes, which it logs
    for path in (whole, many):
        with pytest.raises(DataError):
            read_image(path)
    assert capfd.readouterr().err == ""


def test_what_was_told_is_said_once_for_each_kind(tmp_path: Path) -> None:
    for name in "abc":
        Image.fromarray((DEEP[..., 0] % 200).astype(np.uint16)).save(tmp_path / f"{name}.tif")
    told, data = Remarks(), load_config("htc_tiny").data
    for _, _, (picture,) in picture_batches(number_images(sorted(tmp_path.iterdir())), data):
        told.add(picture)
    (note,) = told.notes()
    assert note.startswith(f"{tmp_path / 'a.tif'} and 2 more: becomes black")
    told.take([told, told])
    assert "and 5 more" in told.notes()[0]


@pytest.mark.parametrize("kind", ["array", "tensor", "view"])
def test_arrays_are_read_as_files(tmp_path: Path, kind: str) -> None:
    import torch

    path = write_tiff(tmp_path / "x.tif", DEEP)
    channels = Channels(4, (1, 3, 5, 8), "percentile")
    source: Any = {
        "array": DEEP,
        "tensor": torch.from_numpy(DEEP.transpose(2, 0, 1).copy()),
        "view": np.concatenate([DEEP, DEEP])[: SHAPE[0]].astype(">u2"),
    }[kind]
    found = picture_of(source, channels)
    assert (found.pixels == read_image(path, None, channels)).all()
    assert found.shown.shape == (3, *SHAPE)
    with pytest.raises(DataError, match=r"an? (array|tensor) must be"):
        picture_of(source)


def test_arrays_of_unclear_range_are_refused() -> None:
    for values in (DEEP.astype(np.int64), DEEP.astype(np.float32)):
        with pytest.raises(DataError, match=r"must be .*uint8 or uint16, not \(24, 40, 8\)"):
            picture_of(values, Channels(8))
    assert picture_of(DEEP.astype(np.float32), Channels(8, span="minmax")).pixels.shape == (8, *SHAPE)
    deep = picture_of(DEEP[..., 0])
    assert "below 4096" in deep.remarks[0]
