"""`scoresde data`."""

import json

from scoresde.data import dataset_status


def test_it_lists_what_is_here_and_how_to_get_the_rest(scoresde, monkeypatch, tmp_path):
    monkeypatch.setattr("scoresde.data.catalog.find_folder", lambda name: None)
    monkeypatch.setattr("scoresde.data.catalog.find_uci", lambda name: None)
    done = scoresde("data")
    assert done.status == 0
    for row in dataset_status():
        assert row.name in done.out
        assert row.get in done.out
    assert "shipped" in done.out
    assert done.out.count("missing") == 8


def test_it_says_where(scoresde, monkeypatch, tmp_path):
    monkeypatch.setattr("scoresde.data.catalog.find_folder", lambda name: tmp_path)
    assert str(tmp_path) in scoresde("data").out


def test_json_is_for_machines(scoresde):
    rows = json.loads(scoresde("data", "--json").out)
    assert rows[0] == {
        "name": "digits",
        "shape": [1, 8, 8],
        "train": 1500,
        "test": 297,
        "where": "shipped",
        "get": "",
        "licence": rows[0]["licence"],
        "entropy": None,
    }
