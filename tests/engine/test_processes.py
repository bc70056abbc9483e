"""Runs of several processes: what they share, and how they end together."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from dsctool.engine.processes import LONE, Processes
from dsctool.engine.signals import StopRequestedError
from dsctool.errors import DataError
from dsctool.interop.checkpoint import load_checkpoint
from dsctool.models.losses import Mean, values
from dsctool.models.roi.fusion import RoiBatchNorm
from tests.engine.fakes import Build, FakeDetector, tiny_config
from tests.engine.several import several
from tests.engine.test_trainer import TIMES, lines

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")

RunMany = Callable[..., list[tuple[str, Any]]]


@pytest.fixture
def run_many(run: Callable[..., str]) -> RunMany:
    """As ``run``, in several processes; ``prepare`` is told the rank as well."""

    def many(
        world: int,
        output: Path,
        config: object = None,
        *,
        prepare: Callable[[int], Build] | None = None,
        **options: Any,
    ) -> list[tuple[str, Any]]:
        def work(processes: Processes) -> str:
            own = {} if prepare is None else {"prepare": prepare(processes.ranks.rank)}
            return run(output, config, processes=processes, **own, **options)

        return several(world, work)

    return many


def shown(outcomes: list[tuple[str, Any]]) -> str:
    """What the first process showed, where all ended well and the others showed nothing."""
    assert [kind for kind, _ in outcomes] == ["gave"] * len(outcomes), outcomes
    first, *others = (text for _, text in outcomes)
    assert others == [""] * len(others)
    return str(first)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(folder / "last.pt").model)


# --- messages ---------------------------------------------------------------------------------------


def test_the_first_does_the_work_and_all_have_what_it_gives(tmp_path: Path) -> None:
    def work(processes: Processes) -> tuple[str, object]:
        def read() -> str:
            (tmp_path / f"read by {processes.ranks.rank}").touch()
            return "whole"

        return processes.on_first(read, send=lambda text: text[:2]), processes.gather(processes.ranks.rank)

    assert [value for _, value in several(3, work)] == [("whole", [0, 1, 2]), ("wh", None), ("wh", None)]
    assert [path.name for path in tmp_path.iterdir()] == ["read by 0"]


def test_alone_nothing_is_sent() -> None:
    assert LONE.on_first(lambda: 3, send=lambda value: value + 1) == 3
    assert LONE.gather(3) == [3]
    assert LONE.most(3) == 3
    assert LONE.called_stop() is None
    with pytest.raises(DataError), LONE.together():
        raise DataError


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_of_one_ends_all_and_the_first_says_it(failing: int) -> None:
    def work(processes: Processes) -> None:
        with processes.together():
            if processes.ranks.rank == failing:
                raise DataError("b.jpg is broken")

    first, *others = several(3, work)
    assert first == (
        ("DataError", "b.jpg is broken") if failing == 0 else ("DsctoolError", "process 2 of 3: b.jpg is broken")
    )
    assert {kind for kind, _ in others} == {"SaidElsewhereError"}


def test_an_error_in_the_work_of_the_first_ends_all() -> None:
    def fail() -> None:
        raise DataError("no data")

    first, second = several(2, lambda processes: processes.on_first(fail))
    assert first == ("DataError", "no data")
    assert second[0] == "SaidElsewhereError"


def test_a_stop_of_one_is_a_stop_of_all() -> None:
    def work(processes: Processes) -> None:
        with processes.together():
            if processes.ranks.rank == 1:
                raise StopRequestedError("SIGTERM")

    assert several(2, work) == [("StopRequestedError", "SIGTERM")] * 2


def test_a_process_that_is_lost_ends_the_others() -> None:
    def work(processes: Processes) -> None:
        if processes.ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        processes.most(0)

    first, second = several(2, work)
    assert first == ("ProcessLostError", "process 1 of 2: another process was lost, or does not answer.")
    assert second == ("lost", -signal.SIGKILL)


# --- arithmetic -------------------------------------------------------------------------------------


def test_losses_are_divided_by_the_counts_of_all() -> None:
    """The mean over processes of what each gives is what one process would have; counts may be 0."""
    totals, counts = [[4.0, 0.0], [6.0, 0.0], [0.0, 0.0]], [[3, 0], [7, 0], [0, 0]]

    def work(processes: Processes) -> list[float]:
        rank = processes.ranks.rank
        losses = {
            name: Mean(torch.tensor(total), count if name == "a" else torch.tensor(count))
            for name, total, count in zip("ab", totals[rank], counts[rank], strict=True)
        }
        return [loss.item() for loss in processes.divided(losses).values()]

    found = torch.tensor([value for _, value in several(3, work)])
    assert found.mean(dim=0).tolist() == pytest.approx([10 / 10, 0.0])
    assert values({"a": Mean(torch.tensor(4.0), 0)})["a"] == 4


@pytest.mark.parametrize("shares", [(3, 5), (8, 0)])
def test_shared_statistics_are_those_of_one_batch(shares: tuple[int, int]) -> None:
    """Outputs, gradients of inputs and weights, and running statistics; a process may be without RoIs."""
    x = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(1)) * 3 + 5
    wanted = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(2))

    def step(norm: RoiBatchNorm, x: torch.Tensor, wanted: torch.Tensor) -> dict[str, torch.Tensor]:
        x = x.clone().requires_grad_()
        y = norm(x)
        (y * wanted).sum().backward()
        assert x.grad is not None
        statistics = {name: buffer.clone() for name, buffer in norm.named_buffers()}
        return {"y": y.detach(), "x": x.grad, **{n: p.grad for n, p in norm.named_parameters()}, **statistics}  # type: ignore[dict-item]

    def work(processes: Processes) -> dict[str, torch.Tensor]:
        norm = RoiBatchNorm(4)
        processes.share_statistics(norm)
        own = slice(0, shares[0]) if processes.first else slice(shares[0], None)
        return {name: value.numpy() for name, value in step(norm, x[own], wanted[own]).items()}  # type: ignore[misc]

    expected = step(RoiBatchNorm(4), x, wanted)
    (_, first), (_, second) = several(2, work)
    for name, value in expected.items():
        parts = torch.from_numpy(first[name]), torch.from_numpy(second[name])
        if name in ("y", "x"):
            torch.testing.assert_close(torch.cat(parts), value, msg=name)
        elif name in ("weight", "bias"):
            torch.testing.assert_close(sum(parts), value, msg=name)
        else:
            torch.testing.assert_close(parts[0], value, msg=name)
            assert torch.equal(*parts), name


def test_batches_without_rois_leave_shared_statistics_alone() -> None:
    def work(processes: Processes) -> bool:
        norm = RoiBatchNorm(4)
        before = {name: value.clone() for name, value in norm.state_dict().items()}
        processes.share_statistics(norm)
        norm(torch.zeros(0, 4, 3, 3)).sum().backward()
        return all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())

    assert several(2, work) == [("gave", True)] * 2


def test_a_wrapped_model_starts_with_the_weights_of_the_first() -> None:
    def work(processes: Processes) -> float:
        model = torch.nn.Linear(1, 1)
        with torch.no_grad():
            model.weight.fill_(processes.ranks.rank + 1)
        assert isinstance(processes.wrapped(model), DistributedDataParallel)
        return model.weight.item()

    assert several(2, work) == [("gave", 1.0)] * 2


# --- runs -------------------------------------------------------------------------------------------


def test_only_the_first_writes_and_shows(tmp_path: Path, run_many: RunMany) -> None:
    text = shown(run_many(2, tmp_path / "run"))
    assert "4 images = batch_size 2 x accumulate 1 x 2 processes" in text
    assert "0.125 = 0.5 x 4 / 16" in text
    assert "4 steps = 2 epochs x 2" in text
    train = [line for line in lines(tmp_path / "run") if line["kind"] == "train"]
    assert [line["step"] for line in train] == [1, 2, 3, 4]
    assert all(line["total_min"] <= line["loss"] <= line["total_max"] for line in train)
    assert all(line["step_time"] <= line["step_time_max"] for line in train)


def test_a_folder_that_is_there_is_refused_once(tmp_path: Path, run_many: RunMany) -> None:
    (tmp_path / "config.yaml").touch()
    first, second = run_many(2, tmp_path)
    assert first[0] == "ConfigError"
    assert "exists already" in first[1]
    assert second[0] == "SaidElsewhereError"


def test_evaluations_find_what_one_process_does(tmp_path: Path, run: Callable[..., str], run_many: RunMany) -> None:
    """Every image once, its results in the order of the images; the weights are the same, for nothing is learnt."""
    config = tiny_config(batch_size=1, epochs=1)
    config = config.model_copy(update={"optim": config.optim.model_copy(update={"lr": 1e-30})})
    run(tmp_path / "alone", config)
    shown(run_many(3, tmp_path / "three", config))
    alone, three = (load_checkpoint(tmp_path / name / "best.pt").metrics for name in ("alone", "three"))
    assert alone is not None
    assert alone == three


@pytest.mark.parametrize(
    ("rank", "during", "call", "settings"),
    [
        (1, "losses", 3, {"ema": 0.5, "log_interval": 4, "val_losses": True}),
        (0, "detect", 4, {"precision": "float16", "loss_counts": "all", "accumulate": 2}),
    ],
)
def test_a_signal_to_one_stops_all_at_the_same_step_and_resuming_changes_nothing(
    tmp_path: Path, run_many: RunMany, rank: int, during: str, call: int, settings: dict[str, Any]
) -> None:
    config = tiny_config(epochs=3, batch_size=1, **settings)
    shown(run_many(2, tmp_path / "whole", config))

    def kill(own: int) -> Build:
        def prepare(model: FakeDetector) -> None:
            def hook(number: int) -> None:
                if own == rank and number == call:
                    os.kill(os.getpid(), signal.SIGTERM)

            setattr(model, f"on_{during}", hook)

        return prepare

    first, second = run_many(2, tmp_path / "cut", config, prepare=kill)
    assert first[0] == second[0] == "RunInterruptedError"
    assert first[1] == second[1]
    shown(run_many(2, tmp_path / "cut", config, resume=True))
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    apart = {*TIMES, "data_time_max", "step_time_max"}
    recorded = [
        [{key: value for key, value in line.items() if key not in apart} for line in lines(tmp_path / name)]
        for name in ("whole", "cut")
    ]
    assert recorded[0] == recorded[1]


def test_data_that_go_bad_for_one_cost_no_step(
    tmp_path: Path, run_many: RunMany, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dsctool.data import coco

    read = coco.read_image

    def fail(path: Path, *size: Any) -> torch.Tensor:
        if path.parent.name == "train" and os.environ.get("RANK") == "1" and len(list(tmp_path.glob("run/last.pt"))):
            raise DataError(f"{path}: cannot be decoded")
        return read(path, *size)

    monkeypatch.setattr(coco, "read_image", fail)
    first, second = run_many(2, tmp_path / "run")
    assert first[0] == "DsctoolError"
    assert first[1].startswith("process 2 of 2: ")
    assert "cannot be decoded" in first[1]
    assert second[0] == "SaidElsewhereError"
    assert "cannot be decoded" in (tmp_path / "run" / "train.log").read_text()


def test_a_loss_that_is_not_finite_in_one_is_named(tmp_path: Path, run_many: RunMany) -> None:
    def poison(rank: int) -> Build:
        def prepare(model: FakeDetector) -> None:
            if rank == 1:
                model.on_losses = lambda call: model.factors.update({"s0.loss_mask": math.nan} if call == 2 else {})

        return prepare

    outcomes = run_many(2, tmp_path / "run", prepare=poison)
    assert outcomes[1][0] == "SaidElsewhereError"
    assert outcomes[0][0] == "LossError"
    assert "s0.loss_mask = nan (cascade stage 1)" in outcomes[0][1]


def test_a_process_that_dies_in_a_step_ends_the_run_which_goes_on(tmp_path: Path, run_many: RunMany) -> None:
    config = tiny_config(checkpoint_interval=1)
    shown(run_many(2, tmp_path / "whole", config))

    def die(rank: int) -> Build:
        def prepare(model: FakeDetector) -> None:
            def hook(number: int) -> None:
                if rank == 1 and number == 3:
                    os.kill(os.getpid(), signal.SIGKILL)

            model.on_losses = hook

        return prepare

    first, second = run_many(2, tmp_path / "cut", config, prepare=die)
    assert first[0] == "TrainingError"
    assert first[1].startswith("process 1 of 2: another process was lost, or does not answer.")
    assert "last.pt holds step 2 of 4" in first[1]
    assert second == ("lost", -signal.SIGKILL)
    shown(run_many(2, tmp_path / "cut", config, resume=True))
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


@pytest.mark.parametrize("worlds", [(2, 1), (1, 2), (2, 4)])
def test_another_number_of_processes_goes_on_with_as_many_images_a_step(
    tmp_path: Path, run_many: RunMany, worlds: tuple[int, int]
) -> None:
    before, after = worlds
    config = tiny_config(batch_size=4 // before, epochs=2, eval_interval=0)

    def stop(rank: int) -> Build:
        def prepare(model: FakeDetector) -> None:
            def hook(number: int) -> None:
                if number == 1:
                    os.kill(os.getpid(), signal.SIGTERM)

            model.on_losses = hook

        return prepare

    assert {kind for kind, _ in run_many(before, tmp_path / "run", config, prepare=stop)} == {"RunInterruptedError"}
    text = shown(run_many(after, tmp_path / "run", config, resume=True))
    assert "effective batch  4 images" in text
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2, 3, 4]


def test_where_images_cannot_be_shared_the_run_goes_on_with_others_and_says_so(
    tmp_path: Path, run_many: RunMany
) -> None:
    def stop(rank: int) -> Build:
        def prepare(model: FakeDetector) -> None:
            model.on_losses = lambda number: os.kill(os.getpid(), signal.SIGTERM)

        return prepare

    config = tiny_config(batch_size=2, eval_interval=0)
    run_many(2, tmp_path / "run", config, prepare=stop)
    text = shown(run_many(3, tmp_path / "run", config, resume=True))
    assert "the run had 4 images a step, which 3 processes cannot share: it goes on with 6." in text
