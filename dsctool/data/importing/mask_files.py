"""Which files of a folder are pictures and which are masks, and which mask belongs to which picture."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsctool.data.importing.files import SPLITS, Images, split_in
from dsctool.errors import DataError

if TYPE_CHECKING:
    from dsctool.data.importing.record import Options

_MASKS = re.compile(r"mask|label|^gt|ground.?truth|annotation|segmentation|instance", re.IGNORECASE)
_IMAGES = re.compile(r"im(age|g)|photo|picture|raw", re.IGNORECASE)
_SUFFIX = re.compile(
    r"[_\-. ](cp_masks?|seg_?masks?|masks?|labels?|gt|seg|segmentation|instances?|instance_?ids?)$", re.I
)


def is_mask_folder(name: str) -> bool:
    """Whether a folder is called as those of masks are."""
    return _MASKS.search(name) is not None


def picture_stem(stem: str) -> str:
    """What the picture of a mask of this stem is called."""
    return _SUFFIX.sub("", stem)


def is_mask_name(stem: str) -> bool:
    """Whether a file is called as a mask beside its picture is."""
    return _SUFFIX.search(stem) is not None


@dataclass(frozen=True)
class MaskFile:
    """A mask: its path, its stem without such an ending as ``_mask``, and folders that say more than ``masks`` does."""

    path: Path
    stem: str
    folders: tuple[str, ...]

    @property
    def split(self) -> str | None:
        """The part of the data set that its folders name."""
        return split_in(*(folder for folder in self.folders if folder.lower() in SPLITS))


@dataclass(frozen=True)
class Pictured:
    """A picture, its masks, and for each mask the class that its folder is named after, or None."""

    path: Path
    split: str | None
    masks: list[tuple[MaskFile, str | None]]


def pair_masks(images: Images, options: Options, *, per_instance: bool) -> tuple[list[Pictured], list[str]]:
    """Every picture that has masks, and notes about those that have none.

    Folders are told apart by their names, at any depth, or as ``--images`` and ``--masks`` say; in one folder, masks
    are called ``x_mask``, ``x_masks``, ``x_label`` or the like where the picture is ``x``. A folder that a mask has
    and its picture hasn't is its class.

    per_instance: a mask file is one object, called after its picture or in a folder called so.

    Raises:
        DataError: there are no masks or no pictures, or a mask that belongs to no picture, or to several.
    """
    for option in (options.images, options.masks):
        if option is not None and not (images.root / option).is_dir():
            raise DataError(f"{images.root / option}: no such folder in the source")
    pictures, masks = _told_apart(images, options)
    if not masks or not pictures:
        missing = "masks" if not masks else "pictures"
        raise DataError(
            f"{images.root}: no {missing} were found among {len(images.paths)} image files: name the folders with "
            f"--images and --masks (masks lie in a folder such as masks/ or labels/, or are called NAME_mask.png)"
        )
    by_stem: dict[str, list[MaskFile]] = defaultdict(list)
    by_folders: dict[tuple[str, ...], list[MaskFile]] = defaultdict(list)
    for picture in pictures:
        by_stem[picture.stem.removesuffix("_0000")].append(picture)  # nnU-Net's first channel
        by_folders[picture.folders].append(picture)
    found: dict[Path, list[tuple[MaskFile, str | None]]] = {picture.path: [] for picture in pictures}
    splits = {picture.path: picture.split for picture in pictures}
    for mask in masks:
        candidates = [each for stem in _stems(mask, per_instance) for each in by_stem.get(stem, [])]
        if not candidates and per_instance and len(by_folders.get(mask.folders, [])) == 1:
            candidates = by_folders[mask.folders]
        picture, rest = _best(mask, candidates, images)
        splits[picture.path] = picture.split or mask.split
        if per_instance and rest and rest[-1] == picture.stem:
            rest = rest[:-1]
        found[picture.path].append((mask, "/".join(rest) or None))
    pairs = [Pictured(path, splits[path], each) for path, each in found.items() if each]
    bare = len(found) - len(pairs)
    return pairs, [f"{bare} picture{'s' * (bare > 1)} without a mask file left out"] if bare else []


def _told_apart(images: Images, options: Options) -> tuple[list[MaskFile], list[MaskFile]]:
    """Pictures and masks."""
    pictures: list[MaskFile] = []
    masks: list[MaskFile] = []
    named = bool(options.images or options.masks)
    top = {path.relative_to(images.root).parts[0] for path in images.paths if path.parent != images.root}
    others = [folder for folder in top if not is_mask_folder(folder)]
    lone = others[0] if len(others) == 1 and len(top) == 2 else None  # pictures/ beside masks/, whatever it is called
    for path in images.paths:
        if named:
            home = _home(images.root, path, options)
            if home is not None:
                folders = path.parent.relative_to(home[1]).parts
                (masks if home[0] == "masks" else pictures).append(_entry(path, folders, home[0] == "masks"))
            continue
        parts = path.parent.relative_to(images.root).parts
        place = next((n for n in reversed(range(len(parts))) if _kind(parts[n], lone) is not None), None)
        is_mask = is_mask_name(path.stem) if place is None else _kind(parts[place], lone) == "masks"
        folders = parts if place is None else (*parts[:place], *parts[place + 1 :])
        (masks if is_mask else pictures).append(_entry(path, folders, is_mask))
    return pictures, masks


def _home(root: Path, path: Path, options: Options) -> tuple[str, Path] | None:
    """Whether a file lies where masks or where pictures do; the folder deeper down decides."""
    homes = [("masks", root / (options.masks or "")), ("images", root / (options.images or ""))]
    inside = [home for home in homes if path.is_relative_to(home[1])]
    return max(inside, key=lambda home: len(home[1].parts), default=None)


def _kind(folder: str, lone: str | None) -> str | None:
    if is_mask_folder(folder):
        return "masks"
    return "images" if _IMAGES.search(folder) or folder == lone else None


def _entry(path: Path, folders: tuple[str, ...], is_mask: bool) -> MaskFile:
    return MaskFile(path, picture_stem(path.stem) if is_mask else path.stem, folders)


def _stems(mask: MaskFile, per_instance: bool) -> list[str]:
    """What its picture may be called, the likeliest first."""
    stems = [mask.stem, mask.path.stem]
    if per_instance:
        stems += [*mask.folders[-1:]]
        stems += [mask.path.stem[: cut.start()] for cut in reversed(list(re.finditer(r"[_\-. ]", mask.path.stem)))]
    return list(dict.fromkeys(stems))


def _best(mask: MaskFile, candidates: list[MaskFile], images: Images) -> tuple[MaskFile, tuple[str, ...]]:
    """The picture whose folders the mask's hold most of, and the folders that only the mask has."""
    for stem in dict.fromkeys(each.stem for each in candidates):
        fitting = [(each, _rest(mask.folders, each.folders)) for each in candidates if each.stem == stem]
        fitting = [(each, rest) for each, rest in fitting if rest is not None]
        deepest = max((len(each.folders) for each, _ in fitting), default=0)
        best = [(each, rest) for each, rest in fitting if len(each.folders) == deepest]
        if len(best) == 1:
            picture, rest = best[0]
            return picture, tuple(folder for folder in rest or () if folder.lower() not in SPLITS)
        if best:
            shown = ", ".join(images.name(each.path) for each, _ in best[:3])
            raise DataError(f"{mask.path}: is the mask of each of {len(best)} pictures: {shown}")
    raise DataError(f"{mask.path}: no picture is called '{mask.stem}', which this mask would belong to")


def _rest(longer: tuple[str, ...], shorter: tuple[str, ...]) -> tuple[str, ...] | None:
    """What is left of the longer one without the shorter, whose parts it has in the same order; None where not."""
    rest = []
    wanted = list(shorter)
    for part in longer:
        if wanted and part == wanted[0]:
            wanted.pop(0)
        else:
            rest.append(part)
    return None if wanted else tuple(rest)
