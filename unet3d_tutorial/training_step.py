"""One step of training: gradient, what may be done to it on its way, and the change of the weights.

Weights get new values by ``ops.assign`` here, never by ``Parameter.set_data``: that gives them
other memory, and the optimiser, compiled at its first step, goes on to change the old one.
"""

import unet3d_tutorial.environment  # noqa: F401

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from .config import TrainConfig
from .model import half_precision
from .runs.checkpoints import RunState
from .runs.processes import ALONE, Group

Batch = tuple[Tensor, Tensor]
SLOW_HALF = "train.mixed_precision: a processor takes longer in 16 bits than in 32; it pays on a GPU or on Ascend"
GROWTH = 1000  #: steps without overflow after which the dynamic loss scale is doubled


def make_gradients(network: nn.Cell, loss_fn: nn.Cell, weights: Sequence[Parameter]):
    """A function that takes a batch and returns what ``loss_fn`` gives, and the gradient of the
    first of it.
    """

    def forward(image: Tensor, label: Tensor):
        return loss_fn(network(image), label)

    return ops.value_and_grad(forward, None, weights, has_aux=True)


def make_train_step(network: nn.Cell, loss_fn: nn.Cell, optimizer: nn.Optimizer):
    """A function that takes a batch, changes the weights once and returns loss, cross-entropy and
    Dice loss.
    """
    loss_and_gradients = make_gradients(network, loss_fn, optimizer.parameters)

    def train_step(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        losses, gradients = loss_and_gradients(image, label)
        optimizer(gradients)
        return losses

    return train_step


class TrainStep:
    """The step with everything that ``config.train`` may put around it; with the defaults it is
    :func:`make_train_step`.

    ``state`` keeps the loss scale and counts the steps that were skipped because a gradient
    overflowed.
    """

    def __init__(
        self,
        network: nn.Cell,
        loss_fn: nn.Cell,
        optimizer: nn.Optimizer,
        options: TrainConfig,
        state: RunState,
        group: Group = ALONE,
    ):
        self.network = network
        self.optimizer = optimizer
        self.options = options
        self.state = state
        self.group = group
        self.scaling = options.loss_scale != 1 or options.dynamic_loss_scale
        if options.mixed_precision:
            half_precision(network)  # all but batch-norm in 16 bits; the loss gets 32
            if ms.get_context("device_target") == "CPU" and group.leads:
                print(SLOW_HALF, flush=True)
        self.loss_fn = loss_fn
        self.scale = state.loss_scale
        self.norm = 0.0
        self.loss_and_gradients = make_gradients(
            network, self._scaled if self.scaling else loss_fn, optimizer.parameters
        )
        self.statistics = [p for p in network.get_parameters() if not p.requires_grad]

    def __call__(self, batches: Sequence[Batch]) -> np.ndarray:
        """Change the weights once, from one batch or several; return the means of all that the loss
        function gives.

        That is loss, cross-entropy, Dice loss and, if it tells them, the Dice loss of each class,
        in one array.

        Raises ``FloatingPointError``, and leaves the weights alone, if loss or gradient is not
        finite. The loss alone does not tell: ``relu`` makes a zero of a number that is none.
        """
        losses, gradients = self._accumulate(batches)
        gradients = self.group.mean_gradients(gradients)
        self.group.average(self.statistics)
        self.scale = self.state.loss_scale
        self.norm = gradient_norm(gradients) / self.scale
        finite = bool(np.isfinite(self.norm))
        if not np.isfinite(losses[0]) or not (finite or self.scaling):
            raise FloatingPointError(
                f"the loss is {losses[0]:.3g}, the length of its gradient {self.norm:.3g}"
            )
        if not self.scaling or self._watch_scale(finite):
            factor = self._factor()
            if factor != 1:
                gradients = tuple(g * factor for g in gradients)
            self._decay()
            self.optimizer(gradients)
        return losses

    def _scaled(self, logits: Tensor, label: Tensor):
        loss, *parts = self.loss_fn(logits, label)
        return loss * self.state.loss_scale, *parts

    def _accumulate(self, batches: Sequence[Batch]) -> tuple[np.ndarray, Sequence[Tensor]]:
        """Means over the batches."""
        losses, gradients = self.loss_and_gradients(*batches[0])
        sums = in_a_row(losses)
        for batch in batches[1:]:
            losses, more = self.loss_and_gradients(*batch)
            sums += in_a_row(losses)
            gradients = tuple(a + b for a, b in zip(gradients, more, strict=True))
        if len(batches) > 1:
            gradients = tuple(g / len(batches) for g in gradients)
        if self.scaling:
            sums[0] /= self.state.loss_scale
        return sums / len(batches), gradients

    def _factor(self) -> float:
        """What to multiply the gradients by: undo the loss scale, then clip."""
        clip = self.options.clip_norm
        return (clip / self.norm if clip and self.norm > clip else 1.0) / self.scale

    def _watch_scale(self, finite: bool) -> bool:
        """Count an overflow; move a dynamic loss scale (Micikevicius et al., Mixed Precision
        Training, 2018).

        Returns whether the step may be done.
        """
        state = self.state
        state.skipped += not finite
        if self.options.dynamic_loss_scale:
            state.scale_age = state.scale_age + 1 if finite else 0
            if not finite:
                state.loss_scale = max(state.loss_scale / 2, 1.0)
            elif state.scale_age == GROWTH:
                state.loss_scale, state.scale_age = state.loss_scale * 2, 0
        return finite

    def _decay(self) -> None:
        """Shrink the weights of convolutions a little (Loshchilov and Hutter, Decoupled Weight
        Decay, 2019, algorithm 2).
        """
        if self.options.weight_decay:
            rate = float(self.optimizer.get_lr().asnumpy())
            for weight in self.optimizer.parameters:
                if weight.ndim > 1:
                    ops.assign(weight, weight.value() * (1 - rate * self.options.weight_decay))


def in_a_row(values: Sequence[Tensor]) -> np.ndarray:
    """Numbers and vectors behind each other in one array, float64."""
    return np.concatenate([np.ravel(value.asnumpy()) for value in values]).astype(np.float64)


def gradient_norm(gradients: Sequence[Tensor]) -> float:
    """Length of all gradients as one vector.

    In NumPy, in place: a hundred small kernels cost far more.
    """
    arrays = (g.asnumpy().ravel() for g in gradients)
    return float(np.sqrt(sum(float(np.vdot(a, a)) for a in arrays)))


class MovingAverage:
    """Exponential moving average of all weights and statistics of a network:

    ``decay * average + (1 - decay) * weight``.
    """

    def __init__(self, network: nn.Cell, decay: float):
        self.weights = list(network.get_parameters())
        self.decay = decay
        self.parameters = (
            [Parameter(p.value() + 0, name=p.name, requires_grad=False) for p in self.weights]
            if decay
            else []
        )

    def update(self) -> None:
        for average, weight in zip(self.parameters, self.weights, strict=False):
            ops.assign(average, average.value() * self.decay + weight.value() * (1 - self.decay))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """For a while the network computes with the averages."""
        own = [p.value() + 0 for p in self.weights] if self.parameters else []
        for weight, average in zip(self.weights, self.parameters, strict=False):
            ops.assign(weight, average.value())
        try:
            yield
        finally:
            for weight, value in zip(self.weights, own, strict=False):
                ops.assign(weight, value)
