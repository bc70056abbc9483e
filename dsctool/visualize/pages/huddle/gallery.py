"""The images on which two results differ most: ground truth, baseline and candidate side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from dsctool.cores import on_all_cores
from dsctool.data.records import ImageInfo
from dsctool.errors import DataError
from dsctool.evaluation.huddle.study import HuddleStudy
from dsctool.evaluation.huddle.subsets import huddled_per_image
from dsctool.evaluation.tables import DetectionTable, Floats, Ints, TruthTable
from dsctool.terms import Size
from dsctool.visualize.draw import draw_instances

LONGEST = 640
"""Pixels of a picture's longer side, unless the image is very small."""
_LARGEST_SCALE = 4.0
_PLAIN = (52, 58, 64)  # where the image itself is not at hand


@dataclass(frozen=True)
class GalleryPanel:
    """A picture. role: ``Ground truth``, ``Baseline`` or ``Candidate``. shown: instances in it. precision: its AP."""

    role: str
    picture: Image.Image
    shown: int
    precision: float | None = None


@dataclass(frozen=True)
class GalleryEntry:
    """An image of the gallery. instances, huddled: of its ground truth, by the smallest T_O that is not negative."""

    name: str
    instances: int
    huddled: int
    panels: tuple[GalleryPanel, ...]

    @property
    def change(self) -> float | None:
        """The candidate's own AP minus the baseline's; None without one."""
        values = [panel.precision for panel in self.panels if panel.precision is not None]
        return values[1] - values[0] if len(values) == 2 else None


@dataclass(frozen=True)
class _Shapes:
    """What a panel shows: rows of a table. precision: of the results in this image."""

    role: str
    table: TruthTable | DetectionTable
    rows: Ints
    precision: float | None = None

    @property
    def boxes(self) -> Floats:
        """``(n, 4)``, xyxy."""
        boxes = self.table.boxes[self.rows]
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def gallery(
    study: HuddleStudy, *, images: Path | None = None, count: int = 12, score_threshold: float = 0.3
) -> list[GalleryEntry]:
    """Pictures of :func:`chosen_images`.

    images: the folder that the ground truth's file names are relative to; where it is not given, or an image cannot
    be read, instances are drawn on a plain ground. score_threshold: results below it are not drawn.
    """
    huddled, rows = _huddled(study), chosen_images(study, count)
    if images is not None:
        import dsctool.data.images  # noqa: F401  # with it torch: here, not in each of the processes

    def drawn(part: slice) -> list[GalleryEntry]:
        return [_entry(study, row, images, int(huddled[row]), score_threshold) for row in rows[part]]

    return list(chain.from_iterable(on_all_cores(drawn, len(rows), worth=2)))


def _entry(study: HuddleStudy, row: int, images: Path | None, huddled: int, score_threshold: float) -> GalleryEntry:
    info = study.truth.images[row]
    shapes = _shapes(study, row, score_threshold)
    size = _size(info, np.concatenate([each.boxes for each in shapes]))
    ground = _ground(info, images, size)
    panels = [
        GalleryPanel(each.role, _drawn(ground, each, study.table.names, size), len(each.rows), each.precision)
        for each in shapes
    ]
    return GalleryEntry(info.file_name or str(info.id), panels[0].shown, huddled, tuple(panels))


def chosen_images(study: HuddleStudy, count: int) -> list[int]:
    """Rows of ``study.table.images``: at most ``count``, those whose own AP differs most first.

    Of images with huddled instances where there are any. Without a baseline: those of lowest AP.
    """
    other = 1.0 if study.baseline is None else study.baseline.image_precision
    worth = np.nan_to_num(np.abs(study.candidate.image_precision - other))
    huddled = _huddled(study) > 0
    if huddled.any():
        worth = np.where(huddled, worth, 0.0)
    order = np.argsort(-worth, kind="stable")[:count]
    return [int(row) for row in order if worth[row] > 0]


def _huddled(study: HuddleStudy) -> Ints:
    threshold = min((t_o for t_o in study.settings.t_o if t_o >= 0), default=0.0)
    return huddled_per_image(study.table, study.overlaps, threshold)


def _shapes(study: HuddleStudy, row: int, score_threshold: float) -> list[_Shapes]:
    """The panels of one image."""
    table = study.table
    shapes = [_Shapes("Ground truth", table, np.flatnonzero((table.image == row) & ~table.crowd))]
    for role, results in (("Baseline", study.baseline), ("Candidate", study.candidate)):
        if results is not None:
            found = results.detections
            rows = np.flatnonzero((found.image == row) & (found.score >= score_threshold))
            shapes.append(_Shapes(role, found, rows, float(results.image_precision[row])))
    return shapes


# --- drawing ----------------------------------------------------------------------------------------


def _size(info: ImageInfo, boxes: Floats) -> Size:
    """``(h, w)`` of the image, or of what its boxes ``(n, 4)`` cover where the file does not say."""
    if info.height and info.width:
        return info.height, info.width
    right, bottom = np.rint(boxes[:, 2:].max(axis=0, initial=1.0)).astype(int).tolist()
    return bottom, right


def _ground(info: ImageInfo, folder: Path | None, size: Size) -> Image.Image:
    """The image at the gallery's size, or a plain ground. Small images grow, so that lines and names are sharp."""
    scale = min(LONGEST / max(size), _LARGEST_SCALE)
    target = max(round(size[1] * scale), 1), max(round(size[0] * scale), 1)
    if folder is not None and info.file_name:
        from dsctool.data.images import read_image  # and with it torch: two seconds, for who has images

        try:
            pixels = read_image(folder / info.file_name, size)
        except DataError:
            return Image.new("RGB", target, _PLAIN)
        return Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize(target, Image.Resampling.LANCZOS)
    return Image.new("RGB", target, _PLAIN)


def _drawn(ground: Image.Image, shapes: _Shapes, names: Sequence[str], size: Size) -> Image.Image:
    """names: of the categories, by index."""
    table, rows = shapes.table, shapes.rows
    return draw_instances(
        ground,
        boxes=shapes.boxes,
        names=[names[index] for index in table.category[rows]],
        scores=table.score[rows] if isinstance(table, DetectionTable) else None,
        masks=None if table.masks is None else [table.masks[row] for row in rows],
        size=size,
    )
