"""A second device where there is no GPU: real tensors on ``cuda:0``, whose memory and kernels are the CPU's.

A plugin of pytest (``-p second_device``) for builds of PyTorch without CUDA. Tests that need a GPU run, and what mixes
devices fails as it does there. There are no CUDA graphs.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache, partial
from typing import Any

ctypes.CDLL(os.environ["SECOND_DEVICE"])  # second_device.cpp, which PyTorch looks for while it is imported

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

CPU, CUDA = 1, 2
"""As DLPack numbers them."""
VIEWS = ("as_strided", "view", "_reshape_alias", "unfold", "set_", "detach", "alias")
"""Compute nothing; the CPU's own kernels keep the device."""
INDEXING = ("index", "index_put_", "_index_put_impl_")
"""Take indices from the CPU too."""


class _Capsule(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("device", ctypes.c_int32))


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


def _moved(tensor: Tensor, device: int) -> Tensor:
    """The same memory on another device."""
    capsule = torch._C._to_dlpack(tensor)
    _Capsule.from_address(_pointer(capsule, b"dltensor")).device = device
    return torch._C._from_dlpack(capsule)


def _compute(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """An operator with tensors of the device among its arguments, by the CPU's kernel."""
    name, wants_tensor = _signature(operator)
    if name in VIEWS:
        return operator.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *args, **kwargs)
    lent: dict[int, tuple[Tensor, Tensor]] = {}
    indices = [id(index) for index in args[1]] if name in INDEXING else []

    def lend(value: Any) -> Any:
        if isinstance(value, torch.device):
            return torch.device("cpu")
        if not isinstance(value, Tensor):
            return value
        if not value.is_cuda and value.ndim and name != "copy_" and id(value) not in indices:
            raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got cuda:0 and cpu")
        if id(value) not in lent:
            lent[id(value)] = value, _lent(value) if value.is_cuda else value
        return lent[id(value)][1]

    def give_back(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return own[id(value)] if id(value) in own else _moved(value, CUDA)

    args, kwargs = _mapped(lend, args), _mapped(lend, kwargs)
    args = tuple(
        torch.tensor(value) if wanted and isinstance(value, int | float) else value
        for value, wanted in zip(args, wants_tensor, strict=False)
    )
    results = _depthwise(*args) if name == "_conv_depthwise2d" else operator(*args, **kwargs)
    for ours, theirs in lent.values():
        if ours.is_cuda and (ours.shape != theirs.shape or ours.data_ptr() != theirs.data_ptr()):  # it was resized
            _compute(torch.ops.aten.set_.source_Tensor, ours, _moved(theirs, CUDA))
    own = {id(theirs): ours for ours, theirs in lent.values()}
    return _mapped(give_back, results)


@cache
def _signature(operator: Any) -> tuple[str, tuple[bool, ...]]:
    """Name of an operator, and which of its arguments are tensors, where a number counts as one."""
    schema = operator._schema
    return schema.name.removeprefix("aten::"), tuple(str(argument.type) == "Tensor" for argument in schema.arguments)


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """What a function makes of a value, or of all that lists and mappings hold."""
    if isinstance(value, list | tuple):
        return type(value)(_mapped(function, part) for part in value)
    return {key: function(part) for key, part in value.items()} if isinstance(value, dict) else function(value)


def _lent(tensor: Tensor) -> Tensor:
    """The same memory on the CPU, or none that can grow."""
    if tensor.numel():
        return _moved(tensor, CPU)
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)


def _depthwise(values: Tensor, weight: Tensor, _: Any, *others: Any) -> Tensor:
    """An operator that GPUs alone have."""
    return torch.nn.functional.conv2d(values, weight, *others, groups=values.shape[1])


def _clone(storage: Any) -> Any:
    if storage.device.type == "cpu":
        return _clone_on_cpu(storage)
    return torch.empty(0, dtype=torch.uint8, device="cuda").set_(storage).clone().untyped_storage()


_clone_on_cpu, torch.UntypedStorage.clone = torch.UntypedStorage.clone, _clone
_operators, _copy = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
_operators.fallback(_compute, "CUDA")
_copy.impl("copy_", partial(_compute, torch.ops.aten.copy_.default), "CUDA")
torch.cuda._lazy_init = lambda: None
torch.cuda.is_available, torch.cuda.device_count = lambda: True, lambda: 1
torch.cuda.is_bf16_supported, torch.cuda.synchronize = lambda including_emulation=True: True, lambda device=None: None
