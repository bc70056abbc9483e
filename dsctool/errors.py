"""Errors that the command line shows as one plain message, without a traceback."""

from __future__ import annotations


class DsctoolError(Exception):
    """Something the user can mend; the message says what, where, and what to do."""


class ConfigError(DsctoolError):
    """A configuration that cannot be used; the message lists every problem."""


class DataError(DsctoolError):
    """Images or annotations that cannot be used."""


class CheckpointError(DsctoolError):
    """Weights that cannot be read or do not fit the model."""


class TrainingError(DsctoolError):
    """A run that cannot go on; what it has written so far is sound."""
