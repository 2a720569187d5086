"""What the report says of its origin: the command that repeats the comparison, and all settings."""

from __future__ import annotations

import shlex
from typing import Any

from .feature_choice import AUTO
from .findings import Findings
from .measures import DEFAULT_METRICS

__all__ = ["every_setting", "repeating_command"]


def repeating_command(findings: Findings) -> str:
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


def every_setting(findings: Findings) -> dict[str, str]:
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
