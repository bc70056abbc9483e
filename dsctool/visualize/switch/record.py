"""The switch maps of switchable atrous convolutions, as a detector computes them on an image.

S(x) says how a SAC layer mixes its two atrous rates: 1 is the small rate alone, 0 the large one alone. It is
linear, so it may leave [0, 1]. Maps are taken by forward hooks while the detector runs as it always does.

Cell ``i`` of a map at stride ``s`` looks at the surroundings of pixel ``s * i`` of the network's input: that is
the centre of its receptive field in both directions, and where upsampling puts it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from dsctool.errors import DsctoolError
from dsctool.models.backbones.sac import SwitchableAtrousConv
from dsctool.structures import Detections
from dsctool.terms import Size

Values = NDArray[np.float32]
"""Numbers of a map, ``(h, w)`` unless said otherwise."""

_PLACE = re.compile(r"(?:backbone|rfp\.backbones\.(?P<further>\d+))\.(?P<inner>layer(?P<stage>\d+)\..+)")


@dataclass(frozen=True)
class SwitchMap:
    """S(x) of one layer over one image.

    layer: name of the SAC layer in the detector. stage: of the backbone, 1 to 4. passage: 1 for the first pass
    through a backbone, 2 and more for those of a recursive feature pyramid.
    values: the cells over the image, not those over padding; row 0 is at the top.
    input_size: ``(h, w)`` of the image as the network saw it, without padding, in pixels.
    """

    layer: str
    stage: int
    passage: int
    values: Values
    input_size: Size

    @property
    def name(self) -> str:
        """The layer's name; where passes share a backbone, later ones add their number: ``...conv2@2``."""
        further = self.layer.startswith("backbone.") and self.passage > 1
        return f"{self.layer}@{self.passage}" if further else self.layer

    @property
    def stride(self) -> int:
        """Pixels of the network's input per cell."""
        return int(2 ** (self.stage + 1))

    def upsampled(self, size: Size) -> Values:
        """The map over the image drawn at ``size`` ``(h, w)``: bilinear, constant beyond the outermost cells."""
        rows, columns = self.interpolation(size)
        return np.asarray(rows @ self.values @ columns.T, dtype=np.float32)

    def interpolation(self, size: Size) -> tuple[Values, Values]:
        """Weights of the cells' rows ``(h, rows)`` and columns ``(w, columns)`` in the image's at ``size``."""
        rows, columns = (
            _interpolation(pixels, cells, step=side / pixels / self.stride, first=-0.5 / self.stride)
            for pixels, cells, side in zip(size, self.values.shape, self.input_size, strict=True)
        )
        return rows, columns


@dataclass(frozen=True)
class SwitchRecord:
    """What one run of the detector gave.

    maps: in the order of the layers, later passes of a shared backbone after earlier ones.
    detections: in pixels of the original image, whose ``(h, w)`` is ``image_size``.
    """

    maps: list[SwitchMap]
    detections: Detections
    image_size: Size


def switch_layers(model: nn.Module) -> list[str]:
    """Names of the SAC layers, in the order of the network: ``backbone.layer3.0.conv2``."""
    return [name for name, module in model.named_modules() if isinstance(module, SwitchableAtrousConv)]


def select_layers(layers: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The layers that match any of the shell-style ``patterns``, in their order; all where there are no patterns.

    ``*`` also matches dots. A pattern is compared with a layer's whole name and with its name inside its
    backbone: ``layer3.*`` are the layers of stage 3 in every pass, ``backbone.layer3.*`` those of the first pass,
    ``rfp.*`` those of the further backbones. The beginning of a name, up to a dot, stands for all below it:
    ``layer3``, ``layer3.0``.

    Raises:
        DsctoolError: a pattern matches nothing; the message lists the layers.
    """
    chosen = set()
    for pattern in patterns:
        found = [layer for layer in layers if _matches(layer, pattern)]
        if not found:
            raise DsctoolError(f"no SAC layer matches {pattern!r}; there are {', '.join(layers)}")
        chosen.update(found)
    return [layer for layer in layers if layer in chosen] if patterns else list(layers)


@contextmanager
def recording(model: nn.Module, layers: Sequence[str]) -> Iterator[SwitchRecorder]:
    """While the block runs, keeps the switch maps of ``layers`` for whatever ``model`` is run on, image by image.

    Raises:
        DsctoolError: from the run, where a map has values that are not finite.
    """
    recorder = SwitchRecorder(layers)
    handles = [
        model.get_submodule(f"{layer}.switch").register_forward_hook(partial(recorder.keep, layer)) for layer in layers
    ]
    try:
        yield recorder
    finally:
        for handle in handles:
            handle.remove()


class SwitchRecorder:
    """Holds the switch maps of the image that a detector ran on last, on the CPU."""

    def __init__(self, layers: Sequence[str]) -> None:
        self._calls: dict[str, list[Values]] = {layer: [] for layer in layers}

    def keep(self, layer: str, module: nn.Module, inputs: object, output: Tensor) -> None:
        """A forward hook of the switch of ``layer``; it sees batches of one image."""
        values = output[0, 0].float().cpu().numpy()
        if not np.isfinite(values).all():
            raise DsctoolError(f"the switch of {layer} is not finite: the checkpoint's weights have diverged")
        self._calls[layer].append(values)

    def take(self, found: Detections, input_size: Size) -> SwitchRecord:
        """What there is of the last image, whose detections are ``found``; the next one starts anew.

        input_size: ``(h, w)`` of the image as the network saw it, without padding.
        """
        maps = [
            _map(layer, call, values, input_size)
            for layer, calls in self._calls.items()
            for call, values in enumerate(calls)
        ]
        for calls in self._calls.values():
            calls.clear()
        return SwitchRecord(maps=maps, detections=found.to("cpu"), image_size=found.size)


def _map(layer: str, call: int, values: Values, size: Size) -> SwitchMap:
    place = _PLACE.fullmatch(layer)
    if place is None:
        raise ValueError(f"{layer}: a SAC layer outside the backbones")
    stage = int(place["stage"])
    rows, columns = (-(-side // 2 ** (stage + 1)) for side in size)
    passage = call + 1 if place["further"] is None else int(place["further"]) + 2
    # A copy: the view would keep the padding too.
    return SwitchMap(layer, stage, passage, values[:rows, :columns].copy(), size)


def _matches(layer: str, pattern: str) -> bool:
    place = _PLACE.fullmatch(layer)
    names = [layer] if place is None else [layer, place["inner"]]
    return any(fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") for name in names)


def _interpolation(pixels: int, cells: int, *, step: float, first: float) -> Values:
    """``(pixels, cells)``: linear interpolation between cells; pixel centre ``p + 0.5`` is at ``first + step * it``."""
    position = np.clip(first + step * (np.arange(pixels) + 0.5), 0, cells - 1)
    low = np.floor(position).astype(np.int64)
    share = position - low
    weights = np.zeros((pixels, cells), dtype=np.float32)
    index = np.arange(pixels)
    weights[index, low] = 1 - share
    weights[index, np.minimum(low + 1, cells - 1)] += share
    return weights
