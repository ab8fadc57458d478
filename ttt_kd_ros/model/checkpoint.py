"""Checkpoints: one safetensors file whose header holds a manifest.

The manifest says what the weights are: format version, shape of the network, classes, teacher, and how they were
trained. Loading refuses a file whose weights do not fit its manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.errors import CheckpointError, InputError
from ttt_kd_ros.model.backbone import backbone_to_dict, take_backbone
from ttt_kd_ros.model.network import Network, NetworkConfig, TeacherSpec
from ttt_kd_ros.model.voxel_input import FEATURES

FORMAT = 1
_KEY = "ttt_kd_ros"


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says of itself.

    Parameters
    ----------
    network
        Shape of the network.
    training
        How it was trained and what it scored: plain values for JSON, `kd_cosine` (mean cosine of ρ_2D with the
        teacher on training pairs) among them.
    """

    network: NetworkConfig
    training: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The manifest as JSON text."""
        network = asdict(self.network) | {"classes": self.network.classes.to_dict(), "features": FEATURES}
        del network["backbone"]
        network |= backbone_to_dict(self.network.backbone)
        return json.dumps({"format": FORMAT, "network": network, "training": dict(self.training)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read what `to_json` writes.

        Raises
        ------
        CheckpointError
            If the format is another one or a value is missing or wrong.
        """
        try:
            data = json.loads(text)
            if data["format"] != FORMAT:
                raise CheckpointError(f"has format {data['format']}, this version reads format {FORMAT}")
            network = dict(data["network"])
            if tuple(network.pop("features")) != FEATURES:
                raise CheckpointError("was trained on other input features than this version computes")
            backbone = take_backbone(network)
            classes = ClassList.from_dict(network.pop("classes"))
            teacher, training = TeacherSpec(**network.pop("teacher")), dict(data["training"])
            if not isinstance(training.get("kd_cosine", 1.0), int | float):
                raise CheckpointError(f"has a kd_cosine that is no number: {training['kd_cosine']}")
            return cls(NetworkConfig(classes, teacher, backbone=backbone, **network), training)
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
            raise CheckpointError(f"has a manifest that cannot be read: {error}") from error


def save_checkpoint(path: str | Path, network: Network, training: Mapping[str, Any]) -> None:
    """Write weights and manifest to one file, complete or not at all.

    Parameters
    ----------
    path
        A ``.safetensors`` file; an existing one is replaced.
    network
        The network.
    training
        See `Manifest`.

    Raises
    ------
    CheckpointError
        If the file cannot be written.
    """
    path = Path(path)
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    unfinished = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(save(tensors, metadata={_KEY: Manifest(network.config, training).to_json()}))
        unfinished.replace(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        with suppress(OSError):  # it is in its place
            unfinished.unlink()


def load_manifest(path: str | Path) -> Manifest:
    """Read a checkpoint's manifest.

    Raises
    ------
    CheckpointError
        If there is no such file, it is damaged, or it is no checkpoint of this package.
    """
    with _opened(path) as file:
        return _manifest(file, path)


def load_checkpoint(path: str | Path) -> tuple[Network, Manifest]:
    """Read a network, in evaluation mode on the CPU.

    Raises
    ------
    CheckpointError
        If there is no such file, it is damaged, or its weights do not fit its manifest; the message spells out the
        differences.
    """
    with _opened(path) as file:
        manifest = _manifest(file, path)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        network = Network(manifest.network)
    except (InputError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: there is no network as its manifest describes it: {error}") from error
    problems = _differences(tensors, network.state_dict())
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise CheckpointError(f"{path}: the weights do not fit the manifest: {'; '.join(sorted(problems)[:4])}{more}")
    network.load_state_dict(tensors)
    return network.eval(), manifest


def _differences(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    problems = [f"{name} is missing" for name in expected.keys() - tensors.keys()]
    problems += [f"{name} is unknown" for name in tensors.keys() - expected.keys()]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected.keys() & tensors.keys()
        if tensors[name].shape != expected[name].shape
    ]
    return problems + [f"{name} is not finite" for name, tensor in tensors.items() if not tensor.isfinite().all()]


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: there is no such file")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read as a safetensors file ({error}); is it complete?") from error


def _manifest(file: Any, path: str | Path) -> Manifest:
    metadata = file.metadata() or {}
    if _KEY not in metadata:
        raise CheckpointError(f"{path}: is no checkpoint of ttt_kd_ros; make one with `ttt_kd train`")
    try:
        return Manifest.from_json(metadata[_KEY])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
