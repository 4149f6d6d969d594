"""The command line, as a user meets it: what it prints, writes and returns."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastinterp import __version__, models, training
from fastinterp.cli import commands, main
from fastinterp.interpreters.registry import CLASS_WISE


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    models.save(models.small(seed=0), path)
    return path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The sentence that refuses these words; checks that it is one, and the exit code."""
    code, _, err = run(capsys, *words)
    assert code == 2
    assert err.startswith("fastinterp: error: ")
    assert err.count("\n") == 1
    return err


def test_python_dash_m_prints_the_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastinterp", "--version"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, f"fastinterp {__version__}\n")


COMMANDS = ("demo", "train", "eval", "explain", "audit", "reproduce", "doctor")


def test_help_shows_every_command_and_an_example_of_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = run(capsys)
    assert code == 0
    for name in COMMANDS:
        assert f"\n    {name}" in out
        with pytest.raises(SystemExit) as done:
            main([name, "--help"])
        assert done.value.code == 0
        assert f"example:\n  fastinterp {name}" in capsys.readouterr().out


def test_eval_prints_a_table_and_writes_json(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "rows.json"
    code, text, _ = run(
        capsys, "eval", network, "--dataset", "digits", "--attack", "pgd", "--eps", "0", "8/255",
        "--steps", 1, 2, "--n", 30, "--batch-size", 7, "--protocol", "best", "--out", out,
    )  # fmt: skip
    assert code == 0
    assert "8/255" in text
    assert "apgd-margin" in text
    written = json.loads(out.read_text())
    assert written["model"] == str(network)
    assert written["protocol"] == "best"
    assert (written["dataset"], written["attack"], written["step_size"]) == ("digits", "pgd", None)
    cells = [(row["eps"], row["steps"], row["n"]) for row in written["rows"]]
    assert cells == [(0.0, 1, 30), (8 / 255, 1, 30), (0.0, 2, 30), (8 / 255, 2, 30)]
    assert all(0 <= row["accuracy"] <= 1 for row in written["rows"])


def test_eval_measures_the_papers_selection(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fastinterp import data
    from fastinterp.evaluation import paper_selection

    out = tmp_path / "rows.json"
    run(capsys, "eval", network, "--dataset", "digits", "--eps", 0, "--out", out)
    (row,) = json.loads(out.read_text())["rows"]
    test, model = data.load("digits"), models.load(network)
    picked = paper_selection(len(test))[0]
    right = model(test.float(picked)).argmax(dim=1) == test.labels[picked]
    assert row == {"eps": 0.0, "steps": 200, "accuracy": int(right.sum()) / 200, "n": 200}
    run(capsys, "eval", network, "--dataset", "digits", "--eps", 0, "--n", "all", "--out", out)
    assert json.loads(out.read_text())["rows"][0]["n"] == len(test) == 360


@pytest.mark.parametrize(
    "more",
    [
        "--n 1",
        "--indices 3 --target random",
        "--indices 3 --target 7",
        *(f"--n 1 --interpreter {name}" for name in CLASS_WISE if name != "cam"),
    ],
)
def test_explain_draws(
    more: str, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "maps.png"
    words = ("--dataset", "digits", "--eps", "0.1", "--steps", 2, "--out", out, *more.split())
    code, text, _ = run(capsys, "explain", network, *words)
    assert code == 0
    assert str(out) in text
    assert out.read_bytes().startswith(b"\x89PNG")


def test_norms_and_usual_radii(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --eps, digits are attacked at the radius their recipes train for."""
    out, picture = tmp_path / "audit.json", tmp_path / "maps.png"
    about = ("--dataset", "digits", "--n", 4)
    run(capsys, "audit", network, *about, "--steps", 1, 2, "--out", out)
    written = json.loads(out.read_text())
    assert (written["eps"], written["norm"]) == (0.1, "linf")
    run(capsys, "audit", network, *about, "--steps", 1, 2, "--norm", "l2", "--eps", 1, "--out", out)
    assert json.loads(out.read_text())["norm"] == "l2"
    l1 = ("--norm", "l1", "--steps", 2, "--out", picture)
    assert run(capsys, "explain", network, *about, *l1, "--eps", 3)[0] == 0
    assert "--norm l1 needs --eps" in refused(capsys, "explain", network, *about, *l1)


def test_train_writes_a_run_that_eval_reads_by_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    short = ("epochs=1", "train_images=100", "steps=1", "eps_schedule=0,1")
    words = ("train", "digits-small-int", "--out", out, "--set", *short)
    code, text, _ = run(capsys, *words)
    assert code == 0
    assert str(out / "model.safetensors") in text
    assert "holds a run" in refused(capsys, *words)
    assert run(capsys, *words, "--resume")[0] == 0
    code, text, _ = run(capsys, "eval", out, "--dataset", "digits", "--eps", 0, "--n", 10)
    assert code == 0
    assert "digits" in text


def test_train_lists_its_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "train", "--list")
    assert code == 0
    assert "mnist-NETWORK-METHOD" in out and "restricted_imagenet-NETWORK-normal" in out
    assert len(out.splitlines()) < 30


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["mnist-pool-adv"], "mnist-pool-adv"),
        (["--dataset", "mnist", "--model", "pool", "--method", "adv"], "mnist-pool-adv"),
        (["--dataset", "mnist-quick"], "mnist-quick-int"),
        (["--method", "normal", "--dataset", "restricted_imagenet"], None),
    ],
)
def test_the_parts_of_a_recipe_s_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], name: str | None
) -> None:
    trained = []
    monkeypatch.chdir(tmp_path)
    row = SimpleNamespace(history=[{"epoch": 1}])
    monkeypatch.setattr(
        commands.training, "run_recipe", lambda recipe, *_, **__: trained.append(recipe) or row
    )
    assert main(["train", *words]) == 0
    assert trained == [training.load_recipe(name or "restricted_imagenet-wresnet-normal")]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("evall", "did you mean 'eval'?"),
        ("eval", "required: MODEL, --dataset"),
        ("eval m --dataset mnsit", "did you mean 'mnist'?"),
        ("eval m --dataset mnist --attack pdg", "did you mean 'pgd'?"),
        ("eval m --dataset mnist --atack pgd", "did you mean '--attack'?"),
        ("eval m --dataset mnist --protocol pape", "did you mean 'paper'?"),
        ("eval m --dataset digits --eps os.system", "'os.system' is not a number"),
        ("eval m --dataset digits --eps 1/0", "'1/0' is not a number"),
        ("eval m --dataset digits --eps nan", "'nan' is not a number"),
        ("eval m --dataset digits --eps -0.1", "negative"),
        ("eval m --dataset digits --steps 2.5", "'2.5' is not a whole number"),
        ("eval m --dataset digits --seed -1", "'-1' is not a whole number"),
        ("eval m --dataset digits --out a.txt", ".json, got a.txt"),
        ("audit m --dataset digits --out a.txt", ".json, got a.txt"),
        ("eval nowhere.pkl --dataset digits", "no file nowhere.pkl"),
        ("eval --eps 0.1 m.pt --dataset digits", "(write MODEL before the options)"),
        ("audit --dataset digits --steps 1 2 m.pt", "(write MODEL before the options)"),
        ("doctor now", "no argument 'now'"),
        ("train", "needs a recipe"),
        ("train --set epochs=3 digits-small-int", "write the recipe before the options"),
        ("train --dataset mnsit", "did you mean 'mnist'?"),
        ("train --method int", "needs a recipe or --dataset"),
        ("train mnist-int --method int", "leave one of them out"),
        ("train digits-small-itn", "did you mean 'digits-small-int'?"),
        ("train digits-small-int --set epoch=3", "did you mean 'epochs'?"),
        ("train digits-small-int --set epsilon=0.2", "did you mean 'eps'?"),
        ("train digits-small-int --device gpu7", "'gpu7' cannot be used here"),
        ("train mnist-small-int", "folder that holds it"),
        ("reproduce --only mnist table3", "'table3'"),
        ("eval m --dataset digits --eps 1e999999999", "is not a number"),
        ("eval m --dataset digits --eps 1/0.5", "is not a number"),
        (f"eval m --dataset digits --seed {9**50}", "is not a whole number in 0..4294967295"),
        (f"eval m --dataset digits --n {9**50}", "is not a whole number in 1.."),
        (f"explain m --dataset digits --out a.png --indices {'9' * 5000}", "99...99"),
        ("eval m --dataset digits --device meta", "'meta' cannot be used"),
        ("train mnist-small-int --data-dir ~nobody/x", "no folder ~nobody/x"),
        (f"train mnist-small-int --data-dir {'x' * 5000}", "xx...xx"),
        (f"eval {'x' * 5000} --dataset digits", "xx...xx"),
        ("eval /dev/zero --dataset digits", "/dev/zero"),
        ("train digits-small-int --set lr=1e300", "lr must be at most"),
        ("train digits-small-int --set eps=1e999999999", "eps must be a"),
        (f"train digits-small-int --set seed={9**50}", "seed must lie in"),
    ],
)
def test_bad_input_is_refused_with_one_sentence(
    words: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, *words.split())
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_the_network_is_refused(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fastinterp import data

    words = ("--dataset", "digits", "--out")
    label = int(data.load("digits").labels[3])
    own_class = ("--indices", 3, "--target", label, *words)
    assert "361" in refused(capsys, "eval", network, "--n", 361, *words, tmp_path / "a.json")
    assert "names a folder" in refused(capsys, "eval", network, *words, tmp_path)
    assert ".png" in refused(capsys, "explain", network, *words, tmp_path / "a.gif")
    assert "cannot make" in refused(capsys, "eval", network, *words, network / "a.json")
    assert "names a file" in refused(capsys, "train", "digits-small-int", "--out", network)
    assert "0..359" in refused(capsys, "explain", network, "--indices", 999, *words, "a.png")
    assert "--target" in refused(capsys, "explain", network, "--target", "dog", *words, "a.png")
    assert "of image 3" in refused(capsys, "explain", network, *own_class, tmp_path / "a.png")
    models.save(models.small(3, 10, seed=0), network)
    assert "3 input channels" in refused(capsys, "eval", network, *words, "a.json")
    models.save(models.small(1, 5, seed=0), network)
    assert "5 classes" in refused(capsys, "eval", network, *words, "a.json")


def test_a_folder_without_a_finished_network_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no network" in refused(capsys, "eval", tmp_path, "--dataset", "digits")
    (tmp_path / "state.safetensors").touch()
    assert "--resume" in refused(capsys, "eval", tmp_path, "--dataset", "digits")


def test_a_pickle_that_would_run_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps([Evil()]))
    assert "could run code" in refused(capsys, "eval", path, "--dataset", "digits")
    assert not (tmp_path / "ran").exists()


def test_ctrl_c_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands.training, "run_recipe", stop)
    code, _, err = run(capsys, "train", "digits-small-int", "--out", "a b")
    assert code == 130
    assert "`fastinterp train digits-small-int --out 'a b' --resume`" in err


def test_ctrl_c_during_training_leaves_a_run_to_go_on_with(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [sys.executable, "-m", "fastinterp", "train", "digits-small-int", "--out", str(out)]
    words += ["--set", "train_images=100", "epochs=1000", "steps=1", "--device", "cpu"]
    child = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while not (out / "history.json").exists() and child.poll() is None:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 130
    assert "--resume` goes on" in err
    assert "Traceback" not in err
    assert (out / "state.safetensors").exists()


def test_a_recipe_of_deep_nesting_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "deep.toml").write_text("lr_milestones = " + "[" * 50_000)
    assert "not valid TOML" in refused(capsys, "train", tmp_path / "deep.toml")


@pytest.mark.parametrize("debug", ["", "1"])
def test_a_fault_of_the_program_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, debug: str
) -> None:
    def broken(_: object) -> int:
        raise LookupError("y" * 3000 + "\n" + "z " * 3000)

    monkeypatch.setattr(commands, "doctor", broken)
    monkeypatch.setenv("FASTINTERP_DEBUG", debug)
    code, _, err = run(capsys, "doctor")
    assert code == 1
    assert ("Traceback" in err) == (debug == "1")
    line = err.splitlines()[-1]
    assert "LookupError: yyy" in line and "FASTINTERP_DEBUG=1" in line
    assert len(line) < 900


@pytest.mark.parametrize(
    ("options", "words"),
    [("--dataset digits", "is for --dataset cifar10"),
     ("--dataset cifar10 --data-dir x --eps 0.1", "leave --eps")],
)  # fmt: skip
def test_a_threat_model_is_measured_as_it_is(options: str, words: str, capsys) -> None:
    command = f"eval net --threat-model cifar10-linf {options}"
    assert main(command.split()) == 2
    assert words in capsys.readouterr().err
