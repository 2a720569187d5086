"""What determines the results of one case of a comparison, and the origin of a part of its plan."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ..fingerprint import fingerprint
from ..output.manifest import Origin
from ..tasks.given import GivenModel
from ..tasks.request import StoredModel, versions
from .data import BenchData
from .request import BenchRequest
from .sweep import Sweep

__all__ = ["COMMON", "LIKELIHOOD", "PLAN", "SHOWN_SETTINGS", "origin_of", "part_of"]

LIKELIHOOD = "likelihood"  # name of its cell, and of its subfolder
PLAN = "plan"  # setting of a part of a comparison: all cells of the whole
COMMON = ("n", "seed", "t_min", "batch", "device")  # settings of all draws
MEASURES = ("reference_tolerance", "quality", "likelihood")
SHOWN_SETTINGS = (  # settings that may differ: contents are compared instead, or cells are added
    *("checkpoint", "sha256", "data", "sde", "features"),
    *("samplers", "grids", "nfe", "tolerances", "versions", "t_mins", "given", "guidance", PLAN),
)


def part_of(whole: Origin, names: Collection[str]) -> Origin:
    """The origin of some cells of a plan, which names all cells; or of the whole plan."""
    cells = {name: content for name, content in whole.cells.items() if name in names}
    if len(cells) == len(whole.cells):
        return whole
    return replace(whole, settings={**whole.settings, PLAN: dict(whole.cells)}, cells=cells)


def origin_of(
    request: BenchRequest, given: GivenModel, sweep: Sweep, data: BenchData, command: str
) -> Origin:
    """Everything that determines the results: settings, contents of all files, and the cells."""
    tolerances: dict[str, list[float]] = {}
    for cell in sweep.cells:
        if cell.tolerance is not None:
            tolerances.setdefault(cell.label, []).append(cell.tolerance)
    settings = {
        "checkpoint": given.name,
        "sha256": given.source.sha256,
        "data": given.decoded_spec.to_dict(),
        "sde": str(given.sde),
        **{name: list(getattr(request, name)) for name in ("samplers", "grids", "nfe")},
        "tolerances": tolerances,
        **{name: getattr(request, name) for name in COMMON},
        "t_min": sweep.settings.t_min,
        "denoise": True,
        **{name: getattr(request, name) for name in MEASURES},
        "y": None if data.y is None else fingerprint(data.y),
        "versions": versions(),
    }
    optional = {
        "snapped": given.snapped or None,
        "labels": data.how,
        "features": request.features if request.quality else None,
        "metrics": list(request.metrics) if request.quality else None,
        "t_mins": list(request.t_min) if len(request.t_min) > 1 else None,
        "reference_t": sweep.end if sweep.end < sweep.settings.t_min else None,
        "in_memory": given.kind == "model" or None,
        "given": _given(request, given, data) or None,
        "compiled": request.compiled or None,
        "guidance": request.guide,
        "latent_shape": list(given.spec.shape) if given.of_latents else None,
    }
    settings |= {name: value for name, value in optional.items() if value is not None}
    sources = {given.kind: given.source, **data.sources}
    contents = {cell.name: cell.fingerprint for cell in sweep.cells}
    if request.likelihood:
        contents[LIKELIHOOD] = fingerprint(request.likelihood)
    return Origin(command, settings, sources, contents, SHOWN_SETTINGS)


def _given(request: BenchRequest, given: GivenModel, data: BenchData) -> dict[str, str]:
    """The options that name code and places of the user, of which the contents are compared."""
    root = None if request.data_root is None else str(request.data_root)
    options = {"data": data.place, "data-root": root}
    if isinstance(given.plain, StoredModel):
        options |= {"net": given.plain.net, "sde": given.plain.sde_text}
    return {name: str(text) for name, text in options.items() if text is not None}
