import copy
import random
import resource
import time
from dataclasses import replace

import pytest
import torch

import scoresde
from scoresde.checkpoint import CheckpointError, read_checkpoint, save_checkpoint
from scoresde.data import Dataset, DataSpec
from scoresde.names.config import Config, load_config
from scoresde.names.loading import build, load
from scoresde.plain import ConfigError, construct, nearest
from scoresde.sde import SDE, VE, VP, CosineVP, SubVP, TabulatedVP, cosine_betas
from scoresde.shipped import shipped

SPEC = DataSpec((2,), -1, 1, name="rings")
VALUES = {
    "data": {"name": "rings"},
    "sde": {"kind": "vp"},
    "net": {"kind": "mlp", "width": 8, "depth": 1},
    "train": {"steps": 10, "batch": 4, "warmup": 2},
}
SDES = {
    "vp": VP(0.2, 15.0),
    "subvp": SubVP(),
    "ve": VE(0.02, 9.0),
    "cosine": CosineVP(8.0, -5.0),
    "tabulated": TabulatedVP((0.01, 0.1, 0.2)),
}


def changed(table: str, **changes) -> dict:
    values = copy.deepcopy(VALUES)
    values.setdefault(table, {}).update(changes)
    return values


def write(path, text: str | bytes):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


MINIMAL = """
[data]
name = "rings"
[sde]
kind = "vp"
[net]
kind = "mlp"
[train]
steps = 1000
batch = 4
"""


# Two data at a distance of 10: five levels, which have width 2 on the model's scale.
PAIR = Dataset("pair", torch.tensor([[0, 0], [3, 4]]), None, DataSpec((2,), 2, 22, levels=10))


@pytest.mark.parametrize("kind", list(SDES))
def test_config_survives_a_round_trip(kind, tmp_path):
    sde = SDES[kind]
    parameters = {k: v for k, v in vars(sde).items() if not k.startswith("_")}
    config = Config.from_dict({**VALUES, "sde": {"kind": kind, **parameters}})
    assert config.sde == sde
    assert Config.from_dict(config.to_dict()) == config
    save_checkpoint(tmp_path / "c", {}, {"config": config.to_dict()})  # plain JSON data
    assert all(not isinstance(v, tuple) for t in config.to_dict().values() for v in t.values())


def pairwise(sigma_max="pairwise", **more) -> Config:
    table = {"kind": "ve", "sigma_max": sigma_max, **more}
    return Config.from_dict({**VALUES, "sde": table}, own=True)


def test_a_pairwise_sigma_max_is_the_largest_distance_on_the_models_scale():
    config = pairwise(sigma_min=0.1).of_data(PAIR)
    assert config.sde == VE(0.1, 10.0)
    assert Config.from_dict(config.to_dict()) == config  # as a checkpoint holds it
    continuous = replace(PAIR, x=torch.tensor([[0.0, 0.0], [0.3, 0.4]]), spec=SPEC)
    assert pairwise().of_data(continuous).sde == VE(0.01, 0.5)
    assert Config.from_dict(VALUES).of_data(PAIR) == Config.from_dict(VALUES)


def test_a_pairwise_sigma_max_is_refused_without_its_data():
    with pytest.raises(ConfigError, match="pairwise.* needs the training data: call of_data"):
        pairwise().build_model(SPEC)
    with pytest.raises(ConfigError, match='sigma_max must be a number or "pairwise", got .pairs'):
        pairwise("pairs")
    with pytest.raises(ConfigError, match="sigma_max must be a number, got 'pairwise'"):
        Config.from_dict(changed("sde", kind="ve", sigma_max="pairwise"))  # in a checkpoint
    equal = replace(PAIR, x=torch.zeros(3, 2).long())
    with pytest.raises(ConfigError, match="c.toml: sde: of the data pair, sigma_max must be great"):
        pairwise().of_data(equal, "c.toml")


def test_defaults_are_filled_in_and_absent_values_left_out():
    values = Config.from_dict(VALUES).to_dict()
    assert values["objective"]["weighting"] == "simple"
    assert values["train"]["learning_rate"] == 2e-4
    assert "autocast" not in values["train"]
    assert "root" not in values["data"]


@pytest.mark.parametrize("label", ["index", "rounded_index"])
def test_how_discrete_labels_are_handled_is_stored(label):
    values = {
        **VALUES,
        "sde": {"kind": "tabulated", "betas": [0.01, 0.1, 0.2]},
        "preconditioning": {"label": label},
        "objective": {"times": "ladder", "levels": 3},
    }
    config = Config.from_dict(values)
    assert config.to_dict()["preconditioning"]["label"] == label
    assert Config.from_dict(config.to_dict()) == config
    assert config.build_model(SPEC).snapped is (label == "rounded_index")


def test_a_table_of_betas_may_have_a_name():
    values = changed("sde", kind="tabulated", betas="linear:steps=1000")
    betas = Config.from_dict(values).sde.betas
    assert betas == pytest.approx(VP().ddpm_betas(1000).tolist(), rel=1e-12)
    values["sde"]["betas"] = "cosine:steps=20"
    assert Config.from_dict(values).sde == TabulatedVP(cosine_betas(20))


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({**VALUES, "nett": {}}, "config: unknown key 'nett'; did you mean net"),
        ({k: v for k, v in VALUES.items() if k != "sde"}, "config: missing sde$"),
        ({k: v for k, v in VALUES.items() if k != "train"}, "config: missing train$"),
        ({**VALUES, "train": 3}, "config: train must be a table, got 3"),
        (changed("train", learningrate=1.0), "train: unknown key.*did you mean learning_rate"),
        (
            changed("train", learning_rate="fast"),
            "train.learning_rate must be a number, got 'fast'",
        ),
        (changed("train", learning_rate=float("nan")), "train: learning_rate must be finite"),
        (changed("train", learning_rate=0), "train: learning_rate must be greater than 0, got 0"),
        (changed("train", steps=True), "train.steps must be an integer, got True"),
        (changed("train", steps=10.0), "train.steps must be an integer, got 10.0"),
        (
            changed("train", autocast="float8"),
            "train: autocast must be bfloat16, float16 or absent",
        ),
        (changed("train", ema_decay=1.0), "train: ema_decay must be less than 1"),
        (changed("data", name=7), "data.name must be text or a path, got 7"),
        (changed("data", low=True), "data.low must be a number, got True"),
        (changed("sde", kind="vpp"), "sde.kind: 'vpp' is unknown; did you mean vp"),
        (changed("sde", kind=["vp"]), r"sde.kind: \['vp'\] is unknown"),
        ({**VALUES, "sde": {}}, "sde: missing kind; allowed: vp, subvp"),
        (changed("sde", beta_max="20"), "sde.beta_max must be a number, got '20'"),
        (changed("sde", beta_min=30.0), "sde: beta_max must be greater than beta_min"),
        (changed("sde", sigma_min=0.1), "sde: unknown key 'sigma_min'; .*allowed: beta_min"),
        (changed("sde", kind="tabulated", betas=[0.1, 2.0]), r"sde: betas must lie in \(0, 1\)"),
        (changed("sde", kind="tabulated", betas=[0.1, "x"]), "sde.betas must be a list of numbers"),
        (changed("sde", kind="tabulated", betas=0.1), "sde.betas must be a list of numbers"),
        (changed("sde", kind="tabulated"), "sde: missing betas"),
        (
            changed("sde", kind="tabulated", betas="linea:steps=9"),
            "sde.betas: 'linea' is unknown; did you mean linear",
        ),
        (
            changed("sde", kind="tabulated", betas="linear:steps=9:last=2"),
            "sde.betas: linear: last must be less than 1, got 2",
        ),
        (changed("net", widht=8), "net: unknown key 'widht'; did you mean width"),
        (changed("net", shape=[3]), "net: unknown key 'shape'"),
        (changed("net", kind="unet", multipliers=[[1]]), "multipliers must be a list of integers"),
        (changed("net", dropout="x"), "net.dropout must be a number"),
        (changed("objective", weighting="snr"), "objective: weighting must be one of simple"),
        (changed("objective", weighting=1), "objective.weighting must be text, got 1"),
        (changed("objective", t_min=0.0), "objective: t_min must be greater than 0 for VP"),
        (changed("objective", t_min=1), "objective: t_min must be less than 1"),
        (changed("preconditioning", scale_input=1), "scale_input must be true or false, got 1"),
        (changed("preconditioning", target="noise"), "preconditioning: target must be one of eps"),
        (
            changed("preconditioning", label="rounded_index"),
            "objective.times must be 'ladder' for rounded labels, .* got 'uniform'",
        ),
    ],
)
def test_unsound_configs_are_refused_by_key(values, match):
    if "widht" in values["net"]:
        del values["net"]["width"]
    if values["net"].get("kind") == "unet":
        values["net"] = {"kind": "unet", "multipliers": [[1]]}
    if values.get("sde", {}).get("kind") in ("vpp", ["vp"]):
        values["sde"] = {"kind": values["sde"]["kind"]}
    with pytest.raises(ConfigError, match=match):
        Config.from_dict(values)


@pytest.mark.parametrize(
    ("net", "match"),
    [
        ({"kind": "mlp", "dropout": 1.0}, "net: dropout must"),
        ({"kind": "mlp", "depth": 0}, "net: depth must"),
        ({"kind": "mlp", "classes": 3}, "net.classes must be the data's None, got 3"),
        ({"kind": "unet"}, r"net: shape must be \(C, L\), \(C, H, W\) or"),
    ],
)
def test_networks_that_refuse_their_arguments_are_config_errors(net, match):
    with pytest.raises(ConfigError, match=match):
        Config.from_dict({**VALUES, "net": net}).build_model(SPEC)


def test_weights_come_from_the_seed_alone(rng_untouched):
    def weights(seed):
        config = Config.from_dict(changed("train", seed=seed))
        return torch.cat([p.flatten() for p in config.build_model(SPEC).parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))
    assert len(weights(2**64 - 1)) > 0


@pytest.mark.parametrize("text", [MINIMAL, "\ufeff" + MINIMAL, MINIMAL.replace("\n", "\r\n")])
def test_files_of_every_platform_are_read(tmp_path, text):
    config = load_config(write(tmp_path / "a b ü.toml", text))
    assert config.train.steps == 1000
    assert config.sde == VP()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "empty; a config needs data, sde, net and train"),
        ("[data\n", r"not valid TOML: .*line 1"),
        (MINIMAL + "x = = 1\n", r"not valid TOML: .*line 11, column 5"),
        (MINIMAL + "batch = 8\n", "not valid TOML: Cannot overwrite a value"),
        (MINIMAL + "[data]\n", "not valid TOML: Cannot declare"),
        ("a = " + "[" * 100_000, "not valid TOML"),
        (b"\x80\x02binary", "not UTF-8 text .invalid start byte at byte 0"),
        (MINIMAL + "[extra]\n", "unknown key 'extra'"),
    ],
)
def test_unreadable_files_are_refused_in_one_line(tmp_path, text, match):
    path = write(tmp_path / "bad.toml", text)
    with pytest.raises(ConfigError, match=match) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_missing_files_and_names(tmp_path):
    with pytest.raises(ConfigError, match="none.toml: cannot be read: No such file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ValueError, match="digits_pv: neither a file.*did you mean digits_vp"):
        load_config("digits_pv")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config((tmp_path / "folder.toml").mkdir() or tmp_path / "folder.toml")


def test_a_folder_with_the_name_of_a_shipped_config_does_not_hide_it(tmp_path, monkeypatch):
    (tmp_path / "digits_vp").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_config("digits_vp").data.name == "digits"


@pytest.fixture
def checkpoint(tmp_path):
    """save(metadata changes, tensor changes): a sound checkpoint, changed, as a path."""

    def save(metadata=None, tensors=None):
        config = Config.from_dict(changed("train", autocast="bfloat16"))
        weights = config.build_model(SPEC).net.state_dict()
        content = {f"model.{k}": v for k, v in weights.items()} | (tensors or {})
        kept = {k: v for k, v in content.items() if v is not None}
        sound = {"config": config.to_dict(), "data": SPEC.to_dict(), "steps_done": 5}
        path = tmp_path / "c.safetensors"
        save_checkpoint(path, kept, {**sound, **(metadata or {})})
        return path

    return save


def test_loaded_model_is_frozen_in_evaluation_mode_and_without_autocast(checkpoint):
    path = checkpoint()
    loaded = load(path)
    assert isinstance(loaded.model.sde, SDE)
    assert not loaded.model.training
    assert not loaded.model.net.training
    assert loaded.model.autocast is None
    assert loaded.config.train.autocast == "bfloat16"
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert loaded.data == SPEC
    assert loaded.metadata["steps_done"] == 5
    assert loaded.path == path
    assert len(loaded.sha256) == 64
    assert scoresde.load(str(path)).sha256 == loaded.sha256


def test_loading_leaves_the_global_generators_alone(checkpoint, rng_untouched):
    load(checkpoint())


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ({"config": None}, "its metadata are not understood"),
        ({"seconds": "long"}, "metadata.seconds must be a number, got 'long'"),
        ({"seconds": 10**400}, r"an integer is 2\^64 or larger"),
        ({"steps_done": [3]}, r"metadata.steps_done must be an integer, got \[3\]"),
        ({"provenance": "me"}, "metadata.provenance must be a table, got 'me'"),
        ({"config": []}, "its metadata are not understood"),
        ({"config": {}}, "missing data, sde, net, train"),
        ({"config": {**VALUES, "sde": {"kind": "os.system"}}}, "'os.system' is unknown"),
        (
            {"config": {**VALUES, "net": {"kind": "unet"}}},
            r"shape must be \(C, L\), \(C, H, W\) or",
        ),
        ({"config": {**VALUES, "net": {"kind": "mlp", "dropout": 2.0}}}, "dropout must"),
        ({"data": None}, "its metadata are not understood"),
        ({"data": {"shape": 5, "low": 0, "high": 1}}, "its metadata are not understood"),
        ({"data": {"shape": [2]}}, "DataSpec: missing low"),
        ({"data": {**SPEC.to_dict(), "mean": 0}}, "unknown key 'mean'"),
    ],
)
def test_tampered_metadata_are_refused_with_the_path(checkpoint, metadata, match):
    path = checkpoint(metadata)
    with pytest.raises(CheckpointError, match=match) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_wrong_architecture_lists_what_differs(checkpoint):
    values = changed("net", width=16)
    with pytest.raises(
        CheckpointError, match=r"c.safetensors: the tensors do not fit MLP: .*has shape"
    ):
        load(checkpoint({"config": values}))
    with pytest.raises(CheckpointError, match="missing stem.bias"):
        load(checkpoint(tensors={"model.stem.bias": None}))
    with pytest.raises(CheckpointError, match="unexpected extra"):
        load(checkpoint(tensors={"model.extra": torch.zeros(1)}))


def test_missing_checkpoints(tmp_path):
    with pytest.raises(ValueError, match="nothing: neither a file nor a shipped checkpoint"):
        load("nothing")
    with pytest.raises(CheckpointError, match="none.safetensors: no such file"):
        load(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="is a folder"):
        load(tmp_path)


def test_every_shipped_checkpoint_loads():
    for name in shipped("checkpoints"):
        loaded = load(name)
        x = torch.zeros(1, *loaded.data.shape)
        assert bool(torch.isfinite(loaded.model.eps(x, 0.5)).all())


def test_the_config_of_the_cifar10_network_is_the_one_that_ships():
    assert load("cifar10-vp").config == load_config("cifar10_vp")


def test_construct_takes_classes_functions_and_partials():
    def make(a: int, b: list[float] | None = None, *, c: str = "x") -> tuple:
        return a, b, c

    assert construct(make, {"a": 1, "b": [1, 2.5]}, "here") == (1, [1, 2.5], "x")
    assert construct(make, {"a": 1, "b": None}, "here") == (1, None, "x")
    with pytest.raises(ConfigError, match="here.b must be a list of numbers, got 3"):
        construct(make, {"a": 1, "b": 3}, "here")
    with pytest.raises(ConfigError, match="here: missing a"):
        construct(make, {}, "here")


def test_nearest_names():
    assert nearest("dim", ["ddim", "heun"]) == "did you mean ddim? allowed: ddim, heun"
    assert nearest("zzz", ["ddim"]) == "allowed: ddim"
    assert nearest("zzz", []) == "allowed: none"


def test_the_default_dtype_and_device_do_not_reach_into_a_checkpoint(checkpoint):
    path = checkpoint()
    want = load(path)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"), torch.inference_mode():
            got = load(path)
        fresh = Config.from_dict(VALUES).build_model(SPEC)
    finally:
        torch.set_default_dtype(torch.float32)
    for name, value in want.model.net.state_dict().items():
        have = got.model.net.state_dict()[name]
        assert have.dtype == value.dtype == torch.float32
        assert torch.equal(have, value)
        assert not have.is_inference()
    assert {p.dtype for p in fresh.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "net",
    [
        {"kind": "mlp", "depth": 10**7},
        {"kind": "mlp", "depth": 2**62},
        {"kind": "mlp", "width": 10**12},
        {"kind": "unet", "blocks": 10**7, "attention": []},
        {"kind": "unet", "channels": 20_000, "attention": []},
        {"kind": "unet", "multipliers": [1] * 10**5, "attention": []},
        {"kind": "unet", "multipliers": [1, 10**9], "channels": 10**9, "attention": [4]},
        {"kind": "unet", "patch": 2**40, "attention": []},
        {"kind": "unet", "classes": 2**40, "attention": []},
    ],
)
def test_a_forged_size_takes_neither_time_nor_memory(tmp_path, net):
    path = tmp_path / "c.safetensors"
    spec = SPEC if net["kind"] == "mlp" else DataSpec((1, 8, 8), -1, 1, classes=net.get("classes"))
    config = {**VALUES, "net": net}
    save_checkpoint(
        path, {"model.stem.weight": torch.zeros(2, 2)}, {"config": config, "data": spec.to_dict()}
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    with pytest.raises(CheckpointError):
        load(path)
    # Seconds, some of them for an import of torch; with memory for its weights it takes minutes.
    assert time.process_time() - begin < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def absurd(rng):
    """A value that no setting has."""
    deep = []
    for _ in range(rng.randint(2, 300)):
        deep = [deep] if rng.random() < 0.5 else {"k": deep}
    values = (
        10**400, -(10**400), 2**63, -1, 0, 1e308, -0.0, 5e-324, True, None, "", "x" * 5000,
        "\x1b[31m\n\r\u2028", [], {}, [[]], ["a", 1, None], {"kind": {}}, deep,
    )  # fmt: skip
    return rng.choice(values)


def mutated(value, rng):
    """Plain data with one value somewhere replaced, removed or added."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        how = rng.random()
        if how < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if how < 0.2:
            return {**value, str(absurd(rng))[:50]: absurd(rng)}
        return {**value, key: mutated(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], mutated(value[place], rng), *value[place + 1 :]]
    return absurd(rng)


def test_absurd_metadata_are_one_line(checkpoint):
    """With a valid checksum: a model, or an error of one line without control characters."""
    raw = read_checkpoint(checkpoint())
    rng = random.Random(0)
    refused = 0
    for _ in range(250):
        metadata = mutated(raw.metadata, rng)
        if not isinstance(metadata, dict):
            continue
        try:
            build(replace(raw, metadata=metadata))
        except CheckpointError as error:
            refused += 1
            text = str(error)
            assert text.isprintable()
            assert len(text) < 1500
    assert refused > 80
