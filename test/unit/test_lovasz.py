"""The Lovász-softmax loss beside its definition by sets."""

import numpy as np
import pytest
import torch

from ttt_kd_ros.frame import IGNORE_LABEL
from ttt_kd_ros.training.lovasz import lovasz_softmax


def jaccard_loss(wrong, truth):
    """One minus the IoU of a class if the points in the set `wrong` are predicted wrongly."""
    truth = set(truth)
    return 1 - len(truth - wrong) / len(truth | wrong)


def extension(errors, truth):
    """Lovász extension of the Jaccard loss, as its definition has it (Bach 2013, definition 3.1)."""
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    total, wrong = 0.0, set()
    for i in order:
        grown = wrong | {i}
        total += errors[i] * (jaccard_loss(grown, truth) - jaccard_loss(wrong, truth))
        wrong = grown
    return total


def test_equals_its_definition_by_sets():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(40, 4)))
    labels = torch.from_numpy(rng.choice([0, 1, 3, IGNORE_LABEL], size=40))
    known = (labels != IGNORE_LABEL).nonzero().squeeze(1)
    probability = torch.softmax(logits[known], dim=1).numpy()
    losses = []
    for c in (0, 1, 3):
        truth = (labels[known] == c).numpy()
        losses.append(extension(np.abs(truth - probability[:, c]).tolist(), np.flatnonzero(truth).tolist()))
    assert lovasz_softmax(logits, labels).item() == pytest.approx(np.mean(losses), abs=1e-5)


def test_of_hard_predictions_is_one_minus_the_mean_iou():
    labels, predicted = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 1, 1, 2, 2])
    loss = lovasz_softmax(100.0 * torch.eye(3)[predicted], labels)
    assert loss.item() == pytest.approx(1 - np.mean([2 / 3, 1 / 3, 1 / 2]), abs=1e-5)


def test_a_step_along_its_gradient_lowers_it():
    torch.manual_seed(0)
    logits, labels = torch.randn(30, 3, requires_grad=True), torch.arange(30) % 3
    loss = lovasz_softmax(logits, labels)
    loss.backward()
    assert lovasz_softmax(logits - logits.grad, labels) < loss


def test_without_labels_it_is_nothing():
    logits = torch.randn(4, 3, requires_grad=True)
    loss = lovasz_softmax(logits, torch.full((4,), IGNORE_LABEL))
    loss.backward()
    assert loss == 0
