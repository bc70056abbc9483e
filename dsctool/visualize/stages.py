"""A strip per image: the masks of every stage of a cascade, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance
from torch import Tensor

from dsctool.files import whole_file
from dsctool.structures import Detections, StageMasks
from dsctool.terms import Size
from dsctool.visualize.colors import Color, assign_colors
from dsctool.visualize.labels import font

WIDTH, MAX_HEIGHT = 420, 420
"""Largest panel, in pixels; small images are enlarged to it."""
TITLE, GAP = 30, 8
_PAPER, _INK = (236, 239, 241), (32, 38, 43)
_TINT = 0.75
"""Share of an instance's colour where its probability is 1."""


def save_strip(target: Path, image: Tensor, found: Detections, *, thresholds: Sequence[float]) -> None:
    """Write the image, the masks of each stage and the final ones as JPEG to ``target``, whole or not at all.

    image: ``(3, h, w)`` uint8 RGB. found: with :attr:`Detections.stages`; those that score at least what
    ``thresholds`` has for their label are drawn. The tint follows the probability; the thin frame is the box that the
    stage was given.
    """
    lowest = torch.tensor(thresholds, dtype=torch.float64, device=found.labels.device)
    shown = found[found.scores >= lowest[found.labels]].to("cpu")
    picture = _panel_image(image.permute(1, 2, 0).numpy())
    colors = assign_colors(shown.boxes.double().numpy())
    panels = [("image", picture)]
    for stage in (*shown.stages, *_final(shown)):
        panels.append((stage.name, _draw_stage(picture, stage, colors, found.size)))
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as file:
        _side_by_side(panels).save(file, format="JPEG", quality=92, subsampling=0)


def _final(shown: Detections) -> list[StageMasks]:
    return [] if shown.mask_probs is None else [StageMasks("final", shown.boxes, shown.mask_probs)]


def _panel_image(pixels: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(pixels)
    scale = min(WIDTH / image.width, MAX_HEIGHT / image.height)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    return image.resize(size, Image.Resampling.LANCZOS)


def _draw_stage(picture: Image.Image, stage: StageMasks, colors: Sequence[Color], size: Size) -> Image.Image:
    """The picture in faint grey with the stage's masks of all instances, large ones first."""
    canvas = ImageEnhance.Brightness(ImageEnhance.Color(picture).enhance(0.25)).enhance(0.75)
    across, down = picture.width / size[1], picture.height / size[0]
    corners = stage.boxes.double().numpy() * (across, down, across, down)
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    order = np.argsort(-areas, kind="stable")
    for row in order:
        _tint(canvas, stage.probs[row].float().numpy(), corners[row].tolist(), colors[row])
    draw = ImageDraw.Draw(canvas)
    for row in order:
        x1, y1, x2, y2 = corners[row].tolist()
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colors[row], width=1)
    return canvas


def _tint(canvas: Image.Image, probs: NDArray[np.float32], box: Sequence[float], color: Color) -> None:
    """Mix the colour into the canvas by the probabilities, stretched over the box."""
    x1, y1, x2, y2 = (round(side) for side in box)
    if x2 <= x1 or y2 <= y1:
        return
    opacity = Image.fromarray((probs * 255 * _TINT).clip(0, 255).astype(np.uint8))
    canvas.paste(color, (x1, y1), opacity.resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR))


def _side_by_side(panels: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    width, height = panels[0][1].size
    paper = Image.new("RGB", (len(panels) * (width + GAP) + GAP, height + TITLE + GAP), _PAPER)
    draw = ImageDraw.Draw(paper)
    for column, (title, panel) in enumerate(panels):
        left = GAP + column * (width + GAP)
        draw.text((left + 2, TITLE / 2), title, fill=_INK, font=font(15), anchor="lm")
        paper.paste(panel, (left, TITLE))
    return paper
