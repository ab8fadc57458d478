"""Writes tiny directories in the formats of the published data sets, from made-up numbers."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from transforms3d.quaternions import mat2quat

from ttt_kd_ros.classes import load_label_names

WIDTH, HEIGHT = 64, 48
K = np.array([[40.0, 0.0, 31.5], [0.0, 40.0, 23.5], [0.0, 0.0, 1.0]])
OPTICAL_FROM_FORWARD_X = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
HALF, HIGH = 2.0, 2.5  # of a room [m]
FLOOR = 0.3  # z of a room's floor in its data set [m]


def rigid(rotation, translation):
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation, translation
    return T


def turn(yaw):
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def write(path: Path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, np.ndarray):
        content.tofile(path)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def picture(path: Path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    cv2.imwrite(str(path), np.kron(coarse, np.ones((8, 8, 1), np.uint8)))


def numbers(array):
    return "\n".join(" ".join(f"{x:.8f}" for x in row) for row in np.atleast_2d(array)) + "\n"


# --- streets ---------------------------------------------------------------------------------------------------------


def street(seed, height, forward="x", count=1200):
    """Points (N, 3) of a road with a wall on its left, `height` below and around a sensor, and whether each is road."""
    rng = np.random.default_rng(seed)
    road = rng.uniform([-5, -8, 0], [25, 6, 0.02], (count * 3 // 4, 3))
    wall = rng.uniform([-5, 6, 0], [25, 6.1, 4], (count // 4, 3))
    xyz = np.concatenate([road, wall]) - [0, 0, height]
    if forward == "y":
        xyz = xyz[:, [1, 0, 2]] * [-1, 1, 1]
    return xyz.astype(np.float32), np.arange(len(xyz)) < len(road)


def semantickitti(root: Path, sequences=("00", "08", "11"), scans=2):
    for sequence in sequences:
        path = root / "sequences" / sequence
        Tr = rigid(OPTICAL_FROM_FORWARD_X, [0.0, -0.1, -0.3])
        rows = {f"P{i}": np.column_stack([K, [-20.0 * i, 0, 0]]) for i in range(4)} | {"Tr": Tr[:3]}
        write(path / "calib.txt", "".join(f"{k}: {' '.join(map(str, v.ravel()))}\n" for k, v in rows.items()))
        write(path / "times.txt", "".join(f"{0.103 * i:e}\n" for i in range(scans)))
        poses = [rigid(np.eye(3), [0, 0, 0.8 * i])[:3].ravel() for i in range(scans)]
        write(path / "poses.txt", numbers(poses))
        for i in range(scans):
            xyz, is_road = street(i, 1.73)
            labels = np.where(is_road, 40, 50).astype(np.uint32) | (7 << 16)
            labels[:9] = [44, 48, 70, 252, 259, 255, 99, 0, 31]
            write(path / "velodyne" / f"{i:06d}.bin", np.column_stack([xyz, np.full(len(xyz), 0.5, np.float32)]))
            if sequence < "11":
                write(path / "labels" / f"{i:06d}.label", labels)
            picture(path / "image_2" / f"{i:06d}.png", i)
    return root


NUSCENES_SCENES = (
    ("scene-0061", "singapore-onenorth", "Parked truck, construction"),
    ("scene-0103", "boston-seaport", "Many peds right, wait for turning car"),
    ("scene-1094", "singapore-hollandvillage", "Night, after rain, many peds"),
)


def nuscenes(root: Path, scenes=NUSCENES_SCENES, frames=2, version="v1.0-mini", shuffled=True):
    names = load_label_names("nuscenes")
    index = {name: (31 - i if shuffled else i) for i, name in names.items()}
    T_ego_lidar = rigid(turn(-np.pi / 2), [0.94, 0.0, 1.84])
    T_ego_camera = {
        name: rigid(turn(yaw) @ OPTICAL_FROM_FORWARD_X.T, [1.5, 0.0, 1.5])
        for name, yaw in (("CAM_FRONT", 0.0), ("CAM_BACK", np.pi))
    }
    tables = {name: [] for name in (
        "log", "scene", "sample", "sample_data", "sensor", "calibrated_sensor", "ego_pose", "lidarseg", "category",
    )}  # fmt: skip
    tables["category"] = [{"token": f"c{i}", "name": name, "index": index[name]} for i, name in names.items()]
    for channel in ("LIDAR_TOP", "RADAR_FRONT", *T_ego_camera):
        tables["sensor"].append({"token": f"s-{channel}", "channel": channel})
    for number, (name, location, description) in enumerate(scenes):
        tables["log"].append({"token": f"log{number}", "location": location})
        tables["scene"].append(
            {"token": f"t-{name}", "name": name, "description": description, "log_token": f"log{number}"}
        )
        for channel in ("LIDAR_TOP", *T_ego_camera):
            T = T_ego_lidar if channel == "LIDAR_TOP" else T_ego_camera[channel]
            tables["calibrated_sensor"].append({
                "token": f"{name}-{channel}", "sensor_token": f"s-{channel}", "translation": T[:3, 3].tolist(),
                "rotation": mat2quat(T[:3, :3]).tolist(),
                "camera_intrinsic": [] if channel == "LIDAR_TOP" else K.tolist(),
            })  # fmt: skip
        for i in range(frames):
            time = 1532402927647951 + number * 10**9 + i * 500_000
            sample = f"{name}-{i}"
            tables["sample"].insert(0, {"token": sample, "scene_token": f"t-{name}", "timestamp": time})
            for channel in ("LIDAR_TOP", *T_ego_camera):
                stamp = time if channel == "LIDAR_TOP" else time - 30_000
                token, file = f"{sample}-{channel}", f"samples/{channel}/{sample}"
                metres = 5.0 * (stamp - 1532402927647951 - number * 10**9) / 1e6
                pose = rigid(turn(0.1), 100.0 + turn(0.1) @ [metres, 0, 0])
                tables["ego_pose"].append(
                    {"token": token, "translation": pose[:3, 3].tolist(), "rotation": mat2quat(pose[:3, :3]).tolist()}
                )
                suffix = ".pcd.bin" if channel == "LIDAR_TOP" else ".jpg"
                tables["sample_data"].append({
                    "token": token, "sample_token": sample, "ego_pose_token": token, "is_key_frame": True,
                    "calibrated_sensor_token": f"{name}-{channel}", "filename": file + suffix, "timestamp": stamp,
                    "width": 0 if suffix != ".jpg" else WIDTH, "height": 0 if suffix != ".jpg" else HEIGHT,
                })  # fmt: skip
                if suffix == ".jpg":
                    picture(root / (file + suffix), i)
            sweep = dict(tables["sample_data"][-1], token=f"{sample}-sweep", is_key_frame=False, filename="sweeps/x")
            tables["sample_data"].append(sweep)
            xyz, is_road = street(i, 1.84, forward="y")
            rest = np.tile(np.array([100.0, 3.0], np.float32), (len(xyz), 1))
            write(root / f"samples/LIDAR_TOP/{sample}.pcd.bin", np.column_stack([xyz, rest]))
            labels = np.where(is_road, index["flat.driveable_surface"], index["static.manmade"]).astype(np.uint8)
            labels[:3] = [index["flat.sidewalk"], index["vehicle.car"], index["noise"]]
            write(root / f"lidarseg/{version}/{sample}_lidarseg.bin", labels)
            tables["lidarseg"].append(
                {"sample_data_token": f"{sample}-LIDAR_TOP", "filename": f"lidarseg/{version}/{sample}_lidarseg.bin"}
            )
    for name, rows in tables.items():
        write(root / version / f"{name}.json", rows)
    return root


A2D2_COLOURS = {
    "#ff0000": "Car 1", "#b65906": "Bicycle 1", "#ff00ff": "RD normal street", "#f1e6ff": "Buildings",
    "#87ceff": "Sky", "#9696c8": "Parking area",
}  # fmt: skip


def a2d2(root: Path, drives=("20180807_145028", "20180810_142822"), frames=2, prefix="pcloud_attr.", names="pcloud_"):
    view = {"origin": [1.7, 0.0, 0.95], "x-axis": [2.0, 0.0, 0.0], "y-axis": [0.5, 1.0, 0.0]}
    car = {"origin": [0.0, 0.0, 0.0], "x-axis": [1.0, 0.0, 0.0], "y-axis": [0.0, 1.0, 0.0]}
    camera = {
        "Lens": "Telecam", "CamMatrix": K.tolist(), "CamMatrixOriginal": K.tolist(),
        "Distortion": [[0.02, 0.0, 0.0, 0.0, 0.0]], "view": view,
    }  # fmt: skip
    vehicle = {"view": car, "ego-dimensions": {"z-range": [-0.35, 1.3]}}
    write(root / "cams_lidars.json", {"cameras": {"front_center": camera}, "lidars": {}, "vehicle": vehicle})
    write(root / "class_list.json", A2D2_COLOURS)
    for number, drive in enumerate(drives):
        for i in range(frames):
            xyz, _ = street(i, 1.3)
            optical = xyz @ OPTICAL_FROM_FORWARD_X.T
            ahead = optical[:, 2] > 1
            pixels = (optical[ahead] @ K.T)[:, :2] / optical[ahead][:, 2:]
            seen = ((pixels >= 0) & (pixels <= [WIDTH - 1, HEIGHT - 1])).all(axis=1)
            xyz, pixels = xyz[ahead][seen], pixels[seen]
            time, stem = drive.replace("_", ""), f"frontcenter_{i:09d}"
            lidar = root / drive / "lidar" / "cam_front_center" / f"{time}_lidar_{stem}.npz"
            lidar.parent.mkdir(parents=True, exist_ok=True)
            np.savez(lidar, **{
                f"{names}points": xyz.astype(np.float64), f"{prefix}row": pixels[:, 1], f"{prefix}col": pixels[:, 0],
                f"{prefix}reflectance": np.full(len(xyz), 40),
            })  # fmt: skip
            image = root / drive / "camera" / "cam_front_center" / f"{time}_camera_{stem}.png"
            picture(image, i)
            write(image.with_suffix(".json"), {"cam_tstamp": 1533653428000000 + number * 10**9 + i * 100_000})
            labels = np.full((HEIGHT, WIDTH, 3), (255, 230, 241), np.uint8)  # BGR of Buildings
            labels[HEIGHT // 2 :] = (255, 0, 255)
            path = root / drive / "label" / "cam_front_center" / f"{time}_label_{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), labels)
    return root


def pandaset(root: Path, sequences=("001", "040"), frames=2):
    """Needs pandas; the second sequence has no labels."""
    import pandas

    for sequence in sequences:
        path = root / sequence
        T = [rigid(turn(0.2), [10.0 + 0.8 * i, 5.0, 1.0]) for i in range(frames)]
        write(path / "lidar" / "poses.json", [_pose(pose) for pose in T])
        write(path / "lidar" / "timestamps.json", [1557539924.4 + 0.1 * i for i in range(frames)])
        camera = path / "camera" / "front_camera"
        mounting = rigid(OPTICAL_FROM_FORWARD_X.T @ np.eye(3), [0, 1.8, -0.8])
        write(camera / "poses.json", [_pose(pose @ rigid(turn(np.pi / 2), [0, 0, 0]) @ mounting) for pose in T])
        write(camera / "timestamps.json", [1557539924.35 + 0.1 * i for i in range(frames)])
        write(camera / "intrinsics.json", {"fx": 40.0, "fy": 40.0, "cx": 31.5, "cy": 23.5})
        for i in range(frames):
            xyz, is_road = street(i, 0.27, forward="y")
            world = xyz @ T[i][:3, :3].T + T[i][:3, 3]
            table = pandas.DataFrame(world, columns=list("xyz"))
            table["i"], table["t"], table["d"] = 30.0, 1557539924.4, np.arange(len(xyz)) % 4 == 0
            table["d"] = table["d"].astype(int)
            (path / "lidar").mkdir(parents=True, exist_ok=True)
            table.to_pickle(path / "lidar" / f"{i:02d}.pkl.gz")
            picture(camera / f"{i:02d}.jpg", i)
            if sequence == sequences[0]:
                (path / "annotations" / "semseg").mkdir(parents=True, exist_ok=True)
                classes = pandas.DataFrame({"class": np.where(is_road, 7, 41)})
                classes.sample(frac=1, random_state=0).to_pickle(path / "annotations" / "semseg" / f"{i:02d}.pkl.gz")
    return root


def _pose(T):
    w, x, y, z = mat2quat(T[:3, :3])
    position = dict(zip("xyz", T[:3, 3].tolist(), strict=True))
    return {"position": position, "heading": {"w": w, "x": x, "y": y, "z": z}}


# --- rooms -----------------------------------------------------------------------------------------------------------


def room(seed=0, count=1500):
    """Points (N, 3) on floor, ceiling and walls of a room, and the surface of each: 0 floor, 1 ceiling, 2 wall."""
    rng = np.random.default_rng(seed)
    uv = rng.uniform(-1, 1, (count, 2))
    which = np.arange(count) % 6
    points = np.empty((count, 3))
    for side in range(6):
        a, b = uv[which == side].T * HALF
        h = (b / HALF + 1) / 2 * HIGH
        points[which == side] = {
            0: lambda a, b, h: np.stack([a, b, 0 * h], 1),
            1: lambda a, b, h: np.stack([a, b, 0 * h + HIGH], 1),
            2: lambda a, b, h: np.stack([0 * a + HALF, a, h], 1),
            3: lambda a, b, h: np.stack([0 * a - HALF, a, h], 1),
            4: lambda a, b, h: np.stack([a, 0 * a + HALF, h], 1),
            5: lambda a, b, h: np.stack([a, 0 * a - HALF, h], 1),
        }[side](a, b, h)
    return points + np.array([0, 0, FLOOR]), np.minimum(which, 2)


def shot(yaw):
    """``T_room_camera`` of a camera in the middle of the room, and the depth [m] that it sees."""
    T = rigid(turn(yaw) @ OPTICAL_FROM_FORWARD_X.T, [0.0, 0.0, FLOOR + 1.2])
    u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u, float)], -1) @ T[:3, :3].T
    limits = np.where(rays > 0, [HALF, HALF, HIGH - 1.2], [HALF, HALF, 1.2])
    return T, (limits / np.maximum(np.abs(rays), 1e-9)).min(axis=-1)


def depth_picture(path: Path, depth, per_metre):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), (depth * per_metre).astype(np.uint16))


YAWS = np.radians([0, 5, 90, 95, 180, 270])


def ply(path: Path, vertices, faces=None):
    """Binary PLY of a structured array of vertices and, with `faces`, one of triangles."""
    kinds = {"f4": "float", "u2": "ushort", "i4": "int", "u1": "uchar"}
    header = ["ply", "format binary_little_endian 1.0", "comment made up", f"element vertex {len(vertices)}"]
    header += [f"property {kinds[vertices.dtype[n].str[1:]]} {n}" for n in vertices.dtype.names]
    body = vertices.tobytes()
    if faces is not None:
        header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        header += [f"property {kinds[faces.dtype[n].str[1:]]} {n}" for n in faces.dtype.names[2:]]
        body += faces.tobytes()
    write(path, ("\n".join([*header, "end_header"]) + "\n").encode() + body)


def vertices(points, **more):
    array = np.zeros(len(points), [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), *((n, v.dtype) for n, v in more.items())])
    for axis, values in zip("xyz", points.T, strict=True):
        array[axis] = values
    for name, values in more.items():
        array[name] = values
    return array


def scannet(root: Path, scenes=("scene0011_00", "scene0000_00"), test_scenes=("scene0707_00",)):
    nyu40 = np.array([2, 22, 1], np.uint16)
    for number, scene in enumerate((*scenes, *test_scenes)):
        path = root / ("scans" if scene in scenes else "scans_test") / scene
        points, surface = room(number)
        ply(path / f"{scene}_vh_clean_2.ply", vertices(points))
        if scene in scenes:
            ply(path / f"{scene}_vh_clean_2.labels.ply", vertices(points, label=nyu40[surface]))
        write(path / "intrinsic" / "intrinsic_color.txt", numbers(rigid(K, np.zeros(3))))
        for i, yaw in enumerate(YAWS):
            T, depth = shot(yaw)
            picture(path / "color" / f"{i}.jpg", i)
            depth_picture(path / "depth" / f"{i}.png", depth[::2, ::2], 1000)
            write(path / "pose" / f"{i}.txt", numbers(T) if i != 1 else "-inf " * 16)
    return root


def s3dis(root: Path, rooms=("Area_1/office_1", "Area_1/office_11", "Area_5/hallway_6")):
    for number, name in enumerate(rooms):
        points, surface = room(number, count=1200)
        for s, kind in enumerate(("floor_1", "ceiling_1", "wall_1")):
            chosen = points[surface == s]
            lines = np.column_stack([chosen, np.full((len(chosen), 3), 128)])
            write(root / name / "Annotations" / f"{kind}.txt", numbers(lines))
        write(root / name / "Annotations" / "stairs_1.txt", numbers([[0.0, 0.0, FLOOR + 0.5, 1, 2, 3]] * 3))
        area, place = name.split("/")
        part = {"Area_5": "area_5b"}.get(area, area.lower())
        fitted = rigid([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], [-4.09703582, 6.22617759, 0])
        data = root / "2D-3D-S" / part / "data"
        for i, yaw in enumerate(YAWS):
            T, depth = shot(yaw)
            T_part_camera = np.linalg.inv(fitted) @ T if part == "area_5b" else T
            stem = f"camera_{i:032x}_{place}_frame_{i}_domain_"
            picture(data / "rgb" / f"{stem}rgb.png", i)
            depth_picture(data / "depth" / f"{stem}depth.png", depth, 512)
            pose = {"camera_k_matrix": K.tolist(), "camera_rt_matrix": np.linalg.inv(T_part_camera)[:3].tolist()}
            write(data / "pose" / f"{stem}pose.json", pose)
    return root


def matterport3d(root: Path, regions=("17DRP5sb8fy/region0", "17DRP5sb8fy/region1", "2t7WUuJeko7/region0")):
    scans = root / "v1" / "scans"
    write(
        scans / "category_mapping.tsv",
        "index\traw_category\tnyu40id\n1\twall\t1\n3\tceiling\t22\n4\tfloor\t2\n9\tx\t\n",
    )
    for number, name in enumerate(regions):
        house, region = name.split("/")
        points, surface = room(number, 1800)
        order = np.argsort(surface, kind="stable")
        corners = order[: len(order) // 3 * 3].reshape(-1, 3).astype("<i4")
        dtype = [("count", "u1"), ("vertex_indices", "<i4", 3), ("face_material", "<i4"), ("face_category", "<i4")]
        faces = np.zeros(len(corners), dtype)
        faces["count"], faces["vertex_indices"] = 3, corners
        faces["face_category"] = np.array([4, 3, 1])[surface[corners[:, 0]]]
        faces["face_category"][0] = -1
        ply(scans / house / "region_segmentations" / f"{region}.ply", vertices(points), faces)
        lines = ["dataset matterport", "n_images 6", "", f"intrinsics_matrix {' '.join(map(str, K.ravel()))}"]
        for i, yaw in enumerate(YAWS):
            T, depth = shot(yaw)
            canonical = T @ np.diag([1.0, -1.0, -1.0, 1.0])
            if i == 3:
                canonical[0, 3] += 50.0  # in another region
            lines.append(f"scan d{i}.png i{i}.jpg {' '.join(map(str, canonical.ravel()))}")
            picture(scans / house / "undistorted_color_images" / f"i{i}.jpg", i)
            depth_picture(scans / house / "undistorted_depth_images" / f"d{i}.png", depth, 4000)
        write(scans / house / "undistorted_camera_parameters" / f"{house}.conf", "\n".join(lines) + "\n")
    return root


INDOOR = {"ScanNet": scannet, "S3DIS": s3dis, "Matterport3D": matterport3d}
OUTDOOR = {"SemanticKITTI data set": semantickitti, "nuScenes": nuscenes, "A2D2": a2d2}
WRITERS = OUTDOOR | INDOOR
