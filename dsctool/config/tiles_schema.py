"""The ``data`` section's block of tiles: images are looked at whole unless a configuration has it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dsctool.config.model_schema import Block, Fraction, PositiveInt


class TilesConfig(Block):
    """Images looked at by square windows of one size, in training and in what follows.

    A window is treated as an image of its own: it is resized as ``train_resize`` and ``test_resize`` say. Images that
    are no larger than a window are looked at as ever.
    """

    size: PositiveInt = 1024
    """Side of a window, in pixels of the image."""
    overlap: Annotated[float, Field(ge=0, le=0.5)] = 0.25
    """Share of its side that a window has in common with the next one, at least; windows are spread evenly."""
    batch: PositiveInt = 1
    """Windows that the network sees at once, without ``tta``."""
    agreement: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Results of two windows are one instance where their masks (or boxes, where there are none) have this IoU in what
    both windows see; of several instances that are found, those that overlap a better one of their class so much go."""
    max_per_image: PositiveInt | None = None
    """Results kept of a whole image; null: all. ``postprocess.max_per_image`` is for each window."""
    around: Fraction = 0.5
    """Training: share of the windows that are drawn around an instance; the others lie anywhere. Every image gives as
    many windows an epoch as cover it."""
    min_visible: Fraction = 0.3
    """Training: instances of which a smaller share is inside a window are ignored there."""
