"""Batches: the same from any worker count and any point of return."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from dsctool.config.schema import DataConfig, ResizeConfig, SplitConfig
from dsctool.data.coco import CocoDataset
from dsctool.data.layout import find_split
from dsctool.data.loader import batches_per_epoch, eval_loader, train_loader
from dsctool.data.samplers import Ranks
from dsctool.data.transforms import Batch
from dsctool.errors import DataError
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


def _epoch(dataset: CocoDataset, *, epoch: int = 0, start_batch: int = 0, workers: int = 0) -> list[Batch]:
    loader = train_loader(dataset, _config(workers), batch_size=3, seed=7, epoch=epoch, start_batch=start_batch)
    batches = list(loader)
    assert len(batches) == len(loader)
    return batches


def test_every_image_comes_once_an_epoch(synthetic_root: Path) -> None:
    dataset = _dataset(synthetic_root)
    batches = _epoch(dataset)
    assert sorted(info.image_id for batch in batches for info in batch[2]) == sorted(_ids(dataset))
    assert len(batches) == batches_per_epoch(dataset, _config(0), batch_size=3)


def test_two_processes_share_the_batches_of_one(synthetic_root: Path) -> None:
    """The same images with the same augmentation; what one process took at once, two take half each."""
    dataset, config = _dataset(synthetic_root), _config(0)
    alone = list(train_loader(dataset, config, batch_size=4, seed=7, epoch=1))
    shares = [
        list(train_loader(dataset, config, batch_size=2, seed=7, epoch=1, ranks=Ranks(rank, 2))) for rank in (0, 1)
    ]
    count = batches_per_epoch(dataset, config, batch_size=2, ranks=Ranks(1, 2))
    assert len(alone) == len(shares[0]) == len(shares[1]) == count
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
        rest = _epoch(dataset, epoch=2, start_batch=start, workers=workers)
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
    dataset, config = _dataset(synthetic_root), _config(1)
    pinned = list(train_loader(dataset, config, batch_size=3, seed=7, epoch=0, pin_memory=True))
    assert all(map(_equal, pinned, _epoch(dataset)))
    assert all(images.tensor.is_pinned() and targets[0].boxes.is_pinned() for images, targets, _ in pinned)


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
        list(train_loader(dataset, _config(workers), batch_size=1, seed=0, epoch=0))
    path = files.images / "b.jpg"
    reason = "cannot be decoded: it is not an image of a known format"
    assert str(fault.value) == f"{files.annotations}: image 3: {path}: {reason}"


def test_workers_leave_signals_to_the_main_process(synthetic_root: Path) -> None:
    loader = train_loader(_dataset(synthetic_root), _config(1), batch_size=1, seed=0, epoch=0)
    batches = iter(loader)
    next(batches)
    (worker,) = torch.multiprocessing.active_children()
    assert worker.pid is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid, number)
    assert len(list(batches)) == len(loader) - 1
