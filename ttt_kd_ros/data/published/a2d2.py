"""A2D2: the semantic segmentation data set of Audi, front centre camera with the points that it sees.

As in the official tutorial (https://www.a2d2.audi/a2d2/en/tutorial.html): a *view* of ``cams_lidars.json`` has an
origin and axes in the frame of the car, x forward and z up; the points are in the view of their camera, ``row`` and
``col`` are their pixel in the undistorted picture, the label picture is coloured as ``class_list.json`` says. The
label of a point is that of its pixel in the undistorted label picture, as xMUDA takes it
(https://github.com/valeoai/xmuda). Names of the arrays differ between the releases: both are read.

Not certain: that the lowest value of the car's ``ego-dimensions`` in z is the ground; and the release that an archive
belongs to, because the tutorial's names of the arrays are not those of the sensor fusion set.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.classes import ClassList, load_label_names
from ttt_kd_ros.data.folder import Folder, Picture, Record, picture_size, read_arrays, read_picture
from ttt_kd_ros.data.published.dataset import DataSet, SceneEntry, fail, read_json, words_of
from ttt_kd_ros.errors import DataError
from ttt_kd_ros.frame import Camera
from ttt_kd_ros.geometry.transforms import invert, rigid

CAMERA, IN_FILES = "front_center", "frontcenter"
OPTICAL_FROM_VIEW = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
LENSES = {"Telecam": "plumb_bob", "Fisheye": "equidistant"}
NOTHING = 255


class A2D2(DataSet):
    """The directory that holds ``cams_lidars.json``. Words: name of the drive, ``train`` or ``test`` (of xMUDA)."""

    kind = "A2D2"
    needs = "cams_lidars.json"
    page = "https://www.a2d2.audi/a2d2/en/download.html (semantic segmentation)"

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether the calibration is there."""
        return (root / "cams_lidars.json").is_file()

    def scenes(self) -> Sequence[SceneEntry]:
        """The drives with points; two of the set have none."""
        names = sorted(path.parents[1].name for path in self.root.glob(f"*/lidar/cam_{CAMERA}"))
        return [SceneEntry(name, words_of(name, "a2d2")) for name in names]

    def open(self, scene: SceneEntry, classes: ClassList) -> Folder:
        """One drive."""
        return Drive(self.root, scene.name, classes)


class Drive(Folder):
    """A drive with the front centre camera."""

    kind = A2D2.kind
    label_map = "a2d2"
    camera_name = f"cam_{CAMERA}"

    def __init__(self, root: Path, name: str, classes: ClassList) -> None:
        self._root, self._path = root, root / name
        scans = sorted((self._path / "lidar" / self.camera_name).glob("*.npz"))
        self._scans = [scan for scan in scans if self._has_pixels(scan)]
        stamps = [self._stamp(scan) for scan in self._scans]
        super().__init__(name, classes, stamps)
        self.T_base_scan = self._car_frame()

    @property
    def mountings(self) -> Mapping[str, NDArray[np.float64]]:
        """The points are in the view of the camera itself."""
        return {self.camera_name: rigid(OPTICAL_FROM_VIEW, np.zeros(3))}

    def record(self, index: int) -> Record:
        """One scan with its picture."""
        scan = self._scans[index]
        arrays = {key.removeprefix("pcloud_attr."): value for key, value in read_arrays(scan).items()}
        xyz = arrays.get("points", arrays.get("pcloud_points"))
        missing = {"row", "col", "reflectance"} - arrays.keys()
        if xyz is None or missing:
            fail(A2D2, scan, f"arrays points, row, col and reflectance; it has {', '.join(sorted(arrays))}")
        points = np.column_stack([xyz, arrays["reflectance"]]).astype(np.float32)
        labels = self._classes[self._ids(scan, arrays["row"], arrays["col"])] if self._classes is not None else None
        picture = Picture(
            self.camera_name, self._file(scan, "camera", ".png"), self.stamps[index], self._camera,
            self.mountings[self.camera_name],
        )  # fmt: skip
        return Record(self.stamps[index], points, labels, (picture,))

    @staticmethod
    def _has_pixels(scan: Path) -> bool:
        """Whether the file tells the pixels of its points; some published ones do not (xMUDA skips them too)."""
        try:
            with zipfile.ZipFile(scan) as file:
                names = {Path(name).stem.removeprefix("pcloud_attr.") for name in file.namelist()}
        except (OSError, zipfile.BadZipFile) as error:
            fail(A2D2, scan, "a file of arrays", error)
        return {"row", "col"} <= names

    def _file(self, scan: Path, what: str, suffix: str) -> Path:
        name = scan.name.replace(f"_lidar_{IN_FILES}_", f"_{what}_{IN_FILES}_")
        return (self._path / what / self.camera_name / name).with_suffix(suffix)

    def _stamp(self, scan: Path) -> int:
        """Time of the picture [us], which the file beside it tells."""
        path = self._file(scan, "camera", ".json")
        try:
            return int(read_json(A2D2, path, "an object with cam_tstamp")["cam_tstamp"]) * 1000
        except (KeyError, TypeError, ValueError) as error:
            fail(A2D2, path, "an object with cam_tstamp", error)

    def _ids(self, scan: Path, rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.uint8]:
        path = self._file(scan, "label", ".png")
        try:
            image = self._undistorted(read_picture(path)).astype(np.int64)
        except DataError as error:
            fail(A2D2, path, "the label picture", error)
        height, width, _ = image.shape
        row, column = np.rint(rows).astype(int), np.rint(columns).astype(int)
        pixels = image[row.clip(0, height - 1), column.clip(0, width - 1)]
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        codes, which = np.unique(pixels @ [65536, 256, 1], return_inverse=True)
        table = np.array([self._colours.get(int(code), NOTHING) for code in codes], dtype=np.uint8)
        return np.where(inside, table[which], NOTHING).astype(np.uint8)

    @cached_property
    def _colours(self) -> dict[int, int]:
        """Our id of each colour of the label pictures, red * 65536 + green * 256 + blue."""
        path = self._root / "class_list.json"
        ours = {name: i for i, name in load_label_names("a2d2").items()}
        listed = read_json(A2D2, path, "an object that names the class of each colour #rrggbb")
        unknown = set(listed.values()) - ours.keys()
        if unknown:
            fail(A2D2, path, f"the published classes; it also has {', '.join(sorted(unknown))}")
        return {int(colour.lstrip("#"), 16): ours[name] for colour, name in listed.items()}

    @cached_property
    def _calibration(self) -> Mapping[str, Any]:
        return read_json(A2D2, self._root / "cams_lidars.json", "cameras and vehicle")

    @cached_property
    def _camera(self) -> Camera:
        camera = self._of_camera()
        try:
            K = np.array(camera["CamMatrixOriginal"], dtype=np.float64).reshape(3, 3)
            distortion = tuple(np.array(camera["Distortion"], dtype=np.float64).ravel().tolist())
            model = LENSES[camera["Lens"]]
        except (KeyError, TypeError, ValueError) as error:
            fail(A2D2, self._root / "cams_lidars.json", "Lens, CamMatrixOriginal and Distortion of a camera", error)
        return Camera(*picture_size(self._file(self._scans[0], "camera", ".png")), K, distortion, model)

    def _of_camera(self) -> Mapping[str, Any]:
        try:
            return self._calibration["cameras"][CAMERA]
        except (KeyError, TypeError) as error:
            fail(A2D2, self._root / "cams_lidars.json", f"cameras with {CAMERA}", error)

    def _undistorted(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The label picture as an ideal camera has it; colours are not mixed."""
        camera, K = self._camera, np.array(self._of_camera()["CamMatrix"], dtype=np.float64).reshape(3, 3)
        size, D = (camera.width, camera.height), np.array(camera.distortion)
        undistort = cv2.fisheye if camera.distortion_model == "equidistant" else cv2
        columns, rows = undistort.initUndistortRectifyMap(camera.K, D, np.eye(3), K, size, cv2.CV_32FC1)
        return np.asarray(cv2.remap(image, columns, rows, cv2.INTER_NEAREST), dtype=np.uint8)

    def _car_frame(self) -> NDArray[np.float64]:
        try:
            T_car_view = _view(self._of_camera()["view"])
            ground = float(self._calibration["vehicle"]["ego-dimensions"]["z-range"][0])
            T_g_car = invert(_view(self._calibration["vehicle"]["view"]))
        except (KeyError, TypeError, IndexError, ValueError) as error:
            fail(A2D2, self._root / "cams_lidars.json", "views of camera and vehicle, and its ego-dimensions", error)
        lowered = rigid(np.eye(3), np.array([0.0, 0.0, -ground]))
        return lowered @ T_g_car @ T_car_view


def _view(view: Mapping[str, Any]) -> NDArray[np.float64]:
    """Transform from a view to the frame that it is given in; its axes need not be orthonormal."""
    x, y = np.array(view["x-axis"], dtype=np.float64), np.array(view["y-axis"], dtype=np.float64)
    x /= np.linalg.norm(x)
    y -= x * (x @ y)
    y /= np.linalg.norm(y)
    return rigid(np.column_stack([x, y, np.cross(x, y)]), np.array(view["origin"], dtype=np.float64))
