"""Cases that differ by the seed only are one answer, and are compared seed by seed."""

import dataclasses
import math
import re

import pytest
import torch

from scoresde.comparison.findings import Findings
from scoresde.comparison.ranking import gain
from scoresde.comparison.records import CellResult
from scoresde.comparison.seeds import seed_groups
from scoresde.metrics import Estimate

N, SEEDS = 60, 3


def estimate(values, shared, name="mmd2"):
    """A mean of values, and of those of a reference that all samples share."""
    moves = (values - values.mean(), shared - shared.mean())
    error = math.sqrt(sum(float(move.var()) / len(move) for move in moves))
    return Estimate(float(values.mean()), error, (N, len(shared)), name, "", moves)


def cell(sampler, seed, value):
    planned = CellResult(f"{sampler}-{seed}", sampler, "log_snr", 5, None, "done", True)
    return dataclasses.replace(planned, n=N, x_init_sha256=f"x{seed}", metrics={"mmd2": value})


@pytest.fixture
def cases(tmp_path):
    """Three seeds of one model: two samplers whose values differ by 0.02 beside a noise of 0.1."""
    draw = torch.Generator().manual_seed(0)
    shared = torch.randn(200, generator=draw, dtype=torch.float64)

    def one(seed):
        common = torch.randn(N, generator=draw, dtype=torch.float64)
        own = 0.05 * torch.randn(N, generator=draw, dtype=torch.float64)
        cells = [
            cell("good", seed, estimate(1 + common, shared)),
            cell("bad", seed, estimate(1.02 + common + own, shared)),
        ]
        settings = {"samplers": ["good", "bad"], "grids": ["log_snr"], "nfe": [5], "n": N}
        settings |= {"checkpoint": "net.pt"}
        quality = {"floor_values": {"mmd2": Estimate(0.0, 0.01, (N, 200), "mmd2")}}
        return Findings(tmp_path, settings, {}, cells, None, quality, None, strips=[])

    found = {f"seed{seed}": one(seed) for seed in range(SEEDS)}
    return found, {
        f"seed{seed}": {"model": "net", "seed": seed, "labels": None} for seed in range(SEEDS)
    }


def test_joined_cells_are_ranked_by_the_differences_within_each_seed(cases):
    """The error of the difference of means is that of the seeds' own differences, over S."""
    (group,) = seed_groups(*cases)
    assert (group.name, group.cases) == ("mean of 3 seeds", tuple(cases[0]))
    good, bad = group.findings.results
    assert good.n == SEEDS * N
    alone = [gain(*findings.results, "mmd2") for findings in cases[0].values()]
    found = gain(good, bad, "mmd2")
    assert found.value == pytest.approx(sum(each.value for each in alone) / SEEDS)
    error = math.sqrt(sum(each.std_error**2 for each in alone)) / SEEDS
    assert found.std_error == pytest.approx(error, rel=0.01)  # N − 1 against S N − 1
    unpaired = dataclasses.replace(bad, x_init_sha256="other")
    assert gain(good, unpaired, "mmd2").std_error > 5 * error
    answer = group.findings.answer(5)
    assert (answer.cell.sampler, answer.next.sampler) == ("good", "bad")


def test_the_mean_is_shown_with_the_spread_of_the_seeds(cases):
    """The interval is narrower than that of any seed."""
    found, about = cases
    (group,) = seed_groups(found, about)
    row = next(group.means())
    values = [findings.results[0].metrics["mmd2"] for findings in found.values()]
    numbers = [float(text) for text in re.findall(r"[\d.]+", " ".join(row.values[0]))]
    assert numbers[0] == pytest.approx(sum(v.value for v in values) / SEEDS, abs=0.01)
    assert numbers[3:] == pytest.approx(
        [min(v.value for v in values), max(v.value for v in values)], abs=0.01
    )
    widths = [high - low for low, high in (v.interval() for v in values)]
    assert numbers[2] - numbers[1] < 0.8 * min(widths)
    (line, _) = group.rows()
    assert {"seeds", "mmd2_min", "mmd2_max"} <= {*line}
    assert line["seconds"] is None  # those of one run say nothing of the mean


def test_only_what_all_seeds_have_is_joined(cases):
    """A cell that one seed lacks is left out; values without influences stay apart."""
    found, about = cases
    last = found["seed2"]
    found["seed2"] = dataclasses.replace(last, results=last.results[:1])
    (group,) = seed_groups(found, about)
    assert [one.sampler for one in group.findings.results] == ["good"]
    value = dataclasses.replace(last.results[0].metrics["mmd2"], influence=())
    old = dataclasses.replace(last.results[0], metrics={"mmd2": value})
    found["seed2"] = dataclasses.replace(last, results=[old])
    groups = seed_groups(found, about)
    assert [group.name for group in groups] == list(found)
    assert [group.findings for group in groups] == list(found.values())


def test_models_and_labels_are_not_mixed(cases):
    found, about = cases
    about["seed2"] |= {"model": "other"}
    groups = seed_groups(found, about)
    assert [(group.name, group.joined) for group in groups] == [
        ("net, mean of 2 seeds", True),
        ("seed2", False),
    ]
