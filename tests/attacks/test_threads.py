"""Threads that share one network: each call gives what it gives alone, or says why it cannot."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from fastinterp import PGD, InputError, IntLoss, models
from fastinterp.attacks.modes import eval_mode, own_modes

X = torch.rand((8, 1, 28, 28), generator=torch.Generator().manual_seed(0))
Y = torch.arange(8)


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    interval, threads = sys.getswitchinterval(), torch.get_num_threads()
    sys.setswitchinterval(1e-5)
    torch.set_num_threads(1)
    yield
    sys.setswitchinterval(interval)
    torch.set_num_threads(threads)


def with_modes() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(784, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.5)
    return nn.Sequential(*layers, nn.Linear(32, 10)).train()


def int_loss(model: nn.Module) -> list[Tensor]:
    loss = IntLoss(eps=0.1, steps=5, step_size=0.05, seed=1)(model, X, Y)
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def pgd(model: nn.Module) -> list[Tensor]:
    return [PGD(model, 0.1, 0.02, 6)(X, Y)]


def state(model: nn.Module) -> list[bool]:
    return [m.training for m in model.modules()] + [p.requires_grad for p in model.parameters()]


@pytest.mark.parametrize(
    ("make", "job"),
    [
        (lambda: models.small(1, 10, seed=0).train(), int_loss),
        (lambda: models.small(1, 10, seed=0).train(), pgd),
        (with_modes, pgd),
        (lambda: with_modes().eval(), pgd),
    ],
)
def test_each_call_gives_what_it_gives_alone(
    make: Callable[[], nn.Module], job: Callable[[nn.Module], list[Tensor]]
) -> None:
    model = make()
    expected, before = job(copy.deepcopy(model)), state(model)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(job, [model] * 40):
            torch.testing.assert_close(found, expected)
    assert state(model) == before


def test_backward_passes_lose_no_gradient() -> None:
    model = models.small(1, 10, seed=0)
    loss = IntLoss(eps=0.1, steps=3, step_size=0.05, seed=1)

    def backward(_: object) -> None:
        loss_of_call = copy.deepcopy(loss)
        loss_of_call(model, X, Y).backward()

    backward(None)
    alone = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(backward, range(24)))
    for parameter, grad in zip(model.parameters(), alone, strict=True):
        torch.testing.assert_close(parameter.grad / 24, grad, rtol=1e-4, atol=1e-6)


def test_the_steps_of_an_attack_leave_gradients_of_weights_out(monkeypatch) -> None:
    """Also where a backward pass in Python would not see that nobody asks for them."""
    asked = []
    original = torch.ops.aten.convolution_backward

    def watched(*arguments: object) -> object:
        asked.append(arguments[-1])
        return original(*arguments)

    monkeypatch.setattr(torch.ops.aten, "convolution_backward", watched)
    model = models.wresnet(3, 4, seed=0)
    PGD(model, 0.1, 0.05, 2)(torch.rand(1, 3, 32, 32), torch.tensor([1]))
    assert asked == []


def elsewhere(function: Callable[[], object]) -> object:
    """What a function gives in another thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_training_a_network_that_depends_on_its_mode_is_refused_while_another_thread_uses_it() -> (
    None
):
    model = models.wrap(with_norm())
    x, y = X, Y
    loss = IntLoss(eps=0.1, steps=1, step_size=0.1, seed=1)
    with own_modes(model), pytest.raises(InputError, match="thread") as caught:
        elsewhere(lambda: PGD(model, 0.1, 0.1, 1)(x, y))
    assert "\n" not in str(caught.value)
    with eval_mode(model), pytest.raises(InputError, match="thread"):
        elsewhere(lambda: loss(model, x, y))
    assert all(module.training for module in model.modules())
    elsewhere(lambda: (loss(model, x, y), PGD(model, 0.1, 0.1, 1)(x, y)))
    with own_modes(model):  # the same thread may
        PGD(model, 0.1, 0.1, 1)(x, y)
    model.eval()
    with eval_mode(model):  # nor does it matter to a network in eval mode
        elsewhere(lambda: loss(model, x, y))


def with_norm() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU()
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10)
    return nn.Sequential(*layers, *pooled).train()


def test_the_last_thread_to_leave_restores_the_modes() -> None:
    model = with_modes()
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with eval_mode(model):
            entered.set()
            leave.wait(10)

    with eval_mode(model):
        thread = threading.Thread(target=stay)
        thread.start()
        assert entered.wait(10)
    assert not any(module.training for module in model.modules())
    leave.set()
    thread.join()
    assert all(module.training for module in model.modules())
