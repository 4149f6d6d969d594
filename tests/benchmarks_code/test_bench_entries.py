"""What the benchmarks time side by side does the same work."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from benchmarks import (
    attack_groups,
    compiled,
    conv_groups,
    ig_groups,
    kendall_groups,
    op_groups,
    train_groups,
)
from benchmarks import attack_peers as peers
from benchmarks.cases import MapCase
from benchmarks.compiled import COMPILED
from benchmarks.group import CannotRun, Skipped
from benchmarks.subject import Subject
from benchmarks.train_peers import Setting
from fastinterp import PGD, models
from fastinterp.ops.conv_stack import ConvStack
from fastinterp.training.graphs import WARM_UP

CASE = MapCase(3, 9, 5, 4, 6)


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (op_groups, conv_groups, kendall_groups):
        monkeypatch.setattr(room, "compiled_entry", lambda *_: Skipped("slow"))


def results_of(entries: dict[str, Any]) -> dict[str, Any]:
    return {name: run() for name, run in entries.items() if not isinstance(run, Skipped)}


@pytest.mark.parametrize("phase", op_groups.PHASES)
@pytest.mark.parametrize("wanted", op_groups.WANTED)
def test_discrepancies_agree(wanted: str, phase: op_groups.Phase) -> None:
    found = results_of(op_groups._discrepancy(CASE, wanted, phase, "cpu"))
    torch.testing.assert_close(found["fused"], found["reference"])
    if phase != "forward":
        assert len(found["fused"]) == len(op_groups.WANTED[wanted])


@pytest.mark.parametrize("phase", op_groups.PHASES)
def test_maps_agree(phase: op_groups.Phase) -> None:
    found = results_of(op_groups._cam(CASE, phase, "cpu"))
    torch.testing.assert_close(found["fused"], found["reference"])


@pytest.mark.parametrize("setting", [Setting(batch=3), Setting(batch=2, channels=3, size=13)])
def test_stacks_agree(setting: Setting) -> None:
    entries = conv_groups._stack(setting)
    entries.pop(conv_groups.MULTIPLICATIONS)
    found = results_of(entries)
    for name, (by_x,) in found.items():
        rtol = 0.1 if name == conv_groups.FUSED_BF16 else 1e-4  # where ReLUs open or close, more
        expected = found["reference"][0]
        assert (by_x - expected).norm() <= rtol * expected.norm()


@pytest.mark.parametrize("case", [((2, 1, 9, 9), 5, 4, 2, 1), ((2, 3, 8, 8), 4, 3, 1, 1)])
def test_gradients_of_images_agree(case: tuple[Any, ...]) -> None:
    entries = conv_groups._gradient(*case)
    entries.pop(conv_groups.COPY)
    found = results_of(entries)
    for by_x in found.values():
        torch.testing.assert_close(by_x, found[conv_groups.TORCH], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", op_groups.NORMS)
def test_steps_agree(norm: op_groups.Norm) -> None:
    found = results_of(op_groups._step(norm, (3, 1, 6, 5), "cpu"))
    torch.testing.assert_close(found["fused"], found["reference"])
    torch.testing.assert_close(found["fused in place"], found["reference"])


def test_the_copy_moves_the_bytes_it_says() -> None:
    target = op_groups.copy_entry(8000, "cpu")()
    assert isinstance(target, torch.Tensor)
    assert 2 * target.nbytes == 8000


def test_every_case_has_its_groups_and_no_two_share_a_title() -> None:
    rooms = (op_groups, conv_groups, kendall_groups, train_groups, attack_groups)
    titles = [group.title for room in rooms for group in room.all_groups("cpu")]
    assert len(titles) == len(set(titles))
    for case in op_groups.REAL:
        assert sum(str(case) in title for title in titles) == 3 + 2 + 3


def test_taus_agree_and_a_wrong_one_is_found() -> None:
    found = results_of(kendall_groups._build(6, 20, "cpu"))
    facts = kendall_groups.equal_to_scipy(found)
    assert facts["fused"]["difference"] <= 1e-5
    found["fused"] = found["fused"] + 1e-4
    with pytest.raises(AssertionError, match="fused"):
        kendall_groups.equal_to_scipy(found)


SETTING = Setting(batch=4, size=12, steps=3, step_size=0.1)


def test_eager_iterations_lose_what_the_trainer_loses() -> None:
    entries = train_groups._int_entries(SETTING)
    for _ in range(2):  # the second iteration sees the weights that the first one left
        found = results_of(entries)
        for peer in (train_groups.RELEASE, train_groups.KEPT):
            torch.testing.assert_close(found[peer], found["fused"], rtol=1e-4, atol=1e-5)


def test_the_floor_makes_the_convolutions_of_an_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Counter[str] = Counter()
    entries = train_groups._int_entries(SETTING)
    convolve, stacked = F.conv2d, ConvStack.__call__

    runs = {name: run for name, run in entries.items() if not isinstance(run, Skipped)}
    for name, run in runs.items():

        def counted(*arguments: Any, name: str = name) -> torch.Tensor:
            counts[name] += 1
            return convolve(*arguments)

        def counted_stack(self: ConvStack, x: torch.Tensor, name: str = name) -> torch.Tensor:
            counts[name] += len(self.convolutions)
            return stacked(self, x)

        monkeypatch.setattr(F, "conv2d", counted)
        monkeypatch.setattr(ConvStack, "__call__", counted_stack)
        run()
    per_pass = 3
    assert counts[train_groups.FLOOR] == counts["fused"] == counts[train_groups.KEPT]
    assert counts[train_groups.CHANNELS_LAST] == counts[train_groups.CONTIGUOUS] == counts["fused"]
    assert counts["fused"] == (SETTING.steps + 2) * per_pass
    assert counts[train_groups.RELEASE] == (2 * SETTING.steps + 2) * per_pass


def test_a_gpu_builds_the_entries_that_it_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    makers = "trainer_step", "convolutions_alone", "folded_convolutions_alone"
    for name in (*makers, "release_structure", "clean_kept"):
        monkeypatch.setattr(train_groups, name, lambda *_, **__: Skipped("no GPU here"))
    for group in train_groups.all_groups("cuda"):
        assert set(group.build()) == set(group.entries)
    entries = train_groups.all_groups("cuda")[0].entries
    assert {train_groups.UNGRAPHED, train_groups.RELEASE, train_groups.RELEASE_TF32} < set(entries)


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Replays from the step on that comes after the warm-up and the capture, if it may."""
    made = SimpleNamespace(steps=0, graph_replays=0, graphs=True)

    def training_step(x: None, y: None) -> SimpleNamespace:
        made.steps += 1
        made.graph_replays = max(0, made.steps - WARM_UP) if made.graphs else 0
        return SimpleNamespace(loss=1.5)

    made.training_step = training_step
    monkeypatch.setattr(Setting, "model", lambda self: None)
    monkeypatch.setattr(Setting, "images", lambda self: (None, None))
    return made


@pytest.mark.parametrize(("device", "before"), [("cpu", 0), ("cuda", WARM_UP + 2)])
def test_a_step_is_timed_once_it_is_a_graph(
    trainer: SimpleNamespace, device: str, before: int
) -> None:
    run = train_groups.trainer_step(lambda *_, **__: trainer, Setting(device=device))
    assert trainer.steps == before
    assert run() == 1.5


def test_an_entry_that_claims_a_graph_has_one(trainer: SimpleNamespace) -> None:
    step = partial(train_groups.trainer_step, lambda *_, **__: trainer, Setting(device="cuda"))
    with pytest.raises(AssertionError, match="there must be none"):
        step(cuda_graphs=False)
    trainer.graphs = False
    with pytest.raises(AssertionError, match="there must be some"):
        step()
    step(cuda_graphs=False)


def test_torch_compile_stands_in_groups_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = list(op_groups.cam_groups("cuda"))
    assert all(COMPILED not in g.entries for g in compiled.without_compiler(groups))
    beside = compiled.beside_compiler(groups)
    assert beside[0].entries == ("reference", COMPILED, "fused")
    assert not {g.title for g in beside} & {g.title for g in groups}


def test_a_compiler_runs_when_its_entry_does_and_what_it_refuses_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(function: Any, dynamic: bool) -> None:
        raise RuntimeError("no such backend\nand more")

    monkeypatch.setattr(torch, "compile", refuse)
    run = compiled.compiled_entry(lambda: 1, lambda op: op)
    with pytest.raises(CannotRun, match=r"^torch\.compile: RuntimeError: no such backend$"):
        run()
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    assert compiled.compiled_entry(lambda: 1, lambda op: op)() == 1


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Subject:
    made = Subject("tiny", models.small(seed=1).eval(), torch.rand(6, 1, 28, 28), torch.arange(6))
    made = replace(made, labels=made.model(made.images).argmax(dim=1))
    for room in (attack_groups, ig_groups):
        monkeypatch.setattr(room, "subject", lambda device: made)
    monkeypatch.setattr(attack_groups, "STEPS", 4)
    return made


def test_attacks_give_one_verdict_and_another_is_found(tiny: Subject) -> None:
    found = results_of(attack_groups._pgd_entries())
    facts = attack_groups.equal_verdicts(found)
    assert all(facts[name]["equal_verdicts"] == 1 for name in facts if "leave" not in name)
    for name in attack_groups.PEERS:
        if name in found:
            torch.testing.assert_close(found[name], found["fastinterp"], rtol=0, atol=1e-6)


def test_another_verdict_is_found(tiny: Subject) -> None:
    fooling = PGD(tiny.model, eps=1.0, step_size=0.2, steps=10)(tiny.images, tiny.labels)
    assert not peers.verdicts(tiny.model, fooling, tiny.labels).any()
    found = {attack_groups.OURS: fooling, attack_groups.LEAVING: fooling}
    attack_groups.equal_verdicts(found)
    with pytest.raises(AssertionError, match="foolbox"):
        attack_groups.equal_verdicts(found | {attack_groups.FOOLBOX: tiny.images})
    with pytest.raises(AssertionError, match="leaving early"):
        attack_groups.equal_verdicts(found | {attack_groups.LEAVING: tiny.images})


def test_another_accuracy_is_found() -> None:
    found = {name: [0.5, 0.25] for name in (attack_groups.PAPER, attack_groups.BEST)}
    attack_groups.ordered_accuracies(found)
    with pytest.raises(AssertionError, match="ART"):
        attack_groups.ordered_accuracies(found | {attack_groups.ART: [0.5, 0.2]})
    with pytest.raises(AssertionError):
        attack_groups.ordered_accuracies(found | {attack_groups.BEST: [0.5, 0.3]})


def test_maps_of_integrated_gradients_agree(tiny: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ig_groups, "IMAGES", 3)
    monkeypatch.setattr(ig_groups, "peak_megabytes", lambda name, device: 1.0)
    found = results_of(ig_groups._build())
    facts = ig_groups.agreement_and_memory(found)
    assert facts[ig_groups.OURS]["difference"] == 0
    monkeypatch.setitem(ig_groups.EXPLAIN, ig_groups.CAPTUM, lambda s, n: s.images[:n])
    if ig_groups.CAPTUM in found:
        with pytest.raises(AssertionError, match="captum"):
            ig_groups.agreement_and_memory(found)


def test_memory_of_a_process_is_its_own() -> None:
    ballast = torch.ones(400 * 2**18)  # 400 MB that a child process must not be charged with
    found = ig_groups.peak_megabytes(ig_groups.OURS)
    assert len(ballast)
    assert found > 0
