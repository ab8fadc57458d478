"""A differentiable stand-in for one minus the mean IoU."""

from __future__ import annotations

import torch
from torch import Tensor

from ttt_kd_ros.frame import IGNORE_LABEL


def lovasz_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Lovász extension of the Jaccard loss of each class, mean over the classes that the labels hold.

    Berman et al., "The Lovász-Softmax Loss", CVPR 2018, eq. 8 and 9 and algorithm 1.

    Parameters
    ----------
    logits
        (V, C).
    labels
        (V,) int64, `IGNORE_LABEL` where there is none.

    Returns
    -------
    Tensor
        A scalar; 0 without labels.
    """
    known = labels != IGNORE_LABEL
    probability, labels = torch.softmax(logits[known].float(), dim=1), labels[known]
    losses = [_extension((labels == c).float(), probability[:, c]) for c in labels.unique().tolist()]
    return torch.stack(losses).mean() if losses else probability.sum()


def _extension(truth: Tensor, probability: Tensor) -> Tensor:
    errors, order = torch.sort((truth - probability).abs(), descending=True)
    return errors @ _jaccard_gradient(truth[order])


def _jaccard_gradient(truth: Tensor) -> Tensor:
    """(V,) growth of the Jaccard loss as one more point is wrong, in this order."""
    intersection = truth.sum() - truth.cumsum(dim=0)
    union = truth.sum() + (1 - truth).cumsum(dim=0)
    return torch.diff(1 - intersection / union, prepend=truth.new_zeros(1))
