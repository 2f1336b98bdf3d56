"""Initial weights are a function of the seed, whatever other threads build meanwhile."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import pytest
import torch
from torch import nn

from consistency_lab.devices import plain_defaults
from consistency_lab.networks.initialising import initialised
from consistency_lab.networks.registry import build_network


def two_layers(seed, between=lambda: None):
    """Weights of two layers, and something that happens after the first is made."""
    with initialised(seed):
        first = nn.Linear(3, 3)
        between()
        return torch.cat([first.weight, nn.Linear(3, 3).weight]).detach()


def test_a_thread_that_begins_in_the_midst_of_another_changes_neither():
    before, made, begun, done = torch.get_rng_state(), {}, Event(), Event()

    def midway():
        begun.set()
        done.wait(10)

    other = Thread(target=lambda: made.setdefault(1, two_layers(1, midway)))

    def meanwhile():
        other.start()
        begun.wait(0.2)  # ample for one layer, if nothing holds it back

    made[0] = two_layers(0, meanwhile)
    done.set()
    other.join()
    assert torch.equal(torch.get_rng_state(), before)
    for seed, weights in made.items():
        assert torch.equal(weights, two_layers(seed))


def test_a_network_may_be_made_inside_another():
    inner = []
    alone, around = two_layers(0), two_layers(0, lambda: inner.append(two_layers(1)))
    assert torch.equal(around, alone)
    assert torch.equal(inner[0], two_layers(1))


def test_networks_of_many_threads_are_those_of_one():
    def built(seed):
        return build_network("mlp(width=32, depth=2)", (1, 8, 8), seed=seed).state_dict()

    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(built, range(16)))
    for seed, found in enumerate(together):
        expected = built(seed)
        assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("first", ["A", "B"])
def test_the_default_type_comes_back_when_the_last_thread_is_done(first):
    """Of two threads in the block at once, whichever leaves first."""
    inside, leave, types = {n: Event() for n in "AB"}, {n: Event() for n in "AB"}, []

    def work(name):
        with plain_defaults():
            inside[name].set()
            leave[name].wait(10)
            types.append(torch.ones(1).dtype)

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        threads = {name: Thread(target=work, args=(name,)) for name in "AB"}
        for name, thread in threads.items():
            thread.start()
            inside[name].wait(10)
        for name in (first, *"AB".replace(first, "")):
            leave[name].set()
            threads[name].join()
        assert types == [torch.float32, torch.float32]
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(before)
