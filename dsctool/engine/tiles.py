"""From image files to what is in them: as a whole, or by tiles where ``data.tiles`` says so."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dsctool.config.schema import DataConfig
from dsctool.config.tiles_schema import TilesConfig
from dsctool.data.bands import Channels
from dsctool.data.coco import CocoDataset
from dsctool.data.file_names import image_path
from dsctool.data.image_files import ImageFile
from dsctool.data.images import Decoded, image_size
from dsctool.data.loader import eval_loader
from dsctool.data.pictures import Picture, picture_batches
from dsctool.data.samplers import ALONE, Ranks
from dsctool.data.tiles import fits, tiles_of
from dsctool.data.transforms import SampleInfo, inference_transform, pad_images
from dsctool.data.windows import InMemory, Preview, Windows, open_windows
from dsctool.engine.inference import Model, Runnable, detections
from dsctool.errors import DataError
from dsctool.ops.geometry import resized
from dsctool.ops.masks import encode_masks
from dsctool.ops.spans import Spans, Window
from dsctool.ops.stitching import Piece, Stitched, stitch
from dsctool.structures import Detections, ImageBatch, LimitName, Targets
from dsctool.terms import Precision, Progress, Size

SHRUNK = 4
"""What is made smaller by more than this is said to be."""


def found_in_files(
    model: Model,
    files: Iterable[ImageFile],
    config: DataConfig,
    *,
    device: torch.device,
    stage_masks: bool = False,
    semantic: bool = False,
    precision: Precision = "float32",
    on_fault: Callable[[DataError], None] | None = None,
    preview: bool = True,
    progress: Progress | None = None,
) -> Iterator[tuple[Picture, Detections]]:
    """What ``model`` finds in image files, one by one, in the pixels of each.

    Images that are larger than a tile of ``config.tiles`` have their masks run-length encoded, and no masks of stages
    and no semantic map. Other arguments as for :func:`~dsctool.engine.inference.detections`.

    on_fault: told of files that cannot be read, which are left out; without it they raise their DataError.
    preview: pictures by tiles are shown, made smaller where they are very large; they do not keep the network's pixels.
    progress: told how many tiles of a picture are done.
    """
    tiles = config.tiles
    if tiles is None:
        batches = picture_batches(files, config, on_fault=on_fault)
        yield from detections(
            model, batches, device=device, stage_masks=stage_masks, semantic=semantic, precision=precision
        )
        return
    whole, channels = config.model_copy(update={"tiles": None}), Channels.of(config)
    for file in files:
        try:
            size = image_size(file.path, file.size)
            if fits(size, tiles):
                yield from found_in_files(
                    model, [file], whole, device=device, stage_masks=stage_masks, semantic=semantic, precision=precision
                )
                continue
            kept = Preview(size) if preview else None
            with open_windows(file.path, file.size, channels) as windows:
                tiling = Tiling(model, config, tiles, device, precision, progress)
                found = tiling.detect(windows, str(file.path), preview=kept)
                said = windows.remarks()
                shown = torch.zeros((3, 0, 0), dtype=torch.uint8) if kept is None else windows.for_people(kept.pixels)
        except DataError as error:
            if on_fault is None:
                raise
            on_fault(error)
            continue
        nothing = torch.zeros((channels.count, 0, 0), dtype=torch.uint8)
        yield Picture(file.id, size, str(file.path), file, nothing, size, shown, said), found


def found_in_set(
    model: Model,
    dataset: CocoDataset,
    config: DataConfig,
    *,
    device: torch.device,
    ranks: Ranks = ALONE,
    precision: Precision = "float32",
    timeout: float = 0,
) -> Generator[tuple[SampleInfo, Detections], None, None]:
    """What ``model`` finds in the images of a data set, which loads them; those of this process, in their order.

    By tiles, images are read as they are looked at. Arguments as for :func:`~dsctool.data.loader.eval_loader` and
    :func:`~dsctool.engine.inference.detections`.
    """
    if config.tiles is None:
        loader = eval_loader(dataset, config, ranks=ranks, pin_memory=device.type == "cuda", timeout=timeout)
        yield from detections(model, loader, device=device, precision=precision)
        return
    infos = [dataset.image_info(index) for index in range(ranks.rank, len(dataset), ranks.world)]
    files = [ImageFile(image_path(dataset.files.images, info.file_name), info.id, info.size) for info in infos]
    yield from found_in_files(model, files, config, device=device, precision=precision, preview=False)


def found_in_pictures(
    model: Runnable, pictures: Iterable[Decoded], *, device: torch.device
) -> Iterator[tuple[Tensor, Detections]]:
    """What ``model`` finds in pictures by the tiles of its configuration.

    Each comes with what is shown of its picture, which is smaller where it was very large.
    """
    config = model.config.data
    assert config.tiles is not None
    transform = inference_transform(config)
    for number, picture in enumerate(pictures, start=1):
        windows, name = InMemory(picture), f"image {number}"
        if fits(windows.size, config.tiles):
            batch = pad_images([transform.image(picture.pixels)], config.pad_divisor)
            ((_, found),) = detections(model, [(batch, [], [SampleInfo(0, windows.size, name)])], device=device)
            yield picture.shown, found
            continue
        preview = Preview(windows.size)
        found = Tiling(model, config, config.tiles, device).detect(windows, name, preview=preview)
        yield preview.pixels, found


@dataclass(frozen=True)
class _TileInfo(SampleInfo):
    """A tile. number: which one, in the order of its image's."""

    number: int


@dataclass(frozen=True)
class Tiling:
    """How a model looks at images by tiles; fields as the arguments of :func:`found_in_files`."""

    model: Model
    config: DataConfig
    tiles: TilesConfig
    device: torch.device
    precision: Precision = "float32"
    progress: Progress | None = None

    def detect(self, windows: Windows, name: str, *, preview: Preview | None = None) -> Detections:
        """What is in an image; name: of its file. preview: gets all windows."""
        places = tiles_of(windows.size, self.tiles)
        batches = self._batches(windows, places, name, preview)
        pieces: list[Piece] = []
        candidates: list[Detections] = []
        reached: set[LimitName] = set()
        masks = False
        for done, (info, found) in enumerate(
            detections(self.model, batches, device=self.device, precision=self.precision), start=1
        ):
            place = places[info.number]
            pieces += pieces_of(found, info.number, place)
            reached |= found.reached
            masks = masks or found.mask_probs is not None
            if found.candidates is not None:
                candidates.append(_moved(found.candidates, place))
            if self.progress is not None:
                self.progress("tiles of an image", done, len(places))
        kept = stitch(pieces, places, agreement=self.tiles.agreement)[: self.tiles.max_per_image]
        return _whole(kept, windows.size, masks=masks, candidates=candidates, reached=reached)

    def _batches(
        self, windows: Windows, places: Sequence[Window], name: str, preview: Preview | None
    ) -> Iterator[tuple[ImageBatch, list[Targets], list[_TileInfo]]]:
        transform = inference_transform(self.config)
        for first in range(0, len(places), self.tiles.batch):
            numbers = range(first, min(first + self.tiles.batch, len(places)))
            images = []
            for number in numbers:
                part = windows.read(places[number])
                if preview is not None:
                    preview.add(places[number], part.shown)
                images.append(transform.image(part.pixels))
            infos = [_TileInfo(0, places[number].size, name, number) for number in numbers]
            yield pad_images(images, self.config.pad_divisor), [], infos


def pieces_of(found: Detections, number: int, place: Window) -> list[Piece]:
    """The detections of the tile at a place, in the pixels of its image. number: which tile."""
    boxes, scores, labels = found.boxes.tolist(), found.scores.tolist(), found.labels.tolist()
    if found.mask_probs is None:
        masks = [Spans.rectangle(Window(round(x1), round(y1), round(x2), round(y2))) for x1, y1, x2, y2 in boxes]
    else:
        encoded = encode_masks(found.mask_probs, found.boxes, found.size, whole_pixels=found.whole_pixels)
        masks = [Spans.of(mask) for mask in encoded]
    x, y = place.x1, place.y1
    return [
        Piece(number, (x1 + x, y1 + y, x2 + x, y2 + y), score, label, mask.moved(x, y))
        for (x1, y1, x2, y2), score, label, mask in zip(boxes, scores, labels, masks, strict=True)
    ]


def _moved(found: Detections, place: Window) -> Detections:
    """Boxes of a tile in the pixels of the image, on the CPU."""
    corner = torch.tensor([place.x1, place.y1, place.x1, place.y1])
    return Detections(found.boxes.cpu() + corner, found.scores.cpu(), found.labels.cpu(), None, found.size)


def _whole(
    kept: Sequence[Stitched], size: Size, *, masks: bool, candidates: Sequence[Detections], reached: set[LimitName]
) -> Detections:
    before = None
    if candidates:
        boxes, scores, labels = (
            torch.cat([getattr(each, column) for each in candidates]) for column in ("boxes", "scores", "labels")
        )
        best = scores.argsort(descending=True, stable=True)
        before = Detections(boxes[best], scores[best], labels[best], None, size)
    return Detections(
        boxes=torch.tensor([each.box for each in kept], dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([each.score for each in kept], dtype=torch.float32),
        labels=torch.tensor([each.label for each in kept], dtype=torch.int64),
        mask_probs=None,
        size=size,
        candidates=before,
        reached=frozenset(reached),
        encoded=tuple(each.mask.rle(size) for each in kept) if masks else None,
    )


# --- how much smaller -----------------------------------------------------------------------------


def shrinkage(size: Size, config: DataConfig) -> float:
    """How many times smaller the model sees what is in an image of ``size``; in the largest of several views."""
    seen = size if config.tiles is None else tiles_of(size, config.tiles)[0].size
    return min(max(seen) / max(resized(seen, *sides)) for sides in config.test_resizes)


def shrink_note(name: str, size: Size, config: DataConfig) -> str | None:
    """What to say of an image that the model sees more than fourfold smaller, and what to do; None of others."""
    factor = shrinkage(size, config)
    if factor <= SHRUNK:
        return None
    side = config.test_resizes[-1][0]
    effect = f"shrunk {factor:.0f} times: a 40-pixel object becomes {40 / factor:.0f}"
    if config.tiles is None or fits(size, config.tiles):
        return f"{name}: {size[1]}x{size[0]} is {effect}; use --tiles {side} (data.tiles.size={side})"
    tile = config.tiles.size
    return f"{name}: tiles of {tile}x{tile} are {effect}; use smaller ones: --tiles {side} (data.tiles.size={side})"


def worst_shrunk(dataset: CocoDataset, config: DataConfig) -> tuple[str, ...]:
    """:func:`shrink_note` of the image of a data set that is made smallest, if any."""
    infos = [dataset.image_info(index) for index in range(len(dataset))]
    worst = max(infos, key=lambda info: shrinkage(info.size, config), default=None)
    note = None if worst is None else shrink_note(worst.file_name, worst.size, config)
    return () if note is None else (note,)
