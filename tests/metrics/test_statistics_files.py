"""Statistics of features in files: those of other programs give the distance of the data."""

import numpy as np
import pytest
import torch

from scoresde.metrics import GaussianStats, frechet_distance, load_statistics, save_statistics

D = 5


def rows(n, seed):
    mixed = torch.randn(D, D, generator=torch.Generator().manual_seed(7)).double()
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed)).double() @ mixed + 3


def test_a_file_of_another_program_gives_the_distance_of_its_data(tmp_path):
    """FID programs write numpy's mean and `np.cov`."""
    reference, x = rows(300, 0), rows(200, 1)
    path = tmp_path / "others.npz"
    np.savez(path, mu=reference.numpy().mean(0), sigma=np.cov(reference.numpy(), rowvar=False))
    found = frechet_distance(x, load_statistics(path, "mine@1", 300), space="mine@1")
    assert found.value == pytest.approx(frechet_distance(x, reference).value, rel=1e-9)
    with pytest.raises(ValueError, match="does not say its space"):
        load_statistics(path, n=300)
    with pytest.raises(ValueError, match="does not say its n"):
        load_statistics(path, "mine@1")


def test_own_files_say_their_features_and_hold_what_others_read(tmp_path):
    path, reference = tmp_path / "own.npz", rows(300, 0)
    save_statistics(path, GaussianStats.of(reference, "mine@1"))
    with np.load(path) as file:
        np.testing.assert_allclose(file["mu"], reference.numpy().mean(0), rtol=1e-12)
        np.testing.assert_allclose(file["sigma"], np.cov(reference.numpy(), rowvar=False))
    again = load_statistics(path)
    assert (again.n, again.space) == (300, "mine@1")
    with pytest.raises(ValueError, match="space must be that of .*, mine@1, got other@2"):
        load_statistics(path, "other@2")
    with pytest.raises(ValueError, match="n must be that of .*, 300, got 299"):
        load_statistics(path, n=299)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"mu": np.zeros(D)}, "has no sigma"),
        ({"mu": np.zeros(D), "sigma": np.eye(D + 1)}, r"shapes \(d,\) and \(d, d\)"),
        ({"mu": np.zeros(D), "sigma": np.triu(np.ones((D, D)))}, "symmetric"),
        ({"mu": np.full(D, np.nan), "sigma": np.eye(D)}, "finite"),
        ({"mu": np.zeros(D, object), "sigma": np.eye(D)}, r"cannot be read as \.npz"),
    ],
)
def test_wrong_files_are_refused(tmp_path, arrays, match):
    path = tmp_path / "wrong.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=match):
        load_statistics(path, "mine@1", 10)


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    path = tmp_path / "wrong.npz"
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match="cannot be read"):
        load_statistics(path, "mine@1", 10)
