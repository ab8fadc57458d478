"""Class lists: what a label means and which colour it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ttt_kd_ros.errors import InputError
from ttt_kd_ros.frame import IGNORE_LABEL
from ttt_kd_ros.share import config_file

IGNORE_COLOR = (0, 0, 0)


@dataclass(frozen=True)
class ClassList:
    """Classes in the order of their labels.

    Parameters
    ----------
    name
        Name of the list.
    names
        Name of class 0, 1, ...
    colors
        RGB of each class, 0..255.
    """

    name: str
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.names) < IGNORE_LABEL:
            raise InputError(
                f"class list '{self.name}' has {len(self.names)} classes; 1 to {IGNORE_LABEL - 1} are allowed"
            )
        if len(set(self.names)) != len(self.names) or len(self.colors) != len(self.names):
            raise InputError(f"class list '{self.name}' needs distinct names and one colour for each")
        if any(len(color) != 3 or not all(0 <= c <= 255 for c in color) for color in self.colors):
            raise InputError(f"class list '{self.name}' has a colour that is not three numbers from 0 to 255")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ClassList:
        """Read the form that `to_dict` writes.

        Raises
        ------
        InputError
            If a key is missing or a colour is not three numbers.
        """
        try:
            names = tuple(str(c["name"]) for c in data["classes"])
            colors = tuple((int(r), int(g), int(b)) for r, g, b in (c["color"] for c in data["classes"]))
            return cls(str(data["name"]), names, colors)
        except (KeyError, TypeError) as error:
            raise InputError(
                f"a class list needs 'name' and 'classes' with 'name' and 'color' each: {error!r}"
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and YAML."""
        classes = [{"name": n, "color": list(c)} for n, c in zip(self.names, self.colors, strict=True)]
        return {"name": self.name, "classes": classes}

    def palette(self) -> NDArray[np.uint8]:
        """(256, 3) uint8 RGB by label; labels without a class are black."""
        table = np.full((256, 3), IGNORE_COLOR, dtype=np.uint8)
        table[: len(self.colors)] = self.colors
        return table


def load_classes(name: str | Path) -> ClassList:
    """Class list from a YAML file or one of the installed ones (``config/classes``).

    Raises
    ------
    InputError
        If it does not exist or is malformed.
    """
    path = config_file("classes", name)
    try:
        return ClassList.from_dict(yaml.safe_load(path.read_text()))
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} is no class list: {error}") from error


def load_label_map(name: str | Path, classes: ClassList) -> NDArray[np.uint8]:
    """Lookup table from a data set's own labels to `classes`.

    Parameters
    ----------
    name
        A YAML file or one of the installed label maps (``config/labels``).
    classes
        The target classes.

    Returns
    -------
    (256,) uint8
        Class of each source label, `IGNORE_LABEL` where it has none.

    Raises
    ------
    InputError
        If there is no such file, or it has no map to `classes`, or names an unknown class.
    """
    path = config_file("labels", name)
    table = np.full(256, IGNORE_LABEL, dtype=np.uint8)
    content = _content(path)
    maps, ids = content["maps"], {name: i for i, name in content.get("labels", {}).items()}
    if classes.name not in maps:
        raise InputError(f"{path} has no map to the class list '{classes.name}', only to {', '.join(maps)}; add one")
    for class_name, sources in maps[classes.name].items():
        if class_name not in classes.names:
            raise InputError(f"{path}: '{class_name}' is no class of {classes.name} ({', '.join(classes.names)})")
        unknown = [label for label in sources if isinstance(label, str) and label not in ids]
        if unknown:
            raise InputError(f"{path}: '{class_name}' takes {', '.join(unknown)}, which is no label of the data set")
        table[[ids.get(label, label) for label in sources]] = classes.names.index(class_name)
    return table


def load_label_names(name: str | Path) -> dict[int, str]:
    """Published names of a data set's own labels, by id; of a label map (``config/labels``) that lists them."""
    return dict(_content(config_file("labels", name))["labels"])


@lru_cache
def _content(path: Path) -> Mapping[str, Any]:
    """Of a label map; every scene of a data set asks for it."""
    return yaml.safe_load(path.read_text())
