"""Videos frame by frame: clips, cameras and standard input come in, overlays go out. Needs PyAV (``[video]``).

FFmpeg gets no threads of its own: what has some, and is freed in a process that was forked since, waits for ever for
them to end. The detector takes most of the time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dsctool.errors import DataError, DsctoolError

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".y4m", ".wmv"})
"""Of clips; other files are taken for pictures."""
STANDARD_INPUT = "-"
FALLBACK_RATE = Fraction(25)
"""Frames a second of what does not say."""


@dataclass(frozen=True)
class Frame:
    """number: from 0, in the whole clip. time: seconds from its beginning. pixels: ``(3, h, w)`` uint8 RGB, upright."""

    number: int
    time: float
    pixels: Tensor


def is_video(source: str) -> bool:
    """Whether it names a clip, a camera by its number, or standard input, and not a picture or a folder."""
    path = Path(source)
    if source == STANDARD_INPUT or (source.isdecimal() and not path.exists()):
        return True
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


class Clip:
    """An open video. name: for people. rate: frames a second. length: frames, as far as it says, or 0."""

    def __init__(self, container: Any, name: str) -> None:
        self._container, self._stream, self.name = container, container.streams.video[0], name
        self._stream.codec_context.thread_count = 1  # see the module
        self.rate = Fraction(self._stream.average_rate or FALLBACK_RATE)
        self.length: int = self._stream.frames

    def frames(self, *, every: int = 1) -> Iterator[Frame]:
        """The first frame and every ``every``-th after it, decoded when they are asked for.

        Raises:
            DataError: it is damaged; the frames before have been given.
        """
        av = _av()
        number = -1
        try:
            for number, frame in enumerate(self._container.decode(self._stream)):
                if number % every:
                    continue
                pixels = frame.to_ndarray(format="rgb24", threads=1)
                turned = np.rot90(pixels, round(getattr(frame, "rotation", 0) / 90) % 4)
                time = float(frame.time) if frame.time is not None else float(number / self.rate)
                yield Frame(number, time, torch.from_numpy(np.ascontiguousarray(turned)).permute(2, 0, 1))
        except av.error.FFmpegError as error:
            raise DataError(f"{self.name}: damaged after {number + 1} frames: {error.strerror}") from error


@contextmanager
def open_clip(source: str) -> Iterator[Clip]:
    """A clip, a camera by its number (``0``), or a video in any container on standard input (``-``).

    Raises:
        DsctoolError: PyAV is not installed.
        DataError: there is no such thing, or no video in it.
    """
    av = _av()
    if source == STANDARD_INPUT:
        name, opened, options = "standard input", sys.stdin.buffer, {}
    elif is_camera(source):
        name, opened, options = f"camera {source}", *_camera(int(source))
    else:
        name, opened, options = source, source, {}
    try:
        container = av.open(opened, **options)
    except (av.error.FFmpegError, OSError) as error:
        raise DataError(f"{name}: cannot be opened as a video: {error.strerror}") from error
    with container:
        if not container.streams.video:
            raise DataError(f"{name}: there is no video in it")
        yield Clip(container, name)


def is_camera(source: str) -> bool:
    """Whether it is the number of a camera."""
    return source.isdecimal() and not Path(source).exists()


def _camera(number: int) -> tuple[str, dict[str, str]]:
    if sys.platform == "darwin":
        return str(number), {"format": "avfoundation"}
    if sys.platform == "win32":
        return f"video={number}", {"format": "dshow"}
    return f"/dev/video{number}", {"format": "v4l2"}


class ClipWriter:
    """An MP4 file that gets pictures one after the other; all have the size of the first."""

    def __init__(self, file: BinaryIO, *, rate: Fraction) -> None:
        av = _av()
        self._container = av.open(file, mode="w", format="mp4")
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        self._stream = self._container.add_stream(codec, rate=rate)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.thread_count = 1  # see the module
        self._sized = False

    def add(self, picture: Image.Image) -> None:
        """Append an RGB picture, cut to even sides, which the format takes alone."""
        if not self._sized:
            self._stream.width, self._stream.height = picture.width // 2 * 2, picture.height // 2 * 2
            self._sized = True
        frame = _av().VideoFrame.from_image(picture.crop((0, 0, self._stream.width, self._stream.height)))
        self._container.mux(self._stream.encode(frame.reformat(format="yuv420p", threads=1)))

    def close(self) -> None:
        """Write what is left."""
        if self._sized:
            self._container.mux(self._stream.encode())
        self._container.close()


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise DsctoolError("videos need PyAV: pip install 'dsctool[video]'") from error
    return av
