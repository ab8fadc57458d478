"""matplotlib without a screen, imported only where something is drawn."""

from __future__ import annotations

from typing import Any


def pyplot() -> Any:
    """The module `matplotlib.pyplot`, drawing to files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
