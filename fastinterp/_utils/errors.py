"""The exceptions whose message is one sentence for the user."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input from a user. Its message is one sentence: what was wrong, what was expected, what
    to do. The command line prints it without a traceback."""


class WriteError(OSError):
    """Something cannot be written, such as to a full disk. Its message is one sentence: what cannot
    be written, why, what to do. The command line prints it without a traceback."""


class ProcessLost(RuntimeError):
    """Another process of a run on several is gone. Its message says what to do. The command line
    prints it without a traceback."""
