"""What `check` and `certify` find: one `Finding` for each law, together a `CheckReport`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["CheckReport", "Finding", "Verdict", "failed", "info", "judged", "passed", "warned"]

Verdict = Literal["pass", "warn", "fail", "info"]


@dataclass(frozen=True)
class Finding:
    """One law and whether a model keeps it.

    Attributes:
        law: Name of the law; `check` sets it.
        verdict: "pass"; "fail" if results would be wrong, or a function of the package would not
            run; "warn" if the model may be right, but is suspect or restricted; "info" for a number
            without a verdict, and for a law that could not be tested.
        measured: What was measured, in words.
        value: The measured number, if there is one.
        advice: What to do; empty unless the verdict is "warn" or "fail".
    """

    law: str
    verdict: Verdict
    measured: str
    value: float | None = None
    advice: str = ""


@dataclass(frozen=True)
class CheckReport:
    """All findings about one model or sampler. `print(report)` gives one line for each law.

    Attributes:
        model: Name of the model, or of the sampler.
        findings: One for each law, in the order in which they were tested.
        noun: What it is, the key of its name in `plain`.
    """

    model: str
    findings: tuple[Finding, ...]
    noun: str = "model"

    @property
    def passed(self) -> bool:
        """Whether no law failed; warnings are allowed."""
        return not self.failures

    @property
    def failures(self) -> tuple[str, ...]:
        """Names of the laws that failed."""
        return tuple(f.law for f in self.findings if f.verdict == "fail")

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        """Name of the law -> verdict."""
        return {finding.law: finding.verdict for finding in self.findings}

    def __getitem__(self, law: str) -> Finding:
        """The finding about one law.

        Raises:
            KeyError: If no law has this name.
        """
        return {finding.law: finding for finding in self.findings}[law]

    def __str__(self) -> str:
        """One line for each law, with advice on a line of its own, and a line that sums up."""
        width = max(len(finding.law) for finding in self.findings)
        lines = []
        for f in self.findings:
            lines.append(f"{f.verdict:<6}{f.law:<{width}}  {f.measured}".rstrip())
            lines += [f"      → {f.advice}"] if f.advice else []
        counts = {v: sum(f.verdict == v for f in self.findings) for v in ("pass", "warn", "fail")}
        told = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
        return "\n".join([*lines, f"{self.model}: {told}"])

    def plain(self) -> dict[str, Any]:
        """The report as plain data, for JSON."""
        return {
            self.noun: self.model,
            "passed": self.passed,
            "findings": [asdict(finding) for finding in self.findings],
        }


def passed(measured: str, value: float | None = None) -> Finding:
    """A law that holds."""
    return Finding("", "pass", measured, value)


def warned(measured: str, advice: str, value: float | None = None) -> Finding:
    """A law that is broken in a way that may be harmless."""
    return Finding("", "warn", measured, value, advice)


def failed(measured: str, advice: str, value: float | None = None) -> Finding:
    """A law that is broken."""
    return Finding("", "fail", measured, value, advice)


def info(measured: str, value: float | None = None) -> Finding:
    """A number without a verdict, or the reason why a law was not tested."""
    return Finding("", "info", measured, value)


def judged(what: str, value: float, limit: float, advice: str) -> Finding:
    """A law that holds if a number is at most a limit. NaN breaks it.

    Args:
        what: What the number is.
        value: The number.
        limit: The largest allowed number.
        advice: What to do if the law is broken.
    """
    shown = (f"{value:.1e}" if value else "0", f"{limit:.0e}" if limit else "0")
    measured = f"{what} {shown[0]}, at most {shown[1]}"
    keeps = value <= limit
    return passed(measured, value) if keeps else failed(measured, advice, value)
