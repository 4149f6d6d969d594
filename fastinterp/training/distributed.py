"""One training run on several processes: shares of a batch, averaged gradients, equal settings.

Gradients are averaged by one flat all-reduce of our own and not by DistributedDataParallel: the
passes of a step go through folded networks, IG-Norm differentiates twice, and one exchange carries
the gradients, the running statistics and what the step measured. All other work of a step, the
search for x' above all, needs no exchange.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset

from .._utils import processes
from .._utils.errors import InputError
from .batches import Batch, Batches, LoaderBatches
from .result import StepResult
from .seeds import derive


class Share(NamedTuple):
    """The images of this process in a batch that all processes train on together.

    Attributes:
        first: how many images of the batch come before them.
        images: how many images the batch has.
    """

    first: int
    images: int


def rows_of_share(images: int) -> slice:
    """Which of the images of a batch this process takes: equal parts, or one more in the first."""
    each, more = divmod(images, processes.world())
    number = processes.rank()
    first = number * each + min(number, more)
    return slice(first, first + each + (number < more))


def exchange_share(images: int) -> Share:
    """The share of a process that has so many images, where no one knows the others' numbers."""
    every = processes.gather(images)
    return Share(sum(every[: processes.rank()]), sum(every))


def require_same(settings: dict[str, Any], model: nn.Module) -> None:
    """Raise in every process unless all train the same network with the same settings.

    On GPUs each must have one of its own. Afterwards all have the first one's weights.
    """
    if processes.world() == 1:
        return
    network = [(name, tuple(v.shape), str(v.dtype)) for name, v in model.state_dict().items()]
    device = next(model.parameters()).device
    every = processes.gather((settings, network, device.type, _place(device)))
    for number, (theirs, tensors, kind, _) in enumerate(every):
        for name in sorted(every[0][0].keys() | theirs.keys()):
            one, other = every[0][0].get(name), theirs.get(name)
            if one != other:
                raise InputError(
                    f"Process 0 trains with {name} = {one!r} and process {number} with {other!r}; "
                    "start all processes of a run with the same settings."
                )
        if tensors != every[0][1] or kind != every[0][2]:
            raise InputError(
                f"Process {number} trains another network than process 0, or on another kind of "
                "device; build the same network in all processes of a run."
            )
    places = [place for *_, place in every]
    if device.type == "cuda" and len(set(places)) < len(places):
        raise InputError(
            f"Two processes of this run share the GPU {device}; start at most as many on a machine "
            "as it has GPUs, and move the network to the device cuda, which is each one's own."
        )
    with torch.no_grad(), processes.reaching_all():
        for value in chain(model.parameters(), model.buffers()):
            torch.distributed.broadcast(value.data, src=0)


def _place(device: torch.device) -> tuple[str, str]:
    import socket

    index = torch.cuda.current_device() if device.type == "cuda" and device.index is None else None
    return socket.gethostname(), str(device if index is None else torch.device("cuda", index))


def average(model: nn.Module, result: StepResult, share: Share) -> StepResult:
    """Add the processes' gradients, and return what all measured together.

    Each process's loss is the sum over its images by the whole batch's number, so that gradients
    only add up, however unequal the shares are. Running statistics become means over the images.

    Args:
        result: of this process's images.
    """
    weight = result.images / share.images
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    running = [b for b in model.buffers() if b.is_floating_point()]
    correct = result.clean_correct, result.robust_correct
    measured = [result.loss, *(count.to(result.loss) for count in correct if count is not None)]
    with torch.no_grad():
        weighted = [buffer * weight for buffer in running]
        whole = add_up([*gradients, *weighted, *measured])
        for old, new in zip([*gradients, *running], whole, strict=False):
            old.copy_(new)
    loss, clean, *robust = whole[len(gradients) + len(running) :]
    return StepResult(loss, clean, robust[0] if robust else None, share.images)


def add_up(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sums of all processes' tensors, in one exchange."""
    flat = processes.add_up(torch.cat([one.reshape(-1) for one in tensors]))
    parts = torch.split(flat, [one.numel() for one in tensors])
    return [part.view(one.shape) for part, one in zip(parts, tensors, strict=True)]


def can_capture() -> bool:
    """Whether a CUDA graph can hold the exchange: nccl's can be captured, gloo's cannot."""
    return processes.world() == 1 or "nccl" in torch.distributed.get_backend_config()


def seed_randomness(seed: int, step: int) -> None:
    """Let layers such as dropout draw other numbers in every process, the same after a resume."""
    if processes.rank() > 0:
        torch.manual_seed(derive(seed, f"process {processes.rank()}", step))


def share_out(batches: Batches, seed: int) -> Batches:
    """Let this process's epochs hold its share of each batch alone.

    Raises:
        InputError: batches are smaller than the number of processes.
    """
    if processes.world() == 1:
        return batches
    if isinstance(batches, LoaderBatches):
        return LoaderShares(batches, seed)
    assert batches.batch_size is not None
    if batches.batch_size < processes.world():
        raise InputError(
            f"batch_size must be at least the number of processes, {processes.world()}, which "
            f"share out each batch, got {batches.batch_size}."
        )
    batches.part = rows_of_share(batches.batch_size)
    return batches


def share_of(batches: Batches) -> Share | None:
    """The share that each batch is, if it is the same for all of them."""
    if processes.world() == 1 or isinstance(batches, LoaderBatches):
        return None
    assert batches.batch_size is not None
    return Share(batches.part.start, batches.batch_size)


class LoaderShares(LoaderBatches):
    """This process's share of the batches of a loader.

    A DataLoader that draws from its data set by index gives each process its rows of each batch, in
    an order that depends on (seed, epoch) alone. One with a DistributedSampler or of an iterable
    data set, and any other iterable, gives each process its own images already, batch by batch; one
    that ends early takes no images from then on.
    """

    def __init__(self, whole: LoaderBatches, seed: int) -> None:
        vars(self).update(vars(whole))
        loader, self.seed = whole.loader, seed
        self.own = (
            not isinstance(loader, DataLoader)
            or isinstance(loader.sampler, DistributedSampler)
            or isinstance(loader.dataset, IterableDataset)
        )
        if self.own:
            if self.images_per_epoch is not None:
                self.images_per_epoch *= processes.world()
            return
        if loader.batch_sampler is None:
            raise InputError(
                f"{self.name}: on several processes the DataLoader must make batches; give it a "
                "batch_size."
            )
        self.sampler = _Shares(loader.batch_sampler, seed)
        self.generator = torch.Generator()  # of the workers' seeds
        self.loader = DataLoader(
            loader.dataset,
            batch_sampler=self.sampler,  # type: ignore[arg-type]
            generator=self.generator,
            **{name: getattr(loader, name) for name in _KEPT},
        )

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        if not self.own:
            self.sampler.epoch = epoch
            purpose = f"workers of process {processes.rank()}"
            self.generator.manual_seed(derive(self.seed, purpose, epoch))
        left, (x, y) = self.steps - start, (torch.empty(0), torch.empty(0))
        for x, y in super().epoch(epoch, start):
            yield x, y
            left -= 1
        for _ in range(left):
            yield x[:0], y[:0]

    def once(self) -> Iterator[Batch]:
        for number, (x, y) in enumerate(super().once()):
            empty = not self.own and number in self.sampler.empty
            yield (x[:0], y[:0]) if empty else (x, y)


_KEPT = ["num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn", "prefetch_factor"]
_KEPT += ["persistent_workers", "multiprocessing_context"]


class _Shares:
    """The indices of this process in each batch of a sampler, in an order that all draw alike."""

    def __init__(self, batches: BatchSampler | Any, seed: int) -> None:
        self.batches, self.seed, self.epoch = batches, seed, 0
        self.empty: set[int] = set()  # batches without an image for this process

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Sequence[Any]]:
        generator = getattr(getattr(self.batches, "sampler", None), "generator", None)
        seed = derive(self.seed, "order", self.epoch)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if isinstance(generator, torch.Generator):
                generator.manual_seed(seed)
            drawn = [list(batch) for batch in self.batches]
        self.empty = {i for i, batch in enumerate(drawn) if len(batch) <= processes.rank()}
        for batch in drawn:
            yield batch[rows_of_share(len(batch))] or batch[:1]  # a loader takes no empty batch
