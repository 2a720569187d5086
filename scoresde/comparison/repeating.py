"""What the report says of its origin: the command that repeats the comparison, and all settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from .feature_choice import AUTO
from .findings import Findings
from .labels import named_models
from .measures import DEFAULT_METRICS

__all__ = ["every_setting", "repeating_cases", "repeating_command"]

TOLERANCE = 1e-6  # of the reference solution if none is asked for
VARIED = ("seed", "labels", "guidance")  # what the cases of one model differ in


def repeating_command(findings: Findings) -> str:
    """The command, or for a model that is an object the call in Python, that repeats one case."""
    settings, out = findings.settings, findings.folder.absolute().name
    if settings["command"] == "demo":
        return f"scoresde demo --out {shlex.quote(out)}"
    if findings.in_memory:
        return _call(["model"], findings, out)
    words = ["--checkpoint", settings["checkpoint"], *_options(findings)]
    seed, labels = str(settings["seed"]), settings.get("labels")
    varied = {"seeds": [seed], "labels": [labels], "guidance": [settings.get("guidance")]}
    return _joined(words, varied, out)


def repeating_cases(
    found: Mapping[str, Findings], cases: Mapping[str, Mapping[str, Any]], out: str
) -> str:
    """The command or call that repeats a comparison of several cases.

    Args:
        found: The results of the cases by name.
        cases: The "model", "seed" and "labels" of each case by name.
        out: Name of the folder.
    """
    paths = {cases[name]["model"]: f.settings["checkpoint"] for name, f in found.items()}
    first = next(iter(found.values()))
    several = {key: list(dict.fromkeys(c.get(key) for c in cases.values())) for key in VARIED}
    if any(findings.in_memory for findings in found.values()):
        lists = {"seeds": several["seed"], "labels": several["labels"]}
        return _call(list(paths), first, out, **lists, guidance=several["guidance"])
    words = []
    for name, path in paths.items():
        words += [
            "--checkpoint",
            path if next(iter(named_models(path))) == name else f"{name}={path}",
        ]
    words += _options(first)
    varied = {"seeds": list(map(str, several["seed"]))}
    varied |= {key: several[key] for key in ("labels", "guidance")}
    return _joined(words, varied, out)


def _options(findings: Findings) -> list[str]:
    """The options of a comparison, apart from checkpoints, seeds, labels and the folder."""
    settings, words = findings.settings, []
    for option in ("samplers", "grids", "nfe"):
        words += [f"--{option}", ",".join(map(str, settings[option]))]
    times = settings.get("t_mins") or [settings["t_min"]]
    words += ["--n", str(settings["n"]), "--t-min", ",".join(map(str, times))]
    for option in ("batch", "device", "likelihood"):
        words += [f"--{option}", str(settings[option])]
    if settings.get("reference_tolerance", TOLERANCE) != TOLERANCE and not settings.get("snapped"):
        words += ["--reference-tolerance", str(settings["reference_tolerance"]).lower()]
    if settings.get("features", AUTO) != AUTO:
        words += ["--features", settings["features"]]
    if tuple(settings.get("metrics", DEFAULT_METRICS)) != DEFAULT_METRICS:
        words += ["--metrics", ",".join(settings["metrics"])]
    for option, text in settings.get("given", {}).items():
        words += [f"--{option}", text]
    words += ["--compile"] if settings.get("compiled") else []
    return words


def _joined(words: list[str], varied: Mapping[str, list[str]], out: str) -> str:
    for option, values in varied.items():
        if values != [None]:
            words = [*words, f"--{option}", ",".join(values)]
    return shlex.join(["scoresde", "bench", *words, "--out", out])


def _call(models: list[str], findings: Findings, out: str, **varied: Any) -> str:
    """The call of `scoresde.bench`; names of the user's own objects stand for these."""
    settings, data = findings.settings, "data=data, " if findings.quality is not None else ""
    values = {name: settings[name] for name in ("nfe", "n", "t_min", "batch", "likelihood")}
    values["t_min"] = settings.get("t_mins") or settings["t_min"]
    values |= {"grids": settings["grids"], "seeds": settings["seed"]}
    values |= {
        name: settings[name] for name in ("features", "metrics", "compiled") if name in settings
    }
    if settings.get("reference_tolerance", TOLERANCE) != TOLERANCE:
        values["reference_tolerance"] = settings["reference_tolerance"]
    values |= {key: settings[key] for key in ("labels", "guidance") if key in settings}
    values |= {name: each for name, each in varied.items() if each != [None]}
    model = models[0] if len(models) == 1 else "{" + ", ".join(f"{m!r}: …" for m in models) + "}"
    texts = ", ".join(f"{name}={value!r}" for name, value in values.items())
    return f"scoresde.bench({model}, {settings['samplers']!r}, {data}{texts}, out={out!r})"


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
