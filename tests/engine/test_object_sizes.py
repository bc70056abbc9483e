"""What is said of instances that are too small for the canvas."""

from __future__ import annotations

from pathlib import Path

from dsctool.coco_results import Result
from dsctool.config.loading import load_config
from dsctool.data.object_sizes import resize_words
from dsctool.engine.object_sizes import SmallCount, small_objects_note
from tests.data.test_object_sizes import drawn

FILE = Path("data.json")


def test_what_to_set_is_what_helps() -> None:
    sizes, config = drawn(0), load_config("htc_tiny", ["model.rpn.anchor_scale=8"])
    (note,) = small_objects_note(FILE, sizes, config)
    assert note.startswith(
        f"data.json: {100 * sizes.small((256, 426)) / 200:.0f} % of 200 instances are smaller than 8"
    )
    words = note.split(" set ")[1].split(", at ")[0].split()
    assert words[-1] == "model.rpn.anchor_scale=4"
    assert small_objects_note(FILE, sizes, load_config("htc_tiny", words)) == ()
    (jittered,) = small_objects_note(FILE, sizes, load_config("htc_tiny", ["data.jitter.size=128"]))
    words = jittered.split(" set ")[1].split(", at ")[0].split()
    assert small_objects_note(FILE, sizes, load_config("htc_tiny", words)) == ()


def test_in_tiles_what_to_set_is_what_helps() -> None:
    sizes, tiles = drawn(0), "data.tiles.size=700"
    small = ["data.train_resize={short_sides: [128], long_side: 213}", "data.test_resize.short_sides=[128]"]
    (note,) = small_objects_note(FILE, sizes, load_config("htc_tiny", [*small, tiles]))
    assert "instances are smaller than 8 pixels (square root of the area) where tiles of 700 x 700 are resized" in note
    words = note.split(" set ")[1].split(", at ")[0].split()
    assert small_objects_note(FILE, sizes, load_config("htc_tiny", [*words, tiles])) == ()
    closer = note.split("or take smaller tiles: ")[1]
    assert small_objects_note(FILE, sizes, load_config("htc_tiny", [*small, closer])) == ()
    assert closer != tiles


LEAST = {1: 0.3}
"""Score thresholds by category."""


def results(sides: list[float], score: float = 0.9) -> list[Result]:
    return [Result(image_id=1, category_id=1, bbox=[0, 0, side, side], score=score) for side in sides]


def test_what_was_found_small() -> None:
    data = load_config("htc_tiny").data
    count = SmallCount(data, LEAST)
    count.add(results([7.0] * 10), (512, 512))  # half the size on the canvas
    count.add(results([7.0] * 5 + [9.0] * 20), (256, 300))
    count.add(results([1.0] * 99, score=0.2), (512, 512))
    assert (count.found, count.small) == (35, 15)
    (note,) = count.notes()
    assert note.startswith("43 % of 35 instances that reach the score threshold are smaller than 8 pixels")
    assert resize_words((512, 852), training=False) in note
    whole = SmallCount.total([count, SmallCount(data, LEAST, found=200)], data, LEAST)
    assert (whole.found, whole.small, whole.notes()) == (235, 15, ())
    assert SmallCount(data, LEAST, found=19, small=19).notes() == (), "too few to say anything"


def test_what_was_found_small_in_tiles() -> None:
    """A window of an image, or all of one that is smaller, is what is resized."""
    data = load_config("htc_tiny", ["data.tiles.size=128"]).data  # to 256 x 426 pixels
    count = SmallCount(data, LEAST)
    count.add(results([3.9] * 10 + [4.1] * 10), (4000, 6000))
    count.add(results([1.9] * 5 + [2.1] * 5), (64, 64))
    assert (count.found, count.small) == (30, 15)
    whole = SmallCount.total([count, SmallCount(data, LEAST)], data, LEAST)
    (note,) = whole.notes()
    assert "where the model sees them (tiles of 128 x 128 resized to 256 x 426)" in note
    assert "Look twice as close: --tiles 64 (data.tiles.size=64); better" in note
    alone = SmallCount(data, LEAST)
    alone.add(results([1.0] * 20), (50, 60))
    assert "--tiles 30 (data.tiles.size=30)" in alone.notes()[0], "smaller than the image"
