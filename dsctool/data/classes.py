"""Classes of two data sets, or of a model and data: they go by name, ids may differ."""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dsctool.data.columns import Reading
from dsctool.data.records import Category
from dsctool.errors import DataError


def match_categories(
    model: Sequence[Category], data: Sequence[Category], file: Path, met: Container[int] | None = None
) -> list[Category | None]:
    """The data set's category for every label of a model: they must have the same names, ids may differ.

    None for classes that the data lack: there is nothing of them to find, or to miss.
    met: ids of categories that annotations have (:func:`met_categories`): of others, such as a background, the model
    need know nothing. None: of all.

    Raises:
        DataError: the data have a category that the model lacks, or names are not enough to tell some apart; the
            message names ``file`` and the categories.
    """
    if list(model) == list(data):
        return list(data)
    names = [category.name for category in model]
    data = [category for category in data if met is None or category.id in met or category.name in names]
    by_name = {category.name: category for category in data}
    if len(by_name) < len(data) or len(set(names)) < len(names):
        raise DataError(f"{file}: several categories have one name, and their ids are not the model's: rename them.")
    if by_name and by_name.keys() <= set(names):
        return [by_name.get(name) for name in names]
    raise DataError(
        f"{file}: its categories are not the model's. Only in the data: {listed(set(by_name) - set(names))}; "
        f"only in the model: {listed(set(names) - set(by_name))}. Names must agree; ids may differ."
        f"{_spelling(set(by_name) - set(names), names)}"
    )


def met_categories(reading: Reading) -> frozenset[int]:
    """The ids of those that annotations have."""
    return frozenset(reading.categories[label].id for label in np.unique(reading.annotations.label).tolist())


def lacking(model: Sequence[Category], data: Sequence[Category]) -> str:
    """What to say of classes that the data lack, or have beside those of the model; or nothing."""
    known, there = ({category.name for category in each} for each in (model, data))
    said = [f"has no categories {listed(known - there)}: nothing of them is measured"] if known - there else []
    if there - known:
        said.append(f"has categories {listed(there - known)} that no annotation has: left aside")
    return "; ".join(said)


def relabelled(reading: Reading, model: Sequence[Category]) -> Reading:
    """The same with a model's categories, and its labels.

    Raises:
        DataError: as :func:`match_categories`.
    """
    if reading.categories == list(model):
        return reading
    matched = match_categories(model, reading.categories, reading.path, met_categories(reading))
    label_of = {category.id: label for label, category in enumerate(matched) if category is not None}
    labels = np.asarray([label_of.get(category.id, -1) for category in reading.categories], dtype=np.int64)
    annotations = replace(reading.annotations, label=labels[reading.annotations.label])
    return replace(reading, categories=list(model), annotations=annotations)


def listed(names: Collection[str]) -> str:
    """Names for a message, the first of them."""
    return ", ".join(sorted(names)[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "none"


def _spelling(unknown: set[str], names: Sequence[str]) -> str:
    """Names that differ in blanks or letter case alone."""
    known = {name.strip().casefold(): name for name in names}
    pairs = [(name, known[name.strip().casefold()]) for name in sorted(unknown) if name.strip().casefold() in known]
    return f" {pairs[0][0]!r} and {pairs[0][1]!r} are spelled differently." if pairs else ""
