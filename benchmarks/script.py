"""Common parts of the scripts in this folder: header of a table, timing, and output files.

Every script calls `print_header` before any work, and writes no tracked file unless it is asked to.
"""

from __future__ import annotations

import math
import os
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
    """Print the command, versions, machine, number of threads and seed; return them.

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
    about = {
        "command": shlex.join(["python", *sys.argv]),
        "versions": f"{versions}, Python {platform.python_version()}",
        "machine": f"{_processor()}, {os.cpu_count()} CPUs, threads: {torch.get_num_threads()}",
        "seed": seed,
    }
    print("command: {command}\n{versions}\n{machine}, seed {seed}".format(**about))
    return about


def _processor() -> str:
    """Name of the processor; of its architecture where the system does not tell more."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


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
