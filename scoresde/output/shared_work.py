"""Results that are computed in batches, which processes and machines share out.

Every finished batch is a part in the folder of results. The borders of the batches do not depend on
who computes them, and the results are joined from these files alone. Therefore the bytes are the
same for one process, for several processes of one command, and for shares that are merged later. A
stopped command continues from the finished batches.

    work = SharedWork.open(out, origin, names, share, overwrite)
    if work.finished:
        return work.read()
    with work.write(FILES) as output:
        for name in work.todo():
            work.save(name, arrays, about)
        parts = work.collect()          # None in a process that does not write the results
        if parts is not None:
            output.finish(summary)
    return work.read()
"""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..distributed import Ranks
from ..fingerprint import file_fingerprint, fingerprint
from .manifest import MANIFEST, Origin
from .parts import Part, load_part, save_part
from .result_folder import PARTS, SUMMARY, Output, ResultFolder
from .shards import Shard, check_shards, shard_origin

__all__ = [
    "ALONE",
    "Share",
    "SharedWork",
    "batches_of",
    "check_disk",
    "settings_of",
    "wait_until",
]

SEEN = 60.0  # seconds after which a file on a shared disk is visible to all machines


def batches_of(n: int, size: int) -> dict[str, range]:
    """The places of each batch among n data, by the name of the batch's file."""
    return {f"{begin:08d}.npz": range(begin, min(begin + size, n)) for begin in range(0, n, size)}


@dataclass(frozen=True)
class Share:
    """Which batches of a computation this process makes.

    Attributes:
        ranks: The processes that run the command together.
        shard: (i, n) for every n-th batch beginning with the i-th, i = 1 … n; None for all batches.
        merged: The shares that hold all batches, so that none is computed.
    """

    ranks: Ranks = Ranks()
    shard: tuple[int, int] | None = None
    merged: tuple[Shard, ...] = ()

    def of(self, names: Sequence[str]) -> tuple[str, ...]:
        """The batches of all processes of this command."""
        if self.shard is None:
            return tuple(names)
        i, n = self.shard
        found = tuple(names[i - 1 :: n])
        if not found:
            raise ValueError(
                f"--shard: {i}/{n} has nothing to do, since there are {len(names)} batches in all; "
                "a smaller --batch makes more"
            )
        return found


ALONE = Share()


@dataclass(frozen=True)
class SharedWork:
    """The batches of one command, and the folder of its results.

    Attributes:
        results: The folder.
        names: Names of the files of the batches that this command makes, of all its processes.
        made_from: Fingerprint of everything that determines the whole results.
        share: Which of the batches this process makes.
        about: Plain data that the summary of a share holds, such as the request.
    """

    results: ResultFolder
    names: tuple[str, ...]
    made_from: str
    share: Share
    about: Mapping[str, Any]

    @classmethod
    def open(
        cls,
        out: Path,
        origin: Origin,
        names: Sequence[str],
        share: Share,
        overwrite: bool,
        about: Mapping[str, Any],
    ) -> SharedWork:
        """Check the folder, the shares and the settings of all processes; changes nothing.

        Raises:
            ValueError: As for `ResultFolder.open`; or if the processes were started differently, a
                share is empty, or the shares to be merged do not hold all batches.
            PeerError: If another process fails.
        """
        ranks = share.ranks
        ranks.agree(settings_of(origin) | {"--overwrite": overwrite, "--shard": share.shard})
        own, here = share.of(names), origin
        if share.shard is not None:
            here = shard_origin(origin, *share.shard)
        if share.merged:
            check_shards(share.merged, origin, len(names))
        results = ResultFolder(out, here, overwrite)
        if ranks.writes:
            results = ResultFolder.open(out, here, overwrite)
        finished = ranks.gather(results.finished)[0]
        results = ResultFolder(out, here, overwrite, finished)
        return cls(results, own, origin.fingerprint, share, about)

    @property
    def finished(self) -> bool:
        """Whether the folder already holds the results."""
        return self.results.finished

    def read(self) -> dict[str, Any]:
        """The summary of the results."""
        return self.results.read()

    @contextmanager
    def write(self, files: Sequence[str]) -> Iterator[Output | None]:
        """Let all processes make their batches in the block; rank 0 locks the folder meanwhile.

        Args:
            files: Paths in the folder of all results that may be written.

        Yields:
            The `Output` in the process that writes the results, None in the others.

        Raises:
            ValueError, PermissionError, RuntimeError: As for `ResultFolder.write`.
            ValueError: If the processes do not share the disk of the folder.
            PeerError: If another process fails.
        """
        ranks, manifest = self.share.ranks, self.results.path / MANIFEST
        if not ranks.writes:
            check_disk(ranks, manifest, ranks.gather()[0])
            yield None
            ranks.gather()
            return
        if self.share.shard is not None:
            files = (SUMMARY, *self.names)
        with self.results.write(files, self.names) as output, ranks.stopping_together():
            self._warn_of_idle()
            self._copy_shares(output.work)
            ranks.gather(file_fingerprint(manifest))
            yield output
            if self.share.shard is not None:
                i, n = self.share.shard
                output.finish({"shard": f"{i}/{n}", "batches": len(self.names), **self.about})
        ranks.gather()

    def todo(self) -> Iterator[str]:
        """The names of the batches that this process has to make, without those that are made."""
        return (name for name in self.mine if self.load(name) is None)

    @property
    def mine(self) -> Sequence[str]:
        """The names of all batches of this process."""
        return self.share.ranks.share(self.names)

    def load(self, name: str) -> Part | None:
        """A finished batch; None if it is not finished or damaged."""
        return load_part(self._path(name), self._content(name))

    def save(self, name: str, arrays: Mapping[str, np.ndarray], about: Any) -> Part:
        """Write a finished batch; for the arguments see `save_part`."""
        return save_part(self._path(name), self._content(name), arrays, about, compress=False)

    def collect(self) -> dict[str, Part] | None:
        """Wait until all batches are made, and read them.

        Returns:
            The batches in order, by name; None in a process that does not write the results, and
            for a share, which is joined with others by `scoresde merge`.

        Raises:
            PeerError: If another process fails.
            RuntimeError: If a batch is missing.
        """
        self.share.ranks.gather()
        if not self.share.ranks.writes or self.share.shard is not None:
            return None
        found = {}
        for name in self.names:
            if self.share.ranks.size > 1:
                wait_until(self._path(name).exists)
            part = self.load(name)
            if part is None:
                raise RuntimeError(f"{self._path(name)} is missing; the same command makes it")
            found[name] = part
        return found

    def _path(self, name: str) -> Path:
        return self.results.path / PARTS / name

    def _content(self, name: str) -> str:
        return fingerprint([self.made_from, name])

    def _copy_shares(self, work: Path) -> None:
        for shard in self.share.merged:
            for name in self.names:
                if (shard.folder / name).is_file():
                    shutil.copyfile(shard.folder / name, work / name)

    def _warn_of_idle(self) -> None:
        ranks, count = self.share.ranks.size, len(self.names)
        if ranks > count:
            warnings.warn(
                f"{ranks - count} of {ranks} processes have nothing to do, since there are "
                f"{count} batches; a smaller --batch makes more",
                stacklevel=4,
            )


def settings_of(origin: Origin) -> dict[str, Any]:
    """What must be the same in all processes, by the names that messages use."""
    compared = {key: value for key, value in origin.plain.items() if key not in origin.shown}
    contents = {f"the content of the {what}": s.sha256 for what, s in origin.sources.items()}
    return {"torch": torch.__version__, **contents, **compared}


def check_disk(ranks: Ranks, manifest: Path, sha256: str) -> None:
    """Raise ValueError unless this process sees the file that rank 0 has written.

    Args:
        ranks: The processes.
        manifest: The file, in the folder of the results.
        sha256: The digest of its bytes, as rank 0 sees them.
    """
    if not wait_until(lambda: manifest.is_file() and file_fingerprint(manifest) == sha256):
        raise ValueError(
            f"--out {manifest.parent}: rank {ranks.rank} does not see there what rank 0 has "
            "written; give a folder that all machines share, or let each machine make a share with "
            "--shard i/n, for scoresde merge"
        )


def wait_until(seen: Callable[[], bool]) -> bool:
    """Ask until the answer is yes, for as long as a shared disk may be late; the last answer."""
    end = time.monotonic() + SEEN
    while not (found := seen()) and time.monotonic() < end:
        time.sleep(0.1)
    return found
