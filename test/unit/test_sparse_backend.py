"""Other products in the place of PyTorch's: the same results, or they are not used.

Where there is no GPU, a stand-in computes from what spconv's implicit GEMM would be given, in its layout, and Triton
interprets its kernels.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from importlib import metadata
from itertools import count
from types import ModuleType

import numpy as np
import pytest
import torch
from held import held

from ttt_kd_ros.errors import InputError
from ttt_kd_ros.model import sparse_backend
from ttt_kd_ros.model.checkpoint import load_checkpoint
from ttt_kd_ros.model.network import Network
from ttt_kd_ros.model.sparse_backend import TOLERANCE, outputs_and_gradients, use_sparse_backend
from ttt_kd_ros.share import embedded_checkpoint
from ttt_kd_ros.sparse import products, triton
from ttt_kd_ros.sparse.backend import NormedConvolution
from ttt_kd_ros.sparse.convolution import sparse_convolution
from ttt_kd_ros.sparse.fixed_norm import FixedNorm
from ttt_kd_ros.sparse.kernel_map import downsampling_map, pack, submanifold_map
from ttt_kd_ros.sparse.native import NATIVE
from ttt_kd_ros.sparse.plain import PLAIN
from ttt_kd_ros.sparse.spconv import SPCONV
from ttt_kd_ros.sparse.triton import TRITON
from ttt_kd_ros.sparse.voxels import VoxelGrid

INTERPRETED = not torch.cuda.is_available()
if INTERPRETED:
    os.environ["TRITON_INTERPRET"] = "1"  # looked at when Triton is imported


@pytest.fixture
def network():
    return load_checkpoint(embedded_checkpoint())[0].eval()


@pytest.fixture
def keys():
    occupied = torch.rand(6, 6, 6, generator=torch.Generator().manual_seed(1)) < 0.4
    return pack(torch.nn.functional.pad(occupied.nonzero(), (1, 0)))


def implicit_gemm(features, filters, pairs, masks, orders, outputs, mask_filters, is_train, is_subm):
    """What spconv does: filters (out, kernel, in), pairs (kernel, outputs) with -1 where there is no input.

    Its masks are sorted in place with the order: they are those of the outputs in this order.
    """
    assert not is_train and mask_filters[0].dtype == np.uint32 and mask_filters[0].item() == 0xFFFFFFFF
    assert features.is_contiguous() and filters.is_contiguous() and pairs.dtype == torch.int32
    (mask,), (order,) = masks, orders
    assert torch.equal(order.sort().values, torch.arange(outputs, dtype=torch.int32))
    assert (mask[:, 0].diff() >= 0).all(), "outputs with the same mask lie side by side"
    result = features.new_zeros(outputs, len(filters))
    for k, inputs in enumerate(pairs):
        there = torch.zeros(outputs, dtype=torch.bool)
        there[order.long()] = ((mask[:, 0] >> k) & 1).bool()
        assert torch.equal(there, inputs >= 0)
        result[there] += features[inputs[there].long()] @ filters[:, k].T
    return result, None, 0


@pytest.fixture
def stand_in(monkeypatch):
    """A right spconv, on the CPU; its `implicit_gemm` may be replaced."""
    ops = ModuleType("spconv.pytorch.ops")
    ops.implicit_gemm = implicit_gemm
    for name, module in {"spconv": ModuleType("spconv"), "spconv.pytorch": ModuleType("spconv.pytorch")}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "spconv.pytorch.ops", ops)
    monkeypatch.setattr(SPCONV, "problem", lambda device: "")
    monkeypatch.setattr(NATIVE, "problem", lambda device: "not here")
    monkeypatch.setattr(sparse_backend, "_seconds", lambda name, network: {"torch": 2, "spconv": 1}[name])
    return ops


def by_both(backend, kernel_map, depth, width):
    """Output and gradients of a convolution, by PyTorch's products and by a backend's."""
    generator, device = torch.Generator().manual_seed(2), kernel_map.sources.device
    features = torch.randn(kernel_map.inputs, depth, generator=generator).to(device).requires_grad_()
    weight = torch.randn(kernel_map.offsets, depth, width, generator=generator).to(device).requires_grad_()
    outside = torch.randn(kernel_map.outputs, width, generator=generator).to(device)
    for chosen in (PLAIN, backend):
        products.choose(chosen)
        output = sparse_convolution(features, weight, kernel_map)
        yield output, *torch.autograd.grad(output, (features, weight), outside)


class Counted:
    def __init__(self, function):
        self.function = function
        self.calls = 0

    def __call__(self, *arguments):
        self.calls += 1
        return self.function(*arguments)


@pytest.mark.parametrize("kind", ["submanifold", "strided", "inverse"])
def test_spconv_is_given_the_same_pairs_and_weights(stand_in, keys, kind):
    _, down = downsampling_map(keys)
    kernel_map = {"submanifold": submanifold_map(keys, 3), "strided": down, "inverse": down.transposed}[kind]
    stand_in.implicit_gemm = Counted(implicit_gemm)
    for ours, theirs in zip(*by_both(SPCONV, kernel_map, 5, 4), strict=True):
        torch.testing.assert_close(theirs, ours)
    assert stand_in.implicit_gemm.calls == 2, "one product forwards, one for the features' gradient"


def test_kernels_and_types_that_spconv_does_not_know_are_left_to_torch(stand_in, keys):
    stand_in.implicit_gemm = Counted(implicit_gemm)
    products.choose(SPCONV)
    big = submanifold_map(keys, 5)
    sparse_convolution(torch.ones(len(keys), 2), torch.ones(125, 2, 3), big)
    small = submanifold_map(keys, 3)
    sparse_convolution(torch.ones(len(keys), 2).double(), torch.ones(27, 2, 3).double(), small)
    assert stand_in.implicit_gemm.calls == 0


@pytest.mark.parametrize("backend", [PLAIN, SPCONV])
@pytest.mark.parametrize("stem_kernel_size", [3, 5])
def test_once_all_is_looked_up_no_pass_looks_anything_up_in_the_maps(
    stand_in, network_config, stem_kernel_size, backend
):
    products.choose(backend)
    unet = replace(network_config.backbone, stem_kernel_size=stem_kernel_size)
    network = Network(replace(network_config, backbone=unet)).eval()
    voxels = network.voxel_input(torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) * 8)
    voxels.pyramid.look_up(gradients=True)
    before = held(voxels.pyramid)
    outputs_and_gradients(network, voxels)
    assert held(voxels.pyramid) == before


def test_a_right_spconv_is_used_by_the_network(stand_in, network):
    assert use_sparse_backend("spconv", network) == "spconv"
    assert use_sparse_backend("auto", network) == "spconv"
    stand_in.implicit_gemm = Counted(implicit_gemm)
    voxels = network.voxel_input(torch.rand(500, 3) * 4)
    with torch.no_grad():
        by_spconv = network(voxels)
    assert stand_in.implicit_gemm.calls
    assert use_sparse_backend("torch", network) == "torch"
    with torch.no_grad():
        torch.testing.assert_close(by_spconv, network(voxels), rtol=1e-4, atol=1e-4)


def wrong(*arguments):
    outputs, masks, width = implicit_gemm(*arguments)
    return outputs * (1 + 2 * TOLERANCE), masks, width


def failing(*arguments):
    raise RuntimeError("no kernel image is available")


@pytest.mark.parametrize(("fault", "said"), [(wrong, "products differ by"), (failing, "no kernel image is available")])
def test_a_wrong_spconv_is_refused_where_it_was_asked_for_and_passed_over_where_not(stand_in, network, fault, said):
    stand_in.implicit_gemm = fault
    with pytest.raises(InputError, match=said):
        use_sparse_backend("spconv", network)
    with pytest.warns(UserWarning, match=said):
        assert use_sparse_backend("auto", network) == "torch"
    network(network.voxel_input(torch.rand(100, 3)))


def test_a_backend_is_refused_that_is_wrong_where_norms_alone_move(stand_in, network, monkeypatch):
    def convolve_norm_relu(*arguments):
        output, convolved = PLAIN.convolve_norm_relu(*arguments)
        return output, None if convolved is None else convolved * (1 + 2 * TOLERANCE)

    monkeypatch.setattr(SPCONV, "convolve_norm_relu", convolve_norm_relu)
    with pytest.raises(InputError, match="products differ by"):
        use_sparse_backend("spconv", network)


def test_on_the_cpu_spconv_is_refused_and_auto_is_native(network):
    with pytest.raises(InputError, match="wrong with more than one thread"):
        use_sparse_backend("spconv", network)
    assert use_sparse_backend("auto", network) == "native"


def test_auto_is_the_fastest_of_those_that_are_right(stand_in, network, monkeypatch):
    for times, fastest in (({"torch": 2, "spconv": 1}, "spconv"), ({"torch": 1, "spconv": 2}, "torch")):
        monkeypatch.setattr(sparse_backend, "_seconds", lambda name, network, times=times: times[name])
        assert use_sparse_backend("auto", network) == fastest


def test_the_time_of_a_backend_is_that_of_its_own_products(stand_in, network, monkeypatch):
    stand_in.implicit_gemm = Counted(implicit_gemm)
    monkeypatch.undo()
    monkeypatch.setattr(sparse_backend, "MANY_POINTS", 100)
    monkeypatch.setitem(sys.modules, "spconv.pytorch.ops", stand_in)
    assert sparse_backend._seconds("torch", network) > 0
    assert not stand_in.implicit_gemm.calls
    assert sparse_backend._seconds("spconv", network) > 0
    assert stand_in.implicit_gemm.calls


def test_a_backend_does_not_answer_for_what_other_code_rounds_from_run_to_run(stand_in, network, monkeypatch):
    mean, runs = VoxelGrid.mean, count(1)
    monkeypatch.setattr(VoxelGrid, "mean", lambda grid, values: mean(grid, values) * (1 + 1e-6 * next(runs)))
    assert use_sparse_backend("spconv", network) == "spconv"


def test_an_unknown_backend_is_refused(network):
    with pytest.raises(InputError, match="auto, torch, native, spconv, triton"):
        use_sparse_backend("minkowski", network)


@pytest.mark.parametrize(
    ("installed", "version", "numpy", "said"),
    [
        ([], "", "2.1.0", "not installed; pip install"),
        (["spconv"], "2.3.8", "2.1.0", "built for the CPU"),
        (["spconv-cu120"], "2.3.6", "2.1.0", "numpy < 2"),
        (["spconv-cu120"], "2.3.6", "1.26.4", ""),
        (["spconv-cu126"], "2.3.8", "2.1.0", ""),
    ],
)
def test_installations_that_cannot_work_are_refused_before_they_are_imported(
    monkeypatch, installed, version, numpy, said
):
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"spconv": installed} if installed else {})
    monkeypatch.setattr(metadata, "version", lambda name: version)
    monkeypatch.setattr(np, "__version__", numpy)
    found = SPCONV.problem(torch.device("cuda"))
    assert said in found if said else not found


@pytest.fixture
def kernels():
    """Triton on the GPU if there is one, else as it interprets itself on the CPU."""
    pytest.importorskip("triton", reason="needs Triton")
    return torch.device("cpu" if INTERPRETED else "cuda")


@pytest.mark.parametrize(
    ("kind", "depth", "width"),
    [("submanifold", 5, 4), ("submanifold", 33, 70), ("wide", 5, 4), ("strided", 33, 70), ("inverse", 33, 70)],
)
def test_triton_gives_pytorchs_products_and_gradients(kernels, keys, kind, depth, width):
    keys = keys.to(kernels)
    _, down = downsampling_map(keys)
    kernel_map = {
        "submanifold": submanifold_map(keys, 3), "wide": submanifold_map(keys, 5), "strided": down,
        "inverse": down.transposed,
    }[kind]  # fmt: skip
    for ours, theirs in zip(*by_both(TRITON, kernel_map, depth, width), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


def fused(backend, layer, moves, dtype):
    """Output of a convolution, its norm and the ReLU, and the gradients of what moves."""
    generator, device = torch.Generator().manual_seed(2), layer.weight.device
    inputs, outputs = layer.kernel_map.inputs, layer.kernel_map.outputs
    _, depth, width = layer.weight.shape
    features = torch.randn(inputs, depth, generator=generator).to(device, dtype)
    residual, outside = torch.randn(2, outputs, width, generator=generator).to(device, dtype)
    keep = "norm" in moves and "weight" not in moves
    output, convolved = backend.convolve_norm_relu(features, layer, residual, keep)
    assert (convolved is not None) == keep
    seen = features if "weight" in moves else None
    of_features, of_weight, *others = backend.convolve_norm_relu_gradients(
        outside, output, convolved, seen, layer, of_features="features" in moves
    )
    assert (of_features is not None, of_weight is not None) == ("features" in moves, "weight" in moves)
    return [result for result in (output, convolved, of_features, of_weight, *others) if result is not None]


@pytest.mark.parametrize(
    ("kind", "depth", "width", "moves"),
    [
        ("submanifold", 33, 70, ("features", "weight", "norm")),
        ("submanifold", 5, 4, ("features", "norm")),
        ("strided", 5, 40, ("weight", "norm")),
        ("strided", 5, 40, ("features",)),
    ],
    ids=str,
)
def test_triton_computes_what_follows_a_convolution_with_it(kernels, keys, kind, depth, width, moves):
    keys = keys.to(kernels)
    kernel_map = downsampling_map(keys)[1] if kind == "strided" else submanifold_map(keys, 3)
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(kernel_map.offsets, depth, width, generator=generator).to(kernels)
    norm = FixedNorm(*(torch.rand(4, width, generator=generator).to(kernels) + 0.2), eps=1e-2)
    layer = NormedConvolution(weight, norm, kernel_map)
    exact = fused(PLAIN, layer.double(), moves, torch.float64)
    for found, expected in zip(fused(TRITON, layer, moves, torch.float32), exact, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_what_is_no_number_stays_so_through_tritons_relu(kernels, keys):
    kernel_map, norm = submanifold_map(keys.to(kernels), 3), FixedNorm(*torch.ones(4, 4, device=kernels), eps=0.0)
    features = torch.ones(len(keys), 3, device=kernels)
    features[0] = torch.nan
    layer = NormedConvolution(torch.ones(27, 3, 4, device=kernels), norm, kernel_map)
    output, expected = (backend.convolve_norm_relu(features, layer, None, keep=False)[0] for backend in (TRITON, PLAIN))
    assert output[0].isnan().all()
    assert output.isfinite().any()
    torch.testing.assert_close(output, expected, equal_nan=True)


def test_triton_sums_in_float32_whatever_the_type_of_the_features(kernels, keys):
    kernel_map = submanifold_map(keys.to(kernels), 3)
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(kernel_map.inputs, 40, generator=generator).to(kernels).half()
    weight = torch.randn(kernel_map.offsets, 40, 16, generator=generator).to(kernels).half()
    exact = PLAIN.convolve(features.double(), weight.double(), kernel_map)
    found = TRITON.convolve(features, weight, kernel_map)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.double(), exact, rtol=2**-10, atol=1e-3)


def test_triton_is_refused_where_it_cannot_run(network, monkeypatch):
    with pytest.raises(InputError, match="triton cannot compute the sparse convolutions: they need an NVIDIA GPU"):
        use_sparse_backend("triton", network)
    monkeypatch.setattr(triton, "find_spec", lambda name: None)
    assert "pip install triton" in TRITON.problem(torch.device("cuda"))


@pytest.mark.gpu
def test_triton_gives_the_networks_results_on_the_gpu(network):
    if problem := TRITON.problem(torch.device("cuda")):
        pytest.skip(problem)
    assert use_sparse_backend("triton", network.cuda()) == "triton"


@pytest.mark.gpu
def test_spconv_gives_the_networks_results_on_the_gpu(network):
    if problem := SPCONV.problem(torch.device("cuda")):
        pytest.skip(f"spconv: {problem}")
    assert use_sparse_backend("spconv", network.cuda()) == "spconv"
