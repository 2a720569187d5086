"""`interval_coverage`: its expectation is the nominal share for every number of samples."""

import pytest
import torch

from scoresde.metrics import interval_coverage


@pytest.mark.parametrize("s", [1, 2, 7, 40])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.95])
def test_equally_likely_ranks_give_the_share(s, share):
    samples = torch.arange(s, dtype=torch.float64).expand(s + 1, s)[..., None]
    truth = torch.arange(s + 1, dtype=torch.float64)[:, None] - 0.5  # of rank 0, 1, …, s
    found = interval_coverage(samples, truth, share)
    assert float(found.mean()) == pytest.approx(share, abs=1e-12)
    torch.testing.assert_close(found, found.flip(0), rtol=0, atol=1e-12)
    assert bool((found.diff()[: s // 2] >= -1e-12).all())  # the middle ranks are inside


def test_each_datum_has_its_own_share():
    samples = torch.randn(3, 200, 2, 2, generator=torch.Generator().manual_seed(0))
    truth = torch.tensor([0.0, 0.0, 9.0])[:, None, None].expand(3, 2, 2)
    assert interval_coverage(samples, truth, 0.5).tolist() == [1, 1, 0]


def test_shapes_and_shares_are_checked():
    x = torch.zeros(3, 5, 2)
    with pytest.raises(ValueError, match=r"got \(3, 5, 2\) and \(3, 3\)"):
        interval_coverage(x, torch.zeros(3, 3), 0.5)
    with pytest.raises(ValueError, match="share must be"):
        interval_coverage(x, torch.zeros(3, 2), 1.0)
