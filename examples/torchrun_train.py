"""Train on several processes: DistributedDataParallel around Int's loss.

    torchrun --nproc_per_node 2 examples/torchrun_train.py

The search for x' runs on the bare network inside the loss; DDP averages the gradients.
"""

import os
import sys

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from fastinterp import IntLoss, data, models


class NetworkAndLoss(nn.Module):
    """What DDP wraps: one forward pass of it is the loss of a batch."""

    def __init__(self, network: nn.Module, loss: IntLoss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.loss(self.network, x, y)


epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
gpus = torch.cuda.is_available()
dist.init_process_group("nccl" if gpus else "gloo")
rank, local = dist.get_rank(), int(os.environ["LOCAL_RANK"])
device = torch.device("cuda", local) if gpus else torch.device("cpu")

digits = data.load("digits", split="train")
sampler = DistributedSampler(digits, seed=0)
loader = DataLoader(digits, batch_size=25, sampler=sampler)
network = models.small(seed=0).to(device)
# A seed for each process: random starts differ between their images.
loss = IntLoss(eps=0.1, steps=7, step_size=0.03, seed=rank, eps_schedule=(200, 600))
together = DistributedDataParallel(NetworkAndLoss(network, loss))
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

for epoch in range(epochs):
    sampler.set_epoch(epoch)
    for x, y in loader:
        optimizer.zero_grad()
        value = together(x.to(device), y.to(device))
        value.backward()
        optimizer.step()
    if rank == 0:
        print(f"epoch {epoch + 1}: loss {value.item():.3f}", flush=True)
if rank == 0:
    models.save(network, "runs/example-ddp.safetensors")
dist.destroy_process_group()
