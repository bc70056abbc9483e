"""Activations that are computed again: the same steps, whatever else is switched on, from fewer kept numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from dsctool.config.loading import load_config
from dsctool.config.schema import PARTS
from dsctool.data.transforms import Batch, SampleInfo
from dsctool.engine.optim import build_optimizer
from dsctool.engine.step import optimizer_step
from dsctool.models.detector import Detector
from dsctool.structures import ImageBatch
from dsctool.terms import Precision
from tests.models.tiny import one_box, tiny_detector

FAMILIES = ["cascade_mask_rcnn_tiny", "htc_tiny", "detectors_tiny", "dsc_tiny", "fast_dsc_tiny", "dsc_detectors_tiny"]
FEW = ["model.cascade.samples=16", "model.rpn.train_max_proposals=20"]
SIZE = (64, 64)


def batch(seed: int, *, count: int = 2) -> Batch:
    images = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed))
    return ImageBatch(images, [SIZE]), [one_box(*SIZE, count=count)], [SampleInfo(seed, SIZE, "x.jpg")]


def stepped(name: str, overrides: Sequence[str], *, parts: str, precision: Precision = "float32") -> Detector:
    """After a step; in float32 on two batches, of which the second one has no instances."""
    model = tiny_detector(name, [*FEW, *overrides, f"train.checkpoint_activations={parts}"]).train()
    optimizer = build_optimizer(model, model.config.optim)
    torch.manual_seed(1)
    batches = [batch(0), batch(1, count=0)] if precision == "float32" else [batch(0)]
    optimizer_step(model, optimizer, batches, rate=0.1, max_norm=1.0, precision=precision)
    return model


def assert_same(found: Detector, expected: Detector) -> None:
    """Weights, affine buffers and statistics."""
    wanted = expected.state_dict()
    assert found.state_dict().keys() == wanted.keys()
    assert [name for name, value in found.state_dict().items() if not torch.equal(value, wanted[name])] == []


@pytest.mark.parametrize(
    ("name", "precision"),
    [*((name, "float32") for name in FAMILIES), ("htc_tiny", "bfloat16"), ("dsc_detectors_tiny", "bfloat16")],
)
def test_a_step_is_the_same_bit_for_bit(name: str, precision: Precision) -> None:
    expected = stepped(name, [], parts="false", precision=precision)
    drawn = torch.get_rng_state()
    assert_same(stepped(name, [], parts="true", precision=precision), expected)
    assert torch.equal(torch.get_rng_state(), drawn), "as many random numbers"


@pytest.mark.parametrize(
    ("part", "name", "overrides"),
    [
        ("backbone", "htc_tiny", ["model.backbone.norm=batch", "model.backbone.freeze_norm_statistics=false"]),
        ("backbone", "dsc_detectors_tiny", ["model.backbone.frozen_stages=2", "optim.kind=adamw"]),
        ("neck", "detectors_tiny", ["model.neck.rfp.share_backbone=true", "model.backbone.norm=batch"]),
        ("cascade", "dsc_tiny", ["model.cascade.alignment=recompute", "data.semantic=none"]),
    ],
)
def test_every_part_by_itself(part: str, name: str, overrides: list[str]) -> None:
    assert_same(stepped(name, overrides, parts=f"[{part}]"), stepped(name, overrides, parts="false"))


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("cascade_mask_rcnn_tiny", []),
        ("htc_tiny", ["train.checkpoint_activations=true"]),
        ("dsc_tiny", []),
        ("fast_dsc_tiny", ["train.checkpoint_activations=true"]),
    ],
)
def test_masks_in_parts_give_the_same_losses_and_gradients(name: str, more: list[str]) -> None:
    """Of a batch, and of one without instances on top; the order of sums may differ."""
    found = []
    for at_once in ("null", "5"):
        model = tiny_detector(name, [*FEW, *more, f"train.masks_at_once={at_once}"]).train()
        torch.manual_seed(1)
        losses: list[Tensor] = []
        for count in (2, 0):
            images, targets, _ = batch(0, count=count)
            losses += model.losses(images.tensor, targets).values()
        torch.stack(losses).sum().backward()
        found.append(losses + [p.grad for p in model.parameters() if p.grad is not None])
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() <= 5e-6 * (1 + theirs.norm())


@pytest.mark.parametrize("parts", ["false", "true"])
def test_masks_in_parts_in_half_precision(parts: str) -> None:
    """DSC, whose masks guide its boxes: weights move as far as with all masks at once, but for bfloat16's rounding."""
    start = tiny_detector("dsc_tiny", FEW).state_dict()
    whole, some = (
        stepped("dsc_tiny", [f"train.masks_at_once={count}"], parts=parts, precision="bfloat16").state_dict()
        for count in ("null", "5")
    )
    for key, before in start.items():
        if before.is_floating_point():
            assert (some[key] - whole[key]).norm() <= 0.01 * (whole[key] - before).norm() + 1e-6, key


def calls(model: Detector, names: Sequence[str]) -> Counter[str]:
    seen: Counter[str] = Counter()
    for name in names:
        model.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: seen.update([name]))
    return seen


WATCHED = {
    "backbone": ["backbone.conv1", "backbone.layer1.0", "rfp.backbones.0.layer4.0"],
    "neck": ["neck.lateral_convs.0", "rfp.aspp.branches.0"],
    "cascade": ["cascade.semantic_head.convs.0", "cascade.box_stages.2.head.fc1", "cascade.mask_heads.2.convs.0"],
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_runs_twice_where_it_trains_and_once_where_it_detects(part: str) -> None:
    model = tiny_detector("detectors_tiny", [*FEW, f"train.checkpoint_activations=[{part}]"])
    plain = tiny_detector("detectors_tiny", FEW)
    names = [name for each in WATCHED.values() for name in each]
    seen, expected = calls(model, names), calls(plain, names)
    images, targets, _ = batch(0)
    for each in (model, plain):
        torch.manual_seed(0)
        torch.stack(list(each.train().losses(images.tensor, targets).values())).sum().backward()
    for owner, watched in WATCHED.items():
        assert {seen[name] / expected[name] for name in watched} == {2 if owner == part else 1}, owner
    seen.clear()
    expected.clear()
    for each in (model, plain):
        each.eval().detect(images.tensor)
    assert seen == expected


def kept(model: Detector) -> int:
    """Bytes that the backward pass of a batch needs."""
    storages: dict[int, int] = {}
    held: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        held.append(x)  # so that no other one gets its place
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    own = {x.untyped_storage().data_ptr() for x in (*model.parameters(), *model.buffers())}
    images, targets, _ = batch(0)
    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        model.train().losses(images.tensor, targets)
    return sum(size for place, size in storages.items() if place not in own)


@pytest.mark.parametrize("name", ["htc_tiny", "detectors_tiny", "dsc_tiny"])
def test_little_is_kept(name: str) -> None:
    everything, little = (
        kept(tiny_detector(name, [*FEW, f"train.checkpoint_activations={parts}"])) for parts in ("false", "true")
    )
    assert little < 0.2 * everything


def test_masks_in_parts_keep_little_of_what_lies_before_them() -> None:
    """A cell of a feature and its four cells on the way to its logits, of 16 channels each."""
    whole, parts = (kept(tiny_detector("dsc_tiny", [*FEW, f"train.masks_at_once={count}"])) for count in ("null", "5"))
    stages, samples, cells, channels = 3, 16, 14 * 14 * 4, 16
    assert whole - parts >= stages * samples * cells * channels * 4


def test_the_configuration_names_parts() -> None:
    for text, parts in (("true", PARTS), ("false", ()), ("[neck]", ("neck",)), ("[]", ())):
        assert load_config("htc_tiny", [f"train.checkpoint_activations={text}"]).train.checkpointed_parts == parts


def test_modules_are_as_they_were_after_an_error() -> None:
    """Statistics that were set aside come back also when the second computation fails."""
    from dsctool.models.checkpointing import checkpointed

    norm = nn.BatchNorm2d(3)
    computations = []

    def compute(x: Tensor) -> Tensor:
        computations.append(norm.running_mean)
        out: Tensor = norm(x)
        if len(computations) == 2:
            raise MemoryError
        return out.square()

    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    before = norm.running_mean
    result = checkpointed(compute, x, within=norm, when=True)
    with pytest.raises(MemoryError):
        result.sum().backward()
    assert computations[0] is before
    assert computations[1] is not before
    assert norm.running_mean is before
    assert norm.num_batches_tracked == 1
