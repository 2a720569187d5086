"""What the samplers of diffusers, azula and k-diffusion do on exact problems: a table.

    python benchmarks/certify.py --rows runs/certified.jsonl
    python benchmarks/certify.py --only DPMSolver --text

Each row is one sampler with the options that change its method. `documented` is the order that the
library, or the paper that it cites, gives for deterministic steps. For samplers that draw noise it
is the weak order, where one is known. Both observed orders come from `scoresde.certify`: on equal
steps in log σ, and on steps of lengths h, 3h, h, 3h, …; a scheduler whose spacing has a name in its
options keeps it. If the last step goes to σ = 0, the order is that of the steps before it.

`--text` prints the whole certificate of each sampler. `--rows` keeps each row in a file, and a
later call goes on from there. A sampler that takes longer than `--limit` seconds of processor time
is left out. What was left out stands below the table, with the reason.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
import time
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import click
from script import print_header

import scoresde
from scoresde.verification import CheckReport

KARRAS = {"use_karras_sigmas": True}
ODE = {"eta": 0.0}
ABOVE = {"final_sigmas_type": "sigma_min"}  # the last step does not go to σ = 0
FULL = ABOVE | {"lower_order_final": False}  # and the last steps keep their order


class Entry(NamedTuple):
    """A sampler with its options and its documented order."""

    library: str
    place: str
    options: dict[str, Any]
    order: int | None


def no_noise(t: float) -> float:
    """τ = 0 for SA-Solver."""
    return 0.0


def _diffusers() -> Iterator[Entry]:
    def entry(name: str, order: int | None, /, **options: Any) -> Entry:
        return Entry("diffusers", f"diffusers:{name}Scheduler", options, order)

    for spacing in ("leading", "linspace", "trailing"):
        yield entry("DDIM", 1, timestep_spacing=spacing)
    yield entry("DDIM", 1, set_alpha_to_one=False)
    yield entry("DDIM", 1, eta=1.0)
    for variance in ("fixed_small", "fixed_large"):
        yield entry("DDPM", 1, variance_type=variance)
    for skip in (False, True):
        yield entry("PNDM", 2, skip_prk_steps=skip)
    yield entry("IPNDM", 4)
    for options in ({}, KARRAS, {"timestep_spacing": "leading"}):
        yield entry("EulerDiscrete", 1, **options)
    yield entry("EulerAncestralDiscrete", 1)
    for family in ("HeunDiscrete", "KDPM2Discrete"):
        yield entry(family, 2)
        yield entry(family, 2, **KARRAS)
    yield entry("KDPM2AncestralDiscrete", None)
    yield entry("LMSDiscrete", 4)
    yield entry("LMSDiscrete", 4, **KARRAS)
    yield from _dpm_solvers(entry)
    for order in (1, 2, 3):
        yield entry("DEISMultistep", order, solver_order=order)
    for order in (1, 2, 3):
        yield entry("UniPCMultistep", order + 1, solver_order=order, solver_type="bh2")
        for kind in ("bh1", "bh2"):
            options = {"solver_order": order, "solver_type": kind} | FULL
            yield entry("UniPCMultistep", order + 1, **options)
    yield entry("UniPCMultistep", 3, solver_order=2, solver_type="bh2", **ABOVE)
    yield entry("UniPCMultistep", 3, solver_order=2, solver_type="bh1")
    yield entry("UniPCMultistep", 3, solver_order=2, predict_x0=False, **FULL)
    yield entry("UniPCMultistep", 3, solver_order=2, **KARRAS)
    for p, c in ((1, 1), (2, 2), (3, 3), (2, 3)):
        orders = {"predictor_order": p, "corrector_order": c}
        yield entry("SASolver", max(p, c), **orders, tau_func=no_noise)
    yield entry("SASolver", None)
    for kind in ("karras", "exponential"):
        yield entry("EDMEuler", 1, sigma_schedule=kind)
        yield entry("EDMDPMSolverMultistep", 2, sigma_schedule=kind)
    yield entry("EDMDPMSolverMultistep", 3, solver_order=3)


def _dpm_solvers(entry: Any) -> Iterator[Entry]:
    families = ("DPMSolverMultistep", "DPMSolverSinglestep")
    for algorithm, last in (("dpmsolver++", {}), ("dpmsolver", FULL)):
        options = {"algorithm_type": algorithm} | last
        for family in families:
            for order in (1, 2, 3):
                yield entry(family, order, solver_order=order, **options)
            yield entry(family, 2, solver_type="heun", **options)
    for options in (ABOVE, {"euler_at_final": True}, KARRAS, {"use_lu_lambdas": True}):
        yield entry("DPMSolverMultistep", 2, **options)
    yield entry("DPMSolverSinglestep", 3, solver_order=3, **FULL)
    yield entry("DPMSolverSinglestep", 3, solver_order=3, solver_type="heun", **FULL)
    for family in families:
        for order in (1, 2, 3):
            options = {"solver_order": order, "algorithm_type": "sde-dpmsolver++"}
            yield entry(family, 1 if order == 1 else None, **options)
    for order in (1, 2):
        options = {"solver_order": order, "algorithm_type": "sde-dpmsolver"} | FULL
        yield entry("DPMSolverMultistep", 1 if order == 1 else None, **options)
    yield entry("DPMSolverSDE", None)


def _azula() -> Iterator[Entry]:
    def entry(name: str, order: int | None, /, **options: Any) -> Entry:
        return Entry("azula", f"azula.sample:{name}Sampler", options, order)

    yield from (entry("DDIM", 1), entry("Euler", 1), entry("Heun", 2), entry("Ito", 1, eta=0.0))
    for family in ("zAB", "vAB", "zEAB", "xEAB", "REAB"):
        yield from (entry(family, order, order=order) for order in (1, 2, 3))
    yield from (entry("DDPM", 1), entry("DDIM", 1, eta=0.5), entry("Ito", 1), entry("PC", None))


def _k_diffusion() -> Iterator[Entry]:
    def entry(name: str, order: int | None, /, **options: Any) -> Entry:
        return Entry("k-diffusion", f"k_diffusion.sampling:sample_{name}", options, order)

    for name, order in (("euler", 1), ("heun", 2), ("dpm_2", 2), ("lms", 4), ("dpmpp_2m", 2)):
        yield entry(name, order)
    yield entry("euler_ancestral", 1)
    for name in ("dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde"):
        yield entry(name, 2, **ODE)
        yield entry(name, None)
    for kind in ("midpoint", "heun"):
        yield entry("dpmpp_2m_sde", 2, **ODE, solver_type=kind)
    yield entry("dpmpp_3m_sde", 3, **ODE)
    yield from (entry("dpmpp_2m_sde", None), entry("dpmpp_3m_sde", None))


def loaded(place: str) -> Any:
    """The class or function at a place.

    k-diffusion's package imports training code; only its module of samplers is needed.
    """
    module, _, name = place.partition(":")
    package = module.partition(".")[0]
    if package == "k_diffusion" and package not in sys.modules:
        found = find_spec(package)
        if found is None:
            raise ModuleNotFoundError("no module k_diffusion")
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = list(found.submodule_search_locations)
    return getattr(importlib.import_module(module), name)


def named(options: dict[str, Any]) -> dict[str, Any]:
    """Options as plain data; a function is its name."""
    return {key: getattr(value, "__name__", value) for key, value in options.items()}


def append(path: Path, found: dict[str, Any]) -> None:
    """Add a row to a file of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(found) + "\n")


def row(entry: Entry, report: CheckReport, seconds: float) -> dict[str, Any]:
    """One row of the table as plain data."""
    return {
        "library": entry.library,
        "sampler": entry.place.partition(":")[2],
        "documented": entry.order,
        "seconds": round(seconds, 1),
        "findings": {f.law: [f.verdict, f.measured, f.value] for f in report.findings},
    }


def observed(found: dict[str, list], law: str) -> str:
    """An observed order with its error bar, or a dash."""
    if law not in found:
        return "–"
    verdict, text, value = found[law]
    if "cannot tell" in text:
        return "cannot tell"
    if value is None:
        return "–"
    bar = text.partition("±")[2].split()[0] if "±" in text else ""
    marks = {"fail": " **no**", "warn": " higher"}
    return f"{value:.2f} ± {bar}{marks.get(verdict, '')}"


def notes(found: dict[str, list]) -> str:
    """What the other laws found, where it is not as it should be."""
    orders = ("order on equal steps", "order on steps h, 3h", "weak order")
    if "not finite" in found["last step"][1]:
        return "numbers that are not finite"
    bad = [
        f"{law}: {text}"
        for law, (verdict, text, _) in found.items()
        if verdict in ("fail", "warn") and law not in orders
    ]
    denoises = "denoises" in found.get("last step", ["", "", 0])[1]
    return "; ".join([*(["last step denoises"] if denoises else []), *bad])


def table(rows: list[dict[str, Any]]) -> str:
    """The table in Markdown."""
    heads = ["sampler", "options", "documented", "equal steps", "h, 3h", "weak", "NFE", "notes"]
    lines = [heads, ["---"] * len(heads)]
    for entry in rows:
        found = entry["findings"]
        options = " ".join(f"{key}={value}" for key, value in entry["options"].items())
        cells = [f"{entry['library']} `{entry['sampler']}`", options]
        cells.append("–" if entry["documented"] is None else str(entry["documented"]))
        laws = ("order on equal steps", "order on steps h, 3h", "weak order")
        cells += [observed(found, law) for law in laws]
        count = found["evaluations"]
        lines.append([*cells, count[1] if count[0] == "info" else "–", notes(found)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


class TooLong(BaseException):
    """Raised by the clock. `certify` reports each `Exception` as a finding about the sampler."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise `TooLong` after some seconds of processor time."""

    def stop(*unused: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def measured(entry: Entry, limit: float, text: bool) -> dict[str, Any]:
    """The row of a sampler, or why it is left out."""
    name = {"place": entry.place, "options": named(entry.options)}
    began = time.process_time()
    try:
        with at_most(limit):
            report = scoresde.certify(
                loaded(entry.place), order=entry.order, arguments=entry.options
            )
    except ImportError as error:
        return name | {"left out": str(error).strip().splitlines()[0]}
    except TooLong:
        return name | {"left out": f"longer than {limit:g} s of processor time"}
    if text:
        print(f"{report}\n", flush=True)
    return name | row(entry, report, time.process_time() - began)


def absent() -> list[str]:
    """Schedulers of diffusers without a row here."""
    known = {entry.place.partition(":")[2] for entry in _diffusers()}
    names = dir(importlib.import_module("diffusers")) if find_spec("diffusers") else []
    return sorted(
        n for n in names if n.endswith("Scheduler") and not n.startswith("Flax") and n not in known
    )


@click.command()
@click.option("--only", default="", help="Measure samplers whose place contains this text.")
@click.option("--rows", "path", type=click.Path(path_type=Path), help="Keep rows in this file.")
@click.option("--limit", default=60.0, show_default=True, help="Seconds for one sampler.")
@click.option("--text", is_flag=True, help="Print the certificates.")
def main(only: str, path: Path | None, limit: float, text: bool) -> None:
    """Certify the samplers of the libraries that are installed."""
    warnings.simplefilter("ignore")
    print_header("diffusers", "azula", "k-diffusion")
    kept = []
    if path is not None and path.exists():
        kept = [json.loads(line) for line in path.read_text().splitlines()]
    rows = []
    for entry in [*_diffusers(), *_azula(), *_k_diffusion()]:
        if only not in entry.place:
            continue
        name = entry.place, named(entry.options)
        found = next((r for r in kept if (r["place"], r["options"]) == name), None)
        if found is None:
            found = measured(entry, limit, text)
            print(*name, found.get("seconds", found.get("left out")), file=sys.stderr, flush=True)
            if path is not None:
                append(path, found)
        rows.append(found)
    print(table([r for r in rows if "left out" not in r]))
    for r in rows:
        if "left out" in r:
            print(f"left out: {r['place']} {r['options'] or ''}: {r['left out']}")
    print(f"not measured: {', '.join(absent())}")


if __name__ == "__main__":
    main()
