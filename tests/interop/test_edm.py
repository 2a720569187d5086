"""Pickles of EDM: outputs of its networks, and files that hold them or something else."""

import json
import math
import pickle
import sys
import types
from pathlib import Path

import pytest
import torch
from formula_weights import digest_of, image, weights

import scoresde
from scoresde.checkpoint import CheckpointError
from scoresde.interop import edm, edm_networks
from scoresde.interop.unet_tensors import library_tensors
from scoresde.nets import BlockUNet, NCSNpp

FIXTURE = Path(__file__).parents[1] / "fixtures" / "edm.json"
FOUND = json.loads(FIXTURE.read_text(encoding="utf-8"))
CASES = FOUND["cases"]
SMALLEST = "edm, ddpm++, classes"
SOURCE = "raise SystemExit('the source of a class was run')\n"


class Stored:
    """Is pickled as a module of EDM: a call with the class, its source and its state."""

    def __init__(self, name, arguments, state):
        self.meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": name}
        self.meta["state"] = {"training": False, "_init_args": (), "_init_kwargs": arguments}
        self.meta["state"] |= {"_parameters": {}, "_buffers": {}, "_modules": {}} | state

    def __reduce__(self):
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


def nested(tensors):
    """Modules of modules, for tensors with names such as `enc.4x4_conv.weight`."""
    tree = {}
    for name, value in tensors.items():
        *places, last = name.split(".")
        at = tree
        for place in places:
            at = at.setdefault(place, {})
        at[last] = value
    return state_of(tree)


def state_of(tree):
    own = {k: torch.nn.Parameter(v) for k, v in tree.items() if isinstance(v, torch.Tensor)}
    modules = {}
    for name, inner in tree.items():
        if name in ("enc", "dec"):
            modules[name] = torch.nn.ModuleDict()
            modules[name]._modules.update(state_of(inner)["_modules"])
        elif isinstance(inner, dict):
            modules[name] = Stored("Layer", {}, state_of(inner))
    return {"_parameters": own, "_modules": modules}


@pytest.fixture
def write(monkeypatch, tmp_path):
    """Writes the pickle of a case, with changes of its tensors, classes or arguments."""
    module = types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("the pickle was run")

    _reconstruct_persistent_obj.__module__ = module.__name__
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def written(case, tensors=None, kind=None, arguments=None):
        tensors = weights(case["shapes"], seed=3) | (tensors or {})
        inner = case["arguments"] | (arguments or {})
        net = Stored(case["model"], inner, nested(tensors))
        outer = Stored(kind or case["kind"], case["given"], {"_modules": {"model": net}})
        path = tmp_path / "network.pkl"
        path.write_bytes(pickle.dumps({"ema": outer, "loss_fn": None}, protocol=4))
        return path

    return written


QUICK = [SMALLEST, "ve, skip output, classes"]
CHOSEN = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


@pytest.mark.parametrize("name", CHOSEN)
def test_x0_is_that_of_the_library(write, name):
    case = CASES[name]
    path = write(case)
    assert edm.recognizes(path)
    model = edm.read(path).model
    if case["arguments"]["label_dim"]:
        model = model.given(torch.tensor([2, 0]))
    for output in case["outputs"]:
        sigma = output["sigma"]
        x = image(model.net.shape, 2, max(1.0, sigma))
        t = float(model.sde.t_of_lam(torch.tensor(-math.log(sigma), dtype=torch.float64)))
        alpha = float(model.sde.alpha(torch.tensor(t, dtype=torch.float64)))
        wanted = torch.tensor(output["x0"]).reshape(x.shape)
        # c_out F or σ F in float32, and the fixture has 8 digits
        limit = 1e-5 * max(1.0, float(wanted.abs().max()))
        assert (model.x0(alpha * x, t) - wanted).abs().max() <= limit, sigma


def test_a_pickle_becomes_ours(write, tmp_path):
    """It is saved, loaded and sampled from; its source is not run."""
    path = write(CASES[SMALLEST])
    foreign = scoresde.load(path)
    assert (foreign.data.shape, foreign.data.classes) == ((2, 4, 4), 3)
    assert "CC BY-NC-SA" in foreign.metadata["provenance"]["licence"]
    scoresde.save(tmp_path / "ours.safetensors", foreign.model, foreign.data)
    ours = scoresde.load(tmp_path / "ours.safetensors").model
    x, y = image((2, 4, 4), 2, 1.0), torch.tensor([2, 0])
    assert torch.equal(ours.given(y).eps(x, 0.3), foreign.model.given(y).eps(x, 0.3))
    assert scoresde.sample(ours, n=2, nfe=3, y=y).x.isfinite().all()
    with pytest.raises(ValueError, match="y must be given"):
        ours.eps(x, 0.3)


def shapes_of(case):
    """Names and shapes in the library, as our network says them."""
    get = edm_networks.NETWORKS[case["model"]] | case["arguments"]
    song = case["model"] == "SongUNet"
    with torch.device("meta"):
        net = (
            NCSNpp(**edm_networks._song(get)) if song else BlockUNet(**edm_networks._dhariwal(get))
        )
    places = edm_networks._song_places(net) if song else edm_networks._dhariwal_places(net)
    tensors = library_tensors(net, list(places), edm_networks._NAMING)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if get["augment_dim"]:
        found["map_augment.weight"] = (get["model_channels"] * get.get("channel_mult_noise", 1), 9)
    if get.get("embedding_type") == "fourier":
        found["map_noise.freqs"] = (get["model_channels"],)
    if get["label_dim"]:
        width = net.class_embedding.weight.shape[1]
        found["map_label.weight"] = (width, get["label_dim"])
        if song:
            found["map_label.bias"] = (width,)
    return dict(sorted(found.items()))


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUND["published"])
def test_published_networks_have_the_tensors_of_the_library(name):
    case = FOUND["published"][name]
    assert digest_of(shapes_of(case)) == case["digest"]


MISFITS = {
    "the class of ema must be one of": {"kind": "EDM2Precond"},
    "does not fit iDDPMPrecond": {"kind": "iDDPMPrecond"},
    "'depth' is not a known argument of SongUNet": {"arguments": {"depth": 3}},
    "num_blocks is 4096, but there are": {"arguments": {"num_blocks": 4096}},
    "must be at most 4096": {"arguments": {"model_channels": 10**9}},
    "resample_filter must be": {"arguments": {"resample_filter": [1, 2, 1]}},
    "for the encoder_type residual": {"arguments": {"encoder_type": "residual"}},
    "channel_mult_noise must be 1": {"arguments": {"channel_mult_noise": 2}},
    "does not fit EDMPrecond": {"arguments": {"out_channels": 4}},
    "map_label.weight has shape": {"arguments": {"label_dim": 4}},
    "unexpected enc.further.weight": {"tensors": {"enc.further.weight": torch.ones(1)}},
    "non-finite": {"tensors": {"map_layer0.bias": torch.full((32,), math.nan)}},
}


@pytest.mark.parametrize("count", [3, pytest.param(len(MISFITS), marks=pytest.mark.slow)])
def test_networks_that_do_not_fit_are_refused(write, count):
    for message, changes in list(MISFITS.items())[:count]:
        with pytest.raises(CheckpointError, match=message):
            edm.read(write(CASES[SMALLEST], **changes))


def test_other_files_are_refused(write, tmp_path):
    path = tmp_path / "other.pkl"
    for content, message in {
        b"\x80": "damaged",
        pickle.dumps({"G_ema": 1}): "no entry 'ema'",
        pickle.dumps({"ema": {"state": {}}}): "is no network",
    }.items():
        path.write_bytes(content)
        assert not edm.recognizes(path)
        with pytest.raises(CheckpointError, match=message):
            edm.read(path)
    assert not edm.recognizes(tmp_path)


def test_other_files_of_edm_say_what_they_are(tmp_path):
    path, tensor = tmp_path / "other.pt", torch.ones(2, 2)
    names = {f"model.map_layer{number}.weight": tensor for number in (0, 1)}
    torch.save(names, path)
    assert edm.recognizes(path)
    with pytest.raises(CheckpointError, match="without its class and arguments"):
        edm.read(path)
    torch.save({"net": names, "optimizer_state": {}}, path)
    with pytest.raises(CheckpointError, match="is a training state of EDM"):
        edm.read(path)
