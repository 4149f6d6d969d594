"""Every block of code on the pages of the repository runs, or names what there is.

Python blocks run one after the other, as a reader types them, with what `SHORTER` replaces. Shell
blocks are parsed by the parsers of the commands that they call. A block's language says which.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import distributed
from torch.distributed.run import get_args_parser

from fastinterp import IntTrainer, data, evaluation, models
from fastinterp.cli.commands import _recipe_name
from fastinterp.cli.parser import build_parser
from fastinterp.evaluation.by_attack import MEASURES
from fastinterp.reproduce import list_entries
from fastinterp.training import load_recipe, methods

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "SECURITY.md", "CHANGELOG.md", "csrc/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
LANGUAGES = {"python", "sh", "toml", "text", "bibtex"}
# On each page: long settings, and what this machine lacks. Each must be there to be replaced.
TEN_LINES = [
    ("epochs=30", "epochs=1, progress=False"),
    ("test.float(), test.labels", "test.float()[:9], test.labels[:9]"),
    ("IntTrainer(model, eps=0.1, steps=7", "IntTrainer(model, eps=0.1, steps=1"),
]
SHORTER = {
    "README.md": TEN_LINES,
    "docs/index.md": TEN_LINES,
    "docs/concepts.md": [
        ("eps=8 / 255, steps=10", "eps=8 / 255, steps=1"),
        ("(1, 40)", "(1, 2)"),
        ("IntTrainer(network, eps=0.1, steps=5)", "IntTrainer(network, eps=0.1, steps=1)"),
        ("Robust(network, eps=0.3", "Robust(model, eps=0.3, steps=1"),
    ],
    "docs/data.md": [
        ("trainer.fit(train, epochs=100, batch_size=256", "coloured.fit(train, 1, 4"),
        ("trainer.fit(train, epochs=90, batch_size=256", "coloured.fit(train, 1, 2"),
        ('"imagenet", root', '"imagefolder", root'),
        ("workers=8", "workers=0"),
        (
            "sweep(network, test, eps=4 / 255, steps=10",
            "sweep(coloured.model, test, eps=0, steps=1",
        ),
        ("steps=5, step_size=0.03", "steps=1, step_size=0.1"),
    ],
    "docs/own-networks.md": [
        ('hub.push_to_hub(model, "owner/name")', ""),
        ('hub.from_pretrained("owner/name")', 'hub.from_pretrained("folder")'),
    ],
    "docs/scaling.md": [
        ('device="cuda"', 'device="cpu", steps=1'),
        ("epochs=20, batch_size=200", "epochs=1, batch_size=50, progress=False"),
    ],
}


class Block(NamedTuple):
    page: str
    line: int
    language: str
    code: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, flags=re.MULTILINE):
        line = text[: found.start()].count("\n") + 1
        yield Block(str(page.relative_to(ROOT)), line, found[1], found[2])


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def of(language: str) -> dict[str, list[Block]]:
    """The blocks in that language by their page."""
    chosen = [block for block in BLOCKS if block.language == language]
    return {page: [b for b in chosen if b.page == page] for page in {b.page: 0 for b in chosen}}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_has_fences_and_a_language(page: Path) -> None:
    assert [b.where for b in blocks_of(page) if b.language not in LANGUAGES] == []
    rest = re.sub(r"^```(?:.*\n)+?```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert "```" not in rest
    assert re.findall(r"(?<=\n\n) {4}.*", rest) == [], "a block without fences"


def given(page: str, folder: Path) -> dict[str, Any]:
    """What the text of a page says that a reader has."""
    digits = data.load("digits")
    model = models.small(seed=0)
    x = digits.float(slice(0, 2))
    names = {"model": model, "x": x, "y": model(x).argmax(1)}
    if page == "docs/adding-a-method.md":
        names |= {name: getattr(methods, name) for name in ("MethodRow", "CE")}
    elif page == "docs/concepts.md":
        names["rank"] = 0
    elif page == "docs/data.md":
        write_data(folder)
        small = models.small(in_channels=3, seed=0)
        coloured = IntTrainer(small, eps=0.1, steps=1, step_size=0.1)
        names |= {"root": folder, "evaluation": evaluation, "coloured": coloured}
    elif page == "docs/scaling.md":
        names |= {"IntTrainer": IntTrainer, "models": models}
        names["images"] = digits.subset(slice(0, 50))
    return names


def write_data(root: Path) -> None:
    """CIFAR-10 with two images a file, generated images, and folders of pictures."""
    (root / "cifar-10-batches-bin").mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (root / "cifar-10-batches-bin" / f"{name}.bin").write_bytes(bytes(2 * 3073))
    np.savez(root / "1m.npz", image=np.zeros((9, 32, 32, 3), np.uint8), label=np.zeros(9, int))
    for place in (root / split / name for split in ("train", "val") for name in ("cold", "warm")):
        place.mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(place / "one.png")


def check(page: str, names: dict[str, Any]) -> None:
    """What must be true after the blocks of a page."""
    if page == "docs/concepts.md":
        assert (names["bound"].tightness.nan_to_num() <= 1 + 1e-5).all()
        assert names["Mine"]()(names["x"]).shape == (2, 10)
        module = SimpleNamespace(network=names["network"], loss=names["loss"])
        batch = torch.rand(2, 3, 64, 64), names["classes"]
        assert names["training_step"](module, batch, 0).isfinite()
        few = data.load("digits").subset(slice(0, 50))
        IntTrainer(names["model"], steps=1).fit(
            few, 1, progress=False, callbacks=[names["MLflow"]()]
        )
        mlflow = names["mlflow"]
        assert mlflow.log_metrics.call_args.kwargs["step"] == 1 and mlflow.end_run.called
    elif page == "docs/adding-a-method.md":
        moved = (names["x_adv"] - names["x"]).abs().max()
        assert 0 < moved <= 0.1 + 1e-6


def shortened(block: Block) -> str:
    code = block.code.replace("steps=40", "steps=1")
    for old, new in SHORTER.get(block.page, []):
        code = code.replace(old, new)
    if code.startswith('"'):  # a row of a table
        code = f"row = {{\n{code}}}"
    return code


@pytest.mark.filterwarnings("ignore:Grad strides do not match")  # DDP's, about speed
@pytest.mark.parametrize("page", of("python"))
def test_python_blocks_run(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "mlflow", MagicMock())
    distributed.init_process_group(
        "gloo", init_method=(tmp_path / "group").as_uri(), rank=0, world_size=1
    )
    names = given(page, tmp_path)
    blocks = of("python")[page]
    for old, _ in SHORTER.get(page, []):
        assert any(old in block.code for block in blocks), old
    try:
        for block in blocks:
            if "import hub" in block.code and not importlib.util.find_spec("huggingface_hub"):
                continue
            code = "\n" * block.line + shortened(block)  # so that errors name the page's line
            exec(compile(code, page, "exec"), names)
        check(page, names)
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize("page", of("toml"))
def test_toml_blocks_are_recipes(page: str, tmp_path: Path) -> None:
    for number, block in enumerate(of("toml")[page]):
        path = tmp_path / f"{number}.toml"
        path.write_text(block.code, encoding="utf-8")
        load_recipe(path)


def commands(code: str) -> list[list[str]]:
    """The commands of a shell block as words, without variables that are set before one."""
    lines = re.sub(r"\\\n", " ", code).splitlines()
    parts = [part for line in lines for part in re.split(r" && ", line)]
    words = [shlex.split(part, comments=True) for part in parts]
    return [each for each in words if each]


class Parsed(Exception):
    """The arguments of a script were taken."""


def script_takes(path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script until it has parsed its arguments; one without a parser takes none."""
    if "ArgumentParser(" not in path.read_text(encoding="utf-8"):
        assert arguments == [] or "sys.argv" in path.read_text(encoding="utf-8")
        return
    parse = argparse.ArgumentParser.parse_args

    def stop(*args: Any, **kwargs: Any) -> None:
        parse(*args, **kwargs)
        raise Parsed

    with monkeypatch.context() as patched, pytest.raises(Parsed):
        patched.setattr(argparse.ArgumentParser, "parse_args", stop)
        patched.setattr(sys, "argv", [str(path), *arguments])
        patched.setattr(sys, "path", [str(path.parent), *sys.path])
        runpy.run_path(str(path), run_name="__main__")


def fastinterp_takes(words: list[str], folder: Path) -> None:
    """Parse a command of `fastinterp`, and load what it names by name."""
    args = build_parser().parse_args(words)
    if args.command == "train" and not args.list:
        (folder / "mine.toml").write_text('base = "mnist-small-int"', encoding="utf-8")
        with pytest.MonkeyPatch.context() as patched:
            patched.chdir(folder)
            load_recipe(_recipe_name(args), args.set)
    elif args.command == "eval":
        assert args.attack in MEASURES
    elif args.command == "reproduce" and not args.list:
        assert args.name in list_entries()


def takes(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail unless the command, its options and the names that it is given exist."""
    name, rest = words[0].rpartition("/")[2], words[1:]
    if name == "srun":
        takes(rest, folder, monkeypatch)
    elif name == "fastinterp":
        fastinterp_takes(rest, folder)
    elif name == "torchrun":
        args = get_args_parser().parse_args(rest)
        program = ["-m"] * args.module + [args.training_script, *args.training_script_args]
        takes(["python", *program], folder, monkeypatch)
    elif name == "make":
        targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert {word for word in rest if "=" not in word} <= set(targets)
    elif re.fullmatch(r"python[\d.]*", name) and rest[0] == "-m":
        module, *others = rest[1:]
        if module == "fastinterp":
            fastinterp_takes(others, folder)
        elif module.startswith("benchmarks."):
            script_takes(ROOT / f"{module.replace('.', '/')}.py", others, monkeypatch)
        else:
            assert module in {"venv", "pytest"}
    elif re.fullmatch(r"python[\d.]*", name):
        script_takes(ROOT / rest[0], rest[1:], monkeypatch)
    elif name == "pip":
        for extra in re.findall(r"\.\[(\w+)\]", " ".join(rest)):
            assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    else:
        assert name in {"export", ".", "jupyter"}, f"unknown command: {name}"


@pytest.mark.parametrize("page", of("sh"))
def test_shell_blocks_name_what_there_is(
    page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for block in of("sh")[page]:
        for words in commands(block.code):
            try:
                takes(words, tmp_path, monkeypatch)
            except (Exception, SystemExit) as error:
                raise AssertionError(f"{block.where}: {shlex.join(words)}") from error


# Commands within sentences. Words in capitals stand for what the reader has.
SENTENCES = [
    (str(page.relative_to(ROOT)), " ".join(found.split()))
    for page in PAGES
    for found in re.findall(r"`(fastinterp [a-z][^`]*)`", page.read_text(encoding="utf-8"))
]


def test_commands_within_sentences_name_what_there_is(tmp_path: Path) -> None:
    for page, command in SENTENCES:
        words = command.split()[1:]
        assert re.search(rf"^    {words[0]}\b", build_parser().format_help(), re.M), page
        if len(words) > 1:
            fastinterp_takes(words, tmp_path)
