"""What the benchmarks time side by side does the same work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from benchmarks import (
    bench_attacks,
    bench_cam,
    bench_conv_stack,
    bench_discrepancy,
    bench_image_gradient,
    bench_integrated_gradients,
    bench_kendall_tau,
    bench_pgd_step,
    bench_train,
    utils,
)
from benchmarks.bench_attacks import Subject
from benchmarks.cases import REAL, MapCase
from benchmarks.train_peers import Setting
from benchmarks.utils import COMPILED, COPY, FUSED, PRODUCTS, REFERENCE, CannotRun, Entries
from fastinterp import PGD, models
from fastinterp.ops.conv_stack import ConvStack
from fastinterp.training.graphs import WARM_UP

OPS = (bench_discrepancy, bench_cam, bench_pgd_step, bench_kendall_tau, bench_conv_stack,
       bench_image_gradient)  # fmt: skip
SCRIPTS = (*OPS, bench_train, bench_attacks, bench_integrated_gradients)
CASE = MapCase(3, 9, 5, 4, 6)


def results_of(entries: Entries, *but: str) -> dict[str, Any]:
    """Of one run of each entry that can run, without the compiler's, which are slow."""
    found = {}
    for name, run in entries.items():
        if name not in (COMPILED, *but):
            try:
                found[name] = run()
            except CannotRun:
                continue
    return found


AGREEING = [
    *(
        partial(bench_discrepancy.build, CASE, wrt, phase)
        for wrt in bench_discrepancy.WRT
        for phase in utils.PHASES
    ),
    *(partial(bench_cam.build, CASE, phase) for phase in utils.PHASES),
    *(partial(bench_pgd_step.build, norm, (3, 1, 6, 5)) for norm in bench_pgd_step.NORMS),
]


@pytest.mark.parametrize("build", AGREEING, ids=lambda b: " ".join(map(str, b.args)))
def test_entries_of_an_op_agree(build: Callable[[str], Entries]) -> None:
    found = results_of(build("cpu"), COPY, PRODUCTS)
    if bench_discrepancy.DIRECT in found:  # value and gradient
        found[bench_discrepancy.DIRECT] = found[bench_discrepancy.DIRECT][1:]
    assert len(found) > 1
    for result in found.values():
        torch.testing.assert_close(result, found[REFERENCE])


@pytest.mark.parametrize("setting", [Setting(batch=3), Setting(batch=2, channels=3, size=13)])
def test_stacks_agree(setting: Setting) -> None:
    found = results_of(bench_conv_stack.build(setting), bench_conv_stack.MULTIPLICATIONS)
    (expected,) = found[REFERENCE]
    for name, (grad,) in found.items():
        # bfloat16 opens and closes some of the ReLUs
        rtol = 0.1 if name == bench_conv_stack.FUSED_BF16 else 1e-4
        assert (grad - expected).norm() <= rtol * expected.norm()


@pytest.mark.parametrize("case", [((2, 1, 9, 9), 5, 4, 2, 1), ((2, 3, 8, 8), 4, 3, 1, 1)])
def test_gradients_of_images_agree(case: tuple[Any, ...]) -> None:
    found = results_of(bench_image_gradient.build(*case), COPY)
    for grad in found.values():
        torch.testing.assert_close(grad, found[bench_image_gradient.TORCH], rtol=1e-4, atol=1e-5)


def test_taus_agree_and_a_wrong_one_is_found() -> None:
    found = results_of(bench_kendall_tau.build(6, 20, "cpu"))
    assert bench_kendall_tau.equal_to_scipy(found)[FUSED]["difference"] <= 1e-5
    with pytest.raises(AssertionError, match="fused"):
        bench_kendall_tau.equal_to_scipy(found | {FUSED: found[FUSED] + 1e-4})


def test_the_copy_moves_the_bytes_it_says() -> None:
    target = utils.copy_entry(8000, "cpu")()
    assert isinstance(target, torch.Tensor)
    assert 2 * target.nbytes == 8000


def test_every_case_has_its_groups_and_no_two_groups_share_a_title() -> None:
    titles = [group.title for script in SCRIPTS for group in script.groups("cpu")]
    assert len(titles) == len(set(titles))
    for case in REAL:
        assert sum(str(case) in title for title in titles) == 3 + 2 + 3


def test_compiled_code_is_compiled_at_the_first_run_or_the_reason_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(function: Any, dynamic: bool) -> None:
        raise RuntimeError("no such backend\nand more")

    monkeypatch.setattr(torch, "compile", refuse)
    run = utils.compiled(lambda: 1, lambda op: op)
    with pytest.raises(CannotRun, match=r"^torch\.compile: RuntimeError: no such backend$"):
        run()
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    assert utils.compiled(lambda: 1, lambda op: op)() == 1


# Training
SETTING = Setting(batch=4, size=12, steps=3, step_size=0.1)


def test_eager_iterations_give_the_trainers_loss() -> None:
    entries = bench_train.build(SETTING)
    for _ in range(2):  # the second iteration sees the weights of the first
        found = results_of(entries)
        for peer in (bench_train.RELEASED, bench_train.ONCE):
            torch.testing.assert_close(found[peer], found[FUSED], rtol=1e-4, atol=1e-5)


def test_the_floor_computes_the_convolutions_of_an_iteration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts: Counter[str] = Counter()
    convolve, stacked = F.conv2d, ConvStack.__call__
    for name, run in bench_train.build(SETTING).items():

        def counted(*arguments: Any, name: str = name) -> torch.Tensor:
            counts[name] += 1
            return convolve(*arguments)

        def counted_stack(self: ConvStack, x: torch.Tensor, name: str = name) -> torch.Tensor:
            counts[name] += len(self.convolutions)
            return stacked(self, x)

        monkeypatch.setattr(F, "conv2d", counted)
        monkeypatch.setattr(ConvStack, "__call__", counted_stack)
        results_of({name: run})
    per_pass, passes = 3, SETTING.steps + 2
    for name in (bench_train.FLOOR, bench_train.CHANNELS_LAST, bench_train.CONTIGUOUS):
        assert counts[name] == passes * per_pass
    assert counts[FUSED] == counts[bench_train.ONCE] == passes * per_pass
    assert counts[bench_train.RELEASED] == (passes + SETTING.steps) * per_pass


def test_a_gpu_builds_the_entries_that_it_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    makers = "trainer_step", "convolutions_alone", "folded_convolutions_alone"
    for name in (*makers, "as_released", "clean_maps_once"):
        monkeypatch.setattr(bench_train, name, lambda *_, **__: utils.unavailable("no GPU here"))
    groups = bench_train.groups("cuda")
    assert all(set(group.build()) == set(group.entries) for group in groups)
    assert set(bench_train.ON_A_GPU) < set(groups[0].entries)


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """It replays from the step on that follows the warm-up and the capture, if `graphs`."""
    made = SimpleNamespace(steps=0, graph_replays=0, graphs=True)

    def training_step(x: None, y: None) -> SimpleNamespace:
        made.steps += 1
        made.graph_replays = max(0, made.steps - WARM_UP) if made.graphs else 0
        return SimpleNamespace(loss=1.5)

    made.training_step = training_step
    monkeypatch.setattr(Setting, "model", lambda self: None)
    monkeypatch.setattr(Setting, "images", lambda self: (None, None))
    return made


def test_a_step_on_a_gpu_is_timed_once_it_is_a_graph_if_it_is_to_be_one(
    trainer: SimpleNamespace,
) -> None:
    def step(device: str = "cuda", **options: Any) -> utils.Thunk:
        return bench_train.trainer_step(lambda *_, **__: trainer, Setting(device=device), **options)

    assert step("cpu")() == 1.5 and trainer.steps == 1
    trainer.steps = 0
    run = step()
    assert trainer.steps == WARM_UP + 2
    assert run() == 1.5
    with pytest.raises(AssertionError, match="there must be none"):
        step(cuda_graphs=False)
    trainer.graphs = False
    with pytest.raises(AssertionError, match="there must be some"):
        step()
    step(cuda_graphs=False)


# Attacks
@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Subject:
    made = Subject(models.small(seed=1).eval(), torch.rand(6, 1, 28, 28), torch.arange(6))
    made = replace(made, labels=made.model(made.images).argmax(dim=1))
    for script in (bench_attacks, bench_integrated_gradients):
        monkeypatch.setattr(script, "subject", lambda device: made)
    monkeypatch.setattr(bench_attacks, "STEPS", 4)
    return made


def test_attacks_give_the_same_images_and_verdicts(tiny: Subject) -> None:
    found = results_of(bench_attacks.build_pgd("cpu"))
    facts = bench_attacks.equal_verdicts(found)
    for name in {bench_attacks.OURS, *bench_attacks.PEERS} & set(found):
        assert facts[name]["equal_verdicts"] == 1
        torch.testing.assert_close(found[name], found[bench_attacks.OURS], rtol=0, atol=1e-6)


def test_another_verdict_is_found(tiny: Subject) -> None:
    fooling = PGD(tiny.model, eps=1.0, step_size=0.2, steps=10)(tiny.images, tiny.labels)
    assert not bench_attacks.correct(tiny.model, fooling, tiny.labels).any()
    found = {bench_attacks.OURS: fooling, bench_attacks.LEAVING: fooling}
    bench_attacks.equal_verdicts(found)
    with pytest.raises(AssertionError, match="foolbox"):
        bench_attacks.equal_verdicts(found | {"foolbox": tiny.images})
    with pytest.raises(AssertionError, match="early"):
        bench_attacks.equal_verdicts(found | {bench_attacks.LEAVING: tiny.images})


def test_another_accuracy_is_found() -> None:
    found = {name: [0.5, 0.25] for name in (bench_attacks.PAPER, bench_attacks.BEST)}
    bench_attacks.ordered_accuracies(found)
    with pytest.raises(AssertionError, match="ART"):
        bench_attacks.ordered_accuracies(found | {"ART": [0.5, 0.2]})
    with pytest.raises(AssertionError):
        bench_attacks.ordered_accuracies(found | {bench_attacks.BEST: [0.5, 0.3]})


def test_a_missing_library_is_named_and_costs_no_other_entry() -> None:
    def make() -> utils.Thunk:
        raise ImportError("No module named 'foolbox'")

    with pytest.raises(CannotRun, match=r"foolbox.*'bench'"):
        bench_attacks.attempt(make)()


def test_maps_of_integrated_gradients_agree(tiny: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    script = bench_integrated_gradients
    monkeypatch.setattr(script, "IMAGES", 3)
    monkeypatch.setattr(script, "peak_megabytes", lambda name, device: 1.0)
    found = results_of(script.build("cpu"))
    facts = script.agreement_and_memory(found)
    assert facts[script.OURS]["difference"] == 0
    monkeypatch.setitem(script.EXPLAIN, script.CAPTUM, lambda s, n: s.images[:n])
    if script.CAPTUM in found:
        with pytest.raises(AssertionError, match="captum"):
            script.agreement_and_memory(found)


def test_memory_of_a_process_is_its_own() -> None:
    ballast = torch.ones(400 * 2**18)  # 400 MB that a child process must not be charged with
    found = bench_integrated_gradients.peak_megabytes(bench_integrated_gradients.OURS)
    assert len(ballast)
    assert 0 < found < 400
