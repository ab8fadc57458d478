"""Readers for data folders: every folder is a sequence of `Frame`, with labels where it has them."""

from __future__ import annotations

from pathlib import Path

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.data.folder import Content, Folder
from ttt_kd_ros.data.kitti import KittiRaw, SemanticKitti, SemanticKittiRangeImages
from ttt_kd_ros.data.nuscenes import IkaVlp32, NuScenesKeyframe, NuScenesRangeImages
from ttt_kd_ros.data.pandaset import PandaSet
from ttt_kd_ros.data.simulated import Simulated
from ttt_kd_ros.errors import DataError

__all__ = ["FORMATS", "Folder", "open_folder"]

FORMATS: tuple[type[Folder], ...] = (
    Simulated,
    PandaSet,
    SemanticKitti,
    KittiRaw,
    NuScenesKeyframe,
    SemanticKittiRangeImages,
    NuScenesRangeImages,
    IkaVlp32,
)


def open_folder(path: str | Path, classes: ClassList, *, spinning_only: bool = False) -> Folder:
    """Open a data folder of any known format, recognised by what lies in it.

    Parameters
    ----------
    path
        The folder; ``FOLDER@6:20`` takes its scans 6 to 19 only, ``FOLDER@::5`` every fifth.
    classes
        Classes to map its labels to.
    spinning_only
        Leave out the points of sensors that do not spin (PandaSet has one).

    Raises
    ------
    DataError
        If the folder is missing, damaged or of no known format, or the part is empty or no slice.
    InputError
        If there is no label map from the folder's labels to `classes`.
    """
    folder, _, part = str(path).partition("@")
    content = Content.of(folder).part(part)
    for format_ in FORMATS:
        if format_.recognises(content):
            return PandaSet(content, classes, spinning_only) if format_ is PandaSet else format_(content, classes)
    known = "; ".join(f"{format_.kind} ({format_.needs})" for format_ in FORMATS)
    keys = f"{', '.join(sorted(content.calibration))}" if content.calibration else "does not exist"
    raise DataError(
        f"'{path}' is of no known format: {content.scans[0].name} holds {', '.join(sorted(content.first))}, "
        f"calib.json: {keys}; looked for: {known}"
    )
