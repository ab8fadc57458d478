"""The paper's tables: networks trained on one data set, scored on another, the scenes dealt to several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.data import Folder, open_folder
from ttt_kd_ros.errors import DataError, InputError
from ttt_kd_ros.evaluation.kept import Kept, key_of, place
from ttt_kd_ros.evaluation.metrics import confusion, iou, mean_iou, without_nan
from ttt_kd_ros.evaluation.protocol import Method, Pair, Protocol
from ttt_kd_ros.frame import Frame
from ttt_kd_ros.model.checkpoint import load_manifest
from ttt_kd_ros.segmenter import Segmenter

WITHOUT_DISTILLATION = "source"
"""Method whose network was trained without distillation; all others go out from the jointly trained one."""

Gather = Callable[[Mapping[int, NDArray[np.int64]]], Mapping[int, NDArray[np.int64]]]


@dataclass(frozen=True)
class Cell:
    """A cell of the table: a method at a number of steps on a pair, with the network and the data to score it with."""

    pair: Pair
    method: Method
    steps: int
    checkpoint: Path
    data: str


@dataclass(frozen=True)
class Score:
    """Counts of a cell (see `confusion`) over all scenes, and what they are counts of."""

    cell: Cell
    classes: tuple[str, ...]
    matrix: NDArray[np.int64]

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that the ground truth holds."""
        return mean_iou(self.matrix)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None for NaN."""
        pair, method, steps = self.cell.pair, self.cell.method, self.cell.steps
        scores = {"miou": self.miou, "iou": dict(zip(self.classes, iou(self.matrix).tolist(), strict=True))}
        what = {"train": pair.train, "test": pair.test, "method": method.name, "steps": steps}
        paper = pair.figure(method, steps)
        known = {"paper": paper, "checkpoint": str(self.cell.checkpoint), "data": self.cell.data}
        return {**what, **known, **{k: without_nan(v) for k, v in scores.items()}, "confusion": self.matrix.tolist()}


def cells(
    protocol: Protocol, networks: Mapping[str, Path], source_only: Mapping[str, Path], data: Mapping[str, str]
) -> list[Cell]:
    """The cells of the protocol's table that can be filled with what is given.

    Parameters
    ----------
    protocol
        With pairs.
    networks, source_only
        Checkpoint of each training set, trained with distillation and without.
    data
        Where each test set lies.

    Raises
    ------
    InputError
        If a name is none of the protocol's or no cell can be filled.
    """
    train, test = {pair.train for pair in protocol.pairs}, {pair.test_set for pair in protocol.pairs}
    for given, known in ((networks, train), (source_only, train), (data, test)):
        if unknown := sorted(given.keys() - known):
            raise InputError(f"the protocol has no {', '.join(unknown)}, only {', '.join(sorted(known))}")
    found = []
    for pair in protocol.pairs:
        for method in protocol.methods:
            checkpoint = (source_only if method.name == WITHOUT_DISTILLATION else networks).get(pair.train)
            if checkpoint and pair.test_set in data:
                where = data[pair.test_set] + pair.test.removeprefix(pair.test_set)
                found += [Cell(pair, method, steps, checkpoint, where) for steps in protocol.counts(method)]
    if not found:
        raise InputError("no pair of the protocol has both a checkpoint and data; give NAME=FILE and NAME=FOLDER")
    return found


def score(
    filled: Sequence[Cell],
    load: Callable[[Path], Segmenter],
    rank: int = 0,
    ranks: int = 1,
    gather: Gather = lambda counts: counts,
    kept: Kept = Kept(),
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda items: items,
) -> list[Score]:
    """Scores of cells, the same for any number of processes.

    A scene of a cell is one item of work, and the items are dealt in turn. Where weights are carried from one scene to
    the next (``online``), the whole cell is one item. What comes out is a sum of counts.

    Parameters
    ----------
    filled
        From `cells`.
    load
        Loads a checkpoint.
    rank, ranks
        Which of how many processes this is.
    gather
        Brings the counts of all processes to each of them, by the number of the cell.
    kept
        Counts of an earlier run, which are not counted again.
    progress
        Wraps the numbers of this process's items, such as a progress bar.

    Raises
    ------
    DataError
        If data have no labels, before anything is counted.
    """
    bench = _Bench(load)
    classes = [load_manifest(cell.checkpoint).network.classes for cell in filled]
    items = [
        (number, part)
        for number, (cell, known) in enumerate(zip(filled, classes, strict=True))
        for part in _parts(cell, bench.folder(cell.data, known))
    ]
    mine = items[rank::ranks]
    shapes = {number: (len(known.names), len(known.names) + 1) for number, known in enumerate(classes)}
    counts = {number: np.zeros(shape, dtype=np.int64) for number, shape in shapes.items()}
    for number, part in (mine[i] for i in progress(range(len(mine)))):
        cell = filled[number]
        key = key_of(cell.checkpoint, place(cell.data), part.name, cell.method, cell.steps)
        found = kept.get(key)
        if found is None:
            found = count(bench.segmenter(cell.checkpoint), cell, part)
            kept.put(key, found)
        counts[number] += found
    total = gather(counts)
    return [Score(cell, classes[number].names, total[number]) for number, cell in enumerate(filled)]


def count(segmenter: Segmenter, cell: Cell, frames: Iterable[Frame]) -> NDArray[np.int64]:
    """Counts of one cell on frames, from the source weights on."""
    settings = cell.method.settings
    segmenter.configure(settings if settings.mode == "off" else replace(settings, steps=cell.steps))
    segmenter.reset()
    size = len(segmenter.classes.names)
    matrix = np.zeros((size, size + 1), dtype=np.int64)
    for frame in frames:
        if frame.labels is not None:
            matrix += confusion(segmenter.segment(frame).labels, frame.labels, size)
    return matrix


def _parts(cell: Cell, folder: Folder) -> Sequence[Folder]:
    return (folder,) if cell.method.settings.mode == "online" else folder.scenes


class _Bench:
    """Checkpoints and data sets that are in use; one network at a time is kept in memory."""

    def __init__(self, load: Callable[[Path], Segmenter]) -> None:
        self._load = load
        self._loaded: tuple[Path, Segmenter] | None = None
        self._folders: dict[tuple[str, str], Folder] = {}

    def segmenter(self, checkpoint: Path) -> Segmenter:
        if self._loaded is None or self._loaded[0] != checkpoint:
            self._loaded = (checkpoint, self._load(checkpoint))
        return self._loaded[1]

    def folder(self, data: str, classes: ClassList) -> Folder:
        key = (data, classes.name)
        if key not in self._folders:
            self._folders[key] = open_folder(data, classes)
            if not any(scene.label_map for scene in self._folders[key].scenes):
                raise DataError(f"'{data}' has no labels, so that nothing can be scored; choose a part that has")
        return self._folders[key]
