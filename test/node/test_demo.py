"""The demonstration, small: a simulated drive through the node and a report on it."""

import json

import pytest
import torch

from ttt_kd_ros.cli import main


@pytest.fixture(autouse=True)
def _threads():
    """The demo leaves a core to the player; the other tests have all of them."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_demo_compares_the_modes_on_a_simulated_drive(tmp_path, capsys):
    pytest.importorskip("embreex", reason="needs the extra `simulation`")
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra `efficientnet`")
    assert main(["demo", "--out", str(tmp_path), "--frames", "2", "--steps", "1"]) == 0
    report = tmp_path / "report.html"
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {report}"
    runs = json.loads((tmp_path / "result.json").read_text())["runs"]
    assert list(runs) == ["off", "online", "offline"]
    for run in runs.values():
        assert run["scans_in"] == run["clouds_out"] == 2
        assert 0 < run["miou"] < 1
    assert runs["off"]["kd_loss"]["first"] is None
    assert runs["online"]["kd_loss"]["last"] < runs["online"]["kd_loss"]["first"]
    assert f"{runs['online']['miou']:.3f}" in report.read_text()


@pytest.mark.parametrize("part", ["drive", "simulated_drive", "off", "online"])
def test_the_demo_takes_the_place_of_nothing(part, tmp_path, capsys):
    kept = tmp_path / part / "result.json"
    kept.parent.mkdir()
    kept.write_text("{}")
    assert main(["demo", "--out", str(tmp_path), "--frames", "2", "--steps", "1"]) == 2
    assert f"{part}' exists already; remove it or choose another directory" in capsys.readouterr().err
    assert kept.is_file()


def test_the_demo_finds_an_empty_directory_in_its_way_before_it_simulates(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ttt_kd_ros.data.simulation.drive.write_folder", lambda *_: pytest.fail("a drive is simulated"))
    (tmp_path / "simulated_drive").mkdir()
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "simulated_drive' exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "-7"], "parameter 'adaptation.steps' is -7; it must be -1 to"),
        (["--checkpoint", "none.safetensors"], "none.safetensors: there is no such file"),
        (["--checkpoint", __file__], "test_demo.py"),
    ],
)
def test_the_demo_writes_nothing_before_it_knows_that_its_settings_can_be_used(options, message, tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "demo"), "--frames", "2", *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
