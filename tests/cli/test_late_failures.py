"""Networks that fail on an accelerator, whose numbers the host reads later than on the CPU."""

import math

import pytest

from scoresde import _deferred
from scoresde.nets import UNet
from scoresde.train import record, update

TRAIN = ["train", "--config", "digits_vp", "--set=train.batch=4", "--set=net.channels=8"]
FEW = ["--n", 4, "--batch", 2]


@pytest.mark.parametrize(
    "command",
    [
        ["sample", *FEW, "--sampler", "ddim", "--steps", 3],
        ["likelihood", *FEW, "--measured", 0, "--steps", 3, "--nodes", 2],
        ["bench", *FEW, "--samplers", "ddim", "--nfe", 3, "--metrics", "mmd2"],
        TRAIN,
    ],
    ids=lambda command: command[0],
)
def test_the_first_bad_time_is_named_and_nothing_is_written(
    scoresde, tiny_checkpoint, tmp_path, monkeypatch, command
):
    forward, calls = UNet.forward, []

    def failing(net, x, *others):
        calls.append(x)
        return forward(net, x, *others) * (math.nan if len(calls) > 1 else 1.0)

    monkeypatch.setattr(UNet, "forward", failing)
    where = [] if command is TRAIN else ["--checkpoint", tiny_checkpoint]
    said = []
    for later in (False, True):
        for module in (_deferred, record, update):
            monkeypatch.setattr(module, "on_accelerator", lambda x, later=later: later)
        calls.clear()
        done = scoresde(*command, *where, "--out", tmp_path / "out")
        said.append(done.err.splitlines()[-1])
        assert done.status == 1, done.err
        assert list(tmp_path.rglob("*.npz")) + list(tmp_path.rglob("*.safetensors")) == []
    assert said[0] == said[1]
    assert ("at step 2" if command is TRAIN else " at t=") in said[1]
