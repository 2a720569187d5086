"""`scoresde ema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from . import options
from .command import Command
from .lookups import ClassPlace
from .output import say
from .types import Commas, Integer, Real

__all__ = ["ema"]

_WIDTH = Real(0, 12**-0.5, min_open=True)


@click.command(cls=Command)
@click.argument("run", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--sigma-rel",
    type=Commas(_WIDTH),
    help="Relative widths to compare. Default: those from 0.01 to 0.25 that the snapshots give.",
)
@click.option("--step", type=Integer(1), help="A step with a snapshot. Default: the last one.")
@click.option(
    "--by",
    type=click.Choice(["loss", "bits", "mmd"]),
    default="loss",
    help="loss: the training loss on held-out data. bits: −log p of them per dimension. mmd: MMD² "
    "between samples and training data.",
)
@click.option("--save", type=_WIDTH, help="Write the average of this width to the file --out.")
@click.option(
    "--net", type=ClassPlace("network"), help="Class of the network if it is your own, as sample."
)
@click.option("--sde", type=ClassPlace("SDE"), help="Class of its SDE if it is your own.")
@options.held_out
@click.option("--n", type=Integer(2), default=256, help="Number of data, or of samples for mmd.")
@click.option("--draws", type=Integer(1), default=8, help="Times per datum of the loss.")
@options.batch(64, "Data")
@options.seed
@options.device
@options.results("Folder for the results; with --save, the file of the checkpoint.")
def ema(
    run: Path, save: float | None, out: Path, overwrite: bool, as_json: bool, **settings: Any
) -> None:
    """Choose the length of the weights' average after training.

    RUN is the folder of a run whose config has train.ema_snapshot_every above 0. From its snapshots
    averages of any relative width σ_rel are made: the average spans about this share of the
    training. They are compared with each other and with the run's own EMA, on the same data, times
    and noise. --save writes one of them as a checkpoint for all other commands.

    Example: scoresde ema runs/digits-vp --sigma-rel 0.05,0.1,0.2 --out out/ema
    """
    from scoresde.comparison.ema_sweep import SweepRequest, sweep_averages
    from scoresde.tasks.averages import RunAverages, save_average

    from .progress import follow

    averages = RunAverages.read(run, *(settings[key] for key in ("step", "net", "sde")))
    if save is not None:
        _refuse_with_save()
        fit = save_average(averages, save, out)
        found = {
            "out": str(out),
            "sigma_rel": save,
            "step": averages.step,
            "residual": fit.residual,
        }
        text = f"{out}: σ_rel {save:g} after step {averages.step}, residual {fit.residual:.1e}"
        say(json.dumps(found) if as_json else text)
        return
    request = SweepRequest(averages.stored.name, **settings)
    with follow("ema") as on_progress:
        summary = sweep_averages(request, averages, out, overwrite, on_progress)
    if as_json:
        click.echo(json.dumps(summary))
        return
    say((out / "table.txt").read_text(encoding="utf-8").rstrip())
    say(f"{out / 'sweep.png'}, summary.json")


def _refuse_with_save() -> None:
    """Refuse an option of the sweep beside --save, which would have no effect."""
    context = click.get_current_context()
    for name in (
        "sigma_rel",
        "by",
        "data",
        "split",
        "data_root",
        "levels",
        "n",
        "draws",
        "overwrite",
    ):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--save: cannot be given with --{name.replace('_', '-')}")
