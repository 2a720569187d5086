"""Restoration by a trained network: errors and calibration of methods for inverse problems.

    python benchmarks/restore.py --operator mask:box=4x4

Test images are measured with noise, and each method draws the same number of samples for each. One
row for a method:

- NFE, grad  evaluations and derivative passes per sample
- sample     PSNR of single samples, in decibel
- mean       PSNR of the mean of the samples of an image, ± its standard error over images
- y − A x    residual of the samples over the noise; the truth has 1
- 50 %, 90 % share of the true pixels inside these central intervals of the samples, ± its standard
             error; of a mask, of the hidden pixels. A calibrated method has 50 and 90.
- particles  mean of the least effective number of particles

An exact method has the best mean; its samples are 3 dB below it for many samples.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click
from script import print_header

from scoresde.tasks.restore_request import RestoreRequest
from scoresde.tasks.restoring import restore

# Method and sampler.
ROWS = (
    ("pigdm", None),
    ("pigdm", "dpmpp-2m"),
    ("ddnm", None),
    ("dps", None),
    ("dps:scale=20", None),
    ("dps:scale=1", None),
    ("ddrm", None),
    ("replacement", None),
    ("repaint", None),
    ("smc:particles=4", None),
)


def row(summary: dict[str, Any], name: str) -> str:
    """One line of the table."""
    error, noise = summary["error"], summary["residual"]["noise"]
    kinds = summary["intervals"]
    found = {r["interval"]: r for r in kinds.get("hidden", kinds.get("all", []))}
    cover = "  ".join(
        f"{100 * found[share]['value']:5.1f} ± {100 * found[share]['std_error']:3.1f}"
        for share in (0.5, 0.9)
    )
    mean = error["psnr_of_mean"]
    particles = summary.get("effective_particles")
    return (
        f"{name:<18}{summary['nfe']:>5}{summary['nfe_derivative']:>6}"
        f"{error['psnr_of_samples']['value']:8.2f}  {mean['value']:6.2f} ± {mean['std_error']:.2f}"
        f"{summary['residual']['rms'] / noise:9.2f}  {cover}"
        f"{'' if particles is None else format(particles['mean'], '9.2f')}"
    )


@click.command(help=__doc__.partition("\n")[0])
@click.option("--checkpoint", default="digits-vp", show_default=True)
@click.option("--operator", default="mask:box=4x4", show_default=True)
@click.option("--noise", type=click.FloatRange(min=0, min_open=True), default=0.05,
              show_default=True)  # fmt: skip
@click.option("--n", type=click.IntRange(min=2), default=24, show_default=True)
@click.option("--samples", type=click.IntRange(min=2), default=20, show_default=True)
@click.option("--nfe", type=click.IntRange(min=5), default=50, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def main(**settings: Any) -> None:
    """Print the table."""
    print_header(seed=settings["seed"])
    print("method              NFE  grad  sample  mean             y − A x  50 %         90 %")
    for method, sampler in ROWS:
        request = RestoreRequest(**settings, method=method, sampler=sampler)
        with tempfile.TemporaryDirectory() as folder:
            summary = restore(request, Path(folder))
        name = method if sampler is None else f"{method} {sampler}"
        print(row(summary, name), flush=True)


if __name__ == "__main__":
    main()
