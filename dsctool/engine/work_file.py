"""Results of one image after the other, in a file from which a run that was killed goes on.

The first line says what the run is: its checkpoint, options and images. Every further line is a finished image. Lines
are only ever appended, so all that a kill can leave behind is half a last line, which is dropped. When all images are
done, the files that people want are written from it, each whole or not at all, and the work file goes.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, NotRequired, Self, TypedDict

from dsctool.coco_results import Result
from dsctool.data.image_files import ImageFile
from dsctool.data.panoptic import PanopticCategory, category_entries
from dsctool.data.records import Category
from dsctool.engine.measures import COUNTS, InstanceTable, Row
from dsctool.errors import DataError
from dsctool.files import lock, whole_file

Run = Mapping[str, Any]
"""What results depend on, by the name that a message can call it; plain JSON values."""


class ImageEntry(TypedDict):
    """An image as COCO's files have it."""

    id: int
    file_name: str
    height: int
    width: int


class PanopticEntry(TypedDict):
    """An image in ``annotations`` of a panoptic file. file_name: of its PNG, in the file's folder."""

    image_id: int
    file_name: str
    segments_info: list[dict[str, object]]


class ImageResults(TypedDict):
    """A finished image. candidates: boxes before NMS, where they are kept. panoptic, measures, shown: where wanted."""

    image: ImageEntry
    results: list[Result]
    candidates: NotRequired[list[Result]]
    panoptic: NotRequired[PanopticEntry]
    measures: NotRequired[list[Row]]
    shown: NotRequired[Mapping[str, Any]]


def describe_run(checkpoint: Path, files: Sequence[ImageFile], **options: object) -> Run:
    """What tells a run from others. options: whatever else its files depend on, as JSON has it."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.id} {file.size} {file.path}\n".encode(errors="surrogateescape"))
    with checkpoint.open("rb") as content:
        weights = hashlib.file_digest(content, "sha256").hexdigest()
    return {"checkpoint": weights, "images": digest.hexdigest(), **options}


class WorkFile:
    """A work file that is open for more images, of one process at a time."""

    def __init__(self, path: Path, file: BinaryIO, places: dict[int, int]) -> None:
        self.path = path
        self._file = file
        self._places = places  # where the line of each image begins, by its id

    @classmethod
    def begin(cls, path: Path, run: Run) -> Self:
        """A new one, in place of whatever is at ``path``.

        Raises:
            DataError: another process is writing to it.
        """
        file = _locked(path)
        file.truncate(0)
        file.write(_line(run))
        file.flush()
        return cls(path, file, {})

    @classmethod
    def resume(cls, path: Path, run: Run) -> Self:
        """The one that is at ``path``, without a last line that was cut; a new one where there is none.

        Raises:
            DataError: another run began it; the message says in what they differ. Or another process is writing to it.
        """
        file = _locked(path)
        file.seek(0)
        begun = _whole(file.readline())
        if begun is None:  # nothing there, or killed before it had begun
            file.close()
            return cls.begin(path, run)
        differing = sorted(key for key in {*begun, *run} if begun.get(key) != run.get(key))
        if differing:
            file.close()
            raise DataError(
                f"{path}: another run was stopped here: it had other {', '.join(differing)}. "
                "Repeat its command with --resume, or begin anew with --overwrite."
            )
        places, end = {}, file.tell()
        while (entry := _whole(file.readline())) is not None:
            places[entry["image"]["id"]] = end
            end = file.tell()
        file.truncate(end)
        return cls(path, file, places)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __contains__(self, image: int) -> bool:
        return image in self._places

    def __len__(self) -> int:
        return len(self._places)

    def add(self, entry: ImageResults) -> None:
        """Append an image that is finished."""
        self._places[entry["image"]["id"]] = self._file.seek(0, 2)
        self._file.write(_line(entry))
        self._file.flush()

    def finish(
        self,
        *,
        results: Path,
        candidates: Path | None,
        table: Path,
        categories: Sequence[Category],
        complete: bool = True,
    ) -> int:
        """Write the files that people want, images by ascending id, and remove the work file; how many results.

        results, candidates: COCO results. table: which image has which id, with ``categories``. complete: if not,
        images are missing, and the work file stays for a run that tries these again.
        """
        count = 0
        with ExitStack() as files:
            opened = [
                JsonList(files.enter_context(whole_file(path)) if path else None) for path in (results, candidates)
            ]
            images = JsonList(files.enter_context(whole_file(table)), head='{"images": ')
            for entry in self.entries():
                count += len(entry["results"])
                opened[0].extend(entry["results"])
                opened[1].extend(entry.get("candidates", []))
                images.extend([entry["image"]])
            for each in opened:
                each.end("\n")
            named = [{"id": category.id, "name": category.name} for category in categories]
            images.end(f', "categories": {json.dumps(named)}}}\n')
        if complete:
            self.remove()
        return count

    def write_panoptic(self, path: Path, categories: Sequence[PanopticCategory]) -> None:
        """Write the panoptic file to which the finished images' PNGs belong, by ascending id."""
        with whole_file(path) as file:
            images, annotations = JsonList(file, head='{"images": '), JsonList(file, head=', "annotations": ')
            images.extend(entry["image"] for entry in self.entries())
            images.end("")
            annotations.extend(entry["panoptic"] for entry in self.entries())
            annotations.end(f', "categories": {json.dumps(category_entries(categories))}}}\n')

    def write_tables(self, instances: Path, counts: Path, table: InstanceTable) -> None:
        """Write the finished images' instances, and how many of each class every image has, as CSV by ascending id."""
        with whole_file(instances) as one, whole_file(counts) as other:
            write_one, write_other = csv_rows(one), csv_rows(other)
            write_one(table.columns)
            write_other(COUNTS)
            for entry in self.entries():
                image, rows = entry["image"], entry.get("measures", [])
                for row in rows:
                    write_one(row)
                for row in table.counts(rows, image["id"], image["file_name"]):
                    write_other(row)

    def remove(self) -> None:
        """Close and delete it: what people want has been written."""
        self._file.close()
        self.path.unlink()

    def entries(self) -> Iterator[ImageResults]:
        """All finished images, by ascending id."""
        for image in sorted(self._places):
            self._file.seek(self._places[image])
            yield json.loads(self._file.readline())


class JsonList:
    """A JSON list that is written piece by piece, as ``json.dumps`` would; nothing without a file."""

    def __init__(self, file: IO[bytes] | None, head: str = "") -> None:
        self._file = file
        self._before = f"{head}["

    def extend(self, values: Iterable[object]) -> None:
        """Append ``values``."""
        for value in values:
            self._write(self._before + json.dumps(value))
            self._before = ", "

    def end(self, tail: str) -> None:
        """Close the list, and write what follows it."""
        self._write(("" if self._before == ", " else self._before) + "]" + tail)

    def _write(self, text: str) -> None:
        if self._file is not None:
            self._file.write(text.encode())


def csv_rows(file: BinaryIO) -> Callable[[Iterable[object]], object]:
    """Writes a row; nothing of the file is kept in memory."""

    class Encoded:
        def write(self, text: str) -> int:
            return file.write(text.encode(errors="surrogateescape"))

    return csv.writer(Encoded(), lineterminator="\n").writerow


def refuse_running(path: Path) -> None:
    """Raises DataError where another process is writing to the work file at ``path``."""
    if path.exists():
        _locked(path).close()


def _locked(path: Path) -> BinaryIO:
    """The file, for reading and for appending; no other process gets it until it is closed."""
    file = path.open("ab+")
    if not lock(file):
        file.close()
        raise DataError(f"{path}: another run is writing to it; let it end, or name another folder")
    return file


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _whole(line: bytes) -> dict[str, Any] | None:
    """What a line holds; None at the end of the file and where it was cut."""
    if not line.endswith(b"\n"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
