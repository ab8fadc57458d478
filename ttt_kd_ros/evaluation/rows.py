"""Rows of scores, and the file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ttt_kd_ros.errors import InputError
from ttt_kd_ros.evaluation.metrics import with_nan, without_nan
from ttt_kd_ros.evaluation.protocol import Protocol

RESULT = "result.json"


@dataclass(frozen=True)
class Row:
    """Scores of one method at one number of steps with one checkpoint on one stream.

    Parameters
    ----------
    data, checkpoint, method, steps
        What was scored.
    miou, miou_view
        Mean IoU of all labelled points that count and of those in a picture; NaN if there are none.
    iou, iou_view
        IoU of each class; NaN for absent classes.
    agreement
        Share of the points that have the source model's label, mean over the scans.
    kd_loss_first, kd_loss_last
        Distillation loss before the first and after the last step, mean over the scans with steps; NaN without.
    steps_taken
        Steps on a scan, mean: fewer than `steps` where scans were not adapted to.
    adapt_ms, total_ms
        Mean time of a scan [ms]: for pairing, teacher and steps, and for all.
    miou_by_scan, agreement_by_scan
        Of each scan, in the order of time.
    key, weights, device
        What the scores are of, by its content, the hash of the checkpoint's file, and what the times were measured on;
        empty in a file of a version that did not keep them.
    """

    data: str
    checkpoint: str
    method: str
    steps: int
    miou: float
    miou_view: float
    iou: dict[str, float]
    iou_view: dict[str, float]
    agreement: float
    kd_loss_first: float
    kd_loss_last: float
    steps_taken: float
    adapt_ms: float
    total_ms: float
    miou_by_scan: list[float] = field(default_factory=list)
    agreement_by_scan: list[float] = field(default_factory=list)
    key: str = ""
    weights: str = ""
    device: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None for NaN."""
        return {name: without_nan(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Row:
        """Read what `to_dict` writes."""
        return cls(**{name: with_nan(value) for name, value in data.items()})


def with_new(rows: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """Rows and new ones, which take the place of those that a table could not tell from them."""
    names = {_in_tables(row) for row in new}
    return [*(row for row in rows if _in_tables(row) not in names), *new]


def _in_tables(row: Row) -> tuple[str, str, str, int]:
    return row.data, row.checkpoint, row.method, row.steps


def write_rows(directory: Path, protocol: Protocol, rows: Sequence[Row]) -> None:
    """Write ``result.json`` to an existing directory, complete or not at all."""
    unfinished = directory / (RESULT + ".part")
    content = {"protocol": protocol.to_dict(), "rows": [row.to_dict() for row in rows]}
    unfinished.write_text(json.dumps(content, indent=1) + "\n")
    unfinished.replace(directory / RESULT)


def read_rows(directory: Path, protocol: Protocol) -> list[Row]:
    """Rows that an earlier run of the same protocol left; none without a file.

    Raises
    ------
    InputError
        If the file is damaged or of another protocol.
    """
    path = directory / RESULT
    if not path.is_file():
        return []
    try:
        content = json.loads(path.read_text())
        known, rows = content["protocol"], [Row.from_dict(row) for row in content["rows"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no result of `ttt_kd evaluate` ({error!r}); choose another --out") from error
    if known != protocol.to_dict():
        raise InputError(f"{path} holds the scores of another protocol; choose another --out or remove it")
    return rows
