"""The learning rate of every step: a linear warm-up, then half a cosine down to zero."""

import math


def warmup_cosine(
    *, lr: float, total_steps: int, warmup_step: int, warmup_ratio: float = 0.0
) -> list[float]:
    """Return the learning rate of each of ``total_steps`` steps.

    In the first ``warmup_step`` steps the rate rises linearly from ``warmup_ratio * lr`` to ``lr``.
    It then follows ``lr * (1 + cos(pi * t)) / 2`` with ``t`` from 0 to 1 over the *remaining*
    steps, so that it ends close to zero (Loshchilov and Hutter, SGDR, 2017, equation 5, without
    restarts).

    Raises ``ValueError`` if the warm-up is not shorter than the run, the rate is not positive, or
    the ratio is not from 0 to 1.

    >>> [round(rate, 2) for rate in warmup_cosine(lr=1.0, total_steps=6, warmup_step=2)]
    [0.0, 0.5, 1.0, 0.85, 0.5, 0.15]
    """
    if not lr > 0:
        raise ValueError(f"lr: expected positive, found {lr}")
    if not 0 <= warmup_ratio <= 1:
        raise ValueError(f"warmup_ratio: expected from 0 to 1, found {warmup_ratio}")
    if not 0 <= warmup_step < total_steps:
        raise ValueError(
            f"warmup_step: expected at least 0 and below total_steps = {total_steps}, "
            f"found {warmup_step}"
        )

    rates = []
    for step in range(warmup_step):
        rise = (1 - warmup_ratio) * step / warmup_step
        rates.append(lr * (warmup_ratio + rise))
    cosine_steps = total_steps - warmup_step
    for step in range(cosine_steps):
        t = step / cosine_steps
        rates.append(lr * (1 + math.cos(math.pi * t)) / 2)
    return rates


def warmup_steps(*, epochs: float, steps_per_epoch: float) -> int:
    """Convert a warm-up in epochs, as the case's text gives it, to steps.

    The result is rounded, and at least 1 unless ``epochs`` is 0. An epoch need not have a whole
    number of steps, because one step may use volumes of two epochs. Raises ``ValueError`` if either
    argument is negative.

    >>> warmup_steps(epochs=3, steps_per_epoch=40)
    120
    """
    if epochs < 0 or steps_per_epoch < 0:
        raise ValueError(
            "warm-up: expected epochs and steps per epoch of at least 0, "
            f"found {epochs} and {steps_per_epoch}"
        )
    if epochs == 0:
        return 0
    return max(round(epochs * steps_per_epoch), 1)


def case_cosine(
    *, lr: float, total_steps: int, warmup_step: int, warmup_ratio: float = 0.0
) -> list[float]:
    """Return the rates of the original case's formula, to compare with :func:`warmup_cosine`.

    Its cosine is stretched over *all* steps but begins after the warm-up, so the run ends before
    the rate is close to zero. The arguments are those of :func:`warmup_cosine`.
    """
    rates = warmup_cosine(
        lr=lr, total_steps=total_steps, warmup_step=warmup_step, warmup_ratio=warmup_ratio
    )
    for step in range(warmup_step, total_steps):
        angle = math.pi * (step - warmup_step) / total_steps
        rates[step] = lr * (1 + math.cos(angle)) / 2
    return rates
