"""The data set: ids, rules, masks, semantic maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dsctool.config.schema import DataConfig, ResizeConfig, SplitConfig
from dsctool.data.coco import CocoDataset
from dsctool.data.columns import read_columns
from dsctool.data.faults import Exclusions
from dsctool.data.layout import SplitFiles, find_split
from dsctool.data.records import Category, annotation_file
from dsctool.data.rules import Needs
from dsctool.data.samplers import SampleKey
from dsctool.data.segmentations import segmentation_problem
from dsctool.data.semantic import draw_semantic_map
from dsctool.data.transforms import Annotated
from dsctool.errors import DataError
from tests.data.tiny import tiny_content, write_tiny


def _config(semantic: Literal["stuffthingmaps", "instances", "none"] = "none", keep_empty: bool = True) -> DataConfig:
    """Images keep their size."""
    size = ResizeConfig(short_sides=(40,), long_side=60)
    return DataConfig(semantic=semantic, keep_empty=keep_empty, train_resize=size, test_resize=size, flip=0, workers=0)


def _ids(dataset: CocoDataset) -> list[int]:
    return [dataset.image_info(index).id for index in range(len(dataset))]


def test_categories_are_sorted_by_id_and_labels_contiguous(tmp_path: Path) -> None:
    dataset = CocoDataset.for_training(write_tiny(tmp_path), _config())
    assert dataset.categories == [Category(5, "airplane"), Category(90, "toothbrush")]
    assert dataset[0].targets.labels.tolist() == [1, 0]


def test_boxes_masks_and_crowds(tmp_path: Path) -> None:
    dataset = CocoDataset.for_training(write_tiny(tmp_path), _config())
    assert _ids(dataset) == [7, 3]
    first, second = dataset[0].targets, dataset[1].targets
    assert first.boxes.tolist() == [[10, 10, 30, 30], [0, 0, 2, 5]]
    assert first.masks is not None
    assert first.masks.shape == (2, 40, 60)
    assert first.masks.sum(dim=(1, 2)).tolist() == [400, 10]
    assert first.masks[1, :5, :2].all()
    assert second.boxes.shape == (0, 4)
    assert second.crowd is not None
    assert second.crowd.tolist() == [[10, 10, 30, 30]]


def test_info_says_id_original_size_and_file(tmp_path: Path) -> None:
    info = CocoDataset.for_training(write_tiny(tmp_path), _config())[1].info
    assert (info.image_id, info.original_size, info.file_name) == (3, (60, 40), "b.jpg")


@pytest.mark.parametrize(
    ("box", "area"),
    [
        ([10, 10, 20, 20], 0),
        ([10, 10, 0.9, 20], 18),
        ([10, 10, 20, 0.5], 10),
        ([60, 10, 1, 1], 1),
        ([59.9999999, 10, 1, 9], 9),
        ([10, -0.9999999, 9, 1], 9),
    ],
)
def test_published_rules_leave_annotations_out(tmp_path: Path, box: list[float], area: float) -> None:
    content = tiny_content()
    content["annotations"][0].update(bbox=box, area=area)
    dataset = CocoDataset.for_training(write_tiny(tmp_path, content), _config())
    assert [annotation.id for annotation in dataset.annotations(0)] == [12]


@settings(max_examples=100, deadline=None)
@given(
    width=st.integers(32, 200_000),
    exponents=st.lists(st.floats(-9, 0), min_size=1, max_size=20),
    long_side=st.integers(1, 4000),
    flip=st.sampled_from([0, 1]),
)
def test_what_is_used_is_a_box_at_every_scale(width: int, exponents: list[float], long_side: int, flip: int) -> None:
    """Boxes of which a share of the image's width is inside, at its left and at its right border."""
    inside = [width * 10**exponent for exponent in exponents]
    boxes = [box for part in inside for box in ([part - width, 0, width, 1], [width - part, 0, width, 1])]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": width, "height": 1}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, "bbox": box, "area": 1}
            for number, box in enumerate([[0, 0, width, 1], *boxes])
        ],
        "categories": [{"id": 1, "name": "sliver"}],
    }
    reading = read_columns(annotation_file(content, Path("a.json")), Needs(masks=False, pictures=False))
    resize = ResizeConfig(short_sides=(4000,), long_side=long_side)
    config = DataConfig(train_resize=resize, flip=flip, semantic="none")
    files = SplitFiles(reading.path, Path("train"))
    dataset = CocoDataset.for_training(files, config, masks=False, exclude=Exclusions(), reading=reading)
    used = torch.tensor([annotation.box for annotation in dataset.annotations(0)[1:]]).reshape(-1, 4)
    assert len(used) >= sum(exponent > -4.9 for exponent in exponents), "only slivers are left out"
    image = torch.zeros(3, 1, width, dtype=torch.uint8)
    _, targets = dataset.transform(Annotated(image, used, torch.zeros(len(used), dtype=torch.int64)))
    assert (targets.boxes[:, 2:] > targets.boxes[:, :2]).all()


def test_published_configurations_drop_empty_and_small_images(tmp_path: Path) -> None:
    content = tiny_content()
    files = write_tiny(tmp_path, content)
    assert _ids(CocoDataset.for_training(files, _config(keep_empty=True))) == [7, 3]
    assert _ids(CocoDataset.for_training(files, _config(keep_empty=False))) == [7], "3 has only a crowd"
    assert _ids(CocoDataset.for_evaluation(files, _config(keep_empty=False))) == [7, 3]
    content["images"][0]["height"] = 31
    files.annotations.write_text(json.dumps(content))
    with pytest.raises(DataError, match="no image is left"):
        CocoDataset.for_training(files, DataConfig(keep_empty=False, on_error="skip"))


def test_boxes_alone_are_enough_for_detectors_of_boxes(tmp_path: Path) -> None:
    content = tiny_content()
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    files = write_tiny(tmp_path, content)
    targets = CocoDataset.for_training(files, _config("instances"), masks=False)[0].targets
    assert targets.masks is None
    assert targets.semantic is None
    assert len(targets.boxes) == 2


def test_faulty_entries_are_refused_without_a_check_before(tmp_path: Path) -> None:
    content = tiny_content()
    content["annotations"][0]["bbox"] = [1, 2]
    files = write_tiny(tmp_path, content)
    with pytest.raises(DataError, match="annotation 11: bbox must have 4 numbers"):
        CocoDataset.for_training(files, _config())


def test_no_segmentation_is_drawn_unchecked_and_good_ones_are_checked_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    judge = segmentation_problem
    monkeypatch.setattr(
        "dsctool.data.rules.segmentation_problem", lambda *given: (seen.append(given[0]), judge(*given))[1]
    )
    content = tiny_content()
    dataset = CocoDataset.for_training(write_tiny(tmp_path / "good", content), _config("instances"))
    for _ in range(2):
        assert [len(dataset[index].targets.labels) for index in range(2)] == [2, 0]
    assert content["annotations"][0]["segmentation"] not in seen, "only lists of runs are looked at alone"
    assert all(each["segmentation"] in seen for each in content["annotations"][1:])
    content["annotations"][0]["segmentation"] = [[1, 1, 1e11, 1, 9, 9]]
    with pytest.raises(DataError, match="annotation 11: polygon 1 reaches far out"):
        CocoDataset.for_training(write_tiny(tmp_path / "bad", content), _config())


def test_a_broken_image_names_file_and_id(tmp_path: Path) -> None:
    files = write_tiny(tmp_path)
    (files.images / "b.jpg").write_bytes(b"broken")
    dataset = CocoDataset.for_training(files, _config())
    with pytest.raises(DataError, match=r"instances_train\.json: image 3: .*b\.jpg: cannot be decoded"):
        dataset[1]


def test_a_map_is_drawn_from_the_instances(tmp_path: Path) -> None:
    dataset = CocoDataset.for_training(write_tiny(tmp_path), _config("instances"))
    first, second = dataset[0].targets.semantic, dataset[1].targets.semantic
    assert first is not None
    assert second is not None
    assert first[2, 2] == 1, "pixel (16, 16) is in the toothbrush"
    assert first[0, 0] == 0, "pixel (0, 0) is in the airplane"
    assert first[4, 7] == 2, "background is the number of classes"
    assert (second == 255).all(), "a crowd covers the image"


def test_smaller_instances_are_drawn_over_larger_ones() -> None:
    masks = torch.zeros(3, 4, 4, dtype=torch.uint8)
    masks[0, 1:3, 1:3] = 1
    masks[1] = 1
    masks[2, 2, 2] = 1
    areas = masks.flatten(1).sum(dim=1)
    semantic = draw_semantic_map(masks, torch.tensor([0, 1, 2]), torch.zeros(0, 4, 4), areas=areas, background=3)
    assert semantic.tolist() == [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 2, 1], [1, 1, 1, 1]]


def _with_maps(root: Path, values: np.ndarray[Any, Any]) -> SplitFiles:
    files = write_tiny(root)
    maps = root / "maps"
    maps.mkdir()
    Image.fromarray(values).save(maps / "a.png")
    return SplitFiles(files.annotations, files.images, maps)


def test_stuff_and_thing_maps_are_taken_as_they_are(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 184, (40, 60), dtype=np.uint8)
    values[values == 183] = 255
    semantic = CocoDataset.for_training(_with_maps(tmp_path, values), _config("stuffthingmaps"))[0].targets.semantic
    assert semantic is not None
    assert (semantic.numpy() == values[::8, ::8]).all()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((60, 40), np.uint8), "40 x 60"),
        (np.zeros((40, 60, 3), np.uint8), "one 8-bit value"),
        (np.full((40, 60), 183, np.uint8), "the value 183; classes go from 0 to 182"),
    ],
)
def test_unusable_maps_are_an_error(tmp_path: Path, values: np.ndarray[Any, Any], words: str) -> None:
    dataset = CocoDataset.for_training(_with_maps(tmp_path, values), _config("stuffthingmaps"))
    with pytest.raises(DataError, match=f"image 7: .*a.png: .*{words}"):
        dataset[0]


def test_missing_maps_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.semantic=instances"):
        CocoDataset.for_training(write_tiny(tmp_path), _config("stuffthingmaps"))


def test_a_key_fixes_the_augmentation_and_leaves_the_global_generator(tmp_path: Path) -> None:
    config = DataConfig(train_resize=ResizeConfig(short_sides=(20, 90), sample="range"), flip=0.5, semantic="none")
    dataset = CocoDataset.for_training(write_tiny(tmp_path), config)
    state = torch.get_rng_state()
    images = [dataset[SampleKey(0, seed)].image for seed in (1, 1, 2, 3)]
    assert torch.equal(images[0], images[1])
    assert len({image.shape for image in images}) > 1
    assert torch.equal(state, torch.get_rng_state())


def test_real_images_load(real_data: Path) -> None:
    files = find_split(real_data / "coco-mini", SplitConfig(), "val")
    dataset = CocoDataset.for_evaluation(files, DataConfig(test_resize=ResizeConfig(short_sides=(100,))), masks=True)
    assert len(dataset) == 80
    assert [category.id for category in dataset.categories][-1] == 90
    counts = [len(dataset.annotations(index)) for index in range(80)]
    assert sum(counts) == 815
    for index in np.argsort(counts)[-3:].tolist():
        targets = dataset[index].targets
        assert targets.masks is not None
        assert targets.semantic is not None
        assert len(targets.masks) == len(targets.boxes) == len(targets.labels)
        for mask, (x1, y1, x2, y2) in zip(targets.masks, targets.boxes.tolist(), strict=True):
            rows, columns = torch.where(mask)
            if len(rows):
                assert columns.min() >= x1 - 2
                assert columns.max() <= x2 + 2
                assert rows.min() >= y1 - 2
                assert rows.max() <= y2 + 2


def test_real_stuff_maps_load(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "panoptic" / "coco-stuffthing-10img"
    images = []
    for number, path in enumerate(sorted((root / "val2017").glob("*.jpg"))):
        with Image.open(path) as image:
            images.append({"id": number, "file_name": path.name, "width": image.width, "height": image.height})
    file = tmp_path / "instances.json"
    file.write_text(json.dumps({"images": images, "annotations": [], "categories": [{"id": 1, "name": "thing"}]}))
    files = SplitFiles(file, root / "val2017", root / "stuffthingmaps" / "val2017")
    dataset = CocoDataset.for_evaluation(files, DataConfig(semantic="stuffthingmaps"), masks=True)
    values = torch.cat([dataset[index].targets.semantic.flatten() for index in range(len(dataset))])  # type: ignore[union-attr]
    assert len(dataset) == 10
    assert int(values[values != 255].max()) <= 181
