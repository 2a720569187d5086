"""`scoresde edit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import options
from .command import Command
from .output import say
from .types import Integer, Real

__all__ = ["edit"]


class _Edit(Command):
    groups = {
        "Data": (
            *("--checkpoint", "--image", "--data", "--split", "--data-root", "--levels", "--n"),
        ),
        "Results": (
            *("--strength", "--samples", "--label", "--condition", "--guidance"),
            *("--sampler", "--nfe", "--batch", "--seed", "--dtype", "--device", "--net", "--sde"),
        ),
        "Output": ("--out", "--overwrite", "--json"),
    }


@click.command(cls=_Edit)
@options.checkpoint()
@click.option(
    "--image",
    "images",
    type=click.Path(exists=True, dir_okay=False),
    multiple=True,
    help="A picture to edit, or a .npy file of some; it need not look like the data. May be "
    "repeated.",
)
@options.held_out
@click.option(
    "--n",
    type=Integer(1),
    help="Number of data, chosen by the seed, without files; 8 if not given.",
)
@click.option(
    "--strength",
    "strengths",
    type=Real(0, 1),
    multiple=True,
    default=(0.3, 0.5, 0.7),
    help="Time up to which noise is added, before it is removed again: 0 leaves the data as they "
    "are, 1 makes new ones. May be repeated.",
)
@click.option("--samples", type=Integer(1), default=1, help="Results of each datum and strength.")
@click.option("--label", help="Class of all results, its name or number; else that of each datum.")
@click.option("--condition", metavar="FILE", help="Condition of all results, a .npy or .npz file.")
@click.option("--guidance", type=options.GUIDANCE, help="As for `scoresde sample`.")
@click.option(
    "--sampler",
    type=options.SAMPLER,
    help="The recommended one, if not given. ddim:eta=1 is stochastic.",
)
@click.option(
    "--nfe",
    type=Integer(1, 100_000),
    help="Evaluations of a whole generation, of which an edit takes those below its strength; 20 "
    "if not given.",
)
@options.batch(256, "Results")
@options.seed
@options.dtype("bfloat16 is for the network alone.", "bfloat16")
@options.device
@options.results("Folder for edits.npz, edits.png and summary.json.")
def edit(out: Path, overwrite: bool, as_json: bool, **settings: Any) -> None:
    """Change data by adding noise up to some time, and sampling from there (SDEdit).

    Large structures of the data stay, and what is smaller than the noise is drawn anew. Without
    files, test data are edited.

    Example: scoresde edit --checkpoint digits-vp --strength 0.3 --strength 0.6 --out out/edit
    """
    from scoresde.tasks.editing import edit_data
    from scoresde.tasks.editing_request import EditRequest

    from .progress import follow

    request = EditRequest(**settings)
    with follow("edit") as on_progress:
        summary = edit_data(request, out, overwrite, on_progress)
    say(json.dumps(summary) if as_json else _in_words(summary, out))


def _in_words(summary: dict[str, Any], out: Path) -> str:
    """Start, cost and change of each strength, and the files."""
    lines = [
        f"{summary['n']} data × {summary['samples']} by {summary['sampler']}: "
        f"{summary['seconds']:.1f} s; change in {summary['unit']}"
    ]
    for row in summary["strengths"]:
        lines.append(
            f"  strength {row['strength']:<6g}{row['alpha']:.3f} x + {row['sigma']:.3f} ε, "
            f"{row['nfe']} NFE, change {row['change']:.3f} (root mean square)"
        )
    return "\n".join([*lines, *(str(out / name) for name in summary["files"])])
