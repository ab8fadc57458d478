"""All that an evaluation runs: checkpoints, streams and methods, without what an earlier run has left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.device import device_name
from ttt_kd_ros.evaluation.evaluate import Stream, evaluate, source_labels
from ttt_kd_ros.evaluation.kept import checkpoint_sha256, key_of
from ttt_kd_ros.evaluation.protocol import Method, Protocol
from ttt_kd_ros.evaluation.rows import Row
from ttt_kd_ros.frame import Frame
from ttt_kd_ros.segmenter import Segmenter

SOURCE_ONLY = Method("source-only", AdaptationSettings(mode="off"))
"""Networks trained without distillation, as they are."""


@dataclass(frozen=True)
class Data:
    """A stream that is opened when it is needed.

    Parameters
    ----------
    name
        What tables call it.
    where
        What tells it from others of that name: where it lies, and what of it is left out.
    open
        Opens it for a checkpoint and its classes.
    """

    name: str
    where: str
    open: Callable[[Path, ClassList], Iterable[Frame]]


@dataclass(frozen=True)
class Unit:
    """One method with one checkpoint on one stream."""

    checkpoint: Path
    data: Data
    method: Method

    def key(self, steps: int) -> str:
        """What names its row at a number of steps, whatever tables call it."""
        return key_of(self.checkpoint, self.data.where, self.data.name, self.method, steps)

    def names(self, counts: Iterable[int]) -> set[tuple[str, str, str]]:
        """Of its rows: checkpoint and method as tables call them, and the key."""
        return {(str(self.checkpoint), self.method.name, self.key(count)) for count in counts}


def without_stale(rows: Sequence[Row], checkpoints: Sequence[Path]) -> list[Row]:
    """Rows without those of checkpoints whose files hold other weights now."""
    now = {str(path): checkpoint_sha256(path) for path in checkpoints}
    return [row for row in rows if row.weights == now.get(row.checkpoint, row.weights)]


def missing(
    checkpoints: Sequence[Path],
    source_only: Sequence[Path],
    data: Sequence[Data],
    protocol: Protocol,
    rows: Sequence[Row],
) -> list[Unit]:
    """What is to be run, in an order in which checkpoints and streams follow one another; what has rows is left out."""
    there = {(row.checkpoint, row.method, row.key) for row in rows}
    units = [Unit(c, d, m) for c in checkpoints for d in data for m in protocol.methods]
    units += [Unit(c, d, SOURCE_ONLY) for c in source_only for d in data]
    return [unit for unit in units if not unit.names(protocol.counts(unit.method)) <= there]


def run(units: Sequence[Unit], protocol: Protocol, load: Callable[[Path], Segmenter]) -> Iterator[list[Row]]:
    """Rows of each unit in turn; a checkpoint is loaded and a stream opened once for the units that follow one another.

    Parameters
    ----------
    units
        From `missing`.
    protocol
        Numbers of steps and which points count.
    load
        Loads a checkpoint.
    """
    checkpoint, data = None, None
    for unit in units:
        if unit.checkpoint != checkpoint:
            checkpoint, data, segmenter = unit.checkpoint, None, load(unit.checkpoint)
        if unit.data is not data:
            data, stream = unit.data, Stream(unit.data.name, unit.data.open(checkpoint, segmenter.classes))
            source = source_labels(segmenter, stream.frames)
        rows = evaluate(segmenter, stream, unit.method, protocol, source)
        name, weights, device = str(checkpoint), checkpoint_sha256(checkpoint), device_name(segmenter.device)
        yield [replace(row, checkpoint=name, key=unit.key(row.steps), weights=weights, device=device) for row in rows]
