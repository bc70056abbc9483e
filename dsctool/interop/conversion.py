"""Checkpoints of other programs -> checkpoints of this one, and back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsctool.config.limits import fit_limits
from dsctool.config.loading import load_config
from dsctool.config.model_schema import GeometryName
from dsctool.config.names import list_configs
from dsctool.config.published import PUBLISHED
from dsctool.config.schema import Config
from dsctool.data.records import Category
from dsctool.errors import CheckpointError
from dsctool.interop.coco_categories import COCO_CATEGORIES
from dsctool.interop.layouts import FIRST_VERSION, Unified, unify
from dsctool.interop.loading import state_dict_in
from dsctool.interop.published import load_published, published_name, rename

_HASH = re.compile(r"-([0-9a-f]{8})\.pth$")
_CLASSIFIER = "roi_head.bbox_head.0.fc_cls.weight"


@dataclass(frozen=True)
class Conversion:
    """What a file became. config: resolved. state: by this project's names. account: what was found, a line each."""

    config: Config
    config_name: str
    categories: list[Category]
    state: dict[str, Tensor]
    account: tuple[str, ...]


def convert(content: object, path: Path, *, config: str | None = None) -> Conversion:
    """What was read from ``path``: weights of mmdet 1.x to 3.x, of the DetectoRS and the DSC authors.

    config: a shipped configuration's name, or a file; None where the weights' shapes decide it. Nothing may be missing
    or left over, and every shape must be equal.

    Raises:
        CheckpointError: these are no such weights; several configurations fit them; they are of another model.
    """
    unified = unify(state_dict_in(content, path))
    classes = _number_of_classes(unified, path)
    categories, said = _categories(content, classes)
    name = config or _recognised(unified, classes, path)
    built = fit_limits(load_config(name, [f"model.num_classes={classes}"]))
    state = _fitted(built, classes, unified, path, name)
    account = [
        f"layout: {unified.layout}, {len(unified.state)} tensors",
        *unified.changes,
        f"configuration: {name}" + ("" if config else ", by the shapes of the weights"),
        f"categories: {said}",
        *_geometry(built, unified),
        *_checked_hash(path),
    ]
    return Conversion(built, name, categories, state, tuple(account))


def as_published(categories: Sequence[Category], model: Mapping[str, Tensor]) -> dict[str, Any]:
    """What mmdet 2.x keeps in a file: :func:`convert` gives back identical tensors."""
    return {
        "meta": {"CLASSES": tuple(category.name for category in categories)},
        "state_dict": {published_name(name): value for name, value in model.items()},
    }


# --- which model ------------------------------------------------------------------------------------


def _number_of_classes(unified: Unified, path: Path) -> int:
    classifier = unified.state.get(_CLASSIFIER)
    if classifier is None:
        known = ", ".join(list(unified.state)[:3])
        raise CheckpointError(
            f"{path}: not the weights of a cascade as mmdet names them: no {_CLASSIFIER}, but {known}. "
            "Cascade R-CNN, HTC, DetectoRS, DSC and F-DSC can be converted."
        )
    return len(classifier) - 1


def _recognised(unified: Unified, classes: int, path: Path) -> str:
    """The configuration that the weights fit: the one that the file is published for; else, of those with the geometry
    of the file's program where there are some, the one that it is named by."""
    ours = {rename(name): tuple(value.shape) for name, value in unified.state.items()}
    candidates = {each.name: _of_classes(each.name, classes) for each in list_configs()}
    alike: dict[str, list[str]] = {}
    for name, config in candidates.items():
        if _has_same_parts(config, unified.state):
            alike.setdefault(_as_run(config), []).append(name)
    fitting = [names for names in alike.values() if _fits(names[0], classes, ours)]
    if not fitting:
        raise CheckpointError(
            f"{path}: the weights fit none of the shipped configurations. Name the nearest one with --config NAME to "
            "see where they differ (dsctool configs list has all)."
        )
    for name in chain(*fitting):
        if name in PUBLISHED and PUBLISHED[name].file_name == path.name:
            return name
    meant = _geometry_of(unified)
    fitting = [names for names in fitting if candidates[names[0]].model.geometry == meant] or fitting
    if len(fitting) > 1:
        raise CheckpointError(
            f"{path}: its weights fit {len(fitting)} different models, and the file does not say of which it is: "
            f"{', '.join(names[0] for names in fitting)}. Give --config NAME."
        )
    (names,) = fitting
    return max(names, key=lambda name: len(name) if path.name.startswith(name) else 0)


def _has_same_parts(config: Config, state: Mapping[str, Tensor]) -> bool:
    """What tells most models apart without building them."""
    backbone, first = config.model.backbone, state.get("backbone.layer1.0.conv2.weight")
    if first is None:
        return False
    out, per_group = first.shape[:2]
    deep = "backbone.layer3.22.conv1.weight" in state
    neck = state.get("neck.fpn_convs.0.conv.bias", first)
    sides = [
        (deep, backbone.depth == 101),
        (len(neck), config.model.neck.channels),
        (out // per_group, backbone.groups),
        ("neck.rfp_weight.weight" in state, config.model.neck.rfp is not None),
        (any(".switch." in name for name in state), backbone.sac is not None),
        (any(".mpn." in name for name in state), config.model.cascade.kind == "dsc"),
    ]
    return all(one == other for one, other in sides)


@cache  # for programs that convert several files
def _of_classes(name: str, classes: int) -> Config:
    return load_config(name, [f"model.num_classes={classes}"])


def _fits(config_name: str, classes: int, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    own = _expected(config_name, classes)
    counters = {name for name in {**own, **shapes} if name.endswith("num_batches_tracked")}
    return all(own.get(name) == shapes.get(name) for name in {**own, **shapes} if name not in counters)


def _as_run(config: Config) -> str:
    """The layers, and all else that results depend on once a model is trained."""
    model = config.model.model_dump(mode="json")
    model["backbone"].pop("weights")
    shown = {key: value for key, value in config.data.model_dump(mode="json").items() if key in _SEEN}
    return repr((model, config.postprocess, shown))


_SEEN = ("semantic", "test_resize", "pad_divisor", "mean", "std")


@cache
def _expected(config_name: str, classes: int) -> Mapping[str, tuple[int, ...]]:
    """The shapes of the model's entries."""
    from dsctool.models.build import build_detector

    with torch.device("meta"):
        state = build_detector(_of_classes(config_name, classes), num_classes=classes).state_dict()
    return {name: tuple(value.shape) for name, value in state.items()}


def _fitted(config: Config, classes: int, unified: Unified, path: Path, name: str) -> dict[str, Tensor]:
    """The weights by this project's names; counters of batches, which inference does not look at, may be missing."""
    from dsctool.models.build import build_detector

    model = build_detector(config, num_classes=classes)
    state = dict(unified.state)
    named = {rename(each) for each in state}
    for own in model.state_dict():
        if own.endswith("num_batches_tracked") and own not in named:
            state[published_name(own)] = torch.zeros((), dtype=torch.int64)
    try:
        load_published(model, state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: not weights of {name}. {error}") from None
    return model.state_dict()


def _geometry_of(unified: Unified) -> GeometryName:
    return "mmdet1" if unified.layout == FIRST_VERSION else "current"


def _geometry(config: Config, unified: Unified) -> list[str]:
    """What brings the published numbers, where boxes and pixels met otherwise when the weights were trained."""
    model = config.model
    if unified.layout != FIRST_VERSION:
        return []
    if model.geometry == "mmdet1":
        return ["geometry: mmdet1, in which these weights were trained"]
    wanted = ["model.geometry=mmdet1"]
    if model.neck.rfp is not None and model.backbone.groups > 1:  # DetectoRS with X101
        wanted += ["postprocess.nms=soft", "postprocess.score_threshold=0.001"]
    return [
        "geometry: current, but these weights were trained and measured in that of mmdet 1.x. For the published "
        f"numbers (which are up to 1 AP higher) give predict and eval {' '.join(wanted)}"
    ]


# --- what is around the weights ---------------------------------------------------------------------


def _categories(content: object, count: int) -> tuple[list[Category], str]:
    """The classes of a file with their ids, and where they are from."""
    names = _class_names(content)
    coco = [category.name for category in COCO_CATEGORIES]
    if names and len(names) == count and [name.replace("_", " ") for name in names] != coco:
        return [
            Category(number, name) for number, name in enumerate(names, start=1)
        ], f"{count} of the file, ids from 1"
    if count == len(coco):
        return list(COCO_CATEGORIES), "COCO's 80"
    missing = "names none" if not names else f"names {len(names)}"
    return [Category(number, f"class {number}") for number in range(1, count + 1)], (
        f"{count} by number, since the file {missing}"
    )


def _class_names(content: object) -> list[str]:
    meta = content.get("meta") if isinstance(content, Mapping) else None
    if not isinstance(meta, Mapping):
        return []
    described = meta.get("dataset_meta")
    found = meta.get("CLASSES") or (described.get("classes") if isinstance(described, Mapping) else None) or ()
    return [str(name) for name in found] if isinstance(found, Sequence) and not isinstance(found, str) else []


def _checked_hash(path: Path) -> list[str]:
    """Published files have the beginning of their SHA-256 in their names."""
    said = _HASH.search(path.name)
    if said is None or not path.is_file():
        return []
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()[:8]
    if found == said[1]:
        return [f"hash: {found}, as the name says"]
    return [f"hash: {found}, but the name says {said[1]}: the file was changed after it was published, or is damaged"]
