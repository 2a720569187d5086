"""`scoresde restore`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import options
from .command import Command
from .lookups import Named
from .names import INVERSE_METHODS, OPERATORS
from .output import say
from .types import Integer, Real

__all__ = ["restore"]

OPERATOR = Named("operator", OPERATORS, "names.operators.parse_operator", own=True)
METHOD = Named("method", INVERSE_METHODS, "names.inverse.parse_method")
FILE = click.Path(exists=True, dir_okay=False)


class _Restore(Command):
    groups = {
        "Measurement": (
            *("--checkpoint", "--operator", "--noise", "--image", "--measurement"),
            *("--data", "--split", "--data-root", "--levels", "--n", "--label", "--condition"),
        ),
        "Samples": (
            *("--method", "--samples", "--sampler", "--nfe"),
            *("--batch", "--seed", "--dtype", "--device", "--net", "--sde"),
        ),
        "Output": ("--out", "--overwrite", "--json"),
    }


@click.command(cls=_Restore)
@options.checkpoint()
@click.option(
    "--operator",
    type=OPERATOR,
    required=True,
    help="What is measured. mask:box=4x4 hides a box in the middle (at=0x2: there), mask:share=0.5 "
    "a random half of the pixels, mask:file=mask.png what is black; downsample:factor=2; grey; "
    "blur:std=1.5, circular; projection:m=32, random; package.module:Name, your object with A(x) "
    "and A_adjoint(y), at the model's scale.",
)
@click.option(
    "--noise",
    type=Real(0),
    default=0.05,
    help="Standard deviation of the noise. Pixel values of quantized data are 0 (black) to 1 "
    "(white); other data are in their units, or standardized if the training does that.",
)
@click.option(
    "--image",
    "images",
    type=FILE,
    multiple=True,
    help="A whole image, or a .npy file of some: it is measured with noise, and compared with "
    "the result. May be repeated.",
)
@click.option(
    "--measurement",
    "measurements",
    type=FILE,
    multiple=True,
    help="The measurement itself, instead of --image, in pixel values; for a mask, an image of "
    "which the hidden part does not matter. May be repeated.",
)
@options.held_out
@click.option(
    "--n",
    type=Integer(1),
    help="Number of data, chosen by the seed, without files; 8 if not given.",
)
@click.option("--label", help="Class of all data, its name or number, if the model takes classes.")
@click.option("--condition", metavar="FILE", help="Condition of all data, a .npy or .npz file.")
@click.option(
    "--method",
    type=METHOD,
    default="pigdm",
    help="pigdm, dps and ddnm guide any sampler; ddrm, replacement, repaint and smc are samplers. "
    "pigdm needs no tuning and agrees with the noise, but is too sure of what is not measured. "
    "smc:particles=4 needs noise, costs evaluations for each particle, and has wider intervals. "
    "replacement and repaint take the measurement as exact. More: dps:scale=20, "
    "pigdm:data_var=0.3, ddrm:eta=0.85, repaint:repeats=5:jump=5.",
)
@click.option("--samples", type=Integer(1), default=16, help="Samples for each measurement.")
@click.option(
    "--sampler",
    type=options.SAMPLER,
    help="For pigdm, dps and ddnm; ddim:eta=1, ancestral steps, if not given. ODE samplers keep "
    "the errors of their first steps.",
)
@click.option(
    "--nfe",
    type=Integer(1, 100_000),
    help="As many steps as this many evaluations of a sample allow; 50 if not given.",
)
@options.batch(256, "Samples")
@options.seed
@options.dtype("bfloat16 is for the network alone.", "bfloat16")
@options.device
@options.results("Folder for restored.npz, restored.png and summary.json.")
def restore(out: Path, overwrite: bool, as_json: bool, **settings: Any) -> None:
    """Samples of the data given a measurement y = A x + noise, with their uncertainty.

    Without files, test data are measured. Errors, and how often the truth lies in central intervals
    of the samples, are told if the truth is known. The same command continues a run that was
    stopped.

    Example: scoresde restore --checkpoint digits-vp --operator mask:box=4x4 --out out/restore
    """
    from scoresde.tasks.restore_request import RestoreRequest
    from scoresde.tasks.restoring import restore as restore_data

    from .progress import follow

    request = RestoreRequest(**settings)
    with follow("restore", resumes=True) as on_progress:
        summary = restore_data(request, out, overwrite, on_progress)
    say(json.dumps(summary) if as_json else _in_words(summary, out))


def _in_words(summary: dict[str, Any], out: Path) -> str:
    """Errors, residual, coverage and costs, and the files."""
    steps = "its own steps" if summary["steps"] is None else f"{summary['steps']} steps"
    cost = f"{summary['nfe']} NFE"
    if summary["nfe_derivative"]:
        cost += f" and {summary['nfe_derivative']} derivative passes"
    noise, residual = summary["residual"]["noise"], summary["residual"]["rms"]
    rows = {
        "method": f"{summary['method']}, {summary['sampler']} in {steps}: {cost} per sample, "
        f"{summary['seconds']:.1f} s",
        "residual": f"|y − A x| {residual:.3g} (root mean square), noise {noise:g}",
        "spread": f"std {summary['std']:.3g} on average, in {summary['unit']}",
    }
    if "error" in summary:
        rows["error"] = _errors(summary["error"])
        for name, found in summary["intervals"].items():
            rows[f"in {name}"] = _coverage(found)
    if "effective_particles" in summary:
        found = summary["effective_particles"]
        rows["particles"] = f"effective {found['mean']:.2f} on average, least {found['least']:.2f}"
    first = f"{summary['n']} × {summary['samples']} samples given {summary['operator']}"
    lines = [f"  {key:<10}{text}" for key, text in rows.items()]
    return "\n".join([first, *lines, *(str(out / name) for name in summary["files"])])


def _errors(found: dict[str, Any]) -> str:
    """PSNR of images, otherwise root mean square errors, of samples and of their mean."""
    kind, digits, unit = ("psnr", 2, " dB") if "psnr_of_mean" in found else ("rms", 4, "")
    sample, mean = (_number(found[f"{kind}_of_{what}"], digits) for what in ("samples", "mean"))
    return f"{kind.upper() if unit else kind} of samples {sample}, of their mean {mean}{unit}"


def _coverage(found: list[dict[str, Any]]) -> str:
    """How much of the truth each central interval holds, in per cent."""
    parts = [
        f"{100 * row['interval']:g} %: " + _number({k: _percent(row[k]) for k in row}, 1)
        for row in found
    ]
    return "central intervals hold of the truth: " + ", ".join(parts)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _number(found: dict[str, float | None], digits: int) -> str:
    """A value, with its standard error if there is one."""
    error = "" if found["std_error"] is None else f" ± {found['std_error']:.{digits}f}"
    return f"{found['value']:.{digits}f}{error}"
