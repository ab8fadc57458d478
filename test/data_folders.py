"""Writes tiny data folders in every format that the readers know, from made-up numbers."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

POINTS = 60
K = [[50.0, 0.0, 31.5], [0.0, 50.0, 23.5], [0.0, 0.0, 1.0]]
OPTICAL_FROM_FORWARD_X = np.array([[0.0, -1.0, 0.0, 0.1], [0.0, 0.0, -1.0, -0.2], [1.0, 0.0, 0.0, -0.3], [0, 0, 0, 1]])
OPTICAL_FROM_FORWARD_Y = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1.0, 1.8], [0.0, 1.0, 0.0, -0.8], [0, 0, 0, 1.0]])


def points(seed=0, count=POINTS, intensity=1.0):
    rng = np.random.default_rng(seed)
    xyz = rng.uniform([-20, -20, -2], [20, 20, 3], (count, 3))
    strength = rng.uniform(0, intensity, count)
    strength[0] = intensity
    return np.column_stack([xyz, strength]).astype(np.float32)


def picture(path: Path, seed=0, grey=False, size=(64, 48)):
    rng = np.random.default_rng(seed)
    shape = (size[1], size[0]) if grey else (size[1], size[0], 3)
    cv2.imwrite(str(path), rng.integers(0, 255, shape, dtype=np.uint8))


def kitti_raw(folder: Path, scans=2):
    folder.mkdir()
    for i in range(scans):
        np.savez(folder / f"{i:06d}.npz", points=points(i))
        picture(folder / f"{i:06d}.jpg", i)
    calibration = {"K": K, "T_cam_lidar": OPTICAL_FROM_FORWARD_X.tolist(), "width": 64, "height": 48}
    (folder / "calib.json").write_text(json.dumps(calibration))
    return folder


def semantickitti(folder: Path, scans=3, pictures=2):
    folder.mkdir()
    labels = np.resize(np.array([40, 44, 48, 50, 72, 10, 30, 99, 255], dtype=np.uint8), POINTS)
    for i in range(scans):
        np.savez(folder / f"{i:06d}.npz", points=points(i), label=labels)
        if i < pictures:
            picture(folder / f"{i:06d}.png", i, grey=True)
    projection = np.column_stack([K, np.zeros(3)]).ravel().tolist()
    calibration = {"P0": projection, "Tr": OPTICAL_FROM_FORWARD_X[:3].ravel().tolist()}
    (folder / "calib.json").write_text(json.dumps(calibration))
    return folder


def range_images(folder: Path, names=("000000", "000001"), intensity=1.0, labels=(0, 9, 11)):
    folder.mkdir()
    cells = np.arange(POINTS, dtype=np.uint16)
    for i, name in enumerate(names):
        label = np.resize(np.array(labels, dtype=np.uint8), POINTS)
        np.savez(
            folder / f"{name}.npz", points=points(i, intensity=intensity), label=label, row=cells % 32, col=cells // 32
        )
    return folder


def nuscenes_range_images(folder: Path):
    return range_images(folder, intensity=200.0, labels=(0, 4, 10))


def ika_vlp32(folder: Path):
    range_images(folder, ("1603960637314959526", "1603960637514871120"), 200.0, (0, 7, 10))
    for path in folder.glob("*.npz"):
        arrays = dict(np.load(path))
        arrays["points"][5:9] = 10.0
        arrays["label"][5:9] = 10
        np.savez(path, **arrays)
    return folder


def nuscenes_keyframe(folder: Path):
    folder.mkdir()
    np.savez(folder / "scan.npz", points=points(intensity=255.0), ring=np.zeros(POINTS, np.uint8))
    cameras = {}
    for i, name in enumerate(("CAM_FRONT", "CAM_BACK")):
        picture(folder / f"{name}.jpg", i)
        turn = np.diag([1.0 - 2 * i, 1.0, 1.0 - 2 * i, 1.0])
        mounting = turn @ OPTICAL_FROM_FORWARD_Y
        cameras[name] = {"K": K, "T_cam_lidar": mounting.tolist(), "timestamp": 1532402927.61246 + 0.02 * i}
    ego_from_lidar = [[0.0, 1.0, 0.0, 0.94], [-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.84], [0.0, 0.0, 0.0, 1.0]]
    calibration = {"cameras": cameras, "lidar_timestamp": 1532402927.647951, "lidar2ego": ego_from_lidar, "boxes": []}
    (folder / "calib.json").write_text(json.dumps(calibration))
    return folder


def pandaset(folder: Path, scans=3, speed=8.0, turn=0.2, camera_delay=0.049):
    """A car that drives forward (y of the scan frame) at `speed` [m/s] and turns with `turn` [rad/s]."""
    folder.mkdir()
    for i in range(scans):
        rotation, translation = drive(0.1 * i, speed, turn)
        at_picture = drive(0.1 * i - camera_delay, speed, turn)
        motion = np.linalg.inv(as_matrix(*at_picture)) @ as_matrix(rotation, translation)
        np.savez(
            folder / f"{i:06d}.npz",
            points=points(i),
            label=np.resize(np.array([7, 11, 41, 5, 13, 30, 42], dtype=np.uint8), POINTS),
            sensor=(np.arange(POINTS) % 3 == 0).astype(np.uint8),
            t_offset=np.zeros(POINTS, np.float32),
            K=np.array(K),
            T_cam_lidar=OPTICAL_FROM_FORWARD_Y @ motion,
            lidar_pose_R=rotation,
            lidar_pose_t=translation,
        )
        picture(folder / f"{i:06d}.jpg", i)
    return folder


def drive(time, speed, turn):
    angle = turn * time
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    return rotation, np.array([-np.sin(angle / 2) * speed * time, np.cos(angle / 2) * speed * time, 0.01 * time])


def as_matrix(rotation, translation):
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation, translation
    return T


WRITERS = {
    "KITTI raw": kitti_raw,
    "SemanticKITTI": semantickitti,
    "SemanticKITTI range images": range_images,
    "nuScenes range images": nuscenes_range_images,
    "ika VLP-32 range images": ika_vlp32,
    "nuScenes keyframe": nuscenes_keyframe,
    "PandaSet": pandaset,
}
