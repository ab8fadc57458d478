"""The table of a protocol in the paper's form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ttt_kd_ros.evaluation.protocol import Method, Pair, Protocol
from ttt_kd_ros.evaluation.transfer import Score


def paper_table(protocol: Protocol, scores: Sequence[Score]) -> str:
    """A line for each pair, mIoU [%] of each method, the paper's figure in brackets; a dash for what was not scored."""
    columns = [(method, steps) for method in protocol.methods for steps in protocol.counts(method)]
    lines = ["| train → test | " + " | ".join(_title(*column) for column in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for pair in protocol.pairs:
        row = [_cell(pair, method, steps, scores) for method, steps in columns]
        lines.append(f"| {pair.train} → {pair.test} | " + " | ".join(row) + " |")
    if protocol.paper:
        lines += ["", f"In brackets: {protocol.paper}"]
    return "\n".join(lines)


def _title(method: Method, steps: int) -> str:
    return f"{method.name} {steps}" if steps else method.name


def _cell(pair: Pair, method: Method, steps: int, scores: Sequence[Score]) -> str:
    found = [
        score.miou
        for score in scores
        if (score.cell.pair, score.cell.method.name, score.cell.steps) == (pair, method.name, steps)
    ]
    ours = f"{100 * found[0]:.1f}" if found and not np.isnan(found[0]) else "–"
    figure = pair.figure(method, steps)
    return ours if figure is None else f"{ours} ({figure:.1f})"
