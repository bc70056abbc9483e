"""``dsctool data``: check, describe and make data sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.data_diff import diff
from dsctool.cli.data_import import export, import_
from dsctool.cli.data_merge import merge
from dsctool.cli.data_rank import rank
from dsctool.cli.data_suggest import suggest
from dsctool.cli.data_synth import synth
from dsctool.cli.options import ConfigName, DataRoot, JsonFile, Overrides
from dsctool.cli.output import beside, counting, prepare_file, write_json
from dsctool.cli.tables import print_table

if TYPE_CHECKING:
    from dsctool.cli.data_fix import Split
    from dsctool.config.schema import DataConfig
    from dsctool.data.faults import Fault
    from dsctool.data.panoptic_truth import PanopticStats
    from dsctool.data.stats import ClassCount, SplitStats

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Check, describe and make data sets.")
for _command in (suggest, merge, diff, rank, synth):
    app.command()(_command)

app.command("import")(import_)
app.command("export")(export)

PREVIEWED = 16
DataOverrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Values of data.* to change, as in data.train.split=train2017"),
]
Root = Annotated[
    Path, typer.Argument(metavar="DIR", help="Root of a data set: annotations/instances_*.json, one folder per split.")
]


@app.command()
def check(
    root: Root,
    overrides: DataOverrides = None,
    boxes_only: Annotated[bool, typer.Option("--boxes-only", help="Do without segmentations.")] = False,
    fix: Annotated[
        Path | None,
        typer.Option(
            "--fix",
            metavar="OUT.json",
            help="Write a mended copy of the annotations; of several splits OUT_SPLIT.json, or OUT is a folder.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="With --fix: replace files that are there.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Find every fault of a data set.

    Every split is checked and every image decoded. Each fault is one line that names the file and the id (many equal
    ones share a line). Training refuses the same faults, and then the exit code is 1; of warnings, which say what
    training does about them, it is 0.

    KEY=VALUE, such as data.train.annotations=labels.json, names the splits as for dsctool train.

    --fix mends what needs no guess: values that follow from the masks (bbox, area), iscrowd, ids, names and sizes of
    files, boxes over the border, stray points, empty and repeated objects. It says what it did, and checks the copy.

    Example:

        dsctool data check datasets/coco
    """
    from dsctool.cli.data_fix import mended_paths, tell_use, write_mended
    from dsctool.data.checks import check_data, check_splits
    from dsctool.data.faults import grouped, has_errors
    from dsctool.data.layout import find_configured
    from dsctool.engine.limits import published_notes

    data = _data_config(overrides)
    prepare_file(json_file)
    notes: list[str] = []
    copies: list[Split] | None = None
    mended: list[Fault] = []
    if fix is not None:
        splits = find_configured(root, data)
        copies, mended = write_mended(splits, mended_paths(fix, [files for files, _ in splits], overwrite=overwrite))
        tell_use(copies)

    def fullest(file: Path, instances: int) -> None:
        notes.extend(published_notes(file, instances))

    masks, skips = not boxes_only, data.on_error == "skip"
    with counting() as progress:
        if copies is None:
            faults = check_data(root, masks=masks, progress=progress, fullest=fullest, data=data)
        else:
            faults = [*mended, *check_splits(copies, data, masks=masks, progress=progress, fullest=fullest)]
    for note in notes:
        typer.echo(note, err=True)
    with beside(json_file):
        for line in grouped(faults):
            typer.echo(line)
    if json_file is not None:
        write_json(json_file, [{**asdict(fault), "file": str(fault.file)} for fault in faults], indent=2)
    counts = Counter(fault.severity for fault in faults)
    warnings = _counted(counts["warning"], "warning") if counts["warning"] else ""
    if counts["error"]:
        said = f"{_counted(counts['error'], 'fault')}{f' and {warnings}' if warnings else ''}"
        left_out = skips and not has_errors([fault for fault in faults if fault.subject in ("file", "category")])
        typer.echo(f"{said}{': left out by data.on_error=skip' if left_out else ''}", err=True)
        raise typer.Exit(0 if left_out else 1)
    typer.echo(f"{root}: no faults{f', {warnings}' if warnings else ''}", err=True)


@app.command()
def stats(root: Root, overrides: DataOverrides = None, json_file: JsonFile = None) -> None:
    """Describe a data set: images, instances, sizes, overlaps, classes.

    KEY=VALUE, such as data.train.annotations=labels.json, names the splits as for dsctool train.

    Example:

        dsctool data stats datasets/coco
    """
    from dsctool.data.layout import find_configured
    from dsctool.data.panoptic_truth import describe_panoptic, panoptic_files
    from dsctool.data.stats import CANVASES, OVERLAPS, describe
    from dsctool.engine.limits import published_notes
    from dsctool.engine.object_sizes import small_objects_in

    data = _data_config(overrides)
    prepare_file(json_file)
    found = [files for files, _ in find_configured(root, data)]
    splits = [describe(files) for files in found]
    panoptic = [describe_panoptic(path) for path in panoptic_files(root)]
    notes = [
        note
        for files, split in zip(found, splits, strict=True)
        for note in (
            *small_objects_in(files.annotations, split),
            *published_notes(files.annotations, int(split.instances_per_image.largest)),
        )
    ]
    names = [split.name for split in splits]
    per_class = ["id", "category", *(f"{name}{part}" for name in names for part in (" instances", " images"))]
    with beside(json_file):
        print_table(["", *names], _summary_rows(splits, OVERLAPS, CANVASES))
        typer.echo()
        print_table(per_class, _class_rows(splits))
        for each in panoptic:
            typer.echo()
            print_table([f"panoptic {each.name}", "", "segments", "images", "pixels"], _panoptic_rows(each))
        for note in notes:
            typer.echo(f"\n{note}")
    if json_file is not None:
        content = {"overlap_thresholds": OVERLAPS, "canvases": CANVASES, "splits": [asdict(split) for split in splits]}
        write_json(json_file, content | {"panoptic": [asdict(each) for each in panoptic]}, indent=2)


@app.command("from-panoptic")
def from_panoptic(root: Root) -> None:
    """Make what training reads of panoptic truth: instances, and stuff maps with the names of their values.

    For each DIR/annotations/panoptic_SPLIT.json: instances_SPLIT.json, unless there is one; DIR/stuffthingmaps/SPLIT,
    whose values are category ids less 1; and DIR/stuffthingmaps/labels.txt. Train with data.semantic=stuffthingmaps.

    Example:

        dsctool data from-panoptic datasets/coco
    """
    from dsctool.data.panoptic_import import import_panoptic

    with counting() as progress:
        written = import_panoptic(root, progress=progress)
    for path in written:
        typer.echo(path)
    typer.echo("train with: data.semantic=stuffthingmaps", err=True)


@app.command()
def preview(
    config: ConfigName,
    data: DataRoot,
    output: Annotated[Path, typer.Option("--output", metavar="FILE.png", help="The picture to write.")],
    overrides: Overrides = None,
) -> None:
    """Draw the first sixteen samples that a training run would be shown.

    They are resized, augmented and padded as the configuration says, with the masks, boxes and classes that are left,
    and hatched where regions are ignored: crowds, and instances of which too little is seen. train.seed=1 shows others.

    Example:

        dsctool data preview htc_tiny data.copy_paste={} data.jitter.size=256 --data shapes --output preview.png
    """
    from dsctool.config.loading import load_config
    from dsctool.data.loader import TrainLoader
    from dsctool.engine.sets import open_data
    from dsctool.engine.setup import augmentations
    from dsctool.visualize.samples import first_samples, save_samples

    if output.suffix.lower() != ".png":
        raise typer.BadParameter(f"{output} does not end in .png", param_hint="--output")
    loaded = load_config(config, [*(overrides or ()), "train.eval_interval=0", "data.workers=0"])
    prepare_file(output)
    with counting() as progress:
        train_set = open_data(loaded, data, progress).train_set
    batches = TrainLoader(
        train_set, loaded.data, batch_size=loaded.train.batch_size, seed=loaded.train.seed, epochs=loaded.train.epochs
    )
    save_samples(
        output,
        first_samples(batches, PREVIEWED),
        names=[category.name for category in train_set.categories],
        mean=loaded.data.mean,
        std=loaded.data.std,
        title=f"{config}: the first {PREVIEWED} training samples of {train_set.files.annotations}",
        note=f"seed {loaded.train.seed}; {augmentations(loaded.data) or 'scale and flip alone'}",
    )
    typer.echo(output)


_INPUT = "model.backbone.in_channels="
"""What ``data.channels`` must agree with."""


def _data_config(words: Sequence[str] | None) -> DataConfig:
    """The values of ``data.*`` that are not a configuration's, but the command line's."""
    from dsctool.config.loading import load_config, override_config
    from dsctool.config.schema import DataConfig

    for word in words or ():
        if not word.startswith(("data.", _INPUT)):
            raise typer.BadParameter(f"{word}: only data.KEY=VALUE has a use here", param_hint="KEY=VALUE")
    plain = load_config("htc_tiny").model_copy(update={"data": DataConfig()})
    return override_config(plain, list(words or ()), source="the command line").data


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"


def _summary_rows(
    splits: list[SplitStats], overlaps: tuple[float, ...], canvases: dict[str, tuple[int, int]]
) -> list[list[str]]:
    def row(title: str, values: list[str]) -> list[str]:
        return [title, *values]

    def count(title: str, field: str, of: str | None = None) -> list[str]:
        return row(title, [_share(getattr(split, field), getattr(split, of) if of else None) for split in splits])

    def spread(title: str, field: str) -> list[str]:
        ranges = [getattr(split, field) for split in splits]
        return row(title, [f"{each.smallest:g} / {each.median:g} / {each.largest:g}" for each in ranges])

    def overlapping(neighbour: str, field: str) -> list[list[str]]:
        return [
            row(
                f"instances with {neighbour} at box IoU > {limit:g}",
                [_share(getattr(split, field)[number], split.instances) for split in splits],
            )
            for number, limit in enumerate(overlaps)
        ]

    return [
        count("images", "images"),
        count("images without instances", "images_without_instances", "images"),
        count("landscape images", "landscape_images", "images"),
        spread("width, min / median / max", "widths"),
        spread("height, min / median / max", "heights"),
        count("instances", "instances"),
        spread("instances per image, min / median / max", "instances_per_image"),
        count("small instances (area < 32 x 32)", "small", "instances"),
        count("medium instances", "medium", "instances"),
        count("large instances (area >= 96 x 96)", "large", "instances"),
        *(
            row(
                f"smaller than 8 x 8 resized to {short} x {long} ({name})",
                [_share(split.below_8_pixels[name], split.instances) for split in splits],
            )
            for name, (short, long) in canvases.items()
        ),
        *overlapping("a neighbour", "overlapping"),
        *overlapping("one of its class", "overlapping_same_class"),
        count("crowd regions", "crowds"),
        count("instances that training leaves out", "unused", "instances"),
        count("faults (dsctool data check)", "faults"),
    ]


def _panoptic_rows(stats: PanopticStats) -> list[list[str]]:
    rows = [
        ["things", "all", str(stats.things), "", ""],
        ["stuff", "all", str(stats.stuff), "", ""],
        ["crowds", "", str(stats.crowds), "", ""],
        ["void", "", "", "", f"{100 * stats.void:.1f} %"],
    ]
    for each in stats.categories:
        kind = "thing" if each.is_thing else "stuff"
        rows.append([each.name, kind, str(each.segments), str(each.images), f"{100 * each.share:.1f} %"])
    return rows


def _class_rows(splits: list[SplitStats]) -> list[list[str]]:
    """Classes of one name are one, whatever their ids, but in splits that use a name twice."""
    by_name = all(len({each.name for each in split.classes}) == len(split.classes) for split in splits)
    alike: dict[tuple[int, str] | str, list[ClassCount | None]] = {}
    for number, split in enumerate(splits):
        for each in split.classes:
            key = each.name if by_name else (each.id, each.name)
            alike.setdefault(key, [None] * len(splits))[number] = each
    rows = []
    for found in alike.values():
        ids = {each.id: None for each in found if each is not None}
        name = next(each.name for each in found if each is not None)
        counts = [str(part) for each in found for part in ((each.instances, each.images) if each else ("-", "-"))]
        rows.append((min(ids), [" / ".join(map(str, ids)), name, *counts]))
    return [row for _, row in sorted(rows)]


def _share(count: int, of: int | None) -> str:
    return f"{count} ({100 * count / of:.1f} %)" if of else str(count)
