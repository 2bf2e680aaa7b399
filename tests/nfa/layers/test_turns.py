"""Several threads measure at once: the numbers are those of one alone, and all is as before."""

import os
import threading

import pytest
import torch
from torch import nn

import nfa
from tests.nfa.sweep.test_untouched import equal, snapshot

PRECISION = "high"


@pytest.fixture(autouse=True)
def settings():
    torch.set_float32_matmul_precision(PRECISION)
    yield
    torch.set_float32_matmul_precision("highest")


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(),
        nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 5),
    ).train()  # fmt: skip


def loader(seed=1):
    """Shuffles by the random state of the process, which all threads share."""
    x = torch.randn(24, 6, generator=torch.Generator().manual_seed(seed))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=7, shuffle=True)


def at_once(*tasks):
    """Run functions in threads that start together; their results, or what they raised."""
    results, barrier = [None] * len(tasks), threading.Barrier(len(tasks))

    def work(index, task):
        barrier.wait()
        try:
            results[index] = task()
        except BaseException as error:
            results[index] = error

    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in enumerate(tasks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def numbers(net):
    report = nfa.audit(net, loader(), nulls=2)
    return [(row.layer, row.cosine, row.alignment, row.stderr) for row in report.rows if row.measured]


def test_two_audits_of_one_network():
    net = network()
    torch.manual_seed(5)
    expected, before = numbers(net), snapshot(net)
    for _ in range(5):
        assert at_once(*[lambda: numbers(net)] * 3) == [expected] * 3
        assert equal(snapshot(net), before)


def test_two_networks_that_share_a_module():
    net = network()
    other = nn.Sequential(net[0], net[1], nn.Tanh(), nn.Linear(8, 3)).train()
    torch.manual_seed(5)
    expected, before = [numbers(net), numbers(other)], (snapshot(net), snapshot(other))
    for _ in range(5):
        assert at_once(lambda: numbers(net), lambda: numbers(other)) == expected
        assert equal([snapshot(net), snapshot(other)], list(before))


def test_different_networks_and_functions():
    nets = [network(seed) for seed in range(3)]
    torch.manual_seed(5)
    tasks = [
        lambda: numbers(nets[0]),
        lambda: nfa.agop(nets[1], loader())["0"].tolist(),
        lambda: nfa.input_agop(nets[2], loader()).tolist(),
        lambda: nfa.neural_feature_matrix(nets[0][3]).tolist(),
    ]
    expected, before = [task() for task in tasks], [snapshot(net) for net in nets]
    for _ in range(5):
        assert at_once(*tasks) == expected
        assert equal([snapshot(net) for net in nets], before)
    assert torch.get_float32_matmul_precision() == PRECISION


def test_one_that_fails_lets_the_others_on():
    net, broken = network(), nn.Sequential(nn.Linear(6, 3), nn.Linear(4, 3))
    torch.manual_seed(5)
    expected = numbers(net)
    failed, *others = at_once(lambda: numbers(broken), *[lambda: numbers(net)] * 2)
    assert isinstance(failed, Exception)
    assert others == [expected] * 2


def test_an_audit_in_a_forward_hook_of_an_audit_is_refused():
    net = network()
    handle = net[0].register_forward_hook(lambda *_: nfa.agop(net, loader()) and None)
    before = snapshot(net)
    with pytest.raises(nfa.NfaError, match="inside the forward pass of a network that is being measured"):
        nfa.audit(net, loader())
    assert equal(snapshot(net), before)
    handle.remove()
    assert numbers(net)


def test_an_audit_of_another_network_in_a_forward_hook():
    net, other = network(), network(1)
    torch.manual_seed(5)
    expected, within = numbers(net), []
    x = torch.randn(24, 6)
    alone = nfa.agop(other, x)["0"]
    net[0].register_forward_hook(lambda *_: within.append(nfa.agop(other, x)["0"]))
    torch.manual_seed(5)
    assert numbers(net) == expected
    assert within
    assert all(torch.equal(found, alone) for found in within)


def test_batches_that_are_measured_on_the_way():
    """A generator of batches may itself measure the network."""
    net = network()
    x = torch.randn(12, 6)

    def batches():
        for part in x.split(4):
            nfa.agop(net, part)
            yield part

    assert [row.cosine for row in nfa.audit(net, batches()).rows] == pytest.approx(
        [row.cosine for row in nfa.audit(net, x.split(4)).rows], nan_ok=True
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_a_thread_that_it_lacks():
    from nfa.layers.turns import turn

    held, done = threading.Event(), threading.Event()

    def hold():
        with turn():
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        with turn():
            os._exit(7)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    finally:
        done.set()
        thread.join()
