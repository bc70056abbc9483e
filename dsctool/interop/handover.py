"""What was found in a picture, as other tools take it: supervision and FiftyOne."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np

from dsctool.errors import DsctoolError
from dsctool.structures import Instances


def to_supervision(found: Instances) -> Any:
    """A ``supervision.Detections``: boxes x1, y1, x2, y2, masks, scores, labels from 0, names under ``class_name``.

    Masks are bitmaps of the whole picture, a byte a pixel each.

    Raises:
        DsctoolError: supervision is not installed.
    """
    arrays = found.numpy()
    return _imported("supervision").Detections(
        xyxy=arrays.boxes,
        mask=arrays.masks,
        confidence=arrays.scores,
        class_id=arrays.labels,
        data={"class_name": np.array(found.names, dtype=np.str_)},
    )


def to_fiftyone(found: Instances) -> Any:
    """A ``fiftyone.Detections``: boxes as shares of the picture, masks inside their boxes' pixels.

    Raises:
        DsctoolError: FiftyOne is not installed, or the picture's size is not known.
    """
    if found.size is None:
        raise DsctoolError("the size of the picture is not known, of which FiftyOne's boxes are shares")
    fiftyone, (height, width) = _imported("fiftyone"), found.size
    arrays, detections = found.numpy(), []
    for row, name in enumerate(found.names):
        box = np.clip(arrays.boxes[row], 0, [width, height, width, height])
        mask = None
        if arrays.masks is not None:  # the box grows to whole pixels, which the mask is of
            left, top = np.floor(box[:2]).astype(int)
            right, bottom = np.maximum(np.ceil(box[2:]).astype(int), (left + 1, top + 1))
            mask, box = arrays.masks[row, top:bottom, left:right], np.array([left, top, right, bottom])
        x1, y1, x2, y2 = (float(value) for value in box)
        detections.append(
            fiftyone.Detection(
                label=name,
                bounding_box=[x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height],
                mask=mask,
                confidence=float(arrays.scores[row]),
            )
        )
    return fiftyone.Detections(detections=detections)


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DsctoolError(f"{name} is not installed: pip install {name}") from error
