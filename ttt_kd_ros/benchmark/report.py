"""What was measured, as tables and as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ttt_kd_ros.benchmark.limits import Machine
from ttt_kd_ros.benchmark.margins import Margin
from ttt_kd_ros.benchmark.sparse_backends import Comparison
from ttt_kd_ros.benchmark.stages import Timing, ratios


@dataclass(frozen=True)
class Result:
    """Measurements on one data folder.

    Parameters
    ----------
    data
        Name of the folder.
    cameras, voxels
        Pictures of a frame, and voxels of each frame that was timed.
    stages
        Times of the stages.
    margins
        Gradients on part of the first frame; empty without pairs.
    scaling
        Times of stages for each number of voxels; empty if not asked for.
    backends
        Sparse backends side by side; None if not asked for.
    """

    data: str
    cameras: int
    voxels: Sequence[int]
    stages: Mapping[str, Timing]
    margins: Sequence[Margin]
    scaling: Mapping[int, Mapping[str, Timing]] = field(default_factory=dict)
    backends: Comparison | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"ratios": ratios(self.stages)}


def machine_line(machine: Machine) -> str:
    """What the machine can do."""
    return (
        f"{machine.name}: matrix product {machine.operations_per_s / 1e9:.0f} GFLOP/s, "
        f"copy {machine.bytes_per_s / 1e9:.1f} GB/s"
    )


def text(result: Result) -> str:
    """Markdown tables."""
    voxels = ", ".join(str(count) for count in result.voxels)
    parts = [f"{result.data}: {result.cameras} cameras, {voxels} voxels", _stage_table(result.stages)]
    parts += ["\n".join(f"{name}: {ratio:.2f}" for name, ratio in ratios(result.stages).items())]
    if result.margins:
        parts.append(_margin_table(result.margins))
    if result.scaling:
        parts.append(_scaling_table(result.scaling))
    if result.backends is not None:
        parts.append(_backends_table(result.backends))
    return "\n\n".join(part for part in parts if part)


def _stage_table(stages: Mapping[str, Timing]) -> str:
    lines = ["| stage | median [ms] | quartiles [ms] | limit [ms] | median / limit |", "|---|---|---|---|---|"]
    for name, timing in stages.items():
        limit, gap = (
            ("", "") if timing.limit is None else (f"{timing.limit:.2f}", f"{timing.median / timing.limit:.1f}")
        )
        lines.append(f"| {name} | {timing.median:.1f} | {timing.low:.1f}-{timing.high:.1f} | {limit} | {gap} |")
    return "\n".join(lines)


def _margin_table(margins: Sequence[Margin]) -> str:
    lines = ["| margin [m] | share of the voxels | cosine with the whole scan's gradient |", "|---|---|---|"]
    lines += [f"| {row.margin_m:g}{row.part} | {row.voxels:.2f} | {row.cosine:.4f} |" for row in margins]
    return "\n".join(lines)


def _scaling_table(scaling: Mapping[int, Mapping[str, Timing]]) -> str:
    names = list(next(iter(scaling.values())))
    lines = [f"| voxels | {' | '.join(f'{name} [ms]' for name in names)} |", "|---" * (len(names) + 1) + "|"]
    for count, stages in scaling.items():
        lines.append(f"| {count} | " + " | ".join(f"{stages[name].median:.1f}" for name in names) + " |")
    return "\n".join(lines)


def _backends_table(found: Comparison) -> str:
    stages = list(next(iter(next(iter(found.times.values())).values())))
    lines = [f"| voxels | sparse backend | {' | '.join(f'{name} [ms]' for name in stages)} | peak memory [GB] |"]
    lines.append("|---" * (len(stages) + 3) + "|")
    for count, backends in found.times.items():
        for name, timings in backends.items():
            times = " | ".join(f"{timings[stage].median:.2f}" for stage in stages)
            peak = found.peak_gb.get(count, {}).get(name)
            lines.append(f"| {count} | {name} | {times} | {'' if peak is None else f'{peak:.2f}'} |")
    lines += ["", "| sparse backend | outputs from float64's | gradients from float64's |", "|---|---|---|"]
    lines += [f"| {name} | {far.outputs:.1e} | {far.gradients:.1e} |" for name, far in found.exactness.items()]
    return "\n".join([*lines, "", *(f"{name}: {problem}" for name, problem in found.unusable.items())])
