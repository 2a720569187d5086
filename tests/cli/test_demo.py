"""`scoresde demo`: its plan and its output; a slow test measures its time."""

import os
import re
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from scoresde.comparison import demo, quality
from scoresde.comparison.curves import Drawn
from scoresde.shipped import shipped

CHECKPOINTS = ("digits-vp", "fashion-mnist-vp")
BAR = 180  # seconds on two cores


@pytest.fixture
def tiny(tiny_checkpoint, monkeypatch):
    """Networks with negligible run time."""
    monkeypatch.setattr(quality, "REFERENCE_CAP", 200)
    monkeypatch.setattr("scoresde.comparison.measure.RUNS", 1)
    monkeypatch.setattr("scoresde.comparison.trajectory.TOLERANCE", 1e-2)
    monkeypatch.setattr("scoresde.comparison.noise_levels.COUNT", 2)
    for name in ("DIGITS", "FASHION"):
        request = replace(getattr(demo, name), checkpoint=tiny_checkpoint)
        monkeypatch.setattr(demo, name, request)


@pytest.mark.usefixtures("tiny")
def test_the_samplers_can_use_every_budget(tmp_path):
    case = demo.prepare_demo(tmp_path / "demo").case
    cells = case.sweep.cells
    labels = list(dict.fromkeys(cell.label for cell in cells))
    assert labels[0] == "recommended"
    assert len(labels) == len(demo.DIGITS.samplers)  # so many samplers does the text announce
    assert {"unipc", "dpmpp-3m", "ddim", "heun", "dopri5", "ancestral", "pc"} < {*labels}
    assert all(cell.ts is not None for cell in cells)
    assert sorted({cell.budget for cell in cells if cell.budget}) == [5, 10, 20, 50]
    # half of a budget at least: no sampler is compared at a fraction of what it may use
    assert all(cell.budget // 2 < cell.cost <= cell.budget for cell in cells if cell.budget)
    assert (case.sweep.settings.n, case.likelihood.n) == (128, 128)
    (strip,) = case.strips
    assert (strip.sweep.settings.n, len(strip.sweep.cells)) == (16, len(demo.FASHION.samplers))
    assert {cell.budget for cell in strip.sweep.cells} == {10}
    assert not (tmp_path / "demo").exists()


@pytest.mark.usefixtures("tiny", "coarse_likelihood")
def test_it_says_what_it_does_how_long_it_takes_and_where_the_page_is(
    scoresde, tmp_path, monkeypatch
):
    """The command runs with two samplers and few samples, and then again from its results."""
    # tested elsewhere
    drawn = Drawn(b"<svg ></svg>", b"")
    monkeypatch.setattr("scoresde.comparison.report.curves", lambda *_: drawn)
    for measured in ("Trajectories", "NoiseLevels"):
        monkeypatch.setattr(f"scoresde.comparison.report.{measured}.figure", drawn)
    for name in ("save_budget", "extremes"):
        monkeypatch.setattr(f"scoresde.tasks.likelihood.files.{name}", lambda path, *_: None)
    few = {"samplers": ("ddim", "ancestral"), "nfe": (3,), "n": 8, "likelihood": 4}
    few["reference_tolerance"] = 1e-2
    monkeypatch.setattr(demo, "DIGITS", replace(demo.DIGITS, **few))
    strip = replace(demo.FASHION, samplers=("ddim", "ancestral"), nfe=(3,))
    monkeypatch.setattr(demo, "FASHION", strip)
    first = scoresde("demo", "--out", tmp_path / "demo")
    assert first.status == 0, first.err
    page = tmp_path / "demo" / "report.html"
    assert first.out.splitlines()[-1] == str(page)
    assert first.out.startswith("3 samplers draw")
    assert re.search(r"Expected time on this machine: [\d.]+ s\.", first.out)
    stages = [demo.WHOLE, "sampling", "reference solution", "likelihood", "digits", "report"]
    assert first.err.splitlines() == stages  # the strip's checkpoint is one of digits here
    text = page.read_text(encoding="utf-8")
    assert "scoresde demo --out demo" in text
    assert text.count("First 16 samples: ") >= 3  # the strip of the second checkpoint
    before = (tmp_path / "demo" / "results.csv").read_bytes()
    again = scoresde("demo", "--out", tmp_path / "demo")
    assert again.status == 0, again.err
    assert (again.err, "Expected" in again.out) == ("", False)
    assert (tmp_path / "demo" / "results.csv").read_bytes() == before


def test_the_stage_of_the_whole_counts_the_expected_seconds_of_all_stages():
    told = []
    tell = demo.with_whole(lambda *one: told.append(one[:3]), {"a": 30.4, "b": 10.0})
    tell("a", 1, 2, "")
    tell("b", 1, None, "")  # its total is not known
    tell("unexpected", 1, 1, "")
    tell("a", 2, 2, "")
    tell("b", 4, 4, "")
    assert [(done, total) for stage, done, total in told if stage == demo.WHOLE] == [
        *((15, 40), (15, 40), (15, 40), (30, 40), (40, 40))
    ]
    assert [stage for stage, *_ in told if stage != demo.WHOLE] == [
        "a",
        "b",
        "unexpected",
        "a",
        "b",
    ]


@pytest.mark.slow
@pytest.mark.skipif(
    any(name not in shipped("checkpoints") for name in CHECKPOINTS),
    reason="the shipped checkpoints are not there; train them as the README says",
)
def test_it_takes_three_minutes_at_most(tmp_path):
    """The smaller of wall time and processor time counts, because the machine may be busy."""
    command = [sys.executable, "-c", "from scoresde_cli.main import main; main()", "demo"]
    before, began = os.times(), time.monotonic()
    subprocess.run([*command, "--out", str(tmp_path / "demo")], check=True, capture_output=True)
    after, seconds = os.times(), time.monotonic() - began
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    assert min(cpu, seconds) < BAR
    assert (tmp_path / "demo" / "report.html").stat().st_size > 100_000
    began = time.monotonic()
    subprocess.run([*command, "--out", str(tmp_path / "demo")], check=True, capture_output=True)
    assert time.monotonic() - began < BAR / 3
