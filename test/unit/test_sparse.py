"""Voxels, kernel maps and sparse convolutions against dense references in float64."""

import pytest
import torch
import torch.nn.functional as F

from ttt_kd_ros.benchmark.plain import plain_convolution
from ttt_kd_ros.sparse.convolution import convolution_norm_relu, sparse_convolution
from ttt_kd_ros.sparse.fixed_norm import FixedNorm
from ttt_kd_ros.sparse.kernel_map import (
    ALIGNMENT,
    MASK_BITS,
    KernelMap,
    downsampling_map,
    pack,
    submanifold_map,
    tabulate,
    unpack,
)
from ttt_kd_ros.sparse.voxels import build_pyramid, voxelise

SIZE = 10


def random_voxels(seed, batches=2, share=0.2, origin=(0, 0, 0)):
    """Coordinates (V, 4) of a random occupancy, sorted by key."""
    generator = torch.Generator().manual_seed(seed)
    occupied = (torch.rand(batches, SIZE, SIZE, SIZE, generator=generator) < share).nonzero()
    occupied[:, 1:] += torch.tensor(origin)
    return occupied


def to_dense(coordinates, features, batches=2, size=SIZE):
    dense = features.new_zeros(batches, features.shape[1], size, size, size)
    b, x, y, z = coordinates[:, :, None].unbind(1)
    channel = torch.arange(features.shape[1])[None]
    return dense.index_put((b, channel, x, y, z), features)


def at(dense, coordinates):
    b, x, y, z = coordinates.unbind(1)
    return dense[b, :, x, y, z]


def gradients(output, *inputs):
    generator = torch.Generator().manual_seed(7)
    return torch.autograd.grad(output, inputs, torch.randn(output.shape, dtype=output.dtype, generator=generator))


def assert_equal(sparse, dense):
    for a, b in zip(sparse, dense, strict=True):
        assert (a - b).norm() <= 1e-10 * b.norm()


def leaves(voxels, offsets, c_in=5, c_out=4):
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(voxels, c_in, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(offsets, c_in, c_out, dtype=torch.float64, generator=generator, requires_grad=True)
    return features, weight


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_submanifold_convolution_and_its_gradients_equal_a_dense_convolution_at_the_occupied_voxels(kernel_size):
    coordinates = random_voxels(0)
    features, weight = leaves(len(coordinates), kernel_size**3)
    sparse = sparse_convolution(features, weight, submanifold_map(pack(coordinates), kernel_size))
    kernel = weight.view(kernel_size, kernel_size, kernel_size, 5, 4).permute(4, 3, 0, 1, 2)
    dense = at(F.conv3d(to_dense(coordinates, features), kernel, padding=kernel_size // 2), coordinates)
    assert_equal([sparse, *gradients(sparse, features, weight)], [dense, *gradients(dense, features, weight)])


def test_strided_convolution_and_its_gradients_equal_a_dense_convolution():
    coordinates = random_voxels(1)
    features, weight = leaves(len(coordinates), 8)
    coarse_keys, kernel_map = downsampling_map(pack(coordinates))
    sparse = sparse_convolution(features, weight, kernel_map)
    kernel = weight.view(2, 2, 2, 5, 4).permute(4, 3, 0, 1, 2)
    dense = at(F.conv3d(to_dense(coordinates, features), kernel, stride=2), unpack(coarse_keys))
    assert_equal([sparse, *gradients(sparse, features, weight)], [dense, *gradients(dense, features, weight)])


def test_inverse_convolution_and_its_gradients_equal_a_dense_transposed_convolution():
    coordinates = random_voxels(2)
    coarse_keys, kernel_map = downsampling_map(pack(coordinates))
    features, weight = leaves(len(coarse_keys), 8)
    sparse = sparse_convolution(features, weight, kernel_map.transposed)
    kernel = weight.view(2, 2, 2, 5, 4).permute(3, 4, 0, 1, 2)
    coarse = to_dense(unpack(coarse_keys), features, size=SIZE // 2)
    dense = at(F.conv_transpose3d(coarse, kernel, stride=2), coordinates)
    assert_equal([sparse, *gradients(sparse, features, weight)], [dense, *gradients(dense, features, weight)])


def test_a_strided_convolution_reaches_every_coarse_voxel_that_holds_an_input_and_no_other():
    coordinates = random_voxels(3)
    coarse_keys, _ = downsampling_map(pack(coordinates))
    expected = {(b, x // 2, y // 2, z // 2) for b, x, y, z in coordinates.tolist()}
    assert {tuple(c) for c in unpack(coarse_keys).tolist()} == expected


def test_maps_do_not_depend_on_where_the_voxels_are():
    here, there = random_voxels(4), random_voxels(4, origin=(-31002, 26, -7344))
    for a, b in zip(submanifold_map(pack(here), 3).pairs, submanifold_map(pack(there), 3).pairs, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    for a, b in zip(downsampling_map(pack(here))[1].pairs, downsampling_map(pack(there))[1].pairs, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("residual", [False, True], ids=["alone", "with residual"])
@pytest.mark.parametrize("kernel", ["submanifold", "strided", "inverse"])
def test_the_fused_operation_equals_the_plain_ones_one_after_the_other(kernel, residual):
    keys = pack(random_voxels(10))
    down = downsampling_map(keys)[1]
    kernel_map = {"submanifold": submanifold_map(keys, 3), "strided": down, "inverse": down.transposed}[kernel]
    features, weight = leaves(kernel_map.inputs, len(kernel_map.counts))
    values = (torch.linspace(0.5, 2, 4, dtype=torch.float64).roll(i) for i in range(4))
    norm = FixedNorm(*values, eps=1e-3)
    norm.weight.requires_grad_()
    norm.bias.requires_grad_()
    added = torch.randn(kernel_map.outputs, 4, dtype=torch.float64).requires_grad_() if residual else None
    inputs = [t for t in (features, weight, norm.weight, norm.bias, added) if t is not None]
    fused = convolution_norm_relu(features, weight, norm, kernel_map, added)
    plain = plain_convolution(features, weight, kernel_map)
    plain = F.batch_norm(plain, norm.mean, norm.variance, norm.weight, norm.bias, eps=norm.eps)
    plain = torch.relu(plain if added is None else plain + added)
    assert_equal([fused, *gradients(fused, *inputs)], [plain, *gradients(plain, *inputs)])


@pytest.mark.parametrize("needed", range(5), ids=["features", "weight", "norm's weight", "its bias", "residual"])
def test_the_fused_operation_computes_each_gradient_without_the_others(needed):
    kernel_map = submanifold_map(pack(random_voxels(11)), 3)
    features, weight = leaves(kernel_map.inputs, 27)
    of_norm = torch.rand(4, 4, dtype=torch.float64)
    residual = torch.rand(kernel_map.outputs, 4, dtype=torch.float64)
    values = [features.detach(), weight.detach(), *of_norm[:2], residual]

    def gradient(indices):
        inputs = [v.clone().requires_grad_(i in indices) for i, v in enumerate(values)]
        norm = FixedNorm(*inputs[2:4], *of_norm[2:], eps=1e-3)
        output = convolution_norm_relu(*inputs[:2], norm, kernel_map, inputs[4])
        return output, gradients(output, *(inputs[i] for i in indices))

    (output, alone), (output_of_all, together) = gradient([needed]), gradient(range(5))
    assert torch.equal(output, output_of_all)
    if needed == 2:  # computed from the convolved features, and with the weight's gradient from that
        torch.testing.assert_close(alone[0], together[needed])
    else:
        assert torch.equal(alone[0], together[needed])


def test_the_convolution_equals_the_plain_one():
    kernel_map = submanifold_map(pack(random_voxels(12)), 3)
    features, weight = leaves(kernel_map.inputs, 27)
    fast, plain = (f(features, weight, kernel_map) for f in (sparse_convolution, plain_convolution))
    assert_equal([fast, *gradients(fast, features, weight)], [plain, *gradients(plain, features, weight)])


def test_a_convolution_does_not_disturb_the_result_of_the_one_before():
    kernel_map = submanifold_map(pack(random_voxels(13)), 3)
    features, weight = leaves(kernel_map.inputs, 27)
    first = sparse_convolution(features, weight, kernel_map)
    copy = first.detach().clone()
    sparse_convolution(features + 1, weight, kernel_map)
    assert torch.equal(first, copy)


def assert_same_map(a, b):
    assert (a.counts, a.inputs, a.outputs) == (b.counts, b.inputs, b.outputs)
    for one, other in ((a, b), (a.transposed, b.transposed)):
        assert torch.equal(one.sources, other.sources)
        assert torch.equal(one.targets, other.targets)
        assert torch.equal(one.by_target.pairs, other.by_target.pairs)
        assert torch.equal(one.by_target.bounds, other.by_target.bounds)


@pytest.mark.parametrize("share", [0, 0.01, 0.4, 1])
@pytest.mark.parametrize("stem_kernel_size", [3, 5])
def test_maps_cut_for_some_voxels_are_those_that_would_be_built_for_them(share, stem_kernel_size):
    keys = pack(random_voxels(14))
    keep = torch.rand(len(keys), generator=torch.Generator().manual_seed(15)) < share
    keep[0] = True
    cut = build_pyramid(keys, 3, stem_kernel_size).crop(keep)
    built = build_pyramid(keys[keep], 3, stem_kernel_size)
    assert (cut.stem is cut.neighbours[0]) == (stem_kernel_size == 3)
    for a, b in zip((cut.stem, *cut.neighbours, *cut.down), (built.stem, *built.neighbours, *built.down), strict=True):
        assert_same_map(a, b)


def test_what_a_decoder_walks_for_some_voxels_is_what_would_be_built_for_them():
    keys = pack(random_voxels(14))
    keep = torch.rand(len(keys), generator=torch.Generator().manual_seed(15)) < 0.2
    whole, built = build_pyramid(keys, 3), build_pyramid(keys[keep], 3)
    decoded = whole.decoding(keep).decoded
    for a, b in zip((*decoded.neighbours, *decoded.down), (*built.neighbours[:-1], *built.down), strict=True):
        assert_same_map(a, b)
    levels, kept = [keys], [keys[keep]]
    for _ in range(2):
        levels.append(downsampling_map(levels[-1])[0])
        kept.append(downsampling_map(kept[-1])[0])
    for rows, every, some in zip(decoded.rows, levels, kept, strict=True):
        assert torch.equal(every[rows], some)


def some_maps():
    """Of every kind, one of them without pairs."""
    keys = pack(random_voxels(5)).sort().values
    down = downsampling_map(keys)[1]
    none = torch.empty(0, dtype=torch.long)
    return [
        submanifold_map(keys, 3), submanifold_map(keys, 5), down, down.transposed, KernelMap(none, none, (0,) * 8, 5, 3)
    ]  # fmt: skip


@pytest.mark.parametrize("at_once", [False, True])
def test_the_table_of_a_map_holds_its_pairs_and_sorts_outputs_by_what_they_lack(at_once):
    maps = some_maps()
    if at_once:
        tabulate([*maps, maps[0]])
    for kernel_map in maps:
        table, rows = kernel_map.by_offset, []
        for offset, (sources, targets) in enumerate(kernel_map.pairs):
            rows.append([-1] * kernel_map.outputs)
            for source, target in zip(sources.tolist(), targets.tolist(), strict=True):
                rows[offset][target] = source
        assert table.sources.tolist() == rows
        masks = [sum((row[v] >= 0) << k for k, row in enumerate(rows[:MASK_BITS])) for v in range(kernel_map.outputs)]
        order = sorted(range(kernel_map.outputs), key=masks.__getitem__)
        assert table.order.tolist() == order
        assert table.masks.squeeze(1).tolist() == [masks[v] for v in order]
        assert {t.dtype for t in vars(table).values()} == {torch.int32}


def test_tables_made_at_once_begin_where_kernels_like_to_read():
    maps = some_maps()
    tabulate(maps)
    parts = [part for kernel_map in maps for part in vars(kernel_map.by_offset).values()]
    assert len({part.untyped_storage().data_ptr() for part in parts}) == 3
    assert {part.storage_offset() % ALIGNMENT for part in parts} == {0}


def test_tables_that_are_there_stay_and_those_of_the_same_pairs_are_one():
    maps = some_maps()
    before = maps[1].by_offset
    for _ in range(2):
        tabulate([*maps, maps[2].transposed.transposed])
    assert maps[1].by_offset is before
    assert maps[2].transposed.transposed.by_offset is maps[2].by_offset
    assert maps[2].transposed.by_offset is not maps[2].by_offset


def test_repeated_convolutions_on_two_threads_are_equal_to_the_bit():
    coordinates = random_voxels(5, batches=40)
    kernel_map = submanifold_map(pack(coordinates), 3)
    features, weight = (t.detach().float().requires_grad_() for t in leaves(len(coordinates), 27, 32, 32))
    runs, before = [], torch.get_num_threads()
    torch.set_num_threads(2)
    for _ in range(5):
        output = sparse_convolution(features, weight, kernel_map)
        runs.append([output, *gradients(output, features, weight)])
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


def test_only_the_gradients_that_are_asked_for_are_computed():
    coordinates = random_voxels(6)
    features, weight = leaves(len(coordinates), 27)
    frozen = weight.detach()
    output = sparse_convolution(features, frozen, submanifold_map(pack(coordinates), 3))
    output.sum().backward()
    assert features.grad is not None
    assert frozen.grad is None


def test_packed_coordinates_come_back():
    coordinates = torch.tensor([[0, -5, 7, -1], [3, 32000, -32000, 12], [127, 0, 0, 0]])
    assert torch.equal(unpack(pack(coordinates)), coordinates)


def test_every_point_lies_in_its_voxel():
    points = torch.randn(500, 3, generator=torch.Generator().manual_seed(8)) * 20
    batch = torch.arange(500) % 3
    grid = voxelise(points, 0.3, batch)
    voxel = unpack(grid.keys)[grid.inverse]
    assert torch.equal(voxel[:, 0], batch)
    assert torch.equal(voxel[:, 1:], torch.floor(points / 0.3).long())
    assert torch.equal(grid.counts, torch.bincount(grid.inverse))
    assert (grid.keys.diff() > 0).all()


def test_voxel_means_are_the_means_of_their_points():
    points = torch.randn(300, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    grid = voxelise(points, 0.5)
    mean = grid.mean(points)
    for row in range(len(grid)):
        assert torch.allclose(mean[row], points[grid.inverse == row].mean(dim=0))
