"""The exception for bad input."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input from a user. Its message is one sentence: what was wrong, what was expected, what
    to do. The command line prints it without a traceback."""
