"""The benchmark: what it measures, what it counts, and what it says."""

import itertools
import json
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from stripes import StripesTeacher, camera_view

from ttt_kd_ros.adaptation.scope import scope_parameters
from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.benchmark.limits import Machine, Work, forward_work, measure_machine, step_work
from ttt_kd_ros.benchmark.margins import gradient_cosines
from ttt_kd_ros.benchmark.plot import write_scaling
from ttt_kd_ros.benchmark.report import text
from ttt_kd_ros.benchmark.run import benchmark
from ttt_kd_ros.benchmark.scaling import scaling
from ttt_kd_ros.benchmark.sparse_backends import NAIVE, compare_backends
from ttt_kd_ros.benchmark.stages import STEP, STEP_ALL, STEP_PART, STEP_PLAIN, Stage, Timing, measure, prepare, ratios
from ttt_kd_ros.cli import main
from ttt_kd_ros.frame import Frame, Scan
from ttt_kd_ros.model.sparse_backend import BACKENDS
from ttt_kd_ros.sparse import convolution, products
from ttt_kd_ros.sparse.plain import PLAIN, Plain

MACHINE = Machine("a machine", operations_per_s=1e9, bytes_per_s=1e9)
CPU = torch.device("cpu")
SETTINGS = AdaptationSettings(steps=1, min_pairs=1)


class Drive:
    """A data folder of one frame."""

    name = "drive"

    def __init__(self, points, views):
        self._frame = Frame(Scan(points.numpy(), np.eye(4), stamp=1), views)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self._frame


def measured(network, drive):
    return benchmark(network, StripesTeacher(), drive, SETTINGS, MACHINE, frames=3, repeats=2)


def test_a_drive_with_pictures_is_measured_in_all_stages_and_said_as_json_and_text(network, street_points):
    result = measured(network, Drive(street_points, (camera_view(),)))
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["voxels"] == [len(network.voxel_input(street_points).grid)]
    assert list(content["stages"]) == [
        "voxelise", "kernel maps", "pairing", "teacher", "forward", "prediction", "view", STEP, STEP_PART, STEP_ALL,
        "step on the whole scan, maps rebuilt", STEP_PLAIN,
    ]  # fmt: skip
    assert content["ratios"] == pytest.approx(ratios(result.stages))
    said = text(result)
    for words in (*content["stages"], *content["ratios"], "1 cameras", "cosine"):
        assert words in said


def test_a_drive_without_pictures_is_measured_without_steps(network, street_points):
    result = measured(network, Drive(street_points, ()))
    assert list(result.stages) == ["voxelise", "kernel maps", "forward", "prediction"]
    assert not result.margins
    assert not ratios(result.stages)
    assert "step" not in text(result)


def test_the_weights_are_those_from_before_once_a_benchmark_is_done(network, street_points):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    settings = AdaptationSettings(steps=2, min_pairs=1)
    drive = Drive(street_points, (camera_view(),))
    result = benchmark(network, StripesTeacher(), drive, settings, MACHINE, frames=1, repeats=1)
    assert STEP in result.stages
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_stages_take_turns_after_one_run_that_is_not_timed():
    ran = []
    ticks = itertools.count()
    two = [Stage("a", lambda: ran.append("a")), Stage("b", lambda: ran.append("b"), Work(10**6, 0), parts=2)]
    timings = measure([two], MACHINE, 2, clock=lambda: float(next(ticks)))
    assert "".join(ran) == "ab" * 3
    assert timings["a"].median == pytest.approx(1000)
    assert timings["b"].median == pytest.approx(500)
    assert timings["a"].limit is None
    assert timings["b"].limit == pytest.approx(1)


@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize("scope", ["norm", "all", "encoder"])
def test_the_counted_operations_are_those_of_the_matrix_products(network, street_points, monkeypatch, scope, part):
    done = []
    mm = torch.mm

    def counting(a, b, out):
        done.append(2 * a.shape[0] * a.shape[1] * b.shape[1])
        return mm(a, b, out=out)

    monkeypatch.setattr(convolution.torch, "mm", counting)
    voxels = network.voxel_input(street_points)
    if part:
        pyramid = voxels.pyramid.decoding(torch.arange(len(voxels.grid)) % 500 < 250)
        voxels = replace(voxels, pyramid=pyramid)
    network.requires_grad_(False)
    for parameter in scope_parameters(network.backbone, scope):
        parameter.requires_grad_(True)
    logits, _ = network(voxels)
    assert sum(done) == forward_work(network.backbone, voxels.pyramid).operations
    logits.sum().backward()
    assert sum(done) == step_work(network.backbone, voxels.pyramid, scope).operations


def test_what_no_moving_weight_leads_to_is_not_counted(network, street_points):
    backbone, pyramid = network.backbone, network.voxel_input(street_points).pyramid
    forward, *steps = (
        work.operations
        for work in (forward_work(backbone, pyramid), *(step_work(backbone, pyramid, s) for s in ("decoder", "all")))
    )
    assert forward < steps[0] < steps[1] - forward / 2


def test_work_takes_as_long_as_the_slower_of_operations_and_traffic():
    assert Work(3 * 10**6, 2 * 10**6).limit_ms(MACHINE) == pytest.approx(3)
    assert Work(10**6, 2 * 10**6).limit_ms(MACHINE) == pytest.approx(2)


def test_the_machine_is_measured():
    machine = measure_machine(CPU, time.perf_counter, repeats=1)
    assert machine.operations_per_s > 0
    assert machine.bytes_per_s > 0
    assert machine.name.startswith(f"CPU, {torch.get_num_threads()} thread")


def test_the_gradient_within_a_margin_becomes_that_of_the_whole_scan(network, street_points):
    drive = Drive(street_points, (camera_view(),))
    network.requires_grad_(False)
    prepared = prepare(drive[0], network, StripesTeacher())
    settings = AdaptationSettings(scope="norm")
    rows = gradient_cosines(network, prepared.voxels, prepared.pairs, settings, (0.0, 4.0, 1000.0))
    assert rows[0].voxels < rows[1].voxels < rows[2].voxels == 1
    assert rows[0].cosine < rows[2].cosine == pytest.approx(1, abs=1e-9)
    parts = rows[3:]
    assert [row.part for row in parts] == [", part 1 of 3", ", part 2 of 3", ", part 3 of 3"]
    assert sum(row.voxels for row in parts) == pytest.approx(rows[1].voxels)
    assert all(0 < row.cosine < rows[1].cosine for row in parts)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_scaling_runs_on_as_many_voxels_as_asked_for(network, street_points):
    network.requires_grad_(False)
    result = scaling(network, [street_points], SETTINGS, MACHINE, 1, counts=(500, 9000))
    assert list(result) == [500, 9000]
    assert all(list(stages) == ["voxelise", "kernel maps", "forward", STEP_ALL] for stages in result.values())
    assert result[9000]["forward"].limit > 10 * result[500]["forward"].limit


def test_scaling_is_drawn(tmp_path):
    timing = Timing(2.0, 1.0, 3.0, None)
    write_scaling(tmp_path / "scaling.png", {500: {"forward": timing}, 1000: {"forward": timing}}, "a drive")
    height, width, _ = cv2.imread(str(tmp_path / "scaling.png")).shape
    assert (width, height) == (720, 540)


def test_backends_are_compared_with_the_naive_way_and_with_exact_results(network, street_points):
    network.requires_grad_(False)
    found = compare_backends(network, [street_points], SETTINGS, MACHINE, 1, time.perf_counter, counts=(500, 1000))
    assert {"spconv", "triton"} <= set(found.unusable)
    usable = [NAIVE, *(name for name in BACKENDS if name not in found.unusable)]
    assert list(found.exactness) == usable and usable[1] == "torch"
    assert all(0 < far.outputs < 1e-5 and 0 < far.gradients < 1e-4 for far in found.exactness.values())
    assert list(found.times) == [500, 1000]
    for backends in found.times.values():
        assert list(backends) == usable
        assert all(list(stages) == ["forward", "step, norm", "step, all"] for stages in backends.values())
    assert products.chosen() is PLAIN


def test_a_wrong_backend_is_far_from_the_exact_results(network, street_points, monkeypatch):
    class Wrong(Plain):
        def convolve(self, *arguments):
            return 1.1 * super().convolve(*arguments)

    monkeypatch.setitem(BACKENDS, "wrong", Wrong())
    found = compare_backends(network, [street_points], SETTINGS, MACHINE, 1, time.perf_counter, counts=(500,))
    assert found.exactness["wrong"].outputs > 0.1
    said = text(replace(measured(network, Drive(street_points, ())), backends=found))
    assert "| 500 | wrong |" in said
    assert "spconv: on the CPU" in said


def test_a_backend_that_fails_costs_the_others_nothing(network, street_points, monkeypatch):
    class Broken(Plain):
        def convolve(self, *arguments):
            raise ImportError("No module named 'lark'")

    monkeypatch.setitem(BACKENDS, "broken", Broken())
    found = compare_backends(network, [street_points], SETTINGS, MACHINE, 1, time.perf_counter, counts=(500,))
    assert found.unusable["broken"] == "it fails: No module named 'lark'"
    assert {NAIVE, "torch"} <= set(found.times[500])
    assert "broken" not in found.times[500]


def test_the_time_on_a_cpu_is_no_device_time(tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        assert main(["benchmark", str(tmp_path), "--device", "cuda", "--cpu-time"]) == 2
    assert "--cpu-time" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_refused_before_what_is_measured_is_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ttt_kd_ros.model.sparse_backend.use_sparse_backend", lambda *_: pytest.fail("too late"))
    assert main(["benchmark", str(tmp_path / "nowhere")]) == 2
    assert "nowhere' is not a directory" in capsys.readouterr().err


def test_what_computed_before_a_comparison_computes_after_it(network, street_points):
    chosen = Plain()
    network.requires_grad_(False)
    with products.using(chosen):
        compare_backends(network, [street_points], SETTINGS, MACHINE, 1, time.perf_counter, counts=(500,))
        assert products.chosen() is chosen
    assert products.chosen() is PLAIN
