"""What the samplers of diffusers, azula and k-diffusion do on exact problems: a table.

    python benchmarks/certify.py --json benchmarks/certified.json
    python benchmarks/certify.py --only DPMSolver --text
    python benchmarks/certify.py --mended

Each row is one sampler with the options that change its method. `documented` is the order that the
library, or the paper that it cites, gives for deterministic steps. For samplers that draw noise it
is the weak order, where one is known. Both observed orders come from `scoresde.certify`: on equal
steps in log σ, and on steps of lengths h, 3h, h, 3h, …; a scheduler whose spacing has a name in its
options keeps it. If the last step goes to σ = 0, the order is that of the steps before it.

`--text` prints the whole certificate of each sampler. `--json` writes all rows, with all findings,
to a file. `--mended` measures copies of some samplers in which one expression of the source is
replaced by the right one, to show that it is the reason of a missed order. A sampler that takes
longer than `--limit` seconds is left out. Below the table stands what was left out, and the reason.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import time
import types
import warnings
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from certify_entries import Entry, entries, mended_entries
from script import print_header

import scoresde
from scoresde.verification import CheckReport


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


def mended(kind: type, change: tuple[str, str]) -> type:
    """A copy of a class in whose source one text is replaced, wherever it stands.

    Raises:
        ValueError: If the source does not hold the text.
    """
    old, new = change
    module, own = sys.modules[kind.__module__], inspect.getsource(kind)
    if old not in own:
        raise ValueError(f"{kind.__name__} does not hold {old!r}: its source has changed")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "changed.py"
        source = inspect.getsource(module).replace(own, own.replace(old, new))
        path.write_text(source, encoding="utf-8")
        found = spec_from_file_location(module.__name__, path)
        copy = module_from_spec(found)
        found.loader.exec_module(copy)
    return getattr(copy, kind.__name__)


def named(options: dict[str, Any]) -> dict[str, Any]:
    """Options as plain data; a function is its name."""
    return {key: getattr(value, "__name__", value) for key, value in options.items()}


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
    if found["call"][0] == "fail":
        return found["call"][1].partition(": ")[2]
    bad = [
        text.partition("; ")[2] if law == "evaluations" else f"{law}: {text}"
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
        count = found.get("evaluations", ["", "–"])[1].partition(";")[0]
        lines.append([*cells, count, notes(found)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def measured(entry: Entry, limit: float, text: bool) -> dict[str, Any]:
    """The row of a sampler, or why it is left out."""
    name = {"place": entry.place, "options": named(entry.options)}
    began = time.process_time()
    try:
        sampler, options = loaded(entry.place), entry.options
        if entry.change is not None:
            sampler = mended(sampler, entry.change)
        report = scoresde.certify(sampler, order=entry.order, arguments=options, limit=limit)
    except ImportError as error:
        return name | {"left out": str(error).strip().splitlines()[0]}
    if late := [f.measured for f in report.findings if f.measured.startswith("not ended")]:
        return name | {"left out": late[0]}
    if text:
        print(f"{report}\n", flush=True)
    return name | row(entry, report, time.process_time() - began)


def absent() -> list[str]:
    """Schedulers of diffusers without a row here."""
    known = {entry.place.partition(":")[2] for entry in entries()}
    names = dir(importlib.import_module("diffusers")) if find_spec("diffusers") else []
    return sorted(
        n for n in names if n.endswith("Scheduler") and not n.startswith("Flax") and n not in known
    )


@click.command(help=__doc__.partition("\n")[0])
@click.option("--only", default="", help="Measure samplers whose place contains this text.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write all rows here.")
@click.option("--limit", default=600.0, show_default=True, help="Seconds for one sampler.")
@click.option("--text", is_flag=True, help="Print the certificates.")
@click.option("--mended", "changed", is_flag=True, help="Copies in which one mistake is mended.")
def main(only: str, path: Path | None, limit: float, text: bool, changed: bool) -> None:
    """Certify the samplers of the libraries that are installed."""
    warnings.simplefilter("ignore")
    print_header("diffusers", "azula", "k-diffusion")
    rows = []
    for entry in mended_entries() if changed else entries():
        if only not in entry.place:
            continue
        rows.append(measured(entry, limit, text))
        print(*list(rows[-1].values())[:5], file=sys.stderr, flush=True)
    print(table([r for r in rows if "left out" not in r]))
    for r in rows:
        if "left out" in r:
            print(f"left out: {r['place']} {r['options'] or ''}: {r['left out']}")
    if not changed:
        print(f"not measured: {', '.join(absent())}")
    if path is not None:
        lines = ",\n".join(json.dumps(found, ensure_ascii=False) for found in rows)
        path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
