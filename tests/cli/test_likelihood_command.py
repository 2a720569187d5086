"""`scoresde likelihood`."""

import csv
import json
import math

import numpy as np
import pytest

import scoresde as library
from scoresde.likelihood import discrete_log_likelihood, log_likelihood
from scoresde.noise import SampleNoise

# Coarse and from late on, so that a solve takes some twenty evaluations.
COARSE = {"t_min": 0.5, "rtol": 0.05, "atol": 0.05}
OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in COARSE.items()]


def rows(folder):
    with (folder / "per_image.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.fixture
def score(scoresde, tiny_checkpoint, tmp_path):
    """score("--n", 4): score into a new folder; its path and what was printed."""

    def call(*options, checkpoint=tiny_checkpoint, out=tmp_path / "out"):
        arguments = ("--checkpoint", checkpoint, "--out", out, *OPTIONS, *options)
        return out, scoresde("likelihood", *arguments)

    return call


def test_it_is_the_library(score, tiny_checkpoint):
    """Each batch is `discrete_log_likelihood` of its rows with their own streams."""
    out, done = score("--n", 5, "--batch", 3, "--draws", 2, "--probes", 2, "--seed", 4)
    assert done.status == 0, done.err
    found = rows(out)
    checkpoint, test = library.load(tiny_checkpoint), library.load_dataset("digits", "test")
    for part in (slice(0, 3), slice(3, 5)):
        chosen = [int(row["row"]) for row in found[part]]
        wanted = discrete_log_likelihood(
            checkpoint.model,
            test.x[chosen],
            checkpoint.data,
            noise=SampleNoise(4, range(part.start, part.stop)),
            draws=2,
            probes=2,
            **COARSE,
        )
        assert [row["bits_per_dim"] for row in found[part]] == wanted.bits_per_dim.tolist()
        assert [row["std_error"] for row in found[part]] == wanted.std_error.tolist()
        assert [row["log_prob"] for row in found[part]] == wanted.log_prob.mean(0).tolist()
        assert {row["nfe"] for row in found[part]} == {wanted.nfe}


def test_mean_and_standard_error_are_those_of_the_rows(score):
    out, done = score("--n", 6)
    values = np.array([row["bits_per_dim"] for row in rows(out)])
    mean, error = values.mean(), values.std(ddof=1) / math.sqrt(6)
    assert done.out.startswith(f"{mean:.4f} ± {error:.4f} bits/dim\n")
    summary = json.loads((out / "summary.json").read_text())
    # sums in another order
    assert summary["mean"] == pytest.approx(mean, rel=1e-12)
    assert summary["std_error"] == pytest.approx(error, rel=1e-12)
    with np.load(out / "per_image.npz", allow_pickle=False) as file:
        assert np.array_equal(file["bits_per_dim"], values)


def test_it_says_the_protocol(score):
    _, done = score("--n", 2, "--probes", 3, "--draws", 2)
    for part in (
        "2 of 297 in digits (test), 64 dimensions, 17 levels",
        "probability-flow ODE from t = 0.5 to 1, dopri5, rtol 0.05, atol 0.05",
        "Hutchinson's trace, Rademacher probes per image: 3",
        "uniform dequantization, draws per image: 2",
        "the choice of the data, the probes, the dequantization",
    ):
        assert part in done.out


def test_more_data_are_added_to_the_same(score, tmp_path):
    """The first rows chosen do not depend on how many are asked for; no row comes twice."""
    few, _ = score("--n", 3, out=tmp_path / "few")
    more, _ = score("--n", 5, out=tmp_path / "more")
    few, more = ([row["row"] for row in rows(folder)] for folder in (few, more))
    assert few == more[:3]
    assert len(set(more)) == 5


def test_points_are_scored_in_nats_beside_the_truth(score, points_checkpoint):
    out, done = score("--n", 4, checkpoint=points_checkpoint)
    assert done.status == 0, done.err
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["unit"], summary["trace"], summary["levels"]) == ("nats/dim", "exact", None)
    checkpoint, test = library.load(points_checkpoint), library.load_dataset("mixture3", "test")
    chosen = [int(row["row"]) for row in rows(out)]
    wanted = log_likelihood(checkpoint.model, test.x[chosen], **COARSE)
    assert [row["nats_per_dim"] for row in rows(out)] == (-wanted.log_prob / 2).tolist()
    assert summary["true_density"] == pytest.approx(
        -float(test.log_prob(test.x[chosen].double()).mean()) / 2, rel=1e-12
    )
    assert "the exact density's mean" in done.out


def test_labels_go_to_the_network(score, labelled_checkpoint):
    out, done = score("--n", 3, checkpoint=labelled_checkpoint)
    assert done.status == 0, done.err
    labels = library.load_dataset("digits", "test").labels
    assert [row["label"] for row in rows(out)] == [int(labels[int(r["row"])]) for r in rows(out)]


def test_a_file_is_scored_whole(score, tmp_path):
    np.save(tmp_path / "some.npy", np.full((3, 8, 8), 16, dtype=np.uint8))
    _, done = score("--data", tmp_path / "some.npy", "--levels", 17, "--n", 3)
    assert done.status == 0, done.err
    assert "3 of 3" in done.out
    assert "(all)" in done.out


def test_one_datum_has_no_standard_error(score):
    _, done = score("--n", 1)
    assert "± unknown (one image) bits/dim" in done.out


def test_the_trace_is_the_one_asked_for(score, points_checkpoint, tmp_path):
    """Many probes agree with the exact trace within four of their own standard errors."""
    exact, _ = score("--n", 2, checkpoint=points_checkpoint, out=tmp_path / "exact")
    estimate, done = score(
        *("--n", 2, "--trace", "hutchinson", "--probes", 64),
        checkpoint=points_checkpoint,
        out=tmp_path / "estimate",
    )
    assert "Hutchinson" in done.out
    for one, other in zip(rows(exact), rows(estimate), strict=True):
        assert one["std_error"] == 0
        assert other["std_error"] > 0
        # and the tolerance of two solves that choose their own steps
        bound = 4 * other["std_error"] + 2 * COARSE["rtol"]
        assert abs(one["nats_per_dim"] - other["nats_per_dim"]) < bound


def test_the_same_request_is_not_computed_again(score, monkeypatch):
    _, first = score("--n", 2)
    monkeypatch.setattr("scoresde.tasks.scoring._score", None)
    _, second = score("--n", 2)
    assert second.out == first.out


def test_out_of_memory_says_what_to_try_and_leaves_nothing(score, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("scoresde.tasks.scoring.discrete_log_likelihood", fail)
    out, done = score("--n", 7, "--batch", 5)
    assert done.status == 1
    assert "batch of 5, each of shape (1, 8, 8); try --batch 2" in done.err
    assert not out.exists()
