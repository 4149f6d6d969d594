"""Interpreters: a network and images -> maps of the evidence for each class."""

from .base import Classes, FeatureInterpreter, Interpreter, logits_and_maps
from .cam import CAM
from .distance import (
    MarginBound,
    interpretability_discrepancy,
    map_distance,
    margin_bound,
    weighted_discrepancy,
)
from .gradcam import GradCAM, GradCAMPlusPlus
from .gradient import Gradient, GuidedBackprop, SmoothGrad
from .integrated import IntegratedGradients, integrated_gradients
from .representation import Repr
from .rise import RISE
from .upsample import upsample

__all__ = [
    "CAM",
    "RISE",
    "Classes",
    "FeatureInterpreter",
    "GradCAM",
    "GradCAMPlusPlus",
    "Gradient",
    "GuidedBackprop",
    "IntegratedGradients",
    "Interpreter",
    "MarginBound",
    "Repr",
    "SmoothGrad",
    "integrated_gradients",
    "interpretability_discrepancy",
    "logits_and_maps",
    "map_distance",
    "margin_bound",
    "upsample",
    "weighted_discrepancy",
]
