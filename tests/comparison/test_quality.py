"""Quality metrics: held-out real data reach the floor, and other data are worse."""

import dataclasses

import pytest
import torch

from scoresde.comparison.measures import DEFAULT_METRICS, QUALITY_METRICS
from scoresde.comparison.metric_table import METRICS
from scoresde.comparison.quality import Quality, on_levels
from scoresde.data import Dataset, DataSpec, load_dataset
from scoresde.metrics.copying import nearest


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits"), load_dataset("digits", "test")


@pytest.fixture(scope="module")
def quality(digits):
    return Quality.build(*digits, n=100)


def test_the_floor_is_what_held_out_digits_score(quality, digits):
    train, test = digits
    assert tuple(quality.floor) == DEFAULT_METRICS
    assert {*QUALITY_METRICS, "paired_rmse", "as_asked"} == METRICS.keys()
    # MMD² is unbiased: equal distributions score 0 within its error
    assert abs(quality.floor["mmd2"].value) < 4 * quality.floor["mmd2"].std_error
    other = quality.measure(train.spec.encode(test.x[1::3]))
    for name in quality.floor:
        gap = abs(other[name].value - quality.floor[name].value)
        assert gap < 4 * (other[name].std_error + quality.floor[name].std_error), name


@pytest.fixture(scope="module")
def every_metric(digits):
    train = dataclasses.replace(digits[0], x=digits[0].x[::3], labels=digits[0].labels[::3])
    return Quality.build(train, digits[1], n=100, metrics=QUALITY_METRICS)


def test_noise_and_a_single_digit_are_told_from_digits(every_metric, digits):
    noise = torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    one = digits[0].spec.encode(digits[1].x[:1]).expand(100, -1, -1, -1)
    blind = {"noise": {"copying"}, "one": {"precision", "copying"}}
    blind["one"] |= {"clipped_density"}  # the one digit is a good one
    for name, x in (("noise", noise), ("one", one)):
        for metric, found in every_metric.measure(x).items():
            floor = every_metric.floor[metric]
            worse = METRICS[metric].sign * (found.value - floor.value)
            error = found.std_error + floor.std_error
            assert metric in blind[name] or worse > 2.5 * error, (name, metric)


def test_copies_of_the_training_data_are_seen(every_metric):
    found = every_metric.measure(every_metric.real.x[::5])["copying"]
    assert found.value > 0.99
    low, high = every_metric.floor["copying"].interval()
    assert low < 0.5 < high


def test_metrics_are_chosen_by_name(digits):
    chosen = Quality.build(*digits, n=30, metrics=["recall", "mmd2"])
    assert list(chosen.floor) == ["mmd2", "recall"]
    with pytest.raises(ValueError, match=r"metrics must be some of mmd2, .*, got fid"):
        Quality.build(*digits, n=30, metrics=["fid"])


def test_samples_are_rounded_and_clipped_as_their_pictures_are(quality, digits):
    spec = digits[0].spec
    x = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    rounded = on_levels(x, spec)
    assert torch.equal(spec.to_levels(rounded), spec.to_levels(x))
    assert quality.measure(x) == quality.measure(rounded)
    assert float(rounded.abs().max()) < 1


def test_the_shipped_classifier_serves_its_own_data_only(quality, digits):
    assert quality.about["features"].startswith("digits_cnn+layout_texture@")
    assert quality.from_file.name == "digits_cnn"
    renamed = [
        dataclasses.replace(d, spec=dataclasses.replace(d.spec, name="mine")) for d in digits
    ]
    other = Quality.build(*renamed, n=100)
    assert other.about["features"].startswith("layout_texture@")
    assert other.about["kernel"].startswith("Gaussian kernel of bandwidth ")
    assert other.from_file is None
    with pytest.raises(ValueError, match=r"features cnn are for digits .* got mine of shape"):
        Quality.build(*renamed, n=100, features="cnn")


def test_noise_that_the_classifier_misses_is_seen(quality, digits):
    """By MMD² in joint features, and beside any features by the two-sample test."""
    x = digits[0].spec.encode(digits[1].x[1::3])
    x = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    plain = Quality.build(*digits, n=100, metrics=["mmd2", "classifier"], features="cnn")
    assert plain.about["kernel"] == "cubic kernel of KID"
    for chosen, seen in ((plain, ["classifier"]), (quality, ["mmd2", "classifier"])):
        found = chosen.measure(x)
        gaps = {m: found[m].value - chosen.floor[m].value for m in plain.metrics}
        shown = [m for m in gaps if gaps[m] > 3 * found[m].std_error]
        assert shown == seen, gaps


def test_it_says_what_was_compared(quality):
    assert quality.about["reference"] == "1500 of 1500 rows of the train split"
    assert quality.about["floor"] == "100 rows of the test split"
    assert (quality.about["reference_n"], quality.about["floor_n"]) == (1500, 100)


def test_a_test_split_smaller_than_n_is_used_whole_and_said(digits):
    assert Quality.build(*digits, n=1000).about["floor"] == "297 rows of the test split"


def planar(n):
    spec = DataSpec((2,), -4.0, 4.0, name="plane")
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(2))
    return Dataset("plane", x, None, spec)


def test_without_a_test_split_rows_are_held_out():
    quality = Quality.build(planar(60), None, n=20)
    assert (quality.about["reference_n"], quality.about["floor_n"]) == (40, 20)
    held = {tuple(row) for row in planar(60).x.tolist()}
    held -= {tuple(row) for row in quality.real.x.tolist()}
    assert len(held) == 20
    assert "without the rows of the floor" in quality.about["reference"]


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="at least 8 rows to measure quality, got 7"):
        Quality.build(planar(7), None, n=20)


def test_a_large_reference_is_thinned_evenly():
    train = planar(12_000)
    quality = Quality.build(train, planar(50), n=20, metrics=["copying"])
    assert quality.about["reference"] == "5000 of 12000 rows of the train split"
    assert torch.equal(quality.real.x[[0, -1]], train.x[[0, -1]])
    # copies are searched among all rows
    assert quality.about["copying"] == "nearest of 12000 of 12000 rows of the train split"
    missing = train.x[~torch.isin(train.x[:, 0], quality.real.x[:, 0])]
    assert float(nearest(quality.features(missing[:9]), quality.real.train).max()) < 1e-12


def test_the_share_as_asked_of_real_digits_is_the_accuracy_of_the_classifier(digits):
    train, test = digits
    quality = Quality.build(train, test, n=40, metrics=["mmd2"])
    assert quality.asking(None) is quality
    assert quality.asking(torch.zeros(40, 3)) is quality  # a vector is no class
    rows = torch.linspace(0, len(test) - 1, 40).round().long()  # those of the floor
    x, y = test.spec.encode(test.x[rows]), test.labels[rows]
    asking = quality.asking(y)
    found = asking.measure(x)["as_asked"]
    assert found.value == asking.floor["as_asked"].value
    assert found.value > 0.9  # the shipped classifier is right for more of the test split
    wrong = quality.asking((y + 1) % 10)
    assert wrong.measure(x)["as_asked"].value < 0.1
    assert len({q.fingerprint for q in (quality, asking, wrong)}) == 3
    unlabelled = dataclasses.replace(quality, labels=None)
    assert unlabelled.asking(y) is unlabelled
