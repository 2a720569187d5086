"""The templates of `scoresde train --new-config` list the keys that the code accepts."""

import inspect
import re
import tomllib
from dataclasses import MISSING, fields

import numpy as np
import pytest
from PIL import Image

from scoresde.data import DataSpec
from scoresde.names.config import Config, load_config
from scoresde.names.kinds import NETS, SDES
from scoresde.plain import ConfigError
from scoresde.score import Call
from scoresde.shipped import TEMPLATES, config_template
from scoresde.tasks.train.prepare import prepare_run

NET = {
    "images": "unet",
    "vectors": "mlp",
    "series": "unet",
    "volumes": "unet",
    "sets": "transformer",
}
SHAPES = {
    "images": (1, 8, 8),
    "vectors": (3,),
    "series": (2, 8),
    "volumes": (1, 4, 4, 4),
    "sets": (4, 2),
}
LINE = re.compile(r"(?P<off># )?(?P<key>\w+) = (?P<value>.*?) *# (?P<meaning>.+)")

every_template = pytest.mark.parametrize("what", TEMPLATES)


def tables(what):
    """{table: {key: (value, whether the line is commented out, meaning)}} of a template."""
    found, table = {}, None
    for line in config_template(what).splitlines():
        if header := re.match(r"\[(\w+)\]", line):
            table = found.setdefault(header[1], {})
        elif table is not None and (match := LINE.fullmatch(line)):
            assert match["key"] not in table
            value = tomllib.loads(f"x = {match['value']}")["x"]
            table[match["key"]] = value, bool(match["off"]), match["meaning"]
        else:
            assert not line or table is None, line
    return found


def defaults(cls):
    """{name: default} of a constructor's arguments; `MISSING` for one that must be given."""
    arguments = inspect.signature(cls).parameters.values()
    return {a.name: MISSING if a.default is a.empty else a.default for a in arguments}


def parts(what):
    """{table: {key: default}} of every key of a config, from the code."""
    made = load_text(what)
    known = {f.name for f in fields(Config)} - {"net", "net_class", "latent"}
    own = {name: type(getattr(made, name)) for name in known}
    found = {name: defaults(cls) for name, cls in own.items()}
    found["call"] = vars(Call())
    found["net"] = {"kind": MISSING, **defaults(NETS[NET[what]])}
    del found["net"]["shape"]
    found["sde"]["kind"] = MISSING
    return found


def load_text(what) -> Config:
    return Config.from_dict(tomllib.loads(config_template(what)))


@every_template
def test_every_key_is_there_with_its_default(what):
    shown = tables(what)
    others = {key for cls in SDES.values() for key in defaults(cls)}
    assert shown.keys() == parts(what).keys()
    for table, keys in parts(what).items():
        more = others if table == "sde" else set()
        assert shown[table].keys() == keys.keys() | more, table
        for key, default in keys.items():
            value, absent, _ = shown[table][key]
            assert absent == (default is None), f"{table}.{key}"
            if default not in (None, MISSING):
                plain = list(default) if isinstance(default, tuple) else default
                assert value == plain, f"{table}.{key}"
                assert type(value) is type(plain), f"{table}.{key}"


@every_template
def test_keys_of_other_sdes_are_there_with_their_defaults(what):
    shown = tables(what)["sde"]
    for kind, cls in SDES.items():
        for key, default in defaults(cls).items():
            assert default in (shown[key][0], MISSING)
            assert kind in shown[key][2] or "the same" in shown[key][2]


@every_template
def test_each_line_says_what_the_key_means(what):
    text = config_template(what)
    assert all(len(line) <= 100 for line in text.splitlines())
    for table in tables(what).values():
        assert all(len(meaning.split()) > 2 for *_, meaning in table.values())


@every_template
@pytest.mark.parametrize(
    ("table", "key"),
    [
        *(("preconditioning", "target"), ("preconditioning", "label")),
        *(("objective", "weighting"), ("objective", "times"), ("sde", "kind"), ("net", "kind")),
        ("net", "embedding"),
    ],
)
def test_allowed_words_are_all_named(what, table, key):
    """An unknown word is refused with all that are allowed; the template names the same."""
    values = tomllib.loads(config_template(what))
    values[table] = {"kind": values[table]["kind"]} if key == "kind" else values[table]
    values[table][key] = "?"
    with pytest.raises(ConfigError) as refused:
        Config.from_dict(values).build_model(spec(what))
    message = str(refused.value).partition(", got")[0]
    allowed = re.search(r"(?:allowed: |one of )([\w, ]+)", message)[1].split(", ")
    meaning = tables(what)[table][key][2]
    assert len(allowed) > 1
    assert all(re.search(rf"\b{word}\b", meaning) for word in allowed)


def spec(what):
    return DataSpec(SHAPES[what], -1, 1, sizes=(1, 4) if what == "sets" else None)


def write_data(what, folder):
    """Data for a template, 300 of them; their path."""
    x = np.random.default_rng(0).normal(size=(300, *SHAPES[what]))
    if what == "sets":
        sizes = 1 + np.arange(300) % 4
        x[np.arange(4) >= sizes[:, None]] = 0
        np.savez(folder / "x.npz", x=x, sizes=sizes)
        return folder / "x.npz"
    if what != "images":
        np.save(folder / "x.npy", x)
        return folder / "x.npy"
    (folder / "images").mkdir()
    for i in range(300):
        Image.new("L", (8, 8), i % 256).save(folder / "images" / f"{i}.png")
    return folder / "images"


SLOW = ("series", "volumes")  # what is new in them is tested with their network and their files


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=[pytest.mark.slow] * (what in SLOW)) for what in TEMPLATES]
)
def test_it_trains_as_soon_as_the_path_is_filled_in(what, tmp_path):
    text = config_template(what)
    name = tomllib.loads(text)["data"]["name"]
    path = tmp_path / "config.toml"
    path.write_text(text.replace(name, str(write_data(what, tmp_path))), encoding="utf-8")
    config = load_config(path)
    run = prepare_run(path, tmp_path / "run")
    steps = run.steps()
    assert next(steps).step.loss > 0
    steps.close()
    assert run.checkpoint.exists()
    assert config.train.steps > config.train.warmup


@every_template
def test_it_is_no_shipped_config(what):
    """Its path does not exist, so that it must not be trained by name."""
    with pytest.raises(ValueError, match="neither a file nor a shipped config"):
        load_config(f"template_{what}")
