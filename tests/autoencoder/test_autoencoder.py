"""The autoencoder against closed forms: probabilistic PCA, Gaussians, and its own definition."""

import pytest
import torch

from scoresde.autoencoder import (
    Elbo,
    Trainee,
    convolutional_autoencoder,
    linear_autoencoder,
    mlp_autoencoder,
    probabilistic_pca,
)
from scoresde.checkpoint import CheckpointError, save_checkpoint
from scoresde.data import DataSpec
from scoresde.names.autoencoders import (
    autoencoder_content,
    load_autoencoder,
    save_autoencoder,
)
from scoresde.noise import SampleNoise

POINTS = DataSpec((3,), -9.0, 9.0)
IMAGES = DataSpec((1, 8, 8), -1.0, 1.0, 17, name="digits")


def images(n):
    return torch.randint(0, 17, (n, 1, 8, 8), generator=torch.Generator().manual_seed(n))


def small(**changed):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        options = {"channels": [4, 8], "groups": 4, "latent_channels": 2} | changed
        return convolutional_autoencoder(IMAGES, **options)


def test_latents_have_mean_0_and_std_1_after_the_scale_is_fitted():
    made, k = small(), images(64)
    made.fit_scale([k[:30], k[30:]])
    mean, log_std = (v.double() for v in made.posterior(k))
    second = (mean.square() + (2 * log_std).exp()).mean(dim=(0, 2, 3))
    # Rounding of float32.
    torch.testing.assert_close(mean.mean(dim=(0, 2, 3)), torch.zeros(2).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(second, torch.ones(2).double(), atol=1e-5, rtol=0)


def test_decoding_undoes_the_scale():
    made, k = small(), images(5)
    u = made.raw_posterior(k)[0]
    before = made.decode(u)
    made.fit_scale([k])
    torch.testing.assert_close(made.decode(made.encode(k)), before)


def test_the_noise_is_that_of_largest_likelihood():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    made = mlp_autoencoder(POINTS, 2, 8)
    made.fit_noise([x[:20], x[20:]], seed=4)
    z = made.encode(x, SampleNoise(4, range(50)))
    slope = torch.autograd.grad(made.log_conditional(x, z).mean(), made.log_noise_std)[0]
    assert abs(slope.item()) < 1e-4  # rounding of float32


def test_draws_are_those_of_each_sample():
    made, k = small(), images(4)
    drawn = made.encode(k, SampleNoise(3, range(4)))
    alone = made.encode(k[2:3], SampleNoise(3, [2]))
    torch.testing.assert_close(drawn[2:3], alone)  # but for the rounding of other batch sizes
    assert not torch.equal(drawn, made.encode(k))


def test_probabilities_of_all_levels_sum_to_1():
    spec = DataSpec((2,), -1.0, 1.0, 5)
    made = linear_autoencoder(spec, 1, noise_std=0.4).double()
    k = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    z = torch.full((25, 1), 0.3).double()
    total = made.log_conditional(k, z).exp().sum().item()
    assert total == pytest.approx(1, abs=1e-12)  # rounding


def test_points_and_levels_of_quantized_data_are_the_same():
    made, k = small(), images(3)
    x = IMAGES.encode(k)
    torch.testing.assert_close(made.encode(x), made.encode(k))
    z = made.encode(k)
    torch.testing.assert_close(made.log_conditional(x, z), made.log_conditional(k, z))


def test_kl_and_entropy_agree_with_torch():
    made, k = small(), images(3)
    mean, log_std = (v.double() for v in made.raw_posterior(k))
    q = torch.distributions.Normal(mean, log_std.exp())
    p = torch.distributions.Normal(torch.zeros_like(mean), 1.0)
    wanted = torch.distributions.kl_divergence(q, p).flatten(1).sum(1)
    torch.testing.assert_close(made.kl(k), wanted)
    torch.testing.assert_close(made.entropy(k), q.entropy().flatten(1).sum(1))


def test_the_loss_is_the_weighted_sum_of_its_parts():
    made, k = small(), images(3)
    eps = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    mean, log_std = made.raw_posterior(k)
    u = mean + log_std.exp() * eps.flatten(1)[:, :32].reshape(mean.shape)
    reconstruction = -made.log_conditional(k, u) / 64
    for beta in (1.0, 0.25):
        loss, _, kl = Elbo(beta)(Trainee(made), IMAGES.encode(k), torch.zeros(3), eps)
        torch.testing.assert_close(kl, made.kl(k) / 64)
        torch.testing.assert_close(loss, reconstruction + beta * kl)
        parts = Elbo(beta).parts(loss.mean().item(), kl.mean().item())
        assert parts["reconstruction"] == pytest.approx(reconstruction.mean().item())


def test_probabilistic_pca_is_a_maximum_of_the_likelihood():
    g = torch.Generator().manual_seed(0)
    mixing = torch.randn(3, 3, generator=g, dtype=torch.float64)
    x = torch.randn(400, 3, generator=g, dtype=torch.float64) @ mixing + 1
    made = probabilistic_pca(x, POINTS, 1)

    def log_prob():
        w = made.decoder.weight
        covariance = w @ w.mT + made.noise_std.square() * torch.eye(3, dtype=torch.float64)
        model = torch.distributions.MultivariateNormal(made.decoder.bias, covariance)
        return model.log_prob(x).mean()

    parameters = (made.decoder.weight, made.decoder.bias, made.log_noise_std)
    for gradient in torch.autograd.grad(log_prob(), parameters):
        assert float(gradient.abs().max()) < 1e-10  # rounding


def test_a_file_gives_the_same_autoencoder(tmp_path):
    for made, x in ((small(attention=True), images(3)), (mlp_autoencoder(POINTS, 2, 8), None)):
        x = torch.randn(3, 3) if x is None else x
        made.requires_grad_(False).fit_scale([x])  # gradients choose other kernels
        save_autoencoder(tmp_path / "a.safetensors", made)
        loaded = load_autoencoder(tmp_path / "a.safetensors")
        assert loaded.spec == made.spec
        assert loaded.latent_spec == made.latent_spec
        z = made.encode(x)
        assert torch.equal(loaded.encode(x), z)
        assert torch.equal(loaded.log_conditional(x, z), made.log_conditional(x, z))


def test_a_forged_number_of_layers_is_refused_before_they_are_made(tmp_path):
    tensors, metadata = autoencoder_content(small())
    for changed in ({"layers": 10**9}, {"channels": [4] * 10**5}):
        table = metadata["config"]["autoencoder"] | changed
        save_checkpoint(tmp_path / "a", tensors, metadata | {"config": {"autoencoder": table}})
        with pytest.raises(CheckpointError, match="levels, but the file has"):
            load_autoencoder(tmp_path / "a")


@pytest.mark.slow
def test_compiling_it_compiles_both_networks():
    made, k = small().requires_grad_(False), images(2)
    before = made.decode(made.encode(k))
    seen = []
    made.compile(backend=lambda graph, _: (seen.append(graph), graph.forward)[1])
    torch.testing.assert_close(made.decode(made.encode(k)), before)
    assert len(seen) == 2


def test_a_score_model_is_no_autoencoder():
    from scoresde.shipped import locate

    with pytest.raises(CheckpointError, match="is a score model, not an autoencoder"):
        load_autoencoder(locate("checkpoints", "digits-vp"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small().encode(torch.zeros(2, 1, 7, 8)), r"x must have shape \(B, 1, 8, 8\)"),
        (lambda: small().decode(torch.zeros(2, 2, 3, 4)), r"z must have shape \(B, 2, 4, 4\)"),
        (lambda: small(channels=[4, 4, 4, 4, 4]), "at most 4 levels, .* got 5"),
        (lambda: small(groups=3), r"groups must divide all channels \[4, 8\], got 3"),
        (lambda: convolutional_autoencoder(POINTS), 'vectors take kind "mlp"'),
        (lambda: mlp_autoencoder(IMAGES, 2), 'images take kind "convolutional"'),
        (lambda: linear_autoencoder(POINTS, 4), "at most as many numbers as the data, 3 of"),
        (lambda: linear_autoencoder(POINTS, 2, noise_std=0.0), "noise_std must be"),
        (lambda: probabilistic_pca(torch.randn(9, 3), POINTS, 3), "latent_size must be below 3"),
        (lambda: small().fit_scale([]), "at least 2 data, got 0"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
