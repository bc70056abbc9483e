"""``dsctool predict`` of videos."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from dsctool.cli.app import app
from dsctool.data.video import ClipWriter, is_video, open_clip
from tests.cli.test_predict import checkpoint_of, save_image

av = pytest.importorskip("av")
RATE = Fraction(10)


def run(*words: str | Path, checkpoint: Path) -> Result:
    return CliRunner().invoke(app, ["predict", str(checkpoint), *(str(word) for word in words), "--device", "cpu"])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_of(tmp_path_factory.mktemp("model"), "htc_tiny")


def pictures(count: int, *, width: int = 96, height: int = 64) -> Iterator[Image.Image]:
    """A bright square that moves by two pixels a frame over a dark ground."""
    for number in range(count):
        pixels = np.full((height, width, 3), 30, np.uint8)
        pixels[20:40, 2 * number % width : 2 * number % width + 20] = (200, 90, 40)
        yield Image.fromarray(pixels)


def clip_of(path: Path, count: int, **sides: int) -> Path:
    with path.open("wb") as file:
        writer = ClipWriter(file, rate=RATE)
        for picture in pictures(count, **sides):
            writer.add(picture)
        writer.close()
    return path


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_clips_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = clip_of(tmp_path / "clip.mp4", 12, width=97, height=65)  # sides become even
    with open_clip(str(path)) as clip:
        assert (clip.rate, clip.length) == (RATE, 12)
        frames = list(clip.frames(every=5))
    assert [frame.number for frame in frames] == [0, 5, 10]
    assert [frame.time for frame in frames] == pytest.approx([0.0, 0.5, 1.0])
    for frame, picture in zip(frames, list(pictures(12, width=97, height=65))[::5], strict=True):
        assert frame.pixels.dtype == torch.uint8
        assert tuple(frame.pixels.shape) == (3, 64, 96)
        wanted = torch.from_numpy(np.array(picture)[:64, :96]).permute(2, 0, 1)
        assert (frame.pixels.float() - wanted.float()).abs().mean() < 8


def test_open_videos_may_be_freed_in_a_forked_process(tmp_path: Path) -> None:
    """A thread that is not there after the fork would be waited for."""
    program = """
import gc, os, sys
from fractions import Fraction
from pathlib import Path
from tests.cli.test_predict_clip import ClipWriter, clip_of, open_clip, pictures
path = clip_of(Path(sys.argv[1]), 5, width=320, height=240)
writer = ClipWriter(open(sys.argv[1] + ".mp4", "wb"), rate=Fraction(10))
for picture in pictures(5, width=320, height=240):
    writer.add(picture)
with open_clip(str(path)) as clip:
    frames = clip.frames()
    next(frames)
    held = [writer, clip, frames]
    held.append(held)
    del writer, frames
    if os.fork() == 0:
        held.clear()
        gc.collect()
        os._exit(0)
    assert os.wait()[1] == 0
"""
    command = [sys.executable, "-c", program, str(tmp_path / "clip.mp4")]
    subprocess.run(command, check=True, timeout=60, cwd=Path(__file__).parents[2])


def test_what_is_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").write_text("a file")
    (tmp_path / "folder.mp4").mkdir()
    for source, expected in {
        "clip.mp4": True, "CLIP.MOV": True, "-": True, "0": True, "7": False, "a.jpg": False, "folder.mp4": False,
    }.items():  # fmt: skip
        assert is_video(source) is expected, source


def test_every_file_has_every_frame(checkpoint: Path, tmp_path: Path) -> None:
    clip, out = clip_of(tmp_path / "clip.mp4", 10), tmp_path / "out"
    result = run(clip, "--every", "3", "--score-threshold", "0.1", "--output", out, checkpoint=checkpoint)
    assert result.exit_code == 0, result.output
    table = read(out / "images.json")
    assert [(image["id"], image["frame"]) for image in table["images"]] == [(1, 0), (4, 3), (7, 6), (10, 9)]
    assert [image["seconds"] for image in table["images"]] == pytest.approx([0, 0.3, 0.6, 0.9])
    results = read(out / "predictions.json")
    assert {each["image_id"] for each in results} <= {1, 4, 7, 10}
    assert f"{len(results)} results for 4 frames" in result.stdout
    shown = [each for each in results if each["score"] >= 0.1]
    assert all((each["track_id"] is not None) == (each["score"] >= 0.1) for each in results)
    for image in (1, 4, 7, 10):  # a number is given once a frame
        numbers = [each["track_id"] for each in shown if each["image_id"] == image]
        assert len(set(numbers)) == len(numbers)
    with (out / "counts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["count"]) for row in rows) == len(shown)
    assert [row["frame"] for row in rows] == [str(frame) for frame in (0, 3, 6, 9) for _ in range(2)]
    with open_clip(str(out / "overlays.mp4")) as drawn:
        assert drawn.rate == pytest.approx(RATE / 3)
        assert len(list(drawn.frames())) == 4
    assert sorted(path.name for path in out.iterdir()) == [
        "counts.csv",
        "images.json",
        "overlays.mp4",
        "predictions.json",
    ]
    again = run(clip, "--output", out, checkpoint=checkpoint)
    assert (again.exit_code, "--overwrite" in again.stderr) == (1, True)
    assert run(clip, "--no-overlays", "--output", out, "--overwrite", checkpoint=checkpoint).exit_code == 0
    assert not (out / "overlays.mp4").exists()


def test_frames_are_seen_as_pictures_are(checkpoint: Path, tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "clip.mp4", 1)
    with open_clip(str(clip)) as opened:
        (frame,) = opened.frames()
    Image.fromarray(frame.pixels.permute(1, 2, 0).numpy()).save(tmp_path / "frame.png")
    for source, out in ((clip, "clip"), (tmp_path / "frame.png", "picture")):
        assert run(source, "--no-overlays", "--output", tmp_path / out, checkpoint=checkpoint).exit_code == 0
    one, other = (read(tmp_path / out / "predictions.json") for out in ("clip", "picture"))
    assert [{**each, "track_id": 0} for each in one] == [{**each, "track_id": 0} for each in other]


def test_a_video_on_standard_input(checkpoint: Path, tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "clip.mp4", 3)
    stream = tmp_path / "clip.mkv"
    with av.open(str(clip)) as source, av.open(str(stream), "w") as target:
        copied = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copied
                target.mux(packet)
    words = ["predict", str(checkpoint), "-", "--no-overlays", "--output", str(tmp_path / "out"), "--device", "cpu"]
    with stream.open("rb") as file:
        ran = subprocess.run(
            [sys.executable, "-m", "dsctool", *words], stdin=file, capture_output=True, text=True, check=False
        )
    assert ran.returncode == 0, ran.stderr
    assert len(read(tmp_path / "out" / "images.json")["images"]) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stages"], "--stages"),
        (["--page"], "--page"),
        (["--color", "class"], "--color"),
        (["--score-threshold", "auto"], "--score-threshold auto"),
        (["--tiles", "64"], "data.tiles: frames of a video are looked at once"),
        (["--tta"], "data.tta: frames of a video are looked at once"),
    ],
)
def test_what_is_for_pictures_alone_is_said(checkpoint: Path, tmp_path: Path, words: list[str], message: str) -> None:
    result = run(clip_of(tmp_path / "clip.mp4", 1), *words, "--output", tmp_path / "out", checkpoint=checkpoint)
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out" / "predictions.json").exists()


def test_a_clip_is_not_written_over_and_pictures_have_no_frames(checkpoint: Path, tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "overlays.mp4", 2)
    content = clip.read_bytes()
    result = run(clip, "--output", tmp_path, "--overwrite", checkpoint=checkpoint)
    assert result.exit_code != 0
    assert clip.read_bytes() == content
    result = run(save_image(tmp_path / "a.png"), "--every", "2", "--output", tmp_path / "out", checkpoint=checkpoint)
    assert (result.exit_code, "is for a video" in result.stderr) == (2, True)


def test_damaged_and_missing_videos(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    for source in (tmp_path / "text.mp4", tmp_path / "none.mp4", "91"):
        result = run(source, "--output", tmp_path / "out", checkpoint=checkpoint)
        assert result.exit_code == 1
        assert "cannot be opened as a video" in result.stderr
    picture = save_image(tmp_path / "a.png")
    result = run(clip_of(tmp_path / "clip.mp4", 1), picture, "--output", tmp_path / "out", checkpoint=checkpoint)
    assert result.exit_code == 2


def test_frames_are_not_kept(checkpoint: Path, tmp_path: Path) -> None:
    """The first ones fill what is read ahead; more take less memory than their pixels alone."""
    used, counts, width, height = [], (20, 140), 640, 480
    for count in counts:
        clip = clip_of(tmp_path / f"{count}.mp4", count, width=width, height=height)
        words = ["predict", str(checkpoint), str(clip), "--output", str(tmp_path / str(count)), "--device", "cpu"]
        process = subprocess.Popen(
            [sys.executable, "-m", "dsctool", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
        used.append(1024 * usage.ru_maxrss)
        assert len(read(tmp_path / str(count) / "images.json")["images"]) == count
    assert used[1] - used[0] < 0.75 * 3 * width * height * (counts[1] - counts[0])
