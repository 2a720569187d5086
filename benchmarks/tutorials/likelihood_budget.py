"""Compute the likelihood of images with its errors.

    python benchmarks/tutorials/likelihood_budget.py

The first number is a mean with its error budget. Then the same images are scored by other methods,
encoded, and samples are drawn together with their log-density.
"""

import argparse

import scoresde
from scoresde.likelihood import (
    ContinuousVLB,
    Dequantized,
    Ode,
    Path,
    dequantize,
    encode,
    fit_gaussian,
    likelihood_budget,
    mean_budget,
    sample_with_log_prob,
)

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--n", type=int, default=32, help="test images")
args = parser.parse_args()

checkpoint = scoresde.load("digits-vp")
model, spec = checkpoint.model, checkpoint.data
train, test = (scoresde.load_dataset("digits", split=split).x for split in ("train", "test"))
test = test[: args.n]

# A Gaussian near the data, as a control variate of the divergence. It lowers the error.
points = dequantize(train, spec, scoresde.SampleNoise(1, range(len(train))))
near = fit_gaussian(model.sde, points)
method = Dequantized(spec, Path(control=near))
budget = likelihood_budget(model, test, method, control=near, seed=0)
refined = likelihood_budget(model, test[:8], method.refined(), control=near, seed=0)
mean = mean_budget(budget, dims=64, bits=True, refined=refined)
print(f"{mean.value:.3f} ± {mean.std_error:.3f} bits/dim, solver {mean.solver:+.1e}")
print("95 % intervals of each image, nats:", budget.log_prob, "±", budget.half_width(0.95))

# One entry for every method. A VLB bounds the model of the reverse SDE.
loose = Ode(rtol=1e-4, atol=1e-4)
for other in (ContinuousVLB(spec), Dequantized(spec, loose)):
    found = scoresde.log_likelihood(model, test[:4], other, seed=0)
    bits = float(found.bits_per_dim(spec).mean())
    print(f"{type(other).__name__}: {bits:.3f} bits/dim on 4 images, {found.nfe} evaluations")

x = dequantize(test[:4], spec, scoresde.SampleNoise(0, range(4)))
latent = encode(model, x, loose).latent  # the inverse is `decode`
drawn = sample_with_log_prob(model, (4, *spec.shape), loose, seed=0)
print("standard deviation of the codes:", float(latent.std()))
print("log-density of 4 samples, nats:", drawn.log_prob)
