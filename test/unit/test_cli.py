"""The command line tool: what the user can mend is one line and exit code 2."""

import json
import subprocess
import sys

import data_folders
import numpy as np
import pytest

import ttt_kd_ros.cli
from ttt_kd_ros.cli import COMMANDS, arguments, convert, main, replay
from ttt_kd_ros.errors import DataError, InputError
from ttt_kd_ros.replay.bag import bag_sha256
from ttt_kd_ros.replay.tally import Result


@pytest.fixture
def bag(tmp_path):
    path = tmp_path / "bag"
    assert main(["convert", str(data_folders.semantickitti(tmp_path / "folder")), str(path)]) == 0
    return path


def error_line(capsys):
    """The only line on stderr."""
    text = capsys.readouterr().err
    assert text.startswith("ttt_kd: error: ")
    assert text.count("\n") == 1
    return text


def test_a_folder_is_converted_and_said_what_it_was(tmp_path, capsys):
    folder = data_folders.pandaset(tmp_path / "folder")
    assert main(["convert", str(folder), str(tmp_path / "bag"), "--storage", "sqlite3", "--raw"]) == 0
    assert (tmp_path / "bag" / "bag.db3").is_file()
    said = capsys.readouterr().out
    assert said.endswith("PandaSet, 3 scans, cameras: front_camera, ground truth in street6, motion known\n")


def test_a_folder_that_is_not_there_is_one_line(tmp_path, capsys):
    assert main(["convert", str(tmp_path / "nowhere"), str(tmp_path / "bag")]) == 2
    assert "nowhere' is not a directory" in error_line(capsys)


def test_a_folder_of_unknown_kind_is_one_line(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", x=np.zeros(1))
    assert main(["convert", str(tmp_path), str(tmp_path / "bag")]) == 2
    assert "is of no known format" in error_line(capsys)


def test_an_unknown_class_list_is_one_line(tmp_path, capsys):
    folder = data_folders.kitti_raw(tmp_path / "folder")
    assert main(["convert", str(folder), str(tmp_path / "bag"), "--classes", "street7"]) == 2
    assert "street6" in error_line(capsys)


def test_a_bag_that_exists_is_one_line(tmp_path, bag, capsys):
    assert main(["convert", str(tmp_path / "folder"), str(bag)]) == 2
    assert "exists already" in error_line(capsys)


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path, capsys):
    folder = data_folders.kitti_raw(tmp_path / "folder")
    (tmp_path / "file").write_text("")
    assert main(["convert", str(folder), str(tmp_path / "file" / "bag")]) == 2
    assert "file" in error_line(capsys)


def test_a_bag_that_is_not_there_is_one_line(tmp_path, capsys):
    assert main(["replay", str(tmp_path / "nowhere"), "--checkpoint", "x"]) == 2
    assert "is no bag" in error_line(capsys)


def test_a_truncated_bag_is_one_line(bag, capsys):
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:500])
    assert main(["replay", str(bag), "--checkpoint", "x"]) == 2
    assert "is it complete?" in error_line(capsys)


def test_a_checkpoint_that_is_not_there_is_one_line(tmp_path, bag, capsys):
    assert main(["replay", str(bag), "--checkpoint", str(tmp_path / "none.safetensors")]) == 2
    assert "none.safetensors" in error_line(capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rate", "-1"], "rate is -1"),
        (["--rate", "nan"], "rate is nan"),
        (["--rate", "inf"], "rate is inf"),
        (["--report"], "--report needs --out"),
        (["--param", "steps"], "write NAME=VALUE"),
        (["--param", "steps=[1"], "no YAML"),
        (["--points-topic", "/rear"], "no PointCloud2 on '/rear'"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(options, message, bag, capsys):
    assert main(["replay", str(bag), "--checkpoint", "x", *options]) == 2
    assert message in error_line(capsys)


def test_an_unknown_option_is_refused_with_the_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["replay", "bag", "--checkpoint", "x", "--speed", "2"])
    assert stop.value.code == 2
    assert "--speed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["benchmark", "folder", "--frames", "0"], "--frames: '0' is no whole number of at least 1"),
        (["benchmark", "folder", "--threads", "-1"], "--threads: '-1' is no whole number of 0 to 1024"),
        (["benchmark", "folder", "--threads", "1025"], "--threads: '1025' is no whole number of 0 to 1024"),
        (["fit", "folder", "--out", "x", "--threads", "100000000"], "'100000000' is no whole number of 0 to 1024"),
        (["evaluate", "folder", "--checkpoint", "x", "--threads", "two"], "--threads: 'two' is no whole number"),
        (["evaluate", "folder", "--checkpoint", "x", "--threads", "1025"], "'1025' is no whole number of 0 to 1024"),
        (["fit", "folder", "--out", "x", "--trust", "5"], "--trust: '5' is no share of 0 to 1"),
        (["fit", "folder", "--out", "x", "--trust", "nan"], "--trust: 'nan' is no share of 0 to 1"),
        (["train", "folder", "--out", "x", "--seed", str(2**64)], f"is no whole number of 0 to {2**64 - 1}"),
        (["train", "folder", "--measure", "0"], "--measure: '0' is no whole number of at least 1"),
        (["train", "folder", "--out", "x", "--cache-gb", "nan"], "--cache-gb: 'nan' is no finite number"),
        (["simulate", "folder", "--interval", "inf"], "--interval: 'inf' is no finite number of at least 0"),
    ],
)
def test_numbers_that_cannot_be_used_are_refused_with_the_usage(command, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_an_error_of_several_lines_is_printed_as_one(monkeypatch, capsys):
    def run(args):
        raise InputError("first\n  second")

    monkeypatch.setattr(convert, "run", run)
    assert main(["convert", "a", "b"]) == 2
    assert error_line(capsys) == "ttt_kd: error: first second\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rosbags.rosbag2", "needs the package rosbags; pip install 'ttt_kd_ros[replay]'"),
        ("lightning", "needs the package lightning; pip install 'ttt_kd_ros[training]'"),
        ("rclpy", "needs the package rclpy; source the setup.bash of a ROS 2 installation"),
    ],
)
def test_a_package_that_is_missing_is_one_line(name, message, monkeypatch, capsys):
    def run(args):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(convert, "run", run)
    assert main(["convert", "a", "b"]) == 2
    assert message in error_line(capsys)


@pytest.mark.parametrize(
    "command",
    [
        ["benchmark", "nowhere", "--scaling"],
        ["evaluate", "nowhere", "--checkpoint", "nowhere"],
        ["fit", "nowhere"],
        ["replay", "nowhere", "--report"],
    ],
)
def test_what_draws_in_the_end_looks_for_matplotlib_in_the_beginning(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    assert "needs the package matplotlib; pip install 'ttt_kd_ros[replay]'" in error_line(capsys)


def test_an_interruption_ends_with_130(monkeypatch):
    def run(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(convert, "run", run)
    assert main(["convert", "a", "b"]) == 130


@pytest.mark.parametrize("fault", [ZeroDivisionError(), ModuleNotFoundError(name="ttt_kd_ros.mistyped")])
def test_a_fault_of_the_program_keeps_its_traceback(fault, monkeypatch):
    def run(args):
        raise fault

    monkeypatch.setattr(convert, "run", run)
    with pytest.raises(type(fault)):
        main(["convert", "a", "b"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"ttt_kd {command} " in text.split("example", 1)[1]


def test_help_needs_nothing_that_is_slow_to_import():
    script = (
        "import sys, ttt_kd_ros.cli\n"
        "try: ttt_kd_ros.cli.main(['--help'])\n"
        "except SystemExit: print(sorted({'torch', 'numpy', 'rosbags', 'rclpy', 'cv2'} & sys.modules.keys()))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"
    for command in COMMANDS:
        assert command in output


def test_the_module_can_be_run(tmp_path):
    command = [sys.executable, "-m", ttt_kd_ros.cli.__name__, "convert", str(tmp_path / "nowhere"), "x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ttt_kd: error: ")


def test_values_of_parameters_are_yaml_whose_words_are_kept():
    texts = ["a.b=3", "c=1e-4", "d=off", "e='off'", "f=[x, y]", "g=a=b", "h=''", "i="]
    expected = {"a.b": "3", "c": "1e-4", "d": "off", "e": "off", "f": ["x", "y"], "g": "a=b", "h": "", "i": ""}
    assert arguments.parse_parameters(texts) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["--steps", "1", "--param", "adaptation.steps=3"],
        ["--adaptation", "online", "--param", "adaptation.mode=off"],
        ["--base-frame", "a", "--param", "base_frame=a"],
        ["--checkpoint", "a", "--param", "checkpoint=b"],
        ["--param", "cameras=front", "--param", "cameras=left"],
    ],
    ids=" ".join,
)
def test_what_is_said_twice_is_refused(arguments, capsys):
    assert main(["replay", "bag", *arguments]) == 2
    assert "is given twice" in capsys.readouterr().err


NAN = float("nan")


def result(**changes):
    values = {
        "scans_in": 10,
        "clouds_out": 8,
        "dropped": {"overload": 2, "malformed": 0, "unanswered": 0},
        "pictures": {"front": {"received": 10, "used": 7, "no image": 1, "late image": 0}},
        "latency_ms": {"p50": 80.4, "p95": 120.0, "p99": 130.6},
        "kd_loss": {"first": 0.61234, "last": 0.5},
        "labels_sha256": "0" * 64,
        "miou": 0.55,
        "iou": {"road": 0.9, "vehicle": 0.2, "person": NAN},
    }
    return Result(**(values | changes))


def test_the_report_tells_counts_causes_latency_loss_and_the_classes_present():
    assert replay.summary(result()).splitlines() == [
        "scans     10 in, 8 answered",
        "dropped   2 overload",
        "pictures  front: 7 used of 10, 1 no image",
        "latency   p50 80 ms, p95 120 ms, p99 131 ms",
        "KD loss   0.6123 before the first step, 0.5000 after the last",
        "mIoU      0.550",
        "  road         0.900",
        "  vehicle      0.200",
    ]


def test_the_report_leaves_out_what_there_is_not():
    silent = result(
        clouds_out=0, dropped={"overload": 0}, pictures={}, kd_loss={"first": NAN, "last": NAN}, miou=NAN, iou={}
    )
    assert replay.summary(silent).splitlines() == ["scans     10 in, 0 answered", "dropped   none"]


def test_a_replay_in_which_no_scan_was_answered_is_refused_with_the_mend_of_each_cause():
    result().require_answers()
    result(scans_in=0, clouds_out=0, dropped={}).require_answers()
    nothing = result(clouds_out=0, dropped={"no base transform": 7, "overload": 0, "unanswered": 3})
    with pytest.raises(
        DataError, match=r"no scan was answered; 7 x no base transform: .*set base_frame.*3 x unanswered"
    ):
        nothing.require_answers()
    with pytest.raises(DataError, match="the node was silent"):
        result(clouds_out=0, dropped={"overload": 0}).require_answers()


def test_a_result_is_valid_json_with_null_for_what_cannot_be_told():
    values = json.loads(json.dumps(result(miou=NAN).to_dict(), allow_nan=False))
    assert values["miou"] is None
    assert values["iou"] == {"road": 0.9, "vehicle": 0.2, "person": None}
    assert values["dropped"]["overload"] == 2


def test_converting_twice_gives_the_same_data(tmp_path, bag):
    again = tmp_path / "again" / "bag"
    assert main(["convert", str(tmp_path / "folder"), str(again)]) == 0
    assert bag_sha256(again) == bag_sha256(bag)
