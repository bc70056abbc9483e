"""Batches: the same from any worker count and any point of return."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import islice
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch

from dsctool.config.schema import DataConfig, ResizeConfig, SplitConfig
from dsctool.data import coco
from dsctool.data.bands import RGB, Channels
from dsctool.data.coco import CocoDataset
from dsctool.data.images import read_image
from dsctool.data.layout import find_split
from dsctool.data.loader import TrainLoader, eval_loader
from dsctool.data.samplers import Ranks
from dsctool.data.transforms import Batch
from dsctool.errors import DataError, OutOfMemoryError, WorkerError
from dsctool.terms import Size
from tests.data.tiny import write_tiny


def _config(workers: int) -> DataConfig:
    resize = ResizeConfig(short_sides=(48, 64), sample="range", long_side=100)
    return DataConfig(train_resize=resize, test_resize=ResizeConfig(short_sides=(48,)), workers=workers)


def _dataset(root: Path) -> CocoDataset:
    return CocoDataset.for_training(find_split(root, SplitConfig(), "train"), _config(0))


def _equal(left: Batch, right: Batch) -> bool:
    if left[2] != right[2] or left[0].sizes != right[0].sizes or not torch.equal(left[0].tensor, right[0].tensor):
        return False
    pairs = zip(left[1], right[1], strict=True)
    names = ("boxes", "labels", "masks", "crowd", "semantic")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for a, b in pairs for name in names)


def _ids(dataset: CocoDataset) -> list[int]:
    return [dataset.image_info(index).id for index in range(len(dataset))]


def _loader(dataset: CocoDataset, *, workers: int = 0, epochs: int = 2, **options: Any) -> TrainLoader:
    return TrainLoader(dataset, _config(workers), epochs=epochs, **{"batch_size": 3, "seed": 7, **options})


def _epoch(dataset: CocoDataset, *, epoch: int = 0, start: int = 0, workers: int = 0) -> list[Batch]:
    """One epoch from a loader of its own."""
    with _loader(dataset, workers=workers) as loader:
        batches = [batch for (batch,) in loader.epoch(epoch, start=start)]
        assert len(batches) == len(loader) - start
    assert active_children() == []
    return batches


def test_every_image_comes_once_an_epoch(synthetic_root: Path) -> None:
    dataset = _dataset(synthetic_root)
    batches = _epoch(dataset)
    assert sorted(info.image_id for batch in batches for info in batch[2]) == sorted(_ids(dataset))


def test_two_processes_share_the_batches_of_one(synthetic_root: Path) -> None:
    """The same images with the same augmentation; what one process took at once, two take half each."""
    dataset = _dataset(synthetic_root)
    alone = [batch for (batch,) in _loader(dataset, batch_size=4).epoch(1)]
    loaders = [_loader(dataset, batch_size=2, ranks=Ranks(rank, 2)) for rank in (0, 1)]
    shares = [[batch for (batch,) in loader.epoch(1)] for loader in loaders]
    assert len(alone) == len(shares[0]) == len(shares[1]) == len(loaders[1])
    for (whole, _, infos), *parts in zip(alone, *shares, strict=True):
        for rank, (images, _, own) in enumerate(parts):
            assert own[: len(infos[rank::2])] == infos[rank::2]
            for image, size, expected in zip(images.tensor, images.sizes, whole.tensor[rank::2], strict=False):
                assert torch.equal(image[:, : size[0], : size[1]], expected[:, : size[0], : size[1]])


def test_batches_hold_one_orientation(synthetic_root: Path) -> None:
    batches = _epoch(_dataset(synthetic_root))
    shapes = [{info.original_size[1] > info.original_size[0] for info in batch[2]} for batch in batches]
    assert all(len(shape) == 1 for shape in shapes)
    assert {frozenset(shape) for shape in shapes} == {frozenset({True}), frozenset({False})}, "the set has both"


def test_resuming_at_any_batch_and_any_worker_count_gives_the_same_batches(synthetic_root: Path) -> None:
    dataset = _dataset(synthetic_root)
    whole = _epoch(dataset, epoch=2)
    for start, workers in ((0, 2), (1, 0), (2, 1)):
        rest = _epoch(dataset, epoch=2, start=start, workers=workers)
        assert len(rest) == len(whole) - start
        assert all(map(_equal, rest, whole[start:]))
    assert not all(map(_equal, _epoch(dataset, epoch=3), whole))


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_global_generator_alone(synthetic_root: Path, workers: int) -> None:
    train_set = _dataset(synthetic_root)
    val_set = CocoDataset.for_evaluation(find_split(synthetic_root, SplitConfig(), "val"), _config(workers))
    state = torch.get_rng_state()
    _epoch(train_set, workers=workers)
    list(eval_loader(val_set, _config(workers)))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_in_pinned_memory_are_the_same(synthetic_root: Path) -> None:
    dataset = _dataset(synthetic_root)
    with _loader(dataset, workers=1, pin_memory=True) as loader:
        pinned = [batch for (batch,) in loader.epoch(0)]
    assert all(map(_equal, pinned, _epoch(dataset)))
    assert all(images.tensor.is_pinned() and targets[0].boxes.is_pinned() for images, targets, _ in pinned)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_batches_of_a_step_come_together(synthetic_root: Path, workers: int) -> None:
    dataset = _dataset(synthetic_root)
    whole = [batch for (batch,) in _loader(dataset, batch_size=4).epoch(0)]
    with _loader(dataset, batch_size=2, accumulate=2, workers=workers) as loader:
        steps = list(loader.epoch(0))
        assert len(steps) == len(loader) == len(whole)
        assert {len(step) for step in steps} == {1, 2}, "what is left of an orientation is fewer"
        for step, (_, _, infos) in zip(steps, whole, strict=True):
            assert [info for _, _, part in step for info in part] == infos
        rest = list(loader.epoch(0, start=1))
        assert all(
            _equal(a, b) for left, right in zip(rest, steps[1:], strict=True) for a, b in zip(left, right, strict=True)
        )


def test_evaluation_keeps_the_order(synthetic_root: Path) -> None:
    files = find_split(synthetic_root, SplitConfig(), "val")
    dataset = CocoDataset.for_evaluation(files, _config(0))
    batches = list(eval_loader(dataset, _config(0)))
    assert [info.image_id for batch in batches for info in batch[2]] == _ids(dataset)
    assert batches[0][1][0].masks is None


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_arrives_as_it_was_written(tmp_path: Path, workers: int) -> None:
    files = write_tiny(tmp_path)
    (files.images / "b.jpg").write_bytes(b"broken")
    dataset = CocoDataset.for_training(files, _config(workers))
    with pytest.raises(DataError) as fault:
        list(_loader(dataset, workers=workers, batch_size=1).epoch(0))
    path = files.images / "b.jpg"
    reason = "cannot be decoded: it is not an image of a known format"
    assert str(fault.value) == f"{files.annotations}: image 3: {path}: {reason}"


def test_workers_live_across_epochs_and_evaluations(synthetic_root: Path) -> None:
    """They load the next epoch while the run evaluates, and end with the last one."""
    dataset = _dataset(synthetic_root)
    val_set = CocoDataset.for_evaluation(find_split(synthetic_root, SplitConfig(), "val"), _config(1))
    loader, seen = _loader(dataset, workers=2, epochs=3), []
    for epoch in range(3):
        batches = (batch for (batch,) in loader.epoch(epoch))
        first = next(batches)
        workers = {process.pid for process in active_children()}
        seen.append(workers)
        assert all(map(_equal, [first, *batches], _epoch_alone(dataset, epoch)))
        assert len(list(eval_loader(val_set, _config(1)))) == len(val_set)
    assert len(seen[0]) == 2
    assert seen == [seen[0]] * 3
    assert active_children() == []


def _epoch_alone(dataset: CocoDataset, epoch: int) -> list[Batch]:
    return [batch for (batch,) in _loader(dataset).epoch(epoch)]


@pytest.mark.parametrize("workers", [0, 1])
def test_any_batch_may_be_asked_for_at_any_time(synthetic_root: Path, workers: int) -> None:
    """An epoch that is left, begun again, begun elsewhere, after the last one, or two of them in turns."""
    dataset = _dataset(synthetic_root)
    epochs = [_epoch_alone(dataset, epoch) for epoch in range(3)]
    with _loader(dataset, workers=workers, epochs=2) as loader:
        assert _equal(next(loader.epoch(0))[0], epochs[0][0])
        for epoch, start in ((0, 0), (1, 1), (1, 0), (2, 0), (0, 2)):
            rest = (batch for (batch,) in loader.epoch(epoch, start=start))
            assert all(map(_equal, rest, epochs[epoch][start:])), (epoch, start)
        turns = islice(zip(loader.epoch(0), loader.epoch(1), strict=True), 2)
        for i, ((left,), (right,)) in enumerate(turns):
            assert _equal(left, epochs[0][i])
            assert _equal(right, epochs[1][i])
    assert active_children() == []


def test_no_process_is_left_when_the_block_ends(synthetic_root: Path) -> None:
    dataset = _dataset(synthetic_root)

    def work() -> None:
        with _loader(dataset, workers=2, batch_size=1) as loader:
            for _ in loader.epoch(0):
                assert len(active_children()) == 2
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert active_children() == []
    assert caught.traceback, "and it has not ended because nobody knew of it any more"


def test_a_program_that_forgets_to_close_its_loader_ends(synthetic_root: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.data.test_loader import _dataset, _loader\n"
        "loader = _loader(_dataset(Path(sys.argv[1])), workers=1)\n"
        "next(loader.epoch(0))"
    )
    subprocess.run([sys.executable, "-c", code, str(synthetic_root)], check=True, timeout=300)


def test_workers_leave_signals_to_the_main_process(synthetic_root: Path) -> None:
    with _loader(_dataset(synthetic_root), workers=1, batch_size=1) as loader:
        batches = loader.epoch(0)
        next(batches)
        (worker,) = active_children()
        assert worker.pid is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker.pid, number)
        assert len(list(batches)) == len(loader) - 1


def kill_whoever_reads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system does when memory runs out."""

    def killed(path: Path, size: Size | None = None, channels: Channels = RGB) -> torch.Tensor:
        if path.name == name:
            os.kill(os.getpid(), signal.SIGKILL)
        return read_image(path, size, channels)

    monkeypatch.setattr(coco, "read_image", killed)


def test_a_worker_that_is_killed_is_named_with_its_images(
    synthetic_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = _dataset(synthetic_root)
    killer = dataset.image_info(2)
    kill_whoever_reads(killer.file_name, monkeypatch)
    before = signal.getsignal(signal.SIGCHLD)
    with _loader(dataset, workers=2, batch_size=2) as loader, pytest.raises(WorkerError) as caught:
        list(loader.epoch(0))
    message = str(caught.value)
    assert message.startswith(
        "a loader process was killed (SIGKILL, as the system does when memory runs out), while it"
    )
    assert f"image {killer.id} ({killer.file_name}, {killer.width} x {killer.height})" in message
    assert message.count(".png") + message.count(".jpg") == 2, "of its whole batch"
    assert "data.workers" in message
    assert active_children() == []
    assert signal.getsignal(signal.SIGCHLD) is before, "else torch would raise in the middle of an optimiser step"


TOO_LARGE = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 20000000000 bytes."


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory while loading image 1 ("),
        (RuntimeError(TOO_LARGE), "out of memory (18.63 GiB more were asked for) while loading image 1 ("),
    ],
)
def test_memory_that_runs_out_is_named_with_the_images(
    synthetic_root: Path, monkeypatch: pytest.MonkeyPatch, workers: int, error: Exception, said: str
) -> None:
    def fail(path: Path, size: Size | None = None, channels: Channels = RGB) -> torch.Tensor:
        raise error

    monkeypatch.setattr(coco, "read_image", fail)
    val_set = CocoDataset.for_evaluation(find_split(synthetic_root, SplitConfig(), "val"), _config(0))
    with pytest.raises(OutOfMemoryError) as caught:
        list(eval_loader(val_set, _config(workers)))
    assert str(caught.value).startswith(said)
    assert val_set.image_info(0).file_name in str(caught.value)
    assert "Traceback" not in str(caught.value)
