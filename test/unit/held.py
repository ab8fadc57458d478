"""All that a value holds, cached properties among it."""

from dataclasses import is_dataclass


def held(value, path=""):
    """Paths to what a dataclass or a tuple holds, down to the leaves."""
    if is_dataclass(value):
        parts = vars(value)
    elif isinstance(value, tuple):
        parts = dict(enumerate(value))
    else:
        return {path}
    return set().union({path}, *(held(part, f"{path}.{name}") for name, part in parts.items()))
