"""The sweep: against a plain loop written here, and the promises of the protocols."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastinterp._utils.errors import InputError
from fastinterp.attacks import PGD, AutoAttack
from fastinterp.evaluation import PROTOCOLS, accuracy_table, sweep
from fastinterp.evaluation.ensembles import Budget
from fastinterp.evaluation.protocols import Protocol


def plain_pgd_accuracy(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, step_size: float = 0.01
) -> float:
    """The paper's protocol, one image at a time."""
    right = 0
    for one, label in zip(x.split(1), y.split(1), strict=True):
        z = one.clone()
        for _ in range(steps):
            z.requires_grad_()
            (grad,) = torch.autograd.grad(F.cross_entropy(model(z), label), z)
            z = z.detach() + step_size * grad.sign()
            z = torch.max(torch.min(z, one + eps), one - eps).clamp(0, 1)
        right += int(model(z).argmax()) == int(label)
    return right / len(x)


def accuracies(rows: list) -> list[float]:
    return [row["accuracy"] for row in rows]


def test_paper_protocol_is_the_plain_loop(make_problem) -> None:
    model, x, y = make_problem()
    rows = sweep(model, x, y, eps=[0.02, 0.0, 0.05], steps=[3, 12], batch_size=10)
    expected = [
        {"eps": e, "steps": s, "accuracy": plain_pgd_accuracy(model, x, y, e, s), "n": 37}
        | ({"short_of_eps": True} if 0.01 * s < e else {})
        for s in (3, 12)
        for e in (0.02, 0.0, 0.05)
    ]
    assert rows == expected
    assert len({row["accuracy"] for row in rows}) > 2


@pytest.mark.parametrize("protocol", ["paper", "best"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_batches_do_not_change_verdicts(make_problem, protocol: str, norm: str) -> None:
    model, x, y = make_problem(24)
    eps = {"linf": [0.03], "l2": [0.2], "l1": [1.0]}[norm]
    by_size = [
        sweep(model, x, y, eps=eps, steps=[6], protocol=protocol, norm=norm, batch_size=size)
        for size in (1, 7, 24)
    ]
    assert by_size[0] == by_size[1] == by_size[2]
    clean = sweep(model, x, y, eps=[0], steps=[6])
    assert 0 < by_size[0][0]["accuracy"] < clean[0]["accuracy"]


def test_best_sees_more_than_paper(make_problem) -> None:
    model, x, y = make_problem(60)
    settings = {"eps": [0, 0.01, 0.02, 0.03, 0.05], "steps": [10]}
    paper = accuracies(sweep(model, x, y, **settings))
    best = accuracies(sweep(model, x, y, protocol="best", **settings))
    assert all(b <= p for b, p in zip(best, paper, strict=True))
    assert sum(best) < sum(paper)


@pytest.mark.parametrize("paper", [False, True])
def test_fooled_images_are_carried_upward(
    make_problem, paper: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attack that forgets to move beyond eps 0.1 shows who was carried there."""

    def attacks(model, budget: Budget, classes: int):
        eps = budget.eps if budget.eps < 0.1 else 0.0
        return {"pgd": PGD(model, eps, eps / 4, budget.steps)}

    protocol = Protocol("best", attacks, steps=8, about="", paper=paper)
    monkeypatch.setitem(PROTOCOLS, "best", protocol)
    model, x, y = make_problem()
    rows = sweep(model, x, y, eps=[0.2, 0.05, 0.0], protocol="best")
    large, small, clean = accuracies(rows)
    assert [row["eps"] for row in rows] == [0.2, 0.05, 0.0]
    assert small < clean
    assert large == (clean if paper else small)


def test_an_ensemble_shows_what_each_attack_leaves(make_problem) -> None:
    model, x, y = make_problem()
    clean, row = sweep(model, x, y, eps=[0, 0.03], steps=[10], protocol="best")
    after = list(row["by_attack"].values())
    assert sorted(after, reverse=True) == after
    assert after[-1] == row["accuracy"] < after[0] + 1e-9 <= clean["accuracy"] + 1e-9
    assert "by_attack" not in clean
    header, body = accuracy_table([clean, row])
    assert header == ["eps", "steps", *row["by_attack"], "accuracy"]
    assert body[1][-2] == body[1][-1] == f"{row['accuracy']:.3f}"


def test_verdicts_do_not_depend_on_batches_or_their_order(make_problem) -> None:
    model, x, y = make_problem(40)
    settings = {"eps": [0.02], "steps": [8], "protocol": "best"}
    whole = sweep(model, x, y, batch_size=40, **settings)
    assert sweep(model, x.flip(0), y.flip(0), batch_size=7, **settings) == whole


def test_a_stopped_measurement_goes_on(
    make_problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, y = make_problem(30)
    settings = {"eps": [0, 0.01, 0.03], "steps": [6], "protocol": "best", "batch_size": 10}
    expected = sweep(model, x, y, **settings)
    calls, state = [], tmp_path / "verdicts.part"
    whole = PROTOCOLS["best"]

    def attacks(model, budget, classes):
        def counted(attack):
            def run(x, y):
                calls.append(len(x))
                if len(calls) == stop:
                    raise KeyboardInterrupt
                return attack(x, y)

            return run

        return {name: counted(a) for name, a in whole.attacks(model, budget, classes).items()}

    monkeypatch.setitem(PROTOCOLS, "best", replace(whole, attacks=attacks))
    stop = 0
    sweep(model, x, y, **settings)
    all_calls, stop = len(calls), len(calls) // 2
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        sweep(model, x, y, state=state, **settings)
    assert state.is_file()
    stop = 0
    calls.clear()
    assert sweep(model, x, y, state=state, **settings) == expected
    assert len(calls) == all_calls - all_calls // 2 + 1
    assert not state.exists()


def test_saved_verdicts_of_another_measurement_are_not_taken(make_problem, tmp_path: Path) -> None:
    model, x, y = make_problem(10)
    state = tmp_path / "verdicts.part"
    other = {"measurement": "?", f"{(0.02, 4)} 0": {"done": 4, "by": [0] * 10}}
    state.write_text(json.dumps(other), encoding="utf-8")
    settings = {"eps": [0.02], "steps": [4], "protocol": "best"}
    assert sweep(model, x, y, state=state, **settings) == sweep(model, x, y, **settings)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"protocol": "best", "step_size": 0.1}, "chooses its own"),
     ({"protocol": "autoattack", "steps": [10]}, "always takes 100 steps")],
)  # fmt: skip
def test_settings_that_a_protocol_chooses_are_refused(make_problem, change, words) -> None:
    model, x, y = make_problem(4)
    with pytest.raises(InputError, match=words):
        sweep(model, x, y, eps=[0.1], **change)


def test_autoattack_is_the_protocol_of_that_name(make_problem) -> None:
    model, x, y = make_problem(20)
    (row,) = sweep(model, x, y, eps=[0.02], protocol="autoattack", seed=3)
    x_adv = AutoAttack(model, 0.02, seed=3)(x, y)
    with torch.no_grad():
        left = (model(x_adv).argmax(1) == y).float().mean()
    assert row["accuracy"] == pytest.approx(float(left))
    assert row["steps"] == 100
    assert (x_adv - x).abs().max() <= 0.02 + 1e-6


def test_best_falls_with_eps_and_with_steps(make_problem) -> None:
    model, x, y = make_problem()
    rows = sweep(model, x, y, eps=[0.0, 0.02, 0.05], steps=[1, 8], protocol="best")
    table = {(row["eps"], row["steps"]): row["accuracy"] for row in rows}
    for steps in (1, 8):
        assert table[0.0, steps] >= table[0.02, steps] >= table[0.05, steps]
    assert table[0.02, 8] <= table[0.02, 1]


def test_the_model_is_left_as_it_was_and_used_in_eval_mode(make_problem) -> None:
    model, x, y = make_problem()
    expected = sweep(model, x, y, eps=[0.02], steps=[3])
    model.train()
    model.first.eval()
    assert sweep(model, x, y, eps=[0.02], steps=[3]) == expected  # dropout is off
    assert model.training
    assert model.dropout.training
    assert not model.first.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_random_starts_come_from_the_seed(make_problem) -> None:
    model, x, y = make_problem()
    settings = {"eps": [0.02], "steps": [2], "protocol": "best"}
    torch.manual_seed(1)
    first = sweep(model, x, y, seed=3, **settings)
    torch.manual_seed(2)
    assert sweep(model, x, y, seed=3, **settings) == first


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol": "worst"}, "protocol must"),
        ({"norm": "l3"}, "linf"),
        ({"eps": []}, "at least one"),
        ({"eps": [-0.1]}, "eps"),
        ({"eps": [float("nan")]}, "eps"),
        ({"eps": "0.1"}, "eps must be a number or a list of numbers, got '0.1'"),
        ({"eps": None}, "eps must be a number or a list"),
        ({"steps": [-1]}, "steps"),
        ({"steps": [1.5]}, "steps must be a whole number"),
        ({"step_size": 0.0}, "step_size must"),
        ({"step_size": "a"}, "step_size must be a number"),
        ({"batch_size": 1.5}, "batch_size must be a whole number"),
        ({"batch_size": 0}, "batch_size"),
        ({"steps": "10"}, "steps must be a number or a list"),
        ({"images": torch.zeros(37, 8, 8)}, r"\[N, C, H, W\]"),
        ({"images": torch.zeros(37, 1, 8, 8).double()}, "same dtype"),
        ({"images": torch.full((37, 1, 8, 8), 2.0)}, "pixels"),
        ({"images": torch.zeros(37, 1, 8, 8, dtype=torch.uint8)}, "floating"),
        ({"labels": torch.full((37,), 3)}, "0..2"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, "shape"),
        ({"images": torch.zeros(0, 1, 8, 8), "labels": torch.zeros(0, dtype=torch.int64)}, "no im"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(make_problem, change: dict, words: str) -> None:
    model, x, y = make_problem()
    settings = {"images": x, "labels": y, "eps": [0.1], "steps": [1], **change}
    with pytest.raises(InputError, match=words) as caught:
        sweep(model, **settings)
    assert "\n" not in str(caught.value)


def test_one_eps_and_one_number_of_steps_need_no_list(make_problem) -> None:
    model, x, y = make_problem()
    assert sweep(model, x, y, eps=0.1, steps=1) == sweep(model, x, y, eps=[0.1], steps=[1])


def test_a_network_of_another_kind_is_told_what_to_do(make_problem) -> None:
    _, x, y = make_problem()
    with pytest.raises(InputError, match=r"torch.nn.Module or a function"):
        sweep(3, x, y, eps=0.1)


def test_a_network_that_gives_nan_has_no_accuracy(make_problem) -> None:
    model, x, y = make_problem()
    with torch.no_grad():
        model.linear.bias.fill_(float("nan"))
    with pytest.raises(InputError, match="finite"):
        sweep(model, x, y, eps=[0], steps=[1])
