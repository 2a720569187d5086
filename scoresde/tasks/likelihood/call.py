"""`scoresde.likelihood_report`: what `scoresde likelihood` does, for any score model in Python."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..._condition import Condition, bound_rows
from ..._tensor import available_device
from ...data import Dataset
from ...output.bars import stage_bars
from ...output.progress import silent
from ..given import GivenModel
from ..live import device_of, given_model, known_spec
from ..own_data import is_place, one_split
from .against import compare_models
from .request import ScoreRequest
from .scoring import score_data

__all__ = ["likelihood_report"]


def likelihood_report(
    model: Any,
    x: Any = None,
    *,
    out: str | Path,
    against: Any = None,
    y: Condition | None = None,
    training: Any = None,
    n: int | None = None,
    protocol: str | None = None,
    method: str = "auto",
    trace: str = "auto",
    steps: int | None = None,
    nodes: int | None = None,
    draws: int = 1,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    t_min: float | None = None,
    measured: int = 8,
    plot: bool = False,
    seed: int = 0,
    batch: int = 64,
    device: str | None = None,
    dtype: str = "float32",
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Log-likelihood of data with its error budget, in a folder of tables and figures.

    The folder holds what `scoresde likelihood` writes: per_image.csv with one row per datum,
    budget.txt, figures and summary.json. The same call finds its results, or continues where it
    was stopped.

    Args:
        model: A `ScoreModel`, a loaded checkpoint, or the name or path of a checkpoint.
        x: The data: an array or tensor of shape (N, *D), integer levels or floating numbers in
            units; a `Dataset`; a name or path. None for the test split of the data of a
            checkpoint.
        out: Folder for the results.
        against: A second model of the same data, in any form of `model`. Both are scored on the
            same data with the same random numbers, and the result is their difference.
        y: Conditions of the data in x, N rows or one for all.
        training: Data like x to which a Gaussian is fitted, which makes estimates more precise;
            None fits it to x.
        n: Number of data, chosen by the seed; None for at most 128.
        protocol: The quantity that is computed, a name of `PROTOCOLS`; None for "pf-ode/uniform",
            or "pf-ode/continuous" for continuous data.
        method: A name of `METHODS`, or "auto": "path" above 16 dimensions, else "dopri5".
        trace: A trace rule as text, or "auto".
        steps: Steps of a path or of the chain of "vlb-ddpm"; None for the usual number.
        nodes: Nodes of a path or strata of a bound; None for the usual number.
        draws: Dequantizations of each datum.
        rtol: Relative tolerance of ODE methods.
        atol: Absolute tolerance of ODE methods.
        t_min: Start time of the data; None for 1e-5, or the time of the first discrete label.
        measured: Number of data that are computed again with a finer solver and in float64.
        plot: Draw the terms of the bound "vlb-ddpm".
        seed: Integer in [0, 2^64).
        batch: Data at a time.
        device: Where to run: cpu, cuda, cuda:N or auto; None for the device of the model.
        dtype: "float32" or "float64" for data and network; "bfloat16" for the network alone.
        overwrite: Replace other results in the folder.
        progress: Show a bar, if stderr is a terminal.

    Returns:
        The content of summary.json: "mean" and "std_error" of −log p in "unit" (bits/dim, or
        nats/dim for continuous data), "budget", "protocol", counted evaluations and more. For
        continuous data "log_prob_nats" is the mean of log p itself, in nats per datum and in the
        units of the data; if they have a transform, "log_prob_nats_model_scale" is that at the
        model's scale, and "log_det_nats" the difference. With `against`:
        "difference" (of `model` minus `against`; below 0 the first is better) with the
        "half_width" of its 95 % interval, "verdict", "budget", and the budgets of both in "models".

    Raises:
        TypeError: If model or data are of another kind.
        ValueError: If an argument is wrong, the data do not fit the model, or the folder holds
            other results.
        RuntimeError: If a solve fails or memory runs out.
    """
    place = device_of(model) if device is None else str(available_device(device))
    asked = {
        **{"protocol": protocol, "method": method, "trace": trace, "steps": steps, "nodes": nodes},
        **{"draws": draws, "rtol": rtol, "atol": atol, "t_min": t_min, "measured": measured},
        "plot": plot,
        **{"seed": seed, "batch": batch, "dtype": dtype, "device": place},
    }
    if isinstance(model, (str, Path)):
        model = given_model(model)
    if x is None:
        given, in_memory = given_model(model), None
        request = ScoreRequest(given.name, n=128 if n is None else n, **asked)
    else:
        spec = known_spec(model)
        data = one_split("x", x, spec)
        given = given_model(model, spec=data.spec)
        like = data if training is None else one_split("training", training, data.spec)
        data, like = (_with_condition(each, given, y) for each in (data, like))
        name, number = str(x) if is_place(x) else data.name, min(len(data), 128)
        request = ScoreRequest(given.name, data=name, n=number if n is None else n, **asked)
        in_memory = data, like
    with stage_bars() if progress else nullcontext() as tell:
        on_progress = silent if tell is None else partial(tell, "likelihood")
        arguments = Path(out), overwrite, on_progress, given, in_memory
        if against is None:
            return score_data(request, *arguments)
        return compare_models(request, given_model(against, spec=given.decoded_spec), *arguments)


def _with_condition(data: Dataset, given: GivenModel, y: Condition | None) -> Dataset:
    """The data with their conditions; labels of a data set stay if the model is known to take them.

    A network whose third argument may be None is not known to take class labels.
    """
    if y is not None:
        return replace(data, labels=bound_rows(y, len(data), "cpu"))
    return data if given.condition else replace(data, labels=None)
