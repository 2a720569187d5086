"""Common parts of the scripts in this folder: header of a table, timing, and output files."""

from __future__ import annotations

import math
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import scoresde
from scoresde._files import atomic_write

__all__ = ["least_seconds", "print_header", "write"]


def print_header(*packages: str, seed: int = 0) -> dict[str, Any]:
    """Print the command, versions, device, number of threads and seed; return them.

    Args:
        *packages: Further packages, beside scoresde and torch, whose versions matter.
        seed: The seed.
    """
    installed = {"scoresde": scoresde.__version__}
    for name in ("torch", *packages):
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = "absent"
    versions = ", ".join(f"{name} {version}" for name, version in installed.items())
    machine = f"Python {platform.python_version()}, CPU, threads: {torch.get_num_threads()}"
    about = {
        "command": shlex.join(["python", *sys.argv]),
        "versions": f"{versions}, {machine}",
        "seed": seed,
    }
    print("command: {command}\n{versions}, seed {seed}".format(**about))
    return about


def least_seconds(runs: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """The least time of each run over some repeats; the runs alternate."""
    least = [math.inf] * len(runs)
    for _ in range(repeats):
        for i, run in enumerate(runs):
            began = time.perf_counter()
            run()
            least[i] = min(least[i], time.perf_counter() - began)
    return least


def write(path: Path, content: bytes) -> None:
    """Write a file, and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(content)
