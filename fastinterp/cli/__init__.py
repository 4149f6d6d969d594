"""The command line, `fastinterp`."""

from .entry import main

__all__ = ["main"]
