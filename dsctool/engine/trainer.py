"""Training: set up, fit, evaluate.

A run folder holds ``config.yaml`` (resolved), ``env.json``, ``state.json``, ``train.log``, ``metrics.jsonl``,
TensorBoard events where TensorBoard is installed, ``last.pt`` (to continue) and ``best.pt`` (to use), and what a page
about it leaves there.

Everything random is a function of the seed and of the position in the run, so a run that was stopped at any step and
resumed ends with the weights of one that never stopped: bit for bit on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console

from dsctool.config.schema import Config
from dsctool.data.classes import match_categories
from dsctool.data.samplers import mixed_seed
from dsctool.data.transforms import Batch
from dsctool.engine.environment import pick_device
from dsctool.engine.limits import LimitCount
from dsctool.engine.meters import Feed, Window, over_processes
from dsctool.engine.page import NO_PAGE, Page
from dsctool.engine.preflight import starting_point
from dsctool.engine.processes import LONE, Processes
from dsctool.engine.progress import counting
from dsctool.engine.recorder import open_recorder
from dsctool.engine.run import Run
from dsctool.engine.setup import Build, Setup, prepare
from dsctool.engine.signals import RunInterruptedError, StopRequest, StopRequestedError
from dsctool.engine.split_results import Found, evaluate_detector, protocol_of
from dsctool.engine.step import StepResult, optimizer_step
from dsctool.engine.val_losses import validation_losses
from dsctool.engine.views import in_views
from dsctool.engine.words import announce, conclude
from dsctool.errors import (
    DiskFullError,
    DsctoolError,
    LossError,
    OutOfMemoryError,
    ProcessLostError,
    TrainingError,
    WorkerError,
)
from dsctool.evaluation.coco import Stats
from dsctool.files import room_for
from dsctool.models.build import build_detector
from dsctool.models.losses import values
from dsctool.terms import KIND_NAMES, KINDS

Item = TypeVar("Item")


def train(
    config: Config,
    *,
    data: Path,
    output: Path,
    resume: bool = False,
    device: torch.device | str = "auto",
    console: Console | None = None,
    provenance: Mapping[str, str] | None = None,
    keep: int = 0,
    processes: Processes = LONE,
    build: Build = build_detector,
    page: Page = NO_PAGE,
) -> None:
    """Train the detector that ``config`` describes on the data set in ``data``, recorded in the folder ``output``.

    resume: continue the run in ``output`` instead of starting one there.
    console: where progress is shown. provenance: who set each configuration value, for messages.
    keep: epochs whose weights stay, the last ones, in ``epoch_<number>.pt``.
    processes: which train together; the first one reads the run, writes and shows, for all. build: the model.
    page: about the run, written after every evaluation and at the end.

    Raises DsctoolError before anything is written when something does not fit; TrainingError when a loss is not
    finite; RunInterruptedError when a signal stopped the run, which is saved then.
    """
    console = (console or Console()) if processes.first else Console(quiet=True)
    with counting(console) as progress:
        checkpoint, notes = processes.on_first(partial(starting_point, config, output, resume=resume))
        setup = prepare(
            config,
            data=data,
            device=pick_device(device) if isinstance(device, str) else device,
            checkpoint=checkpoint,
            provenance=provenance,
            progress=progress,
            processes=processes,
            build=build,
        )
    resumed = None if checkpoint is None else checkpoint.training
    recording = open_recorder(setup, output, resumed=resumed, console=console, page=page, keep=keep)
    with StopRequest() as stop, recording as recorder, setup.batches:
        run = Run(setup, recorder, stop)
        if checkpoint is not None:
            run.resume(checkpoint)
        for note in notes:
            recorder.journal.say(note)
        announce(run)
        try:
            with processes.noticing(), room_for(output / "train.log"):
                fit(run)
        except StopRequestedError as request:
            raise RunInterruptedError(
                f"{request}: saved {output / 'last.pt'} after step {run.position.step} of {setup.steps}. "
                "Run the same command with --resume to continue."
            ) from request
        except (DiskFullError, OutOfMemoryError, ProcessLostError, WorkerError) as error:
            raise TrainingError(f"{error} {_left(run, output / 'last.pt')}") from error
        recorder.says("finished")
        recorder.show()
        conclude(run, data, output)


def _left(run: Run, checkpoint: Path) -> str:
    """What there is to go on with, in words."""
    if not checkpoint.exists():
        return f"Nothing is saved yet: remove {checkpoint.parent}, and the same command begins anew."
    return (
        f"{checkpoint} holds step {run.saved} of {run.setup.steps}: the same command with --resume continues from "
        "there, with fewer data.workers or train.checkpoint_activations=true too; other batches or sizes need a new "
        "run, with train.weights=last.pt."
    )


def fit(run: Run) -> None:
    """Train from where the run stands to its end."""
    if run.position.step == 0:
        run.save_last()  # so that a run can be resumed whenever it is stopped
    while not run.ended or is_due(run):
        train_epoch(run)
        evaluates = is_due(run)
        if evaluates:
            run.save_last()  # an evaluation can take long: it must not cost steps
            evaluate(run)
        if run.position.batch >= len(run.setup.batches):  # with train.steps the last epoch may end before
            run.position.epoch += 1
            run.position.batch = 0
            run.save_epoch()
        if run.ended and len(run.window):  # early
            report(run)
        run.save_last()
        if evaluates and not run.ended:
            run.recorder.show()
    if run.best is None:  # never evaluated: the last weights are the best there are
        run.save_best()
    run.recorder.progress.status("done")


def train_epoch(run: Run) -> None:
    """Train to the end of the current epoch or of the run, from the batch where the run stands."""
    setup, train_config, position = run.setup, run.setup.config.train, run.position
    if position.step >= setup.steps:
        return
    feed = Feed(arriving(run))
    run.pace.restart()
    for batches in feed:
        result = step(setup, batches, number=position.step)
        position.step += 1
        position.batch += 1
        run.window.add(result, waited=feed.waited, seconds=run.pace.step())
        run.recorder.progress.step(epoch=run.epoch_name)
        if position.step % train_config.log_interval == 0 or position.step == setup.steps:
            report(run)
        stopped = run.stopped()
        if stopped or position.step % train_config.checkpoint_interval == 0:
            run.save_last()
        if stopped:
            raise StopRequestedError(stopped)
        if position.step == setup.steps:
            setup.batches.close()
            return


def arriving(run: Run) -> Iterator[list[Batch]]:
    """What is left of the current epoch; a run that cannot have it is saved first, as it stands: between two steps."""
    setup, start = run.setup, run.position.batch
    steps = setup.batches.epoch(run.position.epoch, start=start)
    for _ in range(start, len(setup.batches)):
        try:
            with setup.processes.together():
                batches = next(steps)
        except DsctoolError:
            run.save_last()
            raise
        yield batches


def step(setup: Setup, batches: Sequence[Batch], *, number: int) -> StepResult:
    """The optimiser step ``number``; its learning rate is a function of that number, its samples also of the rank."""
    train_config, processes = setup.config.train, setup.processes
    torch.manual_seed(mixed_seed(train_config.seed, number, processes.ranks.rank))
    try:
        result = optimizer_step(
            setup.network,
            setup.optimizer,
            batches,
            rate=setup.schedule.at(number),
            max_norm=setup.config.optim.clip_norm,
            divide=processes.divided if train_config.loss_counts == "all" else values,
            precision=train_config.precision,
            scale=setup.scale,
            everywhere=processes.all,
        )
    except TrainingError as error:  # in all of them, each of which knows why in its own batches
        with processes.together((LossError, TrainingError)):
            raise error
    if setup.average is not None:  # after skipped steps too: how many updates it has had follows from the number
        setup.average.update_parameters(setup.model)
    return result


def report(run: Run) -> None:
    """Show and record the means since the last report."""
    told = run.setup.processes.gather(run.window.means())
    run.window = Window()
    if told is None:
        return
    losses, others = over_processes(told)
    rate = run.setup.schedule.at(run.position.step - 1)
    if run.setup.scale is None:
        del others["skipped"]  # there are none
    total = {"loss": sum(losses.values())} if losses else {}
    run.track("train", {"lr": rate, **total, **losses, **others})
    eta = run.pace.eta(steps=run.setup.steps - run.position.step, evaluations=evaluations_left(run))
    run.recorder.progress.numbers(
        step=run.position.step,
        epoch=run.epoch_name,
        losses=losses,
        rate=rate,
        speed=others.get("images_per_s", 0.0),
        memory=others["memory"],
        eta=eta,
        skipped=int(others.get("skipped", 0)),
    )


def evaluate(run: Run) -> None:
    """Measure the detector on the validation images; the best so far becomes ``best.pt``."""
    setup, data = run.setup, run.setup.data.val
    assert data is not None
    run.pace.restart()
    limits = LimitCount()
    categories = match_categories(
        setup.categories, data.dataset.categories, data.dataset.files.annotations, data.dataset.met
    )
    setup.processes.align_buffers(setup.measured)
    evaluation, comparison = evaluate_detector(
        setup.measured, data, setup.config.data, categories,
        device=setup.device, watch=partial(watched, run, len(data.dataset), limits),
        protocol=protocol_of(setup.config.train), processes=setup.processes,
        timeout=setup.config.train.timeout,
    )  # fmt: skip
    limits = LimitCount.total(setup.processes.gather(limits) or [])
    losses = validation_losses(setup, watch=partial(counted, run, "validation losses")) if data.annotated else {}
    run.pace.evaluated()
    first = run.metrics is None
    record(run, evaluation.stats, losses)
    if comparison is not None:
        run.recorder.draw(comparison, data.dataset.files.images, step=run.position.step)
    for note in limits.notes(setup.config, instances=data.dataset.most_instances):
        run.recorder.journal.say(note)
    for note in evaluation.notes if first else []:  # they are about the data, which stay
        run.recorder.journal.say(note)


def watched(run: Run, total: int, limits: LimitCount, images: Iterator[Found]) -> Iterator[Found]:
    """Images of an evaluation, one after the other, and which limits they reach."""
    task = in_views("evaluating", run.setup.config.data.tta)
    for image in counted(run, task, total, images):
        limits.add(image[1])
        yield image


def counted(run: Run, task: str, total: int, items: Iterator[Item]) -> Iterator[Item]:
    """Say how far ``task`` is; a run that was asked to stop stops between two items."""
    for done, item in enumerate(items, start=1):
        run.recorder.progress.status(f"{task} {min(done * run.setup.processes.ranks.world, total)}/{total}")
        run.check_stop()
        yield item


def record(run: Run, stats: Stats, losses: Mapping[str, float]) -> None:
    """Show and record COCO numbers, and losses on the same images; strictly better numbers replace ``best.pt``."""
    run.evaluated = run.position.step
    run.metrics = {"bbox": stats["bbox"], "segm": stats["segm"]}
    kinds = {kind: numbers for kind in KINDS if (numbers := stats[kind]) is not None}
    numbers = {f"{kind}_{name}": value for kind, numbers in kinds.items() for name, value in numbers.items()}
    run.track("eval", {**numbers, **losses})
    score = kinds.get("segm", kinds["bbox"])["AP"]
    better = run.best is None or score > run.best
    if better:
        run.best, run.best_epoch, run.stale = score, run.position.epoch + 1, 0
        run.save_best()
    else:
        run.stale += 1
    shown = "  ".join(
        f"{KIND_NAMES[kind]} AP {numbers['AP']:.4f} (AP50 {numbers['AP50']:.4f})" for kind, numbers in kinds.items()
    )
    shown += f"  val loss {losses['val_loss']:.4f}" if losses else ""
    run.recorder.journal.say(f"{run.epoch_name}  {shown}  {'best so far' if better else f'best {run.best:.4f}'}")


def is_due(run: Run) -> bool:
    """Whether the run stands before an evaluation: at the end of an epoch that one follows, or of all steps."""
    position, setup = run.position, run.setup
    if position.batch == 0 or run.evaluated == position.step:
        return False
    if position.step >= setup.steps:
        return setup.config.train.eval_interval > 0
    return position.batch >= len(setup.batches) and evaluates(setup, position.epoch)


def evaluations_left(run: Run) -> int:
    """Evaluations that are still to come."""
    return sum(evaluates(run.setup, epoch) for epoch in range(run.position.epoch, run.setup.epochs))


def evaluates(setup: Setup, epoch: int) -> bool:
    """Whether an evaluation follows the 0-based ``epoch``."""
    interval, last = setup.config.train.eval_interval, epoch + 1 == setup.epochs
    return interval > 0 and (last or (epoch + 1) % interval == 0)
