"""COCO's compressed run-length encoding, as text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FIRST = 48  # six bits a character, offset by "0": five of value, and whether more follow
_LONGEST = 8  # characters of one run, which could then be a thousand times any image


def decompress_runs(counts: str | bytes) -> NDArray[np.int64] | None:
    """The lengths of the runs, background first; None where ``counts`` is no such text.

    From the fourth run on, the text holds the difference to the run before the last. Lengths may come out negative:
    pycocotools never looks.
    """
    raw = counts.encode("utf-8", "surrogatepass") if isinstance(counts, str) else counts
    codes = np.frombuffer(raw, dtype=np.uint8).astype(np.int64) - _FIRST
    if len(codes) == 0 or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    last = np.flatnonzero((codes & 32) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    length = last - first + 1
    if length.max() > _LONGEST:
        return None
    place = np.arange(len(codes)) - np.repeat(first, length)
    values = np.add.reduceat((codes & 31) << (5 * place), first)
    values -= np.where(codes[last] & 16, 1 << (5 * length), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
