"""Fitting a checkpoint to a recording: protection, history, and the report of what changed."""

import json
from dataclasses import replace

import data_folders
import numpy as np
import pytest
import torch
from stripes import StripesTeacher, camera_view

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.cli import main
from ttt_kd_ros.data import open_folder
from ttt_kd_ros.errors import DataError, InputError
from ttt_kd_ros.fit.change import Change, measure_change
from ttt_kd_ros.fit.history import folder_sha256
from ttt_kd_ros.fit.passes import FitSettings, fit
from ttt_kd_ros.fit.report import text
from ttt_kd_ros.frame import Frame, Scan
from ttt_kd_ros.model.checkpoint import load_checkpoint, save_checkpoint
from ttt_kd_ros.model.network import Network, NetworkConfig, TeacherSpec
from ttt_kd_ros.segmenter import load_segmenter

ADAPTATION = AdaptationSettings(steps=3, learning_rate=1e-2, trust=0, familiar=0, scan_statistics=0, collapse_share=1)
SETTINGS = FitSettings(ADAPTATION, passes=2, min_agreement=0)


def quietly(frames, title):
    return frames


@pytest.fixture
def frames(street_points):
    points = street_points.numpy()
    labels = np.where(points[:, 2] < 0.1, 0, 2).astype(np.uint8)
    return [Frame(Scan(points + shift, np.eye(4)), (camera_view(),), labels) for shift in (0, 0.1)]


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_each_pass_lowers_the_distillation_loss_and_only_the_backbone_moves(network, frames):
    before = weights(network)
    _, (first, second) = fit(network, StripesTeacher(), frames, SETTINGS, {}, quietly)
    assert first.kd_loss_begin > first.kd_loss_end > second.kd_loss_end
    assert first.steps == second.steps == 6
    after = weights(network)
    assert not equal(before, after)
    assert equal(*({n: v for n, v in w.items() if not n.startswith("backbone.")} for w in (before, after)))


def test_a_pass_that_goes_too_far_is_undone_and_ends_the_fit(network, frames):
    before = weights(network)
    settings = replace(SETTINGS, adaptation=replace(ADAPTATION, learning_rate=0.3), min_agreement=0.99)
    _, passes = fit(network, StripesTeacher(), frames, settings, {}, quietly)
    assert [done.undone_by for done in passes] == ["agreement"]
    assert equal(before, weights(network))


def test_a_pass_in_which_the_weights_went_back_to_the_source_s_is_undone(network, frames):
    before = weights(network)
    guarded = replace(SETTINGS, adaptation=replace(ADAPTATION, disagreement_share=0.0))
    _, passes = fit(network, StripesTeacher(), frames, guarded, {}, quietly)
    assert [done.undone_by for done in passes] == ["disagreement"]
    assert equal(before, weights(network))


def test_scans_that_are_not_trusted_or_without_pictures_are_left_out(network, frames):
    frames = [replace(frames[0], views=()), *frames]
    survey, (done,) = fit(network, StripesTeacher(), frames, replace(SETTINGS, passes=1), {}, quietly)
    assert (survey.paired, survey.trusted) == ([False, True, True], [False, True, True])
    assert done.steps == 6


def test_what_cannot_be_fitted_to_is_refused(network, frames):
    blind = [replace(frame, views=()) for frame in frames]
    with pytest.raises(DataError, match="none of the 2 scans has 100 points in a picture"):
        fit(network, StripesTeacher(), blind, SETTINGS, {}, quietly)
    trusting = replace(SETTINGS, adaptation=replace(ADAPTATION, trust=5))
    with pytest.raises(DataError, match="none of the 2 scans with pictures is trusted"):
        fit(network, StripesTeacher(), frames, trusting, {}, quietly)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"passes": 0}, "passes is 0"),
        ({"min_agreement": 2}, "min_agreement is 2"),
        ({"adaptation": AdaptationSettings(mode="off")}, "adapts online"),
        ({"adaptation": AdaptationSettings(steps=0)}, "steps is 0"),
        ({"adaptation": AdaptationSettings(scan_statistics=0.3)}, "statistics of training"),
    ],
)
def test_settings_out_of_range_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        FitSettings(**values)


def test_the_change_is_counted_by_the_source_model_s_labels(network, frames):
    survey, _ = fit(network, StripesTeacher(), frames, SETTINGS, {}, quietly)
    change = measure_change(network, frames, survey)
    assert change.points.sum() == sum(len(frame.scan.points) for frame in frames)
    assert 0 < change.agreement < 1
    known = Change(("a", "b"), np.array([[3, 1], [0, 0]]), float("nan"), float("nan"))
    assert known.changed["a"] == 0.25
    assert np.isnan(known.changed["b"])
    assert known.share(1) == {"a": 1, "b": 0}
    assert known.share(0) == {"a": 0.75, "b": 0.25}
    assert "mIoU" not in text(survey, [], known)


def test_the_hash_of_a_folder_tells_names_and_content(tmp_path):
    (tmp_path / "a").write_text("1")
    first = folder_sha256(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = folder_sha256(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, folder_sha256(tmp_path)}) == 3


class TestCommand:
    @pytest.fixture
    def drive(self, tmp_path):
        path = tmp_path / "drive"
        assert main(["simulate", str(path), "--frames", "2", "--size", "96x64", "--columns", "128"]) == 0
        return path

    @pytest.fixture
    def checkpoint(self, network_config, tmp_path):
        pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra `efficientnet`")
        torch.manual_seed(0)
        spec = TeacherSpec("efficientnet-lite0", "efficientnet-lite0", 96, 472)
        config = NetworkConfig(load_classes("street6"), spec, 0.5, 4, network_config.backbone)
        save_checkpoint(tmp_path / "in.safetensors", Network(config), {"kd_cosine": 0.7})
        return tmp_path / "in.safetensors"

    def test_writes_a_checkpoint_with_its_history_and_a_report(self, drive, checkpoint, tmp_path, capsys):
        def command(source, out):
            options = ["--passes", "2", "--steps", "2", "--trust", "0", "--min-agreement", "0"]
            return main(["fit", str(drive), "--checkpoint", str(source), "--out", str(tmp_path / out), *options])

        assert command(checkpoint, "once") == 0
        said = capsys.readouterr().out
        assert "2 trusted" in said
        assert "mIoU" in said
        fitted = tmp_path / "once" / "model.safetensors"
        (entry,) = load_checkpoint(fitted)[1].training["fits"]
        assert (entry["passes"], entry["steps"], entry["data"]["name"]) == (2, 8, "drive")
        assert entry["kd_loss_end"] < entry["kd_loss_begin"]
        report = json.loads((tmp_path / "once" / "report.json").read_text())
        assert report["change"]["agreement"] == entry["agreement"]
        assert (tmp_path / "once" / "report.png").read_bytes().startswith(b"\x89PNG")

        assert command(fitted, "twice") == 0
        entries = load_checkpoint(tmp_path / "twice" / "model.safetensors")[1].training["fits"]
        assert entries[0] == entry
        assert entries[1]["checkpoint"]["sha256"] != entry["checkpoint"]["sha256"]
        capsys.readouterr()
        assert main(["inspect", str(tmp_path / "twice" / "model.safetensors")]) == 0
        assert "fit 2" in capsys.readouterr().out

        segmenter = load_segmenter(fitted, settings=AdaptationSettings(steps=1))
        frame = open_folder(drive, segmenter.classes)[0]
        assert len(segmenter.segment(frame).labels) == len(frame.scan.points)

    def test_trusts_scans_as_the_node_does(self, capsys):
        with pytest.raises(SystemExit):
            main(["fit", "--help"])
        assert f"0 takes all (default: {AdaptationSettings().trust})" in " ".join(capsys.readouterr().out.split())

    def test_refuses_a_recording_without_pictures(self, checkpoint, tmp_path, capsys):
        drive = data_folders.semantickitti(tmp_path / "blind", pictures=0)
        assert main(["fit", str(drive), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")]) == 2
        assert "none of the 3 scans has 100 points in a picture" in capsys.readouterr().err
        assert not list((tmp_path / "out").iterdir())

    def test_refuses_to_write_over_the_checkpoint_that_it_fits(self, network, tmp_path, monkeypatch, capsys):
        (tmp_path / "fitted").mkdir()
        source = tmp_path / "fitted" / "model.safetensors"
        save_checkpoint(source, network, {})
        content = source.read_bytes()
        (tmp_path / "link.safetensors").symlink_to(source)
        monkeypatch.chdir(tmp_path)
        for checkpoint in ("fitted/model.safetensors", str(source), "link.safetensors"):
            assert main(["fit", "nowhere", "--checkpoint", checkpoint, "--out", "fitted"]) == 2
            assert "is the checkpoint to fit, which stays as it is; give another --out" in capsys.readouterr().err
        assert source.read_bytes() == content

    def test_finds_a_recording_whose_path_has_an_at_sign(self, checkpoint, tmp_path, capsys):
        (tmp_path / "user@lab").mkdir()
        drive = data_folders.semantickitti(tmp_path / "user@lab" / "blind", pictures=0)
        assert main(["fit", f"{drive}@0:2", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")]) == 2
        assert "none of the 2 scans has" in capsys.readouterr().err

    def test_refuses_a_place_that_cannot_be_written_to_before_it_looks_at_the_recording(
        self, checkpoint, tmp_path, capsys
    ):
        (tmp_path / "file").write_text("")
        out = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "file" / "out")]
        assert main(["fit", str(tmp_path / "nowhere"), *out]) == 2
        assert "file/out'" in capsys.readouterr().err
