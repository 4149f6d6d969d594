"""Measure robustness: accuracy over eps by two protocols, maps under attack, and an audit.

python examples/evaluate.py
"""

from fastinterp import data, evaluation
from fastinterp.interpreters import CAM
from fastinterp.training import load_recipe, run_recipe

recipe = load_recipe("digits-small-int", {"epochs": 10, "eps_schedule": (100, 200)})
model = run_recipe(recipe, progress=False).model
test = data.load("digits", split="test").subset(slice(0, 100))
x, y = test.float(), test.labels

# "paper" makes figures comparable with the paper; "best" is the stronger attack: report that one.
for protocol in ("paper", "best"):
    rows = evaluation.sweep(model, x, y, eps=[0, 0.05, 0.1], steps=[20], protocol=protocol)
    print(f"\nprotocol {protocol}")
    print(evaluation.text_table(*evaluation.accuracy_table(rows)))

# Kendall's tau between the maps of clean and attacked images whose prediction did not change.
(row,) = evaluation.aai_sweep(model, CAM(model), x, y, eps=[0.1], steps=20)
print(f"\nKendall's tau under an attack on the maps: {row['kendall_tau']:.3f}")

# Signs that a network hides its gradients instead of being robust.
checks = evaluation.audit(model, x, y, eps=0.1, steps=(1, 10, 40))
print("\n" + evaluation.text_table(*evaluation.audit_table(checks)))
