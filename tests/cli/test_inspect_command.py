"""`scoresde inspect`."""

import json
import tomllib
from pathlib import Path

import pytest
import torch

import scoresde as library
from scoresde.names.config import Config
from scoresde.nets.block_parts import AttentionBlock
from scoresde.tasks.inspection import to_toml


def test_it_says_what_a_checkpoint_holds(scoresde, tiny_checkpoint):
    done = scoresde("inspect", "--checkpoint", tiny_checkpoint)
    assert done.status == 0
    checkpoint = library.load(tiny_checkpoint)
    weights = sum(value.numel() for value in checkpoint.model.net.state_dict().values())
    for part in (checkpoint.sha256, f"{weights:,}", "digits, 1×8×8, 17 levels", "can be resumed"):
        assert part in done.out


def test_the_config_is_toml_that_trains_the_same(scoresde, tiny_checkpoint):
    done = scoresde("inspect", "--checkpoint", tiny_checkpoint)
    text = done.out[done.out.index("[data]") :]
    assert Config.from_dict(tomllib.loads(text)) == library.load(tiny_checkpoint).config


def test_it_tells_licence_and_origin_of_what_the_cifar10_network_learned_from(scoresde):
    done = scoresde("inspect", "--checkpoint", "cifar10-vp")
    assert "licence   of the data: none stated (research use, cite Krizhevsky 2009)" in done.out
    assert "first 48,000 of the 50,000 training images" in done.out


def test_the_licence_of_own_data_is_not_known(scoresde, named_checkpoint):
    found = json.loads(scoresde("inspect", "--checkpoint", named_checkpoint, "--json").out)
    assert found["data_licence"] is None
    assert "licence " not in scoresde("inspect", "--checkpoint", named_checkpoint).out


def test_it_says_how_discrete_labels_are_handled(scoresde, snapped_checkpoint):
    done = scoresde("inspect", "--checkpoint", snapped_checkpoint)
    assert 'label = "rounded_index"' in done.out


@pytest.mark.parametrize(
    "value", [1, -2.5e-5, 1e300, True, 'a "b" \\ \n\t\x7f ± 😀', [1, 2], [0.5, 1e-7], []]
)
def test_toml_reads_back(value):
    tables = {"part": {"key": value, "other": 1}, "empty": {}}
    assert tomllib.loads(to_toml(tables)) == tables


def test_operations_are_counted_layer_by_layer(scoresde):
    """Two for each product of convolutions, linear layers and attention, at batch 1."""
    folder = Path(__file__).parents[2] / "benchmarks" / "models" / "tiny-ddpm"
    net, counts = library.load(folder).model.net, []

    def count(layer, given, out):
        if isinstance(layer, AttentionBlock):  # q kᵀ, and the weights times v
            positions = out[0, 0].numel()
            counts.append(2 * 2 * positions**2 * layer.to_v.out_features)
        else:
            counts.append(2 * out.numel() * layer.weight[0].numel())

    for layer in net.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear, AttentionBlock)):
            layer.register_forward_hook(count)
    net(torch.zeros(1, 3, 8, 8), torch.zeros(1))
    done = scoresde("inspect", "--checkpoint", folder)
    assert f"{sum(counts):,} FLOPs per evaluation of one datum" in done.out
    assert "licence   not stated" in done.out


def test_it_names_the_classes(scoresde, named_checkpoint):
    assert "classes   0 cat, 1 fox" in scoresde("inspect", "--checkpoint", named_checkpoint).out
    found = json.loads(scoresde("inspect", "--checkpoint", named_checkpoint, "--json").out)
    assert found["data"]["class_names"] == ["cat", "fox"]


def test_json_is_for_machines(scoresde, tiny_checkpoint):
    found = json.loads(scoresde("inspect", "--checkpoint", tiny_checkpoint, "--json").out)
    assert found["sha256"] == library.load(tiny_checkpoint).sha256
    assert found["provenance"] == {"by": "us"}
    assert found["data"]["levels"] == 17


def test_it_lists_the_shipped_ones(scoresde, monkeypatch, tiny_checkpoint):
    monkeypatch.setattr("scoresde.tasks.inspection.shipped", lambda what: ["digits-vp"])
    monkeypatch.setattr("scoresde.tasks.inspection.locate", lambda what, name: tiny_checkpoint)
    assert "digits-vp" in scoresde("inspect", "--list").out
    size = tiny_checkpoint.stat().st_size
    listed = json.loads(scoresde("inspect", "--list", "--json").out)
    assert listed == [{"name": "digits-vp", "bytes": size}]


def test_it_wants_one_of_checkpoint_and_list(scoresde, tiny_checkpoint):
    assert scoresde("inspect").status == 2
    assert scoresde("inspect", "--list", "--checkpoint", tiny_checkpoint).status == 2
