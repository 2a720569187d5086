"""`--compile` with guidance: the networks inside are compiled."""

import pytest
import torch

import scoresde
from scoresde.guidance import ClassifierFree, Scale
from scoresde.nets import MLP
from scoresde.samplers import DDIM
from scoresde.score import NetworkScore
from scoresde.tasks.compiling import compile_network, is_compiled


@pytest.mark.slow
def test_the_network_inside_is_compiled_and_smaller_batches_are_filled_up(monkeypatch):
    whole = NetworkScore.compile
    # The backend "eager" traces the network, and runs no C++ compiler, which takes a minute.
    traced = lambda self, rows: whole(self, backend="eager", rows=rows)  # noqa: E731
    monkeypatch.setattr(NetworkScore, "compile", traced)
    net = MLP((2,), width=8, depth=1, classes=3)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    model = NetworkScore(net, scoresde.VP()).requires_grad_(False).eval()
    model.unconditional = True
    guided, y = ClassifierFree(model, Scale(3, high=5)), torch.arange(3)

    def drawn(n):
        return scoresde.sample(guided, DDIM(), shape=(n, 2), nfe=6, y=y[:n], seed=0).x

    before = drawn(3)
    assert not is_compiled(guided)
    compile_network(guided, 3, (2,), torch.float32, y)
    assert is_compiled(guided)
    assert model.rows == 3
    # The same operations in float32, in a batch of another size.
    torch.testing.assert_close(drawn(3), before, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(drawn(2), before[:2], rtol=1e-5, atol=1e-5)
