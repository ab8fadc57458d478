"""A machine to launch on."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def machine(tmp_path, monkeypatch):
    from launching import PROFILES, Machine

    monkeypatch.setenv("AMENT_PREFIX_PATH", os.pathsep.join([str(tmp_path), os.environ.get("AMENT_PREFIX_PATH", "")]))
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]))
    monkeypatch.delenv(PROFILES, raising=False)
    machine = Machine(tmp_path)
    machine.install("ttt_kd_ros", "segment_node", "[INFO] [segment]: ready: classes road")
    machine.install("rviz2", "rviz2")
    machine.write(tmp_path / "bin" / "ros2")
    return machine
