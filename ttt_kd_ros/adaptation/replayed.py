"""Steps as CUDA graphs: recorded once for a scan, they cost what the GPU computes and not what Python says."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from ttt_kd_ros.device import free_memory

STEP, RECORD, REPLAY = "step", "record", "replay"
MIN_LEFT = 2
"""From how many steps that are still to come recording is worth it: it takes as long as a step (docs/benchmarks.md)."""


class Replayed:
    """Does the same on the same tensors again and again.

    On CUDA devices it is recorded after the first time, which has compiled and allocated what it needs, and replayed
    from then on; elsewhere, and where it cannot be recorded, it is done anew each time.

    Parameters
    ----------
    function
        Reads no tensor's value and keeps none of its own tensors; the tensors that it works on stay where they are.
    device
        Where it computes.
    before
        One that is done with, whose memory the recording takes over.
    """

    def __init__(self, function: Callable[[], Tensor], device: torch.device, before: Replayed | None = None) -> None:
        self._function = function
        self._device = device
        self._warm = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result = torch.empty(0)
        self.recordable: bool = device.type == "cuda" and (before is None or before.recordable)
        """Whether there is a CUDA device and no recording has failed."""
        self.memory: torch.cuda.CUDAGraph | None = before.memory if before is not None else None
        """The recording whose memory the next one takes over: its own, or the last one before."""

    def next(self, left: int) -> str:
        """How it would be done next, with so many times to go: ``step``, ``record`` or ``replay``."""
        if self._graph is not None:
            return REPLAY
        return RECORD if self.recordable and self._warm and left >= MIN_LEFT else STEP

    def __call__(self, how: str) -> Tensor:
        """Do it once in one of the ways of `next`; the result is valid until the next time."""
        if how == RECORD:
            try:
                self._record()
            except RuntimeError as error:
                self._give_up(error)
        if self._graph is None:
            self._warm = True
            return self._function()
        self._graph.replay()
        return self._result

    def _record(self) -> None:
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(self._device)
        usual = torch.cuda.current_stream(self._device)
        pool = self.memory.pool() if self.memory is not None else None
        stream.wait_stream(usual)
        with torch.cuda.stream(stream):
            graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                self._result = self._function()
            finally:
                graph.capture_end()
        usual.wait_stream(stream)
        self._graph = self.memory = graph

    def _give_up(self, error: RuntimeError) -> None:
        self.recordable, self.memory = False, None
        free_memory()
        warnings.warn(f"steps are taken one by one: they cannot be recorded as a CUDA graph: {error}", stacklevel=4)
