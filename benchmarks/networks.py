"""How networks of timm and torchvision are served: writes the table of docs/networks.md.

python -m benchmarks.networks [NAME ...]

Every network has random weights and 10 classes. With names, only their rows are printed.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastinterp import InputError, models
from fastinterp.interpreters import CAM, IntegratedGradients

PAGE = Path(__file__).resolve().parents[1] / "docs" / "networks.md"
BEGIN, END = "<!-- table: python -m benchmarks.networks -->", "<!-- end -->"
HEADER = ["network", "class activation maps", "largest error", "integrated gradients"]
AVG = {"global_pool": "avg"}
NO_HEAD = {"use_mlp_head": False}

TORCHVISION = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3",
    "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18",
    "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vgg11_bn",
    "vit_b_32",
)  # fmt: skip
TIMM: tuple[tuple[str, dict[str, Any]], ...] = (
    ("beit_base_patch16_224", {**AVG, "depth": 2}),
    ("caformer_s18", {}),
    ("caformer_s18", NO_HEAD),
    ("cait_xxs24_224", {}),
    ("coat_tiny", {}),
    ("coatnet_nano_rw_224", {}),
    ("convformer_s18", NO_HEAD),
    ("convmixer_768_32", {}),
    ("convnext_atto", {}),
    ("convnextv2_atto", {}),
    ("crossvit_tiny_240", {}),
    ("cspresnet50", {}),
    ("darknet53", {}),
    ("deit3_small_patch16_224", AVG),
    ("deit_tiny_distilled_patch16_224", {}),
    ("deit_tiny_patch16_224", {}),
    ("deit_tiny_patch16_224", AVG),
    ("densenet121", {}),
    ("dla34", {}),
    ("edgenext_xx_small", {}),
    ("efficientformer_l1", {}),
    ("efficientnet_b0", {}),
    ("efficientvit_b0", {}),
    ("eva02_tiny_patch14_224", {}),
    ("eva02_tiny_patch14_224", AVG),
    ("fastvit_t8", {}),
    ("focalnet_tiny_srf", {}),
    ("gcvit_xxtiny", {}),
    ("ghostnet_050", {}),
    ("gmlp_ti16_224", {}),
    ("hardcorenas_a", {}),
    ("hrnet_w18_small", {}),
    ("lcnet_050", {}),
    ("levit_128s", {}),
    ("maxvit_rmlp_pico_rw_256", {}),
    ("mixer_s32_224", {}),
    ("mobilenetv3_small_050", {}),
    ("mobilevit_xxs", {}),
    ("mobilevitv2_050", {}),
    ("nf_resnet50", {}),
    ("pit_ti_224", {}),
    ("poolformer_s12", {}),
    ("pvt_v2_b0", {}),
    ("regnety_002", {}),
    ("repvgg_a0", {}),
    ("resmlp_12_224", {}),
    ("resnet18", {}),
    ("resnetv2_50", {}),
    ("rexnetr_200", {}),
    ("sequencer2d_s", {}),
    ("swin_tiny_patch4_window7_224", {}),
    ("swinv2_tiny_window8_256", {}),
    ("tinynet_e", {}),
    ("twins_pcpvt_small", {}),
    ("vgg11", {}),
    ("vit_tiny_patch16_224", {}),
    ("vit_tiny_patch16_224", AVG),
    ("volo_d1_224", {}),
    ("xcit_nano_12_p16_224", {}),
)


def networks(wanted: list[str]) -> list[tuple[str, str, dict[str, Any]]]:
    """(library, name, arguments) of each row."""
    rows = [("torchvision", name, dict[str, Any]()) for name in TORCHVISION]
    rows += [("timm", name, arguments) for name, arguments in TIMM]
    return [row for row in rows if not wanted or row[1] in wanted]


def build(library: str, name: str, arguments: dict[str, Any]) -> tuple[nn.Module, Tensor]:
    """A network in eval mode and two images that it takes."""
    torch.manual_seed(0)
    side = {"inception_v3": 299, "vit_b_32": 224}.get(name, 128)
    size = (3, side, side)
    if library == "timm":
        import timm

        module = timm.create_model(name, pretrained=False, num_classes=10, **arguments)
        size = tuple(module.default_cfg["input_size"])
    else:
        import torchvision

        more = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
        module = getattr(torchvision.models, name)(num_classes=10, **more)
    for part in module.modules():
        if isinstance(part, nn.Linear) and not bool(part.weight.any()):  # some heads begin as zero
            nn.init.normal_(part.weight, std=0.05)
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.momentum = None
    # Without statistics of its own a deep network of random weights gives the same for all images.
    with torch.no_grad():
        module.train()(torch.rand(2, *size))
    return module.eval(), torch.rand(2, *size)


def row(library: str, name: str, arguments: dict[str, Any]) -> list[str]:
    module, x = build(library, name, arguments)
    given = "".join(f", {key}={value!r}" for key, value in arguments.items())
    cells = [f"`{library}:{name}{given}`"]
    try:
        wrapped = models.wrap(module)
        with torch.no_grad():
            logits = module(x)
            maps = CAM(wrapped)(x).sum(dim=(2, 3))
            total = maps if wrapped.bias is None else maps + wrapped.bias
            error = float((total - logits).abs().max() / logits.abs().max())
        cells += ["exact", f"{error:.0e}"]
    except InputError as refusal:
        cells += [f"none: {reason(str(refusal))}", "-"]
    with torch.no_grad():
        maps = IntegratedGradients(module, steps=2)(x[:1], 0)
    return [*cells, "yes" if bool(maps.isfinite().all() & (maps != 0).any()) else "NO"]


def reason(refusal: str) -> str:
    """The first sentence of a refusal, up to its advice."""
    return refusal.split(";")[0].split(". ")[0].rstrip(".").replace("|", "/")


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write(lines: list[str]) -> None:
    """Put the rows so far into the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END, 1)[1]
    exact = sum("| exact |" in one for one in lines)
    count = f"Of these {len(lines) - 2} networks {exact} have exact class activation maps."
    table = "\n".join([BEGIN, count, "", *lines, END])
    PAGE.write_text(f"{before}{table}{after}", encoding="utf-8")


def main(wanted: list[str]) -> None:
    warnings.simplefilter("ignore")
    lines = [line(HEADER), line(["---"] * len(HEADER))]
    failed = []
    for library, name, arguments in networks(wanted):
        try:
            lines.append(line(row(library, name, arguments)))
        except Exception as error:  # another library's code may raise anything
            failed.append(f"{library}:{name}: {error!r}"[:300])
            print(failed[-1], flush=True)
            continue
        print(lines[-1], flush=True)
        if not wanted:
            write(lines)
    if failed:
        sys.exit("These could not be tried:\n" + "\n".join(failed))


if __name__ == "__main__":
    main(sys.argv[1:])
