"""Switch maps: which layers, where their cells lie, what they look like, and the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from dsctool.data.transforms import pad_images
from dsctool.errors import DsctoolError
from dsctool.models.detector import Detector
from dsctool.structures import Detections
from dsctool.visualize.switch.colors import FULL, Scale
from dsctool.visualize.switch.files import save_maps
from dsctool.visualize.switch.numbers import Counts, measure, summarize
from dsctool.visualize.switch.record import SwitchMap, SwitchRecord, recording, select_layers, switch_layers
from dsctool.visualize.switch.sheet import Sheet, picture_size, save_layer, save_sheet
from tests.models.tiny import tiny_detector

SAC = ("model.backbone.sac={}", "model.backbone.weight_standardisation=true", "model.backbone.stem_channels=4")
RFP = "model.neck.rfp={}"
LOCAL = "model.backbone.norm=batch"
"""Group normalisation spreads what happens anywhere over the whole image."""
INNER = [f"layer{stage}.{block}.conv2" for stage in (2, 3, 4) for block in (0, 1)]


def sac_detector(*overrides: str) -> Detector:
    return tiny_detector("htc_tiny", [*SAC, *overrides]).eval()


def set_switch(model: Detector, value: float, *, spread: float = 0.0) -> None:
    """Every switch gives ``value``, and ``spread`` times its input."""
    for name, parameter in model.named_parameters():
        if ".switch." in name:
            torch.nn.init.constant_(parameter, value if name.endswith("bias") else spread)


def record(model: Detector, height: int, width: int, *, original: tuple[int, int] | None = None) -> SwitchRecord:
    image = torch.randn(3, height, width, generator=torch.Generator().manual_seed(0))
    return record_image(model, image, original=original or (height, width), layers=switch_layers(model))


def record_image(model: Detector, image: Tensor, *, original: tuple[int, int], layers: list[str]) -> SwitchRecord:
    images = pad_images([image], 32)
    with recording(model, layers) as recorder:
        (found,) = model.detect(images.tensor, images.sizes, [original])
        return recorder.take(found, images.sizes[0])


def a_map(values: Any, *, stage: int = 3, input_size: tuple[int, int] = (64, 96)) -> SwitchMap:
    return SwitchMap("backbone.layer3.0.conv2", stage, 1, np.asarray(values, dtype=np.float32), input_size)


def a_record(*maps: SwitchMap, size: tuple[int, int] = (64, 96)) -> SwitchRecord:
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), None, size)
    return SwitchRecord(list(maps), nothing, size)


# --- layers -----------------------------------------------------------------------------------------


def test_layers_of_both_backbones_in_order() -> None:
    expected = [f"backbone.{name}" for name in INNER] + [f"rfp.backbones.0.{name}" for name in INNER]
    assert switch_layers(sac_detector(RFP)) == expected
    assert switch_layers(sac_detector("model.backbone.sac.stages=[4]")) == [f"backbone.{name}" for name in INNER[4:]]
    assert switch_layers(tiny_detector()) == []


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        ([], list(range(12))),
        (["layer3.*"], [2, 3, 8, 9]),
        (["layer3"], [2, 3, 8, 9]),
        (["layer3.0"], [2, 8]),
        (["backbone.layer3.*"], [2, 3]),
        (["backbone"], list(range(6))),
        (["rfp.*"], list(range(6, 12))),
        (["layer[24].1.conv2", "*.layer3.1.*"], [1, 3, 5, 7, 9, 11]),
        (["*"], list(range(12))),
    ],
)
def test_patterns(patterns: list[str], chosen: list[int]) -> None:
    layers = [f"backbone.{name}" for name in INNER] + [f"rfp.backbones.0.{name}" for name in INNER]
    assert select_layers(layers, patterns) == [layers[index] for index in chosen]


@pytest.mark.parametrize("pattern", ["layer1.*", "layer", "conv2", "Layer3.*"])
def test_a_pattern_without_match_is_named(pattern: str) -> None:
    with pytest.raises(DsctoolError, match=r"no SAC layer matches '.*'; there are backbone\.layer2"):
        select_layers(["backbone.layer2.0.conv2"], ["layer2.*", pattern])


# --- maps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deformable", ["true", "false"])
@pytest.mark.parametrize("size", [(96, 128), (101, 77), (5, 140), (1, 1)])
def test_maps_cover_the_image_at_any_size(deformable: str, size: tuple[int, int]) -> None:
    model = sac_detector(f"model.backbone.sac.deformable={deformable}")
    set_switch(model, 0.25)
    found = record(model, *size, original=(2 * size[0], 3 * size[1]))
    for each, layer in zip(found.maps, switch_layers(model), strict=True):
        assert (each.name, each.passage, each.input_size) == (layer, 1, size)
        assert each.values.dtype == np.float32
        assert each.values.shape == (-(-size[0] // each.stride), -(-size[1] // each.stride))
        assert (each.values == 0.25).all()
        assert each.upsampled((7, 11)) == pytest.approx(np.full((7, 11), 0.25))
    assert [each.stride for each in found.maps] == [8, 8, 16, 16, 32, 32]
    assert found.image_size == found.detections.size == (2 * size[0], 3 * size[1])


def test_a_map_is_what_the_layer_mixes_with() -> None:
    model = sac_detector()
    set_switch(model, 0.5, spread=0.3)
    seen = {}
    layer = "backbone.layer3.0.conv2"
    model.get_submodule(f"{layer}.switch").register_forward_hook(lambda module, x, y: seen.update(y=y[0, 0].numpy()))
    found = record(model, 96, 128)
    values = {each.layer: each.values for each in found.maps}[layer]
    assert np.ptp(values) > 0
    np.testing.assert_array_equal(values, seen["y"])


def test_hooks_are_gone_after_the_run() -> None:
    model = sac_detector()
    record(model, 96, 96)
    assert not [name for name, module in model.named_modules() if module._forward_hooks]


def test_a_diverged_checkpoint_is_named() -> None:
    model = sac_detector()
    set_switch(model, float("nan"))
    with pytest.raises(DsctoolError, match=r"switch of backbone\.layer2\.0\.conv2 is not finite"):
        record(model, 96, 96)


def test_passes_of_a_second_and_of_a_shared_backbone() -> None:
    own, shared = sac_detector(RFP), sac_detector("model.neck.rfp={share_backbone: true, steps: 3}")
    maps = record(own, 96, 96).maps
    assert [(each.layer, each.passage) for each in maps[:1] + maps[6:7]] == [
        ("backbone.layer2.0.conv2", 1),
        ("rfp.backbones.0.layer2.0.conv2", 2),
    ]
    assert [each.name for each in record(shared, 96, 96).maps[:3]] == [
        "backbone.layer2.0.conv2",
        "backbone.layer2.0.conv2@2",
        "backbone.layer2.0.conv2@3",
    ]


@pytest.mark.parametrize("stage", [2, 3, 4])
def test_a_cell_looks_around_the_pixel_that_upsampling_puts_it_at(stage: int) -> None:
    """The pixels that a cell depends on have their middle at ``stride`` times its index."""
    sac = f"model.backbone.sac={{stages: [{stage}], deformable: false}}"
    model = sac_detector(sac, LOCAL, "model.backbone.stem_channels=32")
    model.requires_grad_(False)
    set_switch(model, 0.5, spread=1.0)
    outputs = []
    hook = lambda module, x, y: outputs.append(y)  # noqa: E731
    model.get_submodule(f"backbone.layer{stage}.0.conv2.switch").register_forward_hook(hook)
    images = torch.randn(1, 3, 416, 416, generator=torch.Generator().manual_seed(0), requires_grad=True)
    model.backbone(images)
    stride = 2 ** (stage + 1)
    cell = 192 // stride
    outputs[0][0, 0, cell, cell].backward()
    assert images.grad is not None
    touched = images.grad[0].abs().sum(dim=0)
    rows, columns = touched.sum(dim=1).nonzero(), touched.sum(dim=0).nonzero()
    for places in (rows, columns):
        assert abs(float(places.min() + places.max()) / 2 - cell * stride) <= 1


def test_one_bright_cell_is_drawn_in_its_place() -> None:
    values = np.zeros((4, 6))
    values[1, 3] = 1.0  # at pixel (16, 48) of an image of 64 x 96
    drawn = a_map(values).upsampled((128, 192))
    assert np.unravel_index(drawn.argmax(), drawn.shape) in {(32, 96), (33, 97), (32, 97), (33, 96)}
    rows, columns = np.nonzero(drawn)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 64, 65, 128)
    assert drawn[33, 97] > drawn[33, 110] > drawn[33, 125] > 0


def test_a_bright_region_of_the_image_is_where_the_map_is_bright() -> None:
    """From the image through the network to the drawing: only there the map differs."""
    model = sac_detector("model.backbone.sac={stages: [2], deformable: false}", LOCAL)
    set_switch(model, 0.0, spread=1.0)
    maps = []
    for value in (0.0, 4.0):
        image = torch.zeros(3, 230, 300)
        image[:, 140:164, 200:224] = value
        found = record_image(model, image, original=(460, 600), layers=["backbone.layer2.0.conv2"])
        maps.append(found.maps[0].upsampled((460, 600)))
    change = np.abs(maps[1] - maps[0])
    rows, columns = np.indices(change.shape)
    middle = [(axis * change).sum() / change.sum() for axis in (rows, columns)]
    assert middle == pytest.approx([304, 424], abs=8)


# --- colours and files ------------------------------------------------------------------------------


def test_grey_inside_the_unit_interval_and_tints_outside() -> None:
    grey = FULL.colors(np.linspace(0, 1, 11))
    assert (grey == grey[:, :1]).all()
    assert (np.diff(grey[:, 0].astype(int)) > 0).all()
    assert grey[0, 0] == 0
    assert grey[-1, 0] == 255
    red, _, blue = FULL.colors(np.asarray([-0.001, -0.5, -1, -9])).astype(int).T
    assert (blue - red > 50).all()
    red, _, blue = FULL.colors(np.asarray([1.001, 1.5, 2, 9])).astype(int).T
    assert (red - blue > 50).all()
    assert (FULL.colors(np.asarray([-1, 2])) == FULL.colors(np.asarray([-9, 9]))).all()


def test_a_stretched_scale_keeps_order_and_hues() -> None:
    scale = Scale.over(np.asarray([-0.5, 1.5]))
    low, grey, high = scale.colors(np.asarray([-0.1, 0.5, 1.2])).astype(int)
    assert low[2] > low[0]
    assert grey.tolist() == [128, 128, 128]
    assert high[0] > high[2]
    assert low.max() < grey.max() < high.max()
    assert Scale.over(np.full((3, 3), 0.7)) == FULL


@pytest.mark.parametrize("scale", [FULL, Scale(-0.2, 1.1, stretched=True), Scale(1.2, 1.4, stretched=True)])
def test_histograms_count_everything_and_never_mix_colours(scale: Scale) -> None:
    values = np.asarray([-5, -0.01, 0, 0.3, 1, 1, 1.01, 1.3, 7])
    counts, edges = scale.histogram(values, 90)
    assert counts.sum() == len(values)
    assert (np.diff(edges) > 0).all()
    clipped = np.clip(values, scale.low, scale.high)
    assert counts[edges[:-1] >= 1].sum() == (clipped > 1).sum()
    assert counts[edges[1:] <= 0].sum() == (clipped < 0).sum()


@pytest.mark.parametrize(("value", "color"), [(0.0, (0, 0, 0)), (0.4, (102,) * 3), (1.0, (255,) * 3), (2.0, None)])
def test_a_constant_map_as_a_picture(tmp_path: Path, value: float, color: tuple[int, ...] | None) -> None:
    save_layer(tmp_path / "new" / "map.png", a_map(np.full((4, 6), value)), (64, 96))
    pixels = np.asarray(Image.open(tmp_path / "new" / "map.png").convert("RGB"))
    height, width = picture_size((64, 96))
    middle = pixels[height // 2 - 40 : height // 2 + 40, width // 2 - 40 : width // 2 + 40].reshape(-1, 3)
    assert (middle == (color or FULL.colors(np.asarray(value)))).all()


@pytest.mark.parametrize("size", [(64, 96), (3, 900), (900, 3), (1, 1)])
def test_a_sheet_has_room_for_every_pass_and_stage(tmp_path: Path, size: tuple[int, int]) -> None:
    maps = [
        SwitchMap(f"rfp.layer{stage}.{block}.conv2", stage, passage, np.full((2, 3), stage / 4, np.float32), size)
        for passage in (1, 2)
        for stage in (1, 2, 3, 4)
        for block in (0, 1)
    ]
    height, width = picture_size(size)
    image = Image.new("RGB", (width, height), (0, 200, 0))
    summary = summarize([measure(a_record(*maps, size=size), [])])
    title = "$a_1^ 猫" + 300 * "x"
    sheet = Sheet(title=title, maps=maps, image=image, overlay=image, summary=summary, objects="objects", stretch=True)
    save_sheet(tmp_path / "sheet.png", sheet)
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    assert pixels.shape[1] > 4 * 460
    assert pixels.shape[0] > 3 * height
    assert (pixels == (0, 200, 0)).all(axis=2).sum() >= 2 * max(height - 2, 0) * max(width - 2, 0)


def test_the_file_of_maps(tmp_path: Path) -> None:
    found = record(sac_detector(), 100, 130, original=(50, 65))
    save_maps(tmp_path / "maps.npz", found)
    with np.load(tmp_path / "maps.npz", allow_pickle=False) as maps:
        assert set(maps) == {f"backbone.{name}" for name in INNER} | {"image_size", "input_size"}
        assert maps["image_size"].tolist() == [50, 65]
        assert maps["input_size"].tolist() == [100, 130]
        np.testing.assert_array_equal(maps["backbone.layer3.1.conv2"], found.maps[3].values)


# --- numbers ----------------------------------------------------------------------------------------


def box(x: float, y: float, width: float, height: float, **more: Any) -> dict[str, Any]:
    return {"bbox": [x, y, width, height], **more}


def test_objects_are_counted_by_coco_areas() -> None:
    switch = a_map(np.full((4, 6), 0.5), input_size=(64, 96))
    objects = [
        box(0, 0, 31, 33),  # 1023
        box(0, 0, 32, 32),  # 1024: medium
        box(0, 0, 50, 50, area=10),  # annotations say theirs
        box(0, 0, 95, 97),  # 9215
        box(0, 0, 96, 96),  # 9216: large
        box(300, 300, 20, 20),  # outside: left out
    ]
    numbers = measure(a_record(switch, size=(128, 192)), objects)
    summary = summarize([numbers, numbers])
    assert summary.objects == Counts(small=4, medium=4, large=2)
    layer = summary.layers[0]
    assert (layer.mean, layer.minimum, layer.maximum) == (0.5, 0.5, 0.5)
    assert (layer.small, layer.medium, layer.large) == pytest.approx((0.5, 0.5, 0.5))


def test_empty_sizes_are_none() -> None:
    layer = summarize([measure(a_record(a_map([[0.5, 1.5]])), [box(0, 0, 10, 10)])]).layers[0]
    assert (layer.medium, layer.large) == (None, None)
    assert (layer.mean, layer.minimum, layer.maximum) == (1.0, 0.5, 1.5)


def test_mean_inside_a_mask_is_that_of_the_upsampled_map() -> None:
    generator = np.random.default_rng(0)
    size = (120, 170)
    switch = a_map(generator.normal(size=(4, 6)))
    blob = np.zeros(size, dtype=np.uint8)
    blob[30:70, 20:90] = generator.integers(0, 2, (40, 70))
    empty = coco_mask.encode(np.zeros(size, dtype=np.uint8, order="F"))
    masks = [
        box(0, 0, 5, 5, segmentation=coco_mask.encode(np.asfortranarray(blob))),
        box(0, 0, 5, 5, segmentation=empty),
    ]
    numbers = measure(a_record(switch, size=size), [*masks, box(100, 50, 30, 40)])
    drawn = switch.upsampled(size)
    assert numbers.inside[0] == pytest.approx([drawn[blob == 1].mean(), drawn[50:90, 100:130].mean()], abs=1e-5)
    assert numbers.areas.tolist() == [blob.sum(), 1200]


def test_overall_is_the_mean_of_the_layers() -> None:
    one, two = a_map([[0.2]], stage=3), a_map([[0.6]], stage=4)
    summary = summarize([measure(a_record(one, two), [box(0, 0, 9, 9)])])
    assert summary.overall.mean == pytest.approx(0.4)
    assert summary.overall.small == pytest.approx(0.4)
    assert (summary.overall.minimum, summary.overall.maximum) == pytest.approx((0.2, 0.6))
