"""Errors that the command line shows as one plain message, without a traceback."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager


class DsctoolError(Exception):
    """Something the user can mend; the message says what, where, and what to do."""


class ConfigError(DsctoolError):
    """A configuration that cannot be used; the message lists every problem."""


class DataError(DsctoolError):
    """Images or annotations that cannot be used."""


class CheckpointError(DsctoolError):
    """Weights that cannot be read or do not fit the model."""


class DamagedError(CheckpointError):
    """A checkpoint that is not as it was written."""


class DiskFullError(DsctoolError):
    """A file that there is no room for; what has its name is what had it before."""


class PictureWarning(UserWarning):
    """Pictures that are read or seen in a way in which things may be missed; the message says what to set."""


class TrainingError(DsctoolError):
    """A run that cannot go on; what it has written so far is sound."""


class LossError(TrainingError):
    """A loss that is not finite."""


class ProcessLostError(DsctoolError):
    """Another process of the command is gone, or does not answer."""


class SaidElsewhereError(DsctoolError):
    """Something that another process of the command says to the user, so that this one need not."""


class WorkerError(DsctoolError):
    """A process that loads data was lost; the message says how, and at what."""


class OutOfMemoryError(DsctoolError):
    """There was too little memory; the message says for what, and what would take less."""


@contextmanager
def memory_for(task: str, *, remedy: str) -> Iterator[None]:
    """Raises OutOfMemoryError when memory runs out in the block.

    task: what the block does, such as ``loading image 3``. remedy: a sentence.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if (shortage := memory_shortage(error)) is None:
            raise
        raise OutOfMemoryError(f"{shortage} while {task}. {remedy}") from error


def memory_shortage(error: BaseException) -> str | None:
    """What an error of Python, numpy or torch says of memory, in a few words; None where it is about something else."""
    text = str(error)
    if not isinstance(error, MemoryError) and not _SHORTAGE.search(text):
        return None
    wanted = _WANTED.search(text)
    amount = "" if wanted is None else f" ({_readable(wanted[1])} more were asked for)"
    return f"out of {'GPU ' if 'CUDA' in text else ''}memory{amount}"


_SHORTAGE = re.compile(
    r"out of memory|can't allocate memory|not enough memory|cannot allocate memory|_ALLOC_FAILED"
    r"|unable to \w+ .*</?torch_",  # shared memory
    re.IGNORECASE,
)
_WANTED = re.compile(r"allocate (\d+(?:\.\d* [KMGTP]iB| bytes))")


def _readable(amount: str) -> str:
    number, unit = amount.split()
    return f"{int(number) / 2**30:.2f} GiB" if unit == "bytes" else amount
