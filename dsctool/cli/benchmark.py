"""``dsctool benchmark``: time, arithmetic and memory of models by stage, side by side."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsctool.cli.options import Device, JsonFile, images_and_overrides
from dsctool.cli.output import beside, counting, keep_apart, prepare_file, write_json
from dsctool.cli.run_model import inference_device
from dsctool.cli.tables import print_table
from dsctool.errors import DsctoolError

if TYPE_CHECKING:
    from dsctool.engine.benchmark.measure import Bench, Spread
    from dsctool.engine.benchmark.subjects import Named
    from dsctool.terms import Kind, Size

    Precision = dict[Kind, float]


def benchmark(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG|CHECKPOINT... KEY=VALUE...",
            help="Shipped configurations and YAML files (random weights), checkpoints; and values to change in all.",
        ),
    ],
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="HxW",
            help="Pixels that the models see, as in 480x640; of those that look by tiles (data.tiles), pixels of the "
            "generated picture.  [default: as configured, of a picture of 480x640]",
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", min=1, metavar="N", help="Pictures at once; by tiles always one.")
    ] = 1,
    train: Annotated[
        bool, typer.Option("--train", help="Training steps in place of inference, on the training split of --data.")
    ] = False,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Pictures to run on.  [default: a generated one]")
    ] = None,
    pictures: Annotated[
        int | None,
        typer.Option("--pictures", min=1, metavar="N", help="How many of them.  [default: one batch; of --images: 8]"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Data set whose val split also gives the AP of every checkpoint."),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, metavar="N", help="Rounds of all models in turns.")] = 5,
    yardstick: Annotated[
        bool, typer.Option("--yardstick", help="Ratios to torchvision's Mask R-CNN R-50, measured in the same rounds.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, metavar="N", help="Of the CPU.  [default: torch's]")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="With --data: AP over seconds as a picture.")
    ] = None,
    json_file: JsonFile = None,
    device: Device = "auto",
) -> None:
    """Measure how long models take for a picture, stage by stage, beside what this machine can do.

    Every model runs once to warm up and then in turns with the others, from the image file to COCO results: seconds
    are medians over the rounds, ratios are taken within each round, as machines change speed. GFLOP are the
    operations of convolutions and matrix products, and "of peak" is what share of the speed of plain matrix products,
    measured in the same rounds, they reach. Peak memory is that of a process that runs the model alone. With random
    weights every picture gives as many instances as may be returned. A model that looks at pictures by tiles
    (data.tiles=...) does so here, where the picture is larger than a window.

    With --data, a table and a plot of precision over time.

    Examples:

        dsctool benchmark htc_r50_fpn_1x_coco dsc_r50_fpn_1x_coco --size 480x640 --yardstick

        dsctool benchmark runs/a/best.pt runs/b/best.pt --images photos --data datasets/cells --plot tradeoff.png

        dsctool benchmark detectors_tiny --train --batch 2
    """
    from dsctool.engine.benchmark.measure import product_type
    from dsctool.engine.benchmark.plan import Plan, memory, run
    from dsctool.engine.benchmark.subjects import Named
    from dsctool.engine.environment import environment

    paths, overrides = images_and_overrides(models)
    named = [Named(str(path), tuple(overrides)) for path in paths]
    _refuse(named, images=images, data=data, plot=plot, train=train)
    keep_apart([json_file, plot], [*paths, images])
    prepare_file(json_file)
    prepare_file(plot)
    plan = Plan(_pixels(size), batch, pictures, train, images, data if train else None, device, threads)
    chosen = inference_device(device)
    with counting() as progress:
        bench = run(named, plan, rounds=rounds, yardstick=yardstick, progress=progress)
    peaks = {each.name: memory(each, plan) for each in named}
    precision = {} if data is None or train else _precisions(named, data, device)
    facts = environment(chosen)
    if plot is not None:
        _plot(plot, bench, precision)
    with beside(json_file):
        for name in bench.models:
            _show_stages(bench, name, train=train)
        _show_all(bench, peaks, precision)
        typer.echo(
            f"\nmatrix products in {product_type(chosen)}: {_gflops(bench.peak.median)} GFLOP/s "
            f"({_gflops(bench.peak.least)} to {_gflops(bench.peak.most)}); {facts['device']}; torch {facts['torch']}, "
            f"torchvision {facts['torchvision']}, dsctool {facts['dsctool']}; {rounds} rounds, batch {batch}"
        )
    if json_file is not None:
        models_as_json = {
            name: asdict(measured)
            | {"of_peak": bench.share(name), "peak_memory": peaks.get(name), "AP": precision.get(name)}
            for name, measured in bench.models.items()
        }
        setting = {"size": size, "batch": batch, "rounds": rounds, "train": train, "overrides": overrides}
        content = {
            "setting": setting,
            "environment": facts,
            "peak": asdict(bench.peak) | {"type": product_type(chosen)},
            "models": models_as_json,
        }
        write_json(json_file, content, indent=2)


def _refuse(models: Sequence[Named], *, images: Path | None, data: Path | None, plot: Path | None, train: bool) -> None:
    """What does not go together is found now."""
    if not models:
        raise DsctoolError("name a configuration or a checkpoint to measure")
    twice = {model.name for model in models if models.count(model) > 1}
    if twice:
        raise DsctoolError(f"{', '.join(sorted(twice))}: named twice; name every model once")
    if train and (images is not None or plot is not None):
        raise DsctoolError("--train takes its images from --data; --images and --plot are for inference")
    if plot is not None and data is None:
        raise DsctoolError("--plot shows AP over time: name the data set to measure AP on with --data")
    if data is not None and not train and not any(model.has_weights for model in models):
        raise DsctoolError("--data is for the AP of checkpoints, and these are configurations with random weights")


def _pixels(size: str | None) -> Size | None:
    if size is None:
        return None
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", size)
    if match is None:
        raise typer.BadParameter(f"{size!r} is not HEIGHTxWIDTH, as in 480x640", param_hint="--size")
    return int(match[1]), int(match[2])


def _precisions(models: Sequence[Named], data: Path, device: str) -> dict[str, Precision]:
    """Box and mask AP of every checkpoint."""
    from dsctool.engine.inference import load_runnable
    from dsctool.engine.split_results import evaluate_model
    from dsctool.terms import KINDS

    found: dict[str, Precision] = {}
    for model in models:
        if not model.has_weights:
            continue
        detector = load_runnable(model.name, overrides=model.overrides)
        with counting() as progress:
            stats = evaluate_model(detector, data, device=device, progress=progress).stats
        found[model.name] = {kind: numbers["AP"] for kind in KINDS if (numbers := stats[kind]) is not None}
    return found


def _plot(path: Path, bench: Bench, precision: dict[str, Precision]) -> None:
    from dsctool.visualize.tradeoff import Point, save_tradeoff

    labels = _short(list(precision))
    save_tradeoff(
        path, [Point(labels[name], bench.models[name].seconds.median, kinds) for name, kinds in precision.items()]
    )


def _show_stages(bench: Bench, name: str, *, train: bool) -> None:
    measured = bench.models[name]
    what = "annotated instances" if train else "instances"
    look = ""
    if measured.windows is not None:
        windows = f"{measured.windows:.4g} window{'s' * (measured.windows != 1)}"
        look = f", which is seen by {windows} (data.tiles{', drawn at random' if train else ''})"
    typer.echo(f"{name}: {measured.instances:.4g} {what} in a picture{look}")
    rows = [
        (stage, *_times(seconds), *_work(measured.flops.get(stage), bench.share(name, stage)))
        for stage, seconds in measured.stages.items()
    ]
    total = (*_times(measured.seconds), *_work(sum(measured.flops.values()) or None, bench.share(name)))
    print_table(["stage", "ms", "least", "most", "GFLOP", "of peak"], [*rows, ("all", *total)])
    typer.echo()


def _show_all(bench: Bench, memory: dict[str, int], precision: dict[str, Precision]) -> None:
    from dsctool.terms import KIND_NAMES, KINDS

    kinds = [kind for kind in KINDS if any(kind in each for each in precision.values())]
    rows = []
    for name, measured in bench.models.items():
        ratio = measured.ratio
        used = f"{memory[name] / 2**30:.2f} GiB" if memory.get(name) else ""
        numbers = precision.get(name, {})
        aps = [f"{100 * numbers[kind]:.1f}" if kind in numbers else "" for kind in kinds]
        spread = f"{ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f})"
        work = _work(sum(measured.flops.values()) or None, bench.share(name))
        rows.append((name, f"{measured.seconds.median:.3f}", spread, *work, used, *aps))
    header = ["model", "s/picture", "ratio", "GFLOP", "of peak", "peak memory"]
    print_table([*header, *(f"{KIND_NAMES[kind]} AP" for kind in kinds)], rows)


def _times(seconds: Spread) -> tuple[str, str, str]:
    return f"{1000 * seconds.median:.1f}", f"{1000 * seconds.least:.1f}", f"{1000 * seconds.most:.1f}"


def _work(flops: float | None, share: float | None) -> tuple[str, str]:
    return "" if flops is None else f"{flops / 1e9:.1f}", "" if share is None else f"{share:.0%}"


def _gflops(value: float) -> str:
    return f"{value / 1e9:,.0f}"


def _short(names: Sequence[str]) -> dict[str, str]:
    """Names without what they all begin and end with."""
    parts = {name: Path(name).parts for name in names}
    if len(names) == 1:
        return {names[0]: parts[names[0]][-1]}
    first = 0
    while len({each[first : first + 1] for each in parts.values()}) == 1:
        first += 1
    last = 0
    while len({each[len(each) - last - 1 : len(each) - last] for each in parts.values()}) == 1:
        last += 1
    return {name: "/".join(each[first : len(each) - last]) or name for name, each in parts.items()}
