"""`scoresde train`."""

from __future__ import annotations

from pathlib import Path

import click

from .options import (
    compile_option,
    data_root_option,
    device_option,
    out_option,
    overwrite_option,
)

__all__ = ["train"]


@click.command()
@click.option("--config", required=True, help="A TOML file, or a shipped config by name.")
@out_option("The run's folder; a run of the same config in it is resumed.")
@device_option
@data_root_option
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be decoded.")
@overwrite_option
@compile_option
def train(
    config: str,
    out: Path,
    device: str,
    data_root: str | None,
    skip_bad: bool,
    overwrite: bool,
    compiled: bool,
) -> None:
    """Train a score model by denoising score matching.

    The folder gets checkpoint.safetensors, log.jsonl, loss.png and grids of samples. Ctrl-C
    saves; the same command resumes. To train longer, raise train.steps in the config.

    Example: scoresde train --config digits_vp --out runs/digits-vp
    """
    from scoresde.tasks.training import prepare_run

    from .progress import follow_training

    run = prepare_run(config, out, device, data_root, overwrite, compiled, skip_bad)
    follow_training(run)
    click.echo(run.checkpoint)
