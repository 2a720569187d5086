import math

import pytest
import torch
from torch import nn

from scoresde.ema import EMA


class Net(nn.Module):
    """A weight, a float buffer, a counter and a constant outside the state dict."""

    def __init__(self, value=0.0, dtype=torch.float64):
        super().__init__()
        self.weight = nn.Parameter(torch.full((2, 3), value, dtype=dtype))
        self.register_buffer("mean", torch.full((3,), value, dtype=dtype))
        self.register_buffer("count", torch.tensor(int(value)))
        self.register_buffer("constant", torch.tensor(7.0), persistent=False)


def bits(net):
    return {name: value.clone().view(torch.uint8) for name, value in _flat(net).items()}


def _flat(net):
    return {name: value.reshape(-1) for name, value in net.state_dict().items()}


def same_bits(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def random_net():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in net.parameters():
            value.copy_(torch.randn(value.shape, generator=generator))
    return net


def initial_share(n, capped_at_half):
    """Share of the initial weights after n updates, without evaluating d_n.

    ∏_{i<n} (1+i)/(10+i) = n! 9!/(n+9)! = 1/C(n+9, 9); (1+i)/(10+i) reaches 1/2 at i = 8.
    """
    if capped_at_half and n > 8:
        return 0.5 ** (n - 8) / math.comb(17, 9)
    return 1 / math.comb(n + 9, 9)


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 40])
@pytest.mark.parametrize("decay", [0.5, 0.999999])
def test_constant_steps_leave_the_closed_form_share_of_the_start(n, decay):
    start, weight = -3.0, 5.0
    ema = EMA(Net(start), decay)
    for _ in range(n):
        ema.update(Net(weight))
    share = initial_share(n, capped_at_half=decay == 0.5)
    # float64 rounding of n steps on numbers of size 5
    for name in ("weight", "mean"):
        expected = weight * (1 - share) + start * share
        assert (ema.averages[name] - expected).abs().max() < 1e-12
    assert ema.averages["count"] == 5  # copied, not averaged
    assert ema.updates == n


def test_first_update_is_the_documented_tensorflow_example():
    # 0 then 5 with num_updates = 0 gives 4.5: the decay of the first update is 0.1
    ema = EMA(Net(0.0), 0.99)
    ema.update(Net(5.0))
    assert ema.averages["weight"][0, 0].item() == pytest.approx(4.5, abs=1e-15)


def test_varying_weights_follow_the_weighted_sum():
    # Σ_i (1 − d_i) (∏_{j>i} d_j) w_i + (∏ d_j) w_0, the recursion unrolled
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(30, generator=generator, dtype=torch.float64).tolist()
    ema = EMA(Net(weights[0]), 0.7)
    decays = []
    for weight in weights[1:]:
        decays.append(ema.decay_after(ema.updates))
        ema.update(Net(weight))
    expected = math.prod(decays) * weights[0] + math.fsum(
        (1 - d) * math.prod(decays[i + 1 :]) * weights[i + 1] for i, d in enumerate(decays)
    )
    assert ema.averages["weight"][0, 0].item() == pytest.approx(expected, abs=1e-13)


def test_decay_zero_copies_the_network():
    ema, net = EMA(Net(1.0), 0.0), Net(0.3)
    ema.update(net)
    assert torch.equal(ema.averages["weight"], net.weight)


def test_update_neither_changes_the_network_nor_shares_memory_with_it():
    net = random_net()
    ema = EMA(net, 0.9)
    before = bits(net)
    ema.update(net)
    ema.averages["0.weight"].zero_()
    assert same_bits(bits(net), before)


@pytest.mark.parametrize("raised", [None, ValueError, KeyboardInterrupt])
def test_applied_gives_the_training_weights_back_bit_for_bit(raised):
    net = random_net()
    ema = EMA(net, 0.9)
    with torch.no_grad():
        for value in net.parameters():
            value.mul_(-1.1)
        net[0].weight[0, 0] = float("nan")  # even a NaN keeps its bits
        net[0].weight[0, 1] = -0.0
    before, requires_grad = bits(net), [p.requires_grad for p in net.parameters()]

    def use():
        with ema.applied(net) as inside:
            assert inside is net
            assert torch.equal(net[0].weight, ema.averages["0.weight"])
            net(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))  # moves BatchNorm
            with torch.no_grad():
                net[2].bias.fill_(9.0)
            if raised:
                raise raised

    if raised:
        with pytest.raises(raised):
            use()
    else:
        use()
    assert same_bits(bits(net), before)
    assert [p.requires_grad for p in net.parameters()] == requires_grad
    assert not torch.any(ema.averages["2.bias"] == 9.0)


def test_applied_restores_a_network_whose_data_were_reassigned_inside():
    net = random_net()
    ema, before = EMA(net, 0.9), bits(net)
    with ema.applied(net):
        net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()}, assign=True)
    assert same_bits(bits(net), before)


def test_optimizer_goes_on_as_if_the_swap_had_not_happened():
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))

    def train(swap):
        net = random_net()
        ema, optimizer = EMA(net, 0.9), torch.optim.Adam(net.parameters())
        for _ in range(4):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
            ema.update(net)
            if swap:
                with ema.applied(net):
                    net(x)
        return bits(net), ema

    (plain, ema), (swapped, swapped_ema) = train(False), train(True)
    assert same_bits(plain, swapped)
    assert same_bits(ema.averages, swapped_ema.averages)


def test_half_precision_weights_are_averaged_in_float32():
    # in bfloat16 a step of 1e-4 from 1 to 2 would round to nothing
    ema = EMA(Net(1.0, torch.bfloat16), 0.9999)
    ema.restore(10**9, ema.averages)  # past the warm-up
    ema.update(Net(2.0, torch.bfloat16))
    # 1 + 1e-4 in float32
    assert ema.averages["weight"].dtype == torch.float32
    assert (ema.averages["weight"] - 1.0001).abs().max() < 2e-7
    net = Net(2.0, torch.bfloat16)
    with ema.applied(net):
        assert net.weight.dtype == torch.bfloat16
        assert torch.equal(net.weight, torch.ones(2, 3, dtype=torch.bfloat16))
    assert torch.equal(net.weight, torch.full((2, 3), 2.0, dtype=torch.bfloat16))


def test_tied_weights_keep_both_names():
    net = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    net["b"].weight = net["a"].weight
    ema = EMA(net, 0.9)
    ema.update(net)
    assert ema.averages.keys() == net.state_dict().keys()
    with ema.applied(net):
        assert net["b"].weight is net["a"].weight


def test_resuming_continues_bit_for_bit():
    nets = [Net(float(i)) for i in range(9)]
    whole = EMA(nets[0], 0.99)
    for net in nets:
        whole.update(net)
    first = EMA(nets[0], 0.99)
    for net in nets[:4]:
        first.update(net)
    second = EMA(Net(-5.0), 0.99)
    second.restore(first.updates, first.averages)
    first.update(Net(100.0))  # what is restored is a copy
    for net in nets[4:]:
        second.update(net)
    assert second.updates == whole.updates == 9
    assert same_bits(whole.averages, second.averages)


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan"), float("inf"), 2])
def test_decay_outside_the_half_open_interval_is_refused(decay):
    with pytest.raises(ValueError, match="decay must be (at least 0|less than 1|finite), got"):
        EMA(Net(), decay)


def test_another_architecture_is_refused_and_nothing_changes():
    net, other = nn.Linear(3, 2), nn.Linear(1, 2)  # (2, 1) would broadcast to (2, 3)
    ema = EMA(net, 0.9)
    before, averages = bits(other), bits(net)
    differs = r"fit the averaged network: weight has shape \(2, 1\), not \(2, 3\)"
    with pytest.raises(ValueError, match=differs):
        ema.update(other)
    with pytest.raises(ValueError, match=differs), ema.applied(other):
        pass
    with pytest.raises(ValueError, match="missing weight; missing bias"):
        ema.update(nn.ReLU())
    assert same_bits(bits(other), before)
    assert same_bits(bits(net), averages)
    assert ema.updates == 0


def test_malformed_states_are_refused():
    ema = EMA(nn.Linear(3, 2), 0.9)
    with pytest.raises(ValueError, match="updates must be at least 0, got -1"):
        ema.restore(-1, ema.averages)
    with pytest.raises(TypeError, match="updates must be an integer, got None"):
        ema.restore(None, ema.averages)
    with pytest.raises(ValueError, match="the averaged network: missing weight; missing bias"):
        ema.restore(3, {})
    assert ema.updates == 0
