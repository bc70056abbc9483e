"""Find things in a picture by an exported model: numpy, Pillow and onnxruntime are all it takes.

    python THIS_FILE model.onnx photo.jpg --score 0.5 --instances instances.png

Prints a line of JSON for each thing that is found. The picture of --instances has in each pixel the number of the line,
from 1, whose thing is there (16 bits, the best on top), and 0 where there is none.
"""

import argparse
import json
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

MULTIPLE, LEAST = 32, 96
"""Sides of the canvas that a picture is laid on are multiples of so many pixels, and have at least so many."""


def main() -> None:
    """Read the command line, and print what is found."""
    parser = argparse.ArgumentParser(description="Find things in a picture by an exported model.")
    parser.add_argument("model", nargs="?", default="model.onnx")
    parser.add_argument("picture")
    parser.add_argument("--score", type=float, default=0.5, help="what scores less is left out")
    parser.add_argument("--instances", help="picture to write: which thing is where")
    given = parser.parse_args()
    session = onnxruntime.InferenceSession(given.model)
    picture = np.asarray(ImageOps.exif_transpose(Image.open(given.picture)).convert("RGB"))
    found = find(session, picture, given.score)
    where = np.zeros(picture.shape[:2], np.uint16)
    for number, thing in reversed(list(enumerate(found, start=1))):
        where[thing["mask"]] = number
    for thing in found:
        mask = thing.pop("mask")
        print(json.dumps({**thing, "area": int(mask.sum())}))
    if given.instances:
        Image.fromarray(where).save(given.instances)


def find(session: Any, picture: Any, score: float) -> list[dict[str, Any]]:
    """Things in a picture ``(h, w, 3)`` uint8 RGB, best first: name, score, box x1, y1, x2, y2 and mask (h, w) bool."""
    about = json.loads(session.get_modelmeta().custom_metadata_map["dsctool"])
    names = [each["name"] for each in about["categories"]]
    limits, form = about["config"]["data"]["test_resize"], about["input"]
    original = picture.shape[:2]
    if form["pixels"] == "picture":  # the model resizes it
        inputs = {"images": picture.transpose(2, 0, 1)[None]}
    else:
        inputs = resized_inputs(picture, limits, form)
    outputs = session.run(None, inputs)
    by_name = dict(zip([each.name for each in session.get_outputs()], outputs, strict=True))
    count = int(by_name["count"][0])
    rows = [row for row in range(count) if by_name["scores"][0][row] >= score]
    return [
        {
            "name": names[by_name["labels"][0][row]],
            "score": round(float(by_name["scores"][0][row]), 4),
            "box": [round(float(value), 2) for value in by_name["boxes"][0][row]],
            "mask": paste(by_name["masks"][0][row], by_name["boxes"][0][row], original),
        }
        for row in rows
    ]


def resized_inputs(picture: Any, limits: dict[str, Any], form: dict[str, Any]) -> dict[str, Any]:
    """A picture as small as the model wants it, in the upper left of a canvas."""
    original = picture.shape[:2]
    factor = min(limits["long_side"] / max(original), limits["short_sides"][0] / min(original))
    size = [max(int(side * factor + 0.5), 1) for side in original]
    resized = resize(picture, *size)
    canvas = form["canvas"] or [max(-(-side // MULTIPLE) * MULTIPLE, LEAST) for side in size]
    images = np.zeros((form["batch"], 3, *canvas), np.uint8)  # of a larger batch all but the first stay empty
    images[0, :, : size[0], : size[1]] = resized.transpose(2, 0, 1)
    inputs = {"images": images, "sizes": [size] * len(images), "original_sizes": [original] * len(images)}
    return {name: np.asarray(value) for name, value in inputs.items()}


def resize(picture: Any, height: int, width: int) -> Any:
    """Bilinear without antialiasing, rounded along rows and again along columns, as the model was trained."""
    first, second, weight = samples(width, picture.shape[1])
    picture = picture.astype(np.float32)
    picture = picture[:, first] * (1 - weight)[:, None] + picture[:, second] * weight[:, None]
    picture = np.floor(picture + 0.5)
    first, second, weight = samples(height, picture.shape[0])
    picture = picture[first] * (1 - weight)[:, None, None] + picture[second] * weight[:, None, None]
    return np.floor(picture + 0.5).astype(np.uint8)


def samples(new: int, old: int) -> tuple[Any, Any, Any]:
    """The two cells of ``old`` around each of ``new`` cells, and the weight of the second."""
    places = np.clip((np.arange(new, dtype=np.float32) + 0.5) * (old / new) - 0.5, 0, None)
    first = np.minimum(places.astype(int), old - 1)
    return first, np.minimum(first + 1, old - 1), places - first


def paste(probabilities: Any, box: Any, size: tuple[int, int]) -> Any:
    """A map of probabilities over its box -> where they are at least a half, in a picture of ``size``."""
    mask = np.zeros(size, bool)
    side = probabilities.shape[0]
    x1, y1, x2, y2 = box
    left, top = max(int(x1 - 1), 0), max(int(y1 - 1), 0)
    right, bottom = min(int(x2 + 2), size[1]), min(int(y2 + 2), size[0])
    if x2 <= x1 or y2 <= y1 or right <= left or bottom <= top:
        return mask
    padded = np.pad(probabilities, 1)  # zeros around, towards which it falls off
    y, x = (
        np.clip((np.arange(start, end) + 0.5 - low) / (high - low) * side + 0.5, 0, side + 0.999)
        for start, end, low, high in ((top, bottom, y1, y2), (left, right, x1, x2))
    )
    row, column = y.astype(int), x.astype(int)
    down, across = (y - row)[:, None], x - column
    upper = padded[row][:, column] * (1 - across) + padded[row][:, column + 1] * across
    lower = padded[row + 1][:, column] * (1 - across) + padded[row + 1][:, column + 1] * across
    mask[top:bottom, left:right] = upper * (1 - down) + lower * down >= 0.5
    return mask


if __name__ == "__main__":
    main()
