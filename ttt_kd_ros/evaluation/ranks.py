"""Processes of one evaluation, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

LONGEST_WAIT = timedelta(days=20)
"""One process may have to do a whole split in one piece while the others are done; sockets count 24 days at most."""


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is, and the device that it computes on."""

    rank: int = 0
    ranks: int = 1
    device: str = "cpu"

    def gather(self, counts: Mapping[int, NDArray[np.int64]]) -> Mapping[int, NDArray[np.int64]]:
        """The sum over the processes of each array; all have the same keys and shapes."""
        if self.ranks == 1:
            return counts
        totals = {key: torch.from_numpy(array.copy()) for key, array in sorted(counts.items())}
        for total in totals.values():
            dist.all_reduce(total)
        return {key: total.numpy() for key, total in totals.items()}


@contextmanager
def joined() -> Iterator[Ranks]:
    """The processes that torchrun started together (its environment tells), or this one alone; on GPUs if there are."""
    gpus = torch.cuda.device_count()
    device = f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % gpus}" if gpus else "cpu"
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield Ranks(device=device)
        return
    dist.init_process_group("gloo", timeout=LONGEST_WAIT)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()
