"""Filling a model from weights made elsewhere, with an account of what fitted."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import get_weight

from dsctool.errors import CheckpointError, DamagedError
from dsctool.models.backbones.sac import calibrate, standardised

HEADS = ("cascade.",)
"""Prefixes of the parameters that a load may leave at random: they depend on the classes and the cascade."""
ADDITIONS = re.compile(
    r"\.(weight_gamma|weight_beta|weight_diff|switch\.\w+|(pre|post)_context\.\w+|offset_[sl]\.\w+"
    r"|conv_offset\.\w+|rfp_conv\.\w+)$"
)
"""Parameters that variants add to a plain network; their fresh values leave its function as it was, or are meant."""
COLOURS = 3
"""Channels of the images that published weights were made for."""
_STEM = re.compile(r"^(backbone\.|rfp\.backbones\.\d+\.)?conv1\.weight$")
_DAMAGE = (RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError, TypeError)
"""What torch raises over files that are not whole; OSError: it seeks to places that do not exist."""
_NUMBERS: list[Any] = [
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?")),
]
"""Numbers of numpy, which training programs leave beside the weights: nothing but values can be made of these."""
_FOREIGN_CLASS = re.compile(r"GLOBAL ([\w.]+)")
SHOWN = 5
"""Names listed of each kind."""


@dataclass(frozen=True)
class LoadReport:
    """What a load did, by parameter name.

    reshaped: present under the same name with another shape, so not loaded.
    inflated: first convolutions for colour images that were made ones for others (:func:`inflated`); also loaded.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]
    inflated: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """One line of counts, then one per kind of misfit with its first names."""
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "reshaped": self.reshaped}
        if self.inflated:
            kinds["inflated from 3 channels"] = self.inflated
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in kinds.items())
        return [f"{len(self.loaded)} loaded, {counts}"] + [
            f"{kind}: {', '.join(names[:SHOWN])}{f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''}"
            for kind, names in kinds.items()
            if names
        ]


def load_weights(
    model: nn.Module, state: Mapping[str, Tensor], *, source: str, allow_partial: bool = False
) -> LoadReport:
    """Load every entry of ``state`` that has a parameter of its name and shape.

    Standardised convolutions whose affine buffers are not in ``state`` are calibrated, so that they
    start as the loaded weight. What a variant adds to a plain network may be missing. First convolutions for colour
    images are made ones for the channels that ``model`` has: see :func:`inflated`.

    Args:
        source: what the message calls the weights.
        allow_partial: accept that more than the heads stays uninitialised.

    Raises:
        CheckpointError: a parameter outside the heads is not in ``state`` or has another shape.
    """
    own = model.state_dict()
    adapted, grown = _for_channels(state, own)
    fitting = {name: value for name, value in adapted.items() if name in own and own[name].shape == value.shape}
    report = LoadReport(
        loaded=tuple(fitting),
        missing=tuple(name for name in own if name not in state and not name.endswith("num_batches_tracked")),
        unexpected=tuple(name for name in state if name not in own),
        reshaped=tuple(name for name in adapted if name in own and name not in fitting),
        inflated=grown,
    )
    left = [
        name
        for name in (*report.missing, *report.reshaped)
        if not name.startswith(HEADS) and not ADDITIONS.search(name)
    ]
    if left and not allow_partial:
        raise CheckpointError(
            f"{source}: {len(left)} parameters outside the heads would stay random, "
            f"such as {', '.join(left[:SHOWN])}.\n"
            + "\n".join(report.lines())
            + "\nThese weights are for another architecture; train.partial_weights=true loads what fits all the same."
        )
    model.load_state_dict(fitting, strict=False)
    for name, module in model.named_modules():
        if f"{name}.weight" in fitting and f"{name}.weight_gamma" in own and f"{name}.weight_gamma" not in fitting:
            calibrate(module)
    return report


def inflated(weight: Tensor, channels: int) -> Tensor:
    """A first convolution ``(O, 3, k, k)`` for red, green and blue as one for other channels, ``(O, channels, k, k)``.

    The first three keep red's, green's and blue's filters, and all others get the mean of these (each gets it, where
    there are fewer than three), times ``3 / channels``: an image whose channels are all alike gives what it gave.
    """
    mean = weight.mean(dim=1, keepdim=True)
    parts = [mean] * channels if channels < COLOURS else [weight, *[mean] * (channels - COLOURS)]
    return torch.cat(parts, dim=1) * (COLOURS / channels)


def _for_channels(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """``state`` with first convolutions for the channels that ``own`` has, and the names of those that changed.

    A standardised one is inflated as it counts, without its affine buffers, which then are to be calibrated.
    """
    changed = dict(state)
    names = []
    for name, weight in state.items():
        if not _STEM.search(name) or name not in own or own[name].shape == weight.shape or weight.ndim != 4:
            continue
        filters, channels, *kernel = own[name].shape
        if weight.shape != (filters, COLOURS, *kernel):
            continue
        gamma, beta = (changed.pop(f"{name}_{part}", None) for part in ("gamma", "beta"))
        if gamma is not None and beta is not None:
            weight = standardised(weight, gamma, beta)
        changed[name] = inflated(weight, channels)
        names.append(name)
    return changed, tuple(names)


def load_backbone_weights(backbone: nn.Module, source: str) -> LoadReport:
    """Load ImageNet weights into a backbone; the classifier of the file is left aside.

    Args:
        source: a torchvision weight enum such as ``ResNet50_Weights.IMAGENET1K_V1``, or a local file
            with a state dict (torchvision's names, alone or below ``state_dict`` or ``backbone.``).

    Raises:
        CheckpointError: the weights cannot be had, or do not fit the whole backbone.
    """
    state = read_state_dict(Path(source)) if Path(source).exists() else _fetch(source)
    if any(name.startswith("backbone.") for name in state):
        state = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    own = backbone.state_dict()
    adapted, _ = _for_channels(state, own)
    misfits = [
        name
        for name in {**own, **adapted}
        if not name.endswith("num_batches_tracked")
        and not (name not in adapted and ADDITIONS.search(name))
        and (name not in own or name not in adapted or own[name].shape != adapted[name].shape)
    ]
    if misfits:
        raise CheckpointError(
            f"model.backbone.weights={source} does not fit the backbone: {len(misfits)} parameters are missing, left "
            f"over or of another shape, such as {', '.join(misfits[:SHOWN])}. "
            "Check depth, groups, width_per_group and norm."
        )
    return load_weights(backbone, state, source=source)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; a mapping under ``state_dict`` or ``model`` is entered.

    Raises:
        CheckpointError: no such file, or not a file of tensors.
    """
    return state_dict_in(read_tensors(path), path)


def state_dict_in(content: object, path: Path) -> dict[str, Tensor]:
    """:func:`read_state_dict`, of what has been read from ``path``."""
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path}: holds no mapping from names to tensors")
    return dict(content)


def read_tensors(path: Path) -> object:
    """What ``torch.save`` wrote to ``path``: tensors and plain containers on the CPU, never code.

    Raises:
        CheckpointError: says what is wrong with the file.
    """
    if not path.is_file():
        what = "a folder; give a file in it, such as best.pt" if path.is_dir() else "no such file"
        raise CheckpointError(f"{path}: {what}.")
    try:
        file = path.open("rb")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    with file, warnings.catch_warnings(action="ignore", category=UserWarning):  # about foreign pickles, said below
        try:
            with torch.serialization.safe_globals(_NUMBERS):
                return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            found = _FOREIGN_CLASS.search(str(error))
            what = f": it holds {found[1]}" if found else ""
            raise CheckpointError(
                f"{path}: not a file of plain tensors{what} (code in it is never run). Give a checkpoint or a state "
                "dict; of a training program's own file, save what is under `state_dict` and `meta` alone, where that "
                "program is installed."
            ) from error
        except _DAMAGE as error:
            raise DamagedError(
                f"{path}: damaged or cut short, it cannot be read as a checkpoint. Copy it again or use another one."
            ) from error


def _fetch(name: str) -> dict[str, Tensor]:
    try:
        weights = get_weight(name)
    except (ValueError, TypeError) as error:  # TypeError: `resnet18.x` names a function of torchvision's
        raise CheckpointError(
            f"model.backbone.weights={name}: neither a file nor a torchvision weight enum "
            "(such as ResNet50_Weights.IMAGENET1K_V1)"
        ) from error
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        raise CheckpointError(
            f"model.backbone.weights={name} cannot be fetched ({error}). Fetch {weights.url} on a machine with network "
            f"and give its path, put it into {Path(torch.hub.get_dir()) / 'checkpoints'}, or start without: "
            "model.backbone.weights=null model.backbone.frozen_stages=-1"
        ) from error
    return state
