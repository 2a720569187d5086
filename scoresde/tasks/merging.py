"""`scoresde merge` for shares of `sample` and `likelihood`.

The command that made the shares is repeated with all its batches, so that nothing is computed and
no network is evaluated. Checkpoint and data are read again, because the results describe them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..names.samplers import is_own
from ..output.result_folder import SUMMARY
from ..output.shards import Shard
from ..output.shared_work import Share
from .likelihood.against import compare_models
from .likelihood.request import ScoreRequest
from .likelihood.scoring import score_data
from .sample_request import SampleRequest
from .sampling import draw_samples

__all__ = ["merge_shards"]


def merge_shards(
    folders: Sequence[Path], out: Path, overwrite: bool = False, own_code: bool = False
) -> Path:
    """Join the folders that `--shard i/n` made into the results of the whole command.

    Args:
        folders: The folders of all shares, in any order.
        out: Folder for the results.
        overwrite: Replace other results in the folder.
        own_code: Run classes of the user's own that the shares name.

    Returns:
        The path of summary.json.

    Raises:
        FileNotFoundError: If a folder, the checkpoint or the data are missing.
        ValueError: If the folders are not the shares of one command, if one is missing, doubled or
            damaged, if they name own code that may not run, or if `out` holds other results.
    """
    shards = tuple(map(Shard.read, folders))
    first, share = shards[0], Share(merged=shards)
    settings, request = first.manifest.settings, first.summary["request"]
    if settings["scoresde"] != __version__:
        raise ValueError(
            f"{first.folder} was made by version {settings['scoresde']} of scoresde, and this is "
            f"{__version__}; merge it with that version"
        )
    if not own_code:
        _refuse_own_code(first.folder, request)
    if settings["command"] == "sample":
        draw_samples(SampleRequest(**request), out, overwrite, share=share)
    elif "against" in first.summary:
        against = first.summary["against"]
        compare_models(ScoreRequest(**request), against, out, overwrite, share=share)
    else:
        score_data(ScoreRequest(**request), out, overwrite, share=share)
    return out / SUMMARY


def _refuse_own_code(folder: Path, request: dict[str, Any]) -> None:
    """Raise if a request would import a module: the folder may come from someone else."""
    found = {name: request.get(name) for name in ("net", "sde", "sampler")}
    if found["sampler"] is not None and not is_own(found["sampler"]):
        found["sampler"] = None
    for name, place in found.items():
        if place is not None:
            raise ValueError(
                f"{folder} names code of its maker, --{name} {place}; give --own-code to run it"
            )
