"""The cells of one case, measured by several processes that torchrun has started.

A process that is free takes the next cell, and writes it to the common folder. The cells that are
compared with the reference solution come last: one process solves it while the others measure the
rest. A cell is what it would be in one process, apart from its seconds and its memory.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

from torch import Tensor

from ..distributed import Ranks
from ..output.progress import Tell
from ..output.shared_work import wait_until
from .limit import OutOfTimeError, TimeLimit
from .plan import Cell, likely_evaluations
from .records import CELLS, CellResult
from .sweep import Sweep

__all__ = ["Together"]


@dataclass(frozen=True)
class Together:
    """Several processes that measure the cells of one case.

    Attributes:
        sweep: The sweep to which the cells belong.
        folder: The folder to write to.
        places: Folders that may hold the reference solution.
        ranks: The processes.
        tell: Called with (stage, done, total, note) when this process takes a cell.
        limit: The time at which the work ends.
    """

    sweep: Sweep
    folder: Path
    places: Sequence[Path]
    ranks: Ranks
    tell: Tell
    limit: TimeLimit

    def measure(self, names: Collection[str]) -> dict[str, CellResult]:
        """Measure cells, each on one process; all return when all cells are measured.

        Args:
            names: Names of the cells, the same on all processes.

        Returns:
            The cells that failed on any process, by name.

        Raises:
            PeerError: If another process fails.
        """
        sweep, ranks = self.sweep, self.ranks
        cells = [cell for cell in sweep.cells if cell.name in names]
        # The dearest come first, so that all processes end at about the same time.
        cells.sort(key=likely_evaluations, reverse=True)
        paired = [cell for cell in cells if sweep.is_paired(cell)]
        unsolved = ranks.gather(bool(paired) and self._solution() is None)[0]
        solution: list[Cell | None] = [None] if unsolved else []
        failed = self._share([*solution, *(c for c in cells if not sweep.is_paired(c))], None)
        ranks.gather()
        solved = self._solution() if paired else None
        if any(ranks.gather(solved is not None)):
            wait_until(lambda: self._solution() is not None)  # a shared disk may be late
            failed += self._share(paired, self._solution())
        found = [one for of_rank in ranks.gather([asdict(f) for f in failed]) for one in of_rank]
        failures = {result.name: result for result in (CellResult(**one) for one in found)}
        if ranks.writes and not self.limit.finite:
            for cell in cells:
                if cell.name not in failures:
                    wait_until((self.folder / CELLS / f"{sweep.key(cell)}.npz").exists)
        return failures

    def _share(self, cells: Sequence[Cell | None], solved: Tensor | None) -> list[CellResult]:
        """Measure the cells that this process gets, None for the reference solution.

        Returns:
            Those that failed.
        """
        costs = [0 if cell is None else likely_evaluations(cell) for cell in cells]
        total, failed = sum(costs), []
        begun = (done - cost for done, cost in zip(accumulate(costs), costs, strict=True))
        for done, cell in self.ranks.handed_out(list(zip(begun, cells, strict=True))):
            try:
                if cell is None:
                    self._solve()
                    continue
                self.tell("sampling", done, total, f"{cell.label} {cell.grid}".strip())
                if self.limit.finite and not self.limit.allows(self.sweep.seconds(cell, False)):
                    continue
                result = self.sweep.measure(cell, self.folder, solved, self.limit)
            except OutOfTimeError:
                continue
            failed += [result] if result.status == "failed" else []
        return failed

    def _solve(self) -> None:
        """Write the reference solution, if there is time for it."""
        cost = self.sweep.cost
        if not self.limit.finite or self.limit.allows(cost.of_solution(self.sweep.solver)):
            self.sweep.solve(self.folder, self.tell, self.limit)

    def _solution(self) -> Tensor | None:
        return self.sweep.stored_solution(self.places)
