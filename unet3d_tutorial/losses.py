"""Losses on logits ``(N, K, D, H, W)``: Dice, cross-entropy, and their sum.

Labels are one-hot, of the logits' shape, or class numbers ``(N, D, H, W)`` or ``(N, 1, D, H, W)``
of any integer type. Logits of 16 bits are taken as float32 first: a sum over the voxels of a crop
does not fit into float16, which ends at 65504.
"""

import unet3d_tutorial.environment  # noqa: F401

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from .config import LOSSES, one_of


def softmax(logits: Tensor) -> Tensor:
    """Probabilities: softmax over the class axis, same shape."""
    return ops.Softmax(axis=1)(logits)


def log_softmax(logits: Tensor) -> Tensor:
    """Logarithm of the softmax over the class axis; same shape, finite for any finite logits."""
    return _log_of_softmax(logits, softmax(logits))


def _log_of_softmax(logits: Tensor, p: Tensor) -> Tensor:
    """Logarithm of ``p = softmax(logits)``; finite for any finite logits.

    Where ``p`` is near the smallest float32 number, its logarithm is not exact, and MindSpore's
    ``LogSoftmax`` is used instead. On CPU that operation is off by up to 5e-6. Twice as much is
    added to it, so that it is the smaller of the two only for such tiny ``p``.
    """
    exact = ops.log(p + 1e-35)
    always_finite = ops.LogSoftmax(axis=1)(logits) + 1e-5
    return ops.minimum(exact, always_finite)


def sum_over_classes(x: Tensor) -> Tensor:
    """Sum over the classes, repeated for each class, so that it has the shape of ``x``.

    Computed as a product with matrices of ones, which is several times faster in MindSpore on CPU
    than ``sum(axis=1)``.
    """
    n, k = x.shape[:2]
    ones = ops.ones((n, k, k), x.dtype)
    return ops.BatchMatMul()(ones, x.reshape((n, k, -1))).reshape(x.shape)


def soft_dice(probabilities: Tensor, target: Tensor, smooth: float) -> Tensor:
    """Dice coefficient of each class over the whole batch, ``(K,)``.

    ``probabilities`` and the one-hot ``target`` are ``(N, K, D, H, W)``. The denominator has
    squares (Milletari et al., V-Net, 2016, section 3). ``smooth`` is added to numerator and
    denominator, so the Dice of a class that is absent from both is 1. This is the plain formula,
    for reading and for comparison; :class:`DiceLoss` computes the same from logits, faster.
    """
    overlap = sum_over_voxels(probabilities * target).sum(0)
    size = sum_over_voxels(probabilities * probabilities + target * target).sum(0)
    return (2 * overlap + smooth) / (size + smooth)


def sum_over_voxels(x: Tensor) -> Tensor:
    """Sum over all axes but the first two: ``(N, K, ...) -> (N, K)``.

    Computed as the row sums of a matrix, which is fastest in MindSpore on CPU.
    """
    n, k = x.shape[:2]
    return x.reshape((n * k, -1)).sum(1).reshape((n, k))


class ClassSums(nn.Cell):
    """The sums over voxels that every loss is made of, one for each sample and class.

    Takes logits and one-hot labels. With probabilities ``p = softmax(logits)`` and labels ``t`` it
    returns three tensors ``(N, K)``:

    - the overlap, the sum of ``p * t``;
    - the size, the sum of ``p * p``, or of ``p`` unless ``squared``;
    - the log-likelihood, the sum of ``t * log(p)``.

    A fourth result, ``p`` itself, is for :meth:`bprop` only. The gradient is written by hand there:
    automatic differentiation of the softmax takes several times as long on CPU.
    """

    def __init__(self, squared: bool = True) -> None:
        super().__init__()
        self.squared = squared

    def construct(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        p = softmax(logits)
        overlap = sum_over_voxels(p * target)
        size = sum_over_voxels(p * p if self.squared else p)
        log_likelihood = sum_over_voxels(target * _log_of_softmax(logits, p))
        return overlap, size, log_likelihood, p

    def bprop(
        self, logits: Tensor, target: Tensor, out: tuple, dout: tuple
    ) -> tuple[Tensor, Tensor]:
        """Gradient of the logits, from the gradients ``dout`` of the sums; zero for the labels.

        If ``g`` is the gradient of ``log(p)``, the gradient of the logits is ``g - p * sum(g)``,
        with the sum over the classes.
        """
        n, k = logits.shape[:2]
        target = target.reshape((n, k, -1))
        p = out[3].reshape((n, k, -1))
        of_overlap = scale_classes(p * target, dout[0])
        of_size = scale_classes(2 * p * p if self.squared else p, dout[1])
        of_log_likelihood = scale_classes(target, dout[2])
        g = of_overlap + of_size + of_log_likelihood
        for_logits = (g - p * sum_over_classes(g)).reshape(logits.shape)
        for_labels = ops.zeros_like(target).reshape(logits.shape)
        return for_logits, for_labels


def scale_classes(x: Tensor, factors: Tensor) -> Tensor:
    """Multiply each class of ``(N, K, V)`` by its factor in ``(N, K)``.

    Computed as a product with diagonal matrices, which is fast on CPU.
    """
    n, k = factors.shape
    diagonal = ops.eye(k, k, x.dtype) * factors.reshape((n, 1, k))
    return ops.BatchMatMul()(diagonal, x)


def in_float32(logits: Tensor) -> Tensor:
    """The logits as float32; unchanged if they already are."""
    return logits if logits.dtype == ms.float32 else logits.astype(ms.float32)


def as_one_hot(labels: Tensor, logits: Tensor) -> Tensor:
    """Labels in the logits' shape: one-hot labels unchanged, class numbers as float32 one-hot.

    Raises ``ValueError`` if the shapes do not fit, and for a class number outside 0 to ``K - 1``.
    """
    if logits.ndim != 5:
        raise ValueError(f"logits: expected five axes (N, K, D, H, W), found shape {logits.shape}")
    if labels.shape == logits.shape:
        return labels
    n, k, *size = logits.shape
    is_class_numbers = labels.shape in ((n, *size), (n, 1, *size))
    if not is_class_numbers or labels.is_floating_point():
        raise ValueError(
            f"labels: expected one-hot of the logits' shape {logits.shape}, or integers of shape "
            f"{(n, *size)}, found {labels.dtype} of shape {labels.shape}"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= k:
        raise ValueError(f"labels: expected class numbers from 0 to {k - 1}, found {low} to {high}")
    classes = ops.arange(k).reshape((1, k, 1, 1, 1))
    return (labels.reshape((n, 1, *size)) == classes).astype(ms.float32)


class DiceLoss(nn.Cell):
    """``1 - Dice`` on softmax probabilities, one Dice for each class. Takes logits and labels.

    Dice is ``(2 * overlap + smooth) / (size + smooth)``. Here ``size`` is the size of the
    probabilities plus that of the labels: the sum of their squares (Milletari et al., V-Net, 2016),
    or of the values themselves if not ``squared`` (Dice, 1945). Where a class is absent from both,
    ``smooth`` makes Dice 1 and keeps the gradient finite.

    With ``batch``, sums are taken over all samples before the division, so a structure that is
    missing from one crop does no harm. Without it, each sample has its own Dice. Without
    ``include_background``, class 0 is left out. The result is a scalar if ``reduction`` is
    ``"mean"`` or ``"sum"``. If it is ``"none"``, the result has one entry for each class that
    counts: ``(K,)``, or ``(N, K)`` without ``batch``. Other reductions raise ``ValueError``.

    The default equals MONAI's ``DiceLoss(softmax=True, squared_pred=True, batch=True,
    smooth_nr=smooth, smooth_dr=smooth)``.
    """

    def __init__(
        self,
        smooth: float = 1.0,
        *,
        squared: bool = True,
        batch: bool = True,
        include_background: bool = True,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction: expected mean, sum or none, found {reduction!r}")
        self.smooth = smooth
        self.squared = squared
        self.batch = batch
        self.first_class = 0 if include_background else 1
        self.reduction = reduction
        self.sums = ClassSums(squared)

    def construct(self, logits: Tensor, target: Tensor) -> Tensor:
        logits = in_float32(logits)
        target = as_one_hot(target, logits)
        overlap, size, _, _ = self.sums(logits, target)
        return self.from_sums(overlap, size, target)

    def from_sums(self, overlap: Tensor, size: Tensor, target: Tensor) -> Tensor:
        """The loss from overlap and size, as :class:`ClassSums` gives them."""
        return self.reduce(self.of_each_class(overlap, size, target))

    def of_each_class(self, overlap: Tensor, size: Tensor, target: Tensor) -> Tensor:
        """The loss before its reduction: ``(K,)``, or ``(N, K)`` without ``batch``."""
        size = size + sum_over_voxels(target * target if self.squared else target)
        if self.batch:
            overlap, size = overlap.sum(0), size.sum(0)
        dice = (2 * overlap + self.smooth) / (size + self.smooth)
        return (1 - dice)[..., self.first_class :]

    def reduce(self, loss: Tensor) -> Tensor:
        """Mean or sum over all entries, or no change, depending on ``reduction``."""
        if self.reduction == "none":
            return loss
        return loss.mean() if self.reduction == "mean" else loss.sum()


class CrossEntropyLoss(nn.Cell):
    """Cross-entropy: mean over all voxels of minus the log-probability of the true class.

    Takes logits and labels; returns a scalar.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sums = ClassSums()

    def construct(self, logits: Tensor, target: Tensor) -> Tensor:
        logits = in_float32(logits)
        _, _, log_likelihood, _ = self.sums(logits, as_one_hot(target, logits))
        return -log_likelihood.sum() / count_voxels(logits)


class DiceCELoss(nn.Cell):
    """Weighted sum: ``lambda_dice * Dice loss + lambda_ce * cross-entropy``.

    Takes logits and labels; returns the sum, the cross-entropy and the Dice loss. All share one
    softmax. With ``per_class`` there is a fourth result, the Dice loss of each class before its
    reduction, at almost no cost. ``options`` are those of :class:`DiceLoss`; cross-entropy always
    includes the background. Raises ``ValueError`` for ``reduction="none"``.
    """

    def __init__(
        self,
        smooth: float = 1.0,
        *,
        lambda_dice: float = 1.0,
        lambda_ce: float = 1.0,
        per_class: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.per_class = per_class
        self.dice = DiceLoss(smooth, **options)
        if self.dice.reduction == "none":
            raise ValueError(
                "reduction: expected mean or sum, found 'none', "
                "which leaves no single number to minimise"
            )
        self.lambda_dice = lambda_dice
        self.lambda_ce = lambda_ce

    def construct(self, logits: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        logits = in_float32(logits)
        target = as_one_hot(target, logits)
        overlap, size, log_likelihood, _ = self.dice.sums(logits, target)
        ce = -log_likelihood.sum() / count_voxels(logits)
        dice_of_each_class = self.dice.of_each_class(overlap, size, target)
        dice = self.dice.reduce(dice_of_each_class)
        total = self.lambda_ce * ce + self.lambda_dice * dice
        if self.per_class:
            return total, ce, dice, dice_of_each_class
        return total, ce, dice


def count_voxels(logits: Tensor) -> int:
    """Number of voxels of a batch, ``N * D * H * W``."""
    return logits.size // logits.shape[1]


def make_loss(name: str, *, per_class: bool = False) -> DiceCELoss:
    """The loss of a training run by its name, one of ``LOSSES``.

    It is always a :class:`DiceCELoss` with this ``per_class``. For ``DiceLoss`` and
    ``CrossEntropyLoss``, the other term has weight 0 and is only reported. Raises ``ValueError``
    for an unknown name and suggests the nearest known one.
    """
    one_of("train.loss", name, LOSSES)
    return DiceCELoss(
        lambda_dice=0.0 if name == "CrossEntropyLoss" else 1.0,
        lambda_ce=0.0 if name == "DiceLoss" else 1.0,
        per_class=per_class,
    )
