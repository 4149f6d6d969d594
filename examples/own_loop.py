"""Use Int's loss in a training loop of your own, with any optimiser and scheduler.

python examples/own_loop.py
"""

import sys

import torch
from torch.utils.data import DataLoader

from fastinterp import PGD, IntLoss, data, models

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
loader = DataLoader(data.load("digits", split="train"), batch_size=50, shuffle=True)
model = models.small(seed=0)
loss_function = IntLoss(gamma=0.01, eps=0.1, steps=7, step_size=0.03, eps_schedule=(200, 600))
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * len(loader))

for epoch in range(epochs):
    for x, y in loader:  # x in [0, 1]
        optimizer.zero_grad()
        loss = loss_function(model, x, y)  # searches the worst x' inside, then adds gamma * D
        loss.backward()
        optimizer.step()
        scheduler.step()
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

test = data.load("digits", split="test")
x, y = test.float(), test.labels
x_adv = PGD(model.eval(), eps=0.1, step_size=0.01, steps=40)(x, y)
with torch.no_grad():
    print(f"accuracy: {(model(x).argmax(1) == y).float().mean():.3f}")
    print(f"under attack: {(model(x_adv).argmax(1) == y).float().mean():.3f}")
