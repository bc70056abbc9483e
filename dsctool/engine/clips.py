"""A detector on a video, one frame after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dsctool.data.transforms import SampleInfo, inference_transform, pad_images
from dsctool.data.video import Clip, Frame
from dsctool.engine.inference import Runnable, detections, device_of
from dsctool.errors import ConfigError
from dsctool.structures import Detections, ImageBatch
from dsctool.terms import Precision


@dataclass(frozen=True)
class _FrameInfo(SampleInfo):
    frame: Frame


def found_in_clip(
    model: Runnable, clip: Clip, *, every: int = 1, precision: Precision = "float32"
) -> Iterator[tuple[Frame, Detections]]:
    """What ``model`` finds in every ``every``-th frame; memory does not grow with their number.

    Raises:
        ConfigError: the configuration looks at more than whole frames of red, green and blue.
        DataError: the clip is damaged; what was found before has been given.
    """
    config = model.config.data
    for key, value in (("data.tiles", config.tiles), ("data.tta", config.tta)):
        if value is not None:
            raise ConfigError(f"{key}: frames of a video are looked at once, as a whole: set {key}=null")
    if len(config.mean) != 3:
        raise ConfigError(f"a video has red, green and blue, and this model takes {len(config.mean)} channels")
    transform = inference_transform(config)

    def batches() -> Iterator[tuple[ImageBatch, list[object], list[_FrameInfo]]]:
        for frame in clip.frames(every=every):
            size = (int(frame.pixels.shape[1]), int(frame.pixels.shape[2]))
            info = _FrameInfo(frame.number + 1, size, f"frame {frame.number} of {clip.name}", frame)
            yield pad_images([transform.image(frame.pixels)], config.pad_divisor), [], [info]

    for info, found in detections(model, batches(), device=device_of(model), precision=precision):  # type: ignore[arg-type]
        yield info.frame, found
