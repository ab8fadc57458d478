"""nuScenes with nuScenes-lidarseg: keyframes at 2 Hz with six cameras, from the JSON tables.

Tables as in the schema of the devkit (https://github.com/nutonomy/nuscenes-devkit, docs/schema_nuscenes.md). A scan is
float32 x, y, z, intensity, ring; its labels are uint8. The id of a label is the ``index`` of ``category.json`` and is
looked up by name there, because the devkit's documents do not agree about the ids of some classes. Whether it is night
is told by the description of the scene, and where it is by the location of its log, as xMUDA does
(https://github.com/valeoai/xmuda).
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transforms3d.quaternions import quat2mat

from ttt_kd_ros.classes import ClassList, load_label_names
from ttt_kd_ros.data.folder import Folder, Picture, Pose, Record
from ttt_kd_ros.data.published.dataset import DataSet, SceneEntry, fail, need, read_binary, read_json, words_of
from ttt_kd_ros.frame import Camera
from ttt_kd_ros.geometry.transforms import invert, rigid

LIDAR = "LIDAR_TOP"
TEST = "v1.0-test"
Row = Mapping[str, Any]


class NuScenes(DataSet):
    """The directory that holds ``v1.0-*`` and ``samples``, or one of the ``v1.0-*`` where there are several.

    Words: name of the scene, ``train``, ``val``, ``test``, ``mini_train`` or ``mini_val``; ``usa`` or ``singapore``;
    ``day`` or ``night``; the location of the log, such as ``boston-seaport``.
    """

    kind = "nuScenes"
    needs = "v1.0-mini, v1.0-trainval or v1.0-test with scene.json"
    page = "https://www.nuscenes.org/nuscenes#download (with nuScenes-lidarseg)"

    def __init__(self, root: Path, spinning_only: bool = False) -> None:
        super().__init__(root, spinning_only)
        self._tables = sorted(path.parent for path in root.glob("v1.0-*/scene.json"))
        if not self._tables:
            self._tables, self.root = [root], root.resolve().parent
        if len(self._tables) > 1:
            fail(NuScenes, root, f"one version; give one of {', '.join(map(str, self._tables))} as the folder")

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether there are tables."""
        is_version = root.name.startswith("v1.0-") and (root / "scene.json").is_file()
        return is_version or any(root.glob("v1.0-*/scene.json"))

    def table(self, name: str) -> list[Row]:
        """All rows of a table."""
        return read_json(NuScenes, self._tables[0] / f"{name}.json", "a table of the nuScenes schema")

    def by_token(self, name: str) -> dict[str, Row]:
        """The rows of a table by their token."""
        return {row["token"]: row for row in self.table(name)}

    def scenes(self) -> Sequence[SceneEntry]:
        """The scenes of this version."""
        places = {token: str(log["location"]) for token, log in self.by_token("log").items()}
        entries = []
        for scene in self.table("scene"):
            place = places[scene["log_token"]]
            land = "singapore" if place.startswith("singapore") else "usa"
            light = "night" if "night" in scene["description"].lower() else "day"
            entries.append(SceneEntry(scene["name"], words_of(scene["name"], "nuscenes", land, light, place)))
        return sorted(entries, key=lambda entry: entry.name)

    def open(self, scene: SceneEntry, classes: ClassList) -> Folder:
        """The keyframes of one scene."""
        token = next(row["token"] for row in self.table_scene if row["name"] == scene.name)
        keyframes = [self._keyframes[sample["token"]] for sample in self._samples[token]]
        return Keyframes(self, scene.name, keyframes, classes)

    @cached_property
    def table_scene(self) -> list[Row]:
        """Rows of ``scene``."""
        return self.table("scene")

    @cached_property
    def _samples(self) -> dict[str, list[Row]]:
        """Samples of each scene, in the order of time."""
        samples = defaultdict(list)
        for sample in sorted(self.table("sample"), key=lambda sample: sample["timestamp"]):
            samples[sample["scene_token"]].append(sample)
        return samples

    @cached_property
    def _keyframes(self) -> dict[str, dict[str, Row]]:
        """Of each sample: the data of the scanner and the cameras, by channel."""
        channels = {token: sensor["channel"] for token, sensor in self.by_token("sensor").items()}
        keyframes: dict[str, dict[str, Row]] = defaultdict(dict)
        for data in self.table("sample_data"):
            channel = channels[self.calibrations[data["calibrated_sensor_token"]]["sensor_token"]]
            if data["is_key_frame"] and (channel == LIDAR or channel.startswith("CAM")):
                keyframes[data["sample_token"]][channel] = data
        return keyframes

    @cached_property
    def calibrations(self) -> dict[str, Row]:
        """Rows of ``calibrated_sensor``."""
        return self.by_token("calibrated_sensor")

    @cached_property
    def poses(self) -> dict[str, Row]:
        """Rows of ``ego_pose`` that keyframes have; all of them are millions."""
        recorded = [data for keyframe in self._keyframes.values() for data in keyframe.values()]
        wanted = {data["ego_pose_token"] for data in recorded}
        return {row["token"]: row for row in self.table("ego_pose") if row["token"] in wanted}

    @cached_property
    def label_files(self) -> dict[str, str]:
        """File of the labels of each scan; none in a version without labels, and a warning if they were published."""
        table = self._tables[0] / "lidarseg.json"
        if table.is_file():
            return {row["sample_data_token"]: row["filename"] for row in self.table(table.stem)}
        if table.parent.name != TEST:
            what = f"{table} does not exist: no scan has labels without nuScenes-lidarseg. Download: {self.page}"
            warnings.warn(what, stacklevel=2)
        return {}

    @cached_property
    def ids(self) -> NDArray[np.uint8]:
        """(256,) our id of each label of the files, 255 for those whose name the schema does not have."""
        ours = {name: i for i, name in load_label_names("nuscenes").items()}
        table = np.full(256, 255, dtype=np.uint8)
        for category in self.table("category"):
            if "index" not in category:
                fail(NuScenes, self._tables[0] / "category.json", "an 'index' in each row, as nuScenes-lidarseg has it")
            table[category["index"]] = ours.get(category["name"], 255)
        return table


class Keyframes(Folder):
    """The keyframes of a scene; nuScenes' ego frame is the base frame: on the ground under the rear axle, x forward."""

    kind = NuScenes.kind

    def __init__(
        self, data_set: NuScenes, name: str, keyframes: Sequence[Mapping[str, Row]], classes: ClassList
    ) -> None:
        self._set, self._keyframes = data_set, keyframes
        self.label_map = "nuscenes" if keyframes[0][LIDAR]["token"] in data_set.label_files else None
        self.T_base_scan = self._mounting(keyframes[0][LIDAR])
        super().__init__(name, classes, [keyframe[LIDAR]["timestamp"] * 1000 for keyframe in keyframes])

    @property
    def mountings(self) -> Mapping[str, NDArray[np.float64]]:
        """Mountings of the cameras."""
        cameras = {name: data for name, data in self._keyframes[0].items() if name != LIDAR}
        return {name.lower(): invert(self._mounting(data)) @ self.T_base_scan for name, data in sorted(cameras.items())}

    def trajectory(self) -> tuple[Pose, ...]:
        """Poses at the stamps of the scans and of the pictures, in the frame of the log's map."""
        recorded = [data for keyframe in self._keyframes for data in keyframe.values()]
        poses = {int(data["timestamp"]) * 1000: self._pose(data) for data in recorded}
        return tuple(Pose(stamp, T) for stamp, T in sorted(poses.items()))

    def record(self, index: int) -> Record:
        """One keyframe."""
        keyframe = self._keyframes[index]
        path = self._set.root / keyframe[LIDAR]["filename"]
        points = read_binary(NuScenes, path, np.float32, 5, "float32 x, y, z, intensity, ring")[:, :4]
        labels = None
        if self._classes is not None:
            labels = self._classes[self._labels(keyframe[LIDAR], len(points))]
        pictures = [self._picture(name, keyframe) for name in sorted(keyframe) if name != LIDAR]
        return Record(self.stamps[index], np.ascontiguousarray(points), labels, tuple(pictures))

    def _labels(self, scan: Row, count: int) -> NDArray[np.uint8]:
        path = self._set.root / self._set.label_files[scan["token"]]
        labels = read_binary(NuScenes, path, np.uint8, 1, f"{count} uint8 labels of nuScenes-lidarseg")[:, 0]
        if len(labels) != count:
            fail(NuScenes, path, f"{count} labels as the scan has points, not {len(labels)}")
        return self._set.ids[labels]

    def _picture(self, name: str, keyframe: Mapping[str, Row]) -> Picture:
        """The transform goes through the map: the car moves between the stamps of scan and picture."""
        data = keyframe[name]
        path = need(NuScenes, self._set.root / data["filename"], f"a picture of {name}")
        K = np.array(self._set.calibrations[data["calibrated_sensor_token"]]["camera_intrinsic"], dtype=np.float64)
        T_map_scan = self._pose(keyframe[LIDAR]) @ self._mounting(keyframe[LIDAR])
        T_map_camera = self._pose(data) @ self._mounting(data)
        camera = Camera(int(data["width"]), int(data["height"]), K)
        return Picture(name.lower(), path, int(data["timestamp"]) * 1000, camera, invert(T_map_camera) @ T_map_scan)

    def _mounting(self, data: Row) -> NDArray[np.float64]:
        """``T_base_sensor``."""
        return _transform(self._set.calibrations[data["calibrated_sensor_token"]])

    def _pose(self, data: Row) -> NDArray[np.float64]:
        """``T_map_base`` at the stamp of the data."""
        return _transform(self._set.poses[data["ego_pose_token"]])


def _transform(row: Row) -> NDArray[np.float64]:
    """Rotation is a quaternion w, x, y, z."""
    return rigid(quat2mat(row["rotation"]), np.array(row["translation"], dtype=np.float64))
