"""Objects of other libraries, used as they are: stand-ins with the signatures of deepinv 0.5."""

import pytest
import torch

import scoresde
from scoresde.exact import GaussianMixture
from scoresde.inverse import (
    DDNM,
    DDRM,
    DPS,
    Blur,
    Foreign,
    Mask,
    Measured,
    PiGDM,
    RePaint,
    Replacement,
    TwistedSMC,
    posterior,
)

SHAPE = (1, 4, 4)
KERNEL = torch.tensor([[0.6, 0.3], [0.2, 0.0]])


class Decomposed(torch.nn.Module):
    """A = U S Vᵀ with float32 singular values `mask`, as deepinv's `DecomposablePhysics`."""

    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def A(self, x, mask=None, **_):
        return self.U(self.mask * self.V_adjoint(x))

    def A_adjoint(self, y, mask=None, **_):
        return self.V(self.mask * self.U_adjoint(y))

    def A_dagger(self, y, mask=None, **_):
        inverse = torch.where(self.mask > 1e-5, self.mask.reciprocal(), 0.0)
        return self.V(self.U_adjoint(y) * inverse)

    def forward(self, x, **_):
        raise AssertionError("it would add noise")


class Inpainting(Decomposed):
    """The measurement has the shape of the image, and 0 where nothing is measured."""

    def V(self, x, **_):
        return x

    U = U_adjoint = V_adjoint = V


class BlurFFT(Decomposed):
    """Half of the Fourier transform, as pairs of real numbers; the phase belongs to U."""

    def __init__(self):
        whole = torch.zeros(4, 4)
        whole[:2, :2] = KERNEL
        k = torch.fft.rfft2(whole.roll((-1, -1), (0, 1)))[None, None]
        super().__init__(k.abs()[..., None].repeat_interleave(2, -1))
        self.register_buffer("angle", torch.exp(1j * k.angle()))

    def V_adjoint(self, x):
        return torch.view_as_real(torch.fft.rfft2(x, norm="ortho"))

    def V(self, x, **_):
        return torch.fft.irfft2(torch.view_as_complex(x.contiguous()), s=(4, 4), norm="ortho")

    def U(self, x):
        return torch.fft.irfft2(torch.view_as_complex(x) * self.angle, s=(4, 4), norm="ortho")

    def U_adjoint(self, y):
        return torch.view_as_real(torch.fft.rfft2(y, norm="ortho") * self.angle.conj())


def keep():
    return torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5


def pair(name):
    """A foreign object, our operator of the same measurement, and our y made theirs."""
    if name == "blur":
        return BlurFFT(), Blur(KERNEL, SHAPE), lambda y: y
    ours = Mask(keep()[0])
    return Inpainting(keep().float()), ours, ours.A_adjoint


def made(name, model, operator):
    """A model with the measurement, and the sampler."""
    if name in ("PiGDM", "DDNM"):
        return {"PiGDM": PiGDM, "DDNM": DDNM}[name](model, operator, 0.2), scoresde.DDIM(eta=1.0)
    if name == "DPS":
        return DPS(model, operator, 3.0), scoresde.DDIM(eta=1.0)
    samplers = {"DDRM": DDRM(), "RePaint": RePaint(2, 1), "TwistedSMC": TwistedSMC(2)}
    return Measured(model, operator, 0.2), samplers.get(name, Replacement())


METHODS = ("PiGDM", "DDNM", "DPS", "DDRM", "Replacement", "RePaint", "TwistedSMC")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["inpainting", "blur"])
def test_every_method_takes_a_foreign_object_as_it_is(name, method):
    """It draws the samples of our operator, but for the float32 numbers of the object."""
    theirs, ours, as_theirs = pair(name)
    means = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1)).double()
    prior = GaussianMixture(scoresde.VP(), [0.5, 0.5], means, [0.3, 0.6])
    y = ours.A(prior.sample(3, seed=2))
    found = []
    for operator, measured in ((theirs, as_theirs(y)), (ours, y)):
        model, sampler = made(method, prior, operator)
        ts = scoresde.grid.log_snr(prior.sde, 4, 0.1)
        found.append(scoresde.sample(model, sampler, ts, y=measured, seed=3, dtype=y.dtype).x)
    # 1e-6 of conjugate gradients and float32, enlarged by 1/σ in four steps
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=2e-4)


def test_the_exact_posterior_takes_it_too():
    """Entries that are not measured have y = 0 there, whose density is that of noise alone."""
    theirs, ours, as_theirs = pair("inpainting")
    prior = GaussianMixture(scoresde.VP(), [0.3, 0.7], torch.randn(2, *SHAPE), [0.3, 0.6])
    y = ours.A(prior.sample(1, seed=2))
    found, wanted = posterior(prior, theirs, as_theirs(y), 0.2), posterior(prior, ours, y, 0.2)
    torch.testing.assert_close(found.mean(), wanted.mean(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.weights, wanted.weights, rtol=1e-6, atol=1e-12)


class Off(Inpainting):
    """Three mistakes: an offset, an adjoint without the mask, and singular values of another A."""

    def __init__(self, kind):
        super().__init__(keep().float())
        self.kind = kind

    def A(self, x, **_):
        return super().A(x) + (self.kind == "offset")

    def A_adjoint(self, y, **_):
        return 2 * y if self.kind == "adjoint" else self.mask * y

    def V(self, x, **_):
        return 2 * x if self.kind == "spectrum" else x


def test_what_is_not_linear_or_has_a_wrong_adjoint_is_refused():
    for kind in ("offset", "adjoint"):
        with pytest.raises(ValueError, match="operator Off must be linear with A_adjoint"):
            Foreign(Off(kind), SHAPE)
    with pytest.raises(ValueError, match="does not tell its singular values"):
        Foreign(Off("spectrum"), SHAPE).filter(torch.ones(1, *SHAPE), torch.sqrt)
