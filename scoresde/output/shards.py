"""Shares i/n of the results of a command, each in a folder of its own.

The share i/n of some batches is every n-th of them, beginning with the i-th. Its folder holds these
batches, and a summary with the request, so that the command can be repeated with all batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .files import read_json
from .manifest import Manifest, Origin
from .result_folder import SUMMARY, check_whole

__all__ = ["Shard", "check_shards", "made_in_batches", "shard_origin"]

SHARD = "shard"  # the setting of the origin


def shard_origin(origin: Origin, i: int, n: int) -> Origin:
    """The origin of the share i/n of the results of an origin."""
    return replace(origin, settings={**origin.settings, SHARD: f"{i}/{n}"})


def made_in_batches(folder: Path) -> bool:
    """Whether a folder holds results of `sample` or `likelihood`, all of them or a share.

    Raises:
        FileNotFoundError: If the folder has no manifest.
        ValueError: If the manifest is damaged.
    """
    return Manifest.read(folder).settings.get("command") in ("sample", "likelihood")


@dataclass(frozen=True)
class Shard:
    """A finished share.

    Attributes:
        folder: Its folder.
        manifest: The content of scoresde.json.
        summary: The content of summary.json, with the request.
    """

    folder: Path
    manifest: Manifest
    summary: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Shard:
        """Read and check a folder.

        Raises:
            FileNotFoundError: If the folder has no manifest.
            ValueError: If it holds no finished share, or if a file is missing or damaged.
        """
        manifest = Manifest.read(folder)
        if SHARD not in manifest.settings:
            raise ValueError(f"{folder}: holds no share of a command with --shard i/n")
        if not manifest.finished:
            raise ValueError(f"{folder}: its share is not finished; the same command goes on")
        check_whole(folder)
        return cls(folder, manifest, read_json(folder / SUMMARY))

    @property
    def place(self) -> tuple[int, int]:
        """The numbers i and n."""
        i, n = self.manifest.settings[SHARD].split("/")
        return int(i), int(n)


def check_shards(shards: Sequence[Shard], origin: Origin, batches: int) -> None:
    """Check that shares are those of one origin, and that they hold all batches, each once.

    Args:
        shards: The shares, at least one.
        origin: The origin of the whole results.
        batches: Number of batches of the whole results.

    Raises:
        ValueError: If a share belongs to other results, is there twice, or is missing.
    """
    first, n = shards[0].folder, shards[0].place[1]
    found: dict[int, Path] = {}
    for shard in shards:
        i = shard.place[0]
        different = shard.manifest.difference(shard_origin(origin, i, n))
        if different is not None and shard is shards[0]:
            raise ValueError(f"{first} holds {different}; put back what the share was made from")
        if different is not None:
            raise ValueError(
                f"{shard.folder} does not belong to the results of {first}: it holds {different}"
            )
        if i in found:
            raise ValueError(f"{found[i]} and {shard.folder} both hold the share {i}/{n}")
        found[i] = shard.folder
    missing = [f"{i}/{n}" for i in range(1, min(n, batches) + 1) if i not in found]
    if missing:
        raise ValueError(f"no folder holds the share {', '.join(missing)}; {first} needs it")
