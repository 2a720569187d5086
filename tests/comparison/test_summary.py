"""Every statement of the summary is supported by the standard errors."""

import dataclasses

import pytest

from scoresde.comparison.findings import Findings
from scoresde.comparison.records import CellResult
from scoresde.comparison.summary import interval_text, sentences, text_table
from scoresde.data import DataSpec
from scoresde.metrics import Estimate


def estimate(value, error):
    return Estimate(value, error, (100, 1000), "mmd2")


def cell(sampler, budget, value, error=0.01, rmse=None, **changes):
    metrics = {"mmd2": estimate(value, error)}
    if rmse is not None:
        metrics["paired_rmse"] = estimate(rmse, 0.001)
    values = {
        "key": f"{sampler}--log_snr--nfe{budget}",
        "sampler": sampler,
        "grid": "log_snr",
        "nfe_asked": budget,
        "tolerance": None,
        "status": "done",
        "deterministic": rmse is not None,
        "steps": budget - 1,
        "nfe": budget,
        "n": 100,
        "seconds": 1.5,
        "seconds_bare": 1.0,
        "metrics": metrics,
    }
    return CellResult(**values | changes)


@pytest.fixture
def findings(tmp_path):
    def make(*cells, floor=0.0, likelihood=None):
        floors = {"mmd2": estimate(floor, 0.01)}
        quality = {"floor": "100 rows of the test split", "floor_values": floors}
        settings = {
            "samplers": sorted({c.sampler for c in cells}),
            "grids": sorted({c.grid for c in cells}),
            "nfe": sorted({c.nfe_asked for c in cells}),
            "n": 100,
            "data": DataSpec((1, 8, 8), -1, 1, 17).to_dict(),
        }
        error = estimate(1e-5, 0.01)
        reference = {"error": error, "method": "dopri8", "tolerance": 1e-6, "nfe": 200}
        return Findings(
            tmp_path, settings, {}, list(cells), reference, quality, likelihood, strips=[]
        )

    return make


def test_a_clear_winner_is_named_and_ties_are_admitted(findings):
    found = findings(cell("ddim", 5, 0.30), cell("heun", 5, 0.10), cell("edm", 5, 0.11))
    text = " ".join(sentences(found))
    assert "Within 5 evaluations take heun (MMD² 0.100 ± 0.010)" in text
    assert "100 samples show no difference from edm." in text
    # the error of the difference is √2 · 0.01 without influences, Student's t with 99 is 1.98
    assert "The next, ddim, is worse by 0.200 (95 % interval 0.172 to 0.228), a" in text


def test_samples_that_only_the_solution_of_the_ode_tells_apart_are_called_equal(findings):
    found = findings(cell("ddim", 5, 0.10, rmse=0.2), cell("heun", 5, 0.10, rmse=0.1), floor=-1.0)
    text = " ".join(sentences(found))
    assert "take heun (MMD² 0.100 ± 0.010). 100 samples show no difference from ddim." in text
    assert "closest to the exact solution: the paired RMSE of ddim is larger by 0.100" in text
    assert "The next" not in text


def with_metric(one, name, value, error):
    other = Estimate(value, error, (100, 1000), name)
    return dataclasses.replace(one, metrics=one.metrics | {name: other})


def test_metrics_that_contradict_each_other_are_said_in_one_line(findings):
    """MMD² prefers saturated noise, which sliced W₂ and the paired error refuse."""
    noise = with_metric(cell("heun", 5, 0.0045, 0.0011, rmse=14.2), "sliced_w2", 0.5, 0.01)
    clean = with_metric(cell("ddim", 5, 0.0182, 0.0021, rmse=0.12), "sliced_w2", 0.177, 0.01)
    found = findings(noise, clean)
    found.quality["floor_values"]["sliced_w2"] = Estimate(0.1, 0.01, (100, 1000), "sliced_w2")
    found.quality["floor_values"]["mmd2"] = estimate(-0.1, 0.0005)
    text = sentences(found)
    lines = [line for line in text if "disagree" in line]
    assert len(lines) == 1
    assert lines[0].startswith("Within 5 evaluations the metrics disagree: heun has the best MMD²")
    assert "0.0045 ± 0.0011 against 0.0182 ± 0.0021" in lines[0]
    assert "but ddim the best" in lines[0]
    assert "take ddim" in text[1]


def test_a_tie_is_no_contradiction(findings):
    close = with_metric(cell("heun", 5, 0.100, rmse=0.2), "paired_rmse", 0.2, 0.001)
    best = with_metric(cell("ddim", 5, 0.101, rmse=0.1), "paired_rmse", 0.1, 0.001)
    assert "disagree" not in " ".join(sentences(findings(close, best, floor=-1.0)))


def test_what_more_steps_can_gain_is_said(findings):
    found = findings(cell("ddim", 5, 0.012, 0.001))
    found.solution["mmd2"] = estimate(0.009, 0.001)
    text = " ".join(sentences(found))
    assert "more steps can lower the MMD² of ddim (0.0120 ± 0.0010) by at most 0.00581, " in text
    assert "less than the network's own error: 0.0090 ± 0.0010 is the network's own." in text


def test_the_floor_is_reached_or_not(findings):
    far = " ".join(sentences(findings(cell("ddim", 5, 0.3), cell("ddim", 9, 0.2))))
    assert "every cell is worse" in far
    near = " ".join(sentences(findings(cell("ddim", 5, 0.3), cell("ddim", 9, 0.02))))
    assert "1 of 2 cells is not shown to be worse" in near
    assert "the cheapest ddim with 9 evaluations" in near


def test_scores_below_real_data_are_suspicious(findings):
    text = " ".join(sentences(findings(cell("ddim", 5, 0.1), floor=0.3)))
    assert "1 cell below it by more than chance" in text
    assert "a sign of copying" in text


def test_nothing_wins_by_being_better_than_real_data(findings):
    """Both cells are not worse than the floor, though 0.1 and 0.25 differ by ten errors."""
    found = findings(cell("ddim", 5, 0.25), cell("heun", 5, 0.1), floor=0.3)
    text = " ".join(sentences(found))
    assert "100 samples show no difference from real data and from ddim." in text
    assert "is worse by" not in text


def test_the_cheapest_cell_at_the_floor_is_the_one_of_fewest_evaluations(findings):
    """The order of the cells does not matter."""
    cells = [cell("ddim", budget, 0.0) for budget in (9, 5, 7)]
    for some in (cells, cells[::-1]):
        assert "the cheapest ddim with 5 evaluations" in " ".join(sentences(findings(*some)))


def test_what_beats_the_recommended_settings_is_named(findings):
    cells = [cell("recommended", n, v) for n, v in ((5, 0.1), (9, 0.3))]
    text = sentences(findings(*cells, cell("ddim", 5, 0.2), cell("ddim", 9, 0.1)))[-1]
    assert text.startswith("The recommended settings are beaten within 9 evaluations by ddim in")
    assert text.endswith("; and not beaten in any metric within 5 evaluations.")


def test_an_interval_has_two_digits_of_its_half_width():
    assert interval_text(Estimate(0.13487, 0.0318, (128,), "mmd2")) == "0.135 (0.072 to 0.198)"
    assert interval_text(Estimate(-191273.0, 22814.0, (256,), "frechet")).startswith("−191273 (")
    assert interval_text(Estimate(0.5, float("nan"), (9,), "mmd2")) == "0.5 ± nan"
    wild = Estimate(2.25e18, 8.7e17, (64,), "frechet")
    assert (str(wild), interval_text(wild)) == (
        "2.25e+18 ± 8.7e+17",
        "2.25e+18 (5.11e+17 to 3.99e+18)",
    )


def test_the_most_accurate_solver_is_named(findings):
    found = findings(cell("ddim", 5, 0.3, rmse=0.2), cell("heun", 5, 0.3, rmse=0.1))
    text = " ".join(sentences(found))
    assert "Closest to the exact solution of the ODE from the same noise: heun within 5" in text


def test_many_ties_are_counted_rather_than_listed(findings):
    cells = [cell(f"s{i}", 5, 0.1) for i in range(7)]
    text = " ".join(sentences(findings(*cells)))
    assert "100 samples show no difference from s1, s2, s3 and 3 others." in text


def test_grids_are_named_where_there_are_several(findings):
    one, other = cell("ddim", 5, 0.1), cell("ddim", 5, 0.3, grid="uniform", key="b")
    text = " ".join(sentences(findings(one, other)))
    assert "take ddim · log_snr (MMD²" in text


def test_missing_cells_are_counted(findings):
    gone = cell("pc", 5, 0.1, status="skipped", metrics={}, reason="too short")
    found = findings(cell("ddim", 5, 0.1), gone)
    assert "1 more cell could not run" in sentences(found)[0]
    assert text_table(found).splitlines()[-1] == "skipped: pc log_snr NFE ≤ 5: too short"


def test_likelihood_carries_its_error(findings):
    likelihood = {"mean": 2.03456, "std_error": 0.0123, "n": 128, "unit": "bits/dim"}
    likelihood["split"] = "test"
    text = sentences(findings(cell("ddim", 5, 0.1), likelihood=likelihood))[-1]
    assert text == "The negative log-likelihood of 128 held-out data is 2.035 ± 0.012 bits/dim."


def test_text_table_is_aligned(findings):
    found = findings(cell("ddim", 5, 0.1, rmse=0.2), cell("euler-maruyama", 50, 0.1))
    lines = text_table(found).splitlines()
    assert lines[0].split() == [
        *("sampler", "grid", "asked", "NFE", "mmd2", "paired_rmse", "seconds")
    ]
    assert len({len(line) for line in lines}) == 1


def test_interpolated_and_trained_labels_stand_side_by_side(findings):
    moved = cell("ddim", 9, 0.2, rmse=0.05, grid="log_snr:ladder=true")
    found = findings(cell("ddim", 5, 0.2, rmse=0.3), cell("ddim", 9, 0.2, rmse=0.04), moved)
    expected = (
        "within 9 evaluations, first with labels interpolated between the trained ones, then with "
        "these only: ddim on log_snr 0.0400 ± 0.0010 and 0.0500 ± 0.0010."
    )
    assert expected in text_table(found)
    assert expected in " ".join(sentences(found))
    assert "labels" not in text_table(findings(moved))


def test_a_wrong_network_is_named_before_the_samplers(findings):
    """A network of the wrong sign: each cell and the exact solution are far from the data."""
    far = {"mmd2": estimate(0.6, 0.004), "classifier": estimate(1.0, 0.008)}
    wrong = findings(cell("ddim", 5, 0.0, metrics=far), cell("heun", 5, 0.0, metrics=far))
    wrong = dataclasses.replace(wrong, solution={"mmd2": estimate(0.6, 0.004)})
    assert "The network, not the sampler, is at fault" in sentences(wrong)[1]
    assert "accuracy of 1.000 ± 0.008" in sentences(wrong)[1]
    few_steps = dataclasses.replace(wrong, solution={"mmd2": estimate(0.0, 0.004)})
    assert "at fault" not in " ".join(sentences(few_steps))
    far["classifier"] = estimate(0.8, 0.008)
    assert "at fault" not in " ".join(sentences(wrong))
