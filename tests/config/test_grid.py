"""Grids of ablations: the shipped ones are valid, and everything wrong in a file is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsctool.config.grid import Grid, grid_names, load_grid
from dsctool.config.loading import load_config
from dsctool.config.names import shipped_paths
from dsctool.errors import ConfigError


def written(folder: Path, text: str) -> str:
    path = folder / "grid.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", list(grid_names()))
def test_shipped_grids_are_valid(name: str) -> None:
    grid = load_grid(name)
    assert grid.description
    assert len({row.title for row in grid.rows}) == len(grid.rows) > 2
    assert (grid.rates is not None) == name.endswith("_tiny")
    for row in grid.rows:
        assert row.config.train.eval_interval == 0, "weights that are chosen on the images they are measured on"


def test_rows_of_one_name_are_one_run_in_all_shipped_grids() -> None:
    known: dict[tuple[str, str], object] = {}
    for name in grid_names():
        for row in load_grid(name).trained:
            scale = name.rpartition("_")[2]
            assert known.setdefault((scale, row.name), row.config) == row.config, (name, row.name)


def test_every_scale_has_the_same_rows() -> None:
    for name in grid_names():
        stem, _, scale = name.rpartition("_")
        if scale == "tiny":
            rows, others = (load_grid(f"{stem}_{each}").rows for each in ("tiny", "coco"))
            assert [row.name for row in rows] == [row.name for row in others]


def test_grids_are_no_configurations() -> None:
    assert not set(grid_names()) & set(shipped_paths())
    with pytest.raises(ConfigError, match="unknown configuration"):
        load_config("guidance_tiny")


def test_rows(tmp_path: Path) -> None:
    (tmp_path / "_budget.yaml").write_text("overrides: [train.epochs=2]\nrates: {factors: [1, 3]}\n")
    grid = load_grid(
        written(
            tmp_path,
            "extends: _budget.yaml\nbase: htc_tiny\nrows:\n  one: {overrides: [optim.lr=0.1]}\n"
            "  two: {title: Two, base: dsc_tiny}\n  soft: {of: two, overrides: [postprocess.nms=soft]}\n",
        ),
        ["train.batch_size=1"],
    )
    one, two, soft = grid.rows
    assert (one.title, two.title, grid.reference) == ("one", "Two", "one")
    assert one.overrides == ("train.epochs=2", "optim.lr=0.1", "train.batch_size=1")
    assert one.changes == ("optim.lr=0.1",)
    assert (one.config.optim.lr, one.config.train.epochs, one.config.train.batch_size) == (0.1, 2, 1)
    assert two.config.model.cascade.kind == "dsc"
    assert (soft.of, soft.seen, soft.config) == ("two", ("postprocess.nms=soft",), two.config)
    assert grid.trained == [one, two]
    assert grid.rates is not None
    assert grid.rates.factors == (1.0, 3.0)


def rows_of(grid: Grid) -> list[str]:
    return [row.name for row in grid.rows]


def test_some_rows() -> None:
    grid = load_grid("nms_tiny")
    assert rows_of(grid.only(["dsc_soft"])) == ["htc", "dsc", "dsc_soft"]
    assert rows_of(grid.only([])) == rows_of(grid)
    with pytest.raises(ConfigError, match=r"no row nothing; there are htc, htc_soft"):
        grid.only(["nothing"])


def test_another_reference() -> None:
    grid = load_grid("nms_tiny")
    other = grid.against("dsc")
    assert (grid.reference, other.reference) == ("htc", "dsc")
    assert other.rows == grid.rows
    assert rows_of(other.only(["dsc_soft"])) == ["dsc", "dsc_soft"]
    with pytest.raises(ConfigError, match=r"no row nothing; there are htc, htc_soft"):
        grid.against("nothing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: htc_tiny\n", r"grid\.yaml:1: rows: field required"),
        ("base: htc_tiny\nrows: {}\n", r"grid\.yaml:2: rows: .*at least 1"),
        ("base: htc_tiny\nrows:\n  one: {titel: a}\n", r"grid\.yaml:3: rows\.one\.titel: extra"),
        (
            "base: htc_tiny\nrows:\n  one: {}\n  two: {overrides: [optim.lr=x]}\n",
            r"grid\.yaml:4: rows\.two: .*optim\.lr",
        ),
        ("base: nowhere\nrows:\n  one: {}\n", r"grid\.yaml:3: rows\.one: unknown configuration 'nowhere'"),
        ("base: htc_tiny\nrows:\n  One: {}\n", "row One: names are lower-case"),
        ("base: htc_tiny\nrows:\n  ../up: {}\n", r"row \.\./up: names are lower-case"),
        ("base: htc_tiny\nreference: two\nrows:\n  one: {}\n", "reference = two is not one of the rows: one"),
        ("base: htc_tiny\nrows:\n  one: {of: two}\n", "row one: of = two must be another row, which is trained"),
        ("base: htc_tiny\nrows:\n  a: {}\n  b: {of: a, base: dsc_tiny}\n", "can have no base of its own"),
        (
            "base: htc_tiny\nrows:\n  a: {}\n  b: {of: a, overrides: [postprocess.nms=no]}\n",
            r"rows\.b: .*postprocess\.nms",
        ),
        ("extends: gone.yaml\nbase: htc_tiny\nrows: {a: {}}\n", r"grid\.yaml:1: extends = gone\.yaml: no such file"),
        ("base: htc_tiny\nrates: {factors: [1]}\nrows: {a: {}}\n", r"rates\.factors: .*at least 2"),
        ("base: htc_tiny\nrates: {overrides: [train.epoch=1]}\nrows: {a: {}}\n", r"train\.epoch"),
    ],
)
def test_faults(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_grid(written(tmp_path, text))


def test_unknown_grid() -> None:
    with pytest.raises(ConfigError, match=r"guidanze: no such file, and none of the shipped grids: .*guidance_tiny"):
        load_grid("guidanze")
