"""``dsctool predict --table``: measures of instances and counts, whole and the same however they came about."""

from __future__ import annotations

import csv
import json
import multiprocessing
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_predict import checkpoint_of, read, run, save_image
from tests.cli.test_predict_resume import contents, lines_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_of(tmp_path_factory.mktemp("model"), "htc_tiny")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(6):
        save_image(folder / f"{number:02}.png", seed=number)
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def threshold(checkpoint: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """A score that leaves some images without instances."""
    out = tmp_path_factory.mktemp("scores") / "out"
    assert run(checkpoint, photos, "--output", out, "--no-overlays").exit_code == 0
    best: dict[int, float] = {}
    for each in read(out / "predictions.json"):
        best[each["image_id"]] = max(best.get(each["image_id"], 0), each["score"])
    return sorted(best.values())[1]


def test_instances_and_counts(checkpoint: Path, photos: Path, threshold: float, tmp_path: Path) -> None:
    out, table = tmp_path / "out", tmp_path / "new" / "cells.csv"
    words = [checkpoint, photos, "--output", out, "--table", table, "--score-threshold", str(threshold)]
    result = run(*words, "--pixel-size", "0.5um")
    assert result.exit_code == 0, result.stderr
    assert f"{table}: measures of every instance; counts.csv beside it" in result.stdout
    shown = [each for each in read(out / "predictions.json") if each["score"] >= threshold]
    rows, counts = rows_of(table), rows_of(table.with_name("counts.csv"))
    assert [(int(row["image_id"]), int(row["category_id"]), float(row["score"])) for row in rows] == [
        (each["image_id"], each["category_id"], each["score"]) for each in shown
    ]
    images = read(out / "images.json")["images"]
    names = {image["id"]: image["file_name"] for image in images}
    assert all(row["image"] == names[int(row["image_id"])] for row in rows)
    assert float(rows[0]["area_um2"]) == pytest.approx(float(rows[0]["area"]) / 4)
    expected = Counter((each["image_id"], each["category_id"]) for each in shown)
    assert [(int(row["image_id"]), int(row["category_id"]), int(row["count"])) for row in counts] == [
        (image["id"], category, expected[image["id"], category]) for image in images for category in (7, 90)
    ]
    assert [row["class"] for row in counts[:2]] == ["cup", "plate"]
    assert len(images) - len({each["image_id"] for each in shown}) == 1, "one image is without instances"


def test_killed(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    """By SIGKILL; a run that goes on gives the same bytes, and there is no half table at any time."""
    words = [checkpoint, photos, "--no-overlays", "--score-threshold", "0"]
    assert run(*words, "--table", tmp_path / "whole/cells.csv", "--output", tmp_path / "whole").exit_code == 0
    out = tmp_path / "out"
    words += ["--output", out, "--table", out / "cells.csv", "--resume"]
    process = multiprocessing.get_context("fork").Process(target=run, args=words)
    process.start()
    while process.is_alive() and lines_of(out / "predictions.work.jsonl") < 3:
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not list(out.glob("*.csv"))
    other = run(*words, "--pixel-size", "2um")
    assert other.exit_code == 1
    assert "other pixel_size" in other.stderr
    assert run(*words).exit_code == 0
    assert contents(out) == contents(tmp_path / "whole")


def test_what_is_there_stays_unless_it_is_to_be_replaced(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "out", tmp_path / "cells.csv"
    words = [checkpoint, photos / "00.png", "--no-overlays", "--output", out, "--table", table]
    assert run(*words).exit_code == 0
    before = contents(tmp_path)
    result = run(*words[:-3], tmp_path / "other", "--table", table)
    assert result.exit_code == 1
    assert "has results of an earlier run (cells.csv and 1 more)" in result.stderr
    assert {name: text for name, text in contents(tmp_path).items() if "other" not in name} == before
    assert run(*words, "--overwrite", "--score-threshold", "1").exit_code == 0
    assert table.read_bytes() != before["cells.csv"]
    table.with_name("counts.csv").write_text("of somebody else\n")
    result = run(*words, "--overwrite")
    assert result.exit_code == 1
    assert "counts.csv: is in the way" in result.stderr
    assert table.with_name("counts.csv").read_text() == "of somebody else\n"


def test_no_table_of_an_earlier_run_stays_beside_new_results(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    words = [checkpoint, photos / "00.png", "--no-overlays", "--output", tmp_path]
    assert run(*words, "--table", tmp_path / "cells.csv").exit_code == 0
    (tmp_path / "mine.csv").write_text("of somebody else\n")
    assert run(*words, "--overwrite").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"images.json", "mine.csv", "predictions.json"}


def test_images_that_could_not_be_read_have_no_rows_until_they_can(checkpoint: Path, tmp_path: Path) -> None:
    save_image(tmp_path / "photos/a.png")
    late = save_image(tmp_path / "late.png", seed=1)
    (tmp_path / "photos/b.png").write_bytes(b"not yet")
    words = [checkpoint, tmp_path / "photos", "--output", tmp_path / "out", "--table", tmp_path / "out/cells.csv"]
    assert run(*words).exit_code == 1
    assert [row["image_id"] for row in rows_of(tmp_path / "out/counts.csv")] == ["1", "1"]
    late.rename(tmp_path / "photos/b.png")
    assert run(*words, "--resume").exit_code == 0
    assert [row["image_id"] for row in rows_of(tmp_path / "out/counts.csv")] == ["1", "1", "2", "2"]


def test_a_model_of_boxes_has_places_and_counts(tmp_path: Path) -> None:
    path = checkpoint_of(tmp_path, "cascade_mask_rcnn_tiny", "model.cascade.mask_head=null")
    image, table = save_image(tmp_path / "a.png"), tmp_path / "cells.csv"
    words = [path, image, "--output", tmp_path / "out", "--table", table, "--score-threshold", "0"]
    assert run(*words).exit_code == 0
    rows = rows_of(table)
    assert rows
    assert all(row["width"] and not row["area"] and row["touches_border"] in ("0", "1") for row in rows)
    assert sum(int(row["count"]) for row in rows_of(tmp_path / "counts.csv")) == len(rows)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pixel-size", "1um"], "is for --table"),
        (["--table", "out/counts.csv"], "counts.csv is the table of counts beside it"),
        (["--table", "out/predictions.json"], "predictions.json: would be written over"),
        (["--table", "cells.csv", "--pixel-size", "0um"], "give the side of a pixel"),
        (["--score-threshold", "1.5"], "give a number from 0 to 1, or auto"),
        (["--score-threshold", "high"], "give a number from 0 to 1, or auto"),
        (["--panoptic", "--color", "class"], "--panoptic has a colour for each category"),
    ],
)
def test_wrong_usage(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(checkpoint, photos, "--output", "out", *words)
    assert result.exit_code in (1, 2)
    assert said in " ".join(result.stderr.split())
    assert not list(tmp_path.rglob("*.json*"))


def test_the_extra_is_asked_for_before_anything_runs(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skimage.measure", None)
    result = run(checkpoint, photos, "--output", tmp_path / "out", "--table", tmp_path / "cells.csv")
    assert result.exit_code == 1
    assert "pip install 'dsctool[measures]'" in result.stderr
    assert not list(tmp_path.iterdir())


# --- overlays ---------------------------------------------------------------------------------------


def test_overlays_without_names_and_with_a_legend(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    from PIL import Image

    pictures: dict[str, Any] = {}
    for name, words in {"plain": [], "bare": ["--no-labels"], "legend": ["--color", "class"]}.items():
        out = tmp_path / name
        given = [checkpoint, photos / "00.png", "--output", out, "--score-threshold", "0", *words]
        assert run(*given).exit_code == 0
        pictures[name] = Image.open(out / "overlays/00.jpg")
    assert pictures["plain"].size == pictures["bare"].size == (90, 60)
    assert pictures["legend"].width == 90
    assert pictures["legend"].height > 60


def test_a_resumed_run_draws_alike(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/bad.png").write_bytes(b"not yet")
    words = [checkpoint, photos / "00.png", tmp_path / "photos", "--output", tmp_path / "out"]
    assert run(*words, "--no-labels").exit_code == 1
    other = run(*words, "--resume")
    assert other.exit_code == 1
    assert "other no_labels" in other.stderr
    assert json.loads((tmp_path / "out/images.json").read_text())["images"]
