"""What stitching tiles loses, cuts and finds twice, and what it takes: ``python -m tests.benchmarks.tiles WHAT``.

``seams [--mosaics 200]``: mosaics of generated scenes, whose instances lie on the seams of 4 x 4 tiles. In place of a
model the truth is cut to every tile, its masks shifted and grown or shrunk by a pixel, small parts missed now and then,
with scores that are lower for smaller parts and some doubtful duplicates. ``--checkpoint BEST.PT`` lets a model look,
at tiles and at the whole mosaic. Beside the project's rule (by masks) stands SAHI's (0.12, by boxes): greedy merging of
boxes of which the smaller lies in the larger by half (IOS 0.5), class by class, masks united, the highest score kept.

Results of at least 0.3 are compared with the truth, class by class. An instance is found where a result has a mask IoU
of 0.5 with it, twice where several have; cut where none has, but some lie in it for the most part; fused where none
has, but one covers most of it; else lost. Fragments are results that lie in an instance, and are not it.

``memory CHECKPOINT [--sizes 2000x2000 ...]``: the peak of ``dsctool predict --tiles`` in a process of its own. Without
a checkpoint, of everything but a network: twenty instances of 40 to 200 pixels are given to every tile.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dsctool.config.tiles_schema import TilesConfig
from dsctool.data.tiles import tiles_of
from dsctool.ops.spans import Spans, Window
from dsctool.ops.stitching import Piece, stitch

OVERLAPS = (0.0, 0.1, 0.25)
SIDE = 160
"""Of a scene, in pixels; a mosaic has four by four of them."""
TILE = 144
COUNT = 4
"""Tiles in a row; what a mosaic has beyond them is cut off."""
THRESHOLD = 0.3
SHOWN = 10
"""After so many mosaics the table so far is printed."""
Json = dict[str, Any]


@dataclass(frozen=True)
class Mosaic:
    """A picture of scenes side by side, and its instances."""

    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    masks: list[Spans]
    labels: list[int]

    @cached_property
    def boxes(self) -> list[Window]:
        """Around the masks."""
        return [mask.box for mask in self.masks]

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.pixels.shape[:2]
        return height, width

    def part(self, side: int) -> Mosaic:
        """The upper left square of so many pixels."""
        window = Window(0, 0, side, side)
        inside = [(mask.inside(window), label) for mask, label in zip(self.masks, self.labels, strict=True)]
        kept = [(mask, label) for mask, label in inside if mask.area]
        return Mosaic(self.pixels[:side, :side], [mask for mask, _ in kept], [label for _, label in kept])


Result = tuple[float, int, Spans]
"""Score, class and mask."""


def mosaics(scenes: Path, count: int, *, columns: int = COUNT, seed: int = 0) -> Iterator[Mosaic]:
    """Of a generated set's validation images, drawn anew for each."""
    truth = json.loads((scenes / "annotations" / "instances_val.json").read_text())
    categories = sorted(category["id"] for category in truth["categories"])
    random = np.random.default_rng(seed)
    for _ in range(count):
        pixels = np.zeros((SIDE * columns, SIDE * columns, 3), dtype=np.uint8)
        masks, labels = [], []
        for place, image in enumerate(random.choice(len(truth["images"]), columns**2).tolist()):
            y, x = (SIDE * part for part in divmod(place, columns))
            entry = truth["images"][image]
            with Image.open(scenes / "val" / entry["file_name"]) as scene:
                pixels[y : y + SIDE, x : x + SIDE] = np.asarray(scene)
            for annotation in truth["annotations"]:
                if annotation["image_id"] == entry["id"]:
                    masks.append(Spans.of(annotation["segmentation"]).moved(x, y))
                    labels.append(categories.index(annotation["category_id"]))
        yield Mosaic(pixels, masks, labels)


# --- what tiles find --------------------------------------------------------------------------------


def cut_truth(masks: Sequence[Spans], labels: Sequence[int], windows: Sequence[Window]) -> list[Piece]:
    """All that lies in each window, exactly."""
    return [
        Piece(number, part.box, 0.9, label, part)
        for number, window in enumerate(windows)
        for mask, label in zip(masks, labels, strict=True)
        if len((part := mask.inside(window)).column)
    ]


def seen_by_an_oracle(mosaic: Mosaic, windows: Sequence[Window], random: np.random.Generator) -> list[Piece]:
    """The truth as a good model might see it in every window."""
    pieces = []
    for number, window in enumerate(windows):
        for mask, label, box in zip(mosaic.masks, mosaic.labels, mosaic.boxes, strict=True):
            if min(box.shared(window).size) <= 0:
                continue
            part = mask.inside(window)
            share = part.area / max(mask.area, 1)
            if part.area < 6 or random.random() > min(1.0, 0.3 + 2 * share):
                continue
            found = _jittered(part, random, mosaic.size).inside(window)
            if not found.area:
                continue
            score = float(np.clip(0.55 + 0.4 * share + random.normal(0, 0.05), 0.05, 0.99))
            pieces.append(Piece(number, found.box, score, label, found))
            if random.random() < 0.2:
                again = found.moved(int(random.integers(-4, 5)), int(random.integers(-4, 5))).inside(window)
                if again.area:
                    pieces.append(Piece(number, again.box, float(random.uniform(0.01, 0.25)), label, again))
    return pieces


def _jittered(mask: Spans, random: np.random.Generator, size: tuple[int, int]) -> Spans:
    """Shifted by up to a pixel each way, and every column a little longer or shorter at each end."""
    shifted = mask.moved(int(random.integers(-1, 2)), int(random.integers(-1, 2)))
    top = shifted.top + random.integers(-1, 2, len(shifted.top))
    bottom = shifted.bottom + random.integers(-1, 2, len(shifted.top))
    keep = bottom > top
    spans = Spans(shifted.column[keep], top[keep], bottom[keep])
    return Spans.union([spans, spans.inside(Window(0, 0, 0, 0))]).inside(Window(0, 0, size[1], size[0]))


class Seen:
    """What a trained model finds in tiles, and in the whole mosaic at the same scale."""

    def __init__(self, checkpoint: Path) -> None:
        import dsctool

        words = ["data.tta=null", "data.tiles=null"]
        whole = [*words, "data.test_resize.short_sides=[10000]", "data.test_resize.long_side={side}"]
        many = ["postprocess.max_per_image=300", "model.rpn.test_max_proposals=900", "model.rpn.test_pre_nms=2000"]
        tile = [*words, f"data.test_resize.short_sides=[{TILE}]", f"data.test_resize.long_side={TILE}"]
        self._tile = dsctool.load_model(checkpoint, overrides=tile, device="cpu")
        self._whole = {
            side: dsctool.load_model(
                checkpoint, overrides=[*many, *(word.format(side=side) for word in whole)], device="cpu"
            )
            for side in map(side_of, OVERLAPS)
        }

    def pieces(self, mosaic: Mosaic, windows: Sequence[Window], random: np.random.Generator) -> list[Piece]:
        import torch

        from dsctool.engine.tiles import pieces_of

        del random
        found = []
        picture = torch.from_numpy(mosaic.pixels).permute(2, 0, 1)
        with torch.no_grad():
            for number, window in enumerate(windows):
                pixels = picture[:, window.y1 : window.y2, window.x1 : window.x2]
                found += pieces_of(self._detect(self._tile, pixels), number, window)
        return found

    def whole(self, mosaic: Mosaic) -> list[Result]:
        import torch

        from dsctool.engine.tiles import pieces_of

        pixels = torch.from_numpy(mosaic.pixels).permute(2, 0, 1)
        pieces = pieces_of(self._detect(self._whole[mosaic.size[0]], pixels), 0, Window(0, 0, *mosaic.size[::-1]))
        return [(piece.score, piece.label, piece.mask) for piece in pieces]

    @staticmethod
    def _detect(model: Any, pixels: Any) -> Any:
        from dsctool.data.transforms import inference_transform, pad_images

        batch = pad_images([inference_transform(model.config.data).image(pixels)], model.config.data.pad_divisor)
        (found,) = model.eval().detect(batch.tensor, batch.sizes, [tuple(pixels.shape[-2:])])
        return found


# --- rules ------------------------------------------------------------------------------------------


def by_masks(pieces: Sequence[Piece], windows: Sequence[Window]) -> list[Result]:
    """The project's rule."""
    return [(each.score, each.label, each.mask) for each in stitch(pieces, windows, agreement=0.5)]


def by_boxes(pieces: Sequence[Piece], windows: Sequence[Window]) -> list[Result]:
    """SAHI's rule: greedy non-maximum merging of what scores enough, by the boxes' intersection over the smaller."""
    del windows
    left = sorted((piece for piece in pieces if piece.score >= THRESHOLD), key=lambda piece: -piece.score)
    results = []
    while left:
        best, *left = left
        near = [piece for piece in left if piece.label == best.label and _ios(best.box, piece.box) >= 0.5]
        left = [piece for piece in left if piece not in near]
        box, mask = best.box, best.mask
        for piece in near:
            if _ios(box, piece.box) >= 0.5:
                box = (*np.minimum(box[:2], piece.box[:2]), *np.maximum(box[2:], piece.box[2:]))
                mask = Spans.union([mask, piece.mask])
        results.append((best.score, best.label, mask))
    return results


def _ios(one: Sequence[float], other: Sequence[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    smaller = min((each[2] - each[0]) * (each[3] - each[1]) for each in (one, other))
    return max(width, 0) * max(height, 0) / max(smaller, 1e-9)


# --- counting -----------------------------------------------------------------------------------------


def outcomes(mosaic: Mosaic, results: Sequence[Result], windows: Sequence[Window]) -> Counter[str]:
    """How many instances on seams became what, and how many fragments there are."""
    counts: Counter[str] = Counter()
    shown = [result for result in results if result[0] >= THRESHOLD]
    boxes = [found.box for _, _, found in shown]
    matched: set[int] = set()
    inside: set[int] = set()
    for mask, label, box in zip(mosaic.masks, mosaic.labels, mosaic.boxes, strict=True):
        good = parts = covers = 0
        for row, (_, other, found) in enumerate(shown):
            if other != label or min(boxes[row].shared(box).size) <= 0 or not (common := mask.common(found)):
                continue
            if common >= 0.5 * (mask.area + found.area - common):
                good += 1
                matched.add(row)
            elif common > 0.5 * found.area:
                parts += 1
                inside.add(row)
            elif common > 0.5 * mask.area:
                covers += 1
        near = [window for window in windows if min(box.shared(window).size) > 0]
        cut = any(mask.inside(window).area < mask.area for window in near)
        if cut:
            kind = "once" if good == 1 else "twice" if good else "cut" if parts else "fused" if covers else "lost"
            counts[kind] += 1
            counts["on seams"] += 1
    counts["fragments"] = len(inside - matched)
    return counts


def side_of(overlap: float) -> int:
    """Of what so many tiles cover that overlap by this share."""
    return TILE + (COUNT - 1) * (TILE - round(TILE * overlap))


Look = Callable[[Mosaic, Sequence[Window], np.random.Generator], list[Piece]]
COLUMNS = ("on seams", "once", "twice", "cut", "fused", "lost", "fragments")


def seams(count: int, checkpoint: Path | None) -> None:
    """Print a table: a row for each overlap and rule."""
    from dsctool.data.synthetic.dataset import synthesize

    with tempfile.TemporaryDirectory() as name:
        scenes = Path(name) / "scenes"
        synthesize(scenes, images=1, val_images=60, size=(SIDE, SIDE), huddle=0.5, seed=5)
        model = None if checkpoint is None else Seen(checkpoint)
        look: Look = seen_by_an_oracle if model is None else model.pieces
        totals: dict[str, Counter[str]] = {}
        for number, large in enumerate(mosaics(scenes, count)):
            for overlap in OVERLAPS:
                mosaic = large.part(side_of(overlap))
                windows = tiles_of(mosaic.size, TilesConfig(size=TILE, overlap=overlap))
                pieces = look(mosaic, windows, np.random.default_rng(number))
                for rule in (by_masks, by_boxes):
                    row = f"{overlap:<5} {rule.__name__}"
                    totals.setdefault(row, Counter()).update(outcomes(mosaic, rule(pieces, windows), windows))
                if model is not None:
                    whole = model.whole(mosaic)
                    totals.setdefault(f"{overlap:<5} whole", Counter()).update(outcomes(mosaic, whole, windows))
            if (number + 1) % SHOWN == 0 or number + 1 == count:
                _show(totals, number + 1)


def _show(totals: dict[str, Counter[str]], count: int) -> None:
    print(f"{f'{count} mosaics':<16}", *(f"{column:>10}" for column in COLUMNS))
    for row, counts in totals.items():
        print(f"{row:<16}", *(f"{counts[column]:>10}" for column in COLUMNS), flush=True)


# --- memory -------------------------------------------------------------------------------------------


def memory(checkpoint: Path | None, sizes: Sequence[str]) -> None:
    """Print seconds and the peak of runs over pictures of these sizes, ``WIDTHxHEIGHT[:TILE[:SUFFIX]]``."""
    import sys

    from tests.benchmarks.processes import measured

    with tempfile.TemporaryDirectory() as name:
        for text in sizes:
            given = text.split(":")
            size, tile, suffix = given + ["", "1024", "png"][len(given) :]
            width, height = map(int, size.split("x"))
            path = Path(name) / f"{size}.{suffix}"
            measured([sys.executable, "-m", "tests.benchmarks.tiles", "picture", path, width, height])
            words: list[object] = ["tests.benchmarks.tiles", "without", path, tile]
            if checkpoint is not None:
                output = Path(name) / f"out{text}"
                words = ["dsctool", "predict", checkpoint, path, "--tiles", tile, "--output", output, "--device", "cpu"]
            usage = measured([sys.executable, "-m", *words])
            said = next(line for line in usage.output.splitlines() if "results for" in line).rsplit(": ", 1)[-1]
            print(f"{size} {suffix}, tiles of {tile}: {usage.peak:.0f} MiB, {usage.seconds:.0f} s, {said}", flush=True)
            path.unlink()


def without_a_network(path: Path, tile: int) -> None:
    """Look at a picture by tiles, and draw what they are given; the results go the way of real ones."""
    import torch

    from dsctool.config.schema import DataConfig
    from dsctool.data.image_files import ImageFile
    from dsctool.engine.inference import to_results
    from dsctool.engine.tiles import found_in_files
    from dsctool.structures import Detections
    from dsctool.visualize.overlays import save_overlay

    class Given(torch.nn.Module):
        def detect(self, images: Any, sizes: Any, originals: Any, **more: Any) -> list[Detections]:
            corners = torch.rand(20, 2) * (tile - 40)
            boxes = torch.cat([corners, (corners + 40 + 160 * torch.rand(20, 2)).clamp(max=tile)], dim=1)
            probs = torch.rand(20, 28, 28) * 0.4 + 0.4
            return [Detections(boxes, torch.rand(20), torch.zeros(20).long(), probs, size) for size in originals]

    sides = {"short_sides": [192], "long_side": 192}
    data = DataConfig.model_validate({"tiles": {"size": tile}, "test_resize": sides})
    files = [ImageFile(path, 1)]
    ((seen, found),) = found_in_files(Given(), files, data, device=torch.device("cpu"))
    from dsctool.data.records import Category

    results = to_results(found, 1, [Category(1, "thing")])
    target = path.with_suffix(".overlay.jpg")
    shown = [each for each in results if each["score"] >= 0.9]
    save_overlay(target, seen.shown, shown, {1: "thing"}, size=seen.original_size)
    print(f"{len(results)} results for 1 images")


def picture(path: Path, width: int, height: int) -> None:
    """Write a picture full of a generated scene; a TIFF is stored in tiles, piece by piece."""
    from dsctool.data.synthetic.scenes import CLASSES, draw_scene

    scene = draw_scene(np.random.default_rng(0), (192, 192), 0.5, list(range(len(CLASSES))))
    tile = np.asarray(scene.image)
    if path.suffix == ".tif":
        import tifffile

        block = np.tile(tile, (2, 2, 1))[:256, :256]
        blocks = (block for _ in range(-(-height // 256) * -(-width // 256)))
        tifffile.imwrite(
            path, blocks, shape=(height, width, 3), dtype=np.uint8, tile=(256, 256), photometric="rgb", bigtiff=True
        )  # fmt: skip
        return
    row = np.tile(tile, (1, -(-width // 192), 1))[:, :width]
    Image.fromarray(np.tile(row, (-(-height // 192), 1, 1))[:height]).save(path, compress_level=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    seams_parser = commands.add_parser("seams")
    seams_parser.add_argument("--mosaics", type=int, default=200)
    seams_parser.add_argument("--checkpoint", type=Path)
    memory_parser = commands.add_parser("memory")
    memory_parser.add_argument("checkpoint", type=Path, nargs="?")
    memory_parser.add_argument("--sizes", nargs="+", default=["2000x2000", "8000x6000", "30000x20000:2048"])
    without_parser = commands.add_parser("without")
    without_parser.add_argument("path", type=Path)
    without_parser.add_argument("tile", type=int)
    picture_parser = commands.add_parser("picture")
    picture_parser.add_argument("path", type=Path)
    picture_parser.add_argument("width", type=int)
    picture_parser.add_argument("height", type=int)
    given = parser.parse_args()
    match given.what:
        case "seams":
            seams(given.mosaics, given.checkpoint)
        case "memory":
            memory(given.checkpoint, given.sizes)
        case "without":
            without_a_network(given.path, given.tile)
        case _:
            picture(given.path, given.width, given.height)
