"""The report on a fit: a table, JSON and a figure."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ttt_kd_ros.evaluation.metrics import without_nan
from ttt_kd_ros.fit.change import Change
from ttt_kd_ros.fit.passes import Pass, Survey
from ttt_kd_ros.plotting import pyplot


def text(survey: Survey, passes: Sequence[Pass], change: Change) -> str:
    """The report as lines of text."""
    scans = len(survey.labels)
    lines = [f"scans      {scans}, {sum(survey.paired)} with pictures, {sum(survey.trusted)} trusted"]
    for number, done in enumerate(passes, start=1):
        undone = "" if done.kept else f", undone: {done.undone_by}"
        lines.append(
            f"pass {number:<5} KD loss {done.kd_loss_begin:.4f} -> {done.kd_loss_end:.4f}, {done.steps} steps, "
            f"agreement {100 * done.agreement:.1f} %{undone}"
        )
    if not math.isnan(change.miou_before):
        lines.append(f"mIoU       {100 * change.miou_before:.1f} -> {100 * change.miou_after:.1f}")
    lines.append(f"labels     {100 * (1 - change.agreement):.1f} % of the points have another one")
    before, after = change.share(1), change.share(0)
    width = max(map(len, change.names))
    lines.append(f"\n{'class':<{width}}   before    after  changed")
    for name, changed in change.changed.items():
        share = "" if math.isnan(changed) else f"{100 * changed:6.1f} %"
        lines.append(f"{name:<{width}} {100 * before[name]:6.1f} % {100 * after[name]:6.1f} % {share}".rstrip())
    return "\n".join(lines)


def write_report(directory: Path, survey: Survey, passes: Sequence[Pass], change: Change) -> None:
    """Write ``report.txt``, ``report.json`` and ``report.png`` to an existing directory."""
    (directory / "report.txt").write_text(text(survey, passes, change) + "\n")
    content = {
        "scans": len(survey.labels),
        "scans_with_pictures": sum(survey.paired),
        "trusted_scans": sum(survey.trusted),
        "passes": [without_nan(asdict(done)) for done in passes],
        "change": without_nan(change.to_dict()),
    }
    (directory / "report.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    _figure(directory / "report.png", passes, change)


def _figure(path: Path, passes: Sequence[Pass], change: Change) -> None:
    plt = pyplot()
    figure, (losses, shares) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    numbers = range(1, len(passes) + 1)
    losses.plot(numbers, [done.kd_loss_begin for done in passes], marker="o", label="before the steps on a scan")
    losses.plot(numbers, [done.kd_loss_end for done in passes], marker="o", label="after them")
    losses.set(title="distillation loss", xlabel="pass", xticks=numbers)
    losses.legend(fontsize="small")
    places = np.arange(len(change.names))
    for offset, label, axis in ((0.2, "before", 1), (-0.2, "after", 0)):
        shares.barh(places + offset, [100 * v for v in change.share(axis).values()], height=0.38, label=label)
    shares.set(title="share of the points", xlabel="%", yticks=places, yticklabels=change.names)
    shares.invert_yaxis()
    shares.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)
