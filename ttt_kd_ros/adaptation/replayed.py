"""Steps as CUDA graphs: recorded once for a scan, they cost what the GPU computes and not what Python says."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from ttt_kd_ros.device import free_memory, garbage_kept

STEP, RECORD, REPLAY = "step", "record", "replay"
MIN_LEFT = 2
"""From how many steps that are still to come recording is worth it: it takes as long as a step (docs/benchmarks.md)."""


class Recorder:
    """Records on one stream, each time into the memory of the recording before.

    That one is done with, or is replayed in turns with the new one, each result being read before the next replay.

    Parameters
    ----------
    device
        Where is computed.

    Attributes
    ----------
    able
        Whether it is a CUDA device and no recording has failed.
    """

    def __init__(self, device: torch.device) -> None:
        self.able: bool = device.type == "cuda"
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        self._last: torch.cuda.CUDAGraph | None = None

    def first(self, warm: bool, left: int) -> str:
        """How something would be done that was not recorded, with so many times to go: ``step`` or ``record``."""
        return RECORD if self.able and warm and left >= MIN_LEFT else STEP

    def record(self, function: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor] | None:
        """The recording of a function and its result in it; None, with a warning, if it cannot be recorded."""
        try:
            return self._record(function)
        except RuntimeError as error:
            self.able = False
            self.forget()
            free_memory()
            cause = error.__context__ or error  # to end what is broken off fails as well
            warnings.warn(f"steps are taken one by one: they cannot be recorded as a CUDA graph: {cause}", stacklevel=4)
            return None

    def forget(self) -> None:
        """Keep no memory of recordings."""
        self._last = None

    def _record(self, function: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        graph, usual = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        self._stream = self._stream or torch.cuda.Stream(self._device)
        pool = self._last.pool() if self._last is not None else None
        self._stream.wait_stream(usual)
        with torch.cuda.stream(self._stream), garbage_kept():
            graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                result = function()
            finally:
                graph.capture_end()
        usual.wait_stream(self._stream)
        self._last = graph
        return graph, result


class Replayed:
    """Does the same on the same tensors again and again.

    On CUDA devices it is recorded once it is warm, and replayed from then on; elsewhere, and where it cannot be
    recorded, it is done anew each time.

    Parameters
    ----------
    function
        Reads no tensor's value and keeps none of its own tensors; the tensors that it works on stay where they are. One
        that is broken off in a recording may be called again.
    recorder
        Records it.
    warm
        Whether all that it compiles and allocates the first time is there; else it is recorded the second time.
    """

    def __init__(self, function: Callable[[], Tensor], recorder: Recorder, warm: bool = False) -> None:
        self._function = function
        self._recorder = recorder
        self._warm = warm
        self._recorded: tuple[torch.cuda.CUDAGraph, Tensor] | None = None

    def next(self, left: int) -> str:
        """How it would be done next, with so many times to go: ``step``, ``record`` or ``replay``."""
        return self._recorder.first(self._warm, left) if self._recorded is None else REPLAY

    def __call__(self, how: str) -> Tensor:
        """Do it once in one of the ways of `next`; the result is valid until the next time."""
        if how == RECORD:
            self._recorded = self._recorder.record(self._function)
        if self._recorded is None:
            self._warm = True
            return self._function()
        graph, result = self._recorded
        graph.replay()
        return result
