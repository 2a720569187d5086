"""`scoresde bench`."""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from scoresde.shipped import comparison_template

from . import options
from .command import Command, refuse_torchrun
from .lookups import ClassPlace, Named, NamedCheckpoint
from .names import DEFAULT_METRICS, LABELS, QUALITY_METRICS, SAMPLERS
from .option_file import option_file
from .output import say
from .types import Commas, Duration, Integer, OrNone, Real, Shard

if TYPE_CHECKING:
    from scoresde.comparison.prepare import Bench
    from scoresde.distributed import Ranks

__all__ = ["KEYS", "bench"]

# Options that the file of --config may give.
KEYS = (
    *(
        "checkpoint",
        "net",
        "sde",
        "samplers",
        "grids",
        "nfe",
        "n",
        "seeds",
        "t_min",
        "labels",
        "guidance",
    ),
    *("likelihood", "features", "metrics", "reference_tolerance", "batch", "device", "data"),
    *("data_root", "out"),
)


def _print_template(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
    """Print a config with all keys, and end."""
    if asked and not ctx.resilient_parsing:
        click.echo(comparison_template(), nl=False)
        ctx.exit()


class BenchCommand(Command):
    """The command, with its options in groups."""

    groups = {
        "What is compared": [
            *("--config", "--new-config", "--checkpoint", "--net", "--sde", "--samplers"),
            *(
                "--grids",
                "--nfe",
                "--t-min",
                "--n",
                "--seeds",
                "--labels",
                "--guidance",
                "--likelihood",
            ),
            *("--features", "--metrics", "--reference-tolerance", "--data", "--data-root"),
        ],
        "How it is computed": [
            *("--plan", "--time-limit", "--shard", "--reuse", "--batch", "--device"),
            "--compile",
        ],
    }


@click.command(cls=BenchCommand)
@option_file(
    "comparisons", KEYS, "A TOML file whose keys are these options, or a shipped one by name."
)
@click.option(
    "--new-config",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_template,
    help="Print a commented file for --config with every key, and end.",
)
@click.option(
    "--checkpoint",
    required=True,
    multiple=True,
    type=NamedCheckpoint(),
    help="A checkpoint file, or a shipped one by name; A=path names it A. Repeatable.",
)
@click.option(
    "--net",
    type=ClassPlace("network"),
    help="Class of the checkpoints' network if it is your own, package.module:Name, with "
    "parameters package.module:Name:key=value. This runs the code of that module.",
)
@click.option("--sde", type=ClassPlace("SDE"), help="Class of their SDE if it is your own.")
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
    help="Time grids, with or without parameters, such as karras:rho=5, or JSON files. "
    "karras and karras:ladder=true show what labels between the trained ones of a discrete network "
    "cost.",
)
@click.option(
    "--nfe",
    type=Commas(Integer(1, 100_000)),
    default="5,10,20,50",
    help="Network evaluations per sample, the final denoising included.",
)
@click.option("--n", type=Integer(4, 1_000_000), default=256, help="Samples per cell.")
@options.out(
    "Folder of the results; existing results of the same settings are completed. Only --plan needs "
    "none.",
    required=False,
)
@click.option(
    "--seeds",
    type=Commas(Integer(0, 2**64 - 1)),
    default="0",
    help="Seeds of all random numbers; each gives tables of its own, and their mean is shown.",
)
@options.device
@options.batch(256, "Samples")
@options.compiled
@click.option(
    "--t-min",
    type=Commas(options.OPEN_UNIT),
    help="Last times; 0 is data, 1 is noise. 1e-3 if not given, or the time of the network's first "
    "discrete label if that is later.",
)
@click.option(
    "--likelihood",
    type=Integer(0),
    default=0,
    help="Measure the likelihood of this many test data, too.",
)
@click.option(
    "--labels",
    type=Commas(Named("labels", LABELS)),
    default="shares",
    help="Shares of the classes among samples of a conditional model: as in its training data "
    "(shares), or equal (uniform).",
)
@click.option(
    "--guidance",
    type=Commas(options.GUIDANCE),
    help="Scales of classifier-free guidance, such as 1,2,4, or other guidance as for `sample`; "
    "each gives tables of its own, and the page shows quality and diversity against the scale.",
)
@click.option(
    "--features",
    default="auto",
    help="Features in which samples are compared: auto (of pixels or coordinates, for digits and "
    "Fashion-MNIST with those of a classifier), cnn (that classifier alone), efficientnet_lite0 "
    "(RGB images, extra `features`), or inception:PATH, inception-clean:PATH or dinov2:PATH with "
    "your file of the weights for FID or FD-DINOv2. :statistics=FILE:n=50000 at the end compares "
    "Fréchet distances with published statistics of 50,000 images.",
)
@click.option(
    "--metrics",
    type=Commas(Named("metric", QUALITY_METRICS)),
    default=",".join(DEFAULT_METRICS),
    help="Metrics of the samples beside real data; any of "
    f"{', '.join(m for m in QUALITY_METRICS if m not in DEFAULT_METRICS)} as well.",
)
@click.option(
    "--reference-tolerance",
    type=OrNone(Real(0, 0.1, min_open=True, max_open=True)),
    help="rtol = atol of the exact solution of the ODE, with which deterministic samplers are "
    "compared; 1e-6 if not given. none leaves it out.",
)
@click.option(
    "--plan",
    is_flag=True,
    help="Print the plan with its expected time, and end; with --out, of what is left to do there.",
)
@click.option(
    "--time-limit",
    type=Duration(),
    help="End in this time, such as 10m, with a report of what is done; the same command goes on.",
)
@click.option("--shard", type=Shard(), help="Measure the i-th of n shares; see `scoresde merge`.")
@click.option(
    "--reuse",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of another comparison, whose cells and exact solutions are used where everything "
    "that determines them is the same. Repeatable.",
)
@options.data
@options.data_root
@options.overwrite
@options.as_json
def bench(
    config: str | None,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    plan: bool,
    **settings: Any,
) -> None:
    """Compare samplers on checkpoints: each on each grid within each budget.

    Adaptive methods (dopri5, dopri8, ...) run once per tolerance instead. The same command resumes
    an interrupted comparison. report.html shows the result. A model of another library needs
    --data; without it, samples are compared with the exact solution only. All options but those of
    one call can stand in a file, see --new-config.

    Example: scoresde bench --checkpoint digits-vp --samplers ddim,heun --nfe 5,10 --out out/bench
    """
    from scoresde.comparison.expected import plan_of, plan_sentence

    from .progress import follow_cells

    if plan:
        refuse_torchrun("bench --plan")
        _print_plan(out, overwrite, as_json, settings)
        return
    if out is None:
        raise click.UsageError(
            "--out: must be given. Folder of the results; only --plan needs none."
        )
    with follow_cells(settings["device"]) as (ranks, tell):
        made = _prepared(out, overwrite, settings, ranks)
        if ranks.writes and not made.finished:
            say(plan_sentence(plan_of(made.cases)), err=True)
        report = made.run(tell)
    if ranks.writes:
        _show(made, report, as_json)


def _print_plan(out: Path | None, overwrite: bool, as_json: bool, settings: dict[str, Any]) -> None:
    """Print every cell with its expected seconds; without a folder, as for an empty one."""
    from scoresde.comparison.expected import plan_of, plan_table

    with TemporaryDirectory() as empty:
        made = _prepared(out or Path(empty), overwrite, settings)
        expected = plan_of(made.cases)
    say(json.dumps(expected, indent=2) if as_json else plan_table(expected))


def _prepared(
    out: Path, overwrite: bool, settings: dict[str, Any], ranks: Ranks | None = None
) -> Bench:
    """The checked comparison of the options; `ranks` are the processes that run it together."""
    from scoresde.comparison.data import OwnData, data_in_words
    from scoresde.comparison.prepare import BenchModel, Portion, prepare_bench
    from scoresde.comparison.request import BenchRequest
    from scoresde.tasks.request import StoredModel

    net, sde, data, shard, limit, reuse, tolerance = (
        settings.pop(name)
        for name in ("net", "sde", "data", "shard", "time_limit", "reuse", "reference_tolerance")
    )
    if tolerance is not None:
        settings["reference_tolerance"] = None if tolerance == "none" else tolerance
    request = BenchRequest(**settings)
    models, own = {}, cache(partial(OwnData.load, data, request.data_root))
    for name, path in request.checkpoint.items():
        given = StoredModel.read(path, net, sde)
        models[name] = BenchModel(given, OwnData() if data is None else own(given.decoded_spec))
    portion = Portion(shard, limit, reuse, *([] if ranks is None else [ranks]))
    made = prepare_bench(request, out, models, overwrite=overwrite, portion=portion)
    for name, model in models.items():
        silent = ranks is not None and not ranks.writes
        if model.own.train is None and model.given.data_source is None and not silent:
            say(
                f"{name} does not say what it was trained on, so that its samples are not compared "
                f"with data; --data needs {data_in_words(model.given.decoded_spec)}",
                err=True,
            )
    return made


def _show(made: Bench, report: Path, as_json: bool) -> None:
    """Print the results of all cases, and what is left to do."""
    from scoresde.comparison.summary import text_table

    found = made.findings
    if as_json:
        texts = {
            n: (f.folder / "results.json").read_text(encoding="utf-8") for n, f in found.items()
        }
        cases = {name: json.loads(text) for name, text in texts.items()}
        click.echo(texts[""] if "" in texts else json.dumps({"cases": cases}, indent=2), nl=False)
    else:
        for name, findings in found.items():
            say(f"{name}\n{text_table(findings)}".lstrip())
        say(report)
    if made.left:
        what = "cell is" if made.left == 1 else "cells are"
        say(f"the time is over: {made.left} {what} left; the same command goes on", err=True)
