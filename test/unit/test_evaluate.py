"""Scores of adaptation modes."""

import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import data_folders
import numpy as np
import pytest
import torch
from stripes import StripesTeacher, camera_view

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.cli import main
from ttt_kd_ros.device import device_name, find_device
from ttt_kd_ros.errors import CheckpointError, InputError
from ttt_kd_ros.evaluation.campaign import Data, missing, run, without_stale
from ttt_kd_ros.evaluation.evaluate import Stream, evaluate, points_in_view, source_labels
from ttt_kd_ros.evaluation.paper_table import paper_table
from ttt_kd_ros.evaluation.plots import write_plots
from ttt_kd_ros.evaluation.protocol import Method, Pair, Protocol, load_protocol, narrowed
from ttt_kd_ros.evaluation.rows import read_rows, with_new, write_rows
from ttt_kd_ros.evaluation.table import method_table, score_table
from ttt_kd_ros.frame import Frame, Scan
from ttt_kd_ros.geometry.pairing import pair_points
from ttt_kd_ros.model.checkpoint import load_checkpoint, save_checkpoint
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.segmenter import Segmenter
from ttt_kd_ros.share import share_directory
from ttt_kd_ros.teacher.remembering import RememberingTeacher

SETTINGS = AdaptationSettings(steps=2, learning_rate=1e-2)
OFF, ONLINE, OFFLINE = (Method(mode, replace(SETTINGS, mode=mode, steps=-1)) for mode in ("off", "online", "offline"))


@pytest.fixture
def frames(street_points):
    points = street_points.numpy().copy()
    points[0] = np.nan
    labels = np.where(points[:, 2] < 0.1, 0, 2).astype(np.uint8)
    return [Frame(Scan(points, np.eye(4), stamp), (camera_view(),), labels) for stamp in (1, 2)]


@pytest.fixture
def segmenter(network):
    return Segmenter(network, StripesTeacher(), SETTINGS)


def rows(segmenter, frames, *methods, **protocol):
    protocol = Protocol(methods, **{"steps": (2,), **protocol})
    stream = Stream("street", frames)
    source = source_labels(segmenter, frames)
    return [row for method in methods for row in evaluate(segmenter, stream, method, protocol, source)]


def without_times(row):
    return row.to_dict() | {"adapt_ms": 0, "total_ms": 0}


def test_the_score_of_the_source_model_is_that_of_its_labels(segmenter, frames):
    (row,) = rows(segmenter, frames, OFF)
    labels, truth = segmenter.segment(frames[0]).labels, frames[0].labels
    expected = [((labels == c) & (truth == c)).sum() / ((labels == c) | (truth == c)).sum() for c in (0, 2)]
    assert row.iou["road"] == pytest.approx(expected[0], abs=1e-3)
    assert row.miou == pytest.approx(np.mean(expected), abs=1e-3)
    assert math.isnan(row.iou["vehicle"])
    assert row.steps == 0
    assert row.agreement == 1
    assert math.isnan(row.kd_loss_first)


def test_every_method_starts_from_the_source_weights(segmenter, frames):
    (alone,) = rows(segmenter, frames, OFFLINE)
    _, after = rows(segmenter, frames, ONLINE, OFFLINE)
    assert without_times(after) == without_times(alone)


@pytest.mark.parametrize("method", [ONLINE, OFFLINE], ids=lambda method: method.name)
def test_a_row_at_one_of_several_numbers_of_steps_is_that_of_this_number_alone(segmenter, frames, method):
    together = rows(segmenter, frames, method, steps=(1, 3, 4))
    alone = [row for steps in (1, 3, 4) for row in rows(segmenter, frames, method, steps=(steps,))]
    assert [without_times(row) for row in together] == [without_times(row) for row in alone]


def test_a_method_with_steps_of_its_own_is_scored_at_these(segmenter, frames):
    (row,) = rows(segmenter, frames, Method("three", replace(SETTINGS, mode="offline", steps=3)))
    assert (row.steps, row.steps_taken) == (3, 3)


def test_the_loss_before_and_after_the_steps_is_reported(segmenter, frames):
    (row,) = rows(segmenter, frames, ONLINE)
    assert row.kd_loss_last < row.kd_loss_first
    assert row.agreement < 1


def test_no_method_gets_the_pictures_of_the_one_before_for_nothing(network, frames):
    class Counting(StripesTeacher):
        asked = 0

        def features(self, images):
            self.asked += len(images)
            return super().features(images)

    teacher = Counting()
    segmenter = Segmenter(network, RememberingTeacher(teacher), SETTINGS)
    rows(segmenter, frames, ONLINE, OFFLINE)
    assert teacher.asked == 2, "both frames have the same picture"


def test_points_beyond_the_range_and_other_classes_do_not_count(segmenter, frames):
    (row,) = rows(segmenter, frames, OFF, max_range_m=15.0, classes=("road",))
    labels, near = segmenter.segment(frames[0]).labels, np.linalg.norm(frames[0].scan.points, axis=1) <= 15
    road, truth = (labels == 0) & near, (frames[0].labels == 0) & near
    assert row.miou == row.iou["road"] == pytest.approx((road & truth).sum() / (road | truth).sum())


def test_points_in_view_are_those_that_are_paired(frames):
    seen, view = points_in_view(frames[0]), frames[0].views[0]
    points = torch.from_numpy(frames[0].scan.points[1:])
    assert not seen[0]
    assert (np.flatnonzero(seen) - 1).tolist() == pair_points(points, view.T_camera_scan, view.camera).points.tolist()


def test_a_stream_without_labels_has_no_score_but_an_agreement_with_the_source_model(segmenter, frames):
    (row,) = rows(segmenter, [replace(frame, labels=None) for frame in frames], ONLINE)
    assert math.isnan(row.miou)
    assert len(row.agreement_by_scan) == 2
    assert "nan" not in score_table([row]) + method_table([row], source="online")


def test_the_score_table_has_a_line_for_each_data_set_and_a_column_for_each_method(segmenter, frames):
    scores = rows(segmenter, frames, OFF, ONLINE, OFFLINE)
    other = [replace(row, data="city", checkpoint=c) for row in scores for c in ("a", "b")]
    lines = score_table([*scores, *other]).splitlines()
    assert lines[0] == "| data | off | online 2 | offline 2 |"
    assert lines[2].startswith(f"| street | {100 * scores[0].miou:.1f} / {100 * scores[0].miou_view:.1f} |")
    assert "± 0.0" in lines[3]


def test_the_method_table_tells_the_gain_over_the_source_model(segmenter, frames):
    off, online = rows(segmenter, frames, OFF, ONLINE)
    better = replace(online, miou=off.miou + 0.05, miou_view=off.miou_view - 0.01, agreement=0.9)
    line = method_table([off, better], source="off").splitlines()[3]
    assert "| online | 2 |" in line
    assert "| +5.0 | -1.0 | 90.0 |" in line


def test_the_method_table_tells_once_what_the_times_were_measured_on(segmenter, frames):
    first, second, last = rows(segmenter, frames, OFF, ONLINE, OFFLINE)
    measured = [replace(first, device="a CPU"), replace(second, device="a CPU"), replace(last, device="a GPU")]
    assert method_table(measured, source="off").splitlines()[-1] == "Times: a CPU; a GPU"


def test_there_is_no_gain_where_the_source_model_was_not_scored(segmenter, frames, tmp_path):
    off, online = rows(segmenter, frames, OFF, ONLINE)
    elsewhere = replace(online, data="city")
    line = method_table([off, elsewhere], source="off").splitlines()[3]
    assert "| online | 2 |" in line
    assert "nan" not in line
    long = [replace(elsewhere, agreement_by_scan=[0.9] * 30, miou_by_scan=[0.5] * 30)]
    assert [p.name for p in write_plots(tmp_path, long, source="")] == ["stream_city.png"]


def test_plots_are_written_of_what_there_is(segmenter, frames, tmp_path):
    scores = rows(segmenter, frames, OFF, OFFLINE, steps=(1, 2))
    assert [p.name for p in write_plots(tmp_path, scores, "off")] == ["gain_over_steps.png", "gain_over_time.png"]
    long = [replace(row, miou_by_scan=[0.5] * 30, agreement_by_scan=[0.9] * 30) for row in scores]
    assert (tmp_path / "stream_street.png") in write_plots(tmp_path, long, "off")
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in tmp_path.iterdir())


class TestRows:
    PROTOCOL = Protocol((OFF,))

    def test_come_back_as_they_were_written(self, segmenter, frames, tmp_path):
        written = rows(segmenter, frames, OFF)
        write_rows(tmp_path, self.PROTOCOL, written)
        assert [row.to_dict() for row in read_rows(tmp_path, self.PROTOCOL)] == [row.to_dict() for row in written]

    def test_of_another_protocol_are_refused(self, tmp_path):
        write_rows(tmp_path, self.PROTOCOL, [])
        with pytest.raises(InputError, match="scores of another protocol"):
            read_rows(tmp_path, Protocol((OFF, ONLINE)))

    def test_that_cannot_be_read_are_refused(self, tmp_path):
        (tmp_path / "result.json").write_text("[]")
        with pytest.raises(InputError, match="no result of `ttt_kd evaluate`"):
            read_rows(tmp_path, self.PROTOCOL)


class TestCampaign:
    PROTOCOL = Protocol((OFF, ONLINE), steps=(1, 2))

    @pytest.fixture(autouse=True)
    def checkpoints(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ("joint", "plain"):
            Path(name).write_text(name)

    def run(self, network, frames, known=(), where="here"):
        opened, loaded = [], []

        def load(path):
            loaded.append(path)
            return Segmenter(deepcopy(network), StripesTeacher(), SETTINGS)

        data = [
            Data(name, where, lambda checkpoint, classes, n=name: opened.append(n) or frames) for name in ("a", "b")
        ]
        units = missing([Path("joint")], [Path("plain")], data, self.PROTOCOL, known)
        return [row for found in run(units, self.PROTOCOL, load) for row in found], opened, loaded

    def test_scores_every_method_on_every_stream_and_plain_networks_without_adapting(self, network, frames):
        found, opened, loaded = self.run(network, frames)
        assert [(r.checkpoint, r.data, r.method, r.steps) for r in found] == [
            ("joint", "a", "off", 0), ("joint", "a", "online", 1), ("joint", "a", "online", 2),
            ("joint", "b", "off", 0), ("joint", "b", "online", 1), ("joint", "b", "online", 2),
            ("plain", "a", "source-only", 0), ("plain", "b", "source-only", 0),
        ]  # fmt: skip
        assert opened == ["a", "b", "a", "b"]
        assert loaded == [Path("joint"), Path("plain")]
        assert {row.device for row in found} == {device_name(torch.device("cpu"))}

    def test_goes_on_after_an_interruption_with_what_is_missing(self, network, frames):
        found, _, _ = self.run(network, frames)
        again, opened, _ = self.run(network, frames, known=found[:3])
        assert list(map(without_times, again)) == list(map(without_times, found[3:]))
        assert opened == ["b", "a", "b"]
        assert self.run(network, frames, known=found) == ([], [], [])

    def test_scores_other_weights_at_the_same_place_and_other_data_of_the_same_name_anew(self, network, frames):
        found, _, _ = self.run(network, frames)
        Path("joint").write_text("trained longer")
        again, _, loaded = self.run(network, frames, known=found)
        assert loaded == [Path("joint")]
        assert len(with_new(found, again)) == len(found)
        elsewhere, _, _ = self.run(network, frames, known=found, where="there")
        assert len(elsewhere) == len(found)

    def test_refuses_a_checkpoint_that_is_not_there(self, network, frames):
        Path("plain").unlink()
        with pytest.raises(CheckpointError, match="plain: there is no such file"):
            self.run(network, frames)

    def test_scores_what_tables_call_otherwise_anew(self, network, frames):
        found, _, _ = self.run(network, frames)
        Path("copy").write_text("joint")
        data = [Data("a", "here", lambda checkpoint, classes: frames)]
        assert len(missing([Path("copy")], [], data, self.PROTOCOL, found)) == 2
        (unit,) = missing([Path("joint")], [Path("joint")], data, self.PROTOCOL, found)
        assert unit.method.name == "source-only"

    def test_trusts_no_score_of_weights_that_are_no_longer_there_or_unknown(self, network, frames):
        found, _, _ = self.run(network, frames)
        assert without_stale(found, [Path("joint"), Path("plain")]) == found
        Path("joint").write_text("trained longer")
        left = without_stale(found, [Path("joint"), Path("plain")])
        assert {row.checkpoint for row in left} == {"plain"}
        assert without_stale([replace(row, weights="") for row in left], [Path("plain")]) == []


class TestCommand:
    @pytest.fixture(autouse=True)
    def loaded(self, monkeypatch):
        """Checkpoints in the order in which they are loaded, with an image model that needs no weights."""
        loaded = []

        def load(path, device, threads):
            find_device(device)
            loaded.append(path)
            return Segmenter(load_checkpoint(path)[0], StripesTeacher())

        monkeypatch.setattr("ttt_kd_ros.segmenter.load_segmenter", load)
        return loaded

    @pytest.fixture
    def checkpoint(self, network, tmp_path):
        save_checkpoint(tmp_path / "net.safetensors", network, {})
        return tmp_path / "net.safetensors"

    def test_goes_on_where_it_stopped_unless_data_weights_or_sensors_are_others(
        self, checkpoint, network, loaded, tmp_path, capsys
    ):
        for place in ("here", "there"):
            (tmp_path / place).mkdir()
            data_folders.pandaset(tmp_path / place / "drive")

        def evaluate(place, *options):
            """How many checkpoints were loaded, and the last line of the table."""
            loaded.clear()
            protocol = ["--methods", "off", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "scores")]
            assert main(["evaluate", str(tmp_path / place / "drive"), *protocol, *options]) == 0
            return len(loaded), capsys.readouterr().out.splitlines()[2]

        first = evaluate("here")
        assert first[0] == 1
        assert evaluate("here") == (0, first[1])
        assert evaluate("there")[0] == 1
        assert evaluate("there", "--spinning-only")[0] == 1
        assert evaluate("there", "--spinning-only")[0] == 0
        network.label_head.bias.data[0] += 1
        save_checkpoint(checkpoint, network, {})
        assert evaluate("there", "--spinning-only")[0] == 1

    def test_scores_a_method_without_the_source_model(self, checkpoint, tmp_path, capsys):
        folder, out = data_folders.pandaset(tmp_path / "drive"), tmp_path / "scores"
        options = ["--methods", "online", "--steps", "1", "--checkpoint", str(checkpoint), "--out", str(out)]
        assert main(["evaluate", str(folder), *options]) == 0
        assert (out / "table.md").read_text() == capsys.readouterr().out
        assert not list(out.glob("*.png"))

    def test_refuses_classes_that_a_checkpoint_does_not_predict_before_it_looks_at_data(
        self, checkpoint, network_config, tmp_path, capsys
    ):
        rooms = tmp_path / "rooms.safetensors"
        save_checkpoint(rooms, Network(replace(network_config, classes=load_classes("scannet20"))), {})
        options = ["--protocol", "pandaset", "--checkpoint", str(checkpoint), str(rooms)]
        assert main(["evaluate", "nowhere", *options]) == 2
        said = capsys.readouterr().err
        assert "rooms.safetensors does not predict road" in said
        assert "scores road, sidewalk, structure, vegetation, vehicle, the checkpoint predicts wall, floor" in said

    def test_refuses_a_place_that_cannot_be_written_to_before_it_scores(self, checkpoint, loaded, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        folder, out = data_folders.pandaset(tmp_path / "drive"), tmp_path / "file" / "out"
        assert main(["evaluate", str(folder), "--checkpoint", str(checkpoint), "--out", str(out)]) == 2
        assert "file/out'" in capsys.readouterr().err
        assert not loaded

    def test_refuses_a_device_that_there_is_not(self, checkpoint, tmp_path, capsys):
        folder = data_folders.pandaset(tmp_path / "drive")
        assert main(["evaluate", str(folder), "--checkpoint", str(checkpoint), "--device", "gpu"]) == 2
        assert "device 'gpu' is unknown" in capsys.readouterr().err

    def test_refuses_two_data_of_one_name(self, checkpoint, capsys):
        assert main(["evaluate", "a/drive", "b/drive", "--checkpoint", str(checkpoint)]) == 2
        assert "two of the data are called drive" in capsys.readouterr().err

    def test_calls_the_directory_it_is_in_by_its_name(self, checkpoint, tmp_path, monkeypatch, capsys):
        (tmp_path / "drive").mkdir()
        monkeypatch.chdir(tmp_path / "drive")
        assert main(["evaluate", ".", "b/drive", "--checkpoint", str(checkpoint)]) == 2
        assert "two of the data are called drive" in capsys.readouterr().err


class TestProtocols:
    @pytest.mark.parametrize("path", sorted((share_directory() / "config" / "evaluation").glob("*.yaml")), ids=str)
    def test_of_the_package_can_be_loaded(self, path):
        assert load_protocol(path).methods

    def test_leave_the_steps_to_the_protocol_unless_a_method_has_its_own(self):
        protocol = Protocol((OFF, ONLINE, Method("two", SETTINGS)), steps=(1, 5))
        assert [protocol.counts(method) for method in protocol.methods] == [(0,), (1, 5), (2,)]

    def test_can_be_narrowed(self):
        protocol = narrowed(Protocol((OFF, ONLINE)), ["off"], [3, 4])
        assert (protocol.methods, protocol.steps) == ((OFF,), (3, 4))

    def test_at_other_numbers_of_steps_have_no_figures_of_the_paper_for_them(self):
        pair = Pair("A", "B", {"off": 50.0, "online": 60.0}, (100,))
        protocol = Protocol((OFF, ONLINE), steps=(100,), pairs=(pair,))
        assert paper_table(narrowed(protocol, None, [25]), []).endswith("| – (50.0) | – |")
        assert paper_table(narrowed(protocol, None, [25, 100]), []).endswith("| – (50.0) | – | – (60.0) |")

    def test_with_an_unknown_method_are_refused(self):
        with pytest.raises(InputError, match="no method tent, only off, online"):
            narrowed(Protocol((OFF, ONLINE)), ["tent"], None)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("methods: {a: {speed: 3}}", "method 'a' has unknown settings: speed"),
            ("methods: {a: {mode: sometimes}}", "mode 'sometimes' is unknown"),
            ("methods: {}", "needs methods"),
            ("methods: {a: }\nsteps: [5, 1]", "must be positive and rising"),
            ("methods: {a: }\nspeed: 3", "speed"),
            ("steps: [1]", "methods"),
        ],
    )
    def test_that_make_no_sense_are_refused(self, tmp_path, text, message):
        (tmp_path / "p.yaml").write_text(text)
        with pytest.raises(InputError, match=message):
            load_protocol(tmp_path / "p.yaml")
