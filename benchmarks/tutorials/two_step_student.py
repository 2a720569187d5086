"""Distil a model of points in the plane into students of two steps and of one.

    python benchmarks/tutorials/two_step_student.py --out out/two-step

A student is asked to end where the ODE of its teacher ends, from the same noise. The table gives
this distance, and the distance of the samples from the data; the picture shows the samples.
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure

import scoresde
from scoresde.metrics import sliced_wasserstein
from scoresde.samplers import ProbabilityFlowODE
from scoresde.samplers.students import own_times

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, required=True, help="folder for everything")
parser.add_argument("--steps", type=int, default=1000, help="training steps of each model")
parser.add_argument("--n", type=int, default=2000, help="samples of each model")
args = parser.parse_args()

config = {"net": {"width": 64}, "train": {"batch": 256}}
fitted = scoresde.fit("moons", args.out / "teacher", steps=args.steps, config=config)
path, teacher = args.out / "teacher" / "checkpoint.safetensors", fitted.model
students = {
    f"{name}, {nfe} NFE": (scoresde.distill(path, args.out / name, text, steps=steps).model, nfe)
    for name, text, steps, nfe in (
        ("progressive", "progressive:steps=2:start=16", args.steps // 2, 2),
        ("consistency", "consistency:last=40", 2 * args.steps, 1),
    )
}

start = torch.randn(args.n, 2, generator=torch.Generator().manual_seed(0))
settings = {"x_init": start * teacher.sde.start_std(1.0), "seed": 0}
ts = own_times(teacher.sde, students["progressive, 2 NFE"][0].distilled, 1)
ode = scoresde.sample(teacher, ProbabilityFlowODE("dopri5"), ts, **settings, denoise=False)
drawn = {"ODE of the teacher": ode, "teacher, 2 NFE": scoresde.sample(teacher, nfe=2, **settings)}
for name, (student, nfe) in students.items():
    drawn[name] = scoresde.sample(student, nfe=nfe, **settings)

data = scoresde.load_dataset("moons").x[: args.n].float()
print(f"{'':22} NFE  distance from ODE  sliced W2 from the data")
figure = Figure(figsize=(3 * len(drawn), 3.2), layout="constrained")
panels = figure.subplots(1, len(drawn), sharey=True)
for axes, (name, found) in zip(panels, drawn.items(), strict=True):
    error = (found.x - ode.x).square().sum(1).mean().sqrt()
    distance = sliced_wasserstein(found.x, data, seed=0).value
    print(f"{name:22} {found.nfe:3} {float(error):18.3f} {distance:24.3f}")
    axes.scatter(*found.x.T, s=1)
    axes.set(title=name, aspect="equal", xlim=(-4, 4), ylim=(-3, 3))
figure.savefig(args.out / "students.png")
print(args.out / "students.png")
