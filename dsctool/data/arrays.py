"""A data set's images and annotations in flat tensors, which processes share however they are started."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsctool.data.columns import Annotations
from dsctool.data.records import Annotation, ImageInfo
from dsctool.data.shapes import Shapes
from dsctool.ops.spans import Spans, Window
from dsctool.rle import Bools, Ints
from dsctool.terms import Size


@dataclass(frozen=True)
class Images:
    """Images in arrays: tensors, which processes share however they are started. ends: of the names in ``text``."""

    id: Tensor
    height: Tensor
    width: Tensor
    text: Tensor
    ends: Tensor

    @classmethod
    def of(cls, infos: list[ImageInfo]) -> Self:
        names = [info.file_name.encode(errors="surrogatepass") for info in infos]
        return cls(
            id=torch.tensor([info.id for info in infos]),
            height=torch.tensor([info.height for info in infos]),
            width=torch.tensor([info.width for info in infos]),
            text=torch.frombuffer(bytearray(b"".join(names)), dtype=torch.uint8),
            ends=torch.tensor([len(name) for name in names]).cumsum(0),
        )

    def __len__(self) -> int:
        return len(self.id)

    def info(self, index: int) -> ImageInfo:
        index = range(len(self))[index]
        first = int(self.ends[index - 1]) if index else 0
        name = self.text[first : int(self.ends[index])].numpy().tobytes().decode(errors="surrogatepass")
        return ImageInfo(int(self.id[index]), name, int(self.width[index]), int(self.height[index]))


@dataclass(frozen=True)
class Instances:
    """Annotations in arrays, as :class:`Annotations` has them. order: the used ones, image by image. ends: of each
    image in ``order``. corners: ``(m, 4)``, x1, y1, x2, y2. shapes: the arrays of :class:`Shapes`."""

    order: Tensor
    ends: Tensor
    id: Tensor
    label: Tensor
    corners: Tensor
    crowd: Tensor
    shapes: tuple[Tensor, ...]

    @classmethod
    def of(cls, annotations: Annotations, used: Bools, images: Ints, *, masks: bool) -> Self:
        """images: ``(k,)``, rows of the reading's images that are kept."""
        number = np.full(annotations.image.max(initial=-1) + 1, -1)
        number[images[images < len(number)]] = np.flatnonzero(images < len(number))
        image = number[annotations.image]
        rows = np.flatnonzero(used & (image >= 0))
        order = rows[np.argsort(image[rows], kind="stable")]
        ends = np.searchsorted(image[order], np.arange(len(images)), side="right")
        start, extent = annotations.box[:, :2], annotations.box[:, 2:]
        corners = np.concatenate([start, start + extent], axis=1).astype(np.float32)
        shapes = [getattr(annotations.shapes, each.name) for each in fields(Shapes)] if masks else []
        return cls(
            order=torch.from_numpy(order),
            ends=torch.from_numpy(ends),
            id=torch.from_numpy(annotations.id),
            label=torch.from_numpy(annotations.label),
            corners=torch.from_numpy(corners),
            crowd=torch.from_numpy(annotations.crowd),
            shapes=tuple(torch.from_numpy(_writable(each)) for each in shapes),
        )

    def rows(self, image: int) -> Tensor:
        """The annotations of an image, in the order of the file."""
        first = int(self.ends[image - 1]) if image else 0
        return self.order[first : int(self.ends[image])]

    def shown(self) -> tuple[Ints, Ints]:
        """The image and the class of every instance that is no crowd."""
        images = np.repeat(np.arange(len(self.ends)), np.diff(self.ends.numpy(), prepend=0))
        instances = ~self.crowd[self.order].numpy()
        return images[instances], self.label[self.order].numpy()[instances].astype(np.int64)

    def annotations(self, image: int) -> list[Annotation]:
        """The same, one by one."""
        rows = self.rows(image)
        columns = (self.id, self.label, self.corners, self.crowd)
        values = zip(*(column[rows].tolist() for column in columns), strict=True)
        return [Annotation(id_, label, tuple(box), crowd) for id_, label, box, crowd in values]

    def masks(self, rows: Tensor, size: Size) -> list[Spans]:
        """Their masks, in an image of ``size``."""
        shapes = Shapes(*(each.numpy() for each in self.shapes))
        return [Spans.of(shapes.rle(row, size)) for row in rows.tolist()]

    def meet(self, rows: Tensor, window: Window) -> Tensor:
        """``(G,)`` bool: whose boxes reach into a window."""
        boxes, place = self.corners[rows], torch.tensor(window)
        return ((boxes[:, :2] < place[2:]) & (boxes[:, 2:] > place[:2])).all(dim=1)


def _writable(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return array if array.flags.writeable else array.copy()
