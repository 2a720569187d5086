"""Use a network of your own as a score model.

    python benchmarks/tutorials/own_network.py

`NetworkScore` wraps a network with a usual target. A `ScoreModel` allows any formula. Here both use
the same network, and their samples are equal.
"""

import argparse

import torch
from torch import Tensor, nn
from torchvision.ops import MLP

import scoresde
from scoresde.loss import Objective
from scoresde.train import Training, TrainSettings, make_optimizer


class Network(nn.Module):
    """Predicts v = α ε − σ x0 of vectors."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.layers = MLP(dims + 1, [128, 128, dims], activation_layer=nn.SiLU)

    def forward(self, x: Tensor, label: Tensor, y: Tensor | None = None) -> Tensor:
        """The predicted v of x_t, from x_t and the label log(σ/α)."""
        return self.layers(torch.cat([x, label[:, None] / 4], dim=1))


class OwnModel(scoresde.ScoreModel):
    """A score model is an SDE and one method, `eps`."""

    def __init__(self, sde: scoresde.SDE, net: nn.Module) -> None:
        super().__init__(sde)
        self.net = net

    def eps(self, x: Tensor, t: Tensor | float) -> Tensor:
        """ε = σ x_t + α v, since α² + σ² = 1 under VP."""
        node = self.sde.at(t, x)  # α, σ and λ = log(α/σ) at t
        self.nfe.add_forward(node.t)  # counts the evaluation
        label = torch.as_tensor(-node.lam, dtype=x.dtype).flatten().expand(len(x))
        return (node.sigma * x + node.alpha * self.net(x, label)).to(x.dtype)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=1000, help="training steps")
args = parser.parse_args()

data, sde = scoresde.load_dataset("mixture3"), scoresde.VP()
model = scoresde.NetworkScore(Network(2), sde, scoresde.Preconditioning(target="v"))
settings = TrainSettings(args.steps, batch=256, learning_rate=1e-3, warmup=args.steps // 10)
*_, last = Training(model, data, Objective(), settings).steps(make_optimizer(model.net))
print("loss", last.loss)
ts = scoresde.grid.log_snr(sde, steps=20)
for made in (model, OwnModel(sde, model.net)):
    x = scoresde.sample(made, scoresde.DPMSolverMultistep(), ts, (1000, 2), seed=0, denoise=False).x
    print(type(made).__name__, "mean", x.mean(0).tolist(), "std", x.std(0).tolist())
print("data", "mean", data.x.mean(0).tolist(), "std", data.x.std(0).tolist())
