"""``dsctool convert``, and published files where a checkpoint is asked for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from dsctool.cli.app import app
from dsctool.config.limits import fit_limits
from dsctool.config.loading import load_config
from dsctool.config.published import PUBLISHED, Published
from dsctool.data.records import Category
from dsctool.interop.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from dsctool.interop.conversion import as_published
from dsctool.models.build import build_detector

CATEGORIES = [Category(number, name) for number, name in enumerate(("plum", "date", "fig"), start=1)]


def run(*words: str | Path) -> str:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.output
    return result.output


def fails(*words: str | Path) -> str:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 1, result.output
    return result.output


@pytest.fixture(params=["htc_tiny", "detectors_tiny"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkpoint of this project, of a shipped configuration."""
    torch.manual_seed(0)
    config = fit_limits(load_config(request.param, ["model.num_classes=3"]))
    save_checkpoint(tmp_path / "own.pt", Checkpoint(config, CATEGORIES, build_detector(config).state_dict()))
    return tmp_path / "own.pt"


def test_there_and_back(own: Path) -> None:
    published, again = own.with_name("published.pth"), own.with_name("again.pt")
    assert "tensors by the names of mmdet" in run("convert", own, "--to", "mmdet", "--output", published)
    said = run("convert", published, "--output", again)
    assert "layout: mmdet 2.x or 3.x" in said
    assert "categories: 3 of the file" in said
    before, after = load_checkpoint(own), load_checkpoint(again)
    assert all(torch.equal(value, after.model[name]) for name, value in before.model.items())
    assert before.categories == after.categories
    assert before.config.model == after.config.model
    assert re.search(r"configuration: (htc|detectors)_tiny, by the shapes", said)
    assert "is a dsctool checkpoint already" in fails("convert", again, "--output", own.with_name("x.pt"))


def test_a_published_file_predicts_as_its_checkpoint(own: Path, synthetic_root: Path) -> None:
    published = own.with_name("published.pth")
    run("convert", own, "--to", "mmdet", "--output", published)
    image = next((synthetic_root / "val").iterdir())
    found = []
    for source in (own, published):
        output = own.with_name(f"found-{source.stem}")
        run("predict", source, image, "data.test_resize.short_sides=[96]", "--output", output, "--device", "cpu")
        found.append(json.loads((output / "predictions.json").read_text()))
    assert found[0] == found[1]
    assert found[0]


@pytest.mark.parametrize("published", [Published(90.0, None, "x.pth"), Published(9.5, 90.0, "x.pth"), None])
def test_measured_beside_published(
    tmp_path: Path, synthetic_root: Path, monkeypatch: pytest.MonkeyPatch, published: Published | None
) -> None:
    name, own, file = "htc_tiny", tmp_path / "own.pt", tmp_path / "published.pth"
    content = json.loads((synthetic_root / "annotations/instances_val.json").read_text())
    categories = [Category(entry["id"], entry["name"]) for entry in content["categories"]]
    config = fit_limits(load_config(name, [f"model.num_classes={len(categories)}"]))
    save_checkpoint(own, Checkpoint(config, categories, build_detector(config).state_dict()))
    run("convert", own, "--to", "mmdet", "--output", file)
    if published is not None:
        monkeypatch.setitem(PUBLISHED, name, published)
    words = ["eval", name, "--weights", file, "--data", synthetic_root, "--device", "cpu", "--json", own.with_name("n")]
    said = run(*words, "data.test_resize.short_sides=[64]")
    if published is None:
        assert f"nothing is published about {name}" in said
        return
    stats = json.loads(own.with_name("n").read_text())
    rows = [line.split() for line in said.split("published by")[0].splitlines() if line.startswith(("box", "mask"))]
    shown = [("box", published.box, "bbox"), ("mask", published.mask, "segm")]
    assert rows == [
        [kind, f"{value:.1f}", f"{100 * stats[key]['AP']:.1f}", f"{100 * stats[key]['AP'] - value:+.1f}"]
        for kind, value, key in shown
        if value is not None
    ]


def test_what_is_not_said_is_asked_for(tmp_path: Path) -> None:
    config = fit_limits(load_config("fast_dsc_tiny", ["model.num_classes=3"]))
    save_checkpoint(tmp_path / "own.pt", Checkpoint(config, CATEGORIES, build_detector(config).state_dict()))
    run("convert", tmp_path / "own.pt", "--to", "mmdet", "--output", tmp_path / "f.pth")
    said = " ".join(fails("convert", tmp_path / "f.pth", "--output", tmp_path / "x.pt").split())
    assert "fit 2 different models" in said
    assert "--config NAME" in said
    assert not (tmp_path / "x.pt").exists()
    run("convert", tmp_path / "f.pth", "--config", "fast_dsc_tiny", "--output", tmp_path / "x.pt")
    assert load_checkpoint(tmp_path / "x.pt").config.model == config.model


def test_the_source_is_never_written_over(own: Path) -> None:
    before = own.read_bytes()
    result = CliRunner().invoke(app, ["convert", str(own), "--to", "mmdet", "--output", str(own)])
    assert result.exit_code != 0
    assert own.read_bytes() == before


@pytest.mark.usefixtures("undrawn")
def test_a_published_file_of_the_old_kind_is_no_results_file(tmp_path: Path, synthetic_root: Path) -> None:
    """Which is no zip file."""
    content = json.loads((synthetic_root / "annotations/instances_val.json").read_text())
    config = fit_limits(load_config("htc_tiny", [f"model.num_classes={len(content['categories'])}"]))
    categories = [Category(entry["id"], entry["name"]) for entry in content["categories"]]
    published = as_published(categories, build_detector(config).state_dict())
    torch.save(published, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    words = ["--predictions", tmp_path / "old.pth", "--data", synthetic_root, "--output", tmp_path / "report"]
    run("huddle-report", *words, "data.test_resize.short_sides=[64]", "--device", "cpu")
    assert (tmp_path / "report/report.html").exists()


def test_what_is_for_models_is_refused_with_files(tmp_path: Path) -> None:
    files = ["--ground-truth", "gt.json", "--predictions", "dt.json"]
    for words in (["--tta"], ["--weights", "x.pth"], ["--precision", "float16"]):
        result = CliRunner().invoke(app, ["eval", *files, *words])
        assert result.exit_code == 2
        assert "for running a model" in " ".join(result.output.split())
