"""`check`: whether a score model keeps the rules that samplers and likelihoods rely on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from .._condition import Condition, ConditionSpec, leaves, map_condition
from .._tensor import check_shape, check_type
from .._text import reason_of
from ..evaluation import own_context
from ..noise import SampleNoise, check_seed
from ..output.progress import OnProgress, silent
from ..score import ScoreModel
from ..score.units import in_model_scale
from .findings import CheckReport, Finding, failed, info
from .laws.calls import CALL_LAWS, FIRST_LAWS
from .laws.conditions import CONDITION_LAWS
from .laws.derivatives import DERIVATIVE_LAWS
from .laws.practice import COST_LAWS, PRACTICE_LAWS
from .laws.process import PROCESS_LAWS
from .laws.times import TIME_LAWS
from .probe import Probe

__all__ = ["check", "invented"]

Law = Callable[[Probe], Finding | None]
LAWS: Mapping[str, Law] = {
    **FIRST_LAWS,
    **CALL_LAWS,
    **PROCESS_LAWS,
    **TIME_LAWS,
    **DERIVATIVE_LAWS,
    **CONDITION_LAWS,
    **PRACTICE_LAWS,
    **COST_LAWS,
}

CONDITIONS = 8  # number of invented conditions
# All other laws compare evaluations, so that they would fail as well.
DECISIVE = ("output", "same answer twice")


@own_context()
def check(
    model: ScoreModel,
    shape: Sequence[int] | None = None,
    y: Condition = None,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    on_progress: OnProgress = silent,
) -> CheckReport:
    """Test a model against the rules that samplers and likelihoods rely on.

    Each rule is a law with a measured number: the output is like x, nothing is changed in place,
    samples of a batch do not depend on one another, times per sample are accepted, the derivative
    in x is right, and so on. `print(check(model, (1, 28, 28)))` shows one line for each law.

    Points are random, and also samples of the model itself; no data are needed. About 80
    evaluations of the network are made. A law that is broken by an error fails with its message.

    Args:
        model: Score model.
        shape: Shape of one sample, (*D). If it is not given, it is that of the model's data.
        y: Conditions for a conditional model, any number of rows; several that differ show whether
            they have an effect. If they are not given and the model says what it takes, it gets all
            classes in turn, and random numbers for a vector or an array.
        seed: Seed of the points, integer in [0, 2^64).
        device: Where to run; that of the model's weights if not given.
        on_progress: Called with (laws done, number of laws, name of the law).

    Returns:
        The findings; `passed` is False if a law fails.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If the shape is not known, or a condition is needed and not given.
    """
    check_type("model", model, ScoreModel)
    tested = _name(model)
    model = in_model_scale(model)  # whose random points are states, not data in units
    probe = _probe(model, shape, y, check_seed(seed), device)
    findings: list[Finding] = []
    for number, (name, law) in enumerate(LAWS.items(), start=1):
        on_progress(number, len(LAWS), name)
        findings += _tested(name, law, probe)
        if name in DECISIVE and findings[-1].verdict == "fail":
            findings.append(replace(info(f"not tested until {name!r} holds"), law="all other laws"))
            break
    return CheckReport(tested, tuple(findings))


def _probe(
    model: ScoreModel,
    shape: Sequence[int] | None,
    y: Condition,
    seed: int,
    device: torch.device | str | None,
) -> Probe:
    """The arguments of `check`, checked and completed."""
    shape = _shape(model, shape)
    if device is None:
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
    device = torch.device(device)
    y = _condition(model, y, seed)
    return Probe(model, shape, device, seed, y)


def _shape(model: ScoreModel, shape: Sequence[int] | None) -> tuple[int, ...]:
    """The shape of one sample: the given one, or that of the model's data or exact density."""
    shapes = (getattr(owner, "shape", None) for owner in (getattr(model, "data", None), model))
    known = next((tuple(found) for found in shapes if isinstance(found, tuple)), None)
    if shape is None and known is None:
        raise ValueError("shape must be given, as (3, 32, 32): the model does not know its data")
    if shape is None:
        return known
    shape = check_shape((1, *shape))[1:]
    if known is not None and shape != known:
        raise ValueError(f"shape must be {known}, that of the model's data, got {shape}")
    return shape


def _condition(model: ScoreModel, y: Condition, seed: int) -> Condition:
    """The given condition as tensors with rows; without one, a condition as the model takes it."""
    y = model.y if y is None else y
    if y is None:
        return invented(model.condition, seed) if model.condition else None
    y = map_condition(torch.as_tensor, y)
    y = map_condition(lambda leaf: leaf[None] if leaf.ndim == 0 else leaf, y)
    for name, leaf in leaves(y):
        if len(leaf) == 0:
            raise ValueError(f"{name} must have at least one row, got none")
    return y


def invented(spec: ConditionSpec, seed: int) -> Condition:
    """All classes in turn, normal numbers for a vector or an array, and sets of all sizes."""
    source = SampleNoise(seed, range(CONDITIONS))
    parts = {
        kind: source.fresh(torch.empty(CONDITIONS, *shape))
        for kind, shape in spec.kinds.items()
        if kind not in ("class", "size")
    }
    if spec.sizes is not None:
        least, most = spec.sizes
        parts["size"] = most - torch.arange(CONDITIONS) % (most - least + 1)
    if spec.classes is not None:
        parts["class"] = torch.arange(spec.classes)
    return parts if len(parts) > 1 else next(iter(parts.values()))


def _tested(name: str, law: Law, probe: Probe) -> list[Finding]:
    """What the law finds, if it concerns the model; an error is a failure with its message."""
    try:
        found = law(probe)
    except Exception as error:  # code of the user may raise anything
        advice = f"the evaluation raised {type(error).__name__}"
        cost = name in COST_LAWS
        found = info("not measured") if cost else failed(reason_of(error), advice)
    return [] if found is None else [replace(found, law=name)]


def _name(model: ScoreModel) -> str:
    """Class of the model and of the network inside, and whether its points are latents."""
    net = getattr(model, "net", None)
    inside = "" if net is None else f" of {type(net).__name__}"
    return type(model).__name__ + inside + (" in latent space" if model.decoder is not None else "")
