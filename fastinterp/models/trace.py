"""The feature map inside a network of any shape, found by tracing its forward pass (torch.fx)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn


@dataclass
class Traced:
    """A network's forward pass up to its feature map, in train and in eval mode.

    The graphs run the network's own layers. Tensors that they read directly are bound when this is
    made; `bind` does so again after a move to another device or dtype.
    """

    train: fx.GraphModule
    eval: fx.GraphModule

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        return (self.train if module.training else self.eval)(x)  # type: ignore[no-any-return]

    def bind(self, module: nn.Module) -> Traced:
        """The same for another network that is built alike, or for the same one elsewhere."""
        return Traced(*(fx.GraphModule(module, part.graph) for part in (self.train, self.eval)))


def trace(trial: nn.Module, probe: Tensor, explains: Callable[[Tensor], bool]) -> Traced | None:
    """Cut a forward pass off at its last tensor that `explains` accepts.

    Args:
        trial: a network in eval mode; both modes are traced, and the graphs are its own.
        probe: images that it runs on.
        explains: a result of some step -> whether the logits are explained by it.

    Returns:
        None where no step will do, or the network cannot be traced: its path depends on values.
    """
    # Here, as importing it takes a second.
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    try:
        names = get_graph_node_names(trial, suppress_diff_warning=True)
        found = _last(trial, probe, names[1], explains)
        if found is None or found not in names[0]:
            return None
        cut = create_feature_extractor(trial, [found], suppress_diff_warning=True)
    except Exception:  # another library's code, and tracing it, may raise anything
        return None
    graphs = (_plain(graph) for graph in (cut.train_graph, cut.eval_graph))
    return Traced(*(fx.GraphModule(trial, graph) for graph in graphs))


def _last(
    trial: nn.Module, probe: Tensor, names: list[str], explains: Callable[[Tensor], bool]
) -> str | None:
    from torchvision.models.feature_extraction import create_feature_extractor

    steps = create_feature_extractor(
        trial, train_return_nodes=[], eval_return_nodes=names, suppress_diff_warning=True
    )
    with torch.no_grad():
        results = steps.eval()(probe)
    for name in reversed(names):
        result = results.get(name)
        if isinstance(result, Tensor) and explains(result):
            return name
    return None


def _plain(graph: fx.Graph) -> fx.Graph:
    """The graph, giving a tensor in the place of a dictionary that holds it."""
    (end,) = (node for node in graph.nodes if node.op == "output")
    (made,) = end.args[0].values()
    end.args = (made,)
    return graph
