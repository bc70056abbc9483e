"""A sheet of training samples: what a detector will be shown, after everything that training does to images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from dsctool.data.bands import rgb
from dsctool.data.loader import TrainLoader
from dsctool.data.transforms import SampleInfo
from dsctool.files import whole_file
from dsctool.structures import Targets
from dsctool.terms import Size
from dsctool.visualize.colors import assign_colors
from dsctool.visualize.draw import draw_instances
from dsctool.visualize.labels import Rectangle, Tag, draw_tags, font

TILE, COLUMNS = 480, 4
"""Longer side of a sample, in pixels of the sheet; samples in a row."""
MARGIN, HEADER, TITLE = 16, 64, 48
_PAPER, _INK, _FAINT, _IGNORED = (236, 239, 241), (32, 38, 43), (96, 106, 114), (90, 90, 90)
_HATCH = 16
"""Pixels from line to line over what is ignored."""


@dataclass(frozen=True)
class Shown:
    """A sample in its batch. canvas: ``(c, H, W)`` float32, normalised, padding included. size: ``(h, w)`` without."""

    canvas: Tensor
    size: Size
    targets: Targets
    info: SampleInfo


def first_samples(batches: TrainLoader, count: int) -> list[Shown]:
    """The first samples of a run: of its first epoch, and of the next ones where that has fewer."""
    samples: list[Shown] = []
    epoch = 0
    with batches:
        while len(samples) < count:
            for images, targets, infos in chain.from_iterable(batches.epoch(epoch)):
                samples += map(Shown, images.tensor, images.sizes, targets, infos)
                if len(samples) >= count:
                    break
            epoch += 1
    return samples[:count]


def save_samples(
    target: Path,
    samples: Sequence[Shown],
    *,
    names: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    title: str,
    note: str = "",
) -> None:
    """Write a grid of samples as PNG to ``target``, whole or not at all.

    names: of the classes. mean, std: of the channels, by which the images are normalised.
    title, note: what it shows, and in small letters how that was made.
    """
    tiles = [_tile(sample, names, mean, std) for sample in samples]
    rows = [tiles[first : first + COLUMNS] for first in range(0, len(tiles), COLUMNS)]
    heights = [TITLE + max(tile.height for tile in row) + MARGIN for row in rows]
    width = COLUMNS * (TILE + MARGIN) + MARGIN
    paper = Image.new("RGB", (width, HEADER + sum(heights)), _PAPER)
    draw = ImageDraw.Draw(paper)
    draw.text((MARGIN, 24), _fitted(title, 22, width - 2 * MARGIN), fill=_INK, font=font(22), anchor="lm")
    draw.text((MARGIN, 50), _fitted(note, 14, width - 2 * MARGIN), fill=_FAINT, font=font(14), anchor="lm")
    top, numbers = HEADER, iter(samples)
    for row, height in zip(rows, heights, strict=True):
        for column, (tile, sample) in enumerate(zip(row, numbers, strict=False)):
            left = MARGIN + column * (TILE + MARGIN)
            for line, (text, color) in enumerate(zip(_titles(sample), (_INK, _FAINT), strict=True)):
                size = 15 - line
                place = (left, top + 14 + 19 * line)
                draw.text(place, _fitted(text, size, TILE), fill=color, font=font(size), anchor="lm")
            paper.paste(tile, (left, top + TITLE))
        top += height
    with whole_file(target) as file:
        paper.save(file, format="PNG")


def _titles(sample: Shown) -> tuple[str, str]:
    """The file, and what became of it; sizes as width x height."""
    info, targets = sample.info, sample.targets
    count = len(targets.boxes)
    parts = [
        f"{info.original_size[1]} x {info.original_size[0]} as {sample.size[1]} x {sample.size[0]}",
        f"{count} instance{'s' * (count != 1)}",
    ]
    if targets.crowd is not None and len(targets.crowd):
        parts.append(f"{len(targets.crowd)} ignored")
    return info.file_name, ", ".join(parts)


def _tile(sample: Shown, names: Sequence[str], mean: Sequence[float], std: Sequence[float]) -> Image.Image:
    """The canvas at the sheet's scale, with everything that is annotated."""
    height, width = sample.canvas.shape[-2:]
    pixels = sample.canvas * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    image = Image.fromarray(rgb(pixels.round().clamp(0, 255).to(torch.uint8)).permute(1, 2, 0).numpy())
    scale = TILE / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    image = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    across, down = size[0] / width, size[1] / height
    factors = torch.tensor([across, down, across, down])
    targets = sample.targets
    boxes = (targets.boxes * factors).double()
    if targets.crowd is not None:
        _hatch(image, [_rectangle(box) for box in (targets.crowd * factors).tolist()])
    drawn = draw_instances(
        image,
        boxes=targets.boxes,
        names=[names[label] for label in targets.labels.tolist()],
        masks=targets.masks,
        size=(height, width),
    )
    if targets.masks is not None:
        _frame(drawn, [_rectangle(box) for box in boxes.tolist()], assign_colors(boxes.numpy()))
    return drawn


def _rectangle(box: Sequence[float]) -> Rectangle:
    x1, y1, x2, y2 = box
    return x1, y1, x2, y2


def _hatch(image: Image.Image, boxes: Sequence[Rectangle]) -> None:
    """Strokes over regions that no box is learnt from."""
    for box in boxes:
        x1, y1, x2, y2 = (round(side) for side in box)
        width, height = max(x2 - x1, 1), max(y2 - y1, 1)
        strokes = Image.new("L", (width, height))
        draw = ImageDraw.Draw(strokes)
        for start in range(-height, width, _HATCH):
            draw.line((start, height, start + height, 0), fill=130, width=2)
        draw.rectangle((0, 0, width - 1, height - 1), outline=210, width=2)
        image.paste((250, 250, 250), (x1, y1), strokes)
    draw_tags(image, [Tag("ignored", box, _IGNORED) for box in boxes], font_size=12)


def _frame(image: Image.Image, boxes: Sequence[Rectangle], colors: Sequence[tuple[int, int, int]]) -> None:
    """Thin lines, half seen through."""
    overlay = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(overlay)
    for (x1, y1, x2, y2), color in zip(boxes, colors, strict=True):
        draw.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=(*color, 190), width=1)
    image.paste(overlay, mask=overlay)


def _fitted(text: str, size: int, width: int) -> str:
    """The text, or its end where it is longer than ``width`` pixels."""
    if font(size).getlength(text) <= width:
        return text
    while len(text) > 1 and font(size).getlength(f"…{text}") > width:
        text = text[1:]
    return f"…{text}"
