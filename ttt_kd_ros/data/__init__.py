"""Readers for data folders and published data sets: each is a sequence of `Frame`, with labels where it has them."""

from __future__ import annotations

from pathlib import Path

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.data.folder import Content, Folder, ScanFolder, folder_and_parts, part_of
from ttt_kd_ros.data.kitti import KittiRaw, SemanticKitti, SemanticKittiRangeImages
from ttt_kd_ros.data.nuscenes import IkaVlp32, NuScenesKeyframe, NuScenesRangeImages
from ttt_kd_ros.data.pandaset import PandaSet
from ttt_kd_ros.data.published import DATA_SETS
from ttt_kd_ros.data.published.dataset import DataSet
from ttt_kd_ros.data.scenes import Scenes
from ttt_kd_ros.data.simulated import Simulated
from ttt_kd_ros.errors import DataError

__all__ = ["DATA_SETS", "FORMATS", "Folder", "open_folder"]

FORMATS: tuple[type[ScanFolder], ...] = (
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
    """Open a data folder or published data set of any known format, recognised by what lies in it.

    Parameters
    ----------
    path
        The folder; ``FOLDER@6:20`` takes its scans 6 to 19 only, ``FOLDER@::5`` every fifth. Of a data set
        ``FOLDER@val`` takes the scenes of a split, ``FOLDER@scene-0061`` one scene, ``FOLDER@val+night`` those that
        have all these words, and ``FOLDER@val@::5`` every fifth of their frames.
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
    folder, parts = folder_and_parts(path)
    for data_set in DATA_SETS:
        if data_set.recognises(folder):
            return _open_data_set(data_set(folder, spinning_only), parts, classes)
    if len(parts) > 1:
        raise DataError(f"'{path}': only a data set takes more than one part after an @, and '{folder}' is none")
    content = Content.of(folder).part(parts[0] if parts else "")
    for format_ in FORMATS:
        if format_.recognises(content):
            return PandaSet(content, classes, spinning_only) if format_ is PandaSet else format_(content, classes)
    formats: list[type[ScanFolder] | type[DataSet]] = [*FORMATS, *DATA_SETS]
    known = "; ".join(f"{format_.kind} ({format_.needs})" for format_ in formats)
    keys = f"{', '.join(sorted(content.calibration))}" if content.calibration else "does not exist"
    raise DataError(
        f"'{path}' is of no known format: {content.scans[0].name} holds {', '.join(sorted(content.first))}, "
        f"calib.json: {keys}; looked for: {known}"
    )


def _open_data_set(data_set: DataSet, parts: list[str], classes: ClassList) -> Folder:
    words = parts.pop(0) if parts and ":" not in parts[0] else ""
    if len(parts) > 1:
        raise DataError(f"'@{'@'.join(parts)}' is no part of a data set; write @words@start:stop:step")
    opened = [data_set.open(scene, classes) for scene in data_set.choose(words)]
    frames = [(scene, index) for scene in opened for index in range(len(scene))]
    name = "@".join([data_set.root.resolve().name, *filter(None, [words, *parts])])
    return Scenes(name, part_of(frames, parts[0] if parts else "", str(data_set.root)))
