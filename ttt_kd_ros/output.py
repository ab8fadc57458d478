"""Where results are written."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile


def claim(directory: Path) -> None:
    """Make a directory and see that files can be written to it, before the work of which they hold the result.

    Raises
    ------
    OSError
        If it cannot be made or written to.
    """
    directory.mkdir(parents=True, exist_ok=True)
    TemporaryFile(dir=directory).close()
