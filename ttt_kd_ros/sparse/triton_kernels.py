"""Triton kernels of `ttt_kd_ros.sparse.triton`; importing this module needs Triton.

None is compiled anew for another number of voxels: that is another in each scan.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["outputs"])
def product(
    features, weight, sources, order, output, outputs,
    norm_weight, norm_bias, mean, variance, eps, residual, convolved,
    depth: tl.constexpr, width: tl.constexpr, offsets: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Rows of outputs: the sum over the offsets of a gathered tile of inputs times the offset's matrix.

    Outputs that lack the same offsets lie side by side in the order, so that whole tiles skip an offset.

    Parameters
    ----------
    features, weight, output
        (inputs, depth), (offsets, depth, width) and (outputs, width), contiguous.
    sources, order
        Of `OffsetTable`.
    norm_weight, norm_bias, mean, variance
        (width,), of the norm and ReLU after the sum; or None.
    residual, convolved
        (outputs, width), contiguous: what is added before the ReLU, and where the sums are kept; or None.
    """
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    target = tl.load(order + place, mask=place < outputs, other=0)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for offset in range(offsets):
        source = tl.load(sources + offset * outputs + target, mask=place < outputs, other=-1)
        there = source >= 0
        if tl.max(there.to(tl.int32), axis=0) > 0:
            for first in range(0, depth, DEPTH):
                channel = first + tl.arange(0, DEPTH)
                inputs = tl.load(
                    features + source[:, None] * depth + channel[None, :],
                    mask=there[:, None] & (channel < depth)[None, :],
                    other=0.0,
                )
                matrix = tl.load(
                    weight + (offset * depth + channel[:, None]) * width + column[None, :],
                    mask=(channel < depth)[:, None] & (column < width)[None, :],
                    other=0.0,
                )
                total = tl.dot(inputs, matrix, total, input_precision=PRECISION)
    cell = target[:, None] * width + column[None, :]
    inside = (place < outputs)[:, None] & (column < width)[None, :]
    if norm_weight is not None:
        if convolved is not None:
            tl.store(convolved + cell, total, mask=inside)
        scale = tl.load(norm_weight + column, mask=column < width, other=0.0)
        scale /= tl.sqrt(tl.load(variance + column, mask=column < width, other=1.0) + eps)
        shift = tl.load(norm_bias + column, mask=column < width, other=0.0)
        shift -= tl.load(mean + column, mask=column < width, other=0.0) * scale
        total = total * scale[None, :] + shift[None, :]
        if residual is not None:
            total += tl.load(residual + cell, mask=inside, other=0.0)
        total = tl.where(total < 0, 0.0, total)  # what is no number stays so
    tl.store(output + cell, total.to(output.dtype.element_ty), mask=inside)


@triton.jit
def weight_gradient(
    features, gradient, sources, targets, starts, partial,
    depth: tl.constexpr, width: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, PAIRS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of an offset's matrix: inputs times gradients of the outputs, summed over a part of the offset's pairs.

    Parameters
    ----------
    features, gradient
        (inputs, depth) and (outputs, width), contiguous.
    sources, targets
        Of `KernelMap`.
    starts
        (offsets + 1,) int64, where each offset's pairs begin.
    partial
        (parts, offsets, depth, width) float32, contiguous.
    """
    offset, part = tl.program_id(0), tl.program_id(1)
    across = (width + COLUMNS - 1) // COLUMNS
    channel = tl.program_id(2) // across * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(2) % across * COLUMNS + tl.arange(0, COLUMNS)
    first, last = tl.load(starts + offset), tl.load(starts + offset + 1)
    length = tl.cdiv(last - first, tl.num_programs(1))
    begin = first + part * length
    end = tl.minimum(begin + length, last)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in range(begin, end, PAIRS):
        pair = start + tl.arange(0, PAIRS)
        source = tl.load(sources + pair, mask=pair < end, other=0)
        target = tl.load(targets + pair, mask=pair < end, other=0)
        inputs = tl.load(
            features + source[None, :] * depth + channel[:, None],
            mask=(pair < end)[None, :] & (channel < depth)[:, None],
            other=0.0,
        )
        outputs = tl.load(
            gradient + target[:, None] * width + column[None, :],
            mask=(pair < end)[:, None] & (column < width)[None, :],
            other=0.0,
        )
        total = tl.dot(inputs, outputs, total, input_precision=PRECISION)
    tl.store(
        partial + ((part * tl.num_programs(0) + offset) * depth + channel[:, None]) * width + column[None, :],
        total,
        mask=(channel < depth)[:, None] & (column < width)[None, :],
    )
