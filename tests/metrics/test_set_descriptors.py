"""Descriptors of sets: they see what differs, and not the order of points or the padding."""

import pytest
import torch

from scoresde.metrics.set_descriptors import SetDescriptors


def padded(n=200, most=8, least=2, seed=0, ring=False):
    make = torch.Generator().manual_seed(seed)
    sizes = torch.randint(least, most + 1, (n,), generator=make)
    x = torch.randn(n, most, 2, generator=make, dtype=torch.float64)
    x = x / x.norm(dim=2, keepdim=True) if ring else x
    return x * (torch.arange(most) < sizes[:, None])[:, :, None], sizes


def test_order_and_padding_do_not_matter():
    x, sizes = padded()
    describe = SetDescriptors(x)
    turned = x.clone()
    for i, n in enumerate(sizes.tolist()):
        turned[i, :n] = x[i, torch.randperm(n, generator=torch.Generator().manual_seed(i))]
    torch.testing.assert_close(describe(turned), describe(x), rtol=0, atol=1e-12)
    longer = SetDescriptors(torch.cat([x, torch.zeros(len(x), 5, 2)], 1))
    more = longer(torch.cat([x, torch.zeros(len(x), 5, 2)], 1))
    torch.testing.assert_close(more[:, 1:], describe(x)[:, 1:], rtol=0, atol=1e-12)


def test_moments_and_distances():
    # Three points of a right triangle, and one point alone.
    x = torch.zeros(2, 4, 2, dtype=torch.float64)
    x[0, :3] = torch.tensor([[1.0, 1.0], [4.0, 1.0], [1.0, 5.0]])
    x[1, 0] = torch.tensor([2.0, 2.0])
    describe = SetDescriptors(x)
    describe.mean, describe.std = torch.zeros(2).double(), torch.ones(2).double()
    found = describe(x).sinh()
    torch.testing.assert_close(found[:, 0], torch.tensor([0.75, 0.25]).double())
    torch.testing.assert_close(found[0, 1:3], torch.tensor([2.0, 7 / 3]).double())
    torch.testing.assert_close(found[0, 3:6], torch.tensor([2.0, -4 / 3, 32 / 9]).double())
    pairs, near = found[:, -10:-5], found[:, -5:]
    torch.testing.assert_close(pairs[0], torch.tensor([3, 3.5, 4, 4.5, 5]).double())
    torch.testing.assert_close(near[0], torch.tensor([3, 3, 3, 3.5, 4]).double())
    assert not pairs[1].any()
    assert not near[1].any()


def test_what_differs_is_seen():
    # Rings have the mean of Gaussians, and other distances.
    x, _ = padded()
    describe = SetDescriptors(x)
    one, two = describe(x), describe(padded(seed=1)[0])
    ring = describe(padded(seed=2, ring=True)[0] * 2**0.5)
    spread = one.std(0).clamp(min=1e-9)
    same = ((one.mean(0) - two.mean(0)) / spread).abs().max()
    other = ((one.mean(0) - ring.mean(0)) / spread).abs().max()
    assert float(same) < 5 / 200**0.5  # of 70 means, each with a deviation of √2/√200
    assert float(other) > 0.4


def test_refused():
    describe = SetDescriptors(padded()[0])
    with pytest.raises(ValueError, match=r"x must have shape \(n, 8, 2\), got \(3, 7, 2\)"):
        describe(torch.ones(3, 7, 2))
