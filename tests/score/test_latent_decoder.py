"""Laws of models of latents: samples are decoded, and nothing else changes."""

import pytest
import torch
from torch import nn

import scoresde
from scoresde import VP, DataSpec, GaussianMixture, LatentDecoder
from scoresde.score.units import in_model_scale

LATENT = DataSpec((2,), -3.0, 3.0)
DATA = DataSpec((5,), -9.0, 9.0)


class Linear(nn.Module):
    """The decoder of x = A z + b."""

    def __init__(self):
        super().__init__()
        source = torch.Generator().manual_seed(0)
        self.a = nn.Parameter(torch.randn(2, 5, generator=source), requires_grad=False)
        self.b = nn.Parameter(torch.randn(5, generator=source), requires_grad=False)
        self.spec, self.latent_spec = DATA, LATENT

    def decode(self, z):
        return z @ self.a + self.b


@pytest.fixture
def latents():
    """Exact score model of the latents."""
    return GaussianMixture(VP(), [0.3, 0.7], torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), [0.2, 0.4])


@pytest.fixture
def decoder():
    return LatentDecoder(Linear())


def test_samples_are_the_decoded_samples_of_the_latents(latents, decoder):
    """The same latents, bit by bit, with the same NFE; their decoding needs no evaluation."""
    bare = scoresde.sample(latents, n=7, nfe=6)
    out = scoresde.sample(latents.decoded_by(decoder), n=7, nfe=6)
    assert torch.equal(out.scaled, bare.x)
    assert torch.equal(out.x_init, bare.x_init)
    assert torch.equal(out.x, decoder.autoencoder.decode(bare.x))
    assert out.nfe == bare.nfe
    batched = scoresde.sample(latents.decoded_by(decoder), n=7, nfe=6, batch=3)
    torch.testing.assert_close(batched.x, out.x, rtol=0, atol=1e-6)  # rounding of float32
    empty = scoresde.sample(latents.decoded_by(decoder), n=0, nfe=6)
    assert empty.x.shape == (0, 5)
    assert empty.scaled.shape == (0, 2)


def test_the_state_may_be_float64_and_decoded_samples_are_differentiable(latents, decoder):
    x_init = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    out = scoresde.sample(latents.decoded_by(decoder), x_init=x_init, nfe=3, grad=True)
    (whole,) = torch.autograd.grad(out.x[:, 0].sum(), x_init, retain_graph=True)
    rows = [
        torch.autograd.grad(out.scaled[:, j].sum(), x_init, retain_graph=True)[0] for j in (0, 1)
    ]
    a = decoder.autoencoder.a[:, 0].double()
    assert out.x.dtype == torch.float64
    # The decoder computes in float32, so that its derivative is rounded to 24 bits.
    torch.testing.assert_close(whole, a[0] * rows[0] + a[1] * rows[1], rtol=1e-6, atol=1e-8)


def test_decoded_data_are_in_units(latents):
    data = torch.randn(50, 5, generator=torch.Generator().manual_seed(1)).exp()
    spec = DATA.fitted(
        scoresde.data.transforms.parse_transforms("standardize"), lambda: [(data, None)]
    )
    decoder = LatentDecoder(Linear(), spec)
    out = scoresde.sample(latents.decoded_by(decoder), n=4, nfe=3)
    z = decoder.autoencoder.decode(out.scaled)
    torch.testing.assert_close(spec.to_model(out.x), z, rtol=1e-5, atol=1e-5)
    assert torch.equal(decoder.in_model_scale(out.scaled), z)


def test_wrappers_decode_and_views_share_the_counter(latents, decoder):
    model = latents.decoded_by(decoder)
    clipped = scoresde.Clipped(model, -2, 2)
    out = scoresde.sample(clipped, n=3, nfe=3)
    assert torch.equal(out.x, decoder(out.scaled))
    assert model.nfe is latents.nfe
    assert latents.decoder is None
    assert in_model_scale(model).decoder is None
    assert model.decoder is decoder
    assert model.given(None).decoder is decoder
    assert torch.equal(scoresde.sample(in_model_scale(clipped), n=3, nfe=3).x, out.scaled)
    assert {id(p) for p in decoder.parameters()} <= {id(p) for p in model.parameters()}


def test_the_density_of_decoded_data_is_refused(latents, decoder):
    model, x = latents.decoded_by(decoder), torch.zeros(2, 5)
    for call in (
        lambda: scoresde.log_likelihood(model, x, seed=0),
        lambda: scoresde.encode(model, x),
        lambda: scoresde.sample_with_log_prob(model, (2, 2), seed=0),
        lambda: scoresde.Distribution(model),
    ):
        with pytest.raises(ValueError, match=r"one of latents.*decoded_by\(None\)"):
            call()
    points, loose = torch.zeros(2, 2), scoresde.Ode("bosh3", rtol=0.1, atol=0.1)
    found = scoresde.log_likelihood(model.decoded_by(None), points, loose)
    assert torch.equal(found.log_prob, scoresde.log_likelihood(latents, points, loose).log_prob)


def test_what_does_not_fit_is_refused(latents, decoder):
    with pytest.raises(TypeError, match="decoder must be"):
        latents.decoded_by(decoder.autoencoder)
    with pytest.raises(TypeError, match="autoencoder must have decode, spec and latent_spec"):
        LatentDecoder(nn.Linear(2, 5))
    with pytest.raises(
        ValueError, match=r"data of shape \(5,\), as of the autoencoder, got \(2,\)"
    ):
        LatentDecoder(Linear(), LATENT)
    other = GaussianMixture(VP(), [1.0], torch.zeros(1, 3), [1.0])
    with pytest.raises(
        ValueError, match=r"latents of shape \(3,\), as the model draws, got \(2,\)"
    ):
        other.decoded_by(decoder)
    with pytest.raises(ValueError, match=r"z must have shape \(B, 2\), got \(4, 3\)"):
        decoder(torch.zeros(4, 3))
