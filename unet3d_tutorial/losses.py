"""Losses on logits ``(N, K, D, H, W)`` and one-hot labels of the same shape."""

from mindspore import Tensor, nn, ops

VOXELS = (0, 2, 3, 4)  # batch and the three axes of the volume: all but the class


def log_softmax(logits: Tensor) -> Tensor:
    """Logarithm of the softmax over the class axis, ``(N, K, D, H, W)``.

    Written out, because the backward pass of MindSpore's softmax over this axis has no fast kernel on CPU.
    """
    shifted = logits - ops.stop_gradient(logits.max(axis=1, keepdims=True))
    return shifted - ops.log(ops.exp(shifted).sum(axis=1, keepdims=True))


def soft_dice(probabilities: Tensor, target: Tensor, smooth: float) -> Tensor:
    """Dice coefficient of each class over the whole batch, ``(K,)``, with squares in the denominator.

    Milletari et al., V-Net, 2016, section 3; ``smooth`` is added above and below, so that an absent class counts 1.
    """
    overlap = (probabilities * target).sum(VOXELS)
    size = (probabilities * probabilities).sum(VOXELS) + (target * target).sum(VOXELS)
    return (2 * overlap + smooth) / (size + smooth)


class DiceLoss(nn.Cell):
    """``1 - Dice`` on softmax probabilities, mean over the classes. Takes logits and one-hot labels, gives a scalar."""

    def __init__(self, smooth: float = 1.0):
        super().__init__()
        self.smooth = smooth

    def construct(self, logits: Tensor, target: Tensor) -> Tensor:
        return (1 - soft_dice(ops.exp(log_softmax(logits)), target, self.smooth)).mean()


class CrossEntropyLoss(nn.Cell):
    """Mean over all voxels of minus the log-probability of the true class. Takes logits and one-hot labels."""

    def construct(self, logits: Tensor, target: Tensor) -> Tensor:
        n, _, d, h, w = logits.shape
        return -(log_softmax(logits) * target).sum() / (n * d * h * w)


class DiceCELoss(nn.Cell):
    """Cross-entropy plus Dice loss. Gives the sum and both parts: three scalars."""

    def __init__(self, smooth: float = 1.0):
        super().__init__()
        self.smooth = smooth

    def construct(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, _, d, h, w = logits.shape
        log_probabilities = log_softmax(logits)
        ce = -(log_probabilities * target).sum() / (n * d * h * w)
        dice = (1 - soft_dice(ops.exp(log_probabilities), target, self.smooth)).mean()
        return ce + dice, ce, dice
