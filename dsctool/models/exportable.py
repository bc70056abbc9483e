"""A detector as one function of tensors, whose shapes do not depend on what it finds: what can leave Python."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsctool.errors import ConfigError
from dsctool.models.detector import Detector
from dsctool.ops.geometry import CURRENT
from dsctool.structures import Detections
from dsctool.terms import Size


class Exportable(nn.Module):
    """:meth:`Detector.detect` as ``torch.export`` can trace it; box suppression alone.

    Images are normalised here where they are uint8.

    Raises:
        ConfigError: the detector does something that only Python can, by the key that says so.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        refuse_what_stays(detector)
        self.detector = detector
        data = detector.config.data
        self.register_buffer("mean", torch.tensor(data.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(data.std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor, sizes: Tensor, original_sizes: Tensor) -> tuple[Tensor, ...]:
        """Detect.

        Rows of results are padded with zeros to the M that the configuration keeps at most.

        Args:
            images: ``(N, C, H, W)``, uint8 or normalised float32, each in the upper left of the canvas.
            sizes: ``(N, 2)`` int64, (h, w) of each image in the canvas.
            original_sizes: ``(N, 2)`` int64, (h, w) of each image before it was resized; boxes are in these pixels.

        Returns:
            boxes ``(N, M, 4)`` float32, by descending score, in the pixels of the original image; scores ``(N, M)``
            float32; labels ``(N, M)`` int64, 0-based; masks ``(N, M, s, s)`` float32 in [0, 1], each spread over its
            box, which box-only detectors do not have; count ``(N,)`` int64, the rows that are something.
        """
        detector, known = self.detector, _whole(sizes)
        if images.dtype == torch.uint8:
            images = self._normalised(images, sizes)
        features = detector.extract_features(images)
        proposals = [each.boxes for each in detector.rpn.propose(features, known)]
        found = []
        for image, (boxes, size, original) in enumerate(zip(proposals, known, _whole(original_sizes), strict=True)):
            own = [level[image : image + 1] for level in features]
            (one,) = detector.found_from(own, [boxes], [size], [original])
            found.append(self._padded(one))
        return tuple(torch.stack(column) for column in zip(*found, strict=True))

    def _normalised(self, images: Tensor, sizes: Tensor) -> Tensor:
        """As the data pipeline does it: zeros beyond each image."""
        down = torch.arange(images.shape[2], device=images.device) < sizes[:, :1]
        across = torch.arange(images.shape[3], device=images.device) < sizes[:, 1:]
        inside = (down[:, :, None] & across[:, None, :])[:, None]
        return torch.where(inside, (images.float() - self.get_buffer("mean")) / self.get_buffer("std"), 0.0)

    def _padded(self, found: Detections) -> list[Tensor]:
        count = found.boxes.shape[0]
        missing = self.detector.postprocess.max_per_image - count
        masks = [] if found.mask_probs is None else [F.pad(found.mask_probs, (0, 0, 0, 0, 0, missing))]
        return [
            F.pad(found.boxes, (0, 0, 0, missing)),
            F.pad(found.scores, (0, missing)),
            F.pad(found.labels, (0, missing)),
            *masks,
            found.labels.new_full((), count),
        ]


class ExportablePicture(nn.Module):
    """:class:`Exportable` of one picture as it was read, which is resized here.

    limits: the longest short and long side that pictures are resized to; ``canvas`` (h, w) is a limit as well.
    """

    def __init__(self, detector: Detector, *, limits: Size, canvas: Size) -> None:
        super().__init__()
        self.exportable = Exportable(detector)
        self.limits, self.canvas = limits, canvas

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detect. images: ``(1, C, h, w)`` uint8 of any size; what comes out is as of :class:`Exportable`."""
        original = torch.stack([torch.scalar_tensor(side, dtype=torch.float64) for side in images.shape[2:]])
        short, long = self.limits
        canvas = torch.tensor(self.canvas, dtype=torch.float64)
        factor = torch.stack([short / original.amin(0), long / original.amax(0), (canvas / original).amin(0)]).amin(0)
        size = (original * factor + 0.5).floor().clamp(min=1)
        for dim in (3, 2):  # each is rounded, as those of the data pipeline are
            images = _sampled(images, dim, self.canvas[dim - 2], size[dim - 2], original[dim - 2])
        return self.exportable(images, size.long()[None], original.long()[None])


def _sampled(images: Tensor, dim: int, length: int, new: Tensor, old: Tensor) -> Tensor:
    """uint8, ``old`` cells along ``dim`` bilinearly made ``new``, on a canvas of ``length``; beyond is anything."""
    places = ((torch.arange(length) + 0.5) * (old / new).float() - 0.5).clamp(min=0)
    first = torch.minimum(places.floor().long(), old.long() - 1)
    second = torch.minimum(first + 1, old.long() - 1)
    shape = [-1, 1] if dim == 2 else [-1]
    weight = (places - first).clamp(max=1).view(shape)
    mixed = images.index_select(dim, first).float() * (1 - weight) + images.index_select(dim, second).float() * weight
    return (mixed + 0.5).floor().to(torch.uint8)


def _whole(sizes: Tensor) -> list[Size]:
    """The rows of ``(N, 2)`` as numbers that a traced program reads."""
    found = [(height.item(), width.item()) for height, width in sizes]
    for height, width in found:
        torch._check(height > 0)
        torch._check(width > 0)
    return found


def refuse_what_stays(detector: Detector) -> None:
    """Say what of a detector cannot leave Python, by the key of its configuration.

    Raises:
        ConfigError: something cannot.
    """
    nms = detector.postprocess.nms
    if nms != "box":
        raise ConfigError(
            f"postprocess.nms={nms}: suppression {'of masks' if nms == 'mask' else 'by decaying scores'} cannot be "
            "exported; give postprocess.nms=box"
        )
    if detector.postprocess.keep_candidates:
        raise ConfigError("postprocess.keep_candidates: candidates cannot be exported; give 0")
    if detector.geometry != CURRENT:
        raise ConfigError(
            f"model.geometry={detector.config.model.geometry}: mmdet 1.x's conventions cannot be exported"
        )
