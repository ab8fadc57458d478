"""What the published data sets have in common: a root directory, scenes, and words that choose among them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np
import yaml
from numpy.typing import NDArray

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.data.folder import Folder
from ttt_kd_ros.errors import DataError
from ttt_kd_ros.share import config_file


@dataclass(frozen=True)
class SceneEntry:
    """A scene of a data set.

    Parameters
    ----------
    name
        Name of the scene.
    words
        What chooses it: its name, its split and whatever else tells scenes apart.
    """

    name: str
    words: frozenset[str]


class DataSet(ABC):
    """A data set in the directory that it was unpacked to.

    Parameters
    ----------
    root
        The directory.
    spinning_only
        Leave out the points of sensors that do not spin (PandaSet has one).
    """

    kind: ClassVar[str]
    """Name of the data set."""
    needs: ClassVar[str]
    """What a directory is recognised by."""
    page: ClassVar[str]
    """Where it can be downloaded."""

    def __init__(self, root: Path, spinning_only: bool = False) -> None:
        self.root = root
        self.spinning_only = spinning_only

    @classmethod
    @abstractmethod
    def recognises(cls, root: Path) -> bool:
        """Whether a directory holds this data set."""

    @abstractmethod
    def scenes(self) -> Sequence[SceneEntry]:
        """All scenes that are there, in the order of their names."""

    @abstractmethod
    def open(self, scene: SceneEntry, classes: ClassList) -> Folder:
        """The frames of a scene; nothing but names of files is looked at before a frame is read."""

    def choose(self, text: str) -> list[SceneEntry]:
        """Scenes that have all words of ``word+word+...``; all scenes if the text is empty.

        Raises
        ------
        DataError
            If there is no such scene.
        """
        scenes = self.scenes()
        chosen = [scene for scene in scenes if scene.words >= set(filter(None, text.split("+")))]
        if not chosen:
            known = sorted({word for scene in scenes for word in scene.words})
            some = ", ".join(known[:40]) + (", ..." if len(known) > 40 else "")
            raise DataError(f"{self.kind} in '{self.root}' has no scene '{text}'; scenes are chosen by {some or '-'}")
        return chosen


def fail(data_set: type[DataSet], path: Path, expected: str, cause: Exception | None = None) -> NoReturn:
    """Raise a DataError that names the file, what was expected of it and where the data set is to be had."""
    found = "does not exist" if not path.exists() else "is malformed"
    detail = f" ({cause})" if cause and path.exists() else ""
    raise DataError(
        f"{data_set.kind}: {path} {found}{detail}; expected {expected}. Download: {data_set.page}"
    ) from cause


def need(data_set: type[DataSet], path: Path, expected: str) -> Path:
    """The path, if it exists; else a DataError as `fail` raises it."""
    if not path.exists():
        fail(data_set, path, expected)
    return path


def read_json(data_set: type[DataSet], path: Path, expected: str) -> Any:
    """Content of a JSON file."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        fail(data_set, path, expected, error)


def read_numbers(data_set: type[DataSet], path: Path, shape: tuple[int, ...], expected: str) -> NDArray[np.float64]:
    """Numbers of a text file in an array of this shape; -1 for a dimension that the file decides."""
    try:
        return np.array(path.read_text().split(), dtype=np.float64).reshape(shape)
    except (OSError, ValueError) as error:
        fail(data_set, path, expected, error)


def read_binary(data_set: type[DataSet], path: Path, dtype: Any, columns: int, expected: str) -> NDArray[Any]:
    """(N, columns) numbers of a file that holds nothing else."""
    try:
        return np.frombuffer(path.read_bytes(), dtype=dtype).reshape(-1, columns)
    except (OSError, ValueError) as error:
        fail(data_set, path, expected, error)


@lru_cache
def splits(name: str) -> dict[str, frozenset[str]]:
    """Official splits of a data set (``config/splits``): names of the scenes of each."""
    content = yaml.safe_load(config_file("splits", name).read_text())["splits"]
    return {str(split): frozenset(map(str, scenes)) for split, scenes in content.items()}


def words_of(name: str, split_file: str, *more: str) -> frozenset[str]:
    """Words of a scene: its name, its splits and what else is given."""
    return frozenset({name, *more, *(split for split, names in splits(split_file).items() if name in names)})
