"""`scoresde likelihood`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .options import (
    Integer,
    Real,
    checkpoint_option,
    data_root_option,
    device_option,
    json_option,
    out_option,
    overwrite_option,
    seed_option,
)

__all__ = ["likelihood"]

_tolerance = Real(0, 1, min_open=True, max_open=True)


@click.command()
@checkpoint_option
@click.option("--data", help="Data set or path; the data it was trained on if not given.")
@click.option(
    "--split",
    type=click.Choice(["train", "test"]),
    help="test if not given; all of a file given by --data.",
)
@data_root_option
@click.option("--levels", type=Integer(2), help="Number of levels of a file's data.")
@click.option("--n", type=Integer(1), default=128, show_default=True, help="How many images.")
@click.option(
    "--trace",
    type=click.Choice(["auto", "exact", "hutchinson"]),
    default="auto",
    show_default=True,
    help="Trace of the Jacobian; auto is exact up to 16 dimensions.",
)
@click.option("--force", is_flag=True, help="Allow an exact trace above 4096 dimensions.")
@click.option(
    "--probes",
    type=Integer(1),
    default=1,
    show_default=True,
    help="Probes of Hutchinson's trace, per image.",
)
@click.option(
    "--draws", type=Integer(1), default=1, show_default=True, help="Dequantizations per image."
)
@click.option(
    "--rtol", type=_tolerance, default=1e-6, show_default=True, help="Relative tolerance."
)
@click.option(
    "--atol", type=_tolerance, default=1e-6, show_default=True, help="Absolute tolerance."
)
@click.option(
    "--t-min", type=_tolerance, default=1e-5, show_default=True, help="Time the data are put in at."
)
@click.option("--batch", type=Integer(1), default=64, show_default=True, help="Images at a time.")
@seed_option
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="Of data and network; the solver's state is float64 in any case.",
)
@device_option
@out_option("Folder for per_image.csv, per_image.npz and settings.json.")
@overwrite_option
@json_option
def likelihood(out: Path, overwrite: bool, as_json: bool, **options: Any) -> None:
    """Likelihood of held-out data by the probability-flow ODE, in bits/dim.

    Example: scoresde likelihood --checkpoint digits-vp --n 128 --out out/bits
    """
    from scoresde.tasks.scoring import ScoreRequest, score_data

    from .progress import follow

    with follow("likelihood") as on_progress:
        summary = score_data(ScoreRequest(**options), out, overwrite, on_progress)
    click.echo(json.dumps(summary) if as_json else _in_words(summary, out))


def _in_words(found: dict[str, Any], out: Path) -> str:
    """The mean with its error, and what both of them are of."""
    error = "unknown (one image)" if found["std_error"] is None else f"{found['std_error']:.4f}"
    trace, values, chance = "exact trace", "continuous", "the choice of the data"
    if found["trace"] == "hutchinson":
        trace = f"Hutchinson's trace, Rademacher probes per image: {found['probes']}"
        chance += ", the probes"
    if found["levels"] is not None:
        values = f"{found['levels']} levels"
        trace += f"; uniform dequantization, draws per image: {found['draws']}"
        chance += ", the dequantization"
    rows = {
        "data": f"{found['n']} of {found['of']} in {found['data']} ({found['split']}), "
        f"{found['dims']} dimensions, {values}",
        "protocol": f"probability-flow ODE from t = {found['t_min']:g} to 1, dopri5, "
        f"rtol {found['rtol']:g}, atol {found['atol']:g}",
        "": trace,
        "±": f"one standard error of the mean; it covers {chance}",
        "cost": f"{found['nfe']} NFE counted per image, {found['seconds']:.1f} s",
    }
    if found["true_density"] is not None:
        rows["truth"] = f"{found['true_density']:.4f} {found['unit']}, the exact density's mean"
    lines = [f"  {key:<10}{text}" for key, text in rows.items()]
    first = f"{found['mean']:.4f} ± {error} {found['unit']}"
    return "\n".join([first, *lines, str(out / "per_image.csv")])
