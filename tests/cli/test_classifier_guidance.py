"""A classifier of noisy data: trained, inspected, and used as guidance, or refused in one line."""

import json

import numpy as np
import pytest

from scoresde.names.guidance import parse_guidance
from scoresde.tasks.guided import under_guidance
from scoresde.tasks.request import StoredModel

from .conftest import write_checkpoint

TINY = {"kind": "unet_classifier", "channels": 4, "multipliers": [1, 1], "classes": 10}


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    """A classifier of the digits under VP."""
    return write_checkpoint(tmp_path_factory.mktemp("classifier"), net=TINY)


@pytest.fixture(scope="session")
def other_classifier(tmp_path_factory):
    """A classifier of the digits under the VE of `points_checkpoint`."""
    return write_checkpoint(tmp_path_factory.mktemp("other"), net=TINY, sde={"kind": "ve"})


def by(classifier, **changed):
    """Guidance by a classifier, as text."""
    values = {"scale": 2, "checkpoint": classifier} | changed
    return ":".join(["classifier", *(f"{name}={value}" for name, value in values.items())])


@pytest.mark.slow
def test_train_measures_the_accuracy_at_each_noise_level(scoresde, tmp_path):
    small = "net.channels=4 train.steps=3 train.batch=16 train.warmup=1 train.cooldown=1".split()
    changes = [part for change in small for part in ("--set", change)]
    out = tmp_path / "run"
    done = scoresde("train", "--config", "digits_classifier", *changes, "--out", out)
    assert done.status == 0, done
    assert "right at all noise levels" in done.err
    assert "samples are drawn" not in done.err
    (*_, last) = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    found = last["validation"]
    pairs = zip(found["accuracy_by_t"], found["error_by_t"], strict=True)
    assert all(right == (None if wrong is None else 1 - wrong) for right, wrong in pairs)
    assert 0 <= found["accuracy"] <= 1
    assert (out / "loss.png").exists()
    assert not list(out.glob("samples-*.png"))
    done = scoresde("train", "--config", "digits_classifier", *changes, "--out", out)
    assert "all 3 steps are done" in done.err
    done = scoresde("inspect", "--checkpoint", out / "checkpoint.safetensors")
    assert done.status == 0, done
    assert "FLOPs per evaluation" in done.out


def test_a_model_without_classes_draws_those_of_the_classifier(
    scoresde, classifier, tiny_checkpoint, tmp_path
):
    arguments = ["sample", "--checkpoint", tiny_checkpoint, "--guidance", by(classifier, high=5)]
    done = scoresde(
        *arguments, *("--n", 4, "--sampler", "ddim", "--nfe", 4, "--out", tmp_path / "a")
    )
    assert done.status == 0, done
    assert "4 NFE counted" in done.out
    assert "and a derivative pass of the classifier" in done.out
    assert np.load(tmp_path / "a" / "samples.npz")["labels"].tolist() == [0, 1, 2, 3]


def test_thresholding_and_the_classifier_are_parts_of_the_text(classifier, tiny_checkpoint):
    for text, short in [
        ("3:threshold=0.9", "3:threshold=0.9"),
        ("apg:scale=3:threshold=1", "apg:scale=3:threshold=1"),
        ("classifier:checkpoint=a:scale=2", "classifier:scale=2:checkpoint=a"),
    ]:
        guidance = parse_guidance(text)
        assert str(guidance) == short
        assert parse_guidance(short) == guidance
    assert "threshold" not in parse_guidance("3").numbers  # as in results of earlier versions
    given = under_guidance(StoredModel.read(tiny_checkpoint), by(classifier, threshold=0.9))
    guided = given.build()
    assert (guided.quantile, type(guided.model).__name__) == (0.9, "ClassifierGuided")
    assert given.evaluations == guided.evaluations == 1
    assert given.condition == guided.condition
    assert given.t_most == guided.t_most


def test_what_is_no_classifier_or_does_not_fit_is_refused(
    refused, no_network, classifier, other_classifier, tiny_checkpoint, points_checkpoint
):
    for command in ("sample", "likelihood", "latent"):
        refused([command, "--checkpoint", classifier], "is a classifier of noisy data and no score")
    sample = ["sample", "--checkpoint", tiny_checkpoint, "--guidance"]
    refused([*sample, by(tiny_checkpoint)], "is a score model and no classifier of noisy data")
    refused([*sample, "classifier:scale=2"], "--guidance", "missing checkpoint")
    refused([*sample, by(classifier), "--label", 10], "--label: 10 is no class", "0 to 9")
    refused([*sample, "3:threshold=2"], "--guidance", "threshold must be at most 1, got 2")
    sample = ["sample", "--checkpoint", "digits-ve", "--guidance"]
    refused([*sample, by(classifier)], f"checkpoint={classifier} must have the SDE of digits-ve")
    sample = ["sample", "--checkpoint", points_checkpoint, "--guidance"]
    refused([*sample, by(other_classifier)], "must be of data of shape (2,), got (1, 8, 8)")


def test_a_model_of_data_at_another_scale_is_refused(
    refused, no_network, classifier, named_checkpoint
):
    sample = ["sample", "--checkpoint", named_checkpoint, "--guidance"]
    refused([*sample, by(classifier)], "must be of data at the scale of")  # 256 and 17 levels


def test_a_config_of_a_classifier_that_means_nothing_is_refused(refused):
    train = ["train", "--config", "digits_classifier"]
    refused([*train, "--set", "net.classes=3"], "net.classes must be the data's 10, got 3")
    refused([*train, "--set", "train.label_dropout=0.1"], "train.label_dropout must be 0 for a cl")
    refused([*train, "--set", "objective.weighting=edm"], "weighting must be 'simple'")
    refused([*train, "--validate-bits", 2], "--validate-bits: must be 0 for a classifier")
    refused([*train, "--set", "data.name=moons"], "net.classes must be the data's None")
