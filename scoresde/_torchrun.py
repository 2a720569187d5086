"""What torchrun tells a process of the others by environment variables; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Place"]

# What torchrun gives each process: its number, the number of processes, the same on this machine.
NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class Place:
    """The place of this process among the others."""

    rank: int
    size: int
    local_rank: int
    local_size: int

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Place | None:
        """The place that torchrun has put into the environment; None for a single process."""
        if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= environment.keys():
            return None
        numbers = []
        for name in NUMBERS:
            text = environment.get(name)
            if text is None or not text.isdecimal():
                raise ValueError(f"{name}: must be an integer as torchrun sets it, got {text!r}")
            numbers.append(int(text))
        place = cls(*numbers)
        if not (place.rank < place.size and place.local_rank < place.local_size):
            raise ValueError(f"RANK: {place.rank} of {place.size} processes; torchrun sets it")
        return place if place.size > 1 else None
