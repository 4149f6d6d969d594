"""Draw what a network sees in clean and attacked images, and measure how far its maps move.

python examples/explain.py
"""

from pathlib import Path

from fastinterp import PGD, data, evaluation
from fastinterp.interpreters import (
    CAM,
    GradCAM,
    IntegratedGradients,
    interpretability_discrepancy,
    margin_bound,
)
from fastinterp.training import load_recipe, run_recipe

recipe = load_recipe("digits-small-normal", {"epochs": 10})
model = run_recipe(recipe, progress=False).model
test = data.load("digits", split="test").subset(slice(0, 6))
x, y = test.float(), test.labels

x_adv = PGD(model, eps=0.1, step_size=0.025, steps=10)(x, y)
targets = model(x_adv).argmax(dim=1)
for interpreter in (CAM(model), GradCAM(model), IntegratedGradients(model, steps=20)):
    distance = interpretability_discrepancy(interpreter, x, x_adv, y, targets)  # eq. (4), [N]
    print(f"{type(interpreter).__name__}: the maps move by {distance.mean():.3f} in l1")

# Proposition 1: where x' changes the prediction, the maps must move by half the margin at least.
bound = margin_bound(CAM(model), x, x_adv)
print(f"images whose prediction changed: {int(bound.fooled.sum())} of {len(x)}")
print(f"margin / 2 {bound.margin.mean() / 2:.3f} <= discrepancy {bound.discrepancy.mean():.3f}")

Path("runs").mkdir(exist_ok=True)
found = evaluation.explain(model, x, y, eps=0.1)
evaluation.draw_explanations(found, "runs/example-maps.png", test.classes)
print("the picture: runs/example-maps.png")
