"""The CPU's own kernels: PyTorch's products on every kind of processor, and a clear word where they cannot be had."""

from __future__ import annotations

import math
import platform
import stat
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import BatchNorm1d

from ttt_kd_ros.errors import InputError
from ttt_kd_ros.frame import Camera
from ttt_kd_ros.geometry import pairing
from ttt_kd_ros.geometry.projection import project
from ttt_kd_ros.geometry.transforms import transform_points
from ttt_kd_ros.model.checkpoint import load_checkpoint
from ttt_kd_ros.model.norm import LinearNorm
from ttt_kd_ros.model.sparse_backend import use_sparse_backend
from ttt_kd_ros.native import compiled, library
from ttt_kd_ros.share import embedded_checkpoint
from ttt_kd_ros.sparse import native_maps, products
from ttt_kd_ros.sparse.convolution import convolution_norm_relu
from ttt_kd_ros.sparse.fixed_norm import FixedNorm
from ttt_kd_ros.sparse.kernel_map import Kept, crop_map, downsampling_map, occupied_voxels, pack, submanifold_map
from ttt_kd_ros.sparse.native import NATIVE
from ttt_kd_ros.sparse.plain import PLAIN

ON_X86 = platform.machine() in ("x86_64", "AMD64")
PROCESSORS = {"this one": ()} | ({"AVX": ("-mno-avx512f",), "SSE": ("-march=x86-64",)} if ON_X86 else {})


@pytest.fixture(params=PROCESSORS)
def processor(request, monkeypatch):
    kernels = library.library(*PROCESSORS[request.param])
    monkeypatch.setattr(library, "library", lambda: kernels)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library.library.cache_clear()
    yield tmp_path / "ttt_kd_ros"
    library.library.cache_clear()


@pytest.fixture
def network():
    return load_checkpoint(embedded_checkpoint())[0].eval()


def voxel_keys(seed, edge=16):
    occupied = torch.rand(edge, edge, edge, generator=torch.Generator().manual_seed(seed)) < 0.4
    return pack(torch.nn.functional.pad(occupied.nonzero(), (1, 0)))


def kernel_maps(keys):
    _, down = downsampling_map(keys)
    return {"submanifold": submanifold_map(keys, 3), "wide": submanifold_map(keys, 5), "strided": down,
            "inverse": down.transposed}  # fmt: skip


def arrays(kernel_map, depth, width):
    generator = torch.Generator().manual_seed(2)
    return (
        torch.randn(kernel_map.inputs, depth, generator=generator),
        torch.randn(kernel_map.offsets, depth, width, generator=generator),
        torch.randn(kernel_map.outputs, width, generator=generator),
    )


@pytest.mark.parametrize(
    ("kind", "depth", "width"),
    [
        ("submanifold", 5, 16), ("submanifold", 48, 64), ("submanifold", 96, 80), ("submanifold", 33, 70),
        ("wide", 5, 4), ("strided", 16, 32), ("inverse", 32, 48),
    ],
)  # fmt: skip
def test_products_and_gradients_are_the_exact_ones(processor, kind, depth, width):
    kernel_map = kernel_maps(voxel_keys(1))[kind]
    features, weight, gradient = arrays(kernel_map, depth, width)
    convolved = NATIVE.convolve(features, weight, kernel_map)
    of_weight = NATIVE.weight_gradient(features, gradient, weight, kernel_map)
    exact = PLAIN.convolve(features.double(), weight.double(), kernel_map)
    torch.testing.assert_close(convolved.double(), exact, rtol=1e-5, atol=1e-4)
    exact = PLAIN.weight_gradient(features.double(), gradient.double(), weight.double(), kernel_map)
    torch.testing.assert_close(of_weight.double(), exact, rtol=1e-5, atol=1e-3)


def test_results_are_the_same_to_the_bit_with_any_number_of_threads():
    kernel_map = kernel_maps(voxel_keys(1, edge=24))["submanifold"]
    features, weight, gradient = arrays(kernel_map, 32, 48)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append((NATIVE.convolve(features, weight, kernel_map),
                      NATIVE.weight_gradient(features, gradient, weight, kernel_map)))  # fmt: skip
    torch.set_num_threads(before)
    for others in found[1:]:
        assert all(map(torch.equal, others, found[0]))


def test_strided_views_are_read_as_what_they_are():
    kernel_map = kernel_maps(voxel_keys(1))["submanifold"]
    features, weight, _ = arrays(kernel_map, 16, 32)
    expected = NATIVE.convolve(features, weight, kernel_map)
    turned = weight.transpose(1, 2).contiguous().transpose(1, 2)
    wide = torch.cat([features, features], dim=1)[:, :16]
    assert torch.equal(NATIVE.convolve(wide, turned, kernel_map), expected)


def test_other_types_are_left_to_torch():
    kernel_map = kernel_maps(voxel_keys(1))["submanifold"]
    for dtype in (torch.float64, torch.bfloat16):
        assert not NATIVE.suits(torch.zeros(1, 2, dtype=dtype), kernel_map)


def test_the_network_computes_the_same_by_them(network):
    assert use_sparse_backend("native", network) == "native"
    voxels = network.voxel_input(torch.rand(2000, 3) * 8)
    with torch.no_grad():
        found = network(voxels)
        products.choose(PLAIN)
        torch.testing.assert_close(found, network(voxels), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "what", ["convolve", "weight_gradient", "convolve_norm_relu", "convolve_norm_relu_gradients", "linear_norm"]
)
def test_kernels_of_which_any_result_is_wrong_are_refused(network, monkeypatch, what):
    right = getattr(NATIVE, what)

    def wrong(*arguments):
        result = right(*arguments)
        for each in result if isinstance(result, tuple) else (result,):
            if each is not None:
                each.data.mul_(1.01)
        return result

    monkeypatch.setattr(NATIVE, what, wrong)
    with pytest.raises(InputError, match="native cannot compute the sparse convolutions: its products differ by 1"):
        use_sparse_backend("native", network)


def test_arrays_of_another_type_than_the_features_are_refused():
    kernel_map = kernel_maps(voxel_keys(1))["submanifold"]
    features, weight, _ = arrays(kernel_map, 5, 16)
    with pytest.raises(TypeError, match=r"float32, not in torch\.float64"):
        NATIVE.convolve(features, weight.double(), kernel_map)


def test_kernels_are_compiled_once_for_a_processor(empty_cache, monkeypatch):
    library.library()
    (built,) = empty_cache.iterdir()
    library.library.cache_clear()
    monkeypatch.setattr(compiled, "_run", lambda command: "" if "-shared" in command else _preprocessed(command))
    library.library()
    assert list(empty_cache.iterdir()) == [built]


def _preprocessed(command, run=compiled._run):
    assert "-E" in command, "nothing is compiled again"
    return run(command)


def test_without_a_compiler_auto_is_torch(empty_cache, network, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.warns(UserWarning, match=r"native is not used: there is no C\+\+ compiler; install one"):
        assert use_sparse_backend("auto", network) == "torch"
    with pytest.raises(InputError, match=r"there is no C\+\+ compiler; install one"):
        use_sparse_backend("native", network)


def test_what_a_compiler_says_is_passed_on(empty_cache, network, monkeypatch, tmp_path):
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho no such option >&2\nexit 1\n")
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(InputError, match=r"native cannot compute the sparse convolutions: .*broken .* no such option"):
        use_sparse_backend("native", network)


def test_without_a_folder_to_keep_them_in_the_reason_is_said(empty_cache, network):
    empty_cache.write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"cannot be compiled and loaded: .*exists.*; set XDG_CACHE_HOME"):
        use_sparse_backend("native", network)


def test_without_a_home_the_reason_is_said(empty_cache, network, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(compiled.Path, "home", _homeless)
    with pytest.raises(InputError, match=r"no home.*; set XDG_CACHE_HOME"):
        use_sparse_backend("native", network)


def _homeless():
    raise RuntimeError("no home")


def test_a_damaged_library_is_compiled_anew(empty_cache, network, monkeypatch, tmp_path):
    library.library()
    (built,) = empty_cache.iterdir()
    library.library.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    damaged = tmp_path / "other" / "ttt_kd_ros" / built.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"\x7fELF")
    assert use_sparse_backend("native", network) == "native"


def test_on_a_gpu_they_are_refused():
    assert "they compute on CPUs" in NATIVE.problem(torch.device("cuda"))


@pytest.mark.parametrize("batches", [1, 3])
def test_points_are_sorted_into_the_voxels_of_the_plain_way(batches):
    generator = torch.Generator().manual_seed(4)
    points = torch.randn(5000, 3, generator=generator) * torch.tensor([40.0, 40.0, 2.0])
    batch = torch.randint(batches, (5000,), generator=generator) if batches > 1 else None
    for found, expected in zip(
        native_maps.occupied_voxels(points, 0.2, batch), occupied_voxels(points, 0.2, batch), strict=True
    ):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("seed", [1, 2])
def test_halved_maps_are_those_of_the_plain_way(seed):
    keys = torch.cat([voxel_keys(seed) - (5 << 36), voxel_keys(3) + (1 << 56)])  # left of the origin; another scan
    found, expected = native_maps.downsampling_map(keys), downsampling_map(keys)
    assert torch.equal(found[0], expected[0])
    assert_same_map(found[1], expected[1])


def assert_same_map(found, expected):
    assert found.counts == expected.counts
    assert (found.inputs, found.outputs) == (expected.inputs, expected.outputs)
    assert torch.equal(found.sources, expected.sources) and torch.equal(found.targets, expected.targets)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_submanifold_maps_are_those_of_the_plain_way(kernel_size):
    keys = torch.cat([voxel_keys(1), voxel_keys(2) + (1 << 56)])  # two scans
    assert_same_map(native_maps.submanifold_map(keys, kernel_size), submanifold_map(keys, kernel_size))


@pytest.mark.parametrize("kind", ["submanifold", "wide", "strided", "inverse"])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_cut_maps_are_those_of_the_plain_way(kind, share):
    kernel_map = kernel_maps(voxel_keys(1))[kind]
    generator = torch.Generator().manual_seed(3)
    inputs, outputs = (
        Kept.of(torch.rand(count, generator=generator) < share) for count in (kernel_map.inputs, kernel_map.outputs)
    )
    assert_same_map(native_maps.crop_map(kernel_map, inputs, outputs), crop_map(kernel_map, inputs, outputs))


def test_wrong_maps_are_found_when_the_backend_is_chosen(network, monkeypatch):
    def shifted(keys, kernel_size):
        right = submanifold_map(keys, kernel_size)
        return replace(right, sources=right.sources.roll(1))

    monkeypatch.setattr(native_maps, "submanifold_map", shifted)
    with pytest.raises(InputError, match="kernel maps are wrong"):
        use_sparse_backend("native", network)


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("moving", ["everything", "features", "norm_weight and norm_bias"])
def test_norm_and_relu_after_a_convolution_and_their_gradients_are_those_of_torch(processor, with_residual, moving):
    kernel_map = kernel_maps(voxel_keys(1))["submanifold"]
    features, weight, gradient = arrays(kernel_map, 33, 48)
    generator = torch.Generator().manual_seed(5)
    norm_weight, norm_bias, mean, variance = torch.rand(4, 48, generator=generator).unbind()
    values = {"features": features, "weight": weight, "norm_weight": norm_weight, "norm_bias": norm_bias}
    if with_residual:
        values["residual"] = torch.randn(kernel_map.outputs, 48, generator=generator)
    moved = [name for name in values if moving == "everything" or name in moving]
    found = []
    for chosen in (PLAIN, NATIVE):
        products.choose(chosen)
        leaves = {name: value.clone().requires_grad_(name in moved) for name, value in values.items()}
        norm = FixedNorm(leaves["norm_weight"], leaves["norm_bias"], mean, variance, 1e-3)
        residual = leaves.get("residual")
        output = convolution_norm_relu(leaves["features"], leaves["weight"], norm, kernel_map, residual)
        found.append((output, *torch.autograd.grad(output, [leaves[name] for name in moved], gradient)))
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("depth", "width"), [(48, 32), (33, 70), (5, 4)])
def test_a_linear_layer_and_its_norm_are_those_of_torch_with_and_without_a_gradient(processor, depth, width):
    generator = torch.Generator().manual_seed(6)
    features, layer = torch.randn(3000, depth, generator=generator), LinearNorm(depth, width).eval()
    values = torch.rand(4, width, generator=generator).unbind()
    for to, value in zip((layer.norm.weight, layer.norm.bias, layer.norm.running_mean, layer.norm.running_var), values,
                         strict=True):  # fmt: skip
        to.data.copy_(value)
    expected = layer.norm(features @ layer.linear.weight.T)
    assert (expected < 0).any()
    products.choose(NATIVE)
    torch.testing.assert_close(layer(features), expected)
    with torch.no_grad():
        torch.testing.assert_close(layer(features), expected)


def test_what_is_not_a_number_is_not_hidden_by_the_relu():
    kernel_map = kernel_maps(voxel_keys(1))["submanifold"]
    features, weight, _ = arrays(kernel_map, 5, 16)
    features[0] = float("nan")
    products.choose(NATIVE)
    assert convolution_norm_relu(features, weight, FixedNorm.of(BatchNorm1d(16)), kernel_map).isnan().any()


@pytest.mark.parametrize("model", ["pinhole", "plumb_bob", "equidistant"])
@pytest.mark.parametrize("count", [0, 1, 255, 20_000])
def test_points_are_paired_with_the_pixels_of_the_plain_way(processor, monkeypatch, model, count):
    camera = Camera(320, 200, np.array([[150.0, 0, 170], [0, 150, 90], [0, 0, 1]]))
    camera = camera if model == "pinhole" else replace(camera, distortion=(-0.2, 0.1), distortion_model=model)
    points = torch.randn(count, 3, generator=torch.Generator().manual_seed(5)) * torch.tensor([15.0, 5.0, 2.0])
    points[::50] = math.nan
    T_camera_scan = np.array([[0, -1.0, 0, 0.3], [0, 0, -1, -0.2], [1, 0, 0, 0.1], [0, 0, 0, 1]])
    native = pairing.pair_points(points, T_camera_scan, camera)
    monkeypatch.setattr(pairing, "serves", lambda values: False)
    plain = pairing.pair_points(points, T_camera_scan, camera)
    visible = project(camera, transform_points(T_camera_scan, points))[1].sum()
    assert count < 1000 or 1000 < len(plain.points) < 0.9 * visible
    assert torch.equal(native.points, plain.points)
    assert torch.equal(native.pixels, plain.pixels)
    assert torch.equal(native.depth, plain.depth)
