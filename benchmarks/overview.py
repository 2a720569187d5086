"""The README's picture, from the folder of a demo.

scoresde demo --out demo && python benchmarks/overview.py --run demo --out out/overview.png
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from scoresde._files import atomic_write
from scoresde.data import DataSpec
from scoresde.study.curves import COLOURS, MARKERS
from scoresde.study.figures import new_figure, png_bytes, to_grid
from scoresde.study.files import read_json
from scoresde.study.manifest import Manifest
from scoresde.study.records import load_array

METRICS = {"sliced_w2": "sliced W₂ to the data", "paired_rmse": "RMSE to the exact ODE solution"}


def main() -> None:
    """Draw quality and paired error against NFE, and Fashion-MNIST samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("demo"))
    parser.add_argument("--out", type=Path, default=Path("out/overview.png"))
    options = parser.parse_args()
    with open(options.run / "results.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "done"]
    figure = new_figure(13, 4.2)
    axes = figure.subplots(1, 3, width_ratios=[1, 1, 1.15])
    samplers = list(dict.fromkeys(row["sampler"] for row in rows))
    for axis, (metric, title) in zip(axes, METRICS.items(), strict=False):
        for i, name in enumerate(samplers):
            cells = [row for row in rows if row["sampler"] == name and row[metric]]
            cells.sort(key=lambda row: int(row["nfe"]))
            axis.errorbar(
                [int(row["nfe"]) for row in cells],
                [float(row[metric]) for row in cells],
                [float(row[f"{metric}_se"]) for row in cells],
                label=name.partition(":")[0] if metric == "sliced_w2" else None,
                color=COLOURS[i],
                marker=MARKERS[i],
                ms=4,
                lw=1.1,
            )
        axis.set(xscale="log", yscale="log", xlabel="network evaluations (NFE)", title=title)
        axis.set_xticks([5, 10, 20, 50, 100], [5, 10, 20, 50, 100])
        axis.grid(alpha=0.3)
    floor = read_json(options.run / "quality.json")["floor_values"]["sliced_w2"]
    axes[0].axhline(floor["value"], color="0.3", ls="--", lw=1, label="real test images")
    axes[0].legend(fontsize=7, ncols=2)
    strip = options.run / "strips" / "fashion-mnist"
    spec = DataSpec.from_dict(Manifest.read(strip).settings["data"])
    (cell,) = strip.glob("cells/dpmpp-2m--log_snr--nfe20--*.npz")
    images = spec.encode(load_array(cell, "x").long())
    axes[2].imshow(to_grid(images, spec, columns=4))
    axes[2].set(title="Fashion-MNIST, dpmpp-2m, 20 NFE")
    axes[2].axis("off")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(options.out) as file:
        file.write(png_bytes(figure))
    print(options.out)


if __name__ == "__main__":
    main()
