"""Where a fitted checkpoint comes from, as its manifest tells."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ttt_kd_ros.fit.passes import FitSettings, Pass, Survey
from ttt_kd_ros.model.checkpoint import file_sha256

FITS = "fits"
"""Under which name a manifest lists the fits, the first one first."""


@dataclass(frozen=True)
class Source:
    """Something that a fit started from: its name and the SHA-256 of its content."""

    name: str
    sha256: str


def history(
    training: Mapping[str, Any],
    checkpoint: Source,
    data: Source,
    settings: FitSettings,
    survey: Survey,
    passes: Sequence[Pass],
    agreement: float,
) -> dict[str, Any]:
    """What the manifest of a fitted checkpoint says: how the first network was trained, and every fit since.

    Parameters
    ----------
    training
        What the manifest of the checkpoint said before.
    checkpoint, data
        What was fitted, and to what.
    settings, survey, passes
        How it went.
    agreement
        Share of the points that kept their label.
    """
    kept = [done for done in passes if done.kept]
    entry = {
        "checkpoint": asdict(checkpoint),
        "data": asdict(data),
        "settings": asdict(settings.adaptation.resolved()) | {"min_agreement": settings.min_agreement},
        "scans": len(survey.labels),
        "trusted_scans": sum(survey.trusted),
        "passes": len(kept),
        "steps": sum(done.steps for done in kept),
        "kd_loss_begin": kept[0].kd_loss_begin if kept else None,
        "kd_loss_end": kept[-1].kd_loss_end if kept else None,
        "agreement": agreement,
    }
    return {**training, FITS: [*training.get(FITS, []), entry]}


def describe(entry: Mapping[str, Any]) -> str:
    """A line on one fit of a manifest."""
    checkpoint, data = entry["checkpoint"], entry["data"]
    return (
        f"{checkpoint['name']} ({checkpoint['sha256'][:12]}) to {data['name']} ({data['sha256'][:12]}): "
        f"{entry['passes']} passes, {entry['steps']} steps, "
        f"{entry['trusted_scans']} of {entry['scans']} scans trusted, "
        f"{100 * entry['agreement']:.1f} % of the labels kept"
    )


def folder_sha256(path: Path) -> str:
    """SHA-256 over the names and the content of all files in a folder."""
    digest = hashlib.sha256()
    for file in sorted(f for f in path.rglob("*") if f.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{file_sha256(file)}\0".encode())
    return digest.hexdigest()
