"""Pictures of switch maps: a contact sheet per image, and single layers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from dsctool.files import whole_file
from dsctool.models.backbones.sac import LARGE_DILATION
from dsctool.terms import Size
from dsctool.visualize.switch.colors import FULL, Scale
from dsctool.visualize.switch.numbers import Summary
from dsctool.visualize.switch.record import SwitchMap, Values

# In pixels of the sheet.
WIDTH, MAX_HEIGHT = 460, 560  # of a picture
LEGEND_HEIGHT = 290
MARGIN, HEADER, TITLE = 24, 34, 26
HISTOGRAM, SCALE, TICKS = 44, 9, 18

_BACKGROUND, _INK, _FAINT = "#eceff1", "#20262b", "#6b757d"
_BINS = 90


@dataclass(frozen=True)
class Sheet:
    """What is on the contact sheet of an image.

    title: of the whole. maps: of the chosen layers. image, overlay: the picture, and it with the detections,
    both of :func:`picture_size`. summary: the numbers of this image. objects: what its objects are, as in
    ``"detected objects"``. stretch: draw every map over its own range, not over [0, 1].
    """

    title: str
    maps: Sequence[SwitchMap]
    image: Image.Image
    overlay: Image.Image
    summary: Summary
    objects: str
    stretch: bool = False


def picture_size(image: Size) -> Size:
    """``(h, w)`` at which an image of ``(h, w)`` stands on a sheet."""
    scale = min(WIDTH / image[1], MAX_HEIGHT / image[0])
    return max(round(image[0] * scale), 1), max(round(image[1] * scale), 1)


def save_sheet(target: Path, sheet: Sheet) -> None:
    """Write a contact sheet as PNG, whole or not at all.

    First the image, the detections and the legend; below, for every pass through a backbone, a map per stage:
    the mean of its layers.
    """
    passes = sorted({each.passage for each in sheet.maps})
    stages = sorted({each.stage for each in sheet.maps})
    size = sheet.image.height, sheet.image.width
    top = max(size[0], LEGEND_HEIGHT)
    step = TITLE + size[0] + HISTOGRAM + SCALE + TICKS + MARGIN
    height = HEADER + TITLE + top + 2 * MARGIN + len(passes) * step
    paper = _Paper(columns=max(3, len(stages)), height=height)
    paper.write(MARGIN, MARGIN, _shortened(sheet.title, 46 * paper.columns), size=13, bold=True)
    y = HEADER + TITLE + MARGIN
    for column, (title, picture) in enumerate((("image", sheet.image), ("detections", sheet.overlay))):
        paper.picture(column, y, np.asarray(picture.convert("RGB")), title)
    _draw_legend(paper, 2, y, sheet)
    y += top + MARGIN + TITLE
    for passage in passes:
        for column, stage in enumerate(stages):
            maps = [each for each in sheet.maps if (each.passage, each.stage) == (passage, stage)]
            if maps:
                place = f"stage {stage}" if len(passes) == 1 else f"pass {passage}, stage {stage}"
                of = f"mean of {len(maps)} layers" if len(maps) > 1 else maps[0].name
                _draw_map(paper, column, y, _averaged(maps), size, f"{place}: {of}", stretch=sheet.stretch)
        y += step
    paper.save(target)


def save_layer(target: Path, switch: SwitchMap, image_size: Size, *, stretch: bool = False) -> None:
    """Write one map with its histogram and scale as PNG, whole or not at all; ``stretch`` as in :class:`Sheet`."""
    size = picture_size(image_size)
    paper = _Paper(columns=1, height=TITLE + size[0] + HISTOGRAM + SCALE + TICKS + 2 * MARGIN)
    _draw_map(paper, 0, MARGIN + TITLE, switch, size, switch.name, stretch=stretch)
    paper.save(target)


class _Paper:
    """A figure that is laid out in pixels from its upper left corner, in columns of pictures."""

    def __init__(self, *, columns: int, height: int) -> None:
        self.columns = columns
        self.width, self.height = columns * (WIDTH + MARGIN) + MARGIN, height
        self.figure = Figure(figsize=(self.width / 100, height / 100), dpi=100, facecolor=_BACKGROUND)
        FigureCanvasAgg(self.figure)

    def left(self, column: int) -> int:
        return MARGIN + column * (WIDTH + MARGIN)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes without ticks whose upper left corner is at ``(x, y)``."""
        bottom = self.height - y - height
        box = (x / self.width, bottom / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box, xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=_FAINT, linewidth=0.7)
        return axes

    def write(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 10,
        color: str = _INK,
        right: bool = False,
        bold: bool = False,
    ) -> None:
        """Text that begins at ``x``, or ends there where it stands to the right; its middle line is at ``y``."""
        self.figure.text(
            x / self.width, 1 - y / self.height, text,
            fontsize=size, color=color, weight="bold" if bold else "normal",
            ha="right" if right else "left", va="center", parse_math=False,
        )  # fmt: skip

    def picture(self, column: int, y: int, pixels: NDArray[np.uint8], title: str, note: str = "") -> None:
        """A picture, pixel for pixel, under its title with a note at the right."""
        height, width = pixels.shape[:2]
        self.write(self.left(column), y - TITLE / 2, title)
        self.write(self.left(column) + WIDTH, y - TITLE / 2, note, size=9, color=_FAINT, right=True)
        axes = self.axes(self.left(column) + (WIDTH - width) // 2, y, width, height)
        axes.imshow(pixels, aspect="auto", interpolation="nearest")

    def save(self, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as file, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # names of files, in any script
            self.figure.savefig(file, format="png", facecolor=_BACKGROUND)


def _draw_map(paper: _Paper, column: int, y: int, switch: SwitchMap, size: Size, title: str, *, stretch: bool) -> None:
    """A map over the image, and below it its histogram over the colour scale."""
    values = switch.values
    scale = Scale.over(values) if stretch else FULL
    note = f"mean {values.mean():.2f}, from {_range(values.min(), values.max())}"
    paper.picture(column, y, scale.colors(switch.upsampled(size)), title, note)
    _draw_histogram(paper, paper.left(column), y + size[0] + 6, values, scale, height=HISTOGRAM - 6)


def _draw_histogram(paper: _Paper, x: float, y: float, values: Values, scale: Scale, *, height: float) -> None:
    """Bars in the colours of their values, over the colour scale."""
    counts, edges = scale.histogram(values, _BINS)
    axes = paper.axes(x, y, WIDTH, height)
    axes.set(xlim=(scale.low, scale.high), ylim=(0, 1.05 * counts.max()), facecolor="white")
    colors = scale.colors((edges[:-1] + edges[1:]) / 2) / 255
    left, right, flat = edges[:-1], edges[1:], np.zeros(len(counts))
    corners = list(np.stack([(left, flat), (left, counts), (right, counts), (right, flat)]).transpose(2, 0, 1))
    # One thing to draw: as bars, which are as many, they took half the time of the sheet.
    axes.add_collection(PolyCollection(corners, facecolors=colors, edgecolors=_FAINT, linewidths=0.4), autolim=False)
    axes = paper.axes(x, y + height, WIDTH, SCALE)
    steps = scale.colors(np.linspace(scale.low, scale.high, 4 * WIDTH))
    axes.imshow(steps[None], aspect="auto", extent=(scale.low, scale.high, 0, 1), interpolation="nearest")
    form = "{:.2f}" if scale.stretched else "{:g}"
    margin = 0.12 * (scale.high - scale.low)
    middle = [border for border in (0, 1) if scale.low + margin < border < scale.high - margin]
    ends = [form.format(end) for end in (scale.low, scale.high)]
    if not scale.stretched:
        ends = [f"≤ {ends[0]}", f"≥ {ends[1]}"]
    axes.set_xticks([scale.low, *middle, scale.high], [ends[0], *map(str, middle), ends[1]])
    axes.tick_params(length=2, labelsize=8, colors=_FAINT, pad=2)
    labels = axes.get_xticklabels()
    labels[0].set_horizontalalignment("left")
    labels[-1].set_horizontalalignment("right")


def _draw_legend(paper: _Paper, column: int, y: int, sheet: Sheet) -> None:
    """What the grey means, the histogram of all cells of all layers, and the numbers."""
    x = paper.left(column)
    values = np.concatenate([each.values.ravel() for each in sheet.maps])
    own = "; below, each map over its own range" if sheet.stretch else ""
    paper.write(x, y - TITLE / 2, f"switch S(x), {len(sheet.maps)} layer{'s' * (len(sheet.maps) > 1)}{own}")
    paper.write(x, y + 8, f"dark: the large rate (0 is dilation {LARGE_DILATION} alone)", size=9)
    paper.write(x, y + 26, "bright: the small rate (1 is dilation 1 alone)", size=9)
    paper.write(x, y + 44, "blue: below 0; orange: above 1 (S is linear and may leave [0, 1])", size=9)
    _draw_histogram(paper, x, y + 60, values, FULL, height=70)
    numbers, objects = sheet.summary.overall, sheet.summary.objects
    below, above = 100 * (values < 0).mean(), 100 * (values > 1).mean()
    lines = [
        f"mean {numbers.mean:.3f}, from {_range(numbers.minimum, numbers.maximum)}",
        f"{below:.1f} % of the cells below 0, {above:.1f} % above 1",
        f"mean inside {sheet.objects}:",
    ]
    for size, count, value in (
        ("small", objects.small, numbers.small),
        ("medium", objects.medium, numbers.medium),
        ("large", objects.large, numbers.large),
    ):
        lines.append(f"    {size}: none" if value is None else f"    {size}: {value:.3f}  (of {count})")
    for line, text in enumerate(lines):
        paper.write(x, y + 178 + 18 * line, text, size=9)


def _averaged(maps: Sequence[SwitchMap]) -> SwitchMap:
    """The mean of maps that have the same cells."""
    first = maps[0]
    values = np.asarray(np.mean([each.values for each in maps], axis=0, dtype=np.float32))
    return SwitchMap(first.layer, first.stage, first.passage, values, first.input_size)


def _range(low: float, high: float) -> str:
    return f"{low:.2f} to {high:.2f}"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"…{text[1 - length :]}"
