"""`scoresde latent`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .command import Command
from .options import (
    checkpoint_option,
    data_option,
    data_root_option,
    device_option,
    json_option,
    out_option,
    overwrite_option,
    seed_option,
)
from .output import say
from .types import Integer, Real

__all__ = ["latent"]

_tolerance = Real(0, 1, min_open=True, max_open=True)


@click.command(cls=Command)
@checkpoint_option
@data_option
@click.option(
    "--split",
    type=click.Choice(["train", "test"]),
    help="test if not given; all of a file given by --data.",
)
@data_root_option
@click.option("--levels", type=Integer(2), help="Number of levels of a file's data.")
@click.option("--n", type=Integer(2), default=8, show_default=True, help="How many data.")
@click.option(
    "--steps",
    type=Integer(2, 1000, note=": each is a datum"),
    default=8,
    show_default=True,
    help="Points of a path from one datum to another, both included.",
)
@click.option(
    "--samples",
    type=Integer(0),
    default=16,
    show_default=True,
    help="Draw so many, each with its log-density.",
)
@click.option(
    "--probes",
    type=Integer(1),
    default=2,
    show_default=True,
    help="Probes of Hutchinson's trace, per sample; not needed up to 16 dimensions.",
)
@click.option(
    "--rtol", type=_tolerance, default=1e-4, show_default=True, help="Relative tolerance."
)
@click.option(
    "--atol", type=_tolerance, default=1e-4, show_default=True, help="Absolute tolerance."
)
@click.option(
    "--t-min",
    type=_tolerance,
    help="Time the data are put in at. Default: 1e-5, or that of the first discrete label.",
)
@click.option("--batch", type=Integer(1), default=64, show_default=True, help="Data at a time.")
@seed_option
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="Of data and network; the solver's state is float64 in any case.",
)
@device_option
@out_option("Folder for latents.npz, the pictures and summary.json.")
@overwrite_option
@json_option
def latent(out: Path, overwrite: bool, as_json: bool, **options: Any) -> None:
    """Latent codes of held-out data: there and back, paths between them, samples with log p.

    Example: scoresde latent --checkpoint digits-vp --n 8 --out out/latent
    """
    from scoresde.tasks.latents import LatentRequest, explore_latents

    from .progress import follow

    with follow("latent") as on_progress:
        summary = explore_latents(LatentRequest(**options), out, overwrite, on_progress)
    say(json.dumps(summary) if as_json else _in_words(summary, out))


def _in_words(found: dict[str, Any], out: Path) -> str:
    """The error of the round trip, what it is of, and what the samples say."""
    there, drawn = found["round_trip"], found["samples"]
    rows = {
        "data": f"{found['n']} of {found['of']} in {found['data']} ({found['split']}), "
        f"{found['dims']} dimensions, range {found['span']:g}",
        "protocol": f"probability-flow ODE from t = {found['t_min']:g} to 1 and back, dopri5, "
        f"rtol {found['rtol']:g}, atol {found['atol']:g}",
        "latents": f"root mean square {there['latent_rms']:.3f} of the prior's deviation",
        "paths": f"{found['paths']['n']} of {found['paths']['steps']}; "
        f"largest error at an end {found['paths']['error']:.2g}",
        "cost": f"{there['nfe']} NFE counted per datum, there and back; {found['seconds']:.1f} s",
    }
    if drawn is not None:
        error = "" if drawn["std_error"] is None else f" ± {drawn['std_error']:.4f}"
        rows["samples"] = (
            f"{drawn['n']} with log p, mean {drawn['mean']:.4f}{error} {found['unit']} at "
            f"{drawn['nfe']} NFE and {drawn['nfe_derivative']} derivative passes"
        )
    first = f"round trip: max error {there['error']:.2g}, root mean square {there['rms']:.2g}"
    lines = [f"  {key:<10}{text}" for key, text in rows.items()]
    return "\n".join([first, *lines, *(str(out / name) for name in found["files"])])
