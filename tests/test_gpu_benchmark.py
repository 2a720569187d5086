"""The benchmarks for a GPU: failing rows, budgets, ratios, differences, and counts of launches."""

import importlib
import json
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from scoresde.nets import UNet

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


# Operations of one more step beside the network, and of a node of the likelihood. Each costs the
# host about 5 µs; 3 % of an evaluation of 9.2 ms on an H100 are about 50.
LAUNCHES = {
    "ddim": 8,
    "dpmpp-2m": 9,
    "angular": 14,
    "ancestral": 12,
    "euler-maruyama": 12,
    "sde-dpmpp-2m": 13,
    "pc": 21,
    "annealed-langevin:steps=1": 11,
    "of_nodes": 175,
}


@pytest.mark.parametrize("name", LAUNCHES)
@pytest.mark.by_default("ddim", "ancestral", "pc", "of_nodes")
def test_on_a_gpu_a_step_asks_for_few_operations_and_waits_for_none(script, name):
    launches = script("launches")
    with launches.on_pretended_gpu():
        if name == "of_nodes":
            count = launches.of_nodes(steps=2)
        else:
            count = launches.of_sampler(name, steps=2)
    assert 7 < count.total <= LAUNCHES[name]
    assert count.waits == {}


@pytest.mark.slow
def test_the_trainer_asks_for_few_more_operations_than_a_bare_loop_and_waits_for_none(script):
    launches, counts = script("launches"), []
    with launches.on_pretended_gpu():
        net = UNet((3, 32, 32), 4, (1,), 1).to(launches.DEVICE)
        counts = [launches.of_training(net, 4, own) for own in (False, True)]
    assert 50 < counts[1].total - counts[0].total <= 140
    assert counts[1].waits == {}


def test_a_number_that_is_read_is_a_wait(script):
    launches = script("launches")
    with launches.on_pretended_gpu(), launches.Counting() as counting:
        x = torch.ones(3, device=launches.DEVICE)
        assert not bool((2 * x).sum() > 1)
        x[:2].cpu()
        torch.tensor([1.0]).to(x.device)
        torch.tensor([1.0]).to(x.device, non_blocking=True)
    here = [line.partition(":")[0] for line in counting.waits.elements()]
    assert here == 3 * ["test_gpu_benchmark.py"]
    assert counting.launches == {
        "ones": 1,
        "mul": 1,
        "sum": 1,
        "gt": 1,
        "_local_scalar_dense": 1,
        "_to_copy": 3,
    }
