"""Networks, SDEs and samplers of the user: saved, loaded, and found by their place."""

import importlib.util
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from scoresde.checkpoint import CheckpointError, read_checkpoint, save_checkpoint
from scoresde.data import DataSpec
from scoresde.fingerprint import fingerprint
from scoresde.likelihood import Ode, log_likelihood
from scoresde.names import load, parse_sampler, save
from scoresde.names.importing import class_path, import_object
from scoresde.nets import MLP, UNet
from scoresde.plain import ConfigError, is_class_path
from scoresde.samplers import DDIM, sample
from scoresde.score import Call, FunctionScore, NetworkScore, Preconditioning, wrap
from scoresde.sde import VE, VP, TabulatedVP

SOURCE = Path(__file__).with_name("own_code.py")
SPEC = DataSpec((2,), -1.0, 1.0, name="points")
X = torch.tensor([[0.3, -0.2], [1.0, 0.5]])


@pytest.fixture(scope="module")
def own():
    """The module `own_code`, as an import in its folder would give it."""
    spec = importlib.util.spec_from_file_location("own_code", SOURCE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["own_code"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["own_code"]


def same(a, b, x=X):
    return all(torch.equal(a.eps(x, t), b.eps(x, t)) for t in (0.9, 0.2))


@pytest.mark.parametrize(
    ("net", "sde", "preconditioning", "x"),
    [
        (lambda: MLP((2,), width=np.int64(6), depth=1), VE(0.02, 9.0), Preconditioning("edm"), X),
        (
            lambda: UNet((1, 6, 5), 4, (1, 2), 1, attention=None, embedding="sinusoidal"),
            TabulatedVP(VP().ddpm_betas(40)),
            Preconditioning("v", "rounded_index", scale_input=False),
            torch.randn(2, 1, 6, 5, generator=torch.Generator().manual_seed(0)),
        ),
    ],
    ids=["MLP", "UNet"],
)
@pytest.mark.parametrize("data", [None, DataSpec((2,), 0.0, 1.0)], ids=["no spec", "spec"])
def test_networks_of_ours_are_saved_with_their_arguments(
    tmp_path, net, sde, preconditioning, x, data
):
    model = NetworkScore(net(), sde, preconditioning)
    for parameter in model.parameters():  # the last layer is 0 at first
        nn.init.normal_(parameter, std=0.3)
    if data is not None and x.ndim > 2:
        data = DataSpec((1, 6, 5), 0.0, 1.0)
    save(tmp_path / "m.safetensors", model, data)
    found = load(tmp_path / "m.safetensors")
    assert same(found.model, model, x)
    assert (found.model.sde, found.model.preconditioning) == (sde, preconditioning)
    assert found.data == found.model.data == data
    with pytest.raises(CheckpointError, match="its network is one of scoresde's; leave out net"):
        load(tmp_path / "m.safetensors", net=net())
    other = VP(3.0)
    with pytest.raises(CheckpointError, match="its SDE is .*, got sde = vp"):
        load(tmp_path / "m.safetensors", sde=other)


def test_a_network_and_an_sde_of_the_user(tmp_path, own):
    call = Call(label_ndim=2)
    model = NetworkScore(
        own.Net((2,)), own.Plain(9.0), Preconditioning("x0", "time", label_scale=7), call=call
    )
    model.data = SPEC
    path = tmp_path / "m.safetensors"
    save(path, model)
    found = load(path, net=own.Net((2,)), sde=own.Plain(9.0))
    assert same(found.model, model)
    assert (found.model.call, found.data) == (call, SPEC)
    assert not any(p.requires_grad for p in found.model.parameters())
    both = r"made with a network and an SDE of your own.* net=Net\(…\), sde=Plain\(…\) \(--net own"
    only = r"made with an SDE of your own, and holds no code; give sde=Plain\(…\) \(--sde own_code"
    for given, message in (
        ({}, both),
        ({"net": own.Net((2,))}, only),
        ({"sde": own.Plain(9.0)}, r"a network of your own, .* \(--net own_code:Net\)$"),
        ({"net": own.Net((2,)), "sde": own.Plain(8.0)}, "its SDE has _beta = 9.0, got 8.0"),
        ({"net": own.Net((2,)), "sde": VP()}, "its SDE is own_code:Plain, got sde = vp"),
        ({"net": own.Net((3,)), "sde": own.Plain(9.0)}, "linear.weight has shape .8, 3., not"),
        (
            {"net": nn.Bilinear(2, 2, 2), "sde": own.Plain(9.0)},
            "do not fit Bilinear: missing weight",
        ),
    ):
        with pytest.raises(CheckpointError, match=message):
            load(path, **given)
    for given, message in (
        ({"net": own.Net}, "net must be of type Module, got the class Net"),
        ({"sde": "vp"}, "sde must be of type SDE, got str"),
    ):
        with pytest.raises(TypeError, match=message):
            load(path, **given)


def test_an_sde_with_the_same_parameters_and_other_formulas_is_found(tmp_path, own):
    save(tmp_path / "m", NetworkScore(MLP((2,), 4, 1), own.Plain()))

    class Plain(own.Plain):
        def sigma(self, t):
            return 1.01 * super().sigma(t)

    with pytest.raises(
        CheckpointError, match=r"its SDE has σ\(0.05\) = 0.509.*, got 0.514.*: another function"
    ):
        load(tmp_path / "m", sde=Plain())
    Plain.sigma = lambda self, t: self.absent
    with pytest.raises(
        CheckpointError, match=r"the SDE .*Plain raised Attr.*'absent', at t = 0.05"
    ):
        load(tmp_path / "m", sde=Plain())


def test_classes_of_the_script_that_runs_have_its_name(monkeypatch, own):
    """`__main__:Net` could not be imported later."""
    monkeypatch.setattr(own.Net, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/some/where/draw.py", raising=False)
    assert class_path(own.Net) == "draw:Net"


def test_what_a_network_is_conditioned_on_is_saved(tmp_path):
    class Labelled(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(3, 2)

        def forward(self, x, t, y):
            return x + self.table(y)

    model = wrap(Labelled(), VP(), "eps", label="time", classes=3, data=SPEC)
    save(tmp_path / "m", model)
    found = load(tmp_path / "m", net=Labelled()).model
    assert found.classes == 3
    assert found.needs_labels
    with pytest.raises(ValueError, match="model has a condition bound"):
        save(tmp_path / "n", model.given(torch.tensor([0])))
    model.unconditional = True
    save(tmp_path / "m", model)
    assert not load(tmp_path / "m", net=Labelled()).model.needs_labels


def test_what_cannot_be_saved(tmp_path, own):
    function = FunctionScore(VP(), lambda x, t: x)
    with pytest.raises(TypeError, match="model must be of type NetworkScore, got FunctionScore"):
        save(tmp_path / "m", function)
    with pytest.raises(TypeError, match="no tensors to save: a function must be put into a Module"):
        save(tmp_path / "m", wrap(lambda x, t: x, VP(), "denoiser"))
    with pytest.raises(TypeError, match="data must be of type DataSpec, got tuple"):
        save(tmp_path / "m", wrap(own.Net((2,)), VP(), "denoiser", label_ndim=2), (2,))
    odd = wrap(own.Net((2,)), VP(), "denoiser", label_ndim=2)
    object.__setattr__(odd.call, "arguments", {"f": print})
    with pytest.raises(TypeError, match=r"metadata.config.call.arguments.f must be plain JSON"):
        save(tmp_path / "m", odd)
    assert not list(tmp_path.iterdir())


def test_wrapped_and_compiled_networks_are_saved_bare(tmp_path, own):
    net = own.Net((2,))
    for outer in (nn.DataParallel(net), torch.compile(net, backend="eager")):
        save(tmp_path / "m", wrap(outer, VP(), "denoiser", label_ndim=2))
        assert same(
            load(tmp_path / "m", net=own.Net((2,))).model,
            wrap(net, VP(), "denoiser", label_ndim=2),
        )


@pytest.mark.parametrize("table", ["net", "sde"])
def test_a_checkpoint_never_causes_an_import(tmp_path, table, monkeypatch):
    """A forged file names a module that would leave a trace."""
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    save(tmp_path / "m", NetworkScore(MLP((2,), 4, 1), VP()), SPEC)
    raw = read_checkpoint(tmp_path / "m")
    raw.metadata["config"][table] = {"kind": "trap:Net"}
    save_checkpoint(tmp_path / "m", raw.tensors, raw.metadata)
    with pytest.raises(CheckpointError, match=r"of your own, and holds no code; give .*trap:Net"):
        load(tmp_path / "m")
    from scoresde.tasks.inspection import describe_checkpoint

    assert describe_checkpoint(tmp_path / "m")["config"][table]["kind"] == "trap:Net"
    assert "trap" not in sys.modules
    assert not (tmp_path / "sprung").exists()


def test_fingerprints_see_the_parameters_of_an_sde_that_is_no_dataclass(own):
    assert fingerprint(own.Plain(3.0)) == fingerprint(own.Plain(3.0))
    assert fingerprint(own.Plain(3.0)) != fingerprint(own.Plain(4.0))
    table = TabulatedVP(VP().ddpm_betas(40))
    before = fingerprint(table)
    table.log_alpha(0.3)  # it keeps the interpolant
    assert fingerprint(table) == before


def test_an_sde_of_the_user_is_one_like_ours(own):
    """Data N(0, I) and α² + σ² = 1: all marginals are N(0, I), and log p is known."""
    sde = own.Plain()
    model = FunctionScore(sde, lambda x, t: x * sde.sigma(t).reshape(-1, 1))
    got = log_likelihood(model, X.double(), Ode(rtol=1e-9, atol=1e-9)).log_prob
    want = -X.double().square().sum(1) / 2 - torch.tensor(2 * torch.pi).double().log()
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
    ts = [1.0, 0.5, 0.1]
    out = sample(model, DDIM(), ts, (2, 2), x_init=X.double(), seed=0, denoise=False).x
    nodes = sde.nodes(ts)
    # x0 = α x and ε = σ x, so that a step of DDIM multiplies x by cos(θ_t − θ_s)
    factor = [a.alpha * b.alpha + a.sigma * b.sigma for a, b in pairwise(nodes)]
    torch.testing.assert_close(out, X.double() * factor[0] * factor[1])


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A present folder with modules of the user."""
    (tmp_path / "mine.py").write_text("print('loaded')\n" + SOURCE.read_text())
    (tmp_path / "broken.py").write_text("raise ValueError('no GPU\\nhere')\n")
    (tmp_path / "leaves.py").write_text("import sys; sys.exit(3)\n")
    (tmp_path / "needs.py").write_text("import absent_thing\n")
    (tmp_path / "typo.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("mine", "broken", "leaves", "needs", "typo"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("absent:Net", "network 'absent:Net': there is no module 'absent', neither in .* nor inst"),
        ("mine.sub:Net", "network 'mine.sub:Net': .*mine"),
        ("mine:Nett", "network 'mine:Nett': mine has no 'Nett'; did you mean Net?"),
        ("mine:number", "must be a class or a function that makes the network, got int"),
        ("broken:Net", "importing broken raised ValueError: no GPU here"),
        ("leaves:Net", "importing leaves raised SystemExit: 3"),
        ("needs:Net", "needs cannot be imported: No module named 'absent_thing'"),
        ("typo:Net", "importing typo raised SyntaxError"),
        ("mine", "write the place of a class as package.module:Name"),
        ("../mine:Net", "write the place of a class as package.module:Name"),
    ],
)
def test_places_that_cannot_be_imported(modules, path, message):
    with pytest.raises(ConfigError, match=message) as raised:
        import_object(path, "network")
    assert "\n" not in str(raised.value)


def test_samplers_by_their_place(modules, capsys):
    assert parse_sampler("mine:Mine:eta=0.5").eta == 0.5
    assert capsys.readouterr() == ("", "loaded\n")  # stdout is for the results of a command
    for text, message in (
        ("mine:Mine:etaa=1", "sampler mine:Mine: unknown key 'etaa'; did you mean eta?"),
        ("mine:Mine:eta=high", "sampler mine:Mine.eta must be a number, got 'high'"),
        ("mine:Mine:eta=9", "eta must be at most 1"),
        ("mine:Net", "sampler mine:Net: missing shape"),
        ("mine:Plain", "sampler mine:Plain: must make a scoresde Sampler, got Plain"),
        ("ddim:eta", "write parameters as key=value"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_sampler(text)
    assert not is_class_path("ddim:eta=1")


CONFIG = """
[data]
name = "moons"
[sde]
kind = "mine:Plain"
beta = 11.0
[net]
kind = "mine:Net"
width = 5
[call]
label_ndim = 2
[preconditioning]
label = "time"
scale_input = false
[train]
steps = {steps}
batch = 16
warmup = 1
"""


def test_a_network_of_the_user_from_the_config_to_samples(modules, capsys):
    """Train, resume, sample and inspect, in this process, as the command line does."""
    from scoresde_cli.main import run

    def call(*words):
        code = run(words)
        return code, *capsys.readouterr()

    config, steps = Path("c.toml"), ("train", "--config", "c.toml", "--out", "r")
    own, checkpoint = (
        ("--net", "mine:Net", "--sde", "mine:Plain:beta=11"),
        "r/checkpoint.safetensors",
    )
    for count in (2, 3):
        config.write_text(CONFIG.format(steps=count))
        assert call(*steps)[0] == 0
    assert read_checkpoint(checkpoint).metadata["steps_done"] == 3
    config.write_text(CONFIG.format(steps=3).replace("mine:Net", "mine:Other"))
    code, _, error = call(*steps)
    assert code == 2
    assert "net.kind = 'mine:Net', not 'mine:Other'" in error
    drawn = ("sample", "--checkpoint", checkpoint, "--n", "2", "--nfe", "3", "--out", "s")
    code, _, error = call(*drawn)
    assert code == 2
    assert "(--net mine:Net --sde mine:Plain)" in error
    assert not Path("s").exists()
    assert call(*drawn, *own, "--sampler", "mine:Mine")[0] == 0
    code, text, _ = call("inspect", "--checkpoint", checkpoint, *own)
    assert code == 0
    assert 'kind = "mine:Net"' in text
    assert "label_ndim = 2" in text
    code, _, error = call(
        "inspect", "--checkpoint", checkpoint, "--net", "mine:Net:width=6", *own[2:]
    )
    assert code == 2
    assert "linear.weight has shape (5, 3), not (6, 3)" in error


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("width = 5", "widht = 5", None),  # Net takes any keyword
        ("width = 5", 'width = "5"', "net.width must be an integer, got '5'"),
        ("beta = 11.0", "bet = 11.0", "sde: unknown key 'bet'; did you mean beta?"),
        ("mine:Net", "mine:make_number", "c.toml: net: unknown key 'width'"),
        ("mine:Plain", "mine:Net", "sde: missing shape"),
        ("label_ndim = 2", "label_dim = 2", "call: unknown key 'label_dim'; did you mean label_n"),
        ("label_ndim = 2", 'condition = "z"', "net: Net.forward has no parameter 'z'"),
    ],
)
def test_mistakes_in_the_config_of_a_network_of_the_user(modules, before, after, message):
    from scoresde.names import load_config

    Path("c.toml").write_text(CONFIG.format(steps=2).replace(before, after))
    if message is None:
        load_config("c.toml").build_model(SPEC)
        return
    with pytest.raises(ConfigError, match=message):
        load_config("c.toml").build_model(SPEC)
