"""COCO's numbers on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from dsctool.cli.tables import print_table, show_limit

if TYPE_CHECKING:
    from dsctool.evaluation.coco import Evaluation, Numbers
    from dsctool.evaluation.protocol import Protocol


def show_ap(evaluation: Evaluation, *, per_class: bool) -> None:
    """AP and AR of boxes and masks; before them, where asked for, AP of the categories."""
    boxes, masks = evaluation.stats["bbox"], evaluation.stats["segm"]
    if per_class:
        header = ["id", "category", "instances", *(f"{kind} {name}" for kind in ("box", "mask") for name in _AP)]
        rows = [
            [str(row.id), row.name, str(row.instances), *_cells(row.bbox, _AP), *_cells(row.segm, _AP)]
            for row in evaluation.classes
        ]
        print_table(header, rows)
        if any(row.instances == 0 for row in evaluation.classes):
            typer.echo("-1: the ground truth has no instance of the category")
        typer.echo()
    meanings = _meanings(evaluation.protocol)
    names = tuple(meanings)
    columns = zip(names, _cells(boxes, names), _cells(masks, names), meanings.values(), strict=True)
    print_table(["", "box", "mask", ""], [list(row) for row in columns])
    show_limit(evaluation.protocol.limits[-1])
    for note in evaluation.notes:
        typer.echo(note)


def show_published(name: str, evaluation: Evaluation) -> None:
    """AP beside the published one, in points."""
    from dsctool.config.published import PUBLISHED

    if (row := PUBLISHED.get(name)) is None:
        typer.echo(f"nothing is published about {name}")
        return
    typer.echo()
    sides = [("box", row.box, evaluation.stats["bbox"]), ("mask", row.mask, evaluation.stats["segm"])]
    table = [
        [kind, f"{published:.1f}", f"{100 * numbers['AP']:.1f}", f"{100 * numbers['AP'] - published:+.1f}"]
        for kind, published, numbers in sides
        if published is not None and numbers is not None
    ]
    print_table(["AP", "published", "measured", "difference"], table)
    typer.echo(f"published by {row.by}, on COCO {row.split}")


def _meanings(protocol: Protocol) -> dict[str, str]:
    """Of the numbers, by name."""
    from dsctool.evaluation.coco import stat_names
    from dsctool.evaluation.protocol import COCO_AREAS

    coco = ("small: area below 32 x 32", "medium", "large: area above 96 x 96")
    known = dict(zip(COCO_AREAS, coco, strict=True))
    areas = [known.get(area, f"{area.name}: {area.bounds}") for area in protocol.areas]
    limits = [f"{limit} detection{'s' if limit > 1 else ''} per image" for limit in protocol.limits]
    short = [text.split(":")[0] for text in areas]
    texts = ["IoU 0.50 to 0.95", "IoU 0.50", "IoU 0.75", *areas, *limits, *short]
    return dict(zip(stat_names(protocol), texts, strict=True))


_AP = ("AP", "AP50", "AP75")


def _cells(numbers: Numbers | None, names: tuple[str, ...]) -> list[str]:
    if numbers is None:
        return ["-"] * len(names)
    return ["-1" if numbers[name] == -1 else f"{numbers[name]:.3f}" for name in names]
