"""The pictures of the README, from the folder of a demo.

    scoresde demo --out demo && python benchmarks/gallery.py --run demo --out out/gallery

It writes four pictures:

- overview.png: distance to real digits, and error to the exact solution of the ODE, against
  evaluations of the network;
- strips.png: samples from the same noise with few evaluations, one row for each sampler;
- answer.png: the beginning of the demo's page, as the browser Chromium shows it. Without a
  Chromium the script says so and leaves this picture out;
- checkpoints.png: samples of every shipped checkpoint with the recommended settings.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click
from PIL import Image
from script import print_header, write

import scoresde
from scoresde.comparison.findings import Findings
from scoresde.comparison.labels import RECOMMENDED
from scoresde.output.figures import line_style, new_figure, png_bytes, to_grid
from scoresde.shipped import shipped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from scoresde.data import DataSpec

METRICS = {"sliced_w2": "sliced W₂ to real digits", "paired_rmse": "RMSE to the exact ODE solution"}
TICKS = [5, 10, 20, 50, 100]
SHOWN = 10  # samples in a row
EVALUATIONS = 20  # of the samples of the checkpoints
LINE = (36 * SHOWN, 36)  # pixels of a row
PAGE = (1000, 920)  # pixels
BLACK = "#000000"
FEW = 96  # colours of a picture, which make its file small
Rows = dict[str, tuple["Tensor", "DataSpec"]]


def draw_metric(axes: Axes, findings: Findings, metric: str) -> None:
    """A metric with its standard error against evaluations, one line for each sampler."""
    others = [name for name in findings.samplers if name != RECOMMENDED]
    for i, name in enumerate([RECOMMENDED, *others]):
        cells = [c for c in findings.done if c.sampler == name and metric in c.metrics]
        cells.sort(key=lambda cell: cell.nfe)
        values = [cell.metrics[metric] for cell in cells]
        if not cells:
            continue
        style = {"lw": 1.1, "ms": 4, **line_style(i)}
        if name == RECOMMENDED:
            style |= {"lw": 2.4, "ms": 6, "color": "black"}
        elif style["color"] == BLACK:
            style["color"] = "0.6"
        axes.errorbar(
            [cell.nfe for cell in cells],
            [estimate.value for estimate in values],
            [estimate.std_error for estimate in values],
            label=name,
            **style,
        )
    axes.set(xscale="log", yscale="log", xlabel="network evaluations (NFE)", title=METRICS[metric])
    axes.set_xticks(TICKS, TICKS)
    axes.grid(alpha=0.3)


def overview(findings: Findings) -> bytes:
    """Distance to the data and error to the exact solution."""
    figure = new_figure(10, 4.4)
    quality, error = figure.subplots(1, 2)
    draw_metric(quality, findings, "sliced_w2")
    draw_metric(error, findings, "paired_rmse")
    floor = findings.floor["sliced_w2"].value
    quality.axhline(floor, color="0.3", ls="--", lw=1, label="real test digits")
    quality.legend(fontsize=8, ncols=2)
    return small(png_bytes(figure))


def small(png: bytes) -> bytes:
    """The same picture with few colours."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(FEW).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def few_evaluations(findings: Findings) -> Rows:
    """The samples with the fewest evaluations, by title: of grid samplers, and exact."""
    budget = findings.budgets[0]
    rows = {cell.sampler: findings.samples(cell) for cell in findings.within(budget)}
    exact = findings.exact()
    if exact is not None:
        rows = {"exact solution": exact, **rows}
    return {name: (x[:SHOWN], findings.spec) for name, x in rows.items()}


def picture(columns: dict[str, Rows], width: float = 10.0) -> bytes:
    """Rows of samples with their names, in one or more columns of equal height."""
    figure = new_figure(width, 0.3 + width / len(columns) / 13 * max(map(len, columns.values())))
    parts = figure.subplots(1, len(columns), squeeze=False)[0]
    for axes, (title, rows) in zip(parts, columns.items(), strict=True):
        lines = [to_grid(x, spec, len(x)).resize(LINE) for x, spec in rows.values()]
        sheet = Image.new("RGB", (LINE[0], LINE[1] * len(lines)))
        for i, line in enumerate(lines):
            sheet.paste(line, (0, LINE[1] * i))
        axes.imshow(sheet)
        axes.set_title(title, fontsize=9)
        axes.set_yticks([LINE[1] * (i + 0.5) for i in range(len(lines))], rows, fontsize=8)
        axes.tick_params(length=0)
        axes.set_xticks([])
        axes.set_frame_on(False)
    return png_bytes(figure)


def strips(findings: Findings) -> bytes:
    """Digits and the images of the strips, from the same noise."""
    columns = {
        f"{one.spec.name}, {one.budgets[0]} evaluations": few_evaluations(one)
        for one in (findings, *findings.strips)
    }
    return small(picture(columns))


def checkpoints() -> bytes:
    """Samples of every shipped checkpoint."""
    rows: Rows = {}
    for name in shipped("checkpoints"):
        loaded = scoresde.load(name)
        rows[name] = (scoresde.sample(loaded.model, n=SHOWN, nfe=EVALUATIONS).x, loaded.data)
    return picture({f"recommended settings, {EVALUATIONS} evaluations": rows}, width=6.0)


def answer(page: Path) -> bytes | None:
    """A picture of the beginning of a page; None without a browser."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "answer.png"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += [f"--user-data-dir={folder}/profile", f"--screenshot={shot}"]
        options += [f"--window-size={PAGE[0]},{PAGE[1]}", page.resolve().as_uri()]
        subprocess.run([browser, *options], check=True, capture_output=True, timeout=120)
        return small(shot.read_bytes())


@click.command(help=__doc__.partition("\n")[0])
@click.option("--run", type=click.Path(path_type=Path), default="demo", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default="out/gallery", show_default=True)
def main(run: Path, out: Path) -> None:
    """Write the pictures."""
    print_header()
    findings = Findings.read(run)
    pictures = {
        "overview": overview(findings),
        "strips": strips(findings),
        "answer": answer(run / "report.html"),
        "checkpoints": checkpoints(),
    }
    for name, content in pictures.items():
        if content is None:
            print(f"{name}.png: left out, because there is no Chromium")
            continue
        write(out / f"{name}.png", content)
        print(f"{out / name}.png: {len(content) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
