"""Train a robust network by its explanations, watch it under attack, and load the best epoch.

python examples/train_int.py
"""

import sys

from fastinterp import PGD, IntTrainer, data, models

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 30
digits = data.load("digits", split="train")
train, val = digits.subset(slice(200, None)), digits.subset(slice(0, 200))

model = models.small(in_channels=1, num_classes=10, seed=0)
trainer = IntTrainer(model, eps=0.1, steps=7, step_size=0.03, lr=1e-3, eps_schedule=(200, 600))
history = trainer.fit(
    train,
    epochs,
    out="runs/example-int",
    resume=True,  # a run that was stopped goes on
    val_data=val,
    val_attack=PGD(model, eps=0.1, step_size=0.025, steps=10),
)
last = history[-1]
print(f"last epoch: clean {last['val_accuracy']:.3f}, attacked {last['val_robust_accuracy']:.3f}")
best = models.load("runs/example-int/best.safetensors")
print(f"the network of the best epoch has {best.num_classes} classes and is ready to use")
