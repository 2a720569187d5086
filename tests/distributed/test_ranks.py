"""What processes ask one another, with threads in place of processes; and how they are started."""

import threading
import time

import pytest
import torch

from scoresde.distributed import PeerError, Ranks, processes, watch


def test_each_rank_gets_the_values_of_all_in_order(together):
    def act(ranks):
        return [ranks.gather([ranks.rank, turn]) for turn in range(3)]

    for found in together(3, act):
        assert found == [[[rank, turn] for rank in range(3)] for turn in range(3)]


def test_shares_are_all_items_once():
    items = list(range(7))
    shares = [Ranks(rank, 3).share(items) for rank in range(3)]
    assert sorted(sum(shares, [])) == items
    assert shares[0] == [0, 3, 6]
    assert Ranks(9, 10).share(items) == []
    assert Ranks().gather("alone") == ["alone"]


def test_what_is_handed_out_comes_to_one_rank_each(together):
    def act(ranks):
        first = list(ranks.handed_out("abcdefg"))
        return first + list(ranks.handed_out("hi"))

    assert sorted("".join(map("".join, together(3, act)))) == list("abcdefghi")
    assert "".join(Ranks().handed_out("abc")) == "abc"


def test_different_settings_are_named_on_all_ranks(together):
    values = [{"n": 1, "seed": 0}, {"n": 1, "seed": 0}, {"n": 1, "seed": 7}]
    for error in together(3, lambda ranks: ranks.agree(values[ranks.rank])):
        assert isinstance(error, (ValueError, PeerError))
        assert "seed is 0 on rank 0 and 7 on rank 2" in str(error)


def test_a_failure_reaches_those_who_wait(together):
    stopped = threading.Event()

    def act(ranks):
        if ranks.rank == 1:
            raise ValueError("the grid is bad")
        try:
            ranks.gather()
        finally:
            time.sleep(0.1)
            stopped.set()

    waiting, failing = together(2, act)
    assert isinstance(waiting, PeerError)
    assert str(waiting) == "rank 1: the grid is bad"
    assert isinstance(failing, ValueError)


def test_a_silent_rank_is_reported(together, monkeypatch):
    monkeypatch.setattr(watch, "SILENCE", 0.1)

    def act(ranks):
        if ranks.rank == 1:
            ranks.watch.leave(0)  # it beats no longer
            return None
        ranks.gather()

    error, _ = together(2, act)
    assert isinstance(error, PeerError)
    assert "rank 1: no sign of life" in str(error)


NUMBERS = {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "4"}


@pytest.mark.parametrize(
    ("changed", "device", "words"),
    [
        ({}, "cuda", "torchrun started 4 processes on this machine, which has 2 GPUs"),
        ({}, "cuda:1", "--device: cuda:1, but each of the 4 processes on this machine takes"),
        ({"RANK": "x"}, "cpu", "RANK: must be an integer as torchrun sets it, got 'x'"),
        ({"RANK": "4"}, "cpu", "RANK: 4 of 4 processes"),
    ],
)
def test_what_torchrun_cannot_have_started(monkeypatch, changed, device, words):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {**NUMBERS, "MASTER_ADDR": "localhost", **changed}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=words), processes(device):
        pass


def test_without_torchrun_nothing_is_joined(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with processes() as ranks:
        assert ranks == Ranks()
    for name, value in {**NUMBERS, "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    with processes("cuda") as ranks:
        assert ranks == Ranks()
