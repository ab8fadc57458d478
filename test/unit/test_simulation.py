"""The simulator: rays against an independent intersection, exact labels and times, pictures, folders."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("embreex", reason="the simulator needs embreex (extra 'simulation')")

from ttt_kd_ros.classes import load_classes, load_label_map
from ttt_kd_ros.cli import main
from ttt_kd_ros.data import open_folder
from ttt_kd_ros.data.simulation import street
from ttt_kd_ros.data.simulation.camera import Lens, camera_mounting
from ttt_kd_ros.data.simulation.domains import CAMERAS, DOMAINS, LidarSpec, find_camera, find_domain
from ttt_kd_ros.data.simulation.drive import Drive, write_folder
from ttt_kd_ros.data.simulation.lidar import beam_directions, column_times, mounting
from ttt_kd_ros.data.simulation.materials import OPTICS, Label, Material
from ttt_kd_ros.data.simulation.mesh import Surface, box, grid
from ttt_kd_ros.data.simulation.street import Motion, Mover, Street
from ttt_kd_ros.data.simulation.track import Track
from ttt_kd_ros.data.simulation.world import World
from ttt_kd_ros.errors import DataError, InputError
from ttt_kd_ros.frame import IGNORE_LABEL
from ttt_kd_ros.geometry.projection import project
from ttt_kd_ros.geometry.transforms import invert

STRAIGHT = Track(60.0, np.zeros((1, 3)), np.zeros((1, 4)))
SMALL = replace(find_camera("front"), width=160, height=96)
CLASSES = load_classes("street6")


def small_drive(domain="source", seed=3, frames=2, columns=240, **changes):
    settings = find_domain(domain)
    lidar = replace(settings.lidar, columns=columns, **changes)
    return Drive(replace(settings, lidar=lidar), seed, frames, (SMALL,))


@pytest.fixture(scope="module", autouse=True)
def short_street():
    """Streets that end soon after the part that is driven on: quick to build."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(street, "VIEW", 50.0)
        yield


@pytest.fixture(scope="module")
def drive():
    return small_drive()


@pytest.fixture(scope="module")
def exact():
    """The same street seen by a sensor without noise or loss of its own."""
    return small_drive(range_noise=0.0, dropout=0.0, reach=3000.0)


@pytest.fixture(scope="module")
def folder(drive, tmp_path_factory):
    path = tmp_path_factory.mktemp("simulated") / "drive"
    write_folder(drive, path)
    return path


def moeller_trumbore(origin, direction, corners):
    """Where a ray meets the planes of triangles (F, 3, 3) (Moeller & Trumbore 1997), in float64.

    Returns the distances (F,), inf behind the origin, and how far (F,) inside of the triangle that is, as a share of
    its size, negative outside.
    """
    reach = np.linalg.norm(corners[:, 1:] - corners[:, :1], axis=2).max(axis=1)
    offset = corners[:, 0] - origin.astype(np.float32)
    flat = direction.astype(np.float32)
    across = np.linalg.norm(offset - (offset @ flat)[:, None] * flat, axis=1)
    distance, inside = np.full(len(corners), np.inf), np.full(len(corners), -np.inf)
    rows = np.flatnonzero(across <= 1.01 * reach + 0.01)
    near = corners[rows].astype(np.float64)
    edge1, edge2 = near[:, 1] - near[:, 0], near[:, 2] - near[:, 0]
    p = np.cross(direction, edge2)
    determinant = np.einsum("fk,fk->f", edge1, p)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = np.einsum("fk,fk->f", origin - near[:, 0], p) / determinant
        q = np.cross(origin - near[:, 0], edge1)
        v = q @ direction / determinant
        t = np.einsum("fk,fk->f", edge2, q) / determinant
        distance[rows] = np.where(t > 0, t, np.inf)
        inside[rows] = np.nan_to_num(np.minimum(np.minimum(u, v), 1 - u - v), nan=-np.inf)
    return distance, inside


def faces_at(world, time):
    """Corners (F, 3, 3) of all faces of a world, movers where they are at a time."""
    corners = [world.street.static.corners]
    for mover in world.street.movers:
        T = mover.motion.poses(world.street.track, np.array([time]))[0]
        corners.append((mover.mesh.corners @ T[:3, :3].T + T[:3, 3]).astype(np.float32))
    return np.concatenate(corners)


def random_rays(world, drive, count, rng):
    """Rays from above the road; half of them are aimed at movers."""
    times = rng.uniform(0.4, 0.6, count)
    origins = drive.poses(times)[:, :3, 3] + [0.0, 0.0, 1.7]
    directions = rng.normal(size=(count, 3)) * [1.0, 1.0, 0.15]
    for i in range(0, count, 2):
        mover = world.street.movers[rng.integers(len(world.street.movers))]
        T = mover.motion.poses(world.street.track, times[i : i + 1])[0]
        directions[i] = T[:3, 3] + [0.0, 0.0, 0.8] + rng.normal(0.0, 0.3, 3) - origins[i]
    return origins, directions / np.linalg.norm(directions, axis=1, keepdims=True), times


def test_random_rays_hit_the_face_and_label_that_an_independent_intersection_finds(exact):
    world, rng = exact.world, np.random.default_rng(0)
    origins, directions, times = random_rays(world, exact, 50, rng)
    hits = world.sweep(origins, directions[:, None], times)
    labels, movers_hit = world.labels(hits), 0
    for i, (origin, direction, time) in enumerate(zip(origins, directions, times, strict=True)):
        corners = faces_at(world, time)
        ends, inside = moeller_trumbore(origin, direction, corners)
        surely, perhaps = np.where(inside > 1e-3, ends, np.inf), np.where(inside > -1e-3, ends, np.inf)
        nearest = int(np.argmin(surely))
        if np.isinf(hits.distance[i]):
            assert np.isinf(surely[nearest]) and labels[i] == IGNORE_LABEL
            continue
        assert hits.distance[i] < surely[nearest] + 2e-3, "something nearer was passed through"
        face = hits.face[i]
        assert abs(perhaps[face] - hits.distance[i]) < 2e-3, "the face is not where the ray is said to end"
        assert labels[i] == world.faces.label[face]
        if np.count_nonzero(perhaps < surely[nearest] + 5e-3) == 1:
            assert (face, labels[i]) == (nearest, world.faces.label[nearest])
        movers_hit += face >= len(world.street.static)
    assert movers_hit > 5
    assert len(set(labels.tolist())) > 5


def test_a_ray_meets_a_mover_where_it_is_at_the_ray_s_own_time():
    ground = grid([[[-50, -50, 0], [-50, 50, 0]], [[50, -50, 0], [50, 50, 0]]], Surface(Material.ASPHALT, Label.ROAD))
    cube = box((-1, -1, 0), (1, 1, 2), Surface(Material.METAL, Label.CAR))
    world = World(Street(STRAIGHT, ground, (Mover(cube, Motion(10.0, 0.0, 20.0)),), 0.0))
    times = np.array([0.0, 0.25, 0.5, 1.0])
    directions = np.tile([1.0, 0.0, 0.0], (4, 1, 1))
    hits = world.sweep(np.tile([0.0, 0.0, 1.0], (4, 1)), directions, times)
    assert_allclose(hits.distance, 9.0 + 20.0 * times, atol=1e-4)
    assert_allclose(hits.normal, np.tile([-1.0, 0.0, 0.0], (4, 1)), atol=1e-5)
    assert (world.labels(hits) == Label.CAR).all()
    snapshot = world.at(0.25)
    again = snapshot.cast(np.array([[0, 0, 1]], np.float32), np.array([[1, 0, 0]], np.float32))
    assert_allclose(again.distance, [14.0], atol=1e-4)


def test_the_track_is_as_long_as_its_stations_say_and_poses_stand_on_the_ground():
    track = Track.draw(np.random.default_rng(4), 100.0)
    s = np.linspace(0.0, 100.0, 401)
    line = track.place(np.stack([s, 0 * s, 0 * s], axis=1))
    assert_allclose(np.linalg.norm(np.diff(line[:, :2], axis=0), axis=1).sum(), 100.0, rtol=1e-3)
    T = track.poses(s, np.full_like(s, 2.0), 0.0, np.zeros_like(s))
    assert_allclose(np.einsum("nji,njk->nik", T[:, :3, :3], T[:, :3, :3]), np.tile(np.eye(3), (401, 1, 1)), atol=1e-12)
    step = np.diff(T[:, :3, 3], axis=0)
    along = step / np.linalg.norm(step, axis=1, keepdims=True)
    assert np.einsum("nk,nk->n", along, T[:-1, :3, 0]).min() > 0.9999


def to_world(drive, index, scan):
    """Points (N, 3) in the world and the sensor's places, both at each point's own time."""
    T = drive.poses(drive.scan_time(index) + scan.t_offset.astype(np.float64)) @ mounting(drive.domain.lidar)
    return np.einsum("nij,nj->ni", T[:, :3, :3], scan.points[:, :3]) + T[:, :3, 3], T[:, :3, 3]


def test_points_lie_on_surfaces_once_motion_is_undone(exact):
    scan = exact.sweep(1)
    places, sensors = to_world(exact, 1, scan)
    rng = np.random.default_rng(1)
    roughest = max(optics.roughness for optics in OPTICS.values())
    for i in rng.choice(len(places), 15, replace=False):
        way = places[i] - sensors[i]
        distance = np.linalg.norm(way)
        corners = faces_at(exact.world, exact.scan_time(1) + float(scan.t_offset[i]))
        ends, inside = moeller_trumbore(sensors[i], way / distance, corners)
        end = np.flatnonzero((np.abs(ends - distance) < 5 * roughest) & (inside > -1e-3))
        assert scan.label[i] in exact.world.faces.label[end]


def test_time_offsets_follow_the_azimuth_through_one_turn(drive):
    scan = drive.sweep(0)
    azimuth = np.arctan2(scan.points[:, 1], scan.points[:, 0]).astype(np.float64)
    assert_allclose(scan.t_offset, -azimuth / (2 * np.pi * drive.domain.lidar.rate), atol=1e-5)
    assert (np.diff(scan.t_offset) >= 0).all()
    assert scan.t_offset.min() >= -0.05 and scan.t_offset.max() <= 0.05


def test_beams_have_the_elevations_of_the_sensor():
    spec = LidarSpec((5.0, 0.0, -20.0), columns=8, rate=20.0)
    directions, times = beam_directions(spec), column_times(spec)
    assert_allclose(np.rad2deg(np.arcsin(directions[..., 2])), np.tile(spec.elevations, (8, 1)), atol=1e-9)
    assert_allclose(np.diff(times), 1 / 160)
    assert_allclose(times.mean(), 0.0, atol=1e-12)


def test_the_ray_of_every_pixel_projects_to_its_centre():
    lens = Lens(find_camera("front"))
    pixels, visible = project(lens.camera, torch.from_numpy(lens.rays).double())
    v, u = np.mgrid[:384, :640]
    assert visible.all()
    assert_allclose(pixels.numpy(), np.stack([u.ravel(), v.ravel()], axis=1), atol=1e-3)


def test_points_projected_into_the_picture_fall_on_their_own_class(exact):
    camera = replace(find_camera("front"), width=640, height=384)
    wide = replace(exact, cameras=(camera,))
    picture = wide.picture(1, wide.lenses[0])
    scan = wide.sweep(1)
    places, _ = to_world(wide, 1, scan)
    time = wide.picture_time(1, camera)
    T_camera_world = invert(wide.poses(np.array([time]))[0] @ camera_mounting(camera))
    cv2 = pytest.importorskip("cv2")
    seen = places @ T_camera_world[:3, :3].T + T_camera_world[:3, 3]
    front = seen[:, 2] > 0.7 * np.linalg.norm(seen, axis=1)
    lens = wide.lenses[0].camera
    pixels, _ = cv2.projectPoints(seen[front], np.zeros(3), np.zeros(3), lens.K, np.array(lens.distortion))
    u, v = np.round(pixels[:, 0]).astype(int).T
    inside = (u >= 0) & (v >= 0) & (u < 640) & (v < 384)
    u, v = u[inside], v[inside]
    distance, label = np.linalg.norm(seen[front][inside], axis=1), scan.label[front][inside]
    shown = np.abs(picture.distance[v, u] - distance) < 0.1 + 0.02 * distance
    assert shown.mean() > 0.8 and shown.sum() > 1000
    assert (picture.label[v, u] == label)[shown].mean() > 0.97


def test_the_same_seed_gives_the_same_files_and_another_seed_others(folder, drive, tmp_path):
    write_folder(replace(drive), tmp_path / "again")
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    assert len(names) == 2 * 2 + 2
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    write_folder(replace(drive, seed=4, frames=1), tmp_path / "other")
    assert (folder / "000000.npz").read_bytes() != (tmp_path / "other" / "000000.npz").read_bytes()
    assert (folder / "000000_front.jpg").read_bytes() != (tmp_path / "other" / "000000_front.jpg").read_bytes()


def test_a_frame_does_not_depend_on_which_were_made_before(drive):
    later = drive.sweep(1)
    assert_array_equal(drive.sweep(1).points, later.points)
    assert_array_equal(replace(drive).sweep(1).points, later.points)


def test_the_folder_reads_back_as_it_was_simulated(folder, drive):
    read = open_folder(folder, CLASSES)
    table = load_label_map("simulated", CLASSES)
    assert (read.kind, len(read), read.camera_names) == ("simulated drive", 2, ("front",))
    assert np.diff(read.stamps).tolist() == [100_000_000]
    for index, frame in enumerate(read):
        scan = drive.sweep(index)
        assert_array_equal(frame.labels, table[scan.label])
        assert_array_equal(read.record(index).points, scan.points)
        assert frame.views[0].image.shape == (96, 160, 3)
        difference = frame.views[0].image.astype(int) - drive.picture(index, drive.lenses[0]).image
        assert np.abs(difference).mean() < 6


def test_the_reader_puts_all_points_where_they_lie_around_the_sensor_at_the_stamp(folder, drive):
    for index, frame in enumerate(open_folder(folder, CLASSES)):
        scan, time, T_base_lidar = drive.sweep(index), drive.scan_time(index), mounting(drive.domain.lidar)
        T_world_time = drive.poses(time + scan.t_offset.astype(float)) @ T_base_lidar
        T_stamp_time = invert(drive.poses(np.array([time]))[0] @ T_base_lidar) @ T_world_time
        expected = np.einsum("nij,nj->ni", T_stamp_time[:, :3, :3], scan.points[:, :3]) + T_stamp_time[:, :3, 3]
        assert_allclose(frame.scan.points, expected, atol=0.01)
        assert np.abs(expected - scan.points[:, :3]).max() > 0.3


def test_the_reader_puts_the_motion_between_scan_and_picture_into_the_view(tmp_path):
    left = replace(find_camera("left"), width=64, height=48)
    drive = replace(small_drive(frames=1), cameras=(left,))
    write_folder(drive, tmp_path / "drive")
    read = open_folder(tmp_path / "drive", CLASSES)
    times = np.array([drive.scan_time(0), drive.picture_time(0, left)])
    scan, picture = drive.poses(times)
    expected = invert(picture @ camera_mounting(left)) @ scan @ mounting(drive.domain.lidar)
    assert_allclose(read[0].views[0].T_camera_scan, expected, atol=1e-9)
    assert_allclose(times[1] - times[0], -0.025)
    stamps = [pose.stamp for pose in read.trajectory()]
    assert stamps == sorted(stamps)
    assert {read.stamps[0], read.record(0).pictures[0].stamp} <= set(stamps)


@pytest.mark.parametrize("name", ["tilted", "all"])
def test_the_ground_is_at_zero_in_the_base_frame_however_the_sensor_is_mounted(name):
    drive = small_drive(name, columns=120)
    scan = drive.sweep(0)
    T = mounting(drive.domain.lidar)
    base = scan.points[:, :3] @ T[:3, :3].T + T[:3, 3]
    near = (scan.label == Label.ROAD) & (np.linalg.norm(base[:, :2], axis=1) < 9)
    assert near.sum() > 50
    assert np.abs(base[near, 2]).max() < 0.35
    assert abs(np.median(base[near, 2])) < 0.05


def test_domains_shift_what_their_names_say(drive):
    source, fog, dusk = drive, small_drive("fog"), small_drive("dusk")
    assert_array_equal(source.street.static.corners, fog.street.static.corners)
    assert not (source.sweep(0).label == IGNORE_LABEL).any()
    assert (fog.sweep(0).label == IGNORE_LABEL).mean() > 0.01
    lens = source.lenses[0]
    day, foggy, dark = (d.picture(0, lens).image.astype(float) for d in (source, fog, dusk))
    assert dark.mean() < 0.6 * day.mean()
    horizon = slice(30, 46)
    assert foggy[horizon].std() < 0.6 * day[horizon].std()
    assert {len(DOMAINS[name].lidar.elevations) for name in ("source", "beams32", "beams16")} == {64, 32, 16}
    assert DOMAINS["low"].lidar.height < 1.0
    high = [d.street.static.corners[d.street.static.label == Label.BUILDING, :, 2].max() for d in
            (source, small_drive("city"))]  # fmt: skip
    assert high[1] > high[0]


def test_a_miscalibrated_camera_is_published_off_by_a_degree_and_five_centimetres():
    drive = small_drive("miscalibrated")
    true = invert(camera_mounting(SMALL)) @ mounting(drive.domain.lidar)
    error = drive.published_mounting(SMALL) @ invert(true)
    angle = np.rad2deg(np.arccos((np.trace(error[:3, :3]) - 1) / 2))
    assert_allclose([angle, np.linalg.norm(error[:3, 3])], [1.0, 0.05], atol=1e-6)
    assert_allclose(small_drive().published_mounting(SMALL), true, atol=1e-12)


def test_rain_darkens_the_road_for_the_lidar_and_loses_it(drive):
    dry, wet = drive.sweep(0), small_drive("rain").sweep(0)
    on_road = [scan.points[scan.label == Label.ROAD] for scan in (dry, wet)]
    assert np.median(on_road[1][:, 3]) < 0.6 * np.median(on_road[0][:, 3])
    assert len(on_road[1]) < len(on_road[0])


def test_every_label_of_the_simulator_has_a_decision_in_the_label_map():
    table = load_label_map("simulated", CLASSES)
    left_out = {label for label in Label if table[label] == IGNORE_LABEL}
    assert left_out == {Label.OTHER_OBJECT}
    assert (table[len(Label) :] == IGNORE_LABEL).all()


def test_a_folder_that_exists_is_not_written_over(folder, drive):
    with pytest.raises(DataError, match="exists already"):
        write_folder(drive, folder)


def test_a_folder_of_another_version_is_refused(folder, tmp_path):
    for path in folder.glob("*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    calibration = json.loads((folder / "calib.json").read_text())
    (tmp_path / "calib.json").write_text(json.dumps({**calibration, "version": 99}))
    with pytest.raises(DataError, match="version 99"):
        open_folder(tmp_path, CLASSES)


def test_a_drive_that_is_interrupted_leaves_nothing_behind(drive, tmp_path):
    def interrupted(indices):
        yield next(iter(indices))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(drive, tmp_path / "drive", interrupted)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, "{}", '{"scans": [], "poses": []}', "[1]"])
def test_a_folder_whose_motion_is_missing_or_damaged_is_refused_by_name(folder, tmp_path, content):
    for path in folder.glob("*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "poses.json").unlink() if content is None else (tmp_path / "poses.json").write_text(content)
    with pytest.raises(DataError, match=r"poses\.json"):
        open_folder(tmp_path, CLASSES)


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        ({"width": "wide"}, r"'width', 'height' and 'D' of front in .*calib\.json must be numbers"),
        ({"D": [None]}, r"'width', 'height' and 'D' of front in .*calib\.json must be numbers"),
        ({"T_camera_lidar": [float("nan")] * 16}, r"'T_camera_lidar' of front in .*calib\.json has .* not finite"),
        (None, r"calib\.json is damaged"),
    ],
)
def test_a_folder_whose_cameras_are_damaged_is_refused_by_name(folder, tmp_path, camera, message):
    for path in folder.glob("*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    calibration = json.loads((folder / "calib.json").read_text())
    calibration["cameras"] = "front" if camera is None else {"front": calibration["cameras"]["front"] | camera}
    (tmp_path / "calib.json").write_text(json.dumps(calibration))
    with pytest.raises(DataError, match=message):
        open_folder(tmp_path, CLASSES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: find_domain("moon"), "source.*beams32"),
        (lambda: find_camera("top"), "front, left, right, rear"),
        (lambda: small_drive(frames=0), "at least one frame"),
        (lambda: replace(small_drive(), interval=0.01), "shorter than a turn"),
        (lambda: replace(small_drive(), interval=0.0), "shorter than a turn"),
        (lambda: replace(small_drive(), cameras=(SMALL, SMALL)), "used once"),
        (lambda: small_drive(columns=1), "four columns"),
    ],
)
def test_settings_that_make_no_drive_are_refused_with_what_would(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_cameras_look_where_their_names_say():
    forward = {name: camera_mounting(camera)[:3, 2] for name, camera in CAMERAS.items()}
    assert forward["front"][0] > 0.9 and forward["rear"][0] < -0.9
    assert forward["left"][1] > 0.9 and forward["right"][1] < -0.9


TINY = ["--frames", "1", "--seed", "3", "--size", "64x48", "--columns", "60"]


def test_the_command_writes_a_folder_and_says_what_it_holds(tmp_path, capsys):
    assert main(["simulate", str(tmp_path / "drive"), "--domain", "low", "--cameras", "front", "rear", *TINY]) == 0
    assert "low, seed 3, 1 scans, cameras: front, rear" in capsys.readouterr().out
    assert open_folder(tmp_path / "drive", CLASSES).camera_names == ("front", "rear")


def test_the_command_writes_a_bag_with_motion_and_ground_truth(tmp_path):
    rosbags = pytest.importorskip("rosbags.highlevel", reason="bags need rosbags (extra 'replay')")
    assert main(["simulate", str(tmp_path / "bag"), "--bag", *TINY]) == 0
    with rosbags.AnyReader([tmp_path / "bag"]) as reader:
        topics = set(reader.topics)
    assert {"/points", "/ground_truth", "/tf", "/tf_static", "/front/camera_info"} <= topics


def test_the_bag_s_camera_info_has_the_lens_distortion(tmp_path):
    rosbags = pytest.importorskip("rosbags.highlevel", reason="bags need rosbags (extra 'replay')")
    assert main(["simulate", str(tmp_path / "bag"), "--bag", *TINY]) == 0
    with rosbags.AnyReader([tmp_path / "bag"]) as reader:
        connections = [connection for connection in reader.connections if connection.topic == "/front/camera_info"]
        connection, _, data = next(reader.messages(connections))
        info = reader.deserialize(data, connection.msgtype)
    assert_allclose(info.d, find_camera("front").distortion)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--domain", "moon"], "no domain is called 'moon'"),
        (["--cameras", "top"], "no camera is called 'top'"),
        (["--size", "large"], "--size large"),
        (["--seed", "-1"], "seed must not be negative"),
    ],
)
def test_the_command_refuses_what_it_cannot_simulate(tmp_path, capsys, options, message):
    assert main(["simulate", str(tmp_path / "drive"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "drive").exists()


@pytest.mark.parametrize(
    ("classes", "message"), [("street7", "'street7' is neither"), ("scannet20", "no map to the class list 'scannet20'")]
)
def test_the_command_refuses_classes_of_a_bag_before_it_simulates(tmp_path, capsys, monkeypatch, classes, message):
    def unasked(*_):
        raise AssertionError("a drive was simulated")

    monkeypatch.setattr("ttt_kd_ros.data.simulation.drive.write_folder", unasked)
    assert main(["simulate", str(tmp_path / "bag"), "--bag", "--classes", classes, *TINY]) == 2
    assert message in capsys.readouterr().err


def test_the_command_finds_an_empty_directory_in_the_way_of_a_bag_before_it_simulates(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ttt_kd_ros.data.simulation.drive.write_folder", lambda *_: pytest.fail("a drive is simulated"))
    assert main(["simulate", str(tmp_path), "--bag", *TINY]) == 2
    assert "exists already; remove it or choose another directory" in capsys.readouterr().err


def test_without_embreex_the_command_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "embreex.mesh_construction", None)
    for module in ("drive", "world"):
        monkeypatch.delitem(sys.modules, f"ttt_kd_ros.data.simulation.{module}")
    assert main(["simulate", str(tmp_path / "drive"), *TINY]) == 2
    assert "pip install 'ttt_kd_ros[simulation]'" in capsys.readouterr().err
