"""A replay compared with the source model on the same bag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.frame import Frame
from ttt_kd_ros.replay.bag import bag_sha256, open_bag
from ttt_kd_ros.replay.frames import BagFrames
from ttt_kd_ros.replay.in_process import replay_in_process
from ttt_kd_ros.replay.report import Run, write_report
from ttt_kd_ros.replay.result import Result
from ttt_kd_ros.replay.settings import Plan, plan
from ttt_kd_ros.ros.counts import Counts

SCENES = 3
SOURCE = "off"
"""Adaptation mode in which the source model answers."""


def describe(what: Plan, result: Result, *, in_process: bool) -> Run:
    """A replay for a report, named after its adaptation mode."""
    if in_process:
        how = "in process, every scan"
    elif rate := what.settings.rate:
        how = f"node, {rate:g} x recorded speed"
    else:
        how = "node, as fast as it answers"
    return Run(what.node_settings.adaptation.mode, how, result, what.parameters)


def with_source(what: Plan, run: Run) -> list[Run]:
    """The source model on the scans that the run answered, in this process, then the run.

    The run alone if it is the source model's.
    """
    if run.name == SOURCE:
        return [run]
    settings = replace(what.settings, parameters={**what.settings.parameters, "adaptation.mode": SOURCE}, out=None)
    source = plan(what.bag, settings)
    result = replay_in_process(source, {answer.stamp for answer in run.result.answers})
    how = f"in process, scans answered with {run.name}"
    return [replace(describe(source, result, in_process=True), how=how), run]


def compare(path: Path, what: Plan, runs: Sequence[Run]) -> None:
    """Write a report on replays of a bag.

    Parameters
    ----------
    path
        HTML file to write.
    what
        What one of the runs replayed: it tells what of the bag is for the node.
    runs
        As for `write_report`; their names must differ.

    Raises
    ------
    InputError
        If the bag cannot be read or two runs have the same name.
    """
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise InputError(f"runs of a report need different names, not {', '.join(names)}")
    title = f"Replay of {what.bag.resolve().name}"
    write_report(path, title, runs, _scenes(what, runs), what.classes, bag_sha256(what.bag))


def _scenes(what: Plan, runs: Sequence[Run]) -> list[Frame]:
    """Frames that all runs have answered, spread over the bag."""
    answered = set.intersection(*({answer.stamp for answer in run.result.answers} for run in runs))
    stamps = sorted(answered)
    places = np.linspace(0, len(stamps) - 1, min(SCENES, len(stamps))).round().astype(int)
    with_pictures = replace(what.node_settings, adaptation=AdaptationSettings())
    with open_bag(what.bag) as reader:
        frames = BagFrames(reader, what.layout, with_pictures, Counts())({stamps[place] for place in places})
        return [frame for _, frame in frames if frame is not None]
