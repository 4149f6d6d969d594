"""Train and explain a network of timm (or, where timm is not installed, of torchvision).

python examples/timm_network.py
"""

import torch

from fastinterp import IntTrainer, data, models
from fastinterp.interpreters import CAM, upsample

try:
    import timm

    network = timm.create_model("resnet18", num_classes=10, in_chans=3)
except ImportError:
    import torchvision

    network = torchvision.models.resnet18(num_classes=10)

# Normalisation becomes a part of the network, so that images, attacks and losses stay in [0, 1].
model = models.wrap(network, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))

digits = data.load("digits", split="train").subset(slice(0, 64))
x = digits.float().expand(-1, 3, -1, -1)  # grey images as colour images
x = torch.nn.functional.interpolate(x, size=64, mode="nearest")
y = digits.labels

trainer = IntTrainer(model, eps=4 / 255, steps=3, step_size=2 / 255, lr=1e-3)
trainer.fit((x, y), epochs=1, batch_size=16, progress=False)

model.eval()
maps = CAM(model)(x[:4], y[:4])  # [4, 1, h, w], the map of each image's class
with torch.no_grad():
    logits = model(x[:4]).gather(1, y[:4, None]).squeeze(1)
bias = model.bias[y[:4]]
print("largest gap between logits and sums of maps:",
      f"{(maps.sum(dim=(1, 2, 3)) + bias - logits).abs().max():.1e}")  # fmt: skip
print("as large as the images:", tuple(upsample(maps, x.shape[2:]).shape))
