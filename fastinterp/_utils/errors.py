"""The one exception that means "what you gave us cannot be used"."""

from __future__ import annotations


class InputError(ValueError):
    """Raised for bad input from a user: one sentence that says what was wrong,
    what was expected and what to do. The command line prints it without a traceback."""
