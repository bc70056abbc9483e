"""Every problem on one screen, with its place, the value, the rule, and the nearest key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dsctool.config.loading import load_config
from dsctool.errors import ConfigError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def message(text: str | bytes, overrides: Sequence[str] = ()) -> str:
    """What loading a file with this text, ``a.yaml``, complains about."""
    Path("a.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load_config("a.yaml", overrides)
    return str(caught.value)


def override_message(*overrides: str, source: str = "htc_tiny") -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(source, overrides)
    return str(caught.value)


def test_all_problems_at_once_each_with_its_place() -> None:
    text = "base: htc_tiny\nmodel:\n  backbone:\n    dpeth: 18\n    norm: grup\noptim: {lr: fast}\noptim: {lr: 1}\n"
    assert message(text, ["train.epochs=0", "junk", "data.flip=2"]).splitlines() == [
        "a.yaml: 7 problems",
        "  a.yaml:7: optim: written twice (first at a.yaml:6): keep one",
        "  override #2: junk: an override is written key=value, as in optim.lr=0.01",
        "  a.yaml:5: model.backbone.norm = grup: must be batch or group; did you mean group?",
        "  a.yaml:4: model.backbone.dpeth = 18: unknown key; did you mean model.backbone.depth?",
        "  override #3: data.flip = 2: must be at most 1",
        "  a.yaml:6: optim.lr = fast: must be a number",
        "  override #1: train.epochs = 0: must be greater than 0",
    ]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("optim.lrr=1", "optim.lrr = 1: unknown key; did you mean optim.lr?"),
        ("optim.epochs=1", "optim.epochs = 1: unknown key; did you mean train.epochs?"),
        ("lr=1", "lr = 1: unknown key; did you mean optim.lr?"),
        ("modle.neck.channels=1", 'modle = {"neck": {"channels": 1}}: unknown key; did you mean model?'),
        (
            "model.cascade.alignment=none",
            "model.cascade.alignment = none: unknown key; did you mean model.cascade.alignment",
        ),
        ("model.cascade.kind=dcs", "model.cascade.kind = dcs: must be cascade_rcnn, htc or dsc; did you mean dsc?"),
        ("model.cascade=null", "model.cascade = null: must be a block of keys: null can't be used here"),
        ("model.neck=3", "model.neck = 3: must be a block of keys"),
        ("model.neck.channels=null", "model.neck.channels = null: must be a whole number: null can't be used here"),
        ("model.neck.channels=64.5", "model.neck.channels = 64.5: must be a whole number"),
        ("model.backbone.depth=52", "model.backbone.depth = 52: must be 18, 34, 50 or 101"),
        ("model.backbone.weights=5", "model.backbone.weights = 5: must be text"),
        ("model.backbone.frozen_stages=-2", "model.backbone.frozen_stages = -2: must be at least -1"),
        ("data.keep_empty=1", "data.keep_empty = 1: must be true or false"),
        ("train.epochs=true", "train.epochs = true: must be a whole number"),
        ("optim.lr='1e-4'", "optim.lr = 1e-4: must be a number: leave out the quotes"),
        ("optim.lr=.nan", "optim.lr = NaN: must be a finite number"),
        ("optim.milestones=8", "optim.milestones = 8: must be a list"),
        ("optim.milestones=[8, x]", "optim.milestones[1] = x: must be a whole number"),
        ("data.jitter.scale=[1]", "data.jitter.scale = [1]: must be a list of 2 entries"),
        ("data.jitter.scale=[1,2,3]", "data.jitter.scale = [1, 2, 3]: must be a list of 2 entries"),
        ("data.mean=[1]", "data.mean = [1]: data.mean has 1 value, and model.backbone.in_channels is 3: give one for"),
        ("data.mean=[]", "data.mean = []: must be a list of 1 or more entries"),
        ("data.image_range=[5,2]", "data.image_range = [5, 2]: must be full, minmax, percentile, or [low, high]"),
        ("data.image_range=max", "data.image_range = max: must be full, minmax, percentile, or [low, high]"),
        ("data.page=0", "data.page = 0: must be the number of a page, from 1 on, or stack, or null"),
        ("data.channels=[0,1,2]", "data.channels[0] = 0: must be greater than 0"),
        (
            "model.backbone.in_channels=2",
            "model.backbone.in_channels = 2: data.mean has 3 values, data.std has 3 values, and "
            "model.backbone.in_channels is 2: give one for each channel, as in data.mean=[114,114] data.std=[58,58]",
        ),
        ("data.train_resize.short_sides=[]", "data.train_resize.short_sides = []: must be a list of 1 or more entries"),
        ("optim.lr=", "optim.lr: no value after '=': write null to switch off a block"),
        ("optim.lr=[1", "optim.lr: not valid YAML: "),
        ("=1", "=1: an override is written key=value"),
        ("optim..lr=1", "optim..lr=1: an override is written key=value"),
        ("base=htc_tiny", "base = htc_tiny: unknown key"),
    ],
)
def test_override_problems(override: str, problem: str) -> None:
    text = override_message(override)
    assert text.startswith(f"override #1: {problem}")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            ["model.cascade.kind=dsc", "model.cascade.explicit_guidance=false", "model.cascade.plus_one=true"],
            "override #2, override #3: model.cascade (explicit_guidance = false, plus_one = true): plus_one needs "
            "explicit_guidance: there is",
        ),
        (
            ["model.cascade.iou_thresholds=[0.5, 0.6]"],
            "override #1: model.cascade (iou_thresholds = [0.5, 0.6]): one entry per stage in each of",
        ),
        (
            ["model.backbone.groups=32"],
            "override #1, configs/_base_/tiny.yaml:4: model.backbone (depth = 18, groups = 32): groups and",
        ),
    ],
)
def test_rules_between_fields_name_who_wrote_the_fields(overrides: list[str], problem: str) -> None:
    text = override_message(*overrides)
    places, _, rest = problem.partition(": ")
    assert rest in text
    assert set(places.split(", ")) == set(text.partition(": ")[0].split(", "))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "a.yaml:1: the file is empty"),
        ("# nothing\n", "a.yaml:1: the file is empty"),
        ("- 1\n", "a.yaml:1: the file must be made of 'key: value' lines"),
        ("\nhello\n", "a.yaml:2: the file must be made of 'key: value' lines"),
        ("model: {\n", "a.yaml:2: not valid YAML: "),
        ("optim:\n\tlr: 1\n", "a.yaml:2: not valid YAML: "),
        ("a: *b\n", "a.yaml:1: not valid YAML: found undefined alias 'b'"),
        (b"\xff\xfe\x00", "a.yaml: not a text file in UTF-8"),
        ("a: 1\n--- \nb: 2\n", "a.yaml:2: not valid YAML: "),
        ("a: \x01\n", "a.yaml: not valid YAML: "),
        ("base: {a: 1}\n", "a.yaml:1: base: must be one path or a list of paths"),
        ("base: [1]\n", "a.yaml:1: base: must be one path or a list of paths"),
        ("\nbase: b.yaml\n", "a.yaml:2: base = b.yaml: no such file: "),
        ("schema_version: 2\n", "a.yaml:1: schema_version = 2: newer than this dsctool"),
        ("train: {epochs: 1}\n", "a.yaml:1: model: required, and written nowhere"),
        ("model: {cascade: {samples: 1}}\n", "a.yaml:1: model.cascade: needs a 'kind': cascade_rcnn, htc or dsc"),
        ("base: htc_tiny\nmodel:\n  1: x\n", "a.yaml:3: model.1: keys must be words"),
    ],
)
def test_files_that_cannot_be_used(text: str | bytes, problem: str) -> None:
    found = message(text)
    assert found.startswith(problem)
    assert "\n" not in found


def test_a_missing_base_gets_the_nearest_file() -> None:
    Path("common.yaml").write_text("")
    assert message("base: comon.yaml\n").endswith("; did you mean common.yaml?")


def test_a_problem_in_a_base_names_the_base() -> None:
    Path("low.yaml").write_text("base: htc_tiny\noptim:\n  lr: -1\n")
    assert message("base: low.yaml\n") == "low.yaml:3: optim.lr = -1: must be greater than 0"


def test_code_in_yaml_is_refused() -> None:
    assert "a.yaml:2: train: not a plain value" in message(
        "base: htc_tiny\ntrain: !!python/object/apply:os.getcwd []\n"
    )


def test_a_block_inside_itself_is_refused() -> None:
    assert "a.yaml:2: model.neck: an alias inside the block that it stands for" in message(
        "base: htc_tiny\nmodel: &model {neck: *model}\n"
    )
