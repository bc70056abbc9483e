"""What can go wrong around a run: kills at any moment, damaged files, full disks, workers that hang."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from dsctool.config.schema import Config
from dsctool.data import coco
from dsctool.engine import trainer
from dsctool.engine.recorder import Recorder
from dsctool.engine.trackers import JsonLines
from dsctool.errors import CheckpointError, ConfigError, TrainingError
from dsctool.interop.checkpoint import Checkpoint, load_checkpoint
from tests.engine.fakes import FakeDetector, tiny_config
from tests.engine.test_trainer import TIMES, assert_same, lines

Run = Callable[..., str]


def recorded(folder: Path) -> list[dict[str, float]]:
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines(folder)]


def flip(path: Path, member: str = "data/0") -> None:
    """Change a byte of one of the parts of a checkpoint; ``end``: of the table at its end."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = next((each for each in archive.infolist() if each.filename.endswith(member)), archive.infolist()[-1])
    start = int.from_bytes(content[info.header_offset + 26 :][:2], "little")
    start += int.from_bytes(content[info.header_offset + 28 :][:2], "little") + info.header_offset + 30
    content[content.rindex(b"PK\x01\x02") + 1 if member == "end" else start + info.file_size // 2] ^= 0xFF
    path.write_bytes(content)


EVERY_STEP = tiny_config(checkpoint_interval=1, log_interval=3)
"""A run that saves after each step."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """Such a run, undisturbed. Not to be written to."""
    folder = tmp_path_factory.mktemp("every-step") / "whole"
    run(folder, EVERY_STEP)
    return folder


@pytest.mark.parametrize("member", ["data/0", "data.pkl", "data/3", "end"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(
    tmp_path: Path, run: Run, whole: Path, member: str
) -> None:
    """Wherever the byte is that changed; also in numbers, which PyTorch would read as they are."""
    shutil.copytree(whole, tmp_path / "cut")
    last, previous = (tmp_path / "cut" / name for name in ("last.pt", "previous.pt"))
    before = load_checkpoint(previous).training
    assert before is not None
    flip(last, member)
    said = run(tmp_path / "cut", EVERY_STEP, resume=True)
    assert f"{last}: damaged" in said
    assert f"The run goes on from {previous}, the checkpoint before it, at step {before.step}." in said
    assert_same(*(load_checkpoint(folder / "last.pt") for folder in (whole, tmp_path / "cut")))
    assert recorded(whole) == recorded(tmp_path / "cut")


def test_two_damaged_checkpoints_are_an_error(tmp_path: Path, run: Run) -> None:
    run(tmp_path)
    for name in ("last.pt", "previous.pt"):
        flip(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"previous\.pt: damaged"):
        run(tmp_path, resume=True)


def test_a_run_stopped_between_two_lines_records_what_it_would_have(tmp_path: Path, run: Run) -> None:
    """Means over the steps before the stop and after it: nothing of them is lost."""
    config = tiny_config(epochs=3, log_interval=5)

    def stop(model: FakeDetector) -> None:
        model.on_losses = lambda call: os.kill(os.getpid(), signal.SIGTERM) if call == 3 else None

    run(tmp_path / "whole", config)
    with pytest.raises(Exception, match="SIGTERM"):
        run(tmp_path / "cut", config, prepare=stop)
    run(tmp_path / "cut", config, resume=True)
    assert recorded(tmp_path / "whole") == recorded(tmp_path / "cut")


def test_weights_of_the_last_epochs_stay(tmp_path: Path, synthetic_root: Path) -> None:
    def train(epochs: int, keep: int, resume: bool = False) -> list[str]:
        trainer.train(
            tiny_config(epochs=epochs, eval_interval=0), data=synthetic_root, output=tmp_path / "run", device="cpu",
            keep=keep, resume=resume, build=lambda config, num_classes: FakeDetector(num_classes),  # type: ignore[arg-type, return-value]
        )  # fmt: skip
        return sorted(path.name for path in (tmp_path / "run").glob("epoch_*"))

    assert train(3, 2) == ["epoch_002.pt", "epoch_003.pt"]
    assert load_checkpoint(tmp_path / "run" / "epoch_002.pt").training is None
    (tmp_path / "run" / "epoch_notes.pt").touch()  # not ours
    assert train(5, 1, resume=True) == ["epoch_005.pt", "epoch_notes.pt"]


# --- disks ------------------------------------------------------------------------------------------


def full(*arguments: object, **options: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("saves", [1, 2, 3])
def test_a_full_disk_stops_the_run_with_what_is_needed(
    tmp_path: Path, run: Run, whole: Path, monkeypatch: pytest.MonkeyPatch, saves: int
) -> None:
    """In any write of a checkpoint: the last good one is whole, and the run goes on from it."""
    left, save = saves, torch.save

    def failing(content: object, file: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            file.write(b"a part of it")
            full()
        save(content, file)

    monkeypatch.setattr(torch, "save", failing)
    with pytest.raises(TrainingError, match=r"last\.pt: the disk is full: 0\.\d MiB are needed; \d.* MiB are free\."):
        run(tmp_path / "cut", EVERY_STEP)
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "cut" / "last.pt").training.step == saves - 1  # type: ignore[union-attr]
    assert [path.name for path in (tmp_path / "cut").glob(".*")] == []
    run(tmp_path / "cut", EVERY_STEP, resume=True)
    assert_same(*(load_checkpoint(folder / "last.pt") for folder in (whole, tmp_path / "cut")))


def test_a_disk_that_is_full_before_anything_is_saved(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to go on with, and the folder is in the way of a new run."""
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"last\.pt: the disk is full: .*Nothing is saved yet: remove .*/run, and"):
        run(tmp_path / "run")


def test_a_disk_that_is_full_for_the_numbers(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JsonLines, "log", full)
    with pytest.raises(TrainingError, match=r"the disk is full; .* MiB are free\. .*last\.pt holds step 0 of 8"):
        run(tmp_path)


def test_what_a_kill_left_is_removed_and_nothing_else(tmp_path: Path, run: Run) -> None:
    run(tmp_path)
    (tmp_path / "pictures" / "step_4").mkdir(parents=True)
    for name in (".last.pt.123.tmp", ".metrics.jsonl.9.tmp", "pictures/step_4/.worst_1.jpg.8.tmp", ".mine.tmp"):
        (tmp_path / name).touch()
    run(tmp_path, tiny_config(epochs=3), resume=True)
    assert [path.name for path in tmp_path.rglob(".*")] == [".mine.tmp"]


@pytest.mark.skipif(sys.platform != "linux", reason="locks are the system's")
def test_two_commands_do_not_train_in_one_folder(tmp_path: Path, run: Run) -> None:
    def again(model: FakeDetector) -> None:
        model.on_losses = lambda call: run(tmp_path, tiny_config(epochs=2), resume=True) and None

    with pytest.raises(ConfigError, match="another command trains in it"):
        run(tmp_path, prepare=again)


# --- workers ----------------------------------------------------------------------------------------


def test_a_worker_that_hangs_is_noticed(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is saved, says where the worker is, and goes on when the disk answers."""
    read = coco.read_image

    def slow(path: Path, *size: Any) -> torch.Tensor:
        if path.parent.name == "train" and multiprocessing.parent_process() is not None:
            time.sleep(60)
        return read(path, *size)

    config = tiny_config(timeout=1)
    config = config.model_copy(update={"data": config.data.model_copy(update={"workers": 1})})
    monkeypatch.setattr(coco, "read_image", slow)
    with pytest.raises(TrainingError) as caught:
        run(tmp_path, config)
    assert "no batch came from the loader processes in 1 seconds; they are at image " in str(caught.value)
    assert "train.timeout" in str(caught.value)
    assert "last.pt holds step 0" in str(caught.value)
    assert multiprocessing.active_children() == []


# --- kills ------------------------------------------------------------------------------------------

EVENTS = 75
"""A run of the tests has about as many."""


def killable(seed: int, run: Run, folder: Path, config: Config) -> int:
    """Trains in a process that is killed after a random number of files written, lines recorded and losses made."""
    context = multiprocessing.get_context("fork")

    def train() -> None:
        torch.set_num_threads(1)  # makes torch's pool anew, which several threads at once would not do well
        generator = torch.Generator().manual_seed(seed)
        left = int(torch.randint(1, EVENTS, (), generator=generator))

        def event(*_: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        for owner, name in ((os, "fsync"), (Path, "replace"), (os, "link"), (JsonLines, "log"), (Recorder, "save")):
            setattr(owner, name, before_and_after(getattr(owner, name), event))

        def watch(model: FakeDetector) -> None:
            model.on_losses = model.on_detect = event

        run(folder, config, resume=(folder / "last.pt").exists(), prepare=watch)

    process = context.Process(target=train)
    process.start()
    process.join(timeout=120)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode


def before_and_after(function: Callable[..., Any], event: Callable[[], None]) -> Callable[..., Any]:
    def watched(*arguments: Any, **options: Any) -> Any:
        event()
        value = function(*arguments, **options)
        event()
        return value

    return watched


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
@pytest.mark.parametrize("config", [{}, {"ema": 0.5, "log_interval": 3}], ids=["plain", "averaged"])
def test_kills_at_any_moment_change_nothing(tmp_path: Path, run: Run, config: dict[str, Any]) -> None:
    """SIGKILL before and after files are flushed, renamed and linked, lines written, and in steps and evaluations."""
    settings = tiny_config(epochs=4, checkpoint_interval=2, **config)
    run(tmp_path / "whole", settings)
    kills = 0
    for seed in range(60):
        folder = tmp_path / "cut"
        if folder.exists() and not (folder / "last.pt").exists():  # killed before there was anything to go on from
            for path in folder.iterdir():
                path.unlink()
        if killable(seed, run, folder, settings) == 0:
            break
        kills += 1
    assert kills >= 4
    assert_same(*(load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "cut")))
    best: list[Checkpoint] = [load_checkpoint(tmp_path / name / "best.pt") for name in ("whole", "cut")]
    assert all(torch.equal(value, best[1].model[name]) for name, value in best[0].model.items())
    assert recorded(tmp_path / "whole") == recorded(tmp_path / "cut")
    assert not list((tmp_path / "cut").glob(".*"))
