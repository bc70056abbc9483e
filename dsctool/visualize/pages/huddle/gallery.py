"""The images on which two results differ most: ground truth, baseline and candidate side by side."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from dsctool.cores import on_all_cores
from dsctool.evaluation.huddle.study import HuddleStudy
from dsctool.evaluation.huddle.subsets import huddled_per_image
from dsctool.evaluation.tables import Ints
from dsctool.visualize.panels import Shapes, draw_shapes, found_shapes, ground_for, size_of, true_shapes


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
    size = size_of(info, np.concatenate([each.boxes for each in shapes]))
    ground = ground_for(info, images, size)
    panels = [
        GalleryPanel(each.role, draw_shapes(ground, each, study.table.names, size), len(each.rows), each.precision)
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


def _shapes(study: HuddleStudy, row: int, score_threshold: float) -> list[Shapes]:
    """The panels of one image."""
    shapes = [true_shapes(study.table, row)]
    for role, results in (("Baseline", study.baseline), ("Candidate", study.candidate)):
        if results is not None:
            precision = float(results.image_precision[row])
            shapes.append(
                found_shapes(role, results.detections, row, score_threshold=score_threshold, precision=precision)
            )
    return shapes
