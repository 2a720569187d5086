"""The compared methods, their cost, and their errors against the truth of a problem."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from likelihood_problems import Problem
from likelihood_report import CONTROLLED, ODE, PATH, STANDARD, Row
from torch import Tensor

from scoresde.likelihood import (
    ExactTrace,
    Hutchinson,
    Likelihood,
    Ode,
    Path,
    Probing,
    TraceRule,
    log_likelihood,
)

__all__ = ["Candidate", "PathBias", "by_ode", "by_path", "measure", "standards"]

FINE = 96  # steps of a path with negligible error


@dataclass(frozen=True)
class Candidate:
    """A likelihood method of the comparison.

    Attributes:
        label: Name of the method in the table.
        kind: Group in the picture; `CONTROLLED` for a method that uses the problem's control.
        method: Settings of the method; time and control come from the problem.
    """

    label: str
    kind: str
    method: Ode | Path

    def run(self, problem: Problem, seed: int) -> Likelihood:
        """The log-likelihoods of the problem's points."""
        control = problem.control if self.kind == CONTROLLED else None
        method = replace(self.method, t_min=problem.t_min, control=control)
        return log_likelihood(problem.model, problem.x, method, seed=seed)


def by_ode(tolerance: float, rule: TraceRule, solver: str = "dopri5") -> Candidate:
    """A solve to a tolerance with fixed probes."""
    ode = Ode(solver, tolerance, tolerance, trace=rule)
    each = " per sample" * ode.per_sample
    return Candidate(f"{solver}{each} {tolerance:g}, {said(rule)}", ODE, ode)


def by_path(path: Path, controlled: bool, label: str = "") -> Candidate:
    """A corrected path."""
    name = f"{label}path {path.steps}+{path.nodes}, κ {path.spread:.2g}, {said(path.trace)}"
    return Candidate(name + " *" * controlled, CONTROLLED if controlled else PATH, path)


def said(rule: TraceRule) -> str:
    """A rule, abbreviated."""
    if isinstance(rule, Hutchinson):
        return f"{rule.probes} probe{'s' * (rule.probes > 1)}"
    if isinstance(rule, Probing):
        return f"probing {rule.colours}{f'·{rule.blocks}' * (rule.blocks > 1)}"
    return type(rule).__name__


def standards(problem: Problem) -> list[Candidate]:
    """The standard, and the other solves of the ODE."""
    one = Hutchinson()
    return [
        replace(by_ode(1e-5, one), kind=STANDARD, label="standard: dopri5 1e-05, 1 probe"),
        by_ode(1e-4, one),
        by_ode(1e-6, one),
        by_ode(1e-5, one, "dop853"),
        by_ode(1e-5, Probing(4)),
        *([by_ode(1e-5, ExactTrace())] if problem.dims <= 16 else []),
    ]


def measure(problem: Problem, candidate: Candidate, seeds: Sequence[int]) -> Row:
    """The candidate's row of the table."""
    runs = [candidate.run(problem, seed) for seed in seeds]
    errors = torch.stack([run.log_prob - problem.truth for run in runs]) * problem.bits
    stated = torch.stack([run.std_error for run in runs]) * problem.bits
    last = runs[-1]
    nfe, passes = float(last.nfe), float(last.nfe_derivative)
    if last.counts is not None:
        # `nfe` is that of the slowest sample
        mean = float(last.counts.evaluations.double().mean())
        nfe, passes = mean, mean * passes / nfe
    row = Row(
        label=candidate.label,
        kind=candidate.kind,
        nfe=nfe,
        passes=passes,
        units=nfe + problem.pass_cost * passes,
        draws=len(seeds),
        stated=float(stated.square().mean().sqrt()),
        **accuracy(problem, errors, exact=not bool(stated.any())),
    )
    if candidate.kind in (STANDARD, ODE):
        return row
    held = [(r.log_prob - problem.truth).abs() <= r.half_width() for r in runs]
    bare = errors - torch.stack([run.correction for run in runs]) * problem.bits
    plain = accuracy(problem, bare)
    cover = float(torch.stack(held).double().mean())
    return replace(row, cover=cover, bare_rms=plain["rms"], bare_bias=plain["bias"])


def accuracy(problem: Problem, errors: Tensor, exact: bool = False) -> dict[str, float]:
    """RMS, bias and its standard error, from errors (seeds, n); the truth's error is subtracted."""
    seeds, n = errors.shape
    noise = float((problem.truth_error * problem.bits).square().mean())
    # the spread between seeds, because the points are fixed
    spread = 0.0 if exact else float(errors.var(0).mean()) if seeds > 1 else math.nan
    return {
        "rms": math.sqrt(max(float(errors.square().mean()) - noise, 0.0)),
        "bias": float(errors.mean()),
        "bias_error": math.sqrt((spread / seeds + noise) / n),
    }


class PathBias:
    """The mean error from the steps of a path; nodes and trace do not change it."""

    def __init__(self, problem: Problem, seeds: Sequence[int]) -> None:
        self.problem, self.seeds = problem, seeds
        self.held: dict[tuple[Path, bool], Tensor] = {}
        self.found: dict[tuple[Path, bool], tuple[float, float]] = {}

    def of(self, candidate: Candidate) -> tuple[float, float]:
        """The mean in bits/dim, and its standard error."""
        # nodes and trace do not change the mean
        path = replace(candidate.method, nodes=16, trace=Probing(4))
        key = path, candidate.kind == CONTROLLED
        if key not in self.found:
            # nodes and probes are the same, so that most of their error cancels
            fine = replace(key[0], steps=FINE), key[1]
            errors = (self._log_prob(key) - self._log_prob(fine)) * self.problem.bits
            spread = float(errors.var(0).mean())
            self.found[key] = float(errors.mean()), math.sqrt(spread / errors.numel())
        return self.found[key]

    def said(self) -> list[str]:
        """A line for each κ, with and without control."""
        lines: dict[str, list[str]] = {}
        for (path, controlled), (mean, error) in self.found.items():
            name = f"path bias, κ {path.spread:.2g}{' *' * controlled}, by steps: "
            lines.setdefault(name, []).append(f"{path.steps} {mean:+.5f} ±{error:.5f}")
        return [name + ", ".join(cells) for name, cells in lines.items()]

    def _log_prob(self, key: tuple[Path, bool]) -> Tensor:
        if key not in self.held:
            runs = [by_path(*key).run(self.problem, seed) for seed in self.seeds]
            self.held[key] = torch.stack([run.log_prob for run in runs])
        return self.held[key]
