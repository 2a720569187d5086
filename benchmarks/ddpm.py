"""Draw samples of a DDPM by its own chain, and show the chain.

    python benchmarks/ddpm.py --checkpoint runs/ddpm-mnist/checkpoint.safetensors \
        --figure out/ddpm-mnist.png

Algorithm 2 of Ho et al. 2020, arXiv:2006.11239: ancestral sampling through all indices of the table
of β, from the last one down to 0. Each column of the figure is one sample on its way from x_T, in
the first row, to x_0, in the last one.
"""

import argparse
import time
from pathlib import Path

import torch
from script import print_header, write

import scoresde
from scoresde.output.figures import new_figure, png_bytes, to_unit

SHOWN = (600, 400, 200, 100)  # k of the states x_k between x_T and x_0, if T = 1000


def main() -> None:
    """Sample, and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="a model with a table of β")
    parser.add_argument("--variance", choices=("beta", "beta_tilde"), default="beta_tilde")
    parser.add_argument("--n", type=int, default=12, help="number of samples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, required=True, help="PNG file to write")
    args = parser.parse_args()

    print_header(seed=args.seed)
    loaded = scoresde.load(args.checkpoint)
    levels = loaded.model.sde.levels
    if levels is None or len(loaded.data.shape) != 3:
        parser.error(f"--checkpoint {args.checkpoint}: must be a model of images with a table of β")
    chosen = {round(levels * k / 1000) for k in SHOWN}
    chain = {}

    def keep(_: int, t: float, x: torch.Tensor) -> None:
        if (k := round(levels * t)) in chosen:
            chain[k] = x.clone()

    began = time.perf_counter()
    sampler, ladder = scoresde.Ancestral(args.variance), loaded.model.sde.ladder()
    out = scoresde.sample(loaded.model, sampler, ladder, n=args.n, seed=args.seed, on_step=keep)
    seconds = time.perf_counter() - began
    print(f"{args.n} samples, {out.nfe} evaluations each, {sampler}, {seconds:.0f} s")
    chain = {levels: out.x_init, **chain, 0: out.x}
    write(args.figure, _figure(chain, loaded.data))


def _figure(chain: dict[int, torch.Tensor], spec: scoresde.DataSpec) -> bytes:
    """One row for each state of the chain, one column for each sample."""
    columns = min(12, len(chain[0]))
    figure = new_figure(0.5 * columns + 0.6, 0.5 * len(chain))
    axes = figure.subplots(len(chain), columns, squeeze=False)
    for row, (k, x) in zip(axes, sorted(chain.items(), reverse=True), strict=True):
        pixels = to_unit(x[:columns], spec).permute(0, 2, 3, 1).numpy()
        for ax, picture in zip(row, pixels, strict=True):
            ax.imshow(picture.squeeze(-1) if picture.shape[-1] == 1 else picture, cmap="gray")
            ax.set_axis_off()
        label = {"ha": "right", "va": "center", "transform": row[0].transAxes}
        row[0].text(-0.1, 0.5, f"$x_{{{k}}}$", **label)
    return png_bytes(figure, dpi=80)


if __name__ == "__main__":
    main()
