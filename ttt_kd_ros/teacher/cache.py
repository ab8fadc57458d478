"""A teacher whose features are kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ttt_kd_ros.errors import InputError
from ttt_kd_ros.teacher.features import FeatureGrid, Grids, fingerprint
from ttt_kd_ros.teacher.load import Teacher


class CachedTeacher:
    """Looks features up by the picture's content and asks a teacher for those that are not there.

    An entry whose checksum does not fit is made again. Once the directory is full, the entries that were not used for
    longest go. Several processes can share a directory.

    Parameters
    ----------
    teacher
        The image model.
    directory
        Made if it does not exist.
    max_bytes
        Largest size of all entries together.

    Raises
    ------
    InputError
        If the size is not positive.
    """

    def __init__(self, teacher: Teacher, directory: Path, max_bytes: int) -> None:
        if max_bytes <= 0:
            raise InputError("the size of the feature cache must be positive")
        self.name, self.feature_size, self.long_side = teacher.name, teacher.feature_size, teacher.long_side
        self._teacher = teacher
        self._weights = _weights_of(teacher)
        self._directory = directory
        self._max_bytes = max_bytes
        directory.mkdir(parents=True, exist_ok=True)

    def features(self, images: Sequence[Tensor]) -> list[Grids]:
        """Feature grids of pictures, as `Teacher.features` gives them."""
        paths = [self._directory / f"{self._key(image)}.safetensors" for image in images]
        grids = {
            path: kept for path, image in zip(paths, images, strict=True) if (kept := _read(path, image)) is not None
        }
        missing = {path: image for path, image in zip(paths, images, strict=True) if path not in grids}
        if missing:
            for path, new in zip(missing, self._teacher.features(list(missing.values())), strict=True):
                grids[path] = new
                _write(path, new)
            self._make_room()
        return [grids[path] for path in paths]

    def _key(self, image: Tensor) -> str:
        what = f"{self.name} {self._weights} {self.feature_size} {self.long_side} {fingerprint(image)}"
        return hashlib.sha256(what.encode()).hexdigest()

    def _make_room(self) -> None:
        entries = []
        for path in self._directory.glob("*.safetensors"):
            try:
                entries.append((path.stat(), path))
            except FileNotFoundError:  # another process removed it
                continue
        size = sum(status.st_size for status, _ in entries)
        for status, path in sorted(entries, key=lambda entry: entry[0].st_mtime_ns):
            if size <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            size -= status.st_size


def _weights_of(teacher: Teacher) -> str:
    """A hash of all weights: models of one architecture share a name."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in teacher.state_dict().items() if isinstance(teacher, nn.Module) else ():
        digest.update(name.encode())
        digest.update(value.cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path, image: Tensor) -> Grids | None:
    """The entry on the picture's device; None if there is none or it is damaged."""
    try:
        with safe_open(path, framework="pt", device=str(image.device)) as file:
            metadata = file.metadata()
            places = json.loads(metadata["places"])
            values = [file.get_tensor(str(number)) for number in range(len(places))]
        if metadata["sha256"] != _checksum(values, metadata["places"]):
            return None
        os.utime(path)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    return tuple(FeatureGrid(v, tuple(scale), tuple(offset)) for v, (scale, offset) in zip(values, places, strict=True))


def _write(path: Path, grids: Sequence[FeatureGrid]) -> None:
    values = [grid.values.contiguous().cpu() for grid in grids]
    places = json.dumps([[grid.scale, grid.offset] for grid in grids])
    metadata = {"places": places, "sha256": _checksum(values, places)}
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    unfinished.write_bytes(save({str(number): value for number, value in enumerate(values)}, metadata))
    unfinished.replace(path)


def _checksum(values: Sequence[Tensor], places: str) -> str:
    digest = hashlib.sha256(places.encode())
    for value in values:
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()
