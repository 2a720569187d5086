"""The README's picture, from the folder of a demo.

scoresde demo --out demo && python benchmarks/overview.py --run demo --out out/overview.png
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import click
from script import write

from scoresde.comparison.records import load_array
from scoresde.data import DataSpec
from scoresde.output.figures import line_style, new_figure, png_bytes, to_grid
from scoresde.output.files import read_json
from scoresde.output.manifest import Manifest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRICS = {"sliced_w2": "sliced W₂ to the data", "paired_rmse": "RMSE to the exact ODE solution"}
TICKS = [5, 10, 20, 50, 100]


def draw_metric(axes: Axes, rows: list[dict[str, str]], metric: str) -> None:
    """A metric against NFE, one line per sampler."""
    for i, name in enumerate(dict.fromkeys(row["sampler"] for row in rows)):
        cells = [row for row in rows if row["sampler"] == name and row[metric]]
        cells.sort(key=lambda row: int(row["nfe"]))
        axes.errorbar(
            [int(row["nfe"]) for row in cells],
            [float(row[metric]) for row in cells],
            [float(row[f"{metric}_se"]) for row in cells],
            label=name.partition(":")[0],
            ms=4,
            lw=1.1,
            **line_style(i),
        )
    axes.set(xscale="log", yscale="log", xlabel="network evaluations (NFE)", title=METRICS[metric])
    axes.set_xticks(TICKS, TICKS)
    axes.grid(alpha=0.3)


def draw_images(axes: Axes, strip: Path) -> None:
    """Samples of Fashion-MNIST."""
    spec = DataSpec.from_dict(Manifest.read(strip).settings["data"])
    (cell,) = strip.glob("cells/dpmpp-2m--log_snr--nfe20--*.npz")
    images = spec.encode(load_array(cell, "x").long())
    axes.imshow(to_grid(images, spec, columns=4))
    axes.set(title="Fashion-MNIST, dpmpp-2m, 20 NFE")
    axes.axis("off")


@click.command(help=__doc__.partition("\n")[0])
@click.option("--run", type=click.Path(path_type=Path), default="demo", show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), default="out/overview.png", show_default=True
)
def main(run: Path, out: Path) -> None:
    """Draw quality and paired error against NFE, and Fashion-MNIST samples."""
    with open(run / "results.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "done"]
    figure = new_figure(13, 4.2)
    quality, error, images = figure.subplots(1, 3, width_ratios=[1, 1, 1.15])
    draw_metric(quality, rows, "sliced_w2")
    draw_metric(error, rows, "paired_rmse")
    floor = read_json(run / "quality.json")["floor_values"]["sliced_w2"]
    quality.axhline(floor["value"], color="0.3", ls="--", lw=1, label="real test images")
    quality.legend(fontsize=7, ncols=2)
    draw_images(images, run / "strips" / "fashion-mnist")
    write(out, png_bytes(figure))
    print(out)


if __name__ == "__main__":
    main()
