"""`scoresde report --diff`: what differs between two folders, and whether it matters."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import scoresde as library
from scoresde.comparison.folder_diff import diff_folders
from scoresde.comparison.number_diff import _Pair
from scoresde.data import DataSpec
from scoresde.exact import GaussianMixture
from scoresde.metrics import Estimate
from scoresde.output.files import save_arrays
from scoresde.output.manifest import Origin, Source
from scoresde.output.result_folder import ResultFolder
from scoresde.sde import VP

ORIGIN = Origin("sample", {"seed": 0, "batch": 4, "nfe": 8}, {"checkpoint": Source("a", "1" * 64)})


def made(folder, origin=ORIGIN, x=None, nfe=8, torch="2.10"):
    """A folder of `scoresde sample` with these samples."""
    x = np.eye(3) if x is None else x
    with ResultFolder.open(folder, origin).write(("samples.npz", "summary.json")) as output:
        save_arrays(output.work / "samples.npz", x=x, nfe=np.array(nfe))
        output.finish({"versions": {"scoresde": "1", "torch": torch}})
    return folder


def told(found):
    return {cause.key: cause.matters for cause in found.causes}


def test_equal_folders_say_so(tmp_path):
    found = diff_folders(made(tmp_path / "a"), made(tmp_path / "b"))
    assert found.equal
    assert "The folders are equal" in str(found)
    assert json.loads(json.dumps(found.plain()))["equal"] is True


def test_causes_are_told_and_rated(tmp_path):
    """What can change numbers comes first; a renamed file of equal content changes nothing."""
    settings = {"seed": 0, "batch": 8, "nfe": 9}
    renamed = {"checkpoint": Source("b", "1" * 64)}
    other = made(tmp_path / "b", Origin("sample", settings, renamed), torch="2.11")
    found = diff_folders(made(tmp_path / "a"), other)
    assert told(found) == {
        **{"nfe": "yes", "batch": "rounding", "torch": "rounding", "name of checkpoint": "no"}
    }
    assert found.causes[0].key == "nfe"
    own_class = replace(ORIGIN, settings=ORIGIN.settings | {"sde": "mine:Own:beta_max=9"})
    assert told(diff_folders(tmp_path / "a", made(tmp_path / "d", own_class))) == {"sde": "yes"}
    retrained = {"checkpoint": Source("a", "2" * 64)}
    third = made(tmp_path / "c", replace(ORIGIN, sources=retrained))
    assert told(diff_folders(tmp_path / "a", third)) == {"content of checkpoint": "yes"}


@pytest.mark.parametrize(("step", "beyond"), [(1e-7, False), (0.1, True)])
def test_samples_from_the_same_noise_are_paired(tmp_path, step, beyond):
    found = diff_folders(made(tmp_path / "a"), made(tmp_path / "b", x=np.eye(3) + step, nfe=9))
    count, samples = sorted(found.numbers, key=lambda number: number.name != "NFE")
    assert (count.difference, samples.beyond) == ("+1", beyond)
    assert samples.difference.startswith(f"RMSE {step:.3g} ")


def test_samples_of_other_noise_are_not_subtracted(tmp_path):
    other = made(tmp_path / "b", replace(ORIGIN, settings=ORIGIN.settings | {"seed": 1}))
    (number,) = diff_folders(made(tmp_path / "a"), other).numbers
    assert not number.beyond
    assert "not the same x_T" in number.how


@pytest.mark.usefixtures("no_figures")
def test_likelihoods_of_the_same_data_are_paired(tmp_path):
    """Two models: the difference is found although each alone has a wider error."""
    for name, shift in (("a", 0.0), ("b", 0.1)):
        model = GaussianMixture(VP(), [0.5, 0.5], [[1.0 + shift], [-1.0]], [0.3, 0.3])
        model.data = DataSpec((1,), -2.0, 2.0)
        x = GaussianMixture(VP(), [0.5, 0.5], [[1.0], [-1.0]], [0.3, 0.3]).sample(200, seed=0)
        library.likelihood_report(model, x, out=tmp_path / name, measured=0, progress=False)
    found = diff_folders(tmp_path / "a", tmp_path / "b")
    assert told(found)["content of model"] == "yes"
    (number,) = found.numbers
    rows = [np.load(tmp_path / name / "per_image.npz")["nats_per_dim"] for name in "ab"]
    assert float(number.difference.split()[0]) == pytest.approx(
        (rows[1] - rows[0]).mean(), abs=0.01
    )
    assert number.how == "paired"
    assert diff_folders(tmp_path / "a", tmp_path / "a").equal


def test_a_level_for_many_numbers():
    """2.2 standard errors are beyond the error of one number, and not of one among a hundred."""
    a, b, change = (Estimate(v, s, (999,), "x") for v, s in ((1, 1), (3.2, 1), (2.2, 1)))
    pair = _Pair("x", a, b, change, "paired")
    assert pair.number(0.95).beyond
    assert not pair.number(1 - 0.05 / 100).beyond
    assert not replace(pair, systematic=1.0).number(0.95).beyond
    assert pair.number(0.95).difference == "2.2 ± 1.0"


def test_bad_folders_are_refused(tmp_path):
    made(tmp_path / "a")
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="none holds no results"):
        diff_folders(tmp_path / "a", tmp_path / "none")
    made(tmp_path / "other", replace(ORIGIN, command="latent"))
    with pytest.raises(ValueError, match="of latent, not of sample, likelihood, bench, demo"):
        diff_folders(tmp_path / "a", tmp_path / "other")
    made(tmp_path / "bits", replace(ORIGIN, command="likelihood"))
    with pytest.raises(ValueError, match="give two folders of the same kind"):
        diff_folders(tmp_path / "a", tmp_path / "bits")
    (tmp_path / "a" / "samples.npz").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"samples\.npz is missing or damaged"):
        diff_folders(tmp_path / "a", tmp_path / "a")


@pytest.mark.usefixtures("no_figures")
def test_the_cause_of_a_difference_of_two_comparisons_is_named(tmp_path):
    """Another seed, other data and another model are each the only cause; more cells are none."""
    models = [GaussianMixture(VP(), [1.0], [[0.0, 0.0]], [std]) for std in (1.0, 1.5)]
    x = models[0].sample(40, seed=0).float().clamp(-1, 1)
    x[:2] = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])  # the range of all data is the same
    given = {"samplers": "ddim", "nfe": 4, "n": 8, "metrics": "mmd2", "progress": False}
    given |= {"reference_tolerance": None, "data": x}

    def bench(name, model=models[0], **changes):
        library.bench(model, **given | changes, out=tmp_path / name)

    bench("a")
    for name, changes, cause in (
        ("seed", {"seeds": 1}, {"seed": "yes"}),
        ("data", {"data": -given["data"]}, {"content of training data": "yes"}),
        ("model", {"model": models[1]}, {"content of model": "yes"}),
        ("nfe", {"nfe": [4, 5]}, {"nfe": "no"}),
    ):
        bench(name, **changes)
        found = diff_folders(tmp_path / "a", tmp_path / name)
        assert told(found) == cause, name
        assert (len(found.numbers) == 0) is (name == "nfe")
