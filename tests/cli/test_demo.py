"""``dsctool demo``: its commands, its page, and going on after it was stopped."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from dsctool.cli import demo as demo_module
from dsctool.cli import plan as plan_module
from dsctool.cli.app import app
from dsctool.cli.demo import FULL, QUICK, Budget, plan, plan_scenes
from dsctool.cli.plan import WITH_DEVICE, Record, call
from dsctool.errors import DsctoolError


def run(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["demo", "--output", str(folder), *words, "--device", "cpu"])


def in_this_process(words: tuple[str, ...], device: str) -> None:
    """As :func:`dsctool.cli.plan.call`: a process for each of eight commands takes longer than all they do here."""
    arguments = [*words, "--device", device] if words[0] in WITH_DEVICE else list(words)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A demo of the smallest kind, and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "made"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_module, "QUICK", Budget(scenes=4, val_scenes=3, side=96, epochs=1))
        patch.setattr(demo_module, "SHOWN", 2)
        patch.setattr(plan_module, "call", in_this_process)
        patch.setattr("dsctool.visualize.pages.huddle.files.save_figures", lambda folder, figures: None)
        result = run(folder, "--quick")
        assert result.exit_code == 0, result.output
        again = run(folder, "--quick")
    assert again.exit_code == 0, again.output
    return folder, again.output


def test_everything_is_made_and_stays(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    for name in ("scenes", "dsc/best.pt", "htc/best.pt", "dsc/predictions.json", "huddle/report.html", "found/stages"):
        assert (folder / name).exists(), name
    assert len(list((folder / "found/overlays").iterdir())) == 2
    assert len(list((folder / "switch/sheets").iterdir())) == 2
    assert len(list((folder / "panoptic/overlays").iterdir())) == 2


def test_the_page_stands_alone(finished: tuple[Path, str]) -> None:
    page = (finished[0] / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 9
    assert re.findall(r'(?:src|href)="(?!data:)([^"]*)"', page) == ["huddle/report.html"]
    for command in json.loads((finished[0] / "demo.json").read_text())["seconds"]:
        assert shlex.split(command)[0] == "dsctool"
        assert command.split()[1] in page
    stats = json.loads((finished[0] / "dsc/stats.json").read_text())
    assert f"{100 * stats['segm']['AP50']:.0f} %" in page
    assert len(re.findall(r"2 steps of \d+\.\d\d s", page)) == 2, "as many for both models"


def test_what_has_run_is_not_run_again(finished: tuple[Path, str]) -> None:
    _, output = finished
    assert output.count("done before: ") == 9
    assert "\n$ " not in output


def test_a_command_is_a_process_whose_code_counts(capfd: pytest.CaptureFixture[str]) -> None:
    call(("configs", "show", "htc_tiny"), "cpu")
    assert "stem_channels" in capfd.readouterr().out
    for words, code in ((("configs", "show", "nothing"), 1), (("configs", "show"), 2)):
        with pytest.raises(typer.Exit) as caught:
            call(words, "cpu")
        assert caught.value.exit_code == code


def test_an_interrupted_training_goes_on(tmp_path: Path) -> None:
    step = plan(tmp_path, QUICK, ["a.png"], seed=0)[0]
    (tmp_path / "dsc").mkdir()
    assert "--resume" not in step.continued()
    assert not (tmp_path / "dsc").exists(), "a run that had not begun is begun anew"
    (tmp_path / "dsc").mkdir()
    (tmp_path / "dsc/last.pt").touch()
    assert step.continued()[-1] == "--resume"


def test_an_interrupted_prediction_goes_on(tmp_path: Path) -> None:
    step = next(step for step in plan(tmp_path, QUICK, ["a.png"], seed=0) if step.words[0] == "predict")
    assert step.continued() == step.words
    (tmp_path / "found").mkdir()
    (tmp_path / "found/predictions.work.jsonl").touch()
    assert step.continued()[-1] == "--resume"
    (tmp_path / "found/predictions.work.jsonl").rename(tmp_path / "found/predictions.json")
    assert step.continued()[-1] == "--overwrite"


def test_nothing_else_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes/mine.txt").touch()
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "is not empty and holds no demo" in result.output
    assert (tmp_path / "scenes/mine.txt").exists()


def test_another_demo_needs_another_folder(tmp_path: Path) -> None:
    Record.at(tmp_path / "demo" / "demo.json", {"quick": True, "seed": 0})
    with pytest.raises(DsctoolError, match="other options"):
        Record.at(tmp_path / "demo" / "demo.json", {"quick": True, "seed": 1})


def test_both_models_get_the_same_budget(tmp_path: Path) -> None:
    steps = [step for step in plan(tmp_path, FULL, ["a.png"], seed=3) if step.words[0] == "train"]
    dsc, htc = (
        [word.replace(config, "").replace(name, "") for word in step.words]
        for step, config, name in zip(steps, ("dsc_detectors_tiny", "htc_tiny"), ("/dsc", "/htc"), strict=True)
    )
    assert dsc == htc
    assert "train.seed=3" in dsc
    assert "192x192" in plan_scenes(tmp_path, FULL, 3).words
