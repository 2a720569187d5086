"""The benchmark for a GPU: rows that fail, budgets, and what its ratios and differences mean."""

import importlib
import json
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CPU = torch.device("cpu")


@pytest.fixture
def script(monkeypatch):
    """script(name): a script, which imports others of its folder."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)
    yield importlib.import_module
    for name in {path.stem for path in BENCHMARKS.glob("*.py")} - before:
        sys.modules.pop(name, None)


@pytest.fixture
def rows(script, tmp_path):
    return script("gpu_rows").Rows(tmp_path / "rows.json", {"command": "python gpu.py"})


def test_a_failing_row_keeps_its_error_and_the_file_has_every_row_at_once(rows):
    def stored():
        return json.loads(rows.path.read_text(encoding="utf-8"))["rows"]

    def measure():
        with rows.row("times", "first") as row:
            row["ms"] = 1.5
        assert stored() == [{"table": "times", "row": "first", "ms": 1.5}]
        with rows.row("times", "second"):
            raise RuntimeError("CUDA error: out of memory")
        with rows.row("times", "third") as row:
            row["ms"] = 2.5

    def fail():
        raise ValueError("no such checkpoint")

    rows.table("times", 60, measure)
    rows.table("never begins", 60, fail)
    assert [row.get("error") for row in stored()] == [
        *(None, "CUDA error: out of memory", None, "no such checkpoint")
    ]
    assert rows.failed == ["times second", "never begins the rest"]


def test_a_row_that_takes_too_long_ends_its_table_and_no_other(rows, script, monkeypatch):
    clock = [rows._end]
    monkeypatch.setattr(script("gpu_rows"), "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def slow():
        for name in "abc":
            with rows.row("slow", name):
                assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 60
                clock[0] += 61
                signal.raise_signal(signal.SIGALRM)  # what the timer does then

    def quick():
        with rows.row("quick", "d"):
            clock[0] += 60

    rows.table("slow", 60, slow)
    rows.table("quick", 60, quick)
    rows.table("too late", 1, lambda: pytest.fail("begun"))
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert [(row["row"], row.get("error")) for row in rows.rows] == [
        *(("a", "out of time"), ("the rest", "out of time")),
        *(("d", None), ("the rest", "out of time")),
    ]


def test_the_ratio_is_of_the_run_over_its_evaluations_by_the_bare_network(script, monkeypatch):
    speed, calls = script("gpu_speed"), []

    def forward(x=None):
        calls.append(1)
        return torch.zeros(2)

    def run(steps):
        for _ in range(3 * steps):
            forward()
        return 2 * steps

    monkeypatch.setattr(speed, "now", lambda device: 0.001 * len(calls))
    found = speed.beside_forward(run, forward, speed.SMALL)
    assert found == pytest.approx({"nfe": 6, "ratio": 1.5, "ms_per_evaluation": 1.5})


def test_a_device_that_computes_something_else_is_told(rows, script, monkeypatch):
    agreement, draw, drawn = script("gpu_agreement"), script("gpu_agreement").sample, []

    def wrong(model, sampler, *rest, **settings):
        """The second run, which is that on the CPU, has another value in float32."""
        found = draw(model, sampler, *rest, **settings)
        drawn.append(1)
        found.x[0, 0, 0, 0] += 0.02 if len(drawn) == 4 else 0
        return found

    monkeypatch.setattr(agreement, "sample", wrong)
    monkeypatch.setattr(agreement, "SAMPLERS", ["ancestral"])
    monkeypatch.setattr(agreement, "METHODS", [])
    sizes = script("gpu_speed").SMALL
    rows.table("agreement", 60, lambda: agreement.agreement(rows, CPU, sizes))
    assert rows.failed == ["agreement ancestral float32"]
    assert [row["row"] for row in rows.rows if "likelihood" in row["row"]] == [
        f"likelihood {name} {dtype}"
        for dtype in ("float64", "float32")
        for name in ("vlb-continuous", "vlb-ddpm")
    ]
    assert rows.rows[0]["difference"] == 0
