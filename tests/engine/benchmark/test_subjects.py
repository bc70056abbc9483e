"""What is measured is what prediction does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dsctool.data.image_files import number_images
from dsctool.data.tiles import tiles_of
from dsctool.data.windows import FileWindows
from dsctool.engine.benchmark.stages import Stages, WallClock
from dsctool.engine.benchmark.subjects import Inference, Named, draw_picture
from dsctool.engine.tiles import found_in_files
from tests.models.tiny import SMALL

CPU = torch.device("cpu")


def test_tiles_are_looked_at_as_prediction_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once, at the size that is configured, which ``size`` leaves alone."""
    words = (*SMALL, "data.tiles.size=64", "data.test_resize={short_sides: [48], long_side: 48}")
    torch.manual_seed(0)
    model = Named("htc_tiny", words).build(CPU, (96, 144))
    assert model.config.data.tiles is not None
    assert model.config.data.test_resizes == ((48, 48),)
    file = draw_picture(tmp_path, (96, 144))
    ((_, found),) = found_in_files(model, number_images([file]), model.config.data, device=CPU)
    read = []
    whole = FileWindows.read
    monkeypatch.setattr(FileWindows, "read", lambda self, window: read.append(window) or whole(self, window))
    subject = Inference(model, [file], batch=1)
    stages = Stages(WallClock())
    assert subject(stages) == len(found.boxes) > 0
    assert read == tiles_of((96, 144), model.config.data.tiles)
    assert subject.windows == len(read) == 6
    assert {"decode", "backbone", "resize, paste, stitch", "encode"} <= set(stages.spent())
