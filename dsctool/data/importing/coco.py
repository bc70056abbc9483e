"""COCO files that do not lie in the standard layout: Roboflow's, FiftyOne's, CVAT's, and LIVECell's per-cell ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dsctool.data.importing.files import Images, files_below, split_in
from dsctool.data.importing.node import Node
from dsctool.data.importing.rasters import rectangle
from dsctool.data.importing.record import Found, Instance, Options, Picture
from dsctool.data.layout import find_splits
from dsctool.data.segmentations import NO_PIXELS, segmentation_problem
from dsctool.data.shapes import compressed
from dsctool.errors import DataError
from dsctool.rle import Rle
from dsctool.terms import Size

_MEANT = ("images", "annotations", "categories")
_CELLS = ("a172", "bt474", "bv2", "huh7", "mcf7", "shsy5y", "skbr3", "skov3")
"""LIVECell's cell types, as its folders are called."""


def read(source: Path, options: Options) -> Found:
    """Every COCO file of a folder, or one file; its pictures lie beside it, in ``data/``, or anywhere in the folder.

    Raises:
        DataError: there is no such file, its pictures are not in the source, or an annotation cannot be understood.
    """
    return _read(*_files(source), options, cells=False)


def read_set(root: Path) -> Found:
    """A data set of the standard layout.

    Raises:
        DataError: as :func:`read`.
    """
    return _read(root, [split.annotations for split in find_splits(root)], Options(), cells=False)


def read_livecell(source: Path, options: Options) -> Found:
    """LIVECell's files, whose annotations may be an object instead of a list; one class for each cell type.

    A type is that of the file's folder or name (``LIVECell_single_cells/a172/train.json``,
    ``livecell_a172_train.json``); files of all types name it in their pictures.

    Raises:
        DataError: as :func:`read`.
    """
    return _read(*_files(source), options, cells=True)


def _files(source: Path) -> tuple[Path, list[Path]]:
    """The folder, and the JSON files in it."""
    if source.is_file():
        return source.parent, [source]
    return source, [path for path in files_below(source) if path.suffix.lower() == ".json"]


def _read(root: Path, files: Sequence[Path], options: Options, *, cells: bool) -> Found:
    images = Images(root)
    pictures: dict[tuple[Path, str | None], Picture] = {}
    classes: dict[str, None] = {}
    read = 0
    for file in files:
        content = Node.read(file)
        if not content.has(*_MEANT) or _is_panoptic(content):
            continue
        read += 1
        names = _categories(content.at("categories"))
        if not cells and not options.class_name:
            classes.update(dict.fromkeys(names.values()))
        for picture in _pictures(content, names, images, options, cells):
            key = (picture.path, picture.split)
            if key in pictures and pictures[key].instances and picture.instances:
                raise DataError(
                    f"{file}: '{picture.name}' is annotated in another file, or twice; import one at a time"
                )
            pictures[key] = picture if picture.instances or key not in pictures else pictures[key]
    if not read:
        raise DataError(f"{root}: no COCO file, which has 'images', 'annotations' and 'categories'")
    return Found(list(pictures.values()), list(classes))


def _is_panoptic(content: Node) -> bool:
    annotations = content.value["annotations"]
    first = annotations[0] if isinstance(annotations, list) and annotations else None
    return isinstance(first, dict) and "segments_info" in first


def _categories(categories: Node) -> dict[int, str]:
    """Names by id; Roboflow's first entry, which is all others' supercategory, is no class."""
    entries = {each.at("id").whole(): each for each in categories.elements()}
    above = {str(node.value) for each in entries.values() if (node := each.get("supercategory"))}
    return {
        id_: each.at("name").text()
        for id_, each in entries.items()
        if not (id_ == 0 and each.has_value("supercategory", "none") and str(each.at("name").value) in above)
    }


def _pictures(content: Node, names: dict[int, str], images: Images, options: Options, cells: bool) -> Iterator[Picture]:
    file = content.file
    split = split_in(file.stem, *reversed(file.relative_to(images.root).parts[:-1]))
    annotations = content.at("annotations")
    entries = (
        annotations.elements() if isinstance(annotations.value, list) else [each for _, each in annotations.items()]
    )
    by_image: dict[int | str, list[Node]] = {}
    for entry in entries:
        by_image.setdefault(entry.at("image_id").id(), []).append(entry)
    near = next((each for each in _homes(file, split) if each.is_dir()), file.parent)
    seen: set[int | str] = set()
    for entry in content.at("images").elements():
        if entry.at("id").id() in seen:
            raise entry.at("id").error(f"an earlier image has the id {entry.at('id').id()!r} too")
        seen.add(entry.at("id").id())
        named = entry.at("file_name")
        path = images.find(named.text(), near=near, where=named)
        size = (entry.at("height").whole(1), entry.at("width").whole(1))
        cell = _cell(file, path) if cells and not options.class_name else None
        instances = [
            _instance(each, size, options.class_name or cell, names) for each in by_image.pop(entry.at("id").id(), [])
        ]
        own = split or split_in(*path.relative_to(images.root).parts[:-1])
        yield Picture(path, images.name(path), size, tuple(instances), own)
    if by_image:
        stray = next(iter(by_image.values()))[0]
        raise stray.at("image_id").error(f"no image has the id {stray.at('image_id').id()!r}")


def _homes(file: Path, split: str | None) -> Iterator[Path]:
    """Where the pictures of a COCO file may lie: FiftyOne's, the standard layout's, CVAT's."""
    yield file.parent / "data"
    if split is not None:
        yield from (file.parents[1] / name for name in (file.stem.removeprefix("instances_"), split))
    yield file.parents[1] / "images" if file.parent.name == "annotations" else file.parent


def _cell(file: Path, picture: Path) -> str | None:
    """The cell type that a file's folder or name speaks of, or a picture's (``A172_Phase_C7_1_00d00h00m_1.tif``)."""
    for text in (file.parent.name, file.stem, picture.name.partition("_")[0], picture.parent.name):
        found = [cell for cell in _CELLS if cell in text.lower().split("_")]
        if found:
            return found[0]
    return None


def _instance(entry: Node, size: Size, category: str | None, names: dict[int, str]) -> Instance:
    id_ = entry.at("category_id")
    if id_.whole() not in names:
        raise id_.error(f"no category has the id {id_.value}")
    name = category or names[id_.whole()]
    where = f"{entry} (id {id_node.value})" if (id_node := entry.get("id")) else str(entry)
    crowd = entry.get("iscrowd")
    is_crowd = crowd is not None and bool(crowd.number())
    given = entry.get("segmentation")
    shape = None if given is None else given.value
    if isinstance(shape, list):
        shape = [part for part in shape if not isinstance(part, list) or len(part) >= 6]
    if not shape:
        if entry.get("bbox") is None:
            return Instance(name, where, crowd=is_crowd)
        x, y, width, height = _box(entry.at("bbox"))
        return Instance(name, where, (rectangle(x, y, x + width, y + height),), box=True, crowd=is_crowd)
    problem = segmentation_problem(shape, size)
    if problem is not None and problem.severity == "error" and problem.kind != NO_PIXELS:
        raise entry.at("segmentation").error(problem.message)
    if isinstance(shape, dict):
        return Instance(name, where, mask=Rle(size=list(size), counts=compressed(shape, size)), crowd=is_crowd)
    return Instance(name, where, tuple([float(value) for value in part] for part in shape), crowd=is_crowd)


def _box(box: Node) -> list[float]:
    numbers = box.numbers()
    if len(numbers) != 4:
        raise box.error(f"must have 4 numbers (x, y, width, height), not {len(numbers)}")
    return numbers
