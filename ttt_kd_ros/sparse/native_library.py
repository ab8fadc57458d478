"""The kernels of `native.cpp`, compiled for this machine when they are first used."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

from torch import Tensor

from ttt_kd_ros.sparse.compiled import compiled

SOURCE = Path(__file__).with_name("native.cpp")

# Arguments of the kernels: arrays, sizes and real numbers, in their order.
_SIGNATURES = {
    "convolve": "aaaaaasssssaaaaraa",
    "weight_gradient": "aaaaaassss",
    "convolve_norm_relu_gradients": "aaaaaaaaaraaasssssssaaaaa",
    "count_submanifold": "asassa",
    "fill_submanifold": "asassaaaa",
    "count_kept": "aaasaaa",
    "fill_kept": "aaasaaaaaaa",
    "occupied_voxels": "aasaaaaaa",
    "downsampling": "asaaaaaa",
}


@cache
def library(*flags: str) -> ctypes.CDLL:
    """The kernels.

    Parameters
    ----------
    flags
        Of the compiler, beside its own for this machine.

    Raises
    ------
    CompileError
        If they cannot be compiled.
    """
    kernels = compiled(SOURCE, flags)
    kinds = {"a": ctypes.c_void_p, "s": ctypes.c_int64, "r": ctypes.c_double}
    for name, signature in _SIGNATURES.items():
        kernel = getattr(kernels, name)
        kernel.argtypes, kernel.restype = [kinds[kind] for kind in signature], ctypes.c_int64
    return kernels


def run(kernel: str, *arguments: Tensor | float | None) -> int:
    """Call a kernel with contiguous arrays, some of which may be absent, sizes and real numbers.

    What it returns means nothing where the kernel returns nothing.
    """
    places = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    result: int = getattr(library(), kernel)(*places)
    return result
