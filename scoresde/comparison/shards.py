"""The cells of a comparison, shared out to several machines so that each has as much to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .case import Case
from .expected import likelihood_evaluations
from .origin import LIKELIHOOD
from .plan import likely_evaluations

__all__ = ["share_out"]

# A second machine solves the reference solution of a case, too, only if that saves twice its cost.
SECOND_SOLUTION = 2.0


class _Item(NamedTuple):
    """One cell to share out.

    Attributes:
        cost: Its expected cost, in any unit.
        case: Name of its case.
        name: Name of the cell.
        solution: Cost of the reference solution that it needs; 0 if it needs none.
    """

    cost: float
    case: str
    name: str
    solution: float


def share_out(cases: Mapping[str, Case], i: int, n: int) -> dict[str, frozenset[str]]:
    """The i-th of n shares of all cells, i = 1 … n; every machine finds the same shares.

    The dearest cell comes first, and each goes to the share that would then have least to do
    (Graham 1969, LPT); no share stays empty if there are cells enough. Costs are counted
    evaluations times the operations of one, never seconds, which differ between machines. A share
    that has a cell of a deterministic sampler also solves
    the reference solution of its case.

    Args:
        cases: The cases of the comparison by name.
        i: Number of the share.
        n: Number of shares.

    Returns:
        The names of the cells by case, without cases that have no cell in this share.

    Raises:
        ValueError: If there are fewer cells than shares, and none is left for this one.
    """
    items = sorted(_items(cases), key=lambda item: -item.cost)  # equal ones keep their order
    loads = [0.0] * n
    shares: list[dict[str, set[str]]] = [{} for _ in range(n)]
    solved: list[set[str]] = [set() for _ in range(n)]

    for place, item in enumerate(items):
        extra = [0.0 if item.case in solved[k] else item.solution for k in range(n)]
        empty = [k for k in range(n) if not shares[k]]
        open_to = empty if len(items) - place <= len(empty) else range(n)
        k = min(open_to, key=lambda k: loads[k] + SECOND_SOLUTION * extra[k])
        loads[k] += item.cost + extra[k]
        shares[k].setdefault(item.case, set()).add(item.name)
        if item.solution:
            solved[k].add(item.case)
    if not shares[i - 1]:
        raise ValueError(f"shard {i}/{n} has no cell: the plan has {len(items)} cells that can run")
    return {case: frozenset(shares[i - 1][case]) for case in cases if case in shares[i - 1]}


def _items(cases: Mapping[str, Case]) -> list[_Item]:
    """All cells that can run, with their costs."""
    networks = {id(case.sweep.model) for case in cases.values()}
    items = []
    for name, case in cases.items():
        sweep = case.sweep
        # Of one network all evaluations cost the same, and need not be counted.
        unit = 1 if len(networks) == 1 else sweep.cost.flops or case.given.spec.dims
        solution = 0
        if sweep.solver is not None:
            solution = unit * sweep.solver.likely_evaluations(sweep.model.sde)
            solution *= sweep.model.evaluations
        for cell in sweep.cells:
            if cell.ts is not None:
                needed = solution if sweep.is_paired(cell) else 0
                items.append(_Item(unit * likely_evaluations(cell), name, cell.name, needed))
        if case.likelihood is not None:
            items.append(_Item(unit * likelihood_evaluations(case), name, LIKELIHOOD, 0))
    return items
