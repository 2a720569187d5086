"""`scoresde train`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import click

from scoresde.shipped import TEMPLATES, config_template

from . import options
from .command import Command
from .lookups import Device, Located
from .output import say
from .types import Integer

__all__ = ["train"]


def _every(name: str, steps: int, what: str) -> Callable:
    """An option for the number of steps between two events."""
    text = f"Steps between {what}"
    return click.option(name, type=Integer(1), default=steps, help=text)


@click.command(cls=Command)
@click.option("--config", type=Located("configs"), help="A TOML file, or a shipped config by name.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="TABLE.KEY=VALUE",
    help="Change a key of the config, as train.batch=64 or net.multipliers=[1,2]; repeatable.",
)
@options.out("The run's folder; an earlier run of this config is resumed.", required=False)
@click.option(
    "--new-config",
    type=click.Choice(TEMPLATES),
    help="Write a commented config template to stdout or to the file --out; nothing is trained.",
)
@options.late_device
@options.data_root
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be decoded.")
@options.overwrite
@options.compiled
@_every("--save-every", 1000, "checkpoints; one is also saved when the latest is 5 minutes old.")
@_every("--log-every", 100, "log lines.")
@_every("--sample-every", 5000, "pictures of samples.")
@_every("--validate-every", 1000, "validations, if the config has train.validation.")
@click.option(
    "--tensorboard", is_flag=True, help="Write the log and the samples for TensorBoard as well."
)
@click.option(
    "--validate-bits",
    type=Integer(0),
    default=0,
    help="Held-out data whose bits/dim each validation measures, at least 2; 0 for none.",
)
def train(
    config: str | None,
    changes: tuple[str, ...],
    out: Path | None,
    new_config: str | None,
    device: str,
    data_root: str | None,
    skip_bad: bool,
    overwrite: bool,
    compiled: bool,
    tensorboard: bool,
    **intervals: int,
) -> None:
    """Train a score model by denoising score matching.

    The folder gets checkpoint.safetensors, log.jsonl, loss.png and grids of samples. With
    train.validation in the config, best.safetensors keeps the averaged weights of the smallest
    loss on held-out data. Ctrl-C, SIGTERM and a closed terminal save; the same command resumes. To
    train longer, raise train.steps in the config, or give --set train.steps=20000.

    Example: scoresde train --config digits_vp --out runs/digits-vp
    """
    if new_config is not None:
        _write_config(new_config, config, out, changes)
        return
    if config is None or out is None:
        raise click.UsageError("--config and --out must be given, or --new-config")
    if tensorboard:
        from scoresde.output.tensorboard import check_tensorboard

        check_tensorboard()
    from scoresde._lock import lock_folder
    from scoresde.distributed import processes

    device = Device.resolve(device)
    with processes(device) as ranks, lock_folder(out) if ranks.writes else nullcontext():
        if not ranks.writes:  # rank 0 says it
            warnings.simplefilter("ignore")
        from scoresde.names.config_source import ConfigSource
        from scoresde.output.bars import progress_bar
        from scoresde.tasks.train.events import steps_with_events
        from scoresde.tasks.train.files import Intervals
        from scoresde.tasks.train.prepare import prepare_run
        from scoresde.tasks.train.run import Run

        from .progress import follow_training

        source, every = ConfigSource(config, changes, data_root), Intervals(**intervals)
        with progress_bar(ranks.writes):  # of the reading of large data
            run = prepare_run(source, out, device, overwrite, compiled, skip_bad, every, ranks)
        follow_training(run, steps_with_events if tensorboard else Run.steps)
    if ranks.writes:
        say(run.checkpoint)


def _write_config(
    what: str, config: str | None, out: Path | None, changes: tuple[str, ...]
) -> None:
    """Write the template of a config; never replace an existing file."""
    for option, value in (("--config", config), ("--set", changes)):
        if value:
            raise click.UsageError(f"--new-config: cannot be given with {option}")
    text = config_template(what)
    if out is None:
        click.echo(text, nl=False)
        return
    with open(out, "x", encoding="utf-8") as file:
        file.write(text)
    say(out)
