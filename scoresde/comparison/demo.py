"""The demonstration: our samplers and the classical ones on shipped checkpoints of real images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ..output.progress import Tell
from .case import STRIPS, Case, prepare_case
from .expected import plan_of
from .request import BenchRequest

__all__ = ["Demo", "prepare_demo", "with_whole"]

DIGITS = BenchRequest(
    checkpoint="digits-vp",
    samplers=(
        *("recommended", "unipc", "dpmpp-3m", "deis", "dpmpp-2m", "ddim", "heun", "dopri5"),
        *("ancestral", "euler-maruyama", "pc"),  # these draw noise
    ),
    nfe=(5, 10, 20, 50),
    n=128,
    reference_tolerance=1e-5,
    likelihood=128,
)
FASHION = BenchRequest(  # its data are not needed
    checkpoint="fashion-mnist-vp",
    samplers=("recommended", "unipc", "dpmpp-2m", "ddim", "heun", "ancestral"),
    nfe=(10,),
    n=16,
    reference_tolerance=None,
    quality=False,
)
WHOLE = "whole demonstration"  # stage
REPORT_SECONDS = 5.0  # expected, on one core


@dataclass(frozen=True)
class Demo:
    """A checked demonstration, ready to run.

    Attributes:
        case: The comparison on the digits, with the strip of Fashion-MNIST images.
    """

    case: Case

    @property
    def finished(self) -> bool:
        """Whether the folder holds the whole demonstration already."""
        cases = (self.case, *self.case.strips)
        return self.case.report.is_file() and all(case.results.finished for case in cases)

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Expected seconds of each stage that is still to do, timed on this machine."""
        if self.finished:
            return {}
        (digits,) = plan_of({"": self.case})["cases"]
        found = {"sampling": digits["parts"].pop("cells"), **digits["parts"]}
        for strip in self.case.strips:
            found[strip.sweep.spec.name] = plan_of({"": strip})["seconds"]
        return found | {"report": REPORT_SECONDS}

    def run(self, tell: Tell) -> Path:
        """Measure what the folder does not hold yet, and write the report.

        Args:
            tell: Called with (stage, done, total, note) during the work. The stage
                "whole demonstration" counts the expected seconds of all stages.

        Returns:
            The path of report.html.
        """
        return self.case.run(with_whole(tell, self.seconds))


def prepare_demo(folder: Path, overwrite: bool = False) -> Demo:
    """Plan a comparison of samplers on the digits, their likelihood, and Fashion-MNIST images.

    Args:
        folder: Folder for the results.
        overwrite: Replace results of other settings in the folder.

    Raises:
        CheckpointError: If a checkpoint cannot be read.
        ValueError: If the folder holds results of other settings.
    """
    options = {"overwrite": overwrite, "command": "demo"}
    strip = prepare_case(FASHION, folder / STRIPS / "fashion-mnist", **options)
    return Demo(replace(prepare_case(DIGITS, folder, **options), strips=(strip,)))


def with_whole(tell: Tell, seconds: Mapping[str, float]) -> Tell:
    """A `tell` that also tells of a stage for the whole, which counts expected seconds."""
    spent: dict[str, float] = {}
    whole = round(sum(seconds.values()))

    def tell_both(stage: str, done: int, total: int | None, note: str) -> None:
        spent[stage] = seconds.get(stage, 0.0) * (done / total if total else 0.0)
        tell(WHOLE, min(whole, round(sum(spent.values()))), whole, "expected seconds")
        tell(stage, done, total, note)

    return tell_both
