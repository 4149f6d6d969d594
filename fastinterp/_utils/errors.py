"""The exception for bad input."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input from a user. Its message is one sentence: what was wrong, what was expected, what
    to do. The command line prints it without a traceback."""


class WriteError(OSError):
    """Something cannot be written, such as to a full disk. Its message is one sentence: what cannot
    be written, why, what to do. The command line prints it without a traceback."""
