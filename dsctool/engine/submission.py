"""COCO's test-dev: images whose annotations only its server has, and the files that the server takes.

It takes a zip with one JSON list in it, both named ``detections_<testset>_<algorithm>_results``, and measures boxes and
masks from an upload of each. Masks have no boxes beside them: their areas decide what is small, medium and large.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from dsctool.coco_results import Result
from dsctool.config.schema import DataConfig
from dsctool.data.checks import check_unannotated
from dsctool.data.classes import match_categories
from dsctool.data.coco import CocoDataset
from dsctool.data.columns import Reading
from dsctool.data.faults import Exclusions
from dsctool.data.file_names import image_path
from dsctool.data.image_files import ImageFile
from dsctool.data.layout import SplitFiles, find_test_dev
from dsctool.data.records import Category
from dsctool.engine.inference import Runnable, device_of, to_results
from dsctool.engine.limits import LimitCount
from dsctool.engine.processes import LONE, Processes
from dsctool.engine.tiles import found_in_set
from dsctool.engine.views import in_views
from dsctool.engine.work_file import ImageEntry, ImageResults, JsonList, WorkFile
from dsctool.files import whole_file
from dsctool.terms import KINDS, Kind, Precision, Progress


@dataclass(frozen=True)
class UnannotatedSet:
    """Images to run a detector on, all of them.

    categories: by label of the detector, with the ids of the file; None is not in it.
    """

    files: SplitFiles
    reading: Reading
    categories: list[Category | None]

    @classmethod
    def open(cls, model: Runnable, root: Path, progress: Progress | None = None) -> Self:
        """The test-dev images in the data set ``root``, checked. progress: told how many images are checked.

        Raises:
            DataError: there are none, or faults, or other categories than the model's.
        """
        files = find_test_dev(root)
        reading = check_unannotated(files, model.config.data, progress=progress)
        return cls(files, reading, match_categories(model.categories, reading.categories, files.annotations))

    @property
    def name(self) -> str:
        """What COCO calls the images: ``test-dev2017``."""
        return self.files.annotations.stem.removeprefix("image_info_")

    @property
    def images(self) -> list[ImageFile]:
        """In the order of the file."""
        return [
            ImageFile(image_path(self.files.images, info.file_name), info.id, info.size) for info in self.reading.images
        ]

    def without(self, done: Container[int], config: DataConfig) -> CocoDataset | None:
        """The images whose ids are not ``done`` yet; None where all are."""
        places = zip(self.reading.places, self.reading.images, strict=True)
        finished = frozenset(place for place, info in places if info.id in done)
        if len(finished) == len(self.reading.images):
            return None
        exclude = Exclusions(images=finished)
        return CocoDataset.for_evaluation(self.files, config, exclude=exclude, reading=self.reading)


def run_unannotated(
    model: Runnable,
    images: UnannotatedSet,
    work: WorkFile | None,
    progress: Progress | None = None,
    *,
    precision: Precision = "float32",
    processes: Processes = LONE,
) -> LimitCount:
    """Add what ``model`` finds in every image that is not in ``work`` yet; also of images in which it finds nothing.

    work: None in all processes but the first one, which adds for all. progress: told how many images are done.
    precision: what the model computes in. Returns how many images reached limits.
    """
    config, total, limits = model.config.data, len(images.reading.images), LimitCount()
    done = processes.on_first(lambda: frozenset(info.id for info in images.reading.images if info.id in (work or ())))
    dataset = images.without(done, config)
    if dataset is None:
        return limits
    device = device_of(model)
    task = in_views("eval", config.tta)
    stream = found_in_set(model, dataset, config, device=device, ranks=processes.ranks, precision=precision)

    def entries() -> Iterator[ImageResults]:
        for info, found in stream:
            limits.add(found)
            height, width = info.original_size
            image = ImageEntry(id=info.image_id, file_name=info.file_name, height=height, width=width)
            yield ImageResults(image=image, results=to_results(found, info.image_id, images.categories))

    for entry in processes.in_turns(entries(), len(dataset)):
        assert work is not None
        work.add(entry)
        if progress is not None:
            progress(task, len(work), total)
    return LimitCount.total(processes.gather(limits) or [])


def results_name(testset: str, algorithm: str) -> str:
    """What the server wants a file to be called, without the suffix."""
    return f"detections_{testset}_{algorithm}_results"


def algorithm_name(text: str) -> str:
    """``text`` as a part of such a name: underscores separate the parts."""
    return re.sub(r"[^A-Za-z0-9.+]+", "-", text).strip("-.") or "model"


def write_submission(work: WorkFile, folder: Path, name: str, *, masks: bool) -> list[Path]:
    """The zip files to upload, ``bbox/<name>.zip`` and with ``masks`` ``segm/<name>.zip``, whole or not at all."""
    kinds: tuple[Kind, ...] = KINDS if masks else ("bbox",)
    paths = [folder / kind / f"{name}.zip" for kind in kinds]
    with ExitStack() as files:
        lists = [JsonList(files.enter_context(_zipped(path, f"{name}.json"))) for path in paths]
        for entry in work.entries():
            for kind, each in zip(kinds, lists, strict=True):
                each.extend(_submitted(result, kind) for result in entry["results"])
        for each in lists:
            each.end("\n")
    return paths


def _submitted(result: Result, kind: Kind) -> dict[str, object]:
    """Nothing else may be there. Boxes are rounded as far as nothing depends on it; scores decide on order and stay."""
    head = {"image_id": result["image_id"], "category_id": result["category_id"]}
    if kind == "bbox":
        return {**head, "bbox": [round(value, 2) for value in result["bbox"]], "score": result["score"]}
    return {**head, "segmentation": result["segmentation"], "score": result["score"]}


@contextmanager
def _zipped(path: Path, member: str) -> Iterator[IO[bytes]]:
    """The only file in a zip, which has no folders in it; the same content gives the same bytes whenever it is made."""
    info = ZipInfo(member)
    info.compress_type = ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    path.parent.mkdir(exist_ok=True)
    with whole_file(path) as file, ZipFile(file, "w") as archive, archive.open(info, "w", force_zip64=True) as content:
        yield content
