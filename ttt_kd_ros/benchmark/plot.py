"""Time against the number of voxels, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ttt_kd_ros.benchmark.stages import Timing
from ttt_kd_ros.plotting import pyplot


def write_scaling(path: Path, scaling: Mapping[int, Mapping[str, Timing]], title: str) -> None:
    """Write a plot of each stage's median and quartiles, beside a line of time in proportion to the voxels.

    Parameters
    ----------
    path
        PNG to write.
    scaling
        By number of voxels and stage.
    title
        What was measured.
    """
    plt = pyplot()
    counts = sorted(scaling)
    figure, axis = plt.subplots(figsize=(6, 4.5), layout="constrained")
    for stage in scaling[counts[0]]:
        timings = [scaling[count][stage] for count in counts]
        (line,) = axis.plot(counts, [timing.median for timing in timings], marker="o", markersize=4, label=stage)
        low, high = [timing.low for timing in timings], [timing.high for timing in timings]
        axis.fill_between(counts, low, high, alpha=0.2, color=line.get_color(), linewidth=0)
        first = timings[0].median
        axis.plot(counts, [first * count / counts[0] for count in counts], color="0.7", linewidth=0.8, zorder=0)
    axis.set(xscale="log", yscale="log", xlabel="voxels", ylabel="ms", title=title)
    axis.legend(title="grey: in proportion")
    figure.savefig(path, dpi=120)
    plt.close(figure)
