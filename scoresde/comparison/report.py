"""report.html: a comparison on one page that needs no other file, no network and no script.

templates/ holds the text and the tables; this module prepares their values. The templates escape
every value, because names of files, checkpoints and data may come from an unknown source.
"""

from __future__ import annotations

import base64
import io
import shlex
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from .._files import atomic_write
from .._text import printable
from ..data import DataSpec
from ..output.figures import to_grid
from ..output.pictures import can_show
from .checked import LABELS
from .curves import curves, scatter
from .feature_choice import AUTO
from .findings import Findings
from .measures import DEFAULT_METRICS
from .metric_table import METRICS
from .quality import on_levels
from .ranking import Ranking
from .records import CellResult
from .summary import estimate_text, likelihood_text, sentences

__all__ = ["REPORT", "build_report", "render"]

REPORT = "report.html"
STRIP = 16  # images of a strip
SHEETS = 3  # budgets whose samples are shown


class Picture(NamedTuple):
    """An image of the page.

    Attributes:
        source: The PNG file as a data URL.
        alt: Description of the picture for readers who cannot see it.
        caption: Title of the picture on the page.
    """

    source: str
    alt: str
    caption: str

    @classmethod
    def of(cls, png: bytes, alt: str, caption: str) -> Picture:
        """The figure of a PNG file."""
        return cls("data:image/png;base64," + base64.b64encode(png).decode("ascii"), alt, caption)


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
    ranked = [metric for metric in ("mmd2", "paired_rmse") if metric in findings.measured]
    text = render(
        "page.html",
        findings=findings,
        settings=findings.settings,
        spec=findings.spec,
        titles={name: metric.title for name, metric in METRICS.items()},
        meanings=_meanings(findings),
        labels=LABELS,
        summary=sentences(findings),
        likelihood=likelihood_text(findings),
        ranked=ranked,
        best=_best(findings, ranked),
        groups=_groups(findings),
        curves=_curves(findings),
        samples=_samples(findings),
        strips=[(strip, _strip(strip)) for strip in findings.strips if can_show(strip.spec)],
        command=_command(findings),
        every_setting=_every_setting(findings),
    )
    path = folder / REPORT
    with atomic_write(path, "w") as file:
        file.write(text)
    return path


def render(template: str, **values: Any) -> str:
    """A page from a file in templates/; every value is made printable and escaped."""
    return _environment().get_template(template).render(**values)


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


def _best(findings: Findings, metrics: list[str]) -> dict[int, list[Ranking | None]]:
    """For each budget the ranking by each metric."""
    places = {b: [findings.ranking(b, metric) for metric in metrics] for b in findings.budgets}
    return {budget: found for budget, found in places.items() if any(found)}


def _meanings(findings: Findings) -> dict[str, str]:
    """Title and meaning of the measured metrics of which the page says nothing else."""
    known = ("paired_rmse", "mmd2", "frechet", "sliced_w2")
    more = [METRICS[name] for name in findings.columns if name not in known]
    return {metric.title: metric.meaning for metric in more}


def _groups(findings: Findings) -> list[tuple[str, list[CellResult]]]:
    """Measured cells by title: for each budget, sorted by the first metric; then adaptive ones."""
    order = (*findings.columns, "")[0]

    def rank(cell: CellResult) -> float:
        return cell.metrics[order].value if order in cell.metrics else cell.nfe

    groups = [(f"NFE ≤ {b}", sorted(findings.within(b), key=rank)) for b in findings.budgets]
    groups.append(("Adaptive, one cell per tolerance", findings.adaptive))
    return [(title, cells) for title, cells in groups if cells]


def _curves(findings: Findings) -> list[tuple[str, list[Picture]]]:
    """Figures of each metric against evaluations, then against seconds; empty without metrics."""
    return [
        (against, [_curve(findings, metric, x, against) for metric in findings.measured])
        for x, against in (("nfe", "evaluations"), ("seconds", "seconds"))
        if findings.measured
    ]


def _curve(findings: Findings, metric: str, x: str, against: str) -> Picture:
    alt = (
        f"{METRICS[metric].title} against {against}, one line per sampler and grid with standard "
        "errors; all values are in the table below."
    )
    words = "of deterministic samplers " if metric == "paired_rmse" else ""
    title = f"{METRICS[metric].title} {words}against {against}"
    return Picture.of(curves(findings, metric, x), alt, title[0].upper() + title[1:])


def _samples(findings: Findings) -> list[tuple[str, list[Picture]]]:
    """Figures of the samples of some budgets and of adaptive methods, by title."""
    if not can_show(findings.spec):
        return []
    groups = [(f"Within {b} evaluations", findings.within(b)) for b in _some(findings.budgets)]
    groups.append(("Adaptive methods", findings.adaptive))
    return [(title, _sheets(findings, cells)) for title, cells in groups if cells]


def _sheets(findings: Findings, cells: list[CellResult]) -> list[Picture]:
    """The exact solution, if there is one, and the samples of each cell."""
    spec, exact, sheets = findings.spec, findings.exact(), []
    if exact is not None:
        sheets.append(_picture(spec, on_levels(exact, spec), "exact ODE solution"))
    for cell in cells:
        steps = f"tol {cell.tolerance:g}" if cell.steps is None else f"{cell.steps} steps"
        label = f"{findings.name(cell)} · {steps} · NFE {cell.nfe}"
        sheets.append(_picture(spec, findings.samples(cell), label))
    return sheets


def _strip(strip: Findings) -> list[Picture]:
    """Samples of each cell of a comparison shown beside this one."""
    return [
        _picture(strip.spec, strip.samples(cell), f"{cell.sampler} · NFE {cell.nfe}")
        for cell in strip.done
    ]


def _picture(spec: DataSpec, x: Tensor, label: str) -> Picture:
    """Images side by side, or a scatter plot of points in the plane."""
    if spec.shape == (2,):
        return Picture.of(scatter(x, spec), f"Scatter plot: {label}", label)
    buffer = io.BytesIO()
    to_grid(x[:STRIP], spec, STRIP).save(buffer, "PNG", optimize=True)
    return Picture.of(buffer.getvalue(), f"First {min(len(x), STRIP)} samples: {label}", label)


def _some(budgets: list[int]) -> list[int]:
    """At most `SHEETS` budgets, including the smallest and the largest."""
    if len(budgets) <= SHEETS:
        return budgets
    last = len(budgets) - 1
    return [budgets[round(i * last / (SHEETS - 1))] for i in range(SHEETS)]


def _command(findings: Findings) -> str:
    """The command that repeats the comparison."""
    settings, out = findings.settings, findings.folder.absolute().name
    if settings["command"] == "demo":
        return f"scoresde demo --out {shlex.quote(out)}"
    if findings.in_memory:
        names = ("nfe", "n", "t_min", "batch", "likelihood")
        values = [f"{name}={settings[name]!r}" for name in names]
        values.insert(2, f"seeds={settings['seed']}")
        chosen = ("features", "metrics")
        values += [f"{name}={settings[name]!r}" for name in chosen if name in settings]
        return f"scoresde.bench(model, …, {', '.join(values)}, out={out!r})"
    words = ["scoresde", "bench", "--checkpoint", settings["checkpoint"]]
    for option in ("samplers", "grids", "nfe"):
        words += [f"--{option}", ",".join(map(str, settings[option]))]
    times = settings.get("t_mins") or [settings["t_min"]]
    words += ["--n", str(settings["n"]), "--seeds", str(settings["seed"])]
    words += ["--t-min", ",".join(map(str, times))]
    for option in ("batch", "device", "likelihood"):
        words += [f"--{option}", str(settings[option])]
    if settings.get("reference_tolerance", 1e-6) != 1e-6:
        words += ["--reference-tolerance", str(settings["reference_tolerance"]).lower()]
    if settings.get("features", AUTO) != AUTO:
        words += ["--features", settings["features"]]
    if tuple(settings.get("metrics", DEFAULT_METRICS)) != DEFAULT_METRICS:
        words += ["--metrics", ",".join(settings["metrics"])]
    if settings.get("labels"):
        words += ["--labels", settings["labels"]]
    return shlex.join([*words, "--out", out])


def _every_setting(findings: Findings) -> dict[str, str]:
    """All settings and the machine by name, as text."""
    values = {k: v for k, v in findings.settings.items() if k != "data"}
    values |= {f"data.{k}": v for k, v in findings.settings["data"].items()}
    values |= {f"machine.{k}": v for k, v in findings.machine.items()}
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "—" if value is None else str(value)
