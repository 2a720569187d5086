"""The report's last sections: what the numbers mean, and how to have them again."""

from __future__ import annotations

import shlex
from typing import Any

from .findings import Findings
from .html import Html, html, join
from .tables import DASH, html_table

__all__ = ["definitions", "repeat"]


def definitions(findings: Findings) -> Html:
    """What the numbers mean."""
    items = [
        html(
            "<b>NFE</b>: network evaluations per sample, counted at the call. A cell takes the "
            "most steps whose evaluations, a final denoising included, stay within its budget; "
            "adaptive methods choose their own steps and enter once per tolerance."
        ),
        *_noise(findings),
        *_labels(findings),
        html("<b>Seconds</b>: wall time of all samples of a cell, after an untimed first pass."),
        *_error(findings),
        *_quality(findings),
    ]
    listed = join(html("<li>{}</li>", item) for item in items)
    return html("<h2>What the numbers mean</h2>\n<ul>{}</ul>", listed)


def repeat(findings: Findings) -> Html:
    """The command, the versions and every setting."""
    settings = {k: v for k, v in findings.settings.items() if k != "data"}
    settings |= {f"data.{k}": v for k, v in findings.settings["data"].items()}
    settings |= {f"machine.{k}": v for k, v in findings.machine.items()}
    rows = [[key, _plain(value)] for key, value in settings.items()]
    note = (
        "In the same folder it measures only what is missing. On the same machine and versions, "
        "with the same number of threads, all numbers but the seconds come out the same, bit for "
        "bit."
    )
    return html(
        '<h2>How to repeat this</h2>\n<pre>{}</pre>\n<p class="note">{}</p>\n{}',
        _command(findings),
        note,
        html_table(["setting", "value"], rows, ["", "wrap"]),
    )


def _noise(findings: Findings) -> list[Html]:
    if not findings.done:
        return []
    digest = findings.done[0].x_init_sha256[:12]
    text = "sample i of every cell starts from the same x_T, drawn from (seed, i); SHA-256 of all"
    return [html("<b>Same noise</b>: {} {}….", text, digest)]


def _labels(findings: Findings) -> list[Html]:
    labels = findings.settings.get("labels")
    if labels is None:
        return []
    shares = {"shares": "its share of the training data", "uniform": "the same share"}[labels]
    text = (
        f"of the samples every class has {shares}. The held-out real data have the shares of their "
        "own split."
    )
    return [html("<b>Labels</b>: {}", text)]


def _error(findings: Findings) -> list[Html]:
    about = findings.reference
    if about is None:
        return []
    text = (
        "root mean square over dimensions, mean over samples, of the distance to the solution of "
        "the probability-flow ODE from the same noise. That solution is "
        f"{about['method']} at rtol = atol = {about['tolerance']:g} ({about['nfe']} evaluations); "
        f"at {about['error_tolerance']:g} it comes out different by "
        f"{findings.reference_error().value:.1e}, which bounds its own error. For deterministic "
        "samplers only."
    )
    return [html("<b>Paired RMSE</b>: {}", text)]


def _quality(findings: Findings) -> list[Html]:
    about, spec = findings.quality, findings.spec
    if about is None:
        return []
    items = [
        html(
            "<b>MMD²</b>: unbiased, with the {}, in the {} features of <code>{}</code>, against {} "
            "of {}. It may be negative; its standard error covers samples and reference.",
            *(about[key] for key in ("kernel", "dimension", "features", "reference", "data")),
        ),
        html(
            "<b>Fréchet distance</b>: between Gaussian fits in the same features. Its bias falls "
            "as 1/n, so compare it only with real data and cells of the same n{}. It is not FID, "
            "which has other features.",
            _singular(findings),
        ),
        html(
            "<b>Sliced W₂</b>: of the {}, along fixed directions; biased like the above.",
            "pixel values" if len(spec.shape) == 3 else "coordinates",
        ),
        html(
            "<b>Real data</b>: what {} score against the same reference, the floor for a model "
            "that has learnt the distribution. A model that copies its training data scores below "
            "it.",
            about["floor"],
        ),
    ]
    if spec.levels is not None:
        text = f"Samples are rounded and clipped to the {spec.levels} levels of the data"
        items.append(html("{} before these are taken.", text))
    return items


def _singular(findings: Findings) -> str:
    dims, n = findings.quality["dimension"], findings.settings["n"]
    if n > dims:
        return ""
    return f"; with n = {n} ≤ {dims} features the covariance is singular, and the value mostly bias"


def _command(findings: Findings) -> str:
    settings, out = findings.settings, findings.folder.absolute().name
    if settings["command"] == "demo":
        return f"scoresde demo --out {shlex.quote(out)}"
    words = ["scoresde", "bench", "--checkpoint", settings["checkpoint"]]
    for option in ("samplers", "grids", "nfe"):
        words += [f"--{option}", ",".join(map(str, settings[option]))]
    for option in ("n", "seed", "t_min", "batch", "device", "likelihood"):
        words += [f"--{option.replace('_', '-')}", str(settings[option])]
    if settings.get("labels"):
        words += ["--labels", settings["labels"]]
    return shlex.join([*words, "--out", out])


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return DASH if value is None else str(value)
