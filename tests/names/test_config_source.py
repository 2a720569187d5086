"""Changes of single keys of a config, as `scoresde train --set` gives them."""

import pytest

from scoresde.names.config import load_config
from scoresde.names.config_source import ConfigSource
from scoresde.plain import ConfigError


def changed(*changes):
    return load_config(ConfigSource("digits_vp", changes))


def test_only_the_named_keys_change_and_values_are_those_of_toml():
    config = changed(
        *("train.batch=64", "train.learning_rate=2e-3", "net.multipliers=[1, 2, 2]"),
        *("data.name=mnist", 'data.root="a b=c"', "objective.levels = 10", "call.condition='y'"),
    )
    before = load_config("digits_vp").to_dict()
    after = config.to_dict()
    assert config.train.batch == 64
    assert config.train.learning_rate == 2e-3
    assert after["net"].pop("multipliers") == [1, 2, 2]
    assert (config.data.name, config.data.root) == ("mnist", "a b=c")
    assert config.objective.levels == 10  # the file has no such key
    assert config.call.condition == "y"  # nor this table
    for table, key in (("train", "batch"), ("train", "learning_rate"), ("objective", "levels")):
        after[table][key] = before[table][key]
    before["net"].pop("multipliers")
    del before["data"], after["data"], after["call"]
    assert after == before


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("train.batch=x", "--set train.batch=x: train.batch must be an integer, got 'x'"),
        ("train.batch=2.0", "train.batch must be an integer, got 2.0"),
        ("train.batch=True", "train.batch must be an integer, got 'True'"),
        ("train.batch=1\ntrain.steps=2", "train.batch must be an integer, got '1.ntrain"),
        ("net.multipliers=[1,2", "net.multipliers must be a list of integers, got '.1,2'"),
        ("train.ema_decay=1", "--set train.ema_decay=1: train: ema_decay must be"),
        ("trian.batch=4", "unknown key 'trian'; did you mean train"),
        ("train.bath=4", "train: unknown key 'bath'; did you mean batch"),
        ("net.kind.x=4", "--set net.kind.x=4: net.kind is 'unet', not a table"),
        ("batch=4", "--set batch=4: must be table.key=value, such as train.batch=64"),
        ("train.batch", "must be table.key=value"),
        ("train.batch=", "must be table.key=value"),
        ("train..batch=4", "must be table.key=value"),
    ],
)
def test_a_wrong_change_is_named_in_one_line(change, match):
    with pytest.raises(ConfigError, match=match) as caught:
        changed(change)
    assert "\n" not in str(caught.value).replace(change, "")


def test_one_key_may_be_changed_once():
    with pytest.raises(ConfigError, match="--set train.batch=5: train.batch is given twice"):
        changed("train.batch=4", "train.batch=5")
