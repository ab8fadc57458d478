"""The one thread of a process that computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class ModelThread:
    """Runs calls one after another, each to its end, on a thread of its own.

    OpenMP keeps a pool of threads for every thread that has computed, and two pools on the same cores slow each other
    down: gradient steps took five times as long on a thread beside another one that had only loaded the model. So
    loading, steps and resets all run here.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function when the calls before it are done; returns or raises what it does."""
        outcome: Future[T] = Future()
        self._calls.put(partial(_fulfil, outcome, partial(function, *args, **kwargs)))
        try:
            return outcome.result()
        finally:
            del outcome  # an error refers to the frames that it came through, and this would refer to the error

    def close(self, timeout: float | None = None) -> None:
        """End the thread after the calls that wait; returns after `timeout` seconds, if given, at the latest."""
        self._calls.put(None)
        self._thread.join(timeout)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call


def _fulfil(outcome: Future[T], call: Callable[[], T]) -> None:
    try:
        outcome.set_result(call())
    except BaseException as error:  # noqa: BLE001  the caller's to handle, not this thread's
        outcome.set_exception(error)
    finally:
        del outcome
