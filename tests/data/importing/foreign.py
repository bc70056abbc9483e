"""The same scene as every other tool would write it."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from dsctool.data.outlines import outline, with_seams

Mask = NDArray[np.bool_]
HEIGHT, WIDTH = 48, 64
CLASSES = ("cell", "debris")
NAMES = ("a", "b", "c", "d", "e")
"""Of the pictures, without suffix."""


@dataclass(frozen=True, eq=False)
class Thing:
    """One object. kind: what is hard about it."""

    category: str
    mask: Mask
    kind: str


def box(top: int, left: int, bottom: int, right: int) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def disc(y: float, x: float, radius: float) -> Mask:
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    return (ys + 0.5 - y) ** 2 + (xs + 0.5 - x) ** 2 <= radius**2


def things(*, overlaps: bool) -> list[Thing]:
    """A ring, one in two parts, three that touch, and two over each other where ``overlaps``."""
    touching = disc(34, 14, 10)
    right = np.arange(WIDTH) >= 15
    found = [
        Thing("cell", disc(12, 12, 10) & ~disc(12, 13, 4), "hole"),
        Thing("debris", box(3, 30, 9, 38) | disc(14, 44, 4), "parts"),
        Thing("cell", touching & ~right, "touching"),
        Thing("cell", touching & right, "touching"),
        Thing("debris", disc(34, 30, 6) & ~touching, "touching"),
    ]
    if overlaps:
        found += [Thing("cell", disc(32, 50, 8), "overlap"), Thing("debris", disc(36, 54, 8), "overlap")]
    return found


def save_pictures(folder: Path, names: Sequence[str] = NAMES, suffix: str = ".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}{suffix}")


def rings(mask: Mask) -> list[list[float]]:
    """One for each part, which has no holes."""
    return [with_seams([part.outer, *part.holes]).ravel().tolist() for part in outline(mask)]


def one_ring(mask: Mask) -> list[float]:
    return [float(v) for v in with_seams([r for part in outline(mask) for r in (part.outer, *part.holes)]).ravel()]


def values(found: Sequence[Thing], dtype: type = np.uint16) -> NDArray[Any]:
    label = np.zeros((HEIGHT, WIDTH), dtype=dtype)
    for number, thing in enumerate(found, start=1):
        label[thing.mask] = number
    return label


def pairs(ring: Sequence[float]) -> list[list[float]]:
    return [list(point) for point in zip(ring[::2], ring[1::2], strict=True)]


def label_images(root: Path, found: Sequence[Thing]) -> None:
    save_pictures(root / "images")
    (root / "masks").mkdir()
    for name in NAMES:
        Image.fromarray(values(found)).save(root / "masks" / f"{name}.tif")
    with (root / "classes.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "value", "class"])
        rows.writerows([f"{name}.png", n, each.category] for name in NAMES for n, each in enumerate(found, 1))


def label_folders(root: Path, found: Sequence[Thing]) -> None:
    """A folder for each class."""
    save_pictures(root / "PNGImages")
    for category in CLASSES:
        (root / "PedMasks" / category).mkdir(parents=True)
        own = [each for each in found if each.category == category]
        for name in NAMES:
            Image.fromarray(values(own, np.uint8)).save(root / "PedMasks" / category / f"{name}_mask.png")


def binary_masks(root: Path, found: Sequence[Thing]) -> None:
    save_pictures(root / "images")
    (root / "masks").mkdir()
    for name in NAMES:
        for number, each in enumerate(found):
            Image.fromarray(each.mask).save(root / "masks" / f"{name}_{each.category}_{number}.png")


def data_science_bowl(root: Path, found: Sequence[Thing]) -> None:
    for seed, name in enumerate(NAMES):
        save_pictures(root / name / "images", [name])
        (root / name / "masks").mkdir()
        for number, each in enumerate(found):
            file = root / name / "masks" / f"{seed:03d}{number:03d}.png"
            Image.fromarray(each.mask.astype(np.uint8) * 255).save(file)


def labelme(root: Path, found: Sequence[Thing]) -> None:
    """Polygons, grouped where there are several; a mask where there is a hole."""
    save_pictures(root / "photos")
    (root / "json").mkdir()
    for name in NAMES:
        shapes: list[dict[str, Any]] = [{"label": "x", "points": [[1, 1]], "shape_type": "point"}]
        for number, each in enumerate(found):
            common = {"label": each.category, "group_id": number, "flags": {}}
            if each.kind == "hole":
                ys, xs = np.nonzero(each.mask)
                part = each.mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
                file = io.BytesIO()
                Image.fromarray(part).save(file, "PNG")
                corners = [[int(xs.min()), int(ys.min())], [int(xs.max()), int(ys.max())]]
                shapes.append(
                    common
                    | {"shape_type": "mask", "points": corners, "mask": base64.b64encode(file.getvalue()).decode()}
                )
            else:
                shapes += [common | {"shape_type": "polygon", "points": pairs(ring)} for ring in rings(each.mask)]
        content = {"version": "5.4.1", "shapes": shapes, "imagePath": f"..\\photos\\{name}.png", "imageData": None}
        content |= {"imageHeight": HEIGHT, "imageWidth": WIDTH}
        (root / "json" / f"{name}.json").write_text(json.dumps(content))


def cvat(root: Path, found: Sequence[Thing]) -> None:
    """Grouped polygons, and a mask where there is a hole."""
    save_pictures(root / "images")
    lines = ["<?xml version='1.0' encoding='utf-8'?><annotations><version>1.1</version><meta><task><labels>"]
    lines += [f"<label><name>{name}</name></label>" for name in CLASSES]
    lines.append("</labels></task></meta>")
    for image, name in enumerate(NAMES):
        lines.append(f"<image id='{image}' name='{name}.png' width='{WIDTH}' height='{HEIGHT}'>")
        for number, each in enumerate(found, start=1):
            common = f"label={quoteattr(each.category)} source='manual' occluded='0' z_order='0' group_id='{number}'"
            if each.kind == "hole":
                ys, xs = np.nonzero(each.mask)
                part = each.mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
                runs = ", ".join(map(str, _runs(part.ravel())))
                place = f"left='{xs.min()}' top='{ys.min()}' width='{part.shape[1]}' height='{part.shape[0]}'"
                lines.append(f"<mask {common} rle='{runs}' {place}></mask>")
            for ring in [] if each.kind == "hole" else rings(each.mask):
                points = ";".join(f"{x:.2f},{y:.2f}" for x, y in pairs(ring))
                lines.append(f"<polygon {common} points='{points}'><attribute name='q'>1</attribute></polygon>")
        lines.append("<points label='cell' points='1.0,2.0' z_order='0'/></image>")
    (root / "annotations.xml").write_text("\n".join([*lines, "</annotations>"]))


def _runs(flat: NDArray[np.bool_]) -> list[int]:
    """Lengths of runs, background first."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(int)))
    return [int(each) for each in np.diff(np.concatenate([[0], edges, [len(flat)]]))]


def via(root: Path, found: Sequence[Thing]) -> None:
    """One polygon each, with seams to holes and parts."""
    save_pictures(root)
    entries = {}
    for name in NAMES:
        regions = []
        for each in found:
            ring = one_ring(each.mask)
            shape = {"name": "polygon", "all_points_x": ring[::2], "all_points_y": ring[1::2]}
            regions.append({"shape_attributes": shape, "region_attributes": {"kind": each.category}})
        entries[f"{name}.png1"] = {"filename": f"{name}.png", "size": 1, "regions": regions, "file_attributes": {}}
    (root / "via.json").write_text(json.dumps({"_via_settings": {}, "_via_img_metadata": entries}))


def label_studio(root: Path, found: Sequence[Thing]) -> None:
    """Brushes where there are holes or parts, and polygons in percent."""
    save_pictures(root / "images")
    tasks = []
    for number, name in enumerate(NAMES):
        results: list[dict[str, Any]] = []
        for each in found:
            common = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "to_name": "image"}
            if each.kind in ("hole", "parts"):
                value = {"format": "rle", "rle": brush(each.mask), "brushlabels": [each.category]}
                results.append(common | {"type": "brushlabels", "value": value})
            else:
                points = [[x * 100 / WIDTH, y * 100 / HEIGHT] for x, y in pairs(one_ring(each.mask))]
                value = {"points": points, "closed": True, "polygonlabels": [each.category]}
                results.append(common | {"type": "polygonlabels", "value": value})
        old = {"was_cancelled": True, "result": []}
        task = {"id": number, "data": {"image": f"/data/upload/3/0a1b2c3d-{name}.png"}}
        tasks.append(task | {"annotations": [old, {"was_cancelled": False, "result": results}]})
    (root / "export.json").write_text(json.dumps(tasks))


def brush(mask: Mask) -> list[int]:
    """The bits of Label Studio's run-length encoding, one after the other, as its format describes them."""
    pixels = np.repeat(np.where(mask.ravel(), 255, 0)[:, None], 4, axis=1).ravel()
    bits = f"{len(pixels):032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    place = 0
    for run in _lengths(pixels):
        done = 0
        while done < run:
            size, code = next((size, code) for code, size in enumerate((3, 4, 8, 16)) if run - done <= 1 << size)
            part = min(run - done, 5 if place == 0 else 1 << 16)  # the first few values one by one
            if place == 0:
                bits += f"0{0:02b}{part - 1:03b}" + "".join(f"{int(v):08b}" for v in pixels[:part])
            else:
                bits += f"1{code:02b}" + f"{part - 1:0{size}b}" + f"{int(pixels[place]):08b}"
            done, place = done + part, place + part
    bits += "0" * (-len(bits) % 8)
    return [int(bits[n : n + 8], 2) for n in range(0, len(bits), 8)]


def _lengths(pixels: NDArray[Any]) -> list[int]:
    edges = np.flatnonzero(np.diff(pixels)) + 1
    return [int(each) for each in np.diff(np.concatenate([[0], edges, [len(pixels)]]))]


def voc(root: Path, found: Sequence[Thing]) -> None:
    """With void borders of a pixel nowhere, a palette, and lists of both parts."""
    base = root / "VOCdevkit" / "VOC2012"
    save_pictures(base / "JPEGImages", suffix=".jpg")
    for folder in ("SegmentationObject", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    codes = {"cell": 1, "debris": 2}
    colours = [0, 0, 0, 128, 0, 0, 0, 128, 0, *[7] * 759]
    for name in NAMES:
        classes = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        for each in found:
            classes[each.mask] = codes[each.category]
        objects = values(found, np.uint8)
        classes[0, 0] = objects[0, 0] = 255
        for folder, picture in (("SegmentationObject", objects), ("SegmentationClass", classes)):
            image = Image.fromarray(picture, "L")
            image.putpalette(colours)
            image.save(base / folder / f"{name}.png")
    (base / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncell:128,0,0::\ndebris:0,128,0::\n"
    )
    (base / "ImageSets/Segmentation/train.txt").write_text("a\nb\nc\n")
    (base / "ImageSets/Segmentation/val.txt").write_text("d\ne\n")


def yolo(root: Path, found: Sequence[Thing]) -> None:
    """One polygon each, with seams, as shares with six digits."""
    for part, names in (("train", NAMES[:3]), ("val", NAMES[3:])):
        save_pictures(root / "images" / part, names)
        (root / "labels" / part).mkdir(parents=True)
        for name in names:
            lines = []
            for each in found:
                shares = [f"{v / (HEIGHT if n % 2 else WIDTH):.6f}" for n, v in enumerate(one_ring(each.mask))]
                lines.append(f"{CLASSES.index(each.category)} {' '.join(shares)}\n")
            (root / "labels" / part / f"{name}.txt").write_text("".join(lines))
    (root / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnc: 2\nnames: [cell, debris]\n")


def coco_content(found: Sequence[Thing], names: Sequence[str], suffix: str = ".png") -> dict[str, Any]:
    """Polygons, and uncompressed run lengths where there is a hole."""
    annotations = []
    for image, _ in enumerate(names):
        for each in found:
            rle = {"size": [HEIGHT, WIDTH], "counts": _runs(each.mask.ravel(order="F"))}
            shape: object = rle if each.kind == "hole" else rings(each.mask)
            common = {"id": len(annotations), "image_id": image, "category_id": 1 + CLASSES.index(each.category)}
            box = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(each.mask, dtype=np.uint8))).tolist()
            area = int(each.mask.sum())
            annotations.append(common | {"segmentation": shape, "bbox": box, "area": area, "iscrowd": 0})
    images = [{"id": n, "file_name": f"{x}{suffix}", "height": HEIGHT, "width": WIDTH} for n, x in enumerate(names)]
    categories = [{"id": 1, "name": "cell", "supercategory": "cells"}]
    categories.append({"id": 2, "name": "debris", "supercategory": "cells"})
    return {"images": images, "annotations": annotations, "categories": categories}


def roboflow(root: Path, found: Sequence[Thing]) -> None:
    for part, names in (("train", NAMES[:3]), ("valid", NAMES[3:])):
        save_pictures(root / part, names)
        content = coco_content(found, names)
        content["categories"].insert(0, {"id": 0, "name": "cells", "supercategory": "none"})
        (root / part / "_annotations.coco.json").write_text(json.dumps(content))


def fiftyone(root: Path, found: Sequence[Thing]) -> None:
    save_pictures(root / "data")
    (root / "labels.json").write_text(json.dumps(coco_content(found, NAMES)))


def livecell(root: Path, found: Sequence[Thing]) -> None:
    """A file for each cell type, its annotations an object; pictures in folders of types."""
    for cell, folder in (("a172", "A172"), ("skbr3", "SkBr3")):
        names = [f"{folder}_Phase_C7_{each}" for each in NAMES]
        save_pictures(root / "images/livecell_train_val_images" / folder, names, ".tif")
        home = root / "annotations/LIVECell_single_cells" / cell
        home.mkdir(parents=True)
        for part, own in (("train", names[:3]), ("val", names[3:])):
            content = coco_content(found, own, ".tif")
            content["annotations"] = {str(each["id"]): each for each in content["annotations"]}
            (home / f"livecell_{cell}_{part}.json").write_text(json.dumps(content))


def darwin(root: Path, found: Sequence[Thing]) -> None:
    """Polygons, whose inner paths are holes; a raster layer for those of kind ``touching``."""
    save_pictures(root / "images")
    for name in NAMES:
        raster = [each for each in found if each.kind == "touching"]
        flat = values(raster).ravel()
        starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
        runs = np.stack([flat[starts], np.diff(np.append(starts, len(flat)))], axis=1).ravel()
        annotations: list[dict[str, Any]] = []
        for number, each in enumerate(found):
            common = {"id": f"id-{number}", "name": each.category, "slot_names": ["0"]}
            if each in raster:
                annotations.append(common | {"mask": {}})
            else:
                paths = [ring for part in outline(each.mask) for ring in (part.outer, *part.holes)]
                content = {"paths": [[{"x": float(x), "y": float(y)} for x, y in path] for path in paths]}
                annotations.append(common | {"polygon": content, "bounding_box": {"x": 0, "y": 0, "w": 1, "h": 1}})
        ids = {f"id-{number}": raster.index(each) + 1 for number, each in enumerate(found) if each in raster}
        layer = {"dense_rle": runs.tolist(), "mask_annotation_ids_mapping": ids, "total_pixels": len(flat)}
        annotations.append({"id": "layer", "name": "__raster_layer__", "raster_layer": layer, "slot_names": ["0"]})
        slot = {"type": "image", "slot_name": "0", "width": WIDTH, "height": HEIGHT, "source_files": []}
        item = {"name": f"{name}.png", "path": "/", "slots": [slot]}
        (root / f"{name}.json").write_text(json.dumps({"version": "2.0", "item": item, "annotations": annotations}))


WRITERS: dict[str, tuple[str, Callable[[Path, Sequence[Thing]], None], bool]] = {
    "label images, CSV": ("label-images", label_images, False),
    "label images, folders": ("label-images", label_folders, False),
    "binary masks": ("binary-masks", binary_masks, True),
    "Data Science Bowl": ("binary-masks", data_science_bowl, True),
    "LabelMe": ("labelme", labelme, True),
    "CVAT": ("cvat", cvat, True),
    "VIA": ("via", via, True),
    "Label Studio": ("label-studio", label_studio, True),
    "Pascal VOC": ("voc", voc, False),
    "YOLO": ("yolo", yolo, True),
    "Roboflow COCO": ("coco", roboflow, True),
    "FiftyOne COCO": ("coco", fiftyone, True),
    "LIVECell": ("livecell", livecell, True),
    "Darwin": ("darwin", darwin, True),
}
"""By name: the kind, what writes it, and whether it can have overlaps."""
