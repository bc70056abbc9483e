"""Image files as they come."""

from __future__ import annotations

import contextlib
import os
import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from dsctool.data.images import image_pixels, image_size, read_image
from dsctool.errors import DataError

RGB = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
SMOOTH = np.stack(np.meshgrid(np.arange(40), np.arange(24)), axis=-1)[..., [0, 1, 1]].astype(np.uint8) * 5


def _read(tmp_path: Path, image: Image.Image, name: str = "image.png") -> np.ndarray:
    image.save(tmp_path / name)
    tensor = read_image(tmp_path / name)
    assert tensor.dtype == torch.uint8
    assert tensor.is_contiguous()
    return tensor.permute(1, 2, 0).numpy()


def test_colour(tmp_path: Path) -> None:
    assert (_read(tmp_path, Image.fromarray(RGB)) == RGB).all()


def test_grey_is_repeated(tmp_path: Path) -> None:
    grey = RGB[..., 0]
    assert (_read(tmp_path, Image.fromarray(grey)) == grey[..., None]).all()


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    bits = RGB[..., 0] > 127
    assert (_read(tmp_path, Image.fromarray(bits)) == bits[..., None] * 255).all()


def test_palette_is_looked_up(tmp_path: Path) -> None:
    palette = Image.fromarray(RGB).quantize(16)
    assert (_read(tmp_path, palette) == np.asarray(palette.convert("RGB"))).all()


def test_palette_with_transparency_is_looked_up(tmp_path: Path) -> None:
    palette = Image.fromarray(RGB).quantize(16)
    palette.save(tmp_path / "image.png", transparency=bytes(range(16)))
    assert (read_image(tmp_path / "image.png").permute(1, 2, 0).numpy() == np.asarray(palette.convert("RGB"))).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "CMYK", "YCbCr"])
def test_large_pictures_are_converted_piece_by_piece(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ("x.jpg" if mode in ("CMYK", "YCbCr") else "x.png")
    Image.fromarray(RGB).convert(mode).save(path)
    whole = read_image(path)
    monkeypatch.setattr("dsctool.data.images._PIECE", 7 * RGB.shape[1] + 1)
    assert torch.equal(read_image(path), whole)


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_dropped_without_blending(tmp_path: Path, channels: int) -> None:
    pixels = np.concatenate([RGB[..., : channels - 1], np.full((24, 40, 1), 10, np.uint8)], axis=-1)
    assert (_read(tmp_path, Image.fromarray(pixels)) == pixels[..., : channels - 1]).all()


def test_sixteen_bits_keep_the_high_byte(tmp_path: Path) -> None:
    deep = (RGB[..., 0].astype(np.uint16) << 8) | 77
    assert (_read(tmp_path, Image.fromarray(deep)) == RGB[..., :1]).all()


def test_cmyk_looks_like_the_colours_it_was_made_from(tmp_path: Path) -> None:
    read = _read(tmp_path, Image.fromarray(SMOOTH).convert("CMYK"), "image.jpg")
    assert np.abs(read.astype(int) - SMOOTH).max() < 12


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "I;16", "HSV", "YCbCr"])
def test_pictures_in_memory_are_read_as_from_a_file(tmp_path: Path, mode: str) -> None:
    grey = (RGB[..., 0].astype(np.uint16) << 8) | 77
    picture = Image.fromarray(grey) if mode == "I;16" else Image.fromarray(RGB).convert(mode)
    pixels = image_pixels(picture)
    assert (pixels.shape, pixels.dtype, pixels.is_contiguous()) == ((3, 24, 40), torch.uint8, True)
    suffix = {"PA": None, "RGBX": "tiff", "CMYK": "tiff", "HSV": None, "YCbCr": "tiff"}.get(mode, "png")
    if suffix is None:  # no file holds these
        assert (pixels.permute(1, 2, 0).numpy() == np.asarray(picture.convert("RGB"))).all()
    else:
        picture.save(tmp_path / f"image.{suffix}")
        assert (read_image(tmp_path / f"image.{suffix}") == pixels).all()
        assert (image_pixels(str(tmp_path / f"image.{suffix}")) == pixels).all()


def test_floating_point_is_refused(tmp_path: Path) -> None:
    Image.fromarray(RGB[..., 0].astype(np.float32)).save(tmp_path / "image.tiff")
    with pytest.raises(DataError, match=r"image\.tiff.*floating-point"):
        read_image(tmp_path / "image.tiff")


def _save_turned(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(RGB).save(path, exif=exif)


def test_exif_turns_the_image(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    _save_turned(path, 6)
    upright = torch.from_numpy(np.rot90(RGB, -1).copy()).permute(2, 0, 1)
    assert image_size(path) == (40, 24)
    assert (read_image(path) == upright).all()
    assert (read_image(path, (40, 24)) == upright).all()


def test_exif_is_ignored_where_the_annotation_means_the_stored_size(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    _save_turned(path, 6)
    assert image_size(path, (24, 40)) == (24, 40)
    assert (read_image(path, (24, 40)).permute(1, 2, 0).numpy() == RGB).all()


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_exif_orientations_are_pillows(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    path = tmp_path / "image.png"
    _save_turned(path, orientation)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert (read_image(path).permute(1, 2, 0).numpy() == expected).all()


def test_an_image_with_a_broken_exif_entry_is_turned_as_well(tmp_path: Path) -> None:
    """The camera's model is a floating-point number here: Pillow reads the block, and cannot write it."""
    orientation, model = struct.pack("<HHIHH", 0x112, 3, 1, 6, 0), struct.pack("<HHIf", 0x110, 11, 1, 1.5)
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + orientation + model + bytes(4)
    Image.fromarray(RGB).save(tmp_path / "image.jpg", exif=block)
    assert read_image(tmp_path / "image.jpg").shape == (3, 40, 24)


def test_another_size_is_an_error_that_says_both(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "image.png")
    for look in (read_image, image_size):
        with pytest.raises(DataError, match=r"image\.png: is 40 x 24 .* 41 x 24"):
            look(tmp_path / "image.png", (24, 41))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nope\.jpg: no such file"):
        read_image(tmp_path / "nope.jpg")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"\xff\xd8\xff", ""),
        (b"not an image at all", "it is not an image of a known format"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "it is not an image of a known format"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50), "it is a HEIC picture: convert it to JPEG or PNG"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomiso2" + bytes(50), "it is a video"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "it is a pointer of Git LFS"),
        (b"<html>404 not found</html>", "it is text, not a picture"),
    ],
)
def test_no_image_is_an_error(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "image.jpg").write_bytes(content)
    with pytest.raises(DataError, match=rf"image\.jpg: cannot be decoded: {said}"):
        read_image(tmp_path / "image.jpg")


def test_a_file_that_the_system_does_not_give_is_not_called_undecodable(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_image(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes in folders")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "image.png")
    for look in (read_image, image_size):
        with pytest.raises(DataError, match=r"image\.png: is no file, but a pipe"):
            look(tmp_path / "image.png")


def _encoded(kind: str, progressive: bool) -> bytes:
    buffer = BytesIO()
    if progressive:
        Image.fromarray(SMOOTH).save(buffer, kind, progressive=True)
    else:
        Image.fromarray(SMOOTH).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "progressive"), [("JPEG", False), ("JPEG", True), ("PNG", False)])
def test_a_cut_file_is_never_a_different_picture(
    tmp_path_factory: pytest.TempPathFactory, kind: str, progressive: bool
) -> None:
    data = _encoded(kind, progressive)
    path = tmp_path_factory.mktemp("cut") / "image"
    path.write_bytes(data)
    whole = read_image(path)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, len(data) - 1))
    def cut(length: int) -> None:
        path.write_bytes(data[:length])
        try:
            read = read_image(path)
        except DataError:
            return
        assert kind == "PNG", "a cut JPEG was accepted"
        assert (read == whole).all(), f"{len(data) - length} bytes missing changed the picture"

    cut()


@settings(max_examples=60, deadline=None)
@given(places=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_damaged_file_gives_a_picture_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[float, int]]
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "image"
    for kind in ("JPEG", "PNG", "GIF", "WEBP"):
        data = bytearray(_encoded(kind, progressive=False))
        for place, value in places:
            data[int(place * len(data))] = value
        path.write_bytes(data)
        with contextlib.suppress(DataError):
            read_image(path)
