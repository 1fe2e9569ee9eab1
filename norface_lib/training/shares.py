"""What several processes that train together do beyond exchanging gradients."""

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import nn

from norface_lib.common.devices import processes


def new_accelerator() -> Accelerator:
    """What joins this process to those that train with it."""
    processes()  # with the patience of this project, before accelerate chooses its own
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(device_placement=False, kwargs_handlers=[unused])


def check_shares(name: str, batch: int, accumulate: int, accelerator: Accelerator) -> None:
    """Says how the processes share a ``batch`` of samples; raises ``ValueError`` if they cannot do
    so evenly: the gradients of their shares count alike."""
    count = accelerator.num_processes
    if batch % count:
        raise ValueError(
            f"{count} processes cannot share batches of {batch} samples evenly; choose a "
            f"batch_size that is a multiple of {count}"
        )
    if count > 1 and accelerator.is_main_process:
        print(
            f"{name}: {count} processes x {batch // count} samples x {accumulate} passes: "
            f"an effective batch of {batch * accumulate}"
        )


def means(figures: dict[str, float], accelerator: Accelerator) -> dict[str, float]:
    """Figures of a step, the means over all processes."""
    values = torch.tensor(list(figures.values()), device=accelerator.device)
    return dict(zip(figures, accelerator.reduce(values, "mean").tolist(), strict=True))


def take_from_first(model: nn.Module, accelerator: Accelerator) -> None:
    """Gives every process the network of the first: statistics of batches, which are no parameters,
    are those of each process's share."""
    if accelerator.num_processes > 1:
        for value in model.state_dict().values():
            torch.distributed.broadcast(value, 0)
