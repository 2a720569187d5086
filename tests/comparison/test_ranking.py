"""Confidence sets of the best, contradictions between metrics, and the cell to take."""

import numpy as np
import pytest
import torch

from scoresde.comparison.labels import RECOMMENDED
from scoresde.comparison.ranking import answer, below_floor, gain, rank
from scoresde.comparison.records import CellResult
from scoresde.metrics import Estimate

N = 100


def estimate(values, name="mmd2"):
    """A mean of values, one for each sample, with its influences."""
    values = torch.as_tensor(np.asarray(values))
    error = float(values.std()) / len(values) ** 0.5
    moves = (values - values.mean(), torch.zeros(0))
    return Estimate(float(values.mean()), error, (len(values), 500), name, "", moves)


def about(value, error, name="mmd2"):
    return Estimate(value, error, (N, 500), name)


def cell(sampler, **metrics):
    names = {
        name: value if isinstance(value, Estimate) else about(*value, name)
        for name, value in metrics.items()
    }
    return CellResult(
        sampler, sampler, "log_snr", 5, None, "done", True, n=N, x_init_sha256="same", metrics=names
    )


def names(cells):
    return [one.sampler for one in cells]


def test_pairs_that_share_noise_are_told_apart():
    """0.169 ± 0.008 against 0.183 ± 0.008 is no difference, but 0.0143 ± 0.006 from one x_T is."""
    draw = np.random.default_rng(0)
    common = 0.08 * draw.standard_normal(N)
    one = cell("one", mmd2=estimate(0.169 + common))
    other = cell("other", mmd2=estimate(0.185 + common + 0.02 * draw.standard_normal(N)))
    found = gain(one, other, "mmd2")
    assert found.value == pytest.approx(0.016, abs=0.005)
    assert found.std_error == pytest.approx(0.002, rel=0.2)
    assert one.metrics["mmd2"].std_error > 3 * found.std_error
    assert names(rank([other, one], "mmd2").leading) == ["one"]


def test_the_level_is_divided_by_the_number_of_comparisons():
    """2.2 errors are enough for one comparison (1.98), but not for ten (2.63)."""
    best, worse = cell("best", mmd2=(0.0, 0.0)), cell("worse", mmd2=(2.2, 1.0))
    assert names(rank([best, worse], "mmd2").leading) == ["best"]
    others = [cell(f"far{i}", mmd2=(50.0, 1.0)) for i in range(9)]
    assert names(rank([best, worse, *others], "mmd2").leading) == ["best", "worse"]


@pytest.mark.parametrize(("n", "ratio"), [(N, 1.9), (4, 3.1)])
def test_no_cell_is_called_worse_if_the_interval_that_is_shown_includes_0(n, ratio):
    """The limits are 1.98 errors for 100 samples, and 3.18 for 4."""
    for factor, leading in ((1.0, ["best", "worse"]), (1.1, ["best"])):
        values = {"best": (0.0, 0.0), "worse": (factor * ratio, 1.0)}
        both = [cell(k, mmd2=Estimate(*v, (n, 500), "mmd2")) for k, v in values.items()]
        assert names(rank(both, "mmd2").leading) == leading
        assert (gain(*both, "mmd2").interval()[0] > 0) == (leading == ["best"])


def test_the_best_of_equal_cells_is_kept_in_95_of_100_cases():
    """Six cells, of which five are equal and best: the first leaves in at most 5 %."""
    draw, lost = np.random.default_rng(1), 0
    for _ in range(300):
        common = draw.standard_normal(N)
        shifts = (0, 0, 0, 0, 0, 0.3)
        cells = [
            cell(f"s{i}", mmd2=estimate(common + shift + 0.5 * draw.standard_normal(N)))
            for i, shift in enumerate(shifts)
        ]
        found = rank(cells, "mmd2")
        lost += cells[0] not in found.leading
        assert found.best in found.leading
    assert lost / 300 < 0.05 + 0.03


def test_larger_is_better_for_recall():
    found = rank([cell("low", recall=(0.5, 0.01)), cell("high", recall=(0.9, 0.01))], "recall")
    assert names(found.cells) == ["high", "low"]
    assert names(found.leading) == ["high"]
    assert gain(found.cells[0], found.cells[1], "recall").value == pytest.approx(0.4)


def test_cells_at_the_floor_are_equal():
    cells = [
        cell("copy", mmd2=(-0.3, 0.01)),
        cell("good", mmd2=(0.01, 0.01)),
        cell("bad", mmd2=(0.2, 0.01)),
    ]
    floor = about(0.0, 0.01)
    found = rank(cells, "mmd2", floor)
    assert names(found.leading) == names(found.at_floor) == ["copy", "good"]
    assert names(below_floor(cells, "mmd2", floor)) == ["copy"]
    assert names(rank(cells, "mmd2").leading) == ["copy"]


def test_a_blind_metric_is_contradicted_by_the_others():
    """The numbers of saturated noise beside clean images."""
    heun = cell(
        "heun",
        mmd2=(0.0045, 0.0011),
        frechet=(17, 2),
        sliced_w2=(0.5, 0.01),
        paired_rmse=(14.2, 0.2),
    )
    ddim = cell(
        "ddim",
        mmd2=(0.0182, 0.0021),
        frechet=(26, 2),
        sliced_w2=(0.177, 0.01),
        paired_rmse=(0.12, 0.01),
    )
    rankings = [rank([heun, ddim], name) for name in ("mmd2", "frechet", "sliced_w2")]
    found = answer([*rankings, rank([heun, ddim], "paired_rmse")])
    assert found.cell.sampler == "ddim"  # a factor of 118 in one metric against 4
    pairs = {(each.by.metric, each.against.metric) for each in found.disagreements}
    assert ("mmd2", "sliced_w2") in pairs
    assert all(each.disjoint for each in found.disagreements)


def test_the_answer_leads_by_the_most_metrics_and_says_by_how_much():
    cells = [
        cell("a", mmd2=(1.0, 0.01), sliced_w2=(1.0, 0.1)),
        cell("b", mmd2=(1.005, 0.01), sliced_w2=(1.5, 0.1)),
        cell("c", mmd2=(3.0, 0.01), sliced_w2=(1.0, 0.1)),
    ]
    found = answer([rank(cells, "mmd2"), rank(cells, "sliced_w2")])
    assert found.cell.sampler == "a"
    assert found.ties == ()
    # "b" is 1.5 times as far in one metric, "c" √3 times in the other: "b" is the next best
    assert (found.metric, found.next.sampler) == ("sliced_w2", "b")
    assert found.apart == ("sliced_w2",)
    assert found.gain.value == pytest.approx(0.5)
    assert found.factor.value == pytest.approx(1.5)
    alone = answer([rank(cells[:2], "mmd2")])
    assert names(alone.ties) == ["b"]
    assert alone.next is alone.gain is alone.factor is None


def test_a_stochastic_cell_loses_nothing_by_having_no_paired_error():
    sde, ode = cell("sde", mmd2=(1.0, 0.01)), cell("ode", mmd2=(2.0, 0.01), paired_rmse=(0.1, 0.01))
    found = answer([rank([sde, ode], "mmd2"), rank([sde, ode], "paired_rmse")])
    assert found.cell.sampler == "sde"
    assert found.disagreements == ()
    equal = cell("equal", mmd2=(1.0, 0.01))
    found = answer([rank([sde, equal, ode], "mmd2"), rank([sde, equal, ode], "paired_rmse")])
    assert (names(found.ties), found.next.sampler) == (["equal"], "ode")
    default = cell(RECOMMENDED, mmd2=(1.004, 0.01))
    found = answer([rank([sde, default], "mmd2")])
    assert (found.cell.sampler, names(found.ties)) == (RECOMMENDED, ["sde"])
    near = cell("near", mmd2=(1.0, 0.01), paired_rmse=(0.1, 0.01))
    found = answer([rank([near, sde], "mmd2"), rank([near, sde], "paired_rmse")])
    assert (found.next, names((found.cell, *found.ties))) == (None, ["near", "sde"])


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (CellResult("b", "b", "g", 5, None, "done", True, n=50), "n"),
        (CellResult("b", "b", "g", 5, None, "done", True, n=N, features="pca2"), "features"),
    ],
)
def test_cells_that_were_not_measured_alike_are_refused(other, what):
    metrics = {"mmd2": Estimate(1.0, 0.1, (other.n, 500), "mmd2")}
    object.__setattr__(other, "metrics", metrics)
    with pytest.raises(ValueError, match=f"ranked only with the same {what}: a has"):
        rank([cell("a", mmd2=(1.0, 0.1)), other], "mmd2")
