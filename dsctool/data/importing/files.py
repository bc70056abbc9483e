"""Files of a source, found by what its annotations call them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from PIL import Image

from dsctool.errors import DataError

SPLITS = {
    "train": "train", "training": "train", "train2017": "train",
    "val": "val", "valid": "val", "validation": "val", "val2017": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""What tools call the parts of a data set, and what they are called here."""


def image_suffixes() -> set[str]:
    """Of the files that Pillow opens, in small letters."""
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN} - {".pdf"}


def files_below(root: Path) -> Iterator[Path]:
    """Every file in a folder and the folders in it, in order; linked folders too, each once; hidden ones never."""
    seen: set[str] = set()
    for folder, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        names[:] = [] if real in seen else sorted(name for name in names if not _hidden(name))
        if real not in seen:
            yield from (Path(folder, name) for name in sorted(files) if not _hidden(name))
        seen.add(real)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def split_in(*names: str) -> str | None:
    """The part of a data set that the first of these names speaks of: a folder's, or a word of a file's."""
    for name in names:
        for word in [name, *re.split(r"[^0-9A-Za-z]+", name)]:
            if word.lower() in SPLITS:
                return SPLITS[word.lower()]
    return None


class Images:
    """The image files of a source; whatever a name says, what is found lies in its folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        suffixes = image_suffixes()
        self.paths = [path for path in files_below(root) if path.suffix.lower() in suffixes]
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            self._by_name[_key(path.name)].append(path)

    def name(self, path: Path) -> str:
        """A file's path below the source."""
        return path.relative_to(self.root).as_posix()

    def find(self, name: str, *, near: Path, where: object) -> Path:
        """The file that an annotation calls ``name``.

        Looked for beside ``near``, a folder of the source, then below the source, then by the last parts of its path:
        archives are unpacked where annotations don't expect it.

        Raises:
            DataError: there is none, or several fit equally; ``where`` begins the message.
        """
        for wanted in _readings(name):
            for folder in (near, self.root):
                path = Path(os.path.normpath(folder / wanted))
                if path.is_relative_to(self.root) and path.is_file():
                    return path
            found = self._by_end(wanted)
            if len(found) > 1:
                shown = ", ".join(self.name(path) for path in found[:3])
                raise DataError(f"{where}: '{name}' may be each of {len(found)} files: {shown}")
            if found:
                return found[0]
        leads_out = PurePosixPath(name.replace("\\", "/")).is_absolute() or ".." in re.split(r"[/\\]", name)
        hint = " (the name leads out of it, where nothing is read)" if leads_out else ""
        raise DataError(f"{where}: no image file '{name}' in {self.root}{hint}")

    def _by_end(self, wanted: str) -> list[Path]:
        """Files of the same name, those whose folders agree most."""
        parts = [_key(part) for part in PurePosixPath(wanted).parts if part not in ("..", "/", ".")]
        best: list[Path] = []
        most = 0
        for path in self._by_name.get(parts[-1], []) if parts else []:
            own = [_key(part) for part in path.relative_to(self.root).parts]
            agree = next((n for n, (a, b) in enumerate(zip(reversed(own), reversed(parts), strict=False)) if a != b), 0)
            agree = agree or min(len(own), len(parts))
            if agree >= most:
                best = [*best, path] if agree == most else [path]
                most = agree
        return best


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _readings(name: str) -> Iterator[str]:
    """What a name may mean: a path, a path of Windows, an address, one with %20 for spaces, an upload's prefix."""
    plain = name.replace("\\", "/")
    address = urlsplit(plain)
    if address.scheme and len(address.scheme) > 1:
        plain = address.path
    local = parse_qs(address.query).get("d")  # Label Studio's local files
    if local and address.path.rstrip("/").endswith("local-files"):
        plain = local[0]
    seen = dict.fromkeys([plain, plain.lstrip("/"), unquote(plain).lstrip("/")])
    yield from (reading for reading in seen if reading)
    last = PurePosixPath(unquote(plain)).name
    if (uploaded := re.fullmatch(r"[0-9a-f]{8}-(.+)", last)) is not None:
        yield uploaded[1]
