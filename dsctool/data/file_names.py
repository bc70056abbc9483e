"""The file that a name in annotations means, where the two are written differently.

Tools write backslashes, ``%20`` for a blank, another Unicode form or letter case, addresses, or folders before the
name that are not there. A file is taken for a name only if it alone fits, and it always lies in the folder of images.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from dsctool.data.rules import escapes

_MOST = 1_000_000  # files that are listed: who has more has named the wrong folder
_COMPARED = 20_000  # names that are looked through for a similar one

_Parts = tuple[str, ...]


def image_path(folder: Path, name: str) -> Path:
    """Where the file of ``name`` lies: in ``folder`` under just that name, or else under the only one that fits it.

    Where none or several fit, the path is of a file that is not there.
    """
    path = folder / name
    if _exists(path):
        return path
    fitting = _fitting(folder, name)
    return folder / fitting[0] if len(fitting) == 1 else path


def only_file(folder: Path, name: str) -> str | None:
    """The file that a name means, relative to ``folder``; None where none or several fit.

    Of a name that leads out of the folder, the last part is looked for in it.
    """
    name = name if not escapes(name) else (_cased(name) or ("",))[-1]
    path = image_path(folder, name) if name not in ("", "..") else folder
    return path.relative_to(folder).as_posix() if is_file(path) else None


def hint(folder: Path, name: str) -> str:
    """What may be meant by a name that nothing fits, in a few words, or nothing."""
    fitting = _fitting(folder, name)
    if len(fitting) > 1:
        shown = " and ".join(f"'{file}'" for file in fitting[:2])
        more = f" and {len(fitting) - 2} more" if len(fitting) > 2 else ""
        return f"{shown}{more} fit: name one of them"
    listing = _listing(folder)
    last = _spelled(name)[-1:]
    if not last or not listing.by_name:
        return ""
    same_stem = listing.by_stem.get(PurePosixPath(last[0]).stem, ())
    near = get_close_matches(last[0], listing.by_name, n=1) if len(listing.by_name) <= _COMPARED else []
    similar = same_stem[:1] or [listing.by_name[each][0] for each in near]
    return f"is '{similar[0]}' meant, which is there?" if similar else ""


@dataclass(frozen=True)
class _Listing:
    """The files in a folder and its folders, relative to it, by the last part of their names and by its stem."""

    by_name: dict[str, list[str]]
    by_stem: dict[str, list[str]]


def _fitting(folder: Path, name: str) -> Sequence[str]:
    """The files that fit a name best, relative to the folder."""
    parts = _spelled(name)
    if not parts or "\0" in name:
        return ()
    there = [(file, _spelled(file)) for file in _listing(folder).by_name.get(parts[-1], ())]
    ranked: dict[tuple[bool, int], list[str]] = {}
    for file, its in there:
        shared = min(len(its), len(parts))
        if its[-shared:] == parts[-shared:]:  # one of the two has folders before it that the other lacks
            ranked.setdefault((len(its) == len(parts), shared), []).append(file)
    if not ranked:
        return ()
    best = ranked[max(ranked)]
    same_case = [file for file in best if _cased(file)[-len(parts) :] == _cased(name)[-len(_cased(file)) :]]
    return same_case if len(same_case) == 1 else best


def _spelled(name: str) -> _Parts:
    """The parts of a path, in one spelling."""
    return tuple(part.casefold() for part in _cased(name))


def _cased(name: str) -> _Parts:
    if "://" in name:  # of an address, what stands behind its path says nothing of the file
        name = name.partition("?")[0].partition("#")[0]
    text = unicodedata.normalize("NFKC", unquote(name, errors="surrogateescape").replace("\\", "/"))
    return tuple(part for part in map(str.strip, text.split("/")) if part not in ("", "."))


def _listing(folder: Path) -> _Listing:
    try:
        changed = folder.stat().st_mtime_ns
    except (OSError, ValueError):
        return _Listing({}, {})
    return _listed(os.fspath(folder), changed)


@lru_cache(maxsize=8)
def _listed(folder: str, changed: int) -> _Listing:
    """changed: when the folder last was."""
    by_name: dict[str, list[str]] = {}
    by_stem: dict[str, list[str]] = {}
    for count, file in enumerate(_files(folder)):
        if count == _MOST:
            return _Listing({}, {})
        parts = _spelled(file)
        by_name.setdefault(parts[-1], []).append(file)
        by_stem.setdefault(PurePosixPath(parts[-1]).stem, []).append(file)
    return _Listing(by_name, by_stem)


def _files(folder: str) -> Iterator[str]:
    for at, folders, names in os.walk(folder):
        folders.sort()
        below = os.path.relpath(at, folder)
        for name in sorted(names):
            yield name if below == "." else f"{below}/{name}"


def is_file(path: Path) -> bool:
    """Whether there is such a file; also of names that none can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # names that no file can have
        return True
