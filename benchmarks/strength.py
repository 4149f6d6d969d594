"""How strong the protocols are, beside AutoAttack: `docs/results/strength.json` and `.md`.

    python -m benchmarks.strength --networks FOLDER --data-dir FOLDER [--n 200] [--only WORD ...]

Measures the authors' networks under the protocols "paper", "best" and "autoattack", and under the
authors' AutoAttack where its package `autoattack` can be imported, which then runs on the same
cheaper network as ours and, with --plain, on the network in plain torch too. Times are those of the
processor. Rows that are in the JSON file already are kept.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastinterp import data, evaluation
from fastinterp._utils.files import atomic_path, write_json
from fastinterp.evaluation.tables import format_accuracy, format_eps, markdown_table
from fastinterp.models.freeze import fold, freeze
from fastinterp.models.gap import GapClassifier
from fastinterp.models.released import load_released
from fastinterp.ops.pgd_step import Norm

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Case:
    """A released network, and the ball that it is measured in."""

    network: str
    eps: float
    norm: Norm = "linf"

    @property
    def name(self) -> str:
        return f"{self.network} {self.norm} {format_eps(self.eps)}"


MNIST = ("int", "adv", "trades", "intadv")
CASES = (
    *(Case(f"mnist_smallgap_{name}_100", 0.3) for name in MNIST),
    Case("mnist_smallgap_int_100", 0.2),
    Case("mnist_smallgap_adv_100", 0.2),
    Case("mnist_smallgap_intone_100", 0.2),
    Case("mnist_smallgap_igsum_100", 0.2),
    Case("mnist_smallgap_normal_100", 0.05),
    Case("mnist_pool_int_100", 0.3),
    Case("cifar_smallgap_int_200", 8 / 255),
    *(Case(f"mnist_smallgap_{name}_100", 1.5, "l2") for name in MNIST),
    Case("mnist_smallgap_normal_100", 0.5, "l2"),
    Case("cifar_smallgap_int_200", 0.5, "l2"),
    Case("mnist_smallgap_int_100", 10.0, "l1"),
    Case("mnist_smallgap_adv_100", 10.0, "l1"),
)


def official(network: nn.Module, case: Case, x: Tensor, y: Tensor) -> Tensor | None:
    """x_adv of the authors' AutoAttack, version "standard"; None where it is not installed."""
    try:
        from autoattack import AutoAttack
    except ImportError:
        return None
    norm = {"linf": "Linf", "l2": "L2", "l1": "L1"}[case.norm]
    attack = AutoAttack(network, norm=norm, eps=case.eps, device="cpu", verbose=False, seed=0)
    found: Tensor = attack.run_standard_evaluation(x, y, bs=len(x))
    return found


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    found = run()
    return found, round(time.process_time() - start, 2)


def measure(case: Case, model: GapClassifier, x: Tensor, y: Tensor, plain: bool) -> dict[str, Any]:
    """One row: accuracies and processor seconds."""
    row: dict[str, Any] = {"network": case.network, "norm": case.norm, "eps": case.eps, "n": len(x)}
    for protocol in ("paper", "best", "autoattack"):
        (found,), seconds = timed(
            lambda protocol=protocol: evaluation.sweep(
                model, x, y, eps=case.eps, norm=case.norm, protocol=protocol, progress=False
            )
        )
        row[protocol] = {"accuracy": found["accuracy"], "seconds": seconds}
    cheaper = freeze(fold(model, "logits", x), x)
    for name, network in (("official", cheaper), ("official, plain torch", model)):
        if network is model and not plain:
            continue
        x_adv, seconds = timed(lambda network=network: official(network, case, x, y))
        if x_adv is not None:
            with torch.no_grad():
                right = int((model(x_adv).argmax(1) == y).sum())
            row[name] = {"accuracy": right / len(x), "seconds": seconds}
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Accuracies, and times over that of the authors' AutoAttack on the same passes."""
    names = ("paper", "best", "autoattack", "official", "official, plain torch")
    body = []
    for row in rows:
        base = row.get("official", {}).get("seconds")
        cells = []
        for name in names:
            found = row.get(name)
            cell = "-" if found is None else format_accuracy(found["accuracy"])
            if found is not None and base and name != "paper":
                cell += f" ({found['seconds'] / base:.2f})"
            cells.append(cell)
        body.append([row["network"], row["norm"], format_eps(row["eps"]), *cells])
    return markdown_table(("network", "norm", "eps", *names), body)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", type=Path, required=True)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--n", type=int, default=200, help="first test images; default: 200")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="in a case's name")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "strength.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(options.out.read_text("utf-8"))["rows"] if options.out.exists() else []
    known = {(row["network"], row["norm"], row["eps"]) for row in rows}
    for case in CASES:
        path = options.networks / f"{case.network}.pkl"
        wanted = all(word in case.name for word in options.only)
        if (case.network, case.norm, case.eps) in known or not wanted or not path.exists():
            continue
        model = load_released(path).eval().requires_grad_(False)
        name = "cifar10" if case.network.startswith("cifar") else "mnist"
        images = data.load(name, options.data_dir, "test")
        chosen = torch.arange(options.n)
        x, y = images.float(chosen), images.labels[chosen].long()
        rows.append(measure(case, model, x, y, options.plain))
        print(case.name, rows[-1], flush=True)
        write_json(options.out, {"torch": torch.__version__, "rows": rows})
    with atomic_path(options.out.with_suffix(".md")) as page:
        page.write_text(f"# strength of the protocols\n\n{table(rows)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
