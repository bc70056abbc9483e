"""Which pictures are learnt from and which are measured on."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from dsctool.data.importing.record import Picture
from dsctool.errors import DataError

DEFAULT_SHARE = 0.2
"""Of the pictures, for validation, where neither the user nor the source says anything."""


def split_pictures(
    pictures: Sequence[Picture], *, share: float | None, seed: int, group_by: str | None
) -> dict[str, list[Picture]]:
    """Pictures by the name of their part: train, val, and test where the source has one.

    share: for validation, at random; None keeps the source's own parts, or takes a fifth where it has no validation.
    group_by: pictures of one group stay together: ``folder``, or a regular expression whose first group, or all that it
    matches, is the group of a picture, by its path in the source; None: each by itself.

    Raises:
        DataError: the expression is none, or does not match, or there are too few groups, or one lies in several parts.
    """
    groups = [group_of(picture, group_by) for picture in pictures]
    parts = [picture.split or "train" for picture in pictures]
    own = share is None and "val" in parts
    if not own:
        parts = ["test" if part == "test" else "train" for part in parts]
        held_out = _held_out(
            [group for group, part in zip(groups, parts, strict=True) if part == "train"],
            DEFAULT_SHARE if share is None else share,
            seed,
        )
        parts = [
            "val" if part == "train" and group in held_out else part for part, group in zip(parts, groups, strict=True)
        ]
    _refuse_leaks(pictures, groups, parts)
    found: dict[str, list[Picture]] = {}
    for name in ("train", "val", "test"):
        chosen = [picture for picture, part in zip(pictures, parts, strict=True) if part == name]
        if chosen:
            found[name] = chosen
    return found


def group_of(picture: Picture, group_by: str | None) -> str:
    """What a picture has in common with those that must stay with it."""
    if group_by is None:
        return picture.name
    if group_by == "folder":
        return str(PurePosixPath(picture.name).parent)
    try:
        match = re.search(group_by, picture.name)
    except re.error as error:
        raise DataError(f"--group-by {group_by}: is neither 'folder' nor a regular expression: {error}") from None
    if match is None:
        raise DataError(f"--group-by {group_by}: does not match {picture.name}")
    return str(match[1] if match.re.groups and match[1] is not None else match[0])


def _held_out(groups: Sequence[str], share: float, seed: int) -> set[str]:
    """Groups at random with about this share of the pictures; at least one, and not all."""
    if share == 0:
        return set()
    sizes: dict[str, int] = defaultdict(int)
    for group in groups:
        sizes[group] += 1
    names = sorted(sizes)
    if len(names) < 2:
        what = "picture" if len(groups) < 2 else f"group of {len(groups)} pictures, {names[0]}"
        raise DataError(f"one {what}: nothing is left for validation; --val 0 does without")
    wanted = share * len(groups)
    chosen: set[str] = set()
    count = 0
    for place in np.random.default_rng(seed).permutation(len(names)).tolist():
        name = names[place]
        closer = abs(count + sizes[name] - wanted) < abs(count - wanted)
        if (closer or not chosen) and len(chosen) < len(names) - 1:
            chosen.add(name)
            count += sizes[name]
    return chosen


def _refuse_leaks(pictures: Sequence[Picture], groups: Sequence[str], parts: Sequence[str]) -> None:
    seen: dict[str, tuple[str, Picture]] = {}
    for picture, group, part in zip(pictures, groups, parts, strict=True):
        other, first = seen.setdefault(group, (part, picture))
        if other != part:
            raise DataError(
                f"group '{group}' is in the source's {other} ({first.name}) and {part} ({picture.name}): "
                f"--val {DEFAULT_SHARE} makes parts anew"
            )
