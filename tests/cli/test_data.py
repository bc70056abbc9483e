"""``dsctool data`` as a stranger uses it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from dsctool.cli.app import app
from tests.data.crowded import write_crowded
from tests.data.tiny import tiny_content, write_tiny


def _run(*words: object) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, words)])


def test_a_clean_set_exits_with_0(synthetic_root: Path) -> None:
    run = _run("check", synthetic_root)
    assert (run.exit_code, run.stdout) == (0, ""), run
    assert "no faults" in run.stderr


def test_piped_output_is_the_lines_alone(tmp_path: Path) -> None:
    content = tiny_content()
    content["annotations"][0]["id"] = "a word " * 40
    files = write_tiny(tmp_path / ("long" * 40), content)
    command = [sys.executable, "-m", "dsctool", "data", "check", str(files.images.parent)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 1
    assert run.stdout.startswith(f"{files.annotations}: annotation 'a word ")
    assert run.stdout.count("\n") == 1
    assert "Traceback" not in run.stderr


def test_faults_are_plain_whole_lines(tmp_path: Path) -> None:
    root = tmp_path / ("long " * 30).strip()
    content = tiny_content()
    content["annotations"][0]["bbox"] = [50, 10, 20, 20]
    content["annotations"][1]["category_id"] = 77
    files = write_tiny(root, content)
    data = (files.images / "b.jpg").read_bytes()
    (files.images / "b.jpg").write_bytes(data[: len(data) // 2])
    run = _run("check", root, "--json", tmp_path / "faults.json")
    assert run.exit_code == 1
    lines = run.stdout.splitlines()
    assert len(lines) == 3
    assert [line.removeprefix(f"{files.annotations}: ").split(":")[0] for line in lines] == [
        "annotation 11",
        "annotation 12",
        "image 3",
    ]
    faults = json.loads((tmp_path / "faults.json").read_text())
    assert [(fault["subject"], fault["id"], fault["severity"]) for fault in faults] == [
        ("annotation", 11, "error"),
        ("annotation", 12, "error"),
        ("image", 3, "error"),
    ]


@pytest.mark.parametrize("name", ["nope", "file", "folder"])
def test_no_data_set_is_a_failure_not_wrong_usage(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    run = _run("check", tmp_path / name)
    assert run.exit_code == 1
    assert run.stdout.startswith(f"{tmp_path / name}: ")


def test_no_argument_is_wrong_usage() -> None:
    assert _run("check").exit_code == 2


def test_stats_in_tables_and_json(synthetic_root: Path, tmp_path: Path) -> None:
    run = _run("stats", synthetic_root, "--json", tmp_path / "stats.json")
    assert run.exit_code == 0, run.stderr
    for word in (
        "train",
        "val",
        "instances per image",
        "starfish",
        "a neighbour at box IoU > 0.4",
        "one of its class at box IoU > 0.3",
    ):
        assert word in run.stdout
    content = json.loads((tmp_path / "stats.json").read_text())
    assert [(split["name"], split["images"]) for split in content["splits"]] == [("train", 8), ("val", 4)]


def test_crowded_images_are_named_with_what_to_set(tmp_path: Path) -> None:
    root = write_crowded(tmp_path / "data", train=60, val=110)
    said = (
        f"{root / 'annotations/instances_val.json'}: up to 110 instances in an image, more than the published "
        "postprocess.max_per_image=100. With a published configuration add _base_/crowded.yaml, or set all of these: "
        "postprocess.max_per_image=165 model.rpn.test_pre_nms=1100"
    )
    check, stats = _run("check", root), _run("stats", root)
    assert (check.exit_code, check.stdout) == (0, "")
    assert check.stderr.splitlines() == [said, f"{root}: no faults"]
    assert stats.stdout.splitlines()[-1] == said
    assert stats.stdout.count("crowded.yaml") == 1, "60 instances are no crowd"


def test_stats_of_nothing_fail_in_one_line(tmp_path: Path) -> None:
    run = _run("stats", tmp_path / "nope")
    assert run.exit_code == 1
    assert run.stderr.count("\n") == 1


def test_synth_makes_a_clean_set_once(tmp_path: Path) -> None:
    words = ("synth", "--output", tmp_path / "set", "--train-images", 2, "--val-images", 1, "--seed", 3)
    assert _run(*words).exit_code == 0
    assert _run("check", tmp_path / "set").exit_code == 0
    again = _run(*words)
    assert again.exit_code == 1
    assert "not empty" in again.stderr


@pytest.mark.parametrize("size", ["192", "192x", "axb", "-1x20"])
def test_a_size_that_is_none_is_wrong_usage(tmp_path: Path, size: str) -> None:
    run = _run("synth", "--output", tmp_path / "set", "--size", size)
    assert run.exit_code == 2
    assert "height x width" in run.stderr


def test_synth_has_a_size_a_huddle_and_classes(tmp_path: Path) -> None:
    words = ("--images", 1, "--val-images", 0, "--size", "96x64", "--huddle", 0, "--classes", "fish, eel")
    assert _run("synth", "--output", tmp_path / "set", *words).exit_code == 0
    (split,) = json.loads(_json(tmp_path, "stats", tmp_path / "set"))["splits"]
    assert (split["heights"]["median"], split["widths"]["median"]) == (96, 64)
    assert split["overlapping_same_class"][1:] == [0, 0, 0, 0]
    categories = json.loads((tmp_path / "set/annotations/instances_train.json").read_text())["categories"]
    assert [each["name"] for each in categories] == ["eel", "fish"]
    refused = _run("synth", "--output", tmp_path / "other", "--size", "8x8")
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert _run("synth", "--output", tmp_path / "other", "--huddle", 2).exit_code == 2


def test_synth_makes_a_published_set_or_says_that_it_is_another(tmp_path: Path) -> None:
    words = ("synth", "--preset", "huddles", "--output", tmp_path / "set")
    run = _run(*words, "--train-images", 1, "--val-images", 0)
    assert run.exit_code == 0, run.output
    said = "not huddles-1 as published, but with 1 training images, 0 validation images"
    assert run.stdout == f"{tmp_path / 'set'}: 1 training and 0 validation images: {said}\n"
    info = json.loads((tmp_path / "set/annotations/instances_train.json").read_text())["info"]
    assert (info["version"], info["seed"]) == ("huddles-1 with changes", 1)
    for fixed in (("--size", "64x64"), ("--huddle", 0.5), ("--classes", "fish")):
        refused = _run(*words, *fixed)
        assert refused.exit_code == 2
        assert f"'{fixed[0]}': fixed by --preset huddles; leave out one or the other" in refused.stderr
    assert _run("synth", "--preset", "huddle", "--output", tmp_path / "other").exit_code == 2


def _json(folder: Path, *words: object) -> str:
    assert _run(*words, "--json", folder / "out.json").exit_code == 0
    return (folder / "out.json").read_text()


def test_help_has_examples_and_does_not_import_torch() -> None:
    code = "import sys; import dsctool.cli.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    for command in ("check", "stats", "synth"):
        assert f"dsctool data {command}" in _run(command, "--help").stdout


def test_the_old_name_of_the_number_of_images(tmp_path: Path) -> None:
    words = ("--val-images", 0, "--size", "64x64", "--output", tmp_path / "set")
    run = _run("synth", "--images", 2, *words)
    assert run.exit_code == 0, run.output
    assert len(list((tmp_path / "set/train").iterdir())) == 2
    assert "  --images" not in _run("synth", "--help").stdout


def test_json_on_standard_output_is_alone_there(synthetic_root: Path) -> None:
    run = _run("stats", synthetic_root, "--json", "-")
    assert [split["name"] for split in json.loads(run.stdout)["splits"]] == ["train", "val"]
    assert "instances per image" in run.stderr


def test_preview_draws_what_training_sees(tmp_path: Path, synthetic_root: Path) -> None:
    sizes = "data.train_resize={short_sides: [64], long_side: 96}"
    words = ("preview", "htc_tiny", "--data", synthetic_root, sizes, "data.copy_paste={}", "train.batch_size=4")
    run = _run(*words, "--output", tmp_path / "new" / "p.png")
    assert (run.exit_code, run.stdout) == (0, f"{tmp_path / 'new' / 'p.png'}\n"), run
    with Image.open(tmp_path / "new" / "p.png") as picture:
        assert picture.format == "PNG"
        assert picture.width == 2000
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["p.png"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("htc_tiny", "--output", "p.jpg"), 2, "p.jpg does not end in .png"),
        (("cascade_rcnn_r50_fpn_1x_coco", "data.copy_paste={}", "--output", "p.png"), 1, "needs masks"),
        (("htc_tiny", "data.semantic=stuffthingmaps", "data.train.split=val2", "--output", "p.png"), 1, "val2"),
    ],
)
def test_preview_refuses_what_cannot_be(
    tmp_path: Path, synthetic_root: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = _run("preview", *words, "--data", synthetic_root)
    assert run.exit_code == code
    assert said in run.stderr or said in str(run.exception)
    assert list(tmp_path.iterdir()) == []


# --- what check lets through, and mends -------------------------------------------------------------


def test_warnings_alone_exit_with_0_and_are_counted(tmp_path: Path) -> None:
    content = tiny_content()
    content["annotations"][0]["segmentation"].append([1, 1, 2, 2])
    write_tiny(tmp_path, content)
    run = _run("check", tmp_path)
    assert (run.exit_code, run.stdout.count("\n")) == (0, 1)
    assert run.stderr == f"{tmp_path}: no faults, 1 warning\n"
    content["annotations"][1]["category_id"] = 77
    (tmp_path / "annotations/instances_train.json").write_text(json.dumps(content))
    both = _run("check", tmp_path)
    assert (both.exit_code, both.stderr) == (1, "1 fault and 1 warning\n")


def test_check_and_stats_take_the_splits_that_training_takes(tmp_path: Path) -> None:
    files = write_tiny(tmp_path)
    files.annotations.rename(tmp_path / "labels.json")
    files.images.rename(tmp_path / "photos")
    named = ("data.train.annotations=labels.json", "data.train.images=photos")
    assert _run("check", tmp_path).exit_code == 1
    assert _run("check", tmp_path, *named).exit_code == 0
    stats = _run("stats", tmp_path, *named)
    assert stats.exit_code == 0, stats.stderr
    assert "photos" in stats.stdout
    missing = _run("check", tmp_path, "data.train.annotations=nope.json")
    assert (missing.exit_code, "nope.json: no such file" in missing.stdout) == (1, True)


@pytest.mark.parametrize(
    ("word", "code", "said"),
    [("optim.lr=1", 2, "only data.KEY=VALUE"), ("data.nope=1", 1, "data.nope"), ("nope", 2, "only data.KEY=VALUE")],
)
def test_other_overrides_are_refused(tmp_path: Path, word: str, code: int, said: str) -> None:
    write_tiny(tmp_path)
    for command in ("check", "stats"):
        run = _run(command, tmp_path, word)
        assert run.exit_code == code
        assert said in run.stderr


def test_what_is_skipped_may_not_be_all(tmp_path: Path) -> None:
    content = tiny_content()
    content["annotations"][0]["category_id"] = 77
    files = write_tiny(tmp_path, content)
    assert _run("check", tmp_path).exit_code == 1
    skips = _run("check", tmp_path, "data.on_error=skip")
    assert (skips.exit_code, skips.stderr) == (0, "1 fault: left out by data.on_error=skip\n")
    (files.images / "a.png").unlink()
    all_gone = _run("check", tmp_path, "data.on_error=skip")
    assert all_gone.exit_code == 1
    assert "has nothing to train on" in all_gone.stdout


def test_fix_writes_a_copy_that_is_in_order_and_says_what_it_did(tmp_path: Path) -> None:
    content = tiny_content()
    del content["annotations"][0]["iscrowd"]
    content["annotations"][1]["area"] = 2400
    files = write_tiny(tmp_path / "data", content)
    before = files.annotations.read_bytes()
    output = tmp_path / "new" / "mended.json"
    run = _run("check", tmp_path / "data", "--fix", output)
    assert run.exit_code == 0, run.output
    assert run.stdout.splitlines() == [
        f"{files.annotations}: annotation 11: iscrowd is 0 now",
        f"{files.annotations}: annotation 12: area is that of the mask now, 10, not 2400",
    ]
    words = run.stderr.partition("to use it: ")[2].splitlines()[0].split()
    assert _run("check", tmp_path / "data", *words).stderr == f"{tmp_path / 'data'}: no faults\n"
    assert files.annotations.read_bytes() == before
    mended = json.loads(output.read_text())
    assert mended["annotations"] == tiny_content()["annotations"]
    assert [path.name for path in output.parent.iterdir()] == ["mended.json"]


def test_fix_overwrites_nothing_unasked_and_never_what_it_reads(tmp_path: Path) -> None:
    files = write_tiny(tmp_path / "data")
    output = tmp_path / "mended.json"
    output.write_text("mine")
    refused = _run("check", tmp_path / "data", "--fix", output)
    assert (refused.exit_code, output.read_text()) == (1, "mine")
    assert "--overwrite" in refused.stderr
    assert _run("check", tmp_path / "data", "--fix", output, "--overwrite").exit_code == 0
    assert json.loads(output.read_text()) == tiny_content()
    before = files.annotations.read_bytes()
    for target in (files.annotations, files.annotations.parent):
        assert _run("check", tmp_path / "data", "--fix", target, "--overwrite").exit_code == 1
    assert files.annotations.read_bytes() == before


def test_fix_of_several_splits_names_each(tmp_path: Path) -> None:
    write_tiny(tmp_path / "data")
    for name in ("annotations/instances_train.json", "train"):
        (tmp_path / "data" / name.replace("train", "val")).symlink_to(tmp_path / "data" / name)
    assert _run("check", tmp_path / "data", "--fix", tmp_path / "a.json").exit_code == 0
    assert _run("check", tmp_path / "data", "--fix", tmp_path / "folder").exit_code == 0
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json") if "data" not in path.parts) == [
        "a_train.json",
        "a_val.json",
        "folder/instances_train.json",
        "folder/instances_val.json",
    ]


def test_fix_of_a_file_that_is_none_writes_nothing(tmp_path: Path) -> None:
    files = write_tiny(tmp_path / "data")
    files.annotations.write_text('{"images": [')
    run = _run("check", tmp_path / "data", "--fix", tmp_path / "out.json")
    assert run.exit_code == 1
    assert "not valid JSON" in run.stderr
    assert not (tmp_path / "out.json").exists()


def test_stats_show_classes_by_name_and_what_training_leaves_out(tmp_path: Path) -> None:
    content = tiny_content()
    content["annotations"][0]["area"] = 0
    write_tiny(tmp_path, content)
    val = tiny_content()
    names = {5: 0, 90: 7}
    val["categories"] = [{"id": 0, "name": "airplane"}, {"id": 7, "name": "toothbrush"}]
    for entry in val["annotations"]:
        entry["category_id"] = names[entry["category_id"]]
    (tmp_path / "annotations/instances_val.json").write_text(json.dumps(val))
    run = _run("stats", tmp_path)
    rows = [re.split(r"\s{2,}", line.strip()) for line in run.stdout.splitlines()]
    assert ["instances that training leaves out", "1 (50.0 %)", "0 (0.0 %)"] in rows
    assert rows[-2:] == [["5 / 0", "airplane", "1", "1", "1", "1"], ["90 / 7", "toothbrush", "1", "1", "1", "1"]]
