"""Anybody's COCO results as what panoptic fusion takes, image by image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dsctool.data.panoptic import PanopticFile
from dsctool.data.panoptic_rules import ImageId
from dsctool.errors import DataError
from dsctool.evaluation.predictions import Reference
from dsctool.evaluation.sources import read_results
from dsctool.models.panoptic import Things


def read_instances(path: Path, truth: PanopticFile) -> Callable[[ImageId], Things]:
    """COCO results with masks for the images of a panoptic ground truth. Gives those of an image, as in the file.

    Masks stay encoded until they are asked for; they know no probabilities.

    Raises:
        DataError: as for any results; there are no masks; or the ground truth has no sizes of images.
    """
    ids = list(truth.entries)
    sizes = [entry.size or (0, 0) for entry in truth.entries.values()]
    categories = [each.id for each in truth.categories if each.is_thing]
    reference = Reference(
        name=str(truth.path),
        images={id_: row for row, id_ in enumerate(ids)},
        categories={id_: row for row, id_ in enumerate(categories)},
        sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
    )
    results = read_results(path, list(truth.images.values()), reference)
    masks, boxes = results.masks, results.boxes
    if masks is None:
        raise DataError(f"{path}: has boxes only, and panoptic results are made of masks")
    order = np.argsort(results.image, kind="stable")
    edges = np.searchsorted(results.image[order], np.arange(len(ids) + 1))

    def of(image_id: ImageId) -> Things:
        place = reference.images[image_id]
        rows = order[edges[place] : edges[place + 1]]
        own = masks.take(rows)
        found = own.boxes(np.arange(len(rows))) if boxes is None else boxes[rows]
        corners = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)

        def mask(row: int) -> NDArray[np.bool_]:
            return np.asarray(coco_mask.decode(own[row]), dtype=np.bool_)

        return Things(
            scores=results.score[rows].tolist(),
            categories=[categories[each] for each in results.category[rows]],
            boxes=corners.astype(np.float32),
            mask=mask,
        )

    return of
