"""``dsctool predict --panoptic``: files in COCO's format, where stuff comes from, and going on after a stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

from dsctool.cli.app import app
from dsctool.config.loading import load_config
from dsctool.data.panoptic import read_panoptic
from dsctool.data.stuff import COCO_STUFF
from dsctool.data.synthetic.scenes import CLASSES, STUFF
from dsctool.engine import panoptic as engine
from dsctool.engine.views import semantic_probabilities
from dsctool.interop.checkpoint import Checkpoint, load_model, save_checkpoint
from dsctool.interop.coco_categories import COCO_CATEGORIES
from dsctool.models.build import build_detector
from dsctool.models.panoptic import FusionSettings, Things, fuse, labelled_stuff
from tests.cli.test_predict import checkpoint_of, read, run, save_image
from tests.models.tiny import NARROW

LABELS = "0: cup\n1: plate\n2: table\n3: wall\n"
CHANNELS = ("data.semantic=stuffthingmaps", "model.cascade.semantic.num_classes=4")
ALL = ("panoptic.min_score=0", "panoptic.stuff_area=1")
"""The scores of random weights are low, and the images small."""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_of(tmp_path_factory.mktemp("model"), "htc_tiny", *CHANNELS)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "labels.txt"
    path.write_text(LABELS)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        save_image(folder / name, seed=seed)
    return folder


@pytest.fixture(scope="module")
def whole(checkpoint: Path, photos: Path, labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped. Not to be written to."""
    out = tmp_path_factory.mktemp("whole") / "out"
    result = run(checkpoint, photos, *ALL, "--panoptic", "--stuff-labels", labels, "--output", out)
    assert result.exit_code == 0, result.stderr
    return out


def check(out: Path) -> dict[Any, np.ndarray]:
    """Ids of every image of a run, found to be as the format wants them."""
    found = read_panoptic(out / "panoptic.json")
    maps = {}
    for image_id, entry in found.entries.items():
        ids = maps[image_id] = found.ids(entry)
        assert [segment.id for segment in entry.segments] == list(range(1, len(entry.segments) + 1))
        assert set(np.unique(ids).tolist()) <= {0, *(segment.id for segment in entry.segments)}
        for segment in entry.segments:
            assert segment.area == np.count_nonzero(ids == segment.id) > 0
    return maps


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_files(whole: Path, checkpoint: Path, photos: Path) -> None:
    """What they hold is what results and semantic branch say, fused."""
    assert {path.name for path in whole.iterdir()} == {
        "images.json", "overlays", "panoptic", "panoptic.json", "predictions.json"
    }  # fmt: skip
    maps = check(whole)
    assert sorted(maps) == [1, 2, 3]
    content = read(whole / "panoptic.json")
    assert content["images"] == read(whole / "images.json")["images"]
    assert [entry["file_name"] for entry in content["annotations"]] == ["a.png", "b.png", "c.png"]
    known = [(entry["id"], entry["name"], entry["isthing"]) for entry in content["categories"]]
    assert known == [(7, "cup", 1), (90, "plate", 1), (3, "table", 0), (4, "wall", 0)]
    model = load_model(checkpoint)
    with Image.open(photos / "b.png") as image:
        picture = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    probs = semantic_probabilities(model, picture)
    groups = torch.stack([probs[2], probs[3], probs[0] + probs[1]])
    results = [each for each in read(whole / "predictions.json") if each["image_id"] == 2]
    things = Things(
        [each["score"] for each in results],
        [each["category_id"] for each in results],
        np.zeros((len(results), 4), np.float32),
        lambda i: coco_mask.decode(results[i]["segmentation"]).astype(bool),
    )
    expected = fuse(
        (60, 90),
        things,
        labelled_stuff(groups.argmax(dim=0).numpy(), [3, 4]),
        FusionSettings(min_score=0, stuff_area=1),
    )
    np.testing.assert_array_equal(maps[2], expected.ids)
    segments = content["annotations"][1]["segments_info"]
    assert [each["category_id"] for each in segments] == [segment.category for segment in expected.segments]
    assert {segment.category for segment in expected.segments} & {7, 90}
    assert {segment.category for segment in expected.segments} & {3, 4}


def test_eval_reads_them(whole: Path, tmp_path: Path) -> None:
    """Results against themselves are perfect."""
    files = ["--ground-truth", str(whole / "panoptic.json"), "--predictions", str(whole / "panoptic.json")]
    result = CliRunner().invoke(app, ["eval", "--panoptic", *files, "--json", str(tmp_path / "pq.json")])
    assert result.exit_code == 0, result.output
    assert "1.000" in result.output or "100.0" in result.output


def test_overlays_show_segments(whole: Path, photos: Path) -> None:
    with Image.open(whole / "overlays" / "b.jpg") as drawn, Image.open(photos / "b.png") as image:
        assert drawn.size == image.size
        assert np.abs(np.asarray(drawn).astype(int) - np.asarray(image)).mean() > 20


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("htc_tiny", ["--tta", "data.tta.short_sides=[48,64]", "panoptic.rule=mmdet"]),
        ("dsc_tiny", ["panoptic.pixel=probability", "panoptic.overlap=1", "--stages"]),
        ("detectors_tiny", ["panoptic.rule=detectron2", "--no-overlays", "--keep-candidates"]),
        ("fast_dsc_tiny", ["--precision", "bfloat16", "postprocess.nms=mask"]),
    ],
)
def test_models_and_options(name: str, words: list[str], photos: Path, labels: Path, tmp_path: Path) -> None:
    path = checkpoint_of(tmp_path, name, *CHANNELS)
    out = tmp_path / "out"
    words = [*ALL, *words, "--panoptic", "--stuff-labels", str(labels), "--output", str(out)]
    result = run(path, photos / "a.png", *words)
    assert result.exit_code == 0, result.stderr
    (ids,) = check(out).values()
    assert ids.any()


def test_coco(tmp_path: Path, photos: Path) -> None:
    """A model of COCO's classes needs no names."""
    sides = ["data.test_resize.short_sides=[64]", "model.rpn.test_max_proposals=40", "postprocess.max_per_image=5"]
    config = load_config("htc_tiny", [*NARROW, *sides, "data.semantic=stuffthingmaps", "panoptic.stuff_area=1"])
    torch.manual_seed(0)
    model = build_detector(config, num_classes=80)
    path = tmp_path / "best.pt"
    save_checkpoint(path, Checkpoint(config=config, categories=COCO_CATEGORIES, model=model.state_dict()))
    result = run(path, photos / "a.png", "--panoptic", "--output", tmp_path / "out", "--no-overlays")
    assert result.exit_code == 0, result.stderr
    check(tmp_path / "out")
    found = read_panoptic(tmp_path / "out" / "panoptic.json")
    assert len(found.categories) == 133
    assert [category.id for category in found.categories if not category.is_thing] == [e.id for e in COCO_STUFF.stuff]


def test_a_model_trained_on_generated_scenes_knows_their_stuff(synthetic_root: Path, tmp_path: Path) -> None:
    few = ["model.rpn.train_max_proposals=40", "model.rpn.test_max_proposals=40", "postprocess.max_per_image=5"]
    sides = ["data.train_resize.short_sides=[64]", "data.test_resize.short_sides=[64]"]
    run_once = ["train.steps=1", "train.eval_interval=0", "data.workers=0", "data.semantic=stuffthingmaps"]
    words = ["htc_tiny", *NARROW, *few, *sides, *run_once, "--data", synthetic_root, "--output", tmp_path / "run"]
    trained = CliRunner().invoke(app, ["train", *map(str, words), "--device", "cpu"])
    assert trained.exit_code == 0, trained.output
    photo = synthetic_root / "val" / "000001.jpg"
    out = tmp_path / "out"
    result = run(tmp_path / "run" / "last.pt", photo, *ALL, "--panoptic", "--output", out)
    assert result.exit_code == 0, result.stderr
    check(out)
    categories = read_panoptic(out / "panoptic.json").categories
    assert [each.name for each in categories] == [*CLASSES, *STUFF]
    assert [each.is_thing for each in categories] == [True] * len(CLASSES) + [False] * len(STUFF)


def semantic_file(path: Path, *entries: tuple[int, int], size: tuple[int, int] = (60, 90)) -> Path:
    """The left half of every image that is named, of the category beside its id."""
    mask = np.zeros(size, dtype=np.uint8, order="F")
    mask[:, : size[1] // 2] = 1
    rle = coco_mask.encode(mask)
    rle = {"size": list(size), "counts": rle["counts"].decode()}
    content = [{"image_id": image, "category_id": category, "segmentation": rle} for image, category in entries]
    path.write_text(json.dumps(content))
    return path


def test_stuff_from_a_file(photos: Path, labels: Path, tmp_path: Path) -> None:
    """Any detector of masks will do; images without stuff are void where they have no thing."""
    path = checkpoint_of(tmp_path, "cascade_mask_rcnn_tiny")
    stuff = semantic_file(tmp_path / "stuff.json", (2, 4), (2, 7))
    words = ["panoptic.stuff_area=1", "panoptic.min_score=1", "--semantic", stuff, "--stuff-labels", labels]
    result = run(path, photos, *words, "--panoptic", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert "stuff.json: 2 of 3 images have no stuff in it" in result.stderr
    maps = check(tmp_path / "out")
    assert (maps[2][:, :45] == 1).all()
    assert not maps[2][:, 45:].any()
    assert not maps[1].any()
    annotations = read(tmp_path / "out" / "panoptic.json")["annotations"]
    assert [[each["category_id"] for each in entry["segments_info"]] for entry in annotations] == [[], [4], []]


def test_a_file_that_does_not_fit(photos: Path, checkpoint: Path, labels: Path, tmp_path: Path) -> None:
    words = ["--stuff-labels", labels, "--panoptic", "--output", tmp_path / "out"]
    for stuff, said in (
        (semantic_file(tmp_path / "a.json", (9, 4)), "a.json: has stuff of none of these images"),
        (semantic_file(tmp_path / "b.json", (2, 5)), "b.json: result 0 (image 2): category id 5 is no panoptic"),
        (
            semantic_file(tmp_path / "c.json", (2, 4), size=(90, 60)),
            "c.json: result 0 (image 2): RLE has size [90, 60]",
        ),
    ):
        result = run(checkpoint, photos, *words, "--semantic", stuff, "--overwrite")
        assert result.exit_code == 1
        assert said in result.stderr
    table = {"images": [{"id": 2, "file_name": "a.png", "height": 60, "width": 90}]}
    (tmp_path / "table.json").write_text(json.dumps(table))
    words = [*words[:-1], tmp_path / "other", "--images-json", tmp_path / "table.json"]
    result = run(checkpoint, photos / "a.png", *words, "--semantic", stuff)
    assert said in result.stderr
    assert not (tmp_path / "other").exists(), "with sizes in a table it is found before anything runs"


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("htc_tiny", [], "learnt from the instances alone (data.semantic=instances). Give stuff by --semantic FILE"),
        ("cascade_mask_rcnn_tiny", [], "it has no semantic branch. Give stuff by --semantic FILE"),
        ("cascade_mask_rcnn_tiny", ["model.cascade.mask_head=null"], "needs masks, but this model has boxes only"),
        ("htc_tiny", list(CHANNELS), "its stuff has no names: give them by --stuff-labels FILE"),
    ],
)
def test_models_that_cannot(name: str, overrides: list[str], said: str, photos: Path, tmp_path: Path) -> None:
    path = checkpoint_of(tmp_path, name, *overrides)
    result = run(path, photos, "--panoptic", "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_names_of_channels_that_are_not_there(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(LABELS + "4: floor\n")
    result = run(checkpoint, photos, "--panoptic", "--stuff-labels", path, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "labels.txt: names channel 4 (from 0 on), the semantic branch has 4" in result.stderr


@pytest.mark.parametrize("option", ["--semantic", "--stuff-labels"])
def test_options_of_panoptic_alone(option: str, checkpoint: Path, photos: Path, labels: Path, tmp_path: Path) -> None:
    result = run(checkpoint, photos, option, labels, "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "is for --panoptic" in result.stderr


def test_resuming(
    checkpoint: Path, photos: Path, labels: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, names = tmp_path / "out", tmp_path / "names.txt"
    names.write_text(LABELS)
    words = [checkpoint, photos, *ALL, "--panoptic", "--stuff-labels", names, "--output", out]
    plain = engine.save_fused

    def stopping(*args: Any) -> Any:
        if args[1] == 3:
            raise KeyboardInterrupt
        return plain(*args)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "save_fused", stopping)
        assert run(*words).exit_code == 130
    assert not (out / "panoptic.json").exists()
    assert sorted(path.name for path in (out / "panoptic").iterdir()) == ["a.png", "b.png"]
    (out / "panoptic" / ".c.png.1.tmp").write_bytes(b"half")
    other = run(checkpoint, photos, *ALL, "--output", out, "--resume")
    assert "other panoptic, stuff_labels" in other.stderr
    names.write_text(LABELS.replace("wall", "door"))
    assert "other stuff_labels" in run(*words, "--resume").stderr
    names.write_text(LABELS)
    result = run(*words, "--resume")
    assert result.exit_code == 0, result.stderr
    assert contents(out) == contents(whole)
    again = run(checkpoint, photos / "a.png", "--output", out, "--overwrite")
    assert again.exit_code == 0, again.stderr
    assert set(contents(out)) == {"images.json", "overlays/a.jpg", "predictions.json"}
