"""`scoresde sample`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import options
from .command import Command
from .names import GRIDS, SAMPLERS
from .output import say, share_in_words
from .types import Integer

__all__ = ["sample"]


WEAK_COST = "at most 2 NFE per evaluation, 1 at scale 1"
CLASSIFIER_COST = "1 NFE per evaluation, and a derivative pass of the classifier"


@click.command(cls=Command)
@options.checkpoint()
@click.option(
    "--sampler",
    type=options.SAMPLER,
    help="The recommended one for --nfe, if not given. Name, or with parameters ddim:eta=0.5 or "
    f"dopri5:rtol=1e-4; {', '.join(SAMPLERS)}.",
)
@click.option(
    "--grid",
    type=options.GRID,
    help="Time grid; the recommended one, if not given. Name, or with parameters karras:rho=5 and "
    f"last time uniform:t_min=0.05, or a JSON file of times; {', '.join(GRIDS)}.",
)
@click.option(
    "--steps",
    type=Integer(1, 1_000_000, note=": a grid takes about 500 bytes per step"),
    help="Intervals of the time grid, instead of --nfe.",
)
@click.option(
    "--nfe",
    type=Integer(1, 100_000),
    help="As many steps as this many evaluations allow; 20 if not given.",
)
@click.option("--n", type=Integer(1), default=64, help="Number of samples.")
@options.batch(256, "Samples")
@options.seed
@options.t_min(
    "Last time; 0 is data, 1 is noise. If not given: that of the recommended grid, or "
    "1e-3 for a named grid without its own."
)
@click.option(
    "--denoise/--no-denoise", default=True, help="Finish with E[x0 | x], one more evaluation."
)
@click.option("--label", help="Class of all samples, its name or number; else all in turn.")
@click.option(
    "--condition",
    metavar="FILE",
    help="Condition of the samples, a .npy or .npz file of one row for all or of n rows.",
)
@click.option(
    "--guidance",
    type=options.GUIDANCE,
    help="Scale of classifier-free guidance, 1 for none, with parameters such as "
    "2:rescale=0.7:low=0.2:high=5:threshold=0.995; or apg:scale=3, auto:scale=2:weak=FILE with a "
    "weaker checkpoint, classifier:scale=2:checkpoint=FILE with a classifier of noisy data.",
)
@options.dtype("bfloat16 is for the network alone.", "bfloat16")
@options.device
@options.compiled
@options.shard
@options.results("Folder for samples.npz, samples.csv, grid.png and summary.json.")
def sample(
    out: Path, overwrite: bool, as_json: bool, shard: tuple[int, int] | None, **settings: Any
) -> None:
    """Draw samples from a checkpoint, in the units of its training data.

    The number of evaluations is enough: sampler, grid and last time are then the recommended ones.
    The same command continues a run that was stopped.

    Example: scoresde sample --checkpoint digits-vp --nfe 20 --out out/digits
    """
    from scoresde.output.shared_work import Share
    from scoresde.tasks.sample_request import SampleRequest
    from scoresde.tasks.sampling import draw_samples

    from .progress import follow_shared

    request = SampleRequest(**settings)
    with follow_shared("sample", request.device) as (ranks, on_progress):
        summary = draw_samples(request, out, overwrite, on_progress, Share(ranks, shard))
    if ranks.writes:
        say(json.dumps(summary) if as_json else _in_words(summary, out))


WHY_EARLIER = ", where λ = −6: at t = 1 the sampler or the network is not regular"


def _in_words(summary: dict[str, Any], out: Path) -> str:
    """Number of samples, sampler and cost, and the files."""
    if "shard" in summary:
        return share_in_words(summary, out)
    steps = f"{summary['steps']} steps of {summary['grid']}"
    if summary["steps"] is None:
        steps = "its own steps"
    if summary["snapped"]:
        steps += " on the network's discrete times"
    lines = [
        f"{summary['n']} samples by {summary['sampler']} in {steps}: "
        f"{summary['nfe']} NFE counted, {summary['seconds']:.1f} s"
    ]
    if summary.get("guidance") is not None:
        by_classifier = summary["guidance"].startswith("classifier")
        cost = CLASSIFIER_COST if by_classifier else WEAK_COST
        lines.append(f"guidance {summary['guidance']}: {cost}")
    if "t_start" in summary:
        first, std = summary["t_start"], summary["start_std"]
        lines.append(
            f"started at t = {first:.6g} from N(0, {std:.6g}²)" + WHY_EARLIER * (first < 1)
        )
    if summary["recommended"]:
        chosen = " and ".join(summary["recommended"])
        lines.append(f"recommended {chosen}; --sampler, --grid and --nfe give others")
    if summary["nfe_per_sample"]:
        least, most = summary["nfe_per_sample"]
        lines.append(f"{least} to {most} NFE per sample (sample_evaluations in samples.npz)")
    if summary.get("latent_shape") is not None:
        shape = "×".join(map(str, summary["latent_shape"]))
        lines.append(f"x decoded from latents of {shape}; NFE count the score network alone")
    elif summary.get("transform") is not None:
        lines.append("x in the units of the training data; scaled: at the model's scale")
    return "\n".join([*lines, *(str(out / name) for name in summary["files"])])
