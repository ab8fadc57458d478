"""Passes planned once and repeated without autograd: the same results, in the same memory."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from ttt_kd_ros.adaptation.scope import make_scope
from ttt_kd_ros.adaptation.session import AdaptationSession
from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.model.unet import SparseUNet, UNetConfig
from ttt_kd_ros.sparse import products
from ttt_kd_ros.sparse.kernel_map import unpack
from ttt_kd_ros.sparse.native import NATIVE
from ttt_kd_ros.sparse.plain import PLAIN

SCOPES = ("all", "norm", "encoder", "decoder")
DEEP = UNetConfig(5, 5, (16, 24), (24, 18), (2, 3), (2, 1))
"""Blocks one after the other, a wide stem, channels that fill no vector."""


@pytest.fixture(autouse=True)
def cpu_kernels(torch_computes_sparse_convolutions):
    products.choose(NATIVE)


@pytest.fixture(params=["the usual", "a deep one"])
def any_network(request, network):
    return network if request.param == "the usual" else Network(replace(network.config, backbone=DEEP)).eval()


@pytest.fixture(params=["all voxels", "some voxels"])
def voxels(request, any_network, street_points):
    """What a network sees, and what it is asked for."""
    voxels = any_network.voxel_input(street_points)
    if request.param == "all voxels":
        return voxels
    some = unpack(voxels.grid.keys)[:, 1] % 24 < 12
    return replace(voxels, pyramid=voxels.pyramid.decoding(some))


def scope_of(network, name):
    network.requires_grad_(False)
    scope = make_scope(network.backbone, name, deepcopy(network.backbone))
    for parameter in scope.parameters:
        parameter.requires_grad_(True)
    return scope


def by_autograd(network, scope, voxels, gradient):
    output = network.backbone(voxels.features, voxels.pyramid)
    output.backward(gradient)
    scope.gather_gradient()
    return output.detach(), scope.flat.grad


@pytest.mark.parametrize("name", SCOPES)
def test_outputs_and_gradients_are_those_of_autograd_wherever_the_weights_go(any_network, voxels, name):
    scope = scope_of(any_network, name)
    tape = scope.tape(any_network.backbone, voxels)
    gradient = torch.randn(any_network.backbone(voxels.features, voxels.pyramid).shape)
    for _ in range(3):
        output, of_weights = by_autograd(any_network, scope, voxels, gradient)
        torch.testing.assert_close(tape.forward(), output, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(tape.backward(gradient), of_weights, rtol=1e-4, atol=1e-4 * of_weights.abs().max())
        with torch.no_grad():
            scope.flat.add_(0.02 * torch.randn(scope.flat.shape))


def test_passes_are_the_same_to_the_bit_with_any_number_of_threads(any_network, voxels):
    tape = scope_of(any_network, "all").tape(any_network.backbone, voxels)
    gradient = torch.randn(tape.forward().shape)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3, 1):
        torch.set_num_threads(threads)
        found.append((tape.forward().clone(), tape.backward(gradient).clone()))
    torch.set_num_threads(before)
    for others in found[1:]:
        assert all(map(torch.equal, others, found[0]))


def test_what_no_moving_weight_leads_to_is_computed_once(network, street_points):
    voxels = network.voxel_input(street_points)
    tape = scope_of(network, "decoder").tape(network.backbone, voxels)
    expected = network.backbone(voxels.features, voxels.pyramid)
    for frozen in (network.backbone.stem, network.backbone.encoder):
        for parameter in frozen.parameters():
            parameter.data.fill_(float("nan"))
    torch.testing.assert_close(tape.forward(), expected)


@pytest.mark.parametrize("name", ["lora", "all"])
def test_other_products_and_changes_of_weights_are_left_to_autograd(network, street_points, name):
    voxels = network.voxel_input(street_points)
    if name == "all":
        products.choose(PLAIN)
    assert scope_of(network, name).tape(network.backbone, voxels) is None


class TestSteps:
    SETTINGS = AdaptationSettings(steps=4, learning_rate=1e-3, familiar=0.0, trust=0.0)

    @pytest.mark.parametrize("method", ["kd", "tent", "sar", "confident"])
    @pytest.mark.parametrize("scope", SCOPES)
    def test_they_move_the_weights_as_with_autograd(self, network, street_points, pairs, monkeypatch, method, scope):
        settings = replace(self.SETTINGS, method=method, scope=scope)
        voxels = network.voxel_input(street_points)
        state, found = network.state_dict(), []
        for with_tape in (True, False):
            if not with_tape:
                monkeypatch.setattr(SparseUNet, "tape", lambda *_: None)
            moved = Network(network.config)
            moved.load_state_dict(state)
            session = AdaptationSession(moved, settings)
            session.adapt(voxels, pairs)
            found.append(session.adapt(voxels, pairs).kd_losses)
            with torch.no_grad():
                found.append(torch.cat(moved(voxels), dim=1))
        torch.testing.assert_close(found[0], found[2], rtol=1e-4, atol=1e-5, equal_nan=True)
        torch.testing.assert_close(found[1], found[3], rtol=1e-3, atol=1e-3)
        assert not torch.equal(found[1], torch.cat(network(voxels), dim=1))

    def test_another_scope_in_the_middle_of_a_scan_moves_its_own_weights(self, network, street_points, pairs):
        session = AdaptationSession(network, self.SETTINGS)
        steps = session.begin(network.voxel_input(street_points), pairs)
        session.advance(steps, 2)
        session.configure(replace(self.SETTINGS, scope="decoder"))
        before = {name: value.clone() for name, value in network.state_dict().items()}
        session.advance(steps, 4)
        changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
        assert changed and all(name.startswith("backbone.decoder") for name in changed)
