"""The commands of the command line, with their options and help; `commands` does the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._version import __version__
from ..attacks.aai import AAI_KINDS
from ..data.load import NAMES as DATASETS
from ..evaluation import PROTOCOLS, THREAT_MODELS
from ..evaluation.by_attack import CLASS_SETS, MEASURES
from ..evaluation.isa_scores import TABLE1
from ..interpreters.registry import CLASS_WISE, INTERPRETERS
from ..training import METHODS
from ..training.families import TITLES, families
from ..training.recipe import KEYS
from . import commands
from .arguments import (
    Parser,
    argument,
    count,
    count_or_all,
    dataset,
    index,
    network,
    number,
    seed,
)

PROGRAM = "fastinterp"
NORMS = ("linf", "l2", "l1")
SOURCES = "timm:NAME, torchvision:NAME, package.module:function"
TRANSFORMS = ("whole", "center-crop")
USUAL_STEP = "size of a step; default: 0.01 for linf, 2.5 eps / steps for l2 and l1"


def build_parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="Train, attack, explain and evaluate robust image classifiers.",
        epilog="Start with `fastinterp demo`. `fastinterp COMMAND --help` shows an example.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.set_defaults(run=None)
    every = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for add in (_demo, _train, _eval, _explain, _audit, _reproduce, _doctor):
        add(every)
    return parser


def _command(
    every: Any, name: str, run: Callable[[Any], int], about: str, example: str
) -> tuple[Parser, Callable[..., Any]]:
    parser: Parser = every.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=f"example:\n  {example}",
    )
    parser.set_defaults(run=run)
    return parser, parser.add_argument


# fmt: off
def _demo(every: Any) -> None:
    about = (
        "train a normal and a robust network on built-in digits and compare them in a few minutes"
    )
    parser, add = _command(every, "demo", commands.demo, about, "fastinterp demo --out runs/demo")
    add("--out", default="runs/demo", metavar="DIR",
        help="folder for results; default: %(default)s")
    _add_device(parser)


def _train(every: Any) -> None:
    parser, add = _command(
        every, "train", commands.train,
        "train a network with the settings of a recipe",
        "fastinterp train mnist-small-int --data-dir data --set epochs=20 eps=0.25",
    )
    parser.settings = KEYS
    add("recipe", nargs="?", metavar="RECIPE", help="name of a recipe (see --list) or a TOML file")
    add("--list", action="store_true", help="list the recipes and exit")
    part = parser.add_argument_group("the parts of a recipe's name, instead of RECIPE").add_argument
    part("--dataset", choices=tuple(families()), metavar="NAME", help=", ".join(families()))
    part("--model", type=network, metavar="NAME",
         help=f"{', '.join(TITLES)}, or one of {SOURCES}; default: the first that --list shows")
    part("--method", choices=tuple(METHODS), metavar="NAME",
         help=f"{', '.join(METHODS)}; default: int")
    _add_data_dir(parser)
    _add_download(parser)
    _add_source(parser, "the last layer is trained anew where it is for other classes")
    add("--out", metavar="DIR", help="folder for the network; default: runs/RECIPE")
    add("--resume", action="store_true", help="continue the run in the folder of --out")
    add("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="change settings of the recipe")
    _add_device(parser)


def _eval(every: Any) -> None:
    parser, add = _command(
        every, "eval", commands.evaluate,
        "measure the accuracy of a network, or the stability of its explanations, under an attack",
        "fastinterp eval runs/mnist-small-int --dataset mnist --data-dir data \\\n"
        "      --eps 0 0.1 0.2 0.3 --steps 200 --out int.json",
    )
    _add_model_and_data(parser)
    add("--n", "--images", dest="n", type=count_or_all, default=0, metavar="N",
        help="number of test images, chosen as in the paper, or all; default: 200 (isa: 100), or "
             "all if there are fewer")
    _add_batch_size(add)
    add("--out", metavar="FILE.json", help="also write the table as JSON")
    _add_attack(parser.add_argument_group("attack").add_argument)
    _add_maps(parser.add_argument_group("attacks on explanations (aai, isa)").add_argument)


def _add_attack(add: Callable[..., Any]) -> None:
    names = ", ".join(MEASURES)
    add("--attack", default="pgd", choices=tuple(MEASURES), metavar="NAME",
        help=f"{names}; default: %(default)s")
    add("--eps", nargs="+", type=number, metavar="E",
        help="one or more attack sizes, as numbers or fractions such as 8/255; default: those of "
             "Table 3 of the paper for linf (digits: 0 to 0.15), and the published size for "
             "jpeg-*, gabor, snow, fog and elastic, which have units of their own")
    add("--steps", nargs="+", type=count, metavar="K",
        help="attack steps; default: 200, for pgd with --protocol best or autoattack 100")
    add("--step-size", type=number, metavar="S",
        help=f"{USUAL_STEP}, eps / sqrt(steps) for jpeg-*, gabor, snow, fog and elastic")
    add("--norm", choices=NORMS, metavar="P",
        help=f"norm of the eps-ball: {', '.join(NORMS)}; default: linf. For isa the norm of the "
             "discrepancy: l1 or l2; default: both")
    protocols = ". ".join(f"{one.name}: {one.about}" for one in PROTOCOLS.values())
    add("--protocol", default="paper", choices=tuple(PROTOCOLS), metavar="NAME",
        help=f"{protocols}. For aai and isa, best is the worst map, or the lowest discrepancy, of "
             "each image under several attacks. default: %(default)s")
    add("--threat-model", choices=tuple(THREAT_MODELS), metavar="NAME",
        help=f"RobustBench's settings: {', '.join(THREAT_MODELS)}; all test images, eps 0 and the "
             "leaderboard's eps and norm, protocol autoattack")
    add("--seed", type=seed,
        help="seed of the random starts; default: 0 (aai: the paper's starts). For isa the seed of "
             "the choice of images; default: the paper's")
    add("--samples", type=count, metavar="N",
        help="for a random network: attack and judge the mean of N passes, such as 20")


def _add_maps(add: Callable[..., Any]) -> None:
    add("--interpreter", choices=tuple(INTERPRETERS), metavar="NAME",
        help=f"explanation method: {', '.join(CLASS_WISE)} or, for isa only, repr; default: cam. "
             "ig takes 100 steps, with softplus instead of ReLU")
    add("--classes", choices=CLASS_SETS, metavar="SET",
        help=f"isa: whose maps are compared: {', '.join(CLASS_SETS)}; default: each of these")
    add("--kind", choices=AAI_KINDS, metavar="KIND",
        help=f"aai: what the attack changes: {', '.join(AAI_KINDS)}; default: topk")
    add("--k", type=count, metavar="K", help="aai: number of top positions of a map; default: 8")
    add("--hinge", type=number, metavar="LAMBDA",
        help="aai: weight of the penalty on a changed prediction, eq. (7), such as 10; the best "
             "step with the same prediction counts; default: 0, no penalty, as in the paper")


def _explain(every: Any) -> None:
    parser, add = _command(
        every, "explain", commands.explain,
        "draw the explanations of images before and after an attack",
        "fastinterp explain runs/mnist-small-int --dataset mnist --data-dir data \\\n"
        "      --n 4 --eps 0.3 --out maps.png",
    )
    _add_model_and_data(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--n", type=count, default=4, metavar="N",
        help="number of test images, chosen as in the paper; default: %(default)s")
    which.add_argument("--indices", nargs="+", type=index, metavar="I",
        help="positions of the test images")
    _add_eps_and_norm(add, "size of the attack")
    add("--steps", type=count, default=40, metavar="K", help="attack steps; default: %(default)s")
    add("--step-size", type=number, metavar="S", help=USUAL_STEP)
    add("--target", default="runner-up", metavar="T",
        help="the class that the attack aims at: runner-up (the most probable wrong class), random "
             "(as in the paper), or the name or number of a class; default: %(default)s")
    add("--interpreter", default="cam", choices=CLASS_WISE, metavar="NAME",
        help=f"explanation method: {', '.join(CLASS_WISE)}; default: %(default)s")
    add("--out", required=True, metavar="FILE.png", help="the picture: .png, .pdf or .svg")


def _audit(every: Any) -> None:
    parser, add = _command(
        every, "audit", commands.audit,
        "check whether a network only hides its gradients instead of being robust\n"
        "(exit code 1 if a check fails)",
        "fastinterp audit runs/mnist-small-int --dataset mnist --data-dir data \\\n"
        "      --transfer-from runs/mnist-small-normal --out audit.json",
    )
    _add_model_and_data(parser)
    _add_eps_and_norm(add, "attack size that the network should withstand")
    add("--steps", nargs="+", type=count, default=[1, 10, 40, 100], metavar="K",
        help="numbers of attack steps to compare; default: 1 10 40 100")
    add("--transfer-from", metavar="MODEL",
        help="another network, whose adversarial images are also tried on this one")
    add("--n", "--images", dest="n", type=count, default=200, metavar="N",
        help="number of test images, chosen as in the paper; default: %(default)s")
    _add_batch_size(add)
    add("--out", metavar="FILE.json", help="also write the checks as JSON")


def _reproduce(every: Any) -> None:
    parser, add = _command(
        every, "reproduce", commands.reproduce,
        "measure a table or figure of the paper and show it beside the paper's numbers",
        "fastinterp reproduce table3 --networks networks --data-dir data --only mnist \\\n"
        "      --out table3.json\n"
        "  fastinterp reproduce figA1 --train quick --data-dir data --out figA1.png",
    )
    add("name", nargs="?", metavar="NAME", help="such as table3 or fig3 (see --list)")
    add("--list", action="store_true", help="list the tables and figures and exit")
    add("--networks", metavar="DIR",
        help="folder with the released .pkl files, or with runs of `fastinterp train`; --train "
             "writes new runs there (default: runs/networks)")
    add("--train", nargs="?", const="full", choices=("full", "quick"), metavar="full|quick",
        help="first train the networks that are missing: full (default) by the paper's recipes, "
             "quick by short recipes, for MNIST Small only, whose numbers do not compare with the "
             "paper's; an interrupted training continues")
    _add_data_dir(parser)
    add("--only", nargs="+", default=[], metavar="WORD",
        help="data sets, architectures or methods to measure, such as: cifar10 int")
    add("--interpreters", nargs="+", default=[], choices=TABLE1, metavar="NAME",
        help=f"table1: rows to measure: {', '.join(TABLE1)}; default: all. ig takes longest by far")
    add("--n", "--images", dest="n", type=count, metavar="N",
        help="number of test images, the first of the paper's 200; default: 200 (table1: 100, for "
             "restricted_imagenet 4)")
    add("--out", metavar="FILE",
        help="FILE.json for the results, which a second run continues; a table is also written as "
             "Markdown, a figure as a picture. For a figure also FILE.png, .pdf or .svg; default: "
             "NAME.png")
    _add_device(parser)


def _doctor(every: Any) -> None:
    about = "show the versions, kernels and GPUs, and what to do about anything missing"
    _command(every, "doctor", commands.doctor, about, "fastinterp doctor")


def _add_model_and_data(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODEL",
        help="a .safetensors file, a released .pkl file, or the folder of a training run; or, with "
             f"--weights, one of {SOURCES}")
    parser.add_argument("--dataset", required=True, type=dataset, metavar="NAME",
        help=", ".join(DATASETS))
    _add_data_dir(parser)
    _add_download(parser)
    _add_source(parser, "which may be a run's folder")
    parser.add_argument("--transform", default="whole", choices=TRANSFORMS, metavar="NAME",
        help=f"what is done to images of folders: {', '.join(TRANSFORMS)}; default: %(default)s, "
             "which squeezes each picture into 224x224")
    parser.add_argument("--workers", type=index, default=0, metavar="N",
        help="processes that read images of folders; default: %(default)s, this one")
    _add_device(parser)


def _add_source(parser: Parser, weights: str) -> None:
    add = parser.add_argument_group(f"networks by name: {SOURCES}").add_argument
    add("--num-classes", type=count, metavar="C",
        help="default: those of the weights that fastinterp wrote, else of the data set")
    for name in ("mean", "std"):
        add(f"--{name}", nargs="+", type=float, metavar="X",
            help=f"{name} of each channel, by which images in [0, 1] are normalised inside the "
                 "network; default: the library's own for three channels, else none")
    add("--weights", metavar="FILE.safetensors", help=f"the network's weights, {weights}")
    add("--arguments", nargs="+", type=argument, default=[], metavar="KEY=VALUE",
        help="further arguments of the network, such as global_pool=avg for timm's ViTs")


def _add_batch_size(add: Callable[..., Any]) -> None:
    add("--batch-size", type=count, default=100, metavar="B",
        help="images attacked at a time; default: %(default)s")


def _add_eps_and_norm(add: Callable[..., Any], what: str) -> None:
    add("--eps", type=number, metavar="E",
        help=f"{what}, such as 0.1 or 8/255; default for linf: 0.3 (colour images: 8/255, digits: "
             "0.1)")
    add("--norm", default="linf", choices=NORMS, metavar="P",
        help=f"norm of the eps-ball: {', '.join(NORMS)}; default: %(default)s")


def _add_data_dir(parser: Parser) -> None:
    parser.add_argument("--data-dir", metavar="DIR",
        help="folder of the data set; digits needs none")


def _add_download(parser: Parser) -> None:
    parser.add_argument("--download", action="store_true",
        help="let torchvision download the data set into DIR if it is not there")


def _add_device(parser: Parser) -> None:
    parser.add_argument("--device", metavar="NAME",
        help="cpu, cuda, cuda:1, ...; default: a GPU if there is one")
