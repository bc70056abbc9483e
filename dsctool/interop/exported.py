"""Exported files as detectors: the same calls, run by onnxruntime or by the program that ``torch.export`` made."""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dsctool.config.dump import diff_configs
from dsctool.config.loading import override_config
from dsctool.config.schema import Config
from dsctool.errors import CheckpointError, ConfigError, DamagedError, DataError, DsctoolError
from dsctool.interop.export_file import (
    FILE,
    KEY,
    LEAST,
    STRIDE,
    SUFFIXES,
    ExportedFile,
    outputs_of,
    read_description,
)
from dsctool.interop.exporting import MISSING
from dsctool.models.postprocess import LIKELY_SCORE
from dsctool.ops.geometry import resized
from dsctool.structures import Detections
from dsctool.terms import Size

FREE = ("data.", "train.", "postprocess.score_threshold", "panoptic.")
"""Beginnings of keys that may be changed where a file is used; all others are part of its program."""
FIXED = ("data.mean", "data.std", "data.tta", "data.semantic", "data.pad_divisor")
Outputs = Mapping[str, Tensor]
Program = Callable[..., Outputs]
"""What :class:`~dsctool.models.exportable.Exportable` computes, by the names of its outputs."""


def is_exported(path: Path | str) -> bool:
    """Whether a file is, by its name, one that ``dsctool export`` writes."""
    return Path(path).suffix.lower() in SUFFIXES


class ExportedDetector:
    """An exported file with :meth:`detect` as :class:`~dsctool.models.detector.Detector` has it.

    config: with the sizes that the file takes. categories: the class of each label. precision: what its layers compute
    in. device: where it runs.
    """

    has_semantic = False
    training = False

    def __init__(self, about: ExportedFile, program: Program, *, source: Path | str, device: torch.device) -> None:
        self.source, self.form, self.device = source, about.input, device
        self.config, self.categories, self.precision = about.config, about.categories, about.precision
        self._program = program

    @property
    def has_masks(self) -> bool:
        """Whether results come with masks."""
        return self.config.model.cascade.has_masks

    def to(self, device: torch.device) -> ExportedDetector:
        """The file once more, on another device."""
        return self if device == self.device else load_exported(self.source, device=device)

    def watched(self, look: Callable[[Sequence[Tensor], Outputs], None]) -> ExportedDetector:
        """The same, which tells ``look`` what its program is called with, and what that gives."""

        def program(*inputs: Tensor) -> Outputs:
            outputs = self._program(*inputs)
            look(inputs, outputs)
            return outputs

        about = ExportedFile(self.form, self.config, self.categories, self.precision)
        return ExportedDetector(about, program, source=self.source, device=self.device)

    def train(self, mode: bool = True) -> ExportedDetector:
        """Nothing: a program is the same in training."""
        return self

    def detect(
        self,
        images: Tensor,
        sizes: Sequence[Size] | None = None,
        original_sizes: Sequence[Size] | None = None,
        *,
        stage_masks: bool = False,
        semantic: bool = False,
    ) -> list[Detections]:
        """As :meth:`dsctool.models.detector.Detector.detect`, for normalised images on the CPU.

        Raises:
            DsctoolError: masks of stages or a semantic map are asked for, which no exported file has.
            DataError: an image is larger than the canvas of the program.
        """
        if stage_masks or semantic:
            what = "the masks of its stages" if stage_masks else "a semantic branch"
            raise DsctoolError(f"{self.source}: is exported, without {what}: take the checkpoint that it was made of")
        height, width = images.shape[-2:]
        sizes = [(height, width)] * len(images) if sizes is None else sizes
        originals = sizes if original_sizes is None else original_sizes
        if self.form.pixels == "picture":
            return [
                self._from_resized(image[:, :height, :width], original)
                for image, (height, width), original in zip(images, sizes, originals, strict=True)
            ]
        pixels = self._pixels(self.on_canvas(images.cpu()))
        found: list[Detections] = []
        for start in range(0, len(images), self.form.batch):
            rows = [min(row, len(images) - 1) for row in range(start, start + self.form.batch)]  # the last one again
            outputs = self._program(
                pixels[rows], torch.tensor([sizes[row] for row in rows]), torch.tensor([originals[row] for row in rows])
            )
            count = min(self.form.batch, len(images) - start)
            found += [self._found(outputs, row, originals[start + row]) for row in range(count)]
        return found

    def detect_picture(self, picture: Tensor) -> Detections:
        """What a program that resizes finds in a picture as it was read, uint8 ``(C, h, w)``."""
        height, width = picture.shape[-2:]
        return self._found(self._program(picture[None].contiguous()), 0, (height, width))

    def _from_resized(self, image: Tensor, original: Size) -> Detections:
        """The program finds its size in a picture that has it already."""
        height, width = image.shape[-2:]
        self.on_canvas(image[None])
        found = self.detect_picture(self._pixels(image.cpu()))
        scale = torch.tensor([original[1] / width, original[0] / height] * 2)
        return replace(found, boxes=found.boxes * scale, size=original)

    def fits(self, size: Size) -> bool:
        """Whether a picture of ``size``, resized as the file says, fits on its canvas."""
        if self.form.canvas is None:
            return True
        resize = self.config.data.test_resize
        height, width = resized(size, resize.short_sides[0], resize.long_side)
        return height <= self.form.canvas[0] and width <= self.form.canvas[1]

    def on_canvas(self, images: Tensor) -> Tensor:
        """Normalised images ``(N, C, H, W)`` with a border of zeros on the right and below, as the program takes them.

        Raises:
            DataError: they are larger.
        """
        height, width = images.shape[-2:]
        rows, columns = self.form.canvas or (max(-(-side // STRIDE) * STRIDE, LEAST) for side in (height, width))
        if height > rows or width > columns:
            raise DataError(
                f"{self.source}: takes pictures of up to {columns} x {rows} pixels, and this one, as it is resized and "
                f"padded, has {width} x {height}: lower data.test_resize, or export without --size"
            )
        return F.pad(images, (0, columns - width, 0, rows - height))

    def _pixels(self, images: Tensor) -> Tensor:
        """As the program takes them; what was normalised was uint8."""
        if self.form.pixels == "float32":
            return images.contiguous()
        mean, std = (
            torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)
            for values in (self.config.data.mean, self.config.data.std)
        )
        return (images.double() * std + mean).round().clamp(0, 255).to(torch.uint8).contiguous()

    def _found(self, outputs: Mapping[str, Tensor], row: int, size: Size) -> Detections:
        boxes, scores, labels = (outputs[name][row] for name in ("boxes", "scores", "labels"))
        count = int(outputs["count"][row])
        kept = int((scores[:count] > self.config.postprocess.score_threshold).sum())
        full = kept == len(scores) and bool(scores[-1] >= LIKELY_SCORE)
        return Detections(
            boxes[:kept],
            scores[:kept],
            labels[:kept],
            outputs["masks"][row][:kept] if "masks" in outputs else None,
            size,
            reached=frozenset(["max_per_image"] if full else []),
        )


def load_exported(
    path: Path | str, *, overrides: Sequence[str] = (), device: torch.device | str = "cpu"
) -> ExportedDetector:
    """Read what ``dsctool export`` wrote.

    overrides: ``key=value`` changes of how images are read and resized, and a higher ``postprocess.score_threshold``.

    Raises:
        CheckpointError: the file is missing, damaged, of another program or of a newer release.
        ConfigError: an override is of something that is part of the program.
        DsctoolError: packages are missing.
    """
    path, place = Path(path), torch.device(device)
    if not path.is_file():
        raise CheckpointError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}.")
    about, program = (_onnx if path.suffix.lower() == ".onnx" else _pt2)(path, place)
    if overrides:
        config = override_config(about.config, overrides, source=str(path))
        _refuse_baked_in(about, config, path)
        about = replace(about, config=config)
    return ExportedDetector(about, program(), source=path, device=place)


def _refuse_baked_in(about: ExportedFile, asked: Config, path: Path) -> None:
    stored, fixed = about.config, (*FIXED, *(("data.test_resize",) if about.input.pixels == "picture" else ()))
    for each in diff_configs(stored, asked):
        if not each.key.startswith(FREE) or each.key.startswith(fixed):
            raise ConfigError(
                f"{each.key}: is part of the program in {path}; give {each.key}={each.right} to dsctool export instead"
            )
    if asked.postprocess.score_threshold < stored.postprocess.score_threshold:
        least = stored.postprocess.score_threshold
        raise ConfigError(f"postprocess.score_threshold: {path} leaves out what scores no more than {least}")


def _onnx(path: Path, device: torch.device) -> tuple[ExportedFile, Callable[[], Program]]:
    if importlib.util.find_spec("onnxruntime") is None:
        raise DsctoolError(f"{path}: {MISSING}")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda":
        providers.insert(0, "CUDAExecutionProvider")
        if providers[0] not in onnxruntime.get_available_providers():
            raise ConfigError(
                f"{path}: onnxruntime has no CUDA here (pip install onnxruntime-gpu), or give --device cpu"
            )
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # of classes of its own that have nothing in common
        if type(error).__module__.startswith("onnxruntime"):
            raise DamagedError(f"{path}: onnxruntime cannot read it: {' '.join(str(error).split())[:300]}") from error
        raise
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    try:
        about = read_description(text, path)
    except CheckpointError:
        del session  # or the error keeps it, and with it its threads, which a process that is forked does not have
        raise
    names = [each.name for each in session.get_outputs()]

    def program(*inputs: Tensor) -> dict[str, Tensor]:
        given = {name: value.numpy() for name, value in zip(about.input.inputs, inputs, strict=True)}
        found = cast("list[np.ndarray[Any, Any]]", session.run(names, given))
        return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}

    return about, lambda: program


def _pt2(path: Path, device: torch.device) -> tuple[ExportedFile, Callable[[], Program]]:
    """The description, which is there at once, and what reads the program, which takes seconds."""
    about = _described_without_code(path)

    def read() -> Program:
        try:
            with warnings.catch_warnings(action="ignore"):  # of how it packs weights
                loaded = torch.export.load(path)
        except (RuntimeError, ValueError, KeyError, OSError, AssertionError, TypeError) as error:
            raise DamagedError(f"{path}: torch.export cannot read it: {' '.join(str(error).split())[:300]}") from error
        module, names = loaded.module(), outputs_of(about.config)

        def program(*inputs: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                return dict(zip(names, module(*inputs), strict=True))

        return program

    return about, read


_HARMLESS = re.compile(
    r"[^/]+/(data/(weights/(weight_\d+|model_weights_config\.json)|constants/(tensor_\d+|model_constants_config\.json)"
    r"|sample_inputs/model\.pt)|models/model\.json|extra/dsctool\.json|archive_format|archive_version|version|byteorder"
    r"|\.data/(version|serialization_id))"
)
"""The parts of a pt2 file that ``dsctool export`` writes."""


def _described_without_code(path: Path) -> ExportedFile:
    """What a pt2 file says of itself, after a look that nothing in it can be code.

    Such files may hold pickles of anything, which PyTorch would run.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            damaged = archive.testzip()
            if damaged is not None:
                raise DamagedError(f"{path}: damaged: {damaged} is not what was written. Export again.")
            texts = [archive.read(name) for name in names if name.endswith(f"/extra/{FILE}")]
            about = read_description(texts[0].decode() if texts else None, path)
            for name in names:
                if not _HARMLESS.fullmatch(name) or (name.endswith("_config.json") and _pickled(archive.read(name))):
                    raise CheckpointError(f"{path}: holds {name}, which may be code, and is not read.")
            for name in names:
                if name.endswith(".pt"):
                    torch.load(io.BytesIO(archive.read(name)), weights_only=True)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError, KeyError, zlib.error) as error:
        raise DamagedError(f"{path}: damaged or cut short, it cannot be read as a pt2 file.") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: holds sample inputs that may be code, and is not read.") from error
    return about


def _pickled(config: bytes) -> bool:
    return any(each["use_pickle"] for each in json.loads(config)["config"].values())
