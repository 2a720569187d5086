"""report.html: a comparison on one page that needs no other file, no network and no script."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from string import Template

from torch import Tensor

from .._files import atomic_write
from .cell_table import cell_table
from .curves import curves, scatter
from .figures import to_grid
from .findings import TITLES, Findings
from .html import Html, html, join
from .notes import definitions, repeat
from .quality import on_levels
from .records import Result
from .summary import sentences
from .tables import best_table, likelihood_table, missing_table

__all__ = ["REPORT", "build_report"]

REPORT = "report.html"
COLUMNS = 16  # images of a strip
SHEETS = 3  # budgets whose samples are shown


def build_report(folder: Path) -> Path:
    """Write report.html from the files of a finished comparison; no network is run.

    Args:
        folder: Folder of `scoresde bench` or `scoresde demo`.

    Returns:
        The path of the report.

    Raises:
        FileNotFoundError: If the folder holds no finished comparison.
        ValueError: If one of its files is damaged.
    """
    findings = Findings.read(folder)
    title = f"Samplers compared on {findings.settings['checkpoint']}"
    sections = (
        *(_head, _curves, cell_table, missing_table, _samples, _strips),
        *(likelihood_table, definitions, repeat),
    )
    body = join((section(findings) for section in sections), "\n")
    page = Template((files(__package__) / "template.html").read_text(encoding="utf-8"))
    path = folder / REPORT
    with atomic_write(path, "w") as file:
        file.write(page.substitute(title=html("{}", title), body=body))
    return path


def _head(findings: Findings) -> Html:
    settings, spec = findings.settings, findings.spec
    title = (
        f"{len(findings.samplers)} samplers on {spec.name} under {settings['sde'].split('(')[0]}"
    )
    about = (
        f"Checkpoint {settings['checkpoint']} (SHA-256 {settings['sha256'][:12]}…) of "
        f"{spec.name}, {'×'.join(map(str, spec.shape))}, under {settings['sde']}; "
        f"n = {settings['n']} samples per cell, seed {settings['seed']}, "
        f"{'grids' if len(settings['grids']) > 1 else 'grid'} {' and '.join(settings['grids'])} "
        f"from t = 1 to {settings['t_min']:g}."
    )
    return html(
        '<h1>{}</h1>\n<p class="about">{}</p>\n<p class="summary">{}</p>\n{}',
        title,
        about,
        " ".join(sentences(findings)),
        best_table(findings),
    )


def _curves(findings: Findings) -> Html:
    metrics = findings.metrics()
    if any("paired_rmse" in result.metrics for result in findings.done):
        metrics = [*metrics, "paired_rmse"]
    parts = []
    for x, against in (("nfe", "evaluations"), ("seconds", "seconds")):
        figures = [_curve(findings, metric, x, against) for metric in metrics]
        parts.append(html("<h2>Against {}</h2>", against))
        parts.append(html('<div class="curves">{}</div>', join(figures)))
    note = html('<p class="note">Bars are one standard error.</p>')
    return join([*parts, note], "\n") if metrics else html("")


def _curve(findings: Findings, metric: str, x: str, against: str) -> Html:
    alt = (
        f"{TITLES[metric]} against {against}, one line per sampler and grid with standard errors; "
        "all values are in the table below."
    )
    words = "of deterministic samplers " if metric == "paired_rmse" else ""
    title = f"{TITLES[metric]} {words}against {against}"
    return _figure(_png(curves(findings, metric, x)), alt, title[0].upper() + title[1:])


def _samples(findings: Findings) -> Html:
    show = _shower(findings)
    if show is None:
        return html("")
    same = "Each column starts" if len(findings.spec.shape) == 3 else "All plots start"
    text = (
        f"{same} from one noise x_T. Deterministic samplers should agree with the exact solution "
        "more and more; stochastic ones go their own way."
    )
    parts = [html('<h2>Samples from the same noise</h2>\n<p class="note">{}</p>', text)]
    groups = [
        (f"Within {budget} evaluations", [r for r in findings.done if r.nfe_asked == budget])
        for budget in _shown(findings.budgets)
    ]
    groups.append(("Adaptive methods", [r for r in findings.done if r.tolerance is not None]))
    for title, results in groups:
        if results:
            parts += [html("<h3>{}</h3>", title), _sheets(findings, show, results)]
    return join(parts, "\n")


def _strips(findings: Findings) -> Html:
    parts = []
    for strip in findings.strips:
        show, settings = _shower(strip), strip.settings
        if show is None:
            continue
        parts.append(html("<h2>{}: samples from the same noise</h2>", strip.spec.name))
        text = (
            f"{settings['checkpoint']} under {settings['sde']}, {settings['n']} samples within "
            f"{', '.join(map(str, strip.budgets))} evaluations on grid "
            f"{', '.join(settings['grids'])}, seed {settings['seed']}."
        )
        parts.append(html('<p class="note">{}</p>', text))
        parts.append(join(show(strip.samples(r), f"{r.sampler} · NFE {r.nfe}") for r in strip.done))
    return join(parts, "\n")


def _sheets(findings: Findings, show: Callable[[Tensor, str], Html], results: list[Result]) -> Html:
    """The exact solution and the samples of each cell, one below the other."""
    exact, sheets = findings.exact(), []
    if exact is not None:
        sheets.append(show(on_levels(exact, findings.spec), "exact ODE solution"))
    for result in results:
        steps = f"tol {result.tolerance:g}" if result.steps is None else f"{result.steps} steps"
        label = f"{findings.name(result)} · {steps} · NFE {result.nfe}"
        sheets.append(show(findings.samples(result), label))
    kind = "sheets" if len(findings.spec.shape) == 3 else "plots"
    return html('<div class="{}">{}</div>', kind, join(sheets))


def _shower(findings: Findings) -> Callable[[Tensor, str], Html] | None:
    """How samples of these data are shown; None where they cannot be."""
    spec = findings.spec
    if len(spec.shape) == 3 and spec.shape[0] in (1, 3):

        def strip(x: Tensor, label: str) -> Html:
            buffer = io.BytesIO()
            to_grid(x[:COLUMNS], spec, COLUMNS).save(buffer, "PNG", optimize=True)
            alt = f"First {min(len(x), COLUMNS)} samples: {label}"
            return _figure(_png(buffer.getvalue()), alt, label, "sheet")

        return strip
    if spec.shape == (2,):

        def plot(x: Tensor, label: str) -> Html:
            return _figure(_png(scatter(x, spec)), f"Scatter plot: {label}", label)

        return plot
    return None


def _shown(budgets: list[int]) -> list[int]:
    """At most `SHEETS` budgets, the smallest and the largest among them."""
    if len(budgets) <= SHEETS:
        return budgets
    last = len(budgets) - 1
    return [budgets[round(i * last / (SHEETS - 1))] for i in range(SHEETS)]


def _png(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def _figure(source: str, alt: str, caption: str, kind: str = "") -> Html:
    figure = '<figure class="{}"><figcaption>{}</figcaption><img src="{}" alt="{}"></figure>'
    return html(figure, kind, _caption(caption), source, alt)


def _caption(text: str) -> Html:
    """Numbers stay with their units, and a sampler's label may break between its parameters."""
    page = join(text.split(":"), ":<wbr>")
    return Html(page.replace(" steps", "&nbsp;steps").replace("NFE ", "NFE&nbsp;"))
