"""What all data folders have in common: numbered scans, pictures beside them, labels mapped to a class list."""

from __future__ import annotations

import json
import tokenize
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.classes import ClassList, load_label_map
from ttt_kd_ros.errors import DataError
from ttt_kd_ros.frame import Camera, CameraView, Frame, Scan
from ttt_kd_ros.geometry.deskew import Motion, deskew
from ttt_kd_ros.geometry.transforms import invert, rigid

T = TypeVar("T")

DAMAGE = (
    ValueError, EOFError, OSError, RuntimeError, MemoryError, tokenize.TokenError, zlib.error, zipfile.BadZipFile,
    zipfile.LargeZipFile,
)  # fmt: skip
"""What numpy and zipfile raise at npz files with wrong bytes."""

FIRST_STAMP = 1_000_000_000 * 10**9
"""Stamp [ns] of scan 0 of a folder that does not tell when it was recorded."""


@dataclass(frozen=True)
class Content:
    """What lies in a folder.

    Parameters
    ----------
    path
        The folder.
    scans
        Its ``*.npz`` files, sorted by name.
    first
        Arrays of the first scan.
    calibration
        Content of ``calib.json``, empty without one.
    name
        Name of the folder, with the part of it that is meant.
    """

    path: Path
    scans: tuple[Path, ...]
    first: Mapping[str, NDArray[Any]]
    calibration: Mapping[str, Any]
    name: str

    @classmethod
    def of(cls, path: str | Path) -> Content:
        """Look into a folder.

        Raises
        ------
        DataError
            If it is no directory, holds no scan, or its first scan or calibration is damaged.
        """
        directory = Path(path).resolve()
        if not directory.is_dir():
            raise DataError(f"'{path}' is not a directory{_of_a_bag(directory)}")
        scans = tuple(sorted(directory.glob("*.npz")))
        if not scans:
            raise DataError(f"'{path}' holds no scans: looked for *.npz files{_of_a_bag(directory)}")
        calibration = _read_calibration(directory / "calib.json")
        return cls(directory, scans, read_arrays(scans[0]), calibration, directory.name)

    def part(self, text: str) -> Content:
        """The scans that ``start:stop`` or ``start:stop:step`` takes; all if the text is empty.

        Raises
        ------
        DataError
            If the text is no slice or takes no scan.
        """
        if not text:
            return self
        return replace(self, scans=tuple(part_of(self.scans, text, str(self.path))), name=f"{self.name}@{text}")

    def has(self, *arrays: str) -> bool:
        """Whether the first scan has all of these arrays."""
        return self.first.keys() >= set(arrays)

    @property
    def highest_intensity(self) -> float:
        """Of the first scan, by which formats differ.

        Raises
        ------
        DataError
            If it has no points, or ones of another form.
        """
        points = self.first["points"]
        if not _are_points(points) or not len(points):
            raise DataError(
                f"{self.scans[0]}: the first scan's 'points' must be (N, 4) numbers with at least one point, for their "
                f"intensity tells the format; they are {points.shape}"
            )
        return float(points[:, 3].max())

    def calibrates(self, *keys: str) -> bool:
        """Whether ``calib.json`` has all of these keys."""
        return self.calibration.keys() >= set(keys)


@dataclass(frozen=True)
class Picture:
    """A picture as it is stored.

    Parameters
    ----------
    camera_name
        Name of the camera.
    path
        A JPEG or PNG file.
    stamp
        Time of the exposure [ns].
    camera
        Intrinsics.
    T_camera_scan
        (4, 4) float64, maps scan coordinates at the scan's stamp to camera coordinates at the picture's.
    depth
        The picture's depth image; None without one.
    """

    camera_name: str
    path: Path
    stamp: int
    camera: Camera
    T_camera_scan: NDArray[np.float64]
    depth: DepthPicture | None = None


@dataclass(frozen=True)
class DepthPicture:
    """A depth image as it is stored: 16 bits, `per_metre` steps in a metre along the optical axis.

    Parameters
    ----------
    path
        A PNG file.
    per_metre
        Value of one metre.
    unknown
        Value of a pixel without a measurement, besides 0.
    """

    path: Path
    per_metre: float
    unknown: int = 0

    def read(self) -> NDArray[np.float32]:
        """(H, W) [m], 0 where nothing was measured.

        Raises
        ------
        DataError
            If the file is missing or no depth image.
        """
        values = cv2.imread(str(self.path), cv2.IMREAD_UNCHANGED) if self.path.is_file() else None
        if values is None or values.ndim != 2:
            raise DataError(f"{self.path} is missing or no depth image of one channel")
        return np.where(values == self.unknown, 0, values / self.per_metre).astype(np.float32)


@dataclass(frozen=True)
class Pose:
    """Where the base was at a time, in a frame that does not move: ``T_odom_base`` (4, 4) float64, stamp [ns]."""

    stamp: int
    T_odom_base: NDArray[np.float64]


@dataclass(frozen=True)
class Record:
    """One scan with all that is stored of it.

    Parameters
    ----------
    stamp
        Time of the scan [ns].
    points
        (N, 4) float32: x, y, z [m] in the scan frame, intensity as the folder has it; NaN where nothing was measured.
    labels
        (N,) uint8 class of each point, `IGNORE_LABEL` where it has none; None without ground truth.
    pictures
        The pictures that belong to the scan.
    times
        (N,) float32 time of each point after the stamp [s]; None where it is unknown.
    """

    stamp: int
    points: NDArray[np.float32]
    labels: NDArray[np.uint8] | None
    pictures: tuple[Picture, ...]
    times: NDArray[np.float32] | None = None


class Folder(ABC):
    """A sequence of frames in the order of time.

    Parameters
    ----------
    name
        What it is called.
    classes
        Classes to map the labels to.
    stamps
        Time of each scan [ns].

    Raises
    ------
    DataError
        If the files are not as the format has them. Reading a frame raises it for a file that is damaged or missing.
    InputError
        If there is no label map from the format's labels to `classes`.
    """

    kind: ClassVar[str]
    """Name of the format."""
    label_map: str | None = None
    """Label map (``config/labels``) of the format's own labels; None without labels."""
    T_base_scan: NDArray[np.float64]
    """(4, 4) maps scan coordinates to the base frame: x forward, y left, z up, z = 0 on the ground."""

    def __init__(self, name: str, classes: ClassList, stamps: Sequence[int]) -> None:
        self.name = name
        self.classes = classes
        self.stamps: tuple[int, ...] = tuple(stamps)
        self._classes = load_label_map(self.label_map, classes) if self.label_map else None

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Cameras that have a picture of at least one scan."""
        return tuple(self.mountings)

    @property
    def mountings(self) -> Mapping[str, NDArray[np.float64]]:
        """``T_camera_scan`` (4, 4) of each camera with scan and picture at one time, without motion between them."""
        return {}

    @property
    def scenes(self) -> tuple[Folder, ...]:
        """The scenes that it is made of, each a sequence of its own."""
        return (self,)

    def trajectory(self) -> tuple[Pose, ...]:
        """Motion of the base, sorted by stamp; empty where it is unknown."""
        return ()

    def __len__(self) -> int:
        return len(self.stamps)

    def __iter__(self) -> Iterator[Frame]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Frame:
        record = self.record(index)
        points = np.ascontiguousarray(record.points[:, :3])
        if record.times is not None and len(points):
            points = self._deskewed(points, record.times.astype(np.float64), record.stamp)
        scan = Scan(points, self.T_base_scan, record.stamp)
        return Frame(scan, tuple(_view(picture) for picture in record.pictures), record.labels)

    def _deskewed(self, points: NDArray[np.float32], times: NDArray[np.float64], stamp: int) -> NDArray[np.float32]:
        """Points as they lie at the stamp, as the node finds it by TF; as they are where the motion is not known."""
        poses = self.trajectory()
        after_stamp = np.array([pose.stamp - stamp for pose in poses]) * 1e-9
        first, last = np.searchsorted(after_stamp, [min(0.0, times.min()), max(0.0, times.max())])
        during = poses[max(0, first - 1) : last + 1]
        T_odom_scan = {pose.stamp: pose.T_odom_base @ self.T_base_scan for pose in during}
        if not T_odom_scan.keys() > {stamp}:
            return points
        T_stamp_time = invert(T_odom_scan[stamp]) @ np.array(list(T_odom_scan.values()))
        return deskew(points, times, Motion(np.array([time - stamp for time in T_odom_scan]) * 1e-9, T_stamp_time))

    @abstractmethod
    def record(self, index: int) -> Record:
        """One scan, with intensity, and where its pictures lie."""


class ScanFolder(Folder):
    """A folder of ``*.npz`` scans with pictures beside them.

    Parameters
    ----------
    content
        The folder.
    classes
        Classes to map the labels to.
    """

    needs: ClassVar[str]
    """What a folder of this format is recognised by."""
    time_array: ClassVar[str | None] = None
    """Array of the scans that holds the time of each point after the stamp [s]; None where it is unknown."""

    def __init__(self, content: Content, classes: ClassList) -> None:
        self._content = content
        super().__init__(content.name, classes, [self._stamp(path) for path in content.scans])

    @classmethod
    @abstractmethod
    def recognises(cls, content: Content) -> bool:
        """Whether the content is of this format."""

    def record(self, index: int) -> Record:
        """One scan, with intensity, and where its pictures lie."""
        path = self._content.scans[index]
        arrays = read_arrays(path)
        points, labels = self._points(arrays, path)
        if self._classes is not None:
            labels = self._classes[labels]
        times = self._times(arrays, len(points), path)
        return Record(self.stamps[index], points, labels, self._pictures(index % len(self)), times)

    def _stamp(self, scan: Path) -> int:
        """Scans are numbered and come at 10 Hz unless the format says otherwise."""
        return FIRST_STAMP + scan_number(scan) * 10**8

    def _points(
        self, arrays: Mapping[str, NDArray[Any]], path: Path
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
        """Points (N, 4) and the format's own labels (N,) of a scan."""
        points = array(arrays, "points", path)
        labels = array(arrays, "label", path) if self.label_map else None
        if not _are_points(points) or (labels is not None and labels.shape != points.shape[:1]):
            raise DataError(f"{path}: 'points' must be (N, 4) numbers and 'label' (N,)")
        points = points.astype(np.float32, copy=False)
        return points, None if labels is None else byte_labels(labels, path)

    def _times(self, arrays: Mapping[str, NDArray[Any]], count: int, path: Path) -> NDArray[np.float32] | None:
        if self.time_array is None:
            return None
        times = array(arrays, self.time_array, path)
        if times.shape != (count,) or not np.isfinite(times).all():
            raise DataError(f"{path}: '{self.time_array}' must be ({count},) finite numbers")
        return times.astype(np.float32, copy=False)

    def _pictures(self, index: int) -> tuple[Picture, ...]:
        return ()


def folder_and_parts(text: str | Path) -> tuple[Path, list[str]]:
    """The folder of ``FOLDER@part@part``, and its parts: paths of folders that exist may have an @, parts a slash."""
    pieces = str(text).split("@")
    there = [count for count in range(len(pieces), 0, -1) if Path("@".join(pieces[:count])).is_dir()]
    count = there[0] if there else 1 + str(Path(text).parent).count("@")
    return Path("@".join(pieces[:count])), pieces[count:]


def part_of(items: Sequence[T], text: str, where: str) -> Sequence[T]:
    """The items that ``start:stop`` or ``start:stop:step`` takes; all if the text is empty.

    Raises
    ------
    DataError
        If the text is no slice or takes none.
    """
    try:
        bounds = [int(n) if n else None for n in (text or ":").split(":")]
        if len(bounds) not in (2, 3):
            raise ValueError(f"{len(bounds)} numbers")
        taken = items[slice(*bounds)]
    except ValueError as error:
        raise DataError(f"'@{text}' is no part of a folder; write @start:stop or @start:stop:step") from error
    if not taken:
        raise DataError(f"'{where}' has {len(items)} scans, none of them in @{text}")
    return taken


def require_unused(path: Path) -> None:
    """Raise DataError if there is something at `path`."""
    if path.exists():
        raise DataError(f"'{path}' exists already; remove it or choose another directory")


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an npz file.

    Raises
    ------
    DataError
        If it is damaged.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array without a name; write it with numpy.savez")
        with archive:
            return {key: archive[key] for key in archive.files}
    except DAMAGE as error:
        raise DataError(f"{path} is not a readable npz file: {error}") from error


def array(arrays: Mapping[str, NDArray[Any]], key: str, path: Path) -> NDArray[Any]:
    """One array of a scan; DataError if the scan lacks it."""
    if key not in arrays:
        raise DataError(f"{path} has no array '{key}', only {', '.join(sorted(arrays))}")
    return arrays[key]


def byte_labels(labels: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """Labels of any type of number as uint8; DataError if one of them is no whole number from 0 to 255."""
    if labels.dtype == np.uint8:
        return labels
    wrong = labels[~np.isin(labels, np.arange(256))]
    if len(wrong):
        raise DataError(
            f"{path} has the label {wrong[0]}; store the data set's own labels as whole numbers from 0 to 255, 255 "
            "where there is none"
        )
    return labels.astype(np.uint8)


def scan_number(scan: Path) -> int:
    """Number in the name of a scan; DataError if the name is none."""
    if not scan.stem.isdecimal():
        raise DataError(f"{scan}: scans of this format are named by a number")
    return int(scan.stem)


def matrix(values: Any, rows: int, columns: int, what: str) -> NDArray[np.float64]:
    """(rows, columns) float64 from nested or flat lists; DataError if they are something else or not finite."""
    try:
        numbers = np.asarray(values, dtype=np.float64).reshape(rows, columns)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} is not a {rows}x{columns} matrix of numbers") from error
    if not np.isfinite(numbers).all():
        raise DataError(f"{what} has numbers that are not finite (NaN or infinity)")
    return numbers


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture [px]."""
    height, width, _ = read_picture(path).shape
    return width, height


def level(height: float, slope_x: float, slope_y: float, forward: str) -> NDArray[np.float64]:
    """``T_base_scan`` from the ground as the sensor sees it.

    Parameters
    ----------
    height
        The ground is the plane ``z = slope_x x + slope_y y - height`` of the scan frame [m].
    slope_x, slope_y
        Its slopes: the tilt of the sensor.
    forward
        The scan frame's axis that points forward: ``x`` or ``y``.

    Returns
    -------
    (4, 4) float64
        The base's origin lies on the ground under the sensor, its x axis points forward.
    """
    up = np.array([-slope_x, -slope_y, 1.0]) / np.sqrt(1.0 + slope_x**2 + slope_y**2)
    axis = np.eye(3)[{"x": 0, "y": 1}[forward]]
    x = axis - axis @ up * up
    x /= np.linalg.norm(x)
    return rigid(np.stack([x, np.cross(up, x), up]), np.array([0.0, 0.0, height * up[2]]))


def _of_a_bag(path: Path) -> str:
    """What a message adds where a bag lies in place of a folder."""
    if not (path / "metadata.yaml").is_file() and not (path.is_file() and path.suffix in (".mcap", ".db3")):
        return ""
    return "; it is a bag, and bags are read by `ttt_kd fit`, `ttt_kd evaluate` and `ttt_kd replay` alone, as a whole"


def _are_points(values: NDArray[Any]) -> bool:
    return values.ndim == 2 and values.shape[1] == 4 and values.dtype.kind in "iuf"


def _read_calibration(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        calibration = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise DataError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(calibration, dict):
        raise DataError(f"{path} must hold an object")
    return calibration


def read_picture(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) RGB; DataError if it is missing or damaged."""
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"{path} is not a readable picture")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _view(picture: Picture) -> CameraView:
    depth = picture.depth.read() if picture.depth else None
    return CameraView(picture.camera_name, read_picture(picture.path), picture.camera, picture.T_camera_scan, depth)
