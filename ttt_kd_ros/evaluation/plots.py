"""Plots of scores: gain over steps and over time spent, and scores along a stream."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ttt_kd_ros.evaluation.rows import Row
from ttt_kd_ros.evaluation.table import gain, methods_of
from ttt_kd_ros.plotting import pyplot

LONG_STREAM = 20
"""Scans from which a stream gets a plot of its own."""
SMOOTHED = 10


def write_plots(directory: Path, rows: Sequence[Row], source: str) -> list[Path]:
    """Write ``gain_over_steps.png``, ``gain_over_time.png`` and, for long streams, ``stream_<data>.png``.

    Parameters
    ----------
    directory
        An existing one.
    rows
        Scores.
    source
        Method that gains are taken over; empty where it was not scored: then there are no plots of gains.

    Returns
    -------
    list of Path
        What was written: nothing of what the rows do not hold.
    """
    written = []
    adapted = [row for row in rows if row.steps and not np.isnan(row.miou)]
    if adapted and source:
        written.append(_gains(directory / "gain_over_steps.png", adapted, rows, source, "steps", "steps on a scan"))
        written.append(
            _gains(directory / "gain_over_time.png", adapted, rows, source, "adapt_ms", "ms spent on a scan")
        )
    for data in dict.fromkeys(row.data for row in rows if len(row.agreement_by_scan) >= LONG_STREAM):
        name = "".join(c if c.isalnum() else "_" for c in data)
        written.append(_stream(directory / f"stream_{name}.png", [row for row in rows if row.data == data]))
    return written


def _gains(path: Path, adapted: Sequence[Row], rows: Sequence[Row], source: str, x: str, label: str) -> Path:
    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axis, key, title in zip(axes, ("miou", "miou_view"), ("all points", "points in view"), strict=True):
        for method in dict.fromkeys(row.method for row in adapted):
            points = []
            for steps in [steps for name, steps in methods_of(adapted) if name == method]:
                chosen = [row for row in adapted if (row.method, row.steps) == (method, steps)]
                at = np.mean([getattr(row, x) for row in chosen])
                points.append((at, np.mean([gain(row, rows, source, key) for row in chosen])))
            axis.plot(*zip(*points, strict=True), marker="o", markersize=4, label=method)
        axis.axhline(0, color="0.6", linewidth=0.8)
        axis.set(title=title, xlabel=label, xscale="log")
    axes[0].set_ylabel(f"gain in mIoU over {source} [points]")
    axes[1].legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _stream(path: Path, rows: Sequence[Row]) -> Path:
    plt = pyplot()
    scored = any(row.miou_by_scan for row in rows)
    figure, axes = plt.subplots(1 + scored, 1, figsize=(10, 3 * (1 + scored)), sharex=True, layout="constrained")
    panels = list(np.atleast_1d(axes))
    for method, steps in methods_of(rows):
        chosen = [row for row in rows if (row.method, row.steps) == (method, steps)]
        label = f"{method}, {steps} steps" if steps else method
        series = ["agreement_by_scan", "miou_by_scan"][: 1 + scored]
        for axis, key in zip(panels, reversed(series), strict=True):
            axis.plot(_smooth(np.mean([getattr(row, key) for row in chosen], axis=0)), label=label, linewidth=1.2)
            axis.set_ylabel("mIoU" if key == "miou_by_scan" else "agreement with source")
    panels[0].legend(fontsize="small")
    panels[-1].set_xlabel(f"scan (means of {SMOOTHED})")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _smooth(values: Any) -> Any:
    window = np.ones(min(SMOOTHED, len(values)))
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")
