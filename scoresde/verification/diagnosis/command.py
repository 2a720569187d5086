"""The request of `scoresde doctor`: a checkpoint, its data, a folder and a corrected file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..._tensor import check_integer
from ...output.files import read_json, write_json
from ...output.progress import OnProgress, silent
from ...output.result_folder import ResultFolder
from ...tasks.held_out import load_held_out
from ...tasks.request import HeldOutRequest, StoredModel, data_source
from .call import LEAST_DATA, diagnose
from .correction import check_target, stored_weights, write_correction
from .figure import save_doctor_figure
from .reading import reading_of

__all__ = ["DoctorRequest", "examine"]

JSON, TEXT, FIGURE = "doctor.json", "doctor.txt", "doctor.png"


@dataclass(frozen=True)
class DoctorRequest(HeldOutRequest):
    """The options of `scoresde doctor`.

    Args:
        fix: A new file for the checkpoint with corrected metadata; None writes none.
    """

    fix: Path | None = None

    places: ClassVar[tuple[str, ...]] = (*HeldOutRequest.places, "fix")
    any_levels: ClassVar[bool] = True  # published models do not say their number

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("--n:", self.n, minimum=LEAST_DATA)


def examine(
    request: DoctorRequest,
    out: Path | None = None,
    overwrite: bool = False,
    on_progress: OnProgress = silent,
) -> dict[str, Any]:
    """Examine a checkpoint, write the results, and the corrected checkpoint if it is asked for.

    Args:
        request: The options.
        out: Folder for doctor.json, doctor.txt and doctor.png; None writes none.
        overwrite: Replace other results in the folder.
        on_progress: As for `doctor`.

    Returns:
        "text", the report as text; "report", as plain data; "fixed", the new file or None; and
        "not_fixed", why nothing was written, or None.

    Raises:
        CheckpointError: If the checkpoint cannot be read.
        ValueError: If the data do not suit it, or a file cannot be written.
        RuntimeError: If it cannot be evaluated as it claims.
    """
    given = StoredModel.read(request.checkpoint, request.net, request.sde)
    given.refuse_latents("scoresde doctor", "CHECKPOINT")
    given.check_score("doctor")
    if request.fix is not None:
        check_target(given.raw.path, request.fix)
    data = load_held_out(given, request)
    results = None
    if out is not None:
        settings = {"fix": None if request.fix is None else str(request.fix)}
        sources = {"checkpoint": given.source, "data": data_source(data)}
        results = ResultFolder.open(out, request.origin("doctor", sources, **settings), overwrite)
        if results.finished and request.fix is None:
            return _stored(out)
    model = given.build(request.device, request.dtype)
    report = diagnose(
        *(given.name, model, data),
        spec=given.spec,
        weights=stored_weights(given.raw),
        settings=(request.n, request.seed, request.batch),
        on_progress=on_progress,
    )
    if results is not None:
        with results.write([JSON, TEXT, FIGURE]) as output:
            write_json(output.work / JSON, report.plain())
            (output.work / TEXT).write_text(f"{report}\n", encoding="utf-8")
            save_doctor_figure(output.work / FIGURE, report)
            output.publish()
    found = {"text": str(report), "report": report.plain(), "fixed": None, "not_fixed": None}
    if request.fix is None:
        return found
    if not report.search.steps:
        return found | {"not_fixed": "there is no metadata to correct"}
    try:
        write_correction(given.raw, request.fix, reading_of(model).claim, report.search)
    except ValueError as error:
        return found | {"not_fixed": str(error)}
    return found | {"fixed": str(request.fix)}


def _stored(out: Path) -> dict[str, Any]:
    """The results that a folder holds."""
    text = (out / TEXT).read_text(encoding="utf-8").rstrip("\n")
    return {"text": text, "report": read_json(out / JSON), "fixed": None, "not_fixed": None}
