"""The ``data`` section's blocks of training augmentation: all are off unless a configuration has them."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from dsctool.config.model_schema import Block, Fraction, PositiveFloat, PositiveInt


class JitterConfig(Block):
    """Large-scale jitter (Ghiasi et al. 2021): every image at a random scale, cut or padded to one canvas."""

    scale: tuple[PositiveFloat, PositiveFloat] = (0.1, 2.0)
    """Smallest and largest factor. At 1 the longer side is ``size``; the aspect ratio is kept."""
    size: PositiveInt = 1024
    """Side of the square canvas, in pixels: a random part of what is larger, and padding beside what is smaller."""
    min_visible: Fraction = 0.0
    """Instances of which a smaller share is left at the canvas's border are ignored."""

    @model_validator(mode="after")
    def _smallest_first(self) -> Self:
        if self.scale[0] > self.scale[1]:
            raise ValueError("scale names the smallest factor first")
        return self


class CropConfig(Block):
    """A random part of every training image, after it was resized."""

    size: PositiveInt
    """Side of the square, in pixels; a shorter side of the image stays as it is."""
    min_visible: Fraction = 0.0
    """Instances of which a smaller share is left are ignored."""


class ColorConfig(Block):
    """Colour jitter, in random order."""

    brightness: Fraction = 0.2
    """A factor between 1 minus this and 1 plus this, as for contrast and saturation."""
    contrast: Fraction = 0.2
    saturation: Fraction = 0.2
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    """Turns by up to this share of the circle of hues, either way."""


class CopyPasteConfig(Block):
    """Instances of a second training image, prepared as the first, pasted over it (Ghiasi et al. 2021). Needs masks."""

    probability: Fraction = 0.5
    """Share of the images that get some."""
    instances: tuple[PositiveInt, PositiveInt] = (1, 20)
    """Fewest and most that are pasted, any number between being as likely; never more than the second image has."""
    min_visible: Fraction = 0.05
    """Instances of which a smaller share is left uncovered are ignored."""

    @model_validator(mode="after")
    def _fewest_first(self) -> Self:
        if self.instances[0] > self.instances[1]:
            raise ValueError("instances names the fewest first")
        return self
