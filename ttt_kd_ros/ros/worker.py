"""The thread that answers scans."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rclpy.context import Context

from ttt_kd_ros.ros.assembly import ScanJob


class Worker:
    """Answers jobs one after another until there are no more.

    Parameters
    ----------
    next_job
        Waits for the next job; None ends the thread.
    answer
        Answers one.
    on_fault
        Called if a fault in the program ended the thread.
    context
        A `RuntimeError` is no fault if the middleware was shut down before the answer could be published.
    """

    def __init__(
        self,
        next_job: Callable[[], ScanJob | None],
        answer: Callable[[ScanJob], None],
        on_fault: Callable[[], None],
        context: Context,
    ) -> None:
        self._next_job = next_job
        self._answer = answer
        self._on_fault = on_fault
        self._context = context
        self._thread = threading.Thread(target=self._work, name="segment", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of the thread."""
        self._thread.join()

    def _work(self) -> None:
        finished = False
        try:
            while (job := self._next_job()) is not None:
                self._answer(job)
                del job
            finished = True
        except RuntimeError:
            if self._context.ok():
                raise
            finished = True
        finally:
            if not finished:
                self._on_fault()
