"""Compare samplers at equal numbers of network evaluations, from the same x_T.

    python benchmarks/tutorials/compare_samplers.py

The first table is the error to an accurate solution of the probability-flow ODE. The second part
runs a stochastic sampler on two grids with the same Brownian path.
"""

import argparse

import scoresde

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--checkpoint", default="digits-vp", help="a shipped name or a file")
parser.add_argument("--n", type=int, default=16, help="samples")
parser.add_argument("--nfe", type=int, nargs="*", default=[6, 12, 24], help="evaluations")
args = parser.parse_args()

checkpoint = scoresde.load(args.checkpoint)
model, shape = checkpoint.model, (args.n, *checkpoint.data.shape)

SAMPLERS = {  # each with its evaluations per step
    "DDIM": (scoresde.DDIM(), 1),
    "DPM-Solver++(2M)": (scoresde.DPMSolverMultistep(), 1),
    "DPM-Solver++(2S)": (scoresde.DPMSolverSinglestep(order=2), 2),
    "UniPC": (scoresde.UniPC(), 1),
    "angular Adams": (scoresde.AngularAdams(), 1),
}

# Sample i begins at the same x_T for every sampler, because x_T depends only on the seed and i.
exact = scoresde.ProbabilityFlowODE("dopri5", rtol=1e-5, atol=1e-5)
truth = scoresde.sample(model, exact, [1.0, 1e-3], shape, seed=0).x

print(f"{'root mean square error':<24}" + "".join(f"{nfe:>10} NFE" for nfe in args.nfe))
for name, (sampler, cost) in SAMPLERS.items():
    errors = []
    for nfe in args.nfe:
        # The final denoising takes one evaluation.
        ts = scoresde.grid.log_snr(model.sde, steps=(nfe - 1) // cost)
        out = scoresde.sample(model, sampler, ts, shape, seed=0)
        assert out.nfe <= nfe  # counted at the network
        errors.append(float((out.x - truth).square().mean().sqrt()))
    print(f"{name:<24}" + "".join(f"{error:>14.4f}" for error in errors))

noise = scoresde.BrownianNoise(seed=0, indices=range(args.n))  # one path W for all grids
grids = [scoresde.grid.uniform(model.sde, steps) for steps in (100, 50)]
fine, coarse = (
    scoresde.sample(model, scoresde.EulerMaruyama(), ts, shape, noise=noise, denoise=False).x
    for ts in grids
)
error = float((fine - coarse).square().mean().sqrt())
print(f"Euler–Maruyama, 50 steps against 100 on the same Brownian path: {error:.4f}")
