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
