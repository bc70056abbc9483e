"""One optimiser step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from dsctool.data.transforms import Batch, SampleInfo
from dsctool.engine.meters import Feed, Window
from dsctool.engine.step import StepResult, optimizer_step, part_of
from dsctool.errors import DataError, TrainingError
from dsctool.models.losses import Mean
from dsctool.structures import ImageBatch, Targets


class Brightness(nn.Module):
    """Its loss is a mean over images, so that averaging over batches can be exact."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, images: Tensor, targets: object, sizes: object) -> dict[str, Mean]:
        values = images.mean((2, 3)) @ self.weight
        return {"loss_a": Mean(values.square().sum(), len(values)), "s1.loss_cls": Mean(values.sum(), len(values))}


def batch(images: Tensor, first_id: int) -> Batch:
    sizes = [(8, 8)] * len(images)
    targets = [Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)) for _ in images]
    infos = [SampleInfo(first_id + offset, (8, 8), "x.jpg") for offset in range(len(images))]
    return ImageBatch(images, sizes), targets, infos


class Wrapped(nn.Module):
    """As ``DistributedDataParallel`` does: only its ``forward`` is called."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: object) -> dict[str, Mean]:
        return self.module(*inputs)


def run(batches: list[Batch], device: torch.device) -> tuple[Tensor, StepResult]:
    model = Brightness().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    result = optimizer_step(model, optimizer, batches, rate=0.1, max_norm=None)
    return model.weight.detach().cpu(), result


def test_accumulated_batches_are_one_large_batch(device: torch.device) -> None:
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    whole, one = run([batch(images, 0)], device)
    parts, two = run([batch(images[:2], 0), batch(images[2:], 2)], device)
    torch.testing.assert_close(whole, parts)
    torch.testing.assert_close(one.grad_norm, two.grad_norm)
    assert (one.images, two.images) == (4, 4)
    for name, loss in one.losses.items():
        torch.testing.assert_close(loss, two.losses[name])


def test_the_rate_is_the_given_one() -> None:
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    weight, result = run([batch(images, 0)], torch.device("cpu"))
    assert torch.linalg.vector_norm(1 - weight).item() == pytest.approx(0.1 * result.grad_norm.item(), rel=1e-5)


def test_a_wrapped_model_takes_the_same_step() -> None:
    model = Brightness()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    optimizer_step(Wrapped(model), optimizer, [batch(images, 0)], rate=0.1, max_norm=None)
    assert torch.equal(model.weight.detach(), run([batch(images, 0)], torch.device("cpu"))[0])


@pytest.mark.parametrize(
    ("brightness", "message"),
    [
        (math.inf, r"loss is not finite: loss_a = inf \(detector\), s1.loss_cls = inf .*; image ids 5\."),
        (1e15, r"gradient is not finite: the norm of all together; image ids 4, 5\."),  # its square is no float
    ],
)
def test_a_step_that_is_not_finite_changes_nothing_and_says_which(brightness: float, message: str) -> None:
    model = Brightness()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    batches = [batch(torch.full((1, 3, 8, 8), value), number) for value, number in ((1.0, 4), (brightness, 5))]
    with pytest.raises(TrainingError, match=message):
        optimizer_step(model, optimizer, batches, rate=0.1, max_norm=1.0)
    assert torch.equal(model.weight.detach(), torch.ones(3))


def test_targets_that_the_model_refuses_are_told_with_their_images() -> None:
    class Refusing(Brightness):
        def forward(self, images: Tensor, targets: object, sizes: object) -> dict[str, Mean]:
            raise DataError("targets[1]: box 3 has no width or no height")

    model = Refusing()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(DataError, match=r"^targets\[1\]: box 3 has no width or no height; image ids 7, 8$"):
        optimizer_step(model, optimizer, [batch(torch.ones(2, 3, 8, 8), 7)], rate=0.1, max_norm=None)


def test_one_read_of_the_device_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    read = Tensor.__bool__
    monkeypatch.setattr(Tensor, "__bool__", lambda tensor: reads.append(tensor.shape) or read(tensor))
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    run([batch(images[:2], 0), batch(images[2:], 2)], torch.device("cpu"))
    assert len(reads) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("s0.loss_cls", "cascade stage 1"),
        ("s2.loss_mask", "cascade stage 3"),
        ("loss_rpn_bbox", "region proposals"),
        ("loss_semantic_seg", "semantic branch"),
    ],
)
def test_losses_are_placed(name: str, words: str) -> None:
    assert part_of(name) == words


def test_feed_measures_what_is_waited_for() -> None:
    def slow() -> Iterator[list[Batch]]:
        time.sleep(0.05)
        yield [batch(torch.zeros(1, 3, 8, 8), 0)]
        yield []

    feed = Feed(slow())
    waited = [feed.waited for _ in feed]
    assert waited[0] >= 0.05 > waited[1]


def test_window_means() -> None:
    window = Window()
    for value in (1.0, 3.0):
        result = StepResult({"loss_a": torch.tensor(value)}, torch.tensor(10 * value), images=4)
        window.add(result, waited=0.5, seconds=2.0)
    losses, others = window.means()
    assert losses == {"loss_a": 2.0}
    memory = others.pop("memory")
    assert 0.05 < memory < 1024, "GiB of this process"
    assert others == {
        "grad_norm": 20,
        "data_time": 0.5,
        "data_share": 0.25,
        "step_time": 2,
        "images_per_s": 2,
        "skipped": 0,
    }
    assert len(window) == 2


def test_skipped_steps_have_no_part_in_the_means() -> None:
    window = Window()
    for value in (1.0, math.nan, 3.0, math.inf):
        skipped = not math.isfinite(value)
        result = StepResult({"loss_a": torch.tensor(value)}, torch.tensor(10 * value), images=4, skipped=skipped)
        window.add(result, waited=0.5, seconds=2.0)
    losses, others = window.means()
    assert losses == {"loss_a": 2.0}
    assert (others["grad_norm"], others["skipped"], others["images_per_s"]) == (20, 2, 2)
    window = Window()
    window.add(result, waited=0.5, seconds=2.0)
    losses, others = window.means()
    assert losses == {}
    assert "grad_norm" not in others
    assert others["skipped"] == 1
