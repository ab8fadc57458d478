"""Types of arguments: numbers that a command can use."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T", int, float)


def count(text: str) -> int:
    """0, 1, 2, ..."""
    return _at_least(0, text, int, "whole number")


def positive(text: str) -> int:
    """1, 2, 3, ..."""
    return _at_least(1, text, int, "whole number")


def amount(text: str) -> float:
    """A finite number that is not negative."""
    return _at_least(0.0, text, float, "finite number")


def _at_least(least: T, text: str, convert: Callable[[str], T], kind: str) -> T:
    try:
        if least <= (value := convert(text)) < math.inf:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"'{text}' is no {kind} of at least {least:g}")
