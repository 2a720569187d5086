"""`scoresde latent`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import options
from .command import Command
from .output import say
from .types import Integer

__all__ = ["latent"]


@click.command(cls=Command)
@options.checkpoint()
@options.held_out
@click.option("--n", type=Integer(2), default=8, help="Number of data.")
@click.option(
    "--steps",
    type=Integer(2, 1000, note=": each is a datum"),
    default=8,
    help="Points of a path from one datum to another, both included.",
)
@click.option(
    "--path-density",
    is_flag=True,
    help="Also log p of every point of the paths; it costs derivative passes.",
)
@click.option(
    "--label", help="Class, name or number, as which the codes of the data are decoded too."
)
@click.option(
    "--samples", type=Integer(0), default=16, help="Number of samples drawn with log-density."
)
@click.option(
    "--probes",
    type=Integer(1),
    default=2,
    help="Probes of Hutchinson's trace, per sample; not needed up to 16 dimensions.",
)
@options.tolerances(1e-4)
@options.t_min("Start time of the data. Default: 1e-5, or that of the first discrete label.")
@options.batch(64, "Data")
@options.seed
@options.dtype("Of data and network; the solver's state is always float64.")
@options.device
@options.results("Folder for latents.npz, the pictures and summary.json.")
def latent(out: Path, overwrite: bool, as_json: bool, **settings: Any) -> None:
    """Latent codes of held-out data: round trips, paths between data, samples with log p.

    Example: scoresde latent --checkpoint digits-vp --n 8 --out out/latent
    """
    from scoresde.tasks.latents import LatentRequest, explore_latents

    from .progress import follow

    with follow("latent") as on_progress:
        summary = explore_latents(LatentRequest(**settings), out, overwrite, on_progress)
    say(json.dumps(summary) if as_json else _in_words(summary, out))


def _in_words(summary: dict[str, Any], out: Path) -> str:
    """Errors, settings and costs, one per line, and the files."""
    trip, drawn = summary["round_trip"], summary["samples"]
    rows = {
        "data": f"{summary['n']} of {summary['of']} in {summary['data']} ({summary['split']}), "
        f"{summary['dims']} dimensions, range {summary['span']:g}",
        "protocol": f"probability-flow ODE from t = {summary['t_min']:g} to 1 and back, dopri5, "
        f"rtol {summary['rtol']:g}, atol {summary['atol']:g}",
        "latents": f"root mean square {trip['latent_rms']:.3f} of the prior's deviation",
        "paths": f"{summary['paths']['n']} of {summary['paths']['steps']}; "
        f"largest error at an end {summary['paths']['error']:.2g}",
        "along": _along(summary["paths"], summary["unit"]),
        "as": _translated(summary.get("label")),
        "cost": f"{trip['nfe']} NFE counted per datum, there and back; {summary['seconds']:.1f} s",
    }
    if drawn is not None:
        error = "" if drawn["std_error"] is None else f" ± {drawn['std_error']:.4f}"
        mean, what = drawn["mean"], "mean"
        if summary["unit"] != "bits/dim":  # of continuous data log p itself is said
            mean, what = -mean, "mean log p at the model's scale"
        rows["samples"] = (
            f"{drawn['n']} with log p, {what} {mean:.4f}{error} {summary['unit']} at "
            f"{drawn['nfe']} NFE and {drawn['nfe_derivative']} derivative passes"
        )
    first = f"round trip: max error {trip['error']:.2g}, root mean square {trip['rms']:.2g}"
    lines = [f"  {key:<10}{text}" for key, text in rows.items() if text is not None]
    return "\n".join([first, *lines, *(str(out / name) for name in summary["files"])])


def _translated(label: str | None) -> str | None:
    return None if label is None else f"class {label}: translated in latents.npz"


def _along(paths: dict[str, Any], unit: str) -> str | None:
    """−log p at the ends and in the middle of the paths, or None."""
    if "at_ends" not in paths:
        return None
    error = paths["std_error_of_one"]
    known = "one probe, error unknown" if error is None else f"± {error:.3f} each"
    return (
        f"−log p per dimension {paths['at_ends']:.3f} at the ends, {paths['in_middle']:.3f} in the "
        f"middle ({unit}; {known}; {paths['nfe_derivative']} derivative passes)"
    )
