"""``dsctool predict``: going on after a kill, and folders that hold an earlier run."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_predict import checkpoint_of, read, run, save_image

pytestmark = pytest.mark.usefixtures("one_thread")

WORK = "predictions.work.jsonl"
IMAGES = 8


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_of(tmp_path_factory.mktemp("model"), "htc_tiny")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(IMAGES):
        save_image(folder / f"{number:02}.png", seed=number)
    return folder


@pytest.fixture(scope="module")
def whole(checkpoint: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was never stopped. Not to be written to."""
    out = tmp_path_factory.mktemp("whole") / "out"
    result = run(checkpoint, photos, "--output", out, "--keep-candidates")
    assert result.exit_code == 0, result.stderr
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stopped(whole: Path, out: Path, checkpoint: Path, photos: Path, *, lines: int, tail: bytes = b"") -> None:
    """What is left of a run that was killed after so many images: the work file alone is what it goes on from."""
    from dsctool.data.image_files import find_images, number_images
    from dsctool.engine.work_file import ImageResults, WorkFile, describe_run

    out.mkdir()
    run_of = describe_run(
        checkpoint, number_images(find_images([photos])), overrides=[], threshold=0.3, stages=False, overlays=True,
        candidates=True, device="cpu",
    )  # fmt: skip
    results, candidates = read(whole / "predictions.json"), read(whole / "candidates.json")
    with WorkFile.begin(out / WORK, run_of) as work:
        for image in read(whole / "images.json")["images"][:lines]:
            own, before = (
                [each for each in found if each["image_id"] == image["id"]] for found in (results, candidates)
            )
            work.add(ImageResults(image=image, results=own, candidates=before))
    with (out / WORK).open("ab") as file:
        file.write(tail)
    shutil.copytree(whole / "overlays", out / "overlays")
    for path in sorted((out / "overlays").iterdir())[lines:]:
        path.unlink()


def test_killed(checkpoint: Path, photos: Path, whole: Path, tmp_path: Path) -> None:
    """By SIGKILL, wherever it happens to be; while it runs, no other run goes into its folder."""
    out = tmp_path / "out"
    words = [checkpoint, photos, "--output", out, "--keep-candidates", "--resume"]
    for lines in (3, 5, 7):
        process = multiprocessing.get_context("fork").Process(target=run, args=words)  # what is imported stays so
        process.start()
        while process.is_alive() and lines_of(out / WORK) < lines:
            time.sleep(0.002)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not (out / "predictions.json").exists(), "it is whole or absent"
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    assert contents(out) == contents(whole)


@pytest.mark.parametrize("merge", ["union", "average"])
def test_killed_while_it_looked_from_several_sides(checkpoint: Path, photos: Path, tmp_path: Path, merge: str) -> None:
    """It goes on in the same views only, to the same bytes."""
    views = ["--tta", "data.tta.short_sides=[48,64]", f"data.tta.merge={merge}"]
    few = sorted(photos.iterdir())[:5]
    words = [checkpoint, *few, *views, "--no-overlays", "--keep-candidates"]
    assert run(*words, "--output", tmp_path / "whole").exit_code == 0
    out = tmp_path / "out"
    process = multiprocessing.get_context("fork").Process(target=run, args=[*words, "--output", out])
    process.start()
    while process.is_alive() and lines_of(out / WORK) < 2:
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    other = run(checkpoint, *few, "--no-overlays", "--keep-candidates", "--output", out, "--resume")
    assert other.exit_code == 1
    assert "other overrides" in other.stderr
    assert run(*words, "--output", out, "--resume").exit_code == 0
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("option", ["--resume", "--overwrite"])
def test_a_folder_in_which_another_run_writes(
    checkpoint: Path, photos: Path, whole: Path, tmp_path: Path, option: str
) -> None:
    out = tmp_path / "out"
    stopped(whole, out, checkpoint, photos, lines=2)
    before = contents(out)
    with (out / WORK).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = run(checkpoint, photos, "--output", out, "--keep-candidates", option)
    assert result.exit_code == 1
    assert "another run is writing to it" in result.stderr
    assert contents(out) == before


def test_images_that_could_not_be_read_are_tried_again(checkpoint: Path, tmp_path: Path) -> None:
    good, late = save_image(tmp_path / "photos/a.png"), save_image(tmp_path / "late.png", seed=1)
    (tmp_path / "photos/b.png").write_bytes(b"not yet")
    words = [checkpoint, tmp_path / "photos", "--output", tmp_path / "out"]
    result = run(*words)
    assert result.exit_code == 1
    assert "1 of 2 images could not be read; --resume tries them again" in result.stderr
    assert {each["image_id"] for each in read(tmp_path / "out/predictions.json")} == {1}
    late.rename(tmp_path / "photos/b.png")
    good.write_bytes(b"not read again")
    result = run(*words, "--resume")
    assert result.exit_code == 0, result.stderr
    assert {each["image_id"] for each in read(tmp_path / "out/predictions.json")} == {1, 2}
    assert not (tmp_path / "out" / WORK).exists()


def test_ctrl_c_names_the_way_on(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **kwargs: object) -> Iterator[None]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("dsctool.cli.predict._entries", interrupted)
    result = run(checkpoint, save_image(tmp_path / "a.png"), "--output", tmp_path / "out")
    assert result.exit_code == 130
    assert "0 of 1 images are done; go on by --resume" in result.stderr
    assert (tmp_path / "out" / WORK).exists()


def test_pictures_of_no_run_stay(checkpoint: Path, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "overlays").mkdir()
    shutil.copy(whole / "overlays/00.jpg", tmp_path / "overlays/mine.jpg")
    result = run(checkpoint, save_image(tmp_path / "a.png"), "--output", tmp_path, "--overwrite")
    assert result.exit_code == 1
    assert "mine.jpg: is in the way, and of no run that is on record here" in result.stderr
    assert (tmp_path / "overlays/mine.jpg").exists()


def test_the_table_it_reads_is_not_written_over(checkpoint: Path, photos: Path, whole: Path) -> None:
    before = contents(whole)
    result = run(checkpoint, photos, "--images-json", whole / "images.json", "--output", whole, "--overwrite")
    assert result.exit_code == 1
    assert "name another --output" in result.stderr
    assert contents(whole) == before


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize(
    ("lines", "tail"),
    [
        pytest.param(0, b"", id="before-the-first"),
        pytest.param(3, b'{"image": {"id": 4, "file_na', id="half-a-line"),
        pytest.param(5, b'{"image": \n', id="a-damaged-line"),
        pytest.param(IMAGES, b"", id="before-the-files-were-written"),
    ],
)
def test_resuming(checkpoint: Path, photos: Path, whole: Path, tmp_path: Path, lines: int, tail: bytes) -> None:
    out = tmp_path / "out"
    stopped(whole, out, checkpoint, photos, lines=lines, tail=tail)
    (out / "overlays/.07.jpg.1234.tmp").write_bytes(b"half a picture")
    refused = run(checkpoint, photos, "--output", out, "--keep-candidates")
    assert refused.exit_code == 1
    assert "holds an unfinished run; go on with it by --resume" in refused.stderr
    result = run(checkpoint, photos, "--output", out, "--keep-candidates", "--resume")
    assert result.exit_code == 0, result.stderr
    assert contents(out) == contents(whole)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["postprocess.nms=mask"], "other overrides"),
        (["--score-threshold", "0.1"], "other threshold"),
        (["--no-overlays"], "other overlays"),
        (["--precision", "bfloat16"], "other precision"),
    ],
)
def test_resuming_another_run(
    checkpoint: Path, photos: Path, whole: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    out = tmp_path / "out"
    stopped(whole, out, checkpoint, photos, lines=2)
    before = contents(out)
    result = run(checkpoint, photos, *words, "--output", out, "--keep-candidates", "--resume")
    assert result.exit_code == 1
    assert said in result.stderr
    assert contents(out) == before


def test_resuming_with_other_files(checkpoint: Path, photos: Path, whole: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", checkpoint_of(tmp_path, "cascade_mask_rcnn_tiny")
    stopped(whole, out, checkpoint, photos, lines=2)
    for words, said in (([checkpoint, photos / "03.png"], "other images"), ([other, photos], "other checkpoint")):
        result = run(*words, "--output", out, "--keep-candidates", "--resume")
        assert result.exit_code == 1
        assert said in result.stderr


def test_a_run_that_ended_is_not_resumed(checkpoint: Path, photos: Path, whole: Path) -> None:
    before = contents(whole)
    result = run(checkpoint, photos, "--output", whole, "--keep-candidates", "--resume")
    assert result.exit_code == 1
    assert "its run has ended" in result.stderr
    assert contents(whole) == before
    assert run(checkpoint, photos, "--output", whole, "--resume", "--overwrite").exit_code == 2


def test_no_results_of_an_earlier_run_stay(checkpoint: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    for name in ("mine.txt", "overlays/notes.md", "other.json"):
        (out / name).write_text("kept")
    image = save_image(tmp_path / "new.png")
    before = contents(out)
    result = run(checkpoint, image, "--output", out)
    assert result.exit_code == 1
    assert "has results of an earlier run" in result.stderr
    assert "--overwrite" in result.stderr
    assert contents(out) == before
    result = run(checkpoint, image, "--output", out, "--overwrite")
    assert result.exit_code == 0, result.stderr
    own = {"predictions.json", "images.json", "overlays/new.jpg"}
    assert set(contents(out)) == {*own, "mine.txt", "overlays/notes.md", "other.json"}
    assert [image["id"] for image in read(out / "images.json")["images"]] == [1]


def test_files_it_reads_are_not_removed(checkpoint: Path, whole: Path, tmp_path: Path) -> None:
    """The overlays of one run, looked at by the next one, in the same folder."""
    out = tmp_path / "out"
    (out / "overlays").mkdir(parents=True)
    shutil.copy(whole / "overlays/00.jpg", out / "overlays/a.jpg")
    result = run(checkpoint, out / "overlays", "--output", out, "--no-overlays")
    assert result.exit_code == 0, result.stderr
    assert (out / "overlays/a.jpg").exists()


def test_overrides_among_the_images(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    save_image(tmp_path / "a=b.png")
    few = "postprocess.max_per_image=2"
    result = run(checkpoint, photos / "00.png", few, tmp_path / "a=b.png", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    found = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [each["image_id"] for each in found] == [1, 1, 2, 2]
    assert run(checkpoint, few, "--output", tmp_path / "none").exit_code == 2
    wrong = run(checkpoint, photos, "postprocess.max_per_imag=2", "--output", tmp_path / "none")
    assert wrong.exit_code == 1
    assert "postprocess.max_per_image" in wrong.stderr
    assert not (tmp_path / "none").exists()
