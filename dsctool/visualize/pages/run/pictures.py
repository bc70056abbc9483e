"""What a run finds in some validation images, drawn after each evaluation and kept in ``pictures`` of its folder.

Four images are the same all the time, spread over the set; four others are those that the evaluation lost most on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image

from dsctool.evaluation.comparison import Comparison
from dsctool.evaluation.huddle.matched import image_precision
from dsctool.evaluation.tables import Floats
from dsctool.files import read_json, whole_file, write_text
from dsctool.visualize.panels import draw_shapes, found_shapes, ground_for, size_of, true_shapes

FOLDER = "pictures"
COUNT = 4
"""Images of either kind."""
SCORE = 0.3
"""What scores less is not drawn."""
_LIST = "pictures.json"


@dataclass(frozen=True)
class Picture:
    """An image with what was found in it, and beside it with the truth.

    name: of the image file. found, truth: files, relative to the folder of pictures. instances: that there are.
    drawn: that were found and are drawn. precision: the image's own AP, from 0 to 1. lost: how many instances' worth
    of AP the image cost.
    """

    name: str
    found: str
    truth: str
    instances: int
    drawn: int
    precision: float
    lost: float


@dataclass(frozen=True)
class Pictures:
    """Of one evaluation. fixed: the same images each time. worst: those that it lost most on, the worst first."""

    fixed: list[Picture]
    worst: list[Picture]


def save_pictures(folder: Path, comparison: Comparison, images: Path, *, step: int) -> None:
    """Draw what the evaluation after ``step`` steps found, into the folder of a run; ``images``: where its images are.

    What an earlier sitting of the run drew after as many steps is replaced.
    """
    target = folder / FOLDER
    own = target / _named(step)
    for each in (own, target / "truth"):
        each.mkdir(parents=True, exist_ok=True)
    precision = image_precision(comparison, comparison.kinds[-1])
    instances = comparison.truth.instances_per_image
    lost = np.where(instances > 0, (1 - np.nan_to_num(precision)) * instances, 0.0)
    chosen = {"fixed": fixed_images(instances > 0), "worst": worst_images(lost)}
    kinds = {
        kind: [
            _draw(target, f"{own.name}/{kind}_{number}.jpg", comparison, images, row, float(precision[row]), lost[row])
            for number, row in enumerate(rows, start=1)
        ]
        for kind, rows in chosen.items()
    }
    write_text(own / _LIST, json.dumps({kind: [asdict(each) for each in made] for kind, made in kinds.items()}) + "\n")


def fixed_images(with_instances: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[int]:
    """Rows of images, evenly spread over those with instances, or over all where none has any."""
    rows = np.flatnonzero(with_instances) if with_instances.any() else np.arange(len(with_instances))
    places = np.linspace(0, len(rows) - 1, min(COUNT, len(rows)))
    return [int(rows[round(place)]) for place in places.tolist()]


def worst_images(lost: Floats) -> list[int]:
    """Rows of the images that lost most, the worst first; none that lost nothing."""
    return [int(row) for row in np.argsort(-lost, kind="stable")[:COUNT] if lost[row] > 0]


def read_pictures(folder: Path, step: int) -> Pictures | None:
    """What was drawn in the run's folder after ``step`` steps; None where nothing was."""
    path = folder / FOLDER / _named(step) / _LIST
    if not path.exists():
        return None
    content = read_json(path)
    assert isinstance(content, dict)
    return Pictures(**{kind: [Picture(**each) for each in made] for kind, made in content.items()})


def load_picture(folder: Path, name: str, *, longest: int) -> Image.Image:
    """A picture of the run's folder, as large as it may be."""
    with Image.open(folder / FOLDER / name) as image:
        shown = image.convert("RGB")
    shown.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return shown


def _named(step: int) -> str:
    return f"step_{step:08d}"


def _draw(
    target: Path, name: str, comparison: Comparison, images: Path, row: int, precision: float, lost: float
) -> Picture:
    info, names = comparison.source.images[row], comparison.truth.names
    true = true_shapes(comparison.truth, row)
    found = found_shapes("Found", comparison.detections, row, score_threshold=SCORE)
    size = size_of(info, np.concatenate([true.boxes, found.boxes]))
    ground = ground_for(info, images, size)
    truth = f"truth/{info.id}_{crc32(comparison.source.name.encode()):08x}.jpg"  # a resumed run may have other images
    if not (target / truth).exists():
        _save(target / truth, draw_shapes(ground, true, names, size))
    _save(target / name, draw_shapes(ground, found, names, size))
    return Picture(info.file_name, name, truth, len(true.rows), len(found.rows), precision, float(lost))


def _save(path: Path, picture: Image.Image) -> None:
    with whole_file(path) as file:
        picture.save(file, format="JPEG", quality=88)


def thinned(steps: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of them, evenly spread, with the first and the last."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(place)] for place in np.linspace(0, len(steps) - 1, most).tolist()]
