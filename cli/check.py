"""`scoresde check`."""

from __future__ import annotations

import json
from typing import Any

import click

from . import options
from .command import Command
from .lookups import ModelName
from .output import say
from .types import Commas, Integer

__all__ = ["check"]


@click.command(cls=Command)
@click.argument("model", metavar="MODEL", type=ModelName())
@click.option(
    "--net",
    metavar="package.module:Name",
    help="Class of a checkpoint's network that is your own; its module is imported.",
)
@click.option(
    "--sde",
    metavar="package.module:Name",
    help="Class of a checkpoint's SDE that is your own; its module is imported.",
)
@click.option(
    "--shape",
    type=Commas(Integer(1)),
    help="Shape of one sample, as 3,32,32, for a model that does not know its data.",
)
@options.seed
@options.device
@options.as_json
def check(model: str, as_json: bool, device: str, **settings: Any) -> None:
    """Check whether a score model keeps the rules of samplers and likelihoods.

    MODEL is a checkpoint, or package.module:Name for a score model of your own, or for a class or a
    function without arguments that makes one. Such a module is imported, which runs its code.

    Each line is one law with its verdict and a measured number: the output is like x, nothing is
    changed in place, samples of a batch do not depend on one another, x can be differentiated, and
    so on. The status is 1 if a law fails. A warning tells what may be wrong.

    Example: scoresde check digits-vp
    """
    from scoresde.verification import check as check_model
    from scoresde.verification.named import named_model

    from .progress import follow

    names = {key: settings.pop(key) for key in ("net", "sde")}
    with follow("check") as on_progress:
        found = named_model(model, device, **names)
        report = check_model(found, device=device, on_progress=on_progress, **settings)
    say(json.dumps(report.plain()) if as_json else report)
    if not report.passed:
        raise RuntimeError(f"failed: {', '.join(report.failures)}")
