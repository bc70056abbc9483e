"""The file that a killed run goes on from: wherever it was cut, nothing is lost or doubled."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dsctool.coco_results import Result
from dsctool.data.image_files import ImageFile
from dsctool.data.records import Category
from dsctool.engine.work_file import ImageEntry, ImageResults, WorkFile, describe_run
from dsctool.errors import DataError

RUN = {"checkpoint": "abc", "images": "def", "overrides": ["postprocess.nms=mask"], "threshold": 0.3}
IDS = (3, 1, 2)


def entry(image: int) -> ImageResults:
    box = [0.1 * image, 1.0, 2.5, 1e-7]
    results = [Result(image_id=image, category_id=7, bbox=box, score=0.5) for _ in range(image)]
    described = ImageEntry(id=image, file_name=f"ä{image}.png", height=10, width=20)
    return ImageResults(image=described, results=results, candidates=results[:1])


def whole(path: Path) -> bytes:
    with WorkFile.begin(path, RUN) as work:
        for image in IDS:
            work.add(entry(image))
    return path.read_bytes()


def test_cut_at_any_byte(tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    content = whole(path)
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        lines = content[:length].count(b"\n")
        with WorkFile.resume(path, RUN) as work:
            assert len(work) == max(lines - 1, 0), length
            for image in IDS:
                assert (image in work) == (image in IDS[: max(lines - 1, 0)])
                if image not in work:
                    work.add(entry(image))
        assert path.read_bytes() == content, length


def test_what_people_want(tmp_path: Path) -> None:
    path, results, candidates, table = (tmp_path / name for name in ("work", "results", "candidates", "table"))
    whole(path)
    with WorkFile.resume(path, RUN) as work:
        count = work.finish(results=results, candidates=candidates, table=table, categories=[Category(7, "cup")])
    by_id = [entry(image) for image in sorted(IDS)]
    assert count == 6
    assert results.read_text() == json.dumps([each for one in by_id for each in one["results"]]) + "\n"
    assert json.loads(candidates.read_text()) == [one["candidates"][0] for one in by_id]
    assert json.loads(table.read_text()) == {
        "images": [one["image"] for one in by_id],
        "categories": [{"id": 7, "name": "cup"}],
    }
    assert not path.exists()


def test_nothing_found(tmp_path: Path) -> None:
    with WorkFile.begin(tmp_path / "work", RUN) as work:
        assert work.finish(results=tmp_path / "results", candidates=None, table=tmp_path / "table", categories=[]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "table"]
    assert json.loads((tmp_path / "results").read_text()) == []


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "work"
    whole(path)
    with WorkFile.resume(path, RUN):
        content = path.read_bytes()
        for opened in (WorkFile.begin, WorkFile.resume):
            with pytest.raises(DataError, match="another run is writing to it"):
                opened(path, RUN)
        assert path.read_bytes() == content
    with WorkFile.begin(path, RUN) as work:
        assert len(work) == 0


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    checkpoint = tmp_path / "best.pt"
    checkpoint.write_bytes(b"weights")
    path = Path(os.fsdecode(b"caf\xe9.png"))
    run = describe_run(checkpoint, [ImageFile(path, 1)])
    assert run != describe_run(checkpoint, [ImageFile(Path("café.png"), 1)])
    with WorkFile.begin(tmp_path / "work", run) as work:
        work.add(ImageResults(image=ImageEntry(id=1, file_name=str(path), height=1, width=1), results=[]))
        work.finish(results=tmp_path / "results", candidates=None, table=tmp_path / "table", categories=[])
    assert json.loads((tmp_path / "table").read_text())["images"][0]["file_name"] == str(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threshold": 0.4}, "threshold"),
        ({"checkpoint": "x", "images": "y"}, "checkpoint, images"),
        ({"new": 1}, "new"),
    ],
)
def test_another_run_is_refused_and_stays(tmp_path: Path, change: dict[str, object], said: str) -> None:
    path = tmp_path / "work"
    content = whole(path)
    with pytest.raises(DataError, match=f"it had other {said}"):
        WorkFile.resume(path, RUN | change)
    assert path.read_bytes() == content
