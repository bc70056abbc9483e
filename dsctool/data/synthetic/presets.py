"""Generated sets that are published: a name, a version and a seed stand for every file."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dsctool.data.synthetic.variety import Variety

DESCRIPTION = "Generated scenes of sea animals, shells and pebbles that hide each other"
"""Of every generated set."""


@dataclass(frozen=True)
class Preset:
    """All that a published set is made from. What changes one of its files is another version.

    Masks, stuff maps and annotations came out the same with NumPy 1.26 and 2.4, Pillow 10 and 13, and on processors
    with AVX-512 and without. Of the values of pixels, about ten in a million are then one level of 255 off, since NumPy
    rounds powers and cosines in more than one way; and JPEG libraries may write equal pixels as other bytes.

    images, val_images: of the splits ``train`` and ``val``.
    changes: what of it is not as published, in words.
    """

    version: str
    variety: Variety
    images: int
    val_images: int
    seed: int
    changes: tuple[str, ...] = ()

    def changed(self, *, images: int | None = None, val_images: int | None = None, seed: int | None = None) -> Preset:
        """With other values in place of its own; None, or the same value, is no change."""
        asked = [
            (images, self.images, "{} training images"),
            (val_images, self.val_images, "{} validation images"),
            (seed, self.seed, "seed {}"),
        ]
        return replace(
            self,
            images=self.images if images is None else images,
            val_images=self.val_images if val_images is None else val_images,
            seed=self.seed if seed is None else seed,
            changes=(*self.changes, *(words.format(value) for value, own, words in asked if value not in (None, own))),
        )

    @property
    def title(self) -> str:
        """What a result may say that it was measured on."""
        if not self.changes:
            return f"{self.version} as published"
        return f"not {self.version} as published, but with {', '.join(self.changes)}"

    @property
    def info(self) -> dict[str, str | int]:
        """What its annotation files say of it."""
        version = f"{self.version} with changes" if self.changes else self.version
        return {"description": f"{DESCRIPTION}: {self.title}", "version": version, "seed": self.seed}


HUDDLES = Preset(
    version="huddles-1",
    variety=Variety(short=(160, 208), long=(208, 256), huddle=(0.0, 1.0), objects=(0.12, 0.6)),
    images=2000,
    val_images=500,
    seed=1,
)
"""From scenes where nothing overlaps to heaps, each scene by a ``huddle`` of its own, so that every cell of the table
over T_O and T_P has images. How many objects a scene has, and how large they are, hardly depends on it."""
