"""The learning rate against values worked out by hand, and the case's formula beside it."""

import math

import pytest

from unet3d_tutorial.config import Config
from unet3d_tutorial.schedule import case_cosine, warmup_cosine, warmup_steps
from unet3d_tutorial.training import learning_rates

HALF = math.sqrt(0.5)  # cos(pi / 4)


def test_by_hand() -> None:
    rates = warmup_cosine(lr=2.0, total_steps=8, warmup_step=4, warmup_ratio=0.2)
    assert rates == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0, 1 + HALF, 1.0, 1 - HALF])


def test_the_case_by_hand() -> None:
    """Its cosine runs over all 8 steps: in the last one it is at 3 / 8 of the half turn."""
    rates = case_cosine(lr=2.0, total_steps=8, warmup_step=4, warmup_ratio=0.2)
    cosine = [1 + math.cos(math.pi * step / 8) for step in range(4)]
    assert rates == pytest.approx([0.4, 0.8, 1.2, 1.6, *cosine])
    assert rates[-1] > 1.3  # of 2: far from the end


def test_without_warmup() -> None:
    assert warmup_cosine(lr=1.0, total_steps=4, warmup_step=0) == pytest.approx(
        [1, (1 + HALF) / 2, 0.5, (1 - HALF) / 2]
    )
    assert case_cosine(lr=1.0, total_steps=4, warmup_step=0) == warmup_cosine(
        lr=1.0, total_steps=4, warmup_step=0
    )


def test_warmup_from_zero_and_from_the_full_rate() -> None:
    assert warmup_cosine(lr=3.0, total_steps=6, warmup_step=3)[:4] == pytest.approx([0, 1, 2, 3])
    assert warmup_cosine(lr=3.0, total_steps=6, warmup_step=3, warmup_ratio=1.0)[
        :4
    ] == pytest.approx([3, 3, 3, 3])


@pytest.mark.parametrize(
    ("total_steps", "warmup_step"), [(380, 20), (4390, 120), (4390, 1317), (2, 1), (1, 0)]
)
def test_shape(total_steps, warmup_step) -> None:
    rates = warmup_cosine(
        lr=5e-4, total_steps=total_steps, warmup_step=warmup_step, warmup_ratio=0.3
    )
    assert len(rates) == total_steps
    assert all(isinstance(rate, float) and 0 < rate <= 5e-4 for rate in rates)
    assert rates[warmup_step] == max(rates) == 5e-4
    assert rates[:warmup_step] == sorted(rates[:warmup_step])
    assert rates[warmup_step:] == sorted(rates[warmup_step:], reverse=True)


def test_ends_where_the_run_ends() -> None:
    """One step after the last the rate would be zero; the case stops at a fifth with its three
    epochs of ten.
    """
    options = {"lr": 1.0, "total_steps": 4390, "warmup_step": 1317}
    assert warmup_cosine(**options)[-1] == pytest.approx(
        (math.pi / (4390 - 1317) / 2) ** 2, rel=1e-3
    )
    assert case_cosine(**options)[-1] == pytest.approx((1 + math.cos(math.pi * 3072 / 4390)) / 2)
    assert case_cosine(**options)[-1] > 0.2


@pytest.mark.parametrize("schedule", [warmup_cosine, case_cosine])
@pytest.mark.parametrize(("total_steps", "warmup_step"), [(10, 10), (10, 11), (10, -1), (0, 0)])
def test_warmup_that_does_not_fit_is_refused(schedule, total_steps, warmup_step) -> None:
    with pytest.raises(ValueError, match=f"total_steps = {total_steps}, found {warmup_step}"):
        schedule(lr=1.0, total_steps=total_steps, warmup_step=warmup_step)


@pytest.mark.parametrize(
    ("epochs", "steps_per_epoch", "steps"),
    [(3, 439, 1317), (0.5, 95, 48), (0, 95, 0), (0.001, 95, 1), (2, 2.5, 5), (3, 0.5, 2)],
)
def test_warmup_in_epochs(epochs, steps_per_epoch, steps) -> None:
    assert warmup_steps(epochs=epochs, steps_per_epoch=steps_per_epoch) == steps


def test_warmup_in_epochs_is_checked() -> None:
    with pytest.raises(ValueError, match="found -1 and 10"):
        warmup_steps(epochs=-1, steps_per_epoch=10)


def test_run_warms_up_for_steps_or_for_epochs() -> None:
    config = Config.preset("quick").updated({"train": {"warmup_step": 7, "epoch_size": 4}})
    assert learning_rates(config, 40).index(config.train.lr) == 7
    assert (
        learning_rates(config.updated({"train": {"warmup_epoch": 1.5}}), 40).index(config.train.lr)
        == 15
    )
    assert (
        learning_rates(config.updated({"train": {"warmup_epoch": 2}}), 10).index(config.train.lr)
        == 5
    )
    assert (
        learning_rates(config.updated({"train": {"warmup_epoch": 2}}), 3).index(config.train.lr)
        == 2
    )
    with pytest.raises(ValueError, match="^train.warmup_epoch: expected a number of at least 0"):
        config.updated({"train": {"warmup_epoch": -1}})


@pytest.mark.parametrize(
    ("options", "name"),
    [({"lr": 0.0}, "lr"), ({"lr": -1.0}, "lr"), ({"lr": 1.0, "warmup_ratio": 1.1}, "warmup_ratio")],
)
def test_impossible_values_are_refused(options, name) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        warmup_cosine(**options, total_steps=10, warmup_step=2)
