"""report.html: a comparison on one page that needs no other file and no network.

templates/ holds the text and the tables; this module prepares their values. The templates escape
every value, because names of files, checkpoints and data may come from an unknown source. The only
script sorts and filters a table and copies settings; the page forbids all others. Without it the
page shows the same.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from .._files import atomic_write
from .._text import printable
from ..data import DataSpec
from ..output.figures import png_bytes, to_grid
from ..output.result_folder import claim
from ..output.tiles import can_show, in_tiles, sample_figure
from .answers import answer_rows, explained
from .checked import LABELS
from .curves import AXES, curves, scatter
from .decomposition import Decomposition
from .findings import Findings
from .metric_table import METRICS
from .noise_levels import NoiseLevels
from .plots import Drawn
from .quality import on_levels
from .records import CellResult
from .repeating import every_setting, repeating_command
from .summary import estimate_text, fault, likelihood_text, remarks, short_name
from .tables import latex, markdown
from .trajectory import Trajectories

__all__ = ["REPORT", "build_report", "render", "report_files"]

REPORT = "report.html"
STRIP = 16  # images of a strip
TILES = 8  # of other data, in two rows
MORE = ("trajectory", "noise_levels")  # figures beside those of the metrics
SHEETS = 3  # budgets whose samples are shown


class Picture(NamedTuple):
    """A picture of the page.

    Attributes:
        alt: Description of the picture for readers who cannot see it.
        caption: Title of the picture on the page.
        source: A PNG file as a data URL; empty for a drawing.
        drawing: An SVG element; None for a PNG file.
    """

    alt: str
    caption: str
    source: str = ""
    drawing: Markup | None = None

    @classmethod
    def of(cls, png: bytes, alt: str, caption: str) -> Picture:
        """The figure of a PNG file."""
        return cls(alt, caption, "data:image/png;base64," + base64.b64encode(png).decode("ascii"))


def report_files(metrics: Iterable[str] = METRICS) -> list[str]:
    """Names of all files that `build_report` writes for a comparison with these metrics."""
    wanted = set(metrics)
    figures = [
        f"figures/{metric}-{x}.{kind}"
        for metric in METRICS
        if metric in wanted and METRICS[metric].better
        for x in AXES
        for kind in Drawn._fields
    ]
    more = [f"figures/{name}.{kind}" for name in MORE for kind in Drawn._fields]
    return [REPORT, "results.md", "results.tex", *figures, *more]


def build_report(folder: Path) -> Path:
    """Write report.html from the files of a finished comparison; no network is run.

    The same tables and figures are written beside it: results.md, results.tex, and in figures/
    each figure as SVG and PDF.

    Args:
        folder: Folder of `scoresde bench` or `scoresde demo`.

    Returns:
        The path of the report.

    Raises:
        FileNotFoundError: If the folder holds no finished comparison.
        ValueError: If one of its files is damaged, or a file that is to be written exists already
            and is not of scoresde.
    """
    findings = Findings.read(folder)
    ranking = [metric for metric in findings.measured if METRICS[metric].better]
    drawn = {(metric, x): curves(findings, metric, x) for metric in ranking for x in AXES}
    measured = zip(MORE, (Trajectories.read(folder), NoiseLevels.read(folder)), strict=True)
    more = {name: (found, found.figure) for name, found in measured if found is not None}
    contents = {"results.md": markdown(findings), "results.tex": latex(findings)}
    contents[REPORT] = _page(findings, drawn, more)
    claim(folder, report_files(ranking))
    figures = {f"{metric}-{x}": figure for (metric, x), figure in drawn.items()}
    for figure_name, figure in (figures | {name: f for name, (_, f) in more.items()}).items():
        for kind, content in figure._asdict().items():
            path = folder / "figures" / f"{figure_name}.{kind}"
            path.parent.mkdir(exist_ok=True)
            with atomic_write(path) as file:
                file.write(content)
    for name, text in contents.items():
        with atomic_write(folder / name, "w") as file:
            file.write(text)
    return folder / REPORT


def _page(
    findings: Findings, drawn: dict[tuple[str, str], Drawn], more: dict[str, tuple[Any, Drawn]]
) -> str:
    """The text of report.html."""
    answers = answer_rows(findings)
    return render(
        "page.html",
        findings=findings,
        settings=findings.settings,
        spec=findings.spec,
        titles={name: metric.title for name, metric in METRICS.items()},
        meanings=_meanings(findings),
        labels=LABELS,
        answers=answers,
        terms=explained(answers),
        fault=fault(findings),
        remarks=remarks(findings),
        likelihood=likelihood_text(findings),
        budget=_likelihood_budget(findings),
        parts=_parts(findings),
        **{name: _shown(name, *more[name]) if name in more else None for name in MORE},
        cells=_cells(findings),
        curves=_curves(drawn),
        samples=_samples(findings),
        strips=[(strip, _strip(strip)) for strip in findings.strips if can_show(strip.spec)],
        command=repeating_command(findings),
        every_setting=every_setting(findings),
    )


def render(template: str, **values: Any) -> str:
    """A page from a file in templates/; every value is made printable and escaped."""
    environment = _environment()
    script, _, _ = environment.loader.get_source(environment, "script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src 'sha256-{digest}'"
    )
    page = environment.get_template(template)
    return page.render(**values, script=Markup(script), policy=Markup(policy))


@cache
def _environment() -> Environment:
    """The templates; every value in them is made printable and escaped."""
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"label": _label, "caption": _caption, "number": estimate_text}
    return environment


def _printable(value: object) -> object:
    return value if isinstance(value, Markup) else printable(str(value))


def _label(text: str) -> Markup:
    """A sampler's label, which may break after a colon."""
    return Markup(":<wbr>").join(map(printable, text.split(":")))


def _caption(text: str) -> Markup:
    """A label whose numbers stay on one line with their units."""
    space = Markup("&nbsp;")
    return _label(text).replace(" steps", space + "steps").replace("NFE ", "NFE" + space)


def _meanings(findings: Findings) -> dict[str, str]:
    """Title and meaning of the measured metrics of which the page says nothing else."""
    known = ("paired_rmse", "mmd2", "frechet", "sliced_w2")
    more = [METRICS[name] for name in findings.columns if name not in known]
    return {metric.title: metric.meaning for metric in more}


def _likelihood_budget(findings: Findings) -> list[str]:
    """The lines of the error budget of the likelihood; empty without one."""
    path = findings.folder / "likelihood" / "budget.txt"
    if findings.likelihood is None or not path.is_file():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _parts(findings: Findings) -> list[tuple[int, str, Decomposition]]:
    """Budget, name and parts of the error of each cell to take that has such parts."""
    found = []
    for budget in findings.budgets:
        answer = findings.answer(budget)
        split = None if answer is None else findings.decomposition(answer.cell)
        if split is not None:
            found.append((budget, short_name(findings, answer.cell), split))
    return found


def _cells(findings: Findings) -> list[CellResult]:
    """Measured cells: for each budget, the best by the first metric first; then adaptive ones."""
    order = (*findings.columns, "")[0]

    def rank(cell: CellResult) -> float:
        sign = METRICS[order].sign if order else 1
        return sign * cell.metrics[order].value if order in cell.metrics else cell.nfe

    groups = [sorted(findings.within(budget), key=rank) for budget in findings.budgets]
    return [cell for cells in (*groups, findings.adaptive) for cell in cells]


def _shown(name: str, found: Trajectories | NoiseLevels, figure: Drawn) -> dict[str, Any]:
    """The figure of an additional measurement, and what the page says of it."""
    what = {"trajectory": "the state after each step", "noise_levels": "the predicted noise"}[name]
    alt = f"Error of {what} against the noise level. {found.text}"
    return {"figure": Picture(alt, f"Error of {what}", drawing=figure.inline), "found": found}


def _curves(drawn: dict[tuple[str, str], Drawn]) -> list[Picture]:
    """Each metric against evaluations, and the first and the paired error against seconds, too.

    The other figures against seconds say little more, and are in the folder.
    """
    first = next(iter(drawn), ("", ""))[0]
    shown = [(m, x) for m, x in drawn if x == "nfe" or m in (first, "paired_rmse")]
    return [_curve(metric, x, drawn[metric, x]) for metric, x in shown]


def _curve(metric: str, x: str, figure: Drawn) -> Picture:
    against = "evaluations" if x == "nfe" else "seconds"
    alt = (
        f"{METRICS[metric].title} against {against}, one line per sampler and grid with 95 % "
        "intervals; all values are in the table below."
    )
    words = "of deterministic samplers " if metric == "paired_rmse" else ""
    title = f"{METRICS[metric].title} {words}against {against}"
    return Picture(alt, title[0].upper() + title[1:], drawing=figure.inline)


def _samples(findings: Findings) -> list[tuple[str, list[Picture]]]:
    """Figures of the samples of some budgets and of adaptive methods, by title."""
    if not can_show(findings.spec):
        return []
    cells = _cells(findings)
    groups = [
        (f"Within {budget} evaluations", [cell for cell in cells if cell.nfe_asked == budget])
        for budget in _some(findings.budgets)
    ]
    groups.append(("Adaptive methods", findings.adaptive))
    return [(title, _sheets(findings, cells)) for title, cells in groups if cells]


def _sheets(findings: Findings, cells: list[CellResult]) -> list[Picture]:
    """The exact solution, if there is one, and the samples of each cell."""
    spec, exact, sheets = findings.spec, findings.exact(), []
    if exact is not None:
        sheets.append(_picture(spec, on_levels(exact, spec), "exact ODE solution"))
    for cell in cells:
        steps = (
            f"tol {cell.tolerance:g}"
            if cell.steps is None
            else f"{cell.steps} step{'' if cell.steps == 1 else 's'}"
        )
        label = f"{short_name(findings, cell)} · {steps} · NFE {cell.nfe}"
        sheets.append(_picture(spec, findings.samples(cell), label))
    return sheets


def _strip(strip: Findings) -> list[Picture]:
    """Samples of each cell of a comparison shown beside this one."""
    return [
        _picture(strip.spec, strip.samples(cell), f"{cell.sampler} · NFE {cell.nfe}")
        for cell in strip.done
    ]


def _picture(spec: DataSpec, x: Tensor, label: str) -> Picture:
    """Images or other tiles side by side, points in the plane, or histograms of vectors."""
    if spec.shape == (2,):
        outside = int(((x < spec.low) | (x > spec.high)).any(1).sum())
        label += f" · {outside} of {len(x)} outside" if outside else ""
        return Picture.of(scatter(x, spec), f"Scatter plot: {label}", label)
    if not spec.is_image:
        shown = x[:TILES] if in_tiles(spec) else x
        png = png_bytes(sample_figure(shown, spec, columns=TILES // 2))
        what = f"First {len(shown)} samples" if in_tiles(spec) else "Histograms of samples"
        return Picture.of(png, f"{what}: {label}", label)
    buffer = io.BytesIO()
    to_grid(x[:STRIP], spec, STRIP).save(buffer, "PNG", optimize=True)
    return Picture.of(buffer.getvalue(), f"First {min(len(x), STRIP)} samples: {label}", label)


def _some(budgets: list[int]) -> list[int]:
    """At most `SHEETS` budgets, including the smallest and the largest."""
    if len(budgets) <= SHEETS:
        return budgets
    last = len(budgets) - 1
    return [budgets[round(i * last / (SHEETS - 1))] for i in range(SHEETS)]
