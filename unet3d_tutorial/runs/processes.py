"""Several processes that train one network together: who is who, and means over all of them.

``msrun`` starts the processes; each works on its own share of every batch. After a backward pass
the gradients are averaged, so that all processes make the same change to the same weights (data
parallelism).
"""

import unet3d_tutorial.environment  # noqa: F401

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mindspore import Parameter, Tensor, communication, ops

from ..config import TrainConfig


@dataclass(frozen=True)
class Group:
    """The processes of a run. Alone, every mean is the value itself."""

    rank_size: int = 1  #: processes in all
    rank_id: int = 0  #: this one, from 0
    local_rank: int = 0  #: this one among those on its host

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank_id == 0

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sum of an array over all processes, float32.

        Every process must call it, and it returns when all have.
        """
        if self.rank_size == 1:
            return values
        return _all_reduce(Tensor(values.astype(np.float32))).asnumpy()

    def mean_gradients(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """Mean of each gradient over all processes.

        They are sent as one long vector: one message instead of a hundred.
        """
        if self.rank_size == 1:
            return gradients
        vector = ops.concat([gradient.reshape(-1) for gradient in gradients])
        mean = _all_reduce(vector) / self.rank_size
        pieces = ops.split(mean, [int(gradient.size) for gradient in gradients])
        return tuple(
            piece.reshape(gradient.shape) for piece, gradient in zip(pieces, gradients, strict=True)
        )

    def average(self, parameters: Sequence[Parameter]) -> None:
        """Replace each parameter by its mean over all processes.

        That is for batch-norm's statistics, which no gradient moves.
        """
        if self.rank_size == 1 or not parameters:
            return
        means = self.mean_gradients([parameter.value() for parameter in parameters])
        for parameter, mean in zip(parameters, means, strict=True):
            # A copy: batch-norm cannot update what is a part of a longer vector.
            parameter.set_data(mean + 0)

    def wait(self) -> None:
        """Return when all processes have come this far."""
        self.sum(np.zeros(1))


ALONE = Group()


def started_by_msrun() -> bool:
    """Whether ``msrun`` started this process.

    It is then a worker, or the scheduler that introduces the workers to each other.
    """
    return "MS_ROLE" in os.environ


def join(options: TrainConfig) -> Group:
    """Find the other processes, if ``msrun`` started any. The device must be set before.

    Raises ``ValueError`` if ``train.run_distribute`` asks for company and there is none.
    """
    if not started_by_msrun():
        if options.run_distribute:
            raise ValueError(
                "train.run_distribute: expected a start by msrun, as in "
                "msrun --worker_num=2 --local_worker_num=2 $(which unet3d) train; found none"
            )
        return ALONE
    communication.init()  # the scheduler stays in here until all workers have ended
    return Group(
        rank_size=communication.get_group_size(),
        rank_id=communication.get_rank(),
        local_rank=communication.get_local_rank(),
    )


def own_device(options: TrainConfig) -> int | None:
    """Number of the device to use; None leaves it to MindSpore, on CPU and under ``msrun``."""
    if started_by_msrun() or options.device_target == "CPU":
        return None
    return options.device_id


def _all_reduce(values: Tensor) -> Tensor:
    return ops.AllReduce()(values)
