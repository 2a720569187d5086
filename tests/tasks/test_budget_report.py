"""The error budget of made-up numbers, as text and as a figure."""

import math
from dataclasses import asdict, fields, replace

import pytest
from PIL import Image

from scoresde.likelihood import MeanBudget
from scoresde.tasks.likelihood import budget_report
from scoresde.tasks.likelihood.budget_report import budget_table, save_budget

FULL = MeanBudget(
    value=2.34567,
    std_error=0.012,
    set_error=0.0112,
    probe_error=0.0034,
    draw_error=0.0021,
    solver=-0.00032,
    solver_error=0.0001,
    solver_n=8,
    rounding=2.5e-7,
    rounding_n=7,
    cut_off=0.05,
    prior_mismatch=-0.00012,
    half_width=0.025,
    n=128,
    nfe=43.0,
    nfe_derivative=36.0,
)
COUNTS = ("value", "n", "nfe", "nfe_derivative", "solver_n", "rounding_n")
UNKNOWN = MeanBudget(
    **{f.name: None for f in fields(MeanBudget) if f.name not in COUNTS},
    **{"value": 2.0, "n": 1, "nfe": 20, "nfe_derivative": 0, "solver_n": 0, "rounding_n": 0},
)


def found(budget=FULL, **changes):
    """A summary as `scoresde likelihood` writes it."""
    return {
        "checkpoint": "mine.safetensors",
        "data": "digits",
        "split": "test",
        "n": budget.n,
        "of": 297,
        "dims": 64,
        "levels": 17,
        "unit": "bits/dim",
        "protocol": "pf-ode/uniform",
        "method": "path of 24 steps",
        "trace": "Hutchinson(probes=2)",
        "budget": asdict(budget),
        "true_density": None,
        "draws": 2,
        "t_min": 1e-5,
        "seed": 3,
    } | changes


def row(table, begin):
    """The words of the line that begins so."""
    (line,) = [line for line in table.split("\n") if line.strip().startswith(begin)]
    return " ".join(line.split()).removeprefix(begin).strip()


def test_every_number_is_told():
    table = budget_table(found())
    head, rest = table.split("\n", 1)
    assert head == "2.3457 ± 0.012 bits/dim   pf-ode/uniform"
    assert row(rest, "standard error of the mean") == "0.012 all that is random"
    assert row(rest, "finite test set") == "0.011 n = 128"
    assert row(rest, "probes and nodes") == "0.0034"
    assert row(rest, "dequantization") == "0.0021"
    assert row(rest, "solver") == "-0.00032 ± 0.0001 change when refined, on 8 data"
    assert row(rest, "rounding") == "+2.5e-07 change in float64, on 7 data"
    assert row(rest, "95 % interval") == "2.3207 … 2.3707 bits/dim, all of the above"
    assert row(rest, "cut-off below t_min") == "+0.05 t_min = 1e-05"
    assert row(rest, "prior in place of p at t = 1") == "-0.00012"
    assert row(rest, "model") == "mine.safetensors"
    assert row(rest, "data") == (
        "128 of 297 in digits (test), 64 dimensions, 17 levels, draws per datum: 2"
    )
    assert row(rest, "method") == "path of 24 steps"
    assert row(rest, "trace") == "Hutchinson(probes=2)"
    assert row(rest, "cost per datum") == "43 evaluations and 36 derivative passes"
    assert row(rest, "seed") == "3"
    assert "truth" not in rest


def test_plain_text():
    table = budget_table(found())
    assert table.endswith("\n")
    assert not table.endswith("\n\n")
    lines = table.split("\n")
    assert lines == [line.rstrip() for line in lines]
    assert max(map(len, lines)) <= 100
    values = ("0.0034", "-0.00032", "+0.05")
    assert len({line.index(value) for line in lines for value in values if value in line}) == 1


@pytest.mark.parametrize("name", ["data", "checkpoint"])
def test_any_name_of_a_file_can_be_written(name):
    assert r"a\udcff\x1b.npy" in budget_table(found(**{name: "a\udcff\x1b.npy"}))


def test_what_is_unknown_is_said():
    table = budget_table(found(UNKNOWN, draws=1))
    assert table.startswith("2.0000 ± unknown bits/dim")
    for begin in ("standard error of the mean", "finite test set", "probes and nodes"):
        assert row(table, begin).startswith("unknown"), begin
    assert row(table, "dequantization") == "unknown unknown from one draw; in the first line"
    assert row(table, "95 % interval") == "unknown one datum"
    for begin in ("solver", "rounding", "prior in place of p at t = 1"):
        assert row(table, begin).startswith("not measured"), begin
    assert row(table, "cut-off below t_min") == (
        "not known t_min = 1e-05; the score there is not that of a smooth density"
    )
    assert "None" not in table
    assert "nan" not in table.lower()


def test_continuous_data_beside_their_truth():
    budget = replace(FULL, draw_error=0.0, probe_error=0.0)
    changes = {"levels": None, "unit": "nats/dim", "protocol": "pf-ode/continuous", "draws": 1}
    table = budget_table(found(budget, true_density=1.23456, **changes))
    assert table.startswith("log p = ")  # itself, and not its negative
    dims = found(budget)["dims"]
    assert f"log p = {-budget.value * dims:.4f} ± " in table.splitlines()[0]
    assert f"({-budget.value:.4f} ± " in table.splitlines()[0]
    assert row(table, "truth") == "log p = -1.2346 nats/dim, the exact density's mean"
    assert "continuous, draws per datum" in table
    assert row(table, "dequantization") == "0"
    assert row(table, "probes and nodes") == "0"


@pytest.mark.parametrize("protocol", ["vlb-ddpm", "vlb-continuous"])
def test_a_variational_bound_is_of_another_model(protocol):
    nothing = {"cut_off": 0.0, "prior_mismatch": 0.0, "draw_error": 0.0}
    budget = replace(FULL, solver=None, solver_error=None, solver_n=0, **nothing)
    table = budget_table(found(budget, protocol=protocol))
    assert "reverse SDE" in table
    assert "cut-off below t_min" not in table
    assert row(table, "solver") == "not measured"


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, instead of their files."""
    figures = []
    monkeypatch.setattr(budget_report, "save_figure", lambda path, figure: figures.append(figure))
    return figures


def test_bars_are_the_terms(drawn):
    save_budget("x.png", found(), 0.03)
    (axes,) = drawn[0].axes
    sizes = sorted(patch.get_width() for patch in axes.patches)
    wanted = (0.03, 0.0112, 0.0034, 0.0021, 0.00032, 2.5e-7, 0.05, 0.00012)
    assert sizes == pytest.approx(sorted(wanted))
    assert len(axes.get_yticklabels()) == 8
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "size, bits/dim")
    assert axes.get_title() == "2.3457 ± 0.012 bits/dim, n = 128"


def test_what_is_unknown_or_zero_has_no_bar(drawn):
    save_budget("x.png", found(replace(FULL, solver=None, draw_error=0.0)), math.nan)
    assert len(drawn[0].axes[0].patches) == 5


@pytest.mark.parametrize(
    ("budget", "typical"),
    [(FULL, 0.03), (UNKNOWN, math.nan), (replace(UNKNOWN, cut_off=0.1), math.nan)],
    ids=["eight bars", "no bar", "one bar"],
)
def test_files_are_pictures(tmp_path, budget, typical):
    import matplotlib.pyplot as plt

    save_budget(tmp_path / "budget.png", found(budget), typical)
    with Image.open(tmp_path / "budget.png") as picture:
        assert min(picture.size) > 50
    assert plt.get_fignums() == []
