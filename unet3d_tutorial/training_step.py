"""One training step: compute the gradient, process it, and update the weights.

Weights get new values by ``ops.assign`` here, never by ``Parameter.set_data``. The latter gives
them new memory, but the optimiser, compiled at its first step, would still update the old memory.
"""

import unet3d_tutorial.environment  # noqa: F401

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from .config import TrainConfig
from .model import half_precision
from .runs.checkpoints import RunState
from .runs.processes import ALONE, Group

#: image ``(N, C, D, H, W)`` and label ``(N, K, D, H, W)``
Batch: TypeAlias = tuple[Tensor, Tensor]
#: the loss to minimise, and values that are only reported
Losses: TypeAlias = tuple[Tensor, ...]
#: from logits and label to losses; see :mod:`unet3d_tutorial.losses`
LossFunction: TypeAlias = Callable[[Tensor, Tensor], Losses]

SLOW_HALF = (
    "train.mixed_precision: a CPU takes longer in 16 bits than in 32 bits; "
    "use it on a GPU or on Ascend"
)
SCALE_GROWS_AFTER = 1000  #: steps without overflow after which the dynamic loss scale is doubled


def make_gradients(
    network: nn.Cell, loss_fn: LossFunction, weights: Sequence[Parameter]
) -> Callable[[Tensor, Tensor], tuple[Losses, tuple[Tensor, ...]]]:
    """Make a function that returns the losses of a batch and the gradient of the first one.

    It takes image and label, and returns the result of ``loss_fn``, and a tuple with one gradient
    for each of the ``weights``.
    """

    def forward(image: Tensor, label: Tensor) -> Losses:
        return loss_fn(network(image), label)

    return ops.value_and_grad(forward, None, weights, has_aux=True)


def make_train_step(
    network: nn.Cell, loss_fn: LossFunction, optimizer: nn.Optimizer
) -> Callable[[Tensor, Tensor], Losses]:
    """Make a function that takes a batch and updates the weights once.

    It returns the result of ``loss_fn``: loss, cross-entropy and Dice loss.
    """
    loss_and_gradients = make_gradients(network, loss_fn, optimizer.parameters)

    def train_step(image: Tensor, label: Tensor) -> Losses:
        losses, gradients = loss_and_gradients(image, label)
        optimizer(gradients)
        return losses

    return train_step


class TrainStep:
    """A training step with all options of ``config.train``.

    With the default options it does the same as :func:`make_train_step`. ``state`` keeps the loss
    scale, and counts the steps that were skipped because a gradient overflowed.
    """

    def __init__(
        self,
        network: nn.Cell,
        loss_fn: LossFunction,
        optimizer: nn.Optimizer,
        options: TrainConfig,
        state: RunState,
        group: Group = ALONE,
    ) -> None:
        self.network = network
        self.loss_fn = loss_fn
        self.optimizer = optimizer
        self.options = options
        self.state = state
        self.group = group
        if options.mixed_precision:
            half_precision(network)  # float16 except for batch-norm; the loss gets float32
            if ms.get_context("device_target") == "CPU" and group.leads:
                print(SLOW_HALF, flush=True)
        self.is_scaled = options.loss_scale != 1 or options.dynamic_loss_scale
        self.scale = state.loss_scale  #: loss scale of the last step
        self.norm = 0.0  #: length of the gradient of the last step
        self.loss_and_gradients = make_gradients(
            network, self._scaled_loss if self.is_scaled else loss_fn, optimizer.parameters
        )
        self.statistics = [p for p in network.get_parameters() if not p.requires_grad]

    def __call__(self, batches: Sequence[Batch]) -> np.ndarray:
        """Update the weights once, from one batch or several.

        Returns the mean results of the loss function in one array: loss, cross-entropy, Dice loss
        and, if the loss function gives them, the Dice loss of each class.

        Raises ``FloatingPointError``, and does not change the weights, if loss or gradient is not
        finite. With a loss scale, a step whose gradient overflows is skipped instead. Checking the
        loss alone would not be enough, because ``relu`` turns NaN into 0.
        """
        losses, gradients = self._accumulate(batches)
        gradients = self.group.mean_gradients(gradients)
        self.group.average(self.statistics)

        self.scale = self.state.loss_scale
        self.norm = gradient_norm(gradients) / self.scale
        is_finite = bool(np.isfinite(self.norm))
        # With a loss scale, a gradient that overflows is expected now and then.
        if not np.isfinite(losses[0]) or not (is_finite or self.is_scaled):
            raise FloatingPointError(
                f"the loss is {losses[0]:.3g}, the length of its gradient {self.norm:.3g}"
            )
        if self.is_scaled:
            self._adapt_scale(is_finite)
        if is_finite:
            self._change_weights(gradients)
        return losses

    def _scaled_loss(self, logits: Tensor, label: Tensor) -> Losses:
        loss, *parts = self.loss_fn(logits, label)
        return loss * self.state.loss_scale, *parts

    def _accumulate(self, batches: Sequence[Batch]) -> tuple[np.ndarray, Sequence[Tensor]]:
        """Means of losses and of gradients over the batches."""
        losses, gradients = self.loss_and_gradients(*batches[0])
        sums = as_one_array(losses)
        for batch in batches[1:]:
            losses, more = self.loss_and_gradients(*batch)
            sums += as_one_array(losses)
            gradients = tuple(a + b for a, b in zip(gradients, more, strict=True))
        if len(batches) > 1:
            gradients = tuple(gradient / len(batches) for gradient in gradients)
        if self.is_scaled:
            sums[0] /= self.state.loss_scale
        return sums / len(batches), gradients

    def _adapt_scale(self, is_finite: bool) -> None:
        """Count a skipped step, and adapt a dynamic loss scale.

        See Micikevicius et al., Mixed Precision Training, 2018.
        """
        state = self.state
        state.skipped += not is_finite
        if not self.options.dynamic_loss_scale:
            return
        if not is_finite:
            state.loss_scale = max(state.loss_scale / 2, 1.0)
            state.scale_age = 0
            return
        state.scale_age += 1
        if state.scale_age == SCALE_GROWS_AFTER:
            state.loss_scale *= 2
            state.scale_age = 0

    def _change_weights(self, gradients: Sequence[Tensor]) -> None:
        """Undo the loss scale, clip the gradient, decay the weights, and run the optimiser."""
        clip = self.options.clip_norm
        shortening = clip / self.norm if clip and self.norm > clip else 1.0
        factor = shortening / self.scale
        if factor != 1:
            gradients = tuple(gradient * factor for gradient in gradients)
        self._decay()
        self.optimizer(gradients)

    def _decay(self) -> None:
        """Decay the weights of convolutions, but not biases and slopes.

        See Loshchilov and Hutter, 2019 (AdamW), algorithm 2.
        """
        if not self.options.weight_decay:
            return
        rate = float(self.optimizer.get_lr().asnumpy())
        for weight in self.optimizer.parameters:
            if weight.ndim > 1:
                ops.assign(weight, weight.value() * (1 - rate * self.options.weight_decay))


def as_one_array(values: Sequence[Tensor]) -> np.ndarray:
    """Concatenate scalars and vectors to one float64 array."""
    arrays = [np.ravel(value.asnumpy()) for value in values]
    return np.concatenate(arrays).astype(np.float64)


def gradient_norm(gradients: Sequence[Tensor]) -> float:
    """Euclidean length of all gradients together, as one vector.

    Computed in NumPy, because a hundred small kernels would take far longer.
    """
    squares = 0.0
    for gradient in gradients:
        vector = gradient.asnumpy().ravel()
        squares += float(np.vdot(vector, vector))
    return float(np.sqrt(squares))


class MovingAverage:
    """Exponential moving average of all weights and running statistics of a network.

    After each step it is ``decay * average + (1 - decay) * weight``. A decay of 0 switches it off:
    nothing is stored, and the network computes with its weights.
    """

    def __init__(self, network: nn.Cell, decay: float) -> None:
        self.decay = decay
        self.weights = list(network.get_parameters()) if decay else []
        self.parameters = [
            # Adding 0 makes a copy.
            Parameter(weight.value() + 0, name=weight.name, requires_grad=False)
            for weight in self.weights
        ]

    def update(self) -> None:
        """Move the averages towards the weights as they are after a step."""
        for average, weight in zip(self.parameters, self.weights, strict=True):
            ops.assign(average, average.value() * self.decay + weight.value() * (1 - self.decay))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within this context the network computes with the averages."""
        own_values = [weight.value() + 0 for weight in self.weights]
        for weight, average in zip(self.weights, self.parameters, strict=True):
            ops.assign(weight, average.value())
        try:
            yield
        finally:
            for weight, value in zip(self.weights, own_values, strict=True):
                ops.assign(weight, value)
