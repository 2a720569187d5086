"""Training of a network of the user, which does not state its conditions, on data with some."""

import numpy as np
import pytest
import torch

from scoresde._condition import ConditionSpec
from scoresde.names import load
from scoresde.samplers import sample
from scoresde.tasks.conditions import requested_condition
from scoresde.tasks.request import StoredModel
from scoresde.tasks.train.prepare import prepare_run

pytestmark = pytest.mark.usefixtures("no_pictures")

CODE = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.out = torch.nn.Linear(5, 2)

    def forward(self, x, t, y):
        return self.out(torch.cat([x, t[:, None], y], dim=1))
"""


def test_its_conditions_are_those_of_its_data_in_training_and_ever_after(tmp_path, monkeypatch):
    (tmp_path / "net_with_y.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    y = np.linspace(-1, 1, 32).reshape(16, 2)
    np.savez("pairs.npz", x=y + 0.1, y=y)
    (tmp_path / "run.toml").write_text(
        'data = { name = "pairs.npz" }\nsde = { kind = "vp" }\n'
        'net = { kind = "net_with_y:Net" }\n'
        "train = { steps = 2, batch = 4, learning_rate = 1e-3, warmup = 0 }\n"
    )
    run = prepare_run("run.toml", tmp_path / "out")
    list(run.steps())
    stored = StoredModel.read(str(run.checkpoint), "net_with_y:Net", None)
    assert stored.condition == ConditionSpec(vector=2)
    np.save("y.npy", y[0])
    rows = requested_condition(stored, 3, file="y.npy")
    assert torch.equal(rows, torch.from_numpy(y[:1]).float().expand(3, 2))
    model = load(run.checkpoint, net=run.training.model.net).model
    assert model.needs_labels
    assert sample(model, nfe=3, y=rows).x.shape == (3, 2)
    with pytest.raises(ValueError, match="y must be given: the network takes a vector of 2 and"):
        sample(model, nfe=3)
