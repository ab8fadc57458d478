"""Where tensors are computed: found by name, named, timed, and its memory given back."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from ttt_kd_ros.errors import InputError


def find_device(name: str) -> torch.device:
    """The device of a name.

    Raises
    ------
    InputError
        If there is no such device.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device '{name}' is unknown; use cpu, cuda or cuda:<index>") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device '{name}' is none that this package computes on; use cpu, cuda or cuda:<index>")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device '{name}' was asked for, but torch finds no CUDA device; use cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device '{name}' was asked for, but there are {torch.cuda.device_count()} CUDA devices")
    return device


def device_name(device: torch.device) -> str:
    """What people call it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def finished_at(device: torch.device) -> float:
    """Time [s] at which a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def free_memory() -> None:
    """Give back what nothing refers to any more, on GPUs too."""
    gc.collect()
    if torch.cuda.is_initialized():
        with suppress(RuntimeError):  # after a recording that CUDA broke off, PyTorch believes that it goes on
            torch.cuda.empty_cache()


@contextmanager
def garbage_kept() -> Iterator[None]:
    """No garbage is collected meanwhile: a recording that dies with it would break off the one that goes on."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def freeze_memory() -> None:
    """Give back what nothing refers to, and let garbage collections pass over all that is left.

    A full one, in the midst of some scan, would look for 0.2 s at all that torch has loaded. `gc.unfreeze` ends it.
    """
    free_memory()
    gc.freeze()
