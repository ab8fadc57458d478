"""The kernels of `kernels.cpp`, compiled for this machine when they are first used."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ttt_kd_ros.native.compiled import CompileError, compiled

SOURCE = Path(__file__).with_name("kernels.cpp")

# Arguments of the kernels: arrays, sizes and real numbers, in their order.
_SIGNATURES = {
    "convolve": "aaaaaassssssaaaarara",
    "weight_gradient": "aaaaaassss",
    "convolve_norm_relu_gradients": "aaaaaaaaaraaassssssssaaaaa",
    "count_submanifold": "asassa",
    "fill_submanifold": "asassaaaa",
    "count_kept": "aaasaaa",
    "fill_kept": "aaasaaaaaaa",
    "occupied_voxels": "aasaaaaaa",
    "downsampling": "asaaaaaa",
    "before_planes": "asasaa",
    "hidden": "aaasrsssrra",
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


def serves(values: Tensor) -> bool:
    """Whether the kernels are there and compute with such values: float32 on a CPU."""
    return values.is_cpu and values.dtype is torch.float32 and _there()


@cache
def _there() -> bool:
    try:
        library()
    except CompileError:
        return False
    return True


class Call:
    """A kernel with its arguments, to be called as often as one likes.

    Parameters
    ----------
    kernel
        Its name.
    arguments
        Contiguous arrays, some of which may be absent, sizes and real numbers. The arrays are kept.

    Raises
    ------
    TypeError
        If an array holds real numbers that are not float32.
    """

    def __init__(self, kernel: str, *arguments: Tensor | float | None) -> None:
        for each in arguments:
            if isinstance(each, Tensor) and each.is_floating_point() and each.dtype is not torch.float32:
                raise TypeError(f"the kernels compute in float32, not in {each.dtype}; set sparse_backend to torch")
        self._kernel = getattr(library(), kernel)
        self._arguments = arguments
        self._places = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]

    def __call__(self) -> int:
        """What the kernel returns; it means nothing where it returns nothing."""
        result: int = self._kernel(*self._places)
        return result


def run(kernel: str, *arguments: Tensor | float | None) -> int:
    """Call a kernel once."""
    return Call(kernel, *arguments)()
