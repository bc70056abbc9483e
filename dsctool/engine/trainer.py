"""Training: set up, fit, evaluate.

A run folder holds ``config.yaml`` (resolved), ``env.json``, ``train.log``, ``metrics.jsonl``, TensorBoard events
where TensorBoard is installed, ``last.pt`` (to continue) and ``best.pt`` (to use).

Everything random is a function of the seed and of the position in the run, so a run that was stopped at any step and
resumed ends with the weights of one that never stopped: bit for bit on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from dsctool.config.schema import Config, TrainConfig
from dsctool.data.samplers import ALONE, Ranks, mixed_seed
from dsctool.data.transforms import Batch
from dsctool.engine.environment import pick_device
from dsctool.engine.limits import LimitCount
from dsctool.engine.meters import Feed, Window
from dsctool.engine.preflight import starting_point
from dsctool.engine.progress import counting
from dsctool.engine.recorder import open_recorder
from dsctool.engine.run import Run
from dsctool.engine.setup import Build, Setup, prepare, summary
from dsctool.engine.signals import RunInterruptedError, StopRequest, StopRequestedError
from dsctool.engine.split_results import Found, evaluate_detector, match_categories, protocol_of
from dsctool.engine.step import StepResult, optimizer_step
from dsctool.engine.views import in_views
from dsctool.errors import DsctoolError, OutOfMemoryError, TrainingError, WorkerError
from dsctool.evaluation.coco import Stats
from dsctool.models.build import build_detector
from dsctool.terms import KIND_NAMES, KINDS


def train(
    config: Config,
    *,
    data: Path,
    output: Path,
    resume: bool = False,
    device: str = "auto",
    console: Console | None = None,
    provenance: Mapping[str, str] | None = None,
    ranks: Ranks = ALONE,
    build: Build = build_detector,
) -> None:
    """Train the detector that ``config`` describes on the data set in ``data``, recorded in the folder ``output``.

    resume: continue the run in ``output`` instead of starting one there.
    console: where progress is shown. provenance: who set each configuration value, for messages.
    ranks: which of the processes of the run this one is; the first one writes and shows, for all. build: the model.

    Raises DsctoolError before anything is written when something does not fit; TrainingError when a loss is not
    finite; RunInterruptedError when a signal stopped the run, which is saved then.
    """
    console = (console or Console()) if ranks.rank == 0 else Console(quiet=True)
    checkpoint = starting_point(config, output, resume=resume, ranks=ranks)
    with counting(console) as progress:
        setup = prepare(
            config,
            data=data,
            device=pick_device(device),
            checkpoint=checkpoint,
            provenance=provenance,
            progress=progress,
            ranks=ranks,
            build=build,
        )
    resumed = None if checkpoint is None else checkpoint.training
    recording = open_recorder(setup, output, resumed=resumed, console=console)
    with StopRequest() as stop, recording as recorder, setup.batches:
        run = Run(setup, recorder, stop)
        if checkpoint is not None:
            run.resume(checkpoint)
        announce(run)
        try:
            fit(run)
        except StopRequestedError as request:
            raise RunInterruptedError(
                f"{request}: saved {output / 'last.pt'} after step {run.position.step} of {setup.steps}. "
                "Run the same command with --resume to continue."
            ) from request
        except (OutOfMemoryError, WorkerError) as error:
            raise TrainingError(
                f"{error} {output / 'last.pt'} holds step {run.saved} of {setup.steps}: the same command with --resume "
                "continues from there, with fewer data.workers or train.checkpoint_activations=true too; other batches "
                "or sizes need a new run, with train.weights=last.pt."
            ) from error
        recorder.journal.say(f"finished: {output / 'best.pt'}")


def announce(run: Run) -> None:
    """Say what the run will do, before it does it."""
    for name, text in summary(run.setup).items():
        run.recorder.journal.say(f"{name:<16} {text}")
    for note in run.setup.notes:
        run.recorder.journal.say(note)
    if run.position.step:
        run.recorder.journal.say(f"resumed          after step {run.position.step}, in {run.epoch_name}")


def fit(run: Run) -> None:
    """Train from where the run stands to its last epoch."""
    train_config = run.setup.config.train
    if run.position.step == 0:
        run.save_last()  # so that a run can be resumed whenever it is stopped
    while run.position.epoch < train_config.epochs:
        train_epoch(run)
        if evaluates(train_config, run.position.epoch):
            run.save_last()  # an evaluation can take long: it must not cost steps
            evaluate(run)
        run.position.epoch += 1
        run.position.batch = 0
        run.save_last()
    if run.best is None:  # never evaluated: the last weights are the best there are
        run.save_best()
    run.recorder.progress.status("done")


def train_epoch(run: Run) -> None:
    """Train to the end of the current epoch, from the batch where the run stands."""
    setup, train_config, position = run.setup, run.setup.config.train, run.position
    feed = Feed(arriving(run), group=train_config.accumulate)
    run.pace.restart()
    for batches in feed:
        result = step(setup, batches, number=position.step)
        position.step += 1
        position.batch += len(batches)
        run.window.add(result, waited=feed.waited, seconds=run.pace.step())
        run.recorder.progress.step(epoch=run.epoch_name)
        if position.step % train_config.log_interval == 0 or position.step == setup.steps:
            report(run)
        stopped = run.stop.poll()
        if stopped or position.step % train_config.checkpoint_interval == 0:
            run.save_last()
        if stopped:
            raise StopRequestedError(stopped.name)


def arriving(run: Run) -> Iterator[Batch]:
    """What is left of the current epoch; a run that cannot have it is saved first, as it stands: between two steps."""
    try:
        yield from run.setup.batches.epoch(run.position.epoch, start=run.position.batch)
    except DsctoolError:
        run.save_last()
        raise


def step(setup: Setup, batches: Sequence[Batch], *, number: int) -> StepResult:
    """The optimiser step ``number``; its learning rate is a function of that number, its samples also of the rank."""
    torch.manual_seed(mixed_seed(setup.config.train.seed, number, setup.ranks.rank))
    rate = setup.schedule.at(number)
    result = optimizer_step(
        setup.model,
        setup.optimizer,
        batches,
        rate=rate,
        max_norm=setup.config.optim.clip_norm,
        precision=setup.config.train.precision,
        scale=setup.scale,
    )
    if setup.average is not None:  # after skipped steps too: how many updates it has had follows from the number
        setup.average.update_parameters(setup.model)
    return result


def report(run: Run) -> None:
    """Show and record the means since the last report."""
    losses, others = run.window.means()
    run.window = Window()
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
        speed=others["images_per_s"],
        eta=eta,
        skipped=int(others.get("skipped", 0)),
    )


def evaluate(run: Run) -> None:
    """Measure the detector on the validation images; the best so far becomes ``best.pt``."""
    setup, data = run.setup, run.setup.data.val
    assert data is not None
    run.pace.restart()
    limits = LimitCount()
    categories = match_categories(setup.categories, data.dataset.categories, data.dataset.files.annotations)
    evaluation, _ = evaluate_detector(
        setup.measured, data, setup.config.data, categories,
        device=setup.device, watch=partial(watched, run, len(data.dataset), limits),
        protocol=protocol_of(setup.config.train),
    )  # fmt: skip
    run.pace.evaluated()
    first = run.metrics is None
    record(run, evaluation.stats)
    for note in limits.notes(setup.config, instances=data.dataset.most_instances):
        run.recorder.journal.say(note)
    for note in evaluation.notes if first else []:  # they are about the data, which stay
        run.recorder.journal.say(note)


def watched(run: Run, total: int, limits: LimitCount, images: Iterator[Found]) -> Iterator[Found]:
    """Say how far an evaluation is; a run that was asked to stop stops between two images."""
    task = in_views("evaluating", run.setup.config.data.tta)
    for done, image in enumerate(images, start=1):
        run.recorder.progress.status(f"{task} {done}/{total}")
        limits.add(image[1])
        run.stop.check()
        yield image


def record(run: Run, stats: Stats) -> None:
    """Show and record COCO numbers; strictly better ones replace ``best.pt``."""
    run.metrics = {"bbox": stats["bbox"], "segm": stats["segm"]}
    kinds = {kind: numbers for kind in KINDS if (numbers := stats[kind]) is not None}
    run.track("eval", {f"{kind}_{name}": value for kind, numbers in kinds.items() for name, value in numbers.items()})
    score = kinds.get("segm", kinds["bbox"])["AP"]
    better = run.best is None or score > run.best
    if better:
        run.best = score
        run.save_best()
    shown = "  ".join(
        f"{KIND_NAMES[kind]} AP {numbers['AP']:.4f} (AP50 {numbers['AP50']:.4f}, AP75 {numbers['AP75']:.4f})"
        for kind, numbers in kinds.items()
    )
    run.recorder.journal.say(f"{run.epoch_name}  {shown}  {'best so far' if better else f'best {run.best:.4f}'}")


def evaluations_left(run: Run) -> int:
    """Evaluations that are still to come."""
    config = run.setup.config.train
    return sum(evaluates(config, epoch) for epoch in range(run.position.epoch, config.epochs))


def evaluates(config: TrainConfig, epoch: int) -> bool:
    """Whether an evaluation follows the 0-based ``epoch``."""
    last = epoch + 1 == config.epochs
    return config.eval_interval > 0 and (last or (epoch + 1) % config.eval_interval == 0)
