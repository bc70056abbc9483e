"""Test-time augmentation: what views are, and what must come of them, for every cascade and both ways to merge."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from dsctool.config.schema import TTAConfig
from dsctool.data.transforms import inference_transform, pad_images
from dsctool.engine.inference import find_instances
from dsctool.engine.views import ImageViews, count_views, in_views, semantic_groups, semantic_probabilities
from dsctool.errors import ConfigError
from dsctool.models import views as views_module
from dsctool.models.detector import Detector
from dsctool.models.views import View, _Looking, detect_in_views, groups_of, semantic_in_views
from dsctool.structures import Instances
from tests.models.tiny import tiny_detector

MODELS = ("htc_tiny", "detectors_tiny", "cascade_mask_rcnn_tiny", "dsc_tiny", "fast_dsc_tiny")
SIDES = ("data.test_resize.short_sides=[96]", "data.test_resize.long_side=160")
ONE_VIEW = ("data.tta.short_sides=[96]", "data.tta.long_side=160", "data.tta.flip=false")


def picture(*, height: int = 60, width: int = 90) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def found(name: str, overrides: Sequence[str], image: Tensor) -> Instances:
    model = tiny_detector(name, [*SIDES, *overrides]).eval()
    (instances,) = find_instances(model, [image], score=0.0)
    return instances


def assert_same(left: Instances, right: Instances, *, boxes: float = 0.0, scores: float = 0.0) -> None:
    assert len(left) == len(right) > 0
    torch.testing.assert_close(left.boxes, right.boxes, rtol=0, atol=boxes)
    torch.testing.assert_close(left.scores, right.scores, rtol=0, atol=scores)
    assert torch.equal(left.labels, right.labels)
    assert left.masks is not None
    assert right.masks is not None
    share = (left.masks != right.masks).float().mean()
    assert share == 0 if boxes == 0 else share < 1e-3


@pytest.mark.parametrize(
    ("name", "merge", "suppression"),
    [
        ("htc_tiny", "average", "box"),
        ("htc_tiny", "union", "mask"),
        ("htc_tiny", "average", "soft"),
        ("detectors_tiny", "union", "box"),
        ("cascade_mask_rcnn_tiny", "average", "box"),
        ("dsc_tiny", "union", "box"),
        ("fast_dsc_tiny", "average", "mask"),
    ],
)
def test_one_view_is_no_augmentation(name: str, merge: str, suppression: str) -> None:
    """To the last digit."""
    overrides = [f"postprocess.nms={suppression}"]
    tta = [*overrides, *ONE_VIEW, f"data.tta.merge={merge}"]
    assert_same(found(name, tta, picture()), found(name, overrides, picture()))


@pytest.mark.parametrize("name", ["htc_tiny", "fast_dsc_tiny"])
def test_one_mirrored_view_is_the_mirror_image_of_none(name: str) -> None:
    model = tiny_detector(name, SIDES).eval()
    _, view = _views(model, TTAConfig(short_sides=(96,), long_side=160), picture())
    seen = detect_in_views(model, [view], (60, 90), "union")
    plain = found(name, [], picture().flip(-1))
    mirrored = plain.boxes[:, [2, 1, 0, 3]]
    mirrored[:, [0, 2]] = 90 - mirrored[:, [0, 2]]
    torch.testing.assert_close(seen.boxes, mirrored, rtol=0, atol=1e-4)
    assert torch.equal(seen.scores, plain.scores)


@pytest.mark.parametrize("name", ["htc_tiny", "fast_dsc_tiny"])
def test_the_same_view_twice_changes_nothing_of_a_union(name: str) -> None:
    once = [*ONE_VIEW, "data.tta.short_sides=[96,96]"]
    model = tiny_detector(name, [*SIDES, *once]).eval()
    plain = found(name, [], picture())
    (twice,) = find_instances(model, [picture()], score=0.0)
    assert torch.equal(twice.boxes, plain.boxes)
    assert torch.equal(twice.scores, plain.scores)


@pytest.mark.parametrize("name", ["cascade_mask_rcnn_tiny", "detectors_tiny", "dsc_tiny"])
def test_the_same_view_twice_changes_nothing_of_an_average(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same proposals."""
    model = tiny_detector(name, SIDES).eval()
    (view,) = _views(model, TTAConfig(short_sides=(96,), long_side=160, flip=False), picture())
    with torch.no_grad():
        proposals = _Looking(model, [view], (60, 90))._proposals()
    monkeypatch.setattr(views_module._Looking, "_proposals", lambda looking: proposals)
    with torch.no_grad():
        once, twice = (_Looking(model, [view] * count, (60, 90)).average() for count in (1, 2))
    for left, right in ((once.boxes, twice.boxes), (once.scores, twice.scores), (once.mask_probs, twice.mask_probs)):
        assert left is not None
        assert torch.equal(left, right)


def test_proposals_of_all_views_suppress_each_other() -> None:
    model = tiny_detector("htc_tiny", SIDES).eval()
    views = list(_views(model, TTAConfig(short_sides=(96, 64), long_side=160), picture()))
    with torch.no_grad():
        merged, _ = _Looking(model, views, (60, 90))._proposals()
        boxes, scores = [], []
        for view in views:
            (proposals,) = model.rpn.propose(model.extract_features(view.image), [view.size])
            boxes.append(view.boxes_out(proposals.boxes, (60, 90)))
            scores.append(proposals.scores)
    joined = torch.cat(boxes)
    expected = joined[nms(joined, torch.cat(scores), 0.7)][: model.rpn.test_limits.max_proposals]
    assert torch.equal(merged, expected)


@pytest.mark.parametrize("merge", ["average", "union"])
@pytest.mark.parametrize("name", MODELS)
def test_a_mirrored_picture_has_mirrored_results(name: str, merge: str) -> None:
    tta = [*SIDES, "data.tta.short_sides=[96]", "data.tta.long_side=160", f"data.tta.merge={merge}"]
    one, other = (found(name, tta, image) for image in (picture(), picture().flip(-1)))
    back = other.boxes[:, [2, 1, 0, 3]]
    back[:, [0, 2]] = 90 - back[:, [0, 2]]
    order = torch.cdist(one.boxes, back).add(1e3 * (one.labels[:, None] != other.labels)).argmin(dim=1)
    assert len(one) == len(other) > 0
    torch.testing.assert_close(one.boxes, back[order], rtol=0, atol=1e-3)
    torch.testing.assert_close(one.scores, other.scores[order], rtol=0, atol=1e-5)
    assert one.masks is not None
    assert other.masks is not None
    assert (one.masks != other.masks[order].flip(-1)).float().mean() < 1e-3


@pytest.mark.parametrize("merge", ["average", "union"])
def test_without_masks_without_results_and_with_candidates(merge: str) -> None:
    tta = [*SIDES, "data.tta.short_sides=[64,96]", f"data.tta.merge={merge}", "postprocess.keep_candidates=50"]
    views = TTAConfig(short_sides=(64, 96))
    for name, overrides in (
        ("htc_tiny", []),
        ("dsc_tiny", ["postprocess.score_threshold=1.0"]),
        ("cascade_mask_rcnn_tiny", ["model.cascade.mask_head=null"]),
    ):
        model = tiny_detector(name, [*tta, *overrides]).eval()
        seen = detect_in_views(model, _views(model, views, picture()), (60, 90), model.config.data.tta.merge)  # type: ignore[union-attr]
        assert (len(seen) == 0) == ("score_threshold" in str(overrides))
        assert (seen.mask_probs is None) == ("mask_head" in str(overrides))
        assert seen.mask_probs is None or len(seen.mask_probs) == len(seen)
        candidates = seen.candidates
        assert candidates is not None
        assert len(candidates) == (0 if len(seen) == 0 else 50)
        assert candidates.scores.tolist() == sorted(candidates.scores.tolist(), reverse=True)
        assert len(seen) == 0 or seen.scores.max() == candidates.scores.max()


@pytest.mark.parametrize("name", ["htc_tiny", "detectors_tiny", "dsc_tiny"])
def test_semantic_probabilities(name: str) -> None:
    """One view is the plain image, a second equal one changes nothing, mirrored ones are turned back."""
    model = tiny_detector(name, SIDES).eval()
    image, size = picture(), (60, 90)
    plain = semantic_probabilities(model, image)
    classes = model.semantic_logits(model.extract_features(torch.zeros(1, 3, 64, 64))).shape[1]
    assert plain.shape == (classes, *size)
    torch.testing.assert_close(plain.sum(dim=0), torch.ones(size))
    one, mirrored = _views(model, TTAConfig(short_sides=(96,), long_side=160), image)
    assert torch.equal(semantic_in_views(model, [one], size), plain)
    assert torch.equal(semantic_in_views(model, [one, one], size), plain)
    turned = semantic_probabilities(model, image.flip(-1)).flip(-1)
    torch.testing.assert_close(semantic_in_views(model, [mirrored], size), turned, rtol=0, atol=1e-5)
    torch.testing.assert_close(semantic_in_views(model, [one, mirrored], size), (plain + turned) / 2, rtol=0, atol=1e-5)
    in_both = tiny_detector(name, [*SIDES, "data.tta.short_sides=[96]", "data.tta.long_side=160"]).eval()
    assert torch.equal(semantic_probabilities(in_both, image), semantic_in_views(model, [one, mirrored], size))


def test_groups_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The most probable group is that of the summed probabilities in every pixel, however many rows are one band."""
    tta = ["data.tta.short_sides=[96,64]", "data.tta.long_side=160"]
    groups = [(2,), (0, 3), (1,)]
    image, size = picture(), (60, 90)
    for words in ([], tta):
        model = tiny_detector("htc_tiny", [*SIDES, *words]).eval()
        for band in (1 << 23, 3 * 90 * 7):
            monkeypatch.setattr(views_module, "BAND_VALUES", band)
            found = semantic_groups(model, image, groups)
            sums = torch.stack([semantic_probabilities(model, image)[list(group)].sum(dim=0) for group in groups])
            best = sums.gather(0, found.long()[None])[0]
            assert found.dtype == torch.uint8
            torch.testing.assert_close(best, sums.max(dim=0).values, rtol=0, atol=1e-6)
    model = tiny_detector("htc_tiny", SIDES).eval()
    batch = pad_images([inference_transform(model.config.data).image(image)], 32)
    (seen,) = model.detect(batch.tensor, batch.sizes, [size], semantic=True)
    assert seen.semantic is not None
    assert torch.equal(groups_of(seen.semantic, batch.sizes[0], size, groups), semantic_groups(model, image, groups))
    assert model.detect(batch.tensor, batch.sizes, [size])[0].semantic is None


def test_a_map_keeps_its_place_and_nothing_of_the_padding() -> None:
    """Columns of a 20 x 40 view, 32 x 64 with its padding, at stride 8: 5 cells of the image, 3 of the padding."""
    columns = torch.tensor([0.0, 1, 2, 3, 4, 100, 100, 100]).expand(1, 4, 8)
    expected = ((torch.arange(40.0) + 0.5) / 8 - 0.5).clamp(0, 4)
    for flipped in (False, True):
        view = View(torch.zeros(1, 3, 32, 64), (20, 40), flipped)
        seen = view.map_out(columns, (20, 40), stride=8)
        torch.testing.assert_close(seen, (expected.flip(0) if flipped else expected).expand(1, 20, 40))
        assert view.map_out(columns, (10, 20), stride=8).shape == (1, 10, 20)
    upscaled = torch.nn.functional.interpolate(columns[None, :, :3, :5], size=(24, 40), mode="bilinear")[0, :, :20]
    torch.testing.assert_close(
        View(torch.zeros(1, 3, 32, 64), (20, 40), False).map_out(columns, (20, 40), stride=8), upscaled
    )


def test_a_model_without_a_semantic_branch_says_so() -> None:
    for name, overrides in (("cascade_mask_rcnn_tiny", []), ("htc_tiny", ["data.semantic=none"])):
        model = tiny_detector(name, [*SIDES, *overrides]).eval()
        assert not model.has_semantic
        with pytest.raises(ConfigError, match=r"no semantic branch.*data\.semantic"):
            semantic_probabilities(model, picture())
        with pytest.raises(ConfigError, match="no semantic branch"):
            semantic_groups(model, picture(), [(0,)])


def test_semantic_views_are_held_one_at_a_time() -> None:
    model = tiny_detector("htc_tiny", SIDES).eval()
    alive: list[weakref.ref[Tensor]] = []

    def views() -> Iterator[View]:
        for view in _views(model, TTAConfig(short_sides=(64, 80, 96)), picture()):
            assert sum(each() is not None for each in alive) <= 1
            alive.append(weakref.ref(view.image))
            yield view

    semantic_in_views(model, views(), (60, 90))
    assert len(alive) == 6


def test_progress_says_how_many_views() -> None:
    assert in_views("eval", None) == "eval"
    assert in_views("eval", TTAConfig()) == "eval (images x 10 views)"


def test_views() -> None:
    model = tiny_detector("htc_tiny", SIDES)
    tta = TTAConfig(short_sides=(64, 128))
    views = list(_views(model, tta, picture()))
    assert [(view.size, view.flipped) for view in views] == [
        ((64, 96), False),
        ((64, 96), True),
        ((128, 192), False),
        ((128, 192), True),
    ]
    assert count_views(tta) == len(views)
    plain, mirrored = views[:2]
    assert torch.equal(plain.image[..., :64, :96].flip(-1), mirrored.image[..., :64, :96])
    assert count_views(TTAConfig()) == 10
    wide = TTAConfig(short_sides=(64,), flip=False)
    (view,) = _views(model, wide, picture(height=30, width=90))
    assert view.size == (32, 96), "the longer side is at most 1.5 times 64"


@pytest.mark.parametrize("flipped", [False, True])
def test_boxes_go_in_and_come_out(flipped: bool) -> None:
    view = View(torch.zeros(1, 3, 128, 128), (100, 120), flipped)
    boxes = torch.tensor([[0.0, 0.0, 30.0, 50.0], [10.0, 5.0, 20.0, 25.0]])
    inside = view.boxes_in(boxes, (50, 60))
    expected = [[60.0, 0.0, 120.0, 100.0], [80.0, 10.0, 100.0, 50.0]]
    assert inside.tolist() == (expected if flipped else [[0.0, 0.0, 60.0, 100.0], [20.0, 10.0, 40.0, 50.0]])
    torch.testing.assert_close(view.boxes_out(inside, (50, 60)), boxes)
    masks = torch.arange(6.0).reshape(1, 2, 3)
    assert view.masks_out(masks).tolist() == (masks.flip(-1) if flipped else masks).tolist()


def _views(model: Detector, tta: TTAConfig, image: Tensor) -> ImageViews:
    return ImageViews(image, model.config.data, tta, torch.device("cpu"))
