"""The command line's grammar: commands, options, help. `commands` does the work."""

from __future__ import annotations

from typing import Any

from .._version import __version__
from ..attacks.aai import AAI_KINDS
from ..data.load import NAMES as DATASETS
from ..evaluation import PROTOCOLS
from ..evaluation.by_attack import CLASS_SETS, MEASURES
from ..evaluation.isa_scores import TABLE1
from ..interpreters.registry import CLASS_WISE, INTERPRETERS
from . import commands
from .arguments import Parser, count, count_or_all, index, number, seed

PROGRAM = "fastinterp"
NORMS = ("linf", "l2", "l1")


def build_parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="Image classifiers whose explanations hold under attack.",
        epilog="Begin with `fastinterp demo`. Each command has its own --help with an example.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.set_defaults(run=lambda args: _show_help(parser))
    every = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for add in (
        _add_demo,
        _add_train,
        _add_eval,
        _add_explain,
        _add_audit,
        _add_reproduce,
        _add_doctor,
    ):
        add(every)
    return parser


def _show_help(parser: Parser) -> int:
    parser.print_help()
    return 0


def _command(every: Any, name: str, about: str, example: str, run: Any) -> Parser:
    parser: Parser = every.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=f"example:\n  {example}",
    )
    parser.set_defaults(run=run)
    return parser


def _add_demo(every: Any) -> None:
    parser = _command(
        every,
        "demo",
        "train Normal and Int on built-in digits and compare them, in a few minutes",
        "fastinterp demo --out runs/demo",
        commands.demo,
    )
    parser.add_argument("--out", default="runs/demo", metavar="DIR", help="default: %(default)s")
    _add_device(parser)


def _add_train(every: Any) -> None:
    parser = _command(
        every,
        "train",
        "train a network as a recipe says",
        "fastinterp train mnist-small-int --data-dir data --set epochs=20 eps=0.25",
        commands.train,
    )
    parser.add_argument(
        "recipe", nargs="?", metavar="RECIPE", help="a recipe's name (see --list) or a TOML file"
    )
    parser.add_argument("--list", action="store_true", help="show the recipes and stop")
    _add_data_dir(parser)
    parser.add_argument("--out", metavar="DIR", help="default: runs/RECIPE")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run that the folder holds"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="change settings of the recipe",
    )
    _add_device(parser)


def _add_eval(every: Any) -> None:
    parser = _command(
        every,
        "eval",
        "measure a network, or its explanations, under attack",
        "fastinterp eval runs/mnist-small-int --dataset mnist --data-dir data \\\n"
        "      --eps 0 0.1 0.2 0.3 --steps 200 --out int.json",
        commands.evaluate,
    )
    _add_model_and_data(parser)
    parser.add_argument(
        "--n",
        type=count_or_all,
        default=0,
        metavar="N",
        help="images, the first N of the paper's selection, or all; default: 200 (isa: 100), "
        "if there are",
    )
    parser.add_argument("--batch-size", type=count, default=100, metavar="B", help="default: 100")
    parser.add_argument("--out", metavar="FILE.json", help="write the table as JSON too")
    _add_attack(parser.add_argument_group("the attack"))
    _add_maps(parser.add_argument_group("attacks on explanations, aai and isa"))


def _add_attack(group: Any) -> None:
    group.add_argument(
        "--attack",
        default="pgd",
        choices=tuple(MEASURES),
        metavar="NAME",
        help=f"{', '.join(MEASURES)}; default: pgd",
    )
    group.add_argument(
        "--eps",
        nargs="+",
        type=number,
        metavar="E",
        help="radii, numbers or fractions such as 8/255; default: the columns of the paper's "
        "Table 3 for MNIST or, for coloured images, CIFAR-10 (digits: up to 0.15); jpeg, gabor and "
        "the like have units of their own and default to the published size",
    )
    group.add_argument("--steps", nargs="+", type=count, metavar="K", help="default: 200")
    group.add_argument(
        "--step-size",
        type=number,
        metavar="S",
        help="default: 0.01 (l2, l1: 2.5 eps / steps; jpeg and the like: eps / sqrt(steps))",
    )
    group.add_argument(
        "--norm",
        choices=NORMS,
        metavar="P",
        help=f"{', '.join(NORMS)}; of the ball (default: linf) or, with isa, of the discrepancy "
        "(default: l1 and l2)",
    )
    group.add_argument(
        "--protocol",
        default="paper",
        choices=tuple(PROTOCOLS),
        metavar="NAME",
        help="; ".join(f"{one.name}: {one.about}" for one in PROTOCOLS.values()),
    )
    group.add_argument(
        "--seed",
        type=seed,
        help="of random starts; default: 0 (aai: the paper's own starts; isa: the paper's images)",
    )


def _add_maps(group: Any) -> None:
    group.add_argument(
        "--interpreter",
        choices=tuple(INTERPRETERS),
        metavar="NAME",
        help=f"of aai and isa: {', '.join(CLASS_WISE)}, of isa also repr; ig is with softplus for "
        "ReLU, in 100 steps; default: cam",
    )
    group.add_argument(
        "--classes",
        choices=CLASS_SETS,
        metavar="SET",
        help=f"of isa: {', '.join(CLASS_SETS)}; default: each of them",
    )
    group.add_argument(
        "--kind",
        choices=AAI_KINDS,
        metavar="KIND",
        help=f"of aai: {', '.join(AAI_KINDS)}; default: topk",
    )
    group.add_argument(
        "--k", type=count, metavar="K", help="of aai: brightest positions of a map; default: 8"
    )
    group.add_argument(
        "--hinge",
        type=number,
        metavar="LAMBDA",
        help="of aai: hold the prediction by the hinge of eq. (7) with this weight, such as 10, "
        "and judge the best iterate that keeps it; default: 0, as in the paper's tables, which "
        "average over the images whose prediction stays by itself",
    )


def _add_explain(every: Any) -> None:
    parser = _command(
        every,
        "explain",
        "draw maps of images, clean and attacked",
        "fastinterp explain runs/mnist-small-int --dataset mnist --data-dir data \\\n"
        "      --n 4 --eps 0.3 --out maps.png",
        commands.explain,
    )
    _add_model_and_data(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--n",
        type=count,
        default=4,
        metavar="N",
        help="the first N images of the paper's selection; default: 4",
    )
    which.add_argument(
        "--indices", nargs="+", type=index, metavar="I", help="these images of the test split"
    )
    _add_eps_and_norm(parser, "of the attack's ball")
    parser.add_argument("--steps", type=count, default=40, metavar="K", help="default: 40")
    parser.add_argument(
        "--step-size",
        type=number,
        metavar="S",
        help="default: 0.01 (l2, l1: 2.5 eps / steps)",
    )
    parser.add_argument(
        "--target",
        default="runner-up",
        metavar="T",
        help="where the attack leads: runner-up (the likeliest wrong class; default), "
        "random (as the paper draws it), or a class by name or number",
    )
    parser.add_argument(
        "--interpreter",
        default="cam",
        choices=CLASS_WISE,
        metavar="NAME",
        help=f"whose maps are drawn: {', '.join(CLASS_WISE)}; default: cam",
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE.png", help="the picture: .png, .pdf or .svg"
    )


def _add_audit(every: Any) -> None:
    parser = _command(
        every,
        "audit",
        "look for signs that a network hides its gradients instead of being robust; the exit code "
        "is 1 where there is one",
        "fastinterp audit runs/mnist-small-int --dataset mnist --data-dir data \\\n"
        "      --transfer-from runs/mnist-small-normal --out audit.json",
        commands.audit,
    )
    _add_model_and_data(parser)
    _add_eps_and_norm(parser, "that the network is to withstand")
    parser.add_argument(
        "--steps",
        nargs="+",
        type=count,
        default=[1, 10, 40, 100],
        metavar="K",
        help="numbers of steps that are compared; default: 1 10 40 100",
    )
    parser.add_argument(
        "--transfer-from",
        metavar="MODEL",
        help="another network, whose adversarial images are tried on this one",
    )
    parser.add_argument(
        "--n",
        type=count,
        default=200,
        metavar="N",
        help="the first N images of the paper's selection; default: 200, if there are",
    )
    parser.add_argument("--batch-size", type=count, default=100, metavar="B", help="default: 100")
    parser.add_argument("--out", metavar="FILE.json", help="write the checks as JSON too")


def _add_reproduce(every: Any) -> None:
    parser = _command(
        every,
        "reproduce",
        "measure a table or figure of the paper again, beside what the paper prints",
        "fastinterp reproduce table3 --networks networks --data-dir data --only mnist \\\n"
        "      --out table3.json\n"
        "  fastinterp reproduce figA1 --train quick --data-dir data --out figA1.png",
        commands.reproduce,
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="such as table3 or fig3; see --list"
    )
    parser.add_argument("--list", action="store_true", help="show what there is and stop")
    parser.add_argument(
        "--networks",
        metavar="DIR",
        help="the folder with the released .pkl files, or with runs of `fastinterp train`; "
        "with --train also where new ones go, by default runs/networks",
    )
    parser.add_argument(
        "--train",
        nargs="?",
        const="full",
        choices=("full", "quick"),
        metavar="full|quick",
        help="first train the networks that are missing, by the paper's recipes (full; default) or "
        "by short ones that cannot be held against the paper (quick; MNIST Small alone); goes on "
        "where it was stopped",
    )
    _add_data_dir(parser)
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="WORD",
        help="data sets, architectures or methods to measure, such as: cifar10 int",
    )
    parser.add_argument(
        "--interpreters",
        nargs="+",
        default=[],
        choices=TABLE1,
        metavar="NAME",
        help=f"of table1: {', '.join(TABLE1)}; default: all; ig takes by far longest",
    )
    parser.add_argument(
        "--n",
        type=count,
        metavar="N",
        help="the first N of the paper's 200 images; default: 200 (table1: 100, of "
        "restricted_imagenet 4)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="FILE.json, written as it goes: what it holds is not measured again; a table's "
        "Markdown or a figure's picture is put beside it; for a figure also FILE.png, .pdf or .svg,"
        " default: NAME.png",
    )
    _add_device(parser)


def _add_doctor(every: Any) -> None:
    _command(
        every,
        "doctor",
        "say what works here, what is missing, and what to do about it",
        "fastinterp doctor",
        commands.doctor,
    )


def _add_model_and_data(parser: Parser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a .safetensors checkpoint, a released .pkl, or the folder of a run",
    )
    parser.add_argument(
        "--dataset", required=True, choices=DATASETS, metavar="NAME", help=", ".join(DATASETS)
    )
    _add_data_dir(parser)
    _add_device(parser)


def _add_eps_and_norm(parser: Parser, of_what: str) -> None:
    parser.add_argument(
        "--eps",
        type=number,
        metavar="E",
        help=f"the radius {of_what}; default, in linf: 0.3 (coloured: 8/255, digits: 0.1)",
    )
    parser.add_argument(
        "--norm",
        default="linf",
        choices=NORMS,
        metavar="P",
        help=f"of the ball: {', '.join(NORMS)}; default: linf",
    )


def _add_data_dir(parser: Parser) -> None:
    parser.add_argument(
        "--data-dir", metavar="DIR", help="the folder that holds the data set; digits needs none"
    )


def _add_device(parser: Parser) -> None:
    parser.add_argument(
        "--device", metavar="NAME", help="cpu, cuda, ...; default: a GPU if torch sees one"
    )
