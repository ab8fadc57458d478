"""Counts that an interrupted run has left: a file for each item of work."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.data.folder import folder_and_parts
from ttt_kd_ros.errors import CheckpointError
from ttt_kd_ros.evaluation.protocol import Method
from ttt_kd_ros.model.checkpoint import file_sha256


@dataclass(frozen=True)
class Kept:
    """A directory of counts, which all processes may share; nothing is kept without one."""

    directory: Path | None = None

    def get(self, key: str) -> NDArray[np.int64] | None:
        """Counts of an item, None if they are not there."""
        path = self.directory / f"{key}.npy" if self.directory else None
        return np.load(path, allow_pickle=False) if path and path.is_file() else None

    def put(self, key: str, counts: NDArray[np.int64]) -> None:
        """Keep the counts of an item, complete or not at all."""
        if self.directory is None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        unfinished = self.directory / f"{key}.part"
        with unfinished.open("wb") as file:
            np.save(file, counts)
        unfinished.replace(self.directory / f"{key}.npy")


def key_of(checkpoint: Path, data: str, scene: str, method: Method, steps: int) -> str:
    """What names an item: the weights themselves, where the data lie (`place`), and what is done with them."""
    what = [checkpoint_sha256(checkpoint), data, scene, asdict(method.settings), steps]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]


def place(data: str) -> str:
    """Where data lie, from whatever directory they were named: the folder itself and the part of it that is meant."""
    folder, parts = folder_and_parts(data)
    return "@".join([str(folder.resolve()), *parts])


def checkpoint_sha256(path: Path) -> str:
    """Hash of a checkpoint's file, which is read once as long as it stays as it is.

    Raises
    ------
    CheckpointError
        If there is no such file.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    return _sha256(path, path.stat().st_mtime_ns)


@lru_cache
def _sha256(path: Path, _modified: int) -> str:
    return file_sha256(path)
