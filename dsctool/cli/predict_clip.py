"""``dsctool predict`` of a video: frames come and go, and what is found in them is numbered from frame to frame."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from dsctool.cli.output import clear_results, counting, keep_apart, prepare_folder
from dsctool.errors import DataError, DsctoolError

if TYPE_CHECKING:
    from dsctool.cli.options import ComputedIn
    from dsctool.data.records import Category
    from dsctool.data.video import Clip, Frame
    from dsctool.structures import Detections
    from dsctool.visualize.colors import Color
    from dsctool.visualize.draw import Style

RESULTS, FRAMES, COUNTS, OVERLAYS = "predictions.json", "images.json", "counts.csv", "overlays.mp4"
COLUMNS = ("frame", "seconds", "category_id", "class", "count")
Every = Annotated[int, typer.Option("--every", min=1, metavar="N", help="Of a video: every N-th frame.")]


@dataclass(frozen=True)
class Look:
    """How a video is looked at. threshold: score from which on things are numbered, counted and drawn.

    style: of the overlays; None: there are none.
    """

    every: int
    threshold: float
    style: Style | None
    precision: ComputedIn
    device: str


def refuse_for_video(options: dict[str, object]) -> None:
    """Options of ``dsctool predict`` that are given, and are for pictures."""
    for name, given in options.items():
        if given:
            raise typer.BadParameter("is for pictures, not for a video", param_hint=name)


def predict_clip(
    checkpoint: Path, source: str, output: Path, overrides: Sequence[str], look: Look, *, overwrite: bool
) -> None:
    """Write what is found in a video, its overlays as a video, and how much of each class is in every frame.

    A damaged clip leaves what was found before the damage, and the exit code is 1. Ctrl-C ends the clip where it is:
    cameras do not end by themselves.
    """
    from dsctool.cli.run_model import inference_device
    from dsctool.data.video import open_clip
    from dsctool.engine.clips import found_in_clip
    from dsctool.engine.inference import load_runnable

    keep_apart([output / name for name in (RESULTS, FRAMES, COUNTS, OVERLAYS)], [Path(source)])
    model = load_runnable(checkpoint, overrides=overrides, device=inference_device(look.device, look.precision))
    prepare_folder(output)
    clear_results(output, [RESULTS, FRAMES, COUNTS, OVERLAYS], overwrite=overwrite)
    fault: DataError | None = None
    with open_clip(source) as clip, counting() as progress, _writing(output, clip, model.categories, look) as writing:
        expected = -(-clip.length // look.every)
        try:
            for frame, found in found_in_clip(model, clip, every=look.every, precision=look.precision.value):
                writing.add(frame, found)
                progress("frames", writing.frames, max(expected, writing.frames))
        except KeyboardInterrupt:
            typer.echo("stopped: what was found so far is kept", err=True)
        except DataError as error:
            fault = error
        if not writing.frames:
            raise fault or DataError(f"{clip.name}: there are no frames in it")
    typer.echo(f"{output / RESULTS}: {writing.results} results for {writing.frames} frames of {clip.name}")
    typer.echo(f"{output / COUNTS}: {writing.things} different things that score at least {look.threshold:g}")
    if fault is not None:
        raise DsctoolError(f"{fault}; what was found before is kept")


@contextmanager
def _writing(output: Path, clip: Clip, categories: Sequence[Category], look: Look) -> Iterator[_Writing]:
    """Files that grow frame by frame, and get their names where the block ends without an error."""
    from dsctool.files import whole_file

    names = [RESULTS, FRAMES, COUNTS, *([OVERLAYS] if look.style is not None else [])]
    with ExitStack() as stack:
        files = {name: stack.enter_context(whole_file(output / name)) for name in names}
        writing = _Writing(files, clip, categories, look)
        yield writing
        writing.close()


def _color(number: int) -> Color:
    """Of a thing in all frames."""
    from dsctool.visualize.colors import PALETTE, shade

    return shade(PALETTE[(number - 1) % len(PALETTE)], (number - 1) // len(PALETTE))


class _Writing:
    """What of every frame goes where. frames, results: written so far."""

    def __init__(self, files: dict[str, BinaryIO], clip: Clip, categories: Sequence[Category], look: Look) -> None:
        from dsctool.data.video import ClipWriter
        from dsctool.engine.tracking import Tracker
        from dsctool.engine.work_file import JsonList, csv_rows

        self.frames, self.results = 0, 0
        self._clip, self._categories, self._look = clip, categories, look
        self._names = {category.id: category.name for category in categories}
        self._json, self._images = JsonList(files[RESULTS]), JsonList(files[FRAMES], head='{"images": ')
        self._count = csv_rows(files[COUNTS])
        self._count(COLUMNS)
        self._video = ClipWriter(files[OVERLAYS], rate=clip.rate / look.every) if OVERLAYS in files else None
        self._tracker = Tracker()

    @property
    def things(self) -> int:
        """Different ones."""
        return self._tracker.count

    def add(self, frame: Frame, found: Detections) -> None:
        """A further frame."""
        from dsctool.engine.inference import to_results

        self.frames += 1
        results = to_results(found, frame.number + 1, self._categories)
        shown = [result for result in results if result["score"] >= self._look.threshold]
        numbers = self._tracker(shown)
        tracks = {id(result): number for result, number in zip(shown, numbers, strict=True)}
        self._json.extend({**result, "track_id": tracks.get(id(result))} for result in results)
        self.results += len(results)
        height, width = found.size
        image = {"id": frame.number + 1, "file_name": self._clip.name, "height": height, "width": width}
        self._images.extend([image | {"frame": frame.number, "seconds": round(frame.time, 6)}])
        counted = Counter(result["category_id"] for result in shown)
        for category in self._categories:
            self._count([frame.number, f"{frame.time:.3f}", category.id, category.name, counted[category.id]])
        if self._video is not None and self._look.style is not None:
            from dsctool.visualize.overlays import draw_results

            colors = [_color(number) for number in numbers]
            self._video.add(draw_results(frame.pixels, shown, self._names, style=self._look.style, colors=colors))

    def close(self) -> None:
        """Write what ends the files."""
        self._json.end("\n")
        named = [{"id": category.id, "name": category.name} for category in self._categories]
        self._images.end(f', "categories": {json.dumps(named)}}}\n')
        if self._video is not None:
            self._video.close()
