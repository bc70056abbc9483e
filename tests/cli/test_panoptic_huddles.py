"""``dsctool huddle-report --panoptic`` on a generated set: what it prints and writes, what it refuses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from dsctool.cli.app import app
from dsctool.data.panoptic import PanopticWriter, read_panoptic
from dsctool.evaluation.huddle.panoptic.study import FusedInstances, study_panoptic_huddles
from dsctool.evaluation.huddle.study import HuddleSettings
from dsctool.models.panoptic import FusionSettings
from tests.evaluation.huddle.panoptic.slow_panoptic import Pairs, as_result, binned, cell, losses, quality, things_of
from tests.evaluation.panoptic_scenes import Scene, defined_counts, perturbed


@dataclass(frozen=True)
class Made:
    """A generated ground truth, two results that err, and instances that overlap. things: category ids."""

    truth: Path
    first: Path
    second: Path
    instances: Path
    things: tuple[int, ...]
    pairs: Pairs
    results: list[list[dict[str, Any]]]


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["huddle-report", "--panoptic", *(str(word) for word in words)])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Not to be written to."""
    root = tmp_path_factory.mktemp("huddles")
    words = ["--train-images", "1", "--val-images", "6", "--size", "96x96", "--huddle", "0.9", "--seed", "3"]
    assert CliRunner().invoke(app, ["data", "synth", "--output", str(root / "set"), *words]).exit_code == 0
    truth = read_panoptic(root / "set/annotations/panoptic_val.json")
    known = [category.id for category in truth.categories]
    things = tuple(category.id for category in truth.categories if category.is_thing)
    random = np.random.default_rng(5)
    scenes = [
        Scene(
            truth.ids(entry).astype(np.int64),
            {each.id: each.category_id for each in entry.segments},
            frozenset(each.id for each in entry.segments if each.is_crowd),
        )
        for entry in truth.entries.values()
    ]
    founds = []
    for name in ("a.json", "b.json"):
        with PanopticWriter(root / name, truth.categories) as writer:
            founds.append([perturbed(random, scene) for scene in scenes])
            for image_id, found in zip(truth.entries, founds[-1], strict=True):
                found.categories = {id_: each if each in known else known[0] for id_, each in found.categories.items()}
                writer.add(image_id, f"{image_id}.jpg", found.ids, list(found.categories.items()))
    results = []
    for image_id, scene in zip(truth.entries, scenes, strict=True):
        own = [(grown(scene.ids == id_, random), scene.categories[id_]) for id_ in things_of(scene, things)]
        scores = random.uniform(0.3, 1, len(own)).tolist()
        results.append(
            [
                as_result(mask, image_id=image_id, category_id=category, score=score)
                for (mask, category), score in zip(own, scores, strict=True)
            ]
        )
    (root / "instances.json").write_text(json.dumps([each for some in results for each in some]))
    pairs = list(zip(scenes, founds[0], strict=True))
    return Made(truth.path, root / "a.json", root / "b.json", root / "instances.json", things, pairs, results)


def grown(mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """As amodal masks are: over its neighbours."""
    reach = int(random.integers(0, 6))
    shifts = [(down, right) for down in (-reach, 0, reach) for right in (-reach, 0, reach)]
    return np.any([np.roll(mask, shift, (0, 1)) for shift in shifts], axis=0)


def texts(numbers: tuple[float, ...]) -> str:
    return " / ".join(f"{100 * value:.1f}" for value in numbers[:3])


def test_against_a_baseline_with_instances(made: Made, tmp_path: Path) -> None:
    words = ["--ground-truth", made.truth, "--predictions", made.first, "--baseline", made.second]
    grid = ["--t-o", "-1,0.1,0.3", "--t-p", "0,0.6", "--bootstrap", "8", "--seed", "2"]
    output, copy = tmp_path / "new" / "report", tmp_path / "copy.json"
    result = run(
        *words, *grid, "--instances", made.instances, "panoptic.min_score=0.4", "--output", output, "--json", copy
    )
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in output.iterdir()} == {"huddle.json", "report.html"}
    report = json.loads(copy.read_text())
    settings = HuddleSettings(t_o=(-1, 0.1, 0.3), t_p=(0, 0.6), bootstrap=8, seed=2)
    fused = FusedInstances(made.instances, FusionSettings(min_score=0.4))
    study = study_panoptic_huddles(made.truth, made.first, made.second, settings=settings, instances=fused)
    assert report == json.loads((output / "huddle.json").read_text()) == study.report

    lines = [line.strip() for line in result.stdout.splitlines()]
    rows = {line.split()[0]: line for line in lines[2:5]}
    page = (output / "report.html").read_text()
    sizes = set()
    for each in report["cells"]:
        images = cell(made.pairs, each["t_o"], each["t_p"], False, made.things)
        assert each["images"] == len(images) > 0
        sizes.add(len(images))
        expected = quality(defined_counts([made.pairs[image] for image in images]), made.things)
        assert list(each["things"].values()) == pytest.approx(expected, abs=1e-12)
        if each["t_o"] >= 0 or each["t_p"] == 0:
            assert texts(expected) in rows[f"{each['t_o']:g}"]
            assert f">{100 * expected[0]:.1f}<" in page
    assert len(sizes) > 1

    outcomes = [
        each
        for (truth, _), results in zip(made.pairs, made.results, strict=True)
        for each in losses(truth, results, 0.4, made.things)[1]
    ]
    (own,) = report["fusion"]["losses"]
    for row in own["overlaps"]:
        counts = binned(outcomes, row["above"], row["up_to"] or 2)
        names = ("true", "found", "kept", "dropped", "cut", "gained")
        assert [row[name] for name in names] == [counts[name] for name in names]
    assert sum(row["dropped"] + row["cut"] for row in own["overlaps"]) > 0
    table = lines[lines.index("true things that the fusion dropped or cut, by overlap; pixels by score") + 1 :]
    assert table[0].split() == ["overlap", "true", "found", "kept", "dropped", "cut", "gained"]
    assert [line.split()[0] for line in table[1:5]] == ["0", "0.1", "over", "all"]
    assert f"PQ / SQ / RQ of things, fused: {texts(tuple(own['things'].values()))}" in result.stdout
    for said in ("the baseline's", "PQ / SQ / RQ minus the baseline's", "95 % interval of PQ's difference"):
        assert said in lines
    assert "What the fusion loses" in page


def test_results_alone(made: Made, tmp_path: Path) -> None:
    words = ["--ground-truth", made.truth, "--predictions", made.first, "--output", tmp_path]
    result = run(*words, "--json", "-")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["fusion"] is None
    assert {each["baseline"] for each in report["cells"]} == {None}
    assert len(report["cells"]) == 30
    assert "baseline" not in result.stderr
    page = (tmp_path / "report.html").read_text()
    assert "Candidate minus baseline" not in page
    assert "What the fusion loses" not in page
    assert "has results of an earlier run" in run(*words).stderr
    assert run(*words, "--overwrite").exit_code == 0


def test_input_is_not_written_over(made: Made, tmp_path: Path) -> None:
    before = made.first.read_bytes()
    words = ["--ground-truth", made.truth, "--predictions", made.first, "--output", tmp_path / "out"]
    result = run(*words, "--json", made.first)
    assert result.exit_code == 1
    assert "would be written over" in result.stderr
    assert made.first.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "x"], "--panoptic cannot have --data:"),
        (["--split", "train"], "--panoptic cannot have --split:"),
        (["--images", "x"], "--panoptic cannot have --images:"),
        (["--max-dets", "10"], "--panoptic cannot have --max-dets:"),
        (["--overlap", "mask"], "--panoptic cannot have --overlap:"),
        (["--gallery", "3"], "--panoptic cannot have --gallery:"),
        (["--score-threshold", "0.5"], "--panoptic cannot have --score-threshold:"),
        (["--device", "cpu"], "--panoptic cannot have --device:"),
        (["model.num_classes=3"], "only panoptic.KEY=VALUE means something"),
        (["panoptic.min_score=0.3"], "is how --instances FILE are fused, and there is none"),
    ],
)
def test_wrong_usage(tmp_path: Path, words: list[str], said: str) -> None:
    result = run("--ground-truth", "gt.json", "--predictions", "dt.json", "--output", tmp_path / "out", *words)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_needs(tmp_path: Path) -> None:
    result = run("--predictions", "dt.json", "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "--panoptic needs --ground-truth FILE" in " ".join(result.stderr.split())
    other = [
        "huddle-report",
        "--predictions",
        "dt.json",
        "--ground-truth",
        "gt.json",
        "--output",
        str(tmp_path / "out"),
    ]
    result = CliRunner().invoke(app, [*other, "--instances", "i.json"])
    assert result.exit_code == 2
    assert "is for --panoptic" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("panoptic.min_scor=0.3", "did you mean panoptic.min_score?"),
        ("panoptic.pixel=probability", "COCO results have no mask probabilities"),
    ],
)
def test_settings_that_cannot_be(made: Made, tmp_path: Path, word: str, said: str) -> None:
    words = ["--ground-truth", made.truth, "--predictions", made.first, "--instances", made.instances]
    result = run(*words, word, "--output", tmp_path)
    assert result.exit_code == 1
    assert said in result.stderr
