"""Rows of scores as Markdown tables and plots."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ttt_kd_ros.evaluation.rows import Row


def methods_of(rows: Sequence[Row]) -> list[tuple[str, int]]:
    """Method and steps of the columns, in the order of the rows."""
    return list(dict.fromkeys((row.method, row.steps) for row in rows))


def score_table(rows: Sequence[Row]) -> str:
    """A line for each data set, mIoU ``all / view`` of each method and number of steps [%].

    With several checkpoints mean ± standard deviation over them.
    """
    columns = methods_of(rows)
    lines = ["| data | " + " | ".join(_title(*column) for column in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for data in dict.fromkeys(row.data for row in rows):
        cells = [_cell([r for r in rows if (r.data, r.method, r.steps) == (data, *column)]) for column in columns]
        lines.append(f"| {data} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def method_table(rows: Sequence[Row], source: str) -> str:
    """A line for each method and number of steps: gain over `source` in mIoU ``all / view``, agreement, steps, time.

    Gains are taken for each data set and checkpoint and then averaged; ± is the standard deviation over checkpoints.
    What the times were measured on stands below.
    """
    lines = [
        "| method | steps | all | view | gain all | gain view | agreement | steps taken | adapt ms | ms |",
        "|---" * 10 + "|",
    ]
    for method, steps in methods_of(rows):
        chosen = [row for row in rows if (row.method, row.steps) == (method, steps)]
        gains = [_spread(chosen, rows, source, key) for key in ("miou", "miou_view")]
        means = [_number(np.mean([100 * getattr(row, key) for row in chosen]), ".1f") for key in ("miou", "miou_view")]
        rest = [np.mean([getattr(r, key) for r in chosen]) for key in ("steps_taken", "adapt_ms", "total_ms")]
        agreement = np.mean([row.agreement for row in chosen])
        lines.append(
            f"| {method} | {steps} | {means[0]} | {means[1]} | {gains[0]} | {gains[1]} | {100 * agreement:.1f} | "
            f"{rest[0]:.1f} | {rest[1]:.0f} | {rest[2]:.0f} |"
        )
    if devices := dict.fromkeys(row.device for row in rows if row.device):
        lines += ["", f"Times: {'; '.join(devices)}"]
    return "\n".join(lines)


def gain(row: Row, rows: Sequence[Row], source: str, key: str) -> float:
    """Gain [points] of a row in `miou` or `miou_view` over the method `source` with the same checkpoint and data.

    NaN where that was not scored, as after an interruption.
    """
    same = [r for r in rows if (r.data, r.checkpoint, r.method) == (row.data, row.checkpoint, source)]
    return 100 * (float(getattr(row, key)) - float(getattr(same[0], key))) if same else math.nan


def _spread(chosen: Sequence[Row], rows: Sequence[Row], source: str, key: str) -> str:
    by_checkpoint = [
        np.mean([gain(row, rows, source, key) for row in chosen if row.checkpoint == checkpoint])
        for checkpoint in dict.fromkeys(row.checkpoint for row in chosen)
    ]
    text = _number(np.mean(by_checkpoint), "+.1f")
    return text if len(by_checkpoint) == 1 or not text else f"{text} ± {np.std(by_checkpoint):.1f}"


def _number(value: float, form: str) -> str:
    """Nothing for NaN: a stream without labels has no score."""
    return "" if np.isnan(value) else format(value, form)


def _title(method: str, steps: int) -> str:
    return f"{method} {steps}" if steps else method


def _cell(rows: Sequence[Row]) -> str:
    if not rows or np.isnan(rows[0].miou):
        return ""
    everywhere, in_view = (100 * np.array([getattr(row, name) for row in rows]) for name in ("miou", "miou_view"))
    if len(rows) == 1:
        return f"{everywhere[0]:.1f} / {in_view[0]:.1f}"
    return f"{everywhere.mean():.1f} ± {everywhere.std():.1f} / {in_view.mean():.1f} ± {in_view.std():.1f}"
