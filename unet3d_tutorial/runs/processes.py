"""Several processes that train one network together: their ranks, and means over all of them.

``msrun`` starts the processes, and each works on its own share of the data. After a backward pass
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
    """The processes of a run. With one process, every mean is the value itself."""

    rank_size: int = 1  #: number of processes
    rank_id: int = 0  #: number of this process, from 0
    local_rank: int = 0  #: its number among the processes on its host

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank_id == 0

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sum an array over all processes, in float32.

        Every process must call this method; it returns when all have. With one process the array is
        returned unchanged.
        """
        if self.rank_size == 1:
            return values
        return _all_reduce(Tensor(values.astype(np.float32))).asnumpy()

    def mean_gradients(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """Average each gradient over all processes.

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

        This is for batch-norm's statistics, which have no gradients.
        """
        if self.rank_size == 1 or not parameters:
            return
        means = self.mean_gradients([parameter.value() for parameter in parameters])
        for parameter, mean in zip(parameters, means, strict=True):
            # A copy, because batch-norm cannot update a part of a longer vector.
            parameter.set_data(mean + 0)

    def wait(self) -> None:
        """Return when all processes have reached this point."""
        self.sum(np.zeros(1))


ALONE = Group()


def started_by_msrun() -> bool:
    """Whether ``msrun`` started this process.

    It is then a worker, or the scheduler that connects the workers.
    """
    return "MS_ROLE" in os.environ


def join(options: TrainConfig) -> Group:
    """Connect to the other processes, if ``msrun`` started any; set the device first.

    Raises ``ValueError`` if ``train.run_distribute`` is set, but ``msrun`` did not start this
    process.
    """
    if not started_by_msrun():
        if options.run_distribute:
            raise ValueError(
                "train.run_distribute: expected a start by msrun, as in "
                "msrun --worker_num=2 --local_worker_num=2 $(which unet3d) train; found none"
            )
        return ALONE
    communication.init()  # the scheduler returns only when all workers have ended
    return Group(
        rank_size=communication.get_group_size(),
        rank_id=communication.get_rank(),
        local_rank=communication.get_local_rank(),
    )


def own_device(options: TrainConfig) -> int | None:
    """Number of the device to use; ``None``, on CPU and under ``msrun``, lets MindSpore choose."""
    if started_by_msrun() or options.device_target == "CPU":
        return None
    return options.device_id


def _all_reduce(values: Tensor) -> Tensor:
    return ops.AllReduce()(values)
