"""Processes that train one model together, as torchrun starts them."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from finsight.errors import LostError, ParamsError

if TYPE_CHECKING:  # pydantic is not on every GPU image
    from finsight.params.train import LaunchParams


@dataclass(frozen=True, slots=True)
class World:
    """This process among the others.

    :param sharded: whether weights and optimizer state are divided among them.
    :param first: whether this process speaks and writes for all. That is not rank 0: machines are ranked as they meet, and the outputs
        belong on the one that is called the first.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    sharded: bool = False
    first: bool = True


ALONE = World()


def launched() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


@contextmanager
def joined(device: str, launch: LaunchParams) -> Iterator[World]:
    """The world of this process: that of torchrun, or itself alone.

    :raises RuntimeError: when fewer processes meet than torchrun announced.
    :raises LostError: when another process ends or can't be reached any more while this one needs it.
    """
    if not launched():
        yield ALONE
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    _end_with_the_launcher()
    if device == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise ParamsError(f"train.launch.processes: more than the {torch.cuda.device_count()} GPUs of this machine")
        torch.cuda.set_device(local_rank)
    try:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
        if dist.get_world_size() != int(os.environ["WORLD_SIZE"]):
            raise RuntimeError(f"{dist.get_world_size()} processes met, {os.environ['WORLD_SIZE']} were started")
        first = launch.node_rank == 0 and local_rank == 0
        yield World(dist.get_rank(), dist.get_world_size(), local_rank, launch.sharded, first)
        # Only where all is well. One that fails keeps its connections until it ends, so that it ends before those that lose it by that, and
        # the launcher hears the reason first; NCCL would wait here for the others, which wait for this one.
        dist.destroy_process_group()
    except RuntimeError as error:
        # Gloo's are plain: "[…/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.2]:31245. This is typically caused by …".
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        said = str(error).partition("\n")[0].rpartition("] ")[2].partition(". ")[0]
        raise LostError(f"train: another process is gone ({said[:200]}); the same command goes on from the last state") from None


def _end_with_the_launcher() -> None:
    """Let the kernel kill this process when the one that started it dies: what is left of a killed run would race the next."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def shard(model: nn.Module, device: torch.device) -> None:
    """Divide the weights among the processes, layer by layer (FSDP)."""
    mesh = dist.device_mesh.init_device_mesh(device.type, (dist.get_world_size(),))
    for layers in [module for module in model.modules() if isinstance(module, nn.ModuleList)]:
        for layer in layers:
            fully_shard(layer, mesh=mesh)
    # The root too is gathered anew for each pass: its weights are exchanged for their average and back between two.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


def add_up(world: World, tensors: Sequence[torch.Tensor]) -> None:
    """Replace each tensor by its sum over all processes, in one message."""
    if world.size > 1:
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


def any_of(world: World, yes: bool) -> bool:
    """Whether it is so for any process; all get the same answer."""
    if world.size == 1:
        return yes
    votes = torch.tensor([float(yes)], device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(votes)
    return bool(votes.item())


State = tuple[dict[str, torch.Tensor], dict[str, Any]]
"""Tensors by name, and notes that JSON can hold."""


def from_any(world: World, found: State | None) -> State | None:
    """What one of the processes has found, in all of them; the first's own, if it has. So machines need no folder in common."""
    if world.size == 1:
        return found
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    votes = torch.zeros(world.size, device=device)
    votes[world.rank] = (1 + world.first) * (found is not None)
    dist.all_reduce(votes)
    source, (tensors, notes) = int(votes.argmax()), found or ({}, {})
    if not votes[source]:
        return None
    kinds = {name: (list(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for name, tensor in tensors.items()}
    head = torch.tensor(list(json.dumps([kinds, notes]).encode()), dtype=torch.uint8, device=device)
    length = torch.tensor([len(head)], device=device)
    dist.broadcast(length, source)
    head = head if world.rank == source else torch.empty(int(length), dtype=torch.uint8, device=device)
    dist.broadcast(head, source)
    kinds, notes = json.loads(bytes(head.tolist()))
    received = {}
    for name, (shape, kind) in kinds.items():
        tensor = tensors[name].to(device) if world.rank == source else torch.empty(shape, dtype=getattr(torch, kind), device=device)
        dist.broadcast(tensor, source)
        received[name] = tensor.cpu()
    return received, notes


def agreed(world: World, digest: str) -> bool:
    """Whether all processes say the same; texts of one length."""
    if world.size == 1:
        return True
    mine = torch.tensor(list(digest.encode()), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    limits = torch.stack([mine, -mine])
    dist.all_reduce(limits, dist.ReduceOp.MAX)
    return bool((limits[0] == -limits[1]).all())


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, gathered from all processes where it is divided."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of the tensor, where it is divided."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def fill(tensor: torch.Tensor, content: torch.Tensor) -> None:
    """Copy ``content``, which is whole, into a tensor that may be divided."""
    if isinstance(tensor, DTensor):
        content = distribute_tensor(content.to(tensor.device), tensor.device_mesh, tensor.placements)
    tensor.copy_(content)
