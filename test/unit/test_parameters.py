"""The table of parameters: validation, and the files that are written from it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.ros import parameter_docs
from ttt_kd_ros.ros.collector import Timing
from ttt_kd_ros.ros.parameters import CAMERA_PARAMETERS, PARAMETERS, Parameter, camera_parameters, settings_from

ROOT = Path(__file__).parents[2]
ADAPTATION = [parameter for parameter in PARAMETERS if parameter.name.startswith("adaptation.")]


def values(cameras: tuple[str, ...] = (), **changes: object) -> dict[str, object]:
    table = (*PARAMETERS, *(p for camera in cameras for p in camera_parameters(camera)))
    return {p.name: p.default for p in table} | {"cameras": cameras} | changes


def test_the_defaults_are_valid():
    settings = settings_from(values())
    assert settings.adaptation == AdaptationSettings()
    assert settings.cameras == ()
    assert settings.base_frame == "base_link"


def test_milliseconds_become_nanoseconds():
    times = {"camera.front.tolerance_ms": 0.25, "camera.front.time_offset_ms": -1.5}
    settings = settings_from(values(("front",), image_wait_ms=12.5, **times))
    assert settings.image_wait_ns == 12_500_000
    assert settings.timings == {"front": Timing(250_000, -1_500_000)}


@pytest.mark.parametrize("name", ["checkpoint", "weights_path"])
def test_a_file_may_be_given_below_the_home_directory(name, monkeypatch):
    monkeypatch.setenv("HOME", "/home/robot")
    assert getattr(settings_from(values(**{name: "~/street.safetensors"})), name) == "/home/robot/street.safetensors"
    assert getattr(settings_from(values(**{name: ""})), name) == ""


def test_the_home_of_a_user_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="'~no_such_user/x' begins with a home directory that is not known"):
        settings_from(values(checkpoint="~no_such_user/x"))


def test_a_camera_has_its_name_in_its_topics():
    (camera,) = settings_from(values(("front_left",))).cameras
    assert (camera.image_topic, camera.info_topic) == ("front_left/image_raw", "front_left/camera_info")


def test_compressed_pictures_come_on_the_topic_of_image_transport():
    (camera,) = settings_from(values(("front",), **{"camera.front.transport": "compressed"})).cameras
    assert camera.picture_topics == ("front/image_raw/compressed",)


def test_pictures_may_come_raw_or_compressed():
    (camera,) = settings_from(values(("front",))).cameras
    assert camera.picture_topics == ("front/image_raw", "front/image_raw/compressed")


def test_an_unknown_word_is_refused_with_the_allowed_ones():
    with pytest.raises(InputError, match=r"'adaptation\.mode' is 'fast'; choose one of off, offline, online"):
        settings_from(values(**{"adaptation.mode": "fast"}))


def test_a_number_out_of_range_is_refused_with_the_range():
    with pytest.raises(InputError, match=r"'adaptation\.steps' is 1001; it must be -1 to 1,000"):
        settings_from(values(**{"adaptation.steps": 1001}))


def test_a_number_that_is_none_is_refused():
    with pytest.raises(InputError, match="learning_rate"):
        settings_from(values(**{"adaptation.learning_rate": float("nan")}))


def test_a_camera_is_checked_like_the_node():
    with pytest.raises(
        InputError, match=r"'camera\.front\.transport' is 'theora'; choose one of auto, raw, compressed"
    ):
        settings_from(values(("front",), **{"camera.front.transport": "theora"}))


@pytest.mark.parametrize("name", ["", "front left", "/front", "front.left", "1st"])
def test_a_camera_name_that_cannot_be_in_a_topic_is_refused(name):
    with pytest.raises(InputError, match="letters, digits and underscores"):
        settings_from(values((name,)))


def test_a_camera_named_twice_is_refused():
    with pytest.raises(InputError, match="'front' 2 times"):
        settings_from(values(("front", "front")))


def test_an_empty_base_frame_is_refused():
    with pytest.raises(InputError, match="base_frame"):
        settings_from(values(base_frame=""))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("adaptation.mode", "off", "off"),
        ("adaptation.steps", "3", 3),
        ("adaptation.learning_rate", "1e-4", 1e-4),
        ("image_wait_ms", "20", 20.0),
        ("cameras", "front, left", ("front", "left")),
        ("autostart", "False", False),
    ],
)
def test_a_launch_argument_gets_the_type_of_its_parameter(name, text, value):
    (parameter,) = (p for p in PARAMETERS if p.name == name)
    parsed = parameter.parse(text)
    assert (parsed, type(parsed)) == (value, type(value))


def test_a_launch_argument_that_is_no_number_is_refused():
    (parameter,) = (p for p in PARAMETERS if p.name == "adaptation.steps")
    with pytest.raises(InputError, match=r"'adaptation\.steps' is 'many'; it must be a whole number"):
        parameter.parse("many")


def test_a_launch_argument_that_is_neither_true_nor_false_is_refused():
    (parameter,) = (p for p in PARAMETERS if p.name == "autostart")
    with pytest.raises(InputError, match=r"'autostart' is 'yes'; it must be true or false"):
        parameter.parse("yes")


def test_every_setting_of_the_adaptation_is_a_parameter():
    assert {p.name for p in ADAPTATION} == {f"adaptation.{f.name}" for f in fields(AdaptationSettings)}


@pytest.mark.parametrize("parameter", ADAPTATION, ids=lambda p: p.name)
def test_whatever_the_table_allows_the_adaptation_takes(parameter: Parameter):
    name = parameter.name.removeprefix("adaptation.")
    for value in (*parameter.choices, *(parameter.bounds or ())):
        assert getattr(AdaptationSettings(**{name: value}), name) == value


def test_only_parameters_of_processing_may_change_at_any_time():
    table = (*PARAMETERS, *CAMERA_PARAMETERS)
    assert {p.name for p in table if p.change == "never"} == {"autostart", "cameras"}
    assert {p.name for p in table if p.change == "unconfigured"} == {
        *(
            "checkpoint",
            "teacher",
            "device",
            "threads",
            "sparse_backend",
            "float32_matmul_precision",
            "teacher_backend",
            "points_topic",
            "base_frame",
            "fixed_frame",
        ),
        *("camera.NAME.image_topic", "camera.NAME.info_topic", "camera.NAME.transport", "camera.NAME.rectified"),
    }


def test_the_documentation_is_written_from_the_table():
    assert (ROOT / "docs" / "parameters.md").read_text() == parameter_docs.markdown(), "run the module parameter_docs"


def test_the_configuration_is_written_from_the_table():
    assert (ROOT / "config" / "segment.yaml").read_text() == parameter_docs.yaml_text(), "run the module parameter_docs"


def test_the_configuration_holds_every_default_that_ros_can_read():
    content = yaml.safe_load((ROOT / "config" / "segment.yaml").read_text())
    assert flat(content["/**"]["ros__parameters"]) == {p.name: p.default for p in PARAMETERS if p.default != ()}


def test_the_commented_camera_block_becomes_valid_when_it_is_uncommented():
    text = (ROOT / "config" / "segment.yaml").read_text().split("# For each name in cameras:\n")[1]
    content = yaml.safe_load(text.replace("    # ", "").replace("NAME", "front"))
    assert flat(content) == {p.name: p.default for p in camera_parameters("front")}


def test_writing_puts_both_files_below_the_root(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "config").mkdir()
    parameter_docs.write(tmp_path)
    assert "adaptation.steps" in (tmp_path / "docs" / "parameters.md").read_text()
    assert "ros__parameters" in (tmp_path / "config" / "segment.yaml").read_text()


def flat(tree: dict[str, object], prefix: str = "") -> dict[str, object]:
    result: dict[str, object] = {}
    for key, value in tree.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return result
