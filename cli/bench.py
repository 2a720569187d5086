"""`scoresde bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options
from .command import Command
from .names import LABELS, SAMPLERS
from .output import say
from .types import Commas, Integer, Named

__all__ = ["bench"]


@click.command(cls=Command)
@options.checkpoint()
@click.option(
    "--samplers",
    type=Commas(
        Named("sampler", (*SAMPLERS, "recommended"), "comparison.labels.named_samplers", own=True)
    ),
    default="ddim,dpmpp-2m,heun,ancestral,euler-maruyama,dopri5",
    help="Names of samplers, with or without parameters, such as edm:churn=20, or your own class, "
    "package.module:Name, whose code is run. The recommended settings for each number of "
    "evaluations are always compared, too.",
)
@click.option(
    "--grids",
    type=Commas(options.GRID),
    default="log_snr",
    help="Time grids, with or without parameters, such as karras:rho=5, or JSON files.",
)
@click.option(
    "--nfe",
    type=Commas(Integer(1, 100_000)),
    default="5,10,20,50",
    help="Network evaluations per sample, the final denoising included.",
)
@click.option("--n", type=Integer(4, 1_000_000), default=256, help="Samples per cell.")
@options.out("Folder of the results; existing results of the same settings are completed.")
@options.seed
@options.device
@options.batch(256, "Samples")
@options.t_min(
    "Last time; 0 is data, 1 is noise. 1e-3 if not given, or the time of the network's first "
    "discrete label if that is later."
)
@click.option(
    "--likelihood",
    type=Integer(0),
    default=0,
    help="Measure the likelihood of this many test data, too.",
)
@click.option(
    "--labels",
    type=click.Choice(LABELS),
    default="shares",
    help="Shares of the classes among samples of a conditional model: as in its training data, "
    "or equal.",
)
@click.option(
    "--features",
    default="auto",
    help="Features in which samples are compared: auto, efficientnet_lite0 (RGB images, extra "
    "`features`), or inception:PATH or inception-clean:PATH with your file of the FID weights.",
)
@options.data_root
@options.overwrite
@options.as_json
def bench(
    out: Path, overwrite: bool, as_json: bool, net: str | None, sde: str | None, **settings: Any
) -> None:
    """Compare samplers on a checkpoint: each on each grid within each budget.

    Adaptive methods (dopri5, dopri8, ...) run once per tolerance instead. The same command resumes
    an interrupted comparison. report.html shows the result.

    Example: scoresde bench --checkpoint digits-vp --samplers ddim,heun --nfe 5,10 --out out/bench
    """
    from scoresde.comparison.findings import Findings
    from scoresde.comparison.prepare import prepare_bench
    from scoresde.comparison.request import BenchRequest
    from scoresde.comparison.summary import text_table
    from scoresde.tasks.request import StoredModel

    from .progress import follow_stages

    request = BenchRequest(**settings)
    given = StoredModel.read(request.checkpoint, net, sde)
    run = prepare_bench(request, out, given, overwrite=overwrite)
    with follow_stages(resumes=True) as tell:
        report = run.run(tell)
    if as_json:
        click.echo((out / "results.json").read_text(encoding="utf-8"), nl=False)
        return
    say(text_table(Findings.read(out)))
    say(report)
