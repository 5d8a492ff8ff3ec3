"""The losses against NumPy in double precision, against MindSpore, and where they break easily."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from unet3d_tutorial.losses import (
    CrossEntropyLoss,
    DiceCELoss,
    DiceLoss,
    log_softmax,
    make_loss,
    soft_dice,
)
from unet3d_tutorial.runs.device import setup

VOXELS = (0, 2, 3, 4)
LOSSES = [CrossEntropyLoss(), DiceLoss(), lambda logits, target: DiceCELoss()(logits, target)[0]]


@pytest.fixture(scope="module", autouse=True)
def mindspore_set_up() -> None:
    setup(seed=1)


def one_hot(classes: np.ndarray, num_classes: int = 4) -> np.ndarray:
    """``(N, D, H, W)`` class numbers to ``(N, K, D, H, W)`` float32."""
    return (classes[:, None] == np.arange(num_classes).reshape(1, -1, 1, 1, 1)).astype(np.float32)


def example(scale: float = 3.0, num_classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, one-hot labels and class numbers of two small volumes."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, num_classes, (2, 4, 5, 6))
    return (
        rng.normal(0, scale, (2, num_classes, 4, 5, 6)).astype(np.float32),
        one_hot(classes, num_classes),
        classes,
    )


def log_p(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def dice_of(p: np.ndarray, target: np.ndarray, smooth: float) -> np.ndarray:
    p, target = p.astype(np.float64), target.astype(np.float64)
    return (2 * (p * target).sum(VOXELS) + smooth) / (
        (p**2).sum(VOXELS) + (target**2).sum(VOXELS) + smooth
    )


def number(tensor: Tensor) -> float:
    assert tensor.shape == ()
    return float(tensor.asnumpy())


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("smooth", [1e-5, 1.0])
def test_against_numpy(scale, smooth) -> None:
    logits, target, _ = example(scale)
    ce = -(log_p(logits) * target).sum() / (2 * 4 * 5 * 6)
    dice_loss = (1 - dice_of(np.exp(log_p(logits)), target, smooth)).mean()
    assert number(CrossEntropyLoss()(Tensor(logits), Tensor(target))) == pytest.approx(ce, rel=1e-5)
    assert number(DiceLoss(smooth)(Tensor(logits), Tensor(target))) == pytest.approx(
        dice_loss, rel=1e-5
    )
    parts = [number(part) for part in DiceCELoss(smooth)(Tensor(logits), Tensor(target))]
    assert parts == pytest.approx([ce + dice_loss, ce, dice_loss], rel=1e-5)


@pytest.mark.parametrize("num_classes", [2, 4, 7])
def test_cross_entropy_is_mindspore_s(num_classes) -> None:
    logits, target, classes = example(num_classes=num_classes)
    expected = ops.cross_entropy(Tensor(logits), Tensor(classes.astype(np.int32)))
    assert number(CrossEntropyLoss()(Tensor(logits), Tensor(target))) == pytest.approx(
        number(expected), rel=1e-5
    )


def test_by_hand() -> None:
    """Two voxels, two classes: Dice with squares below, worked out on paper."""
    p = np.array([[0.5, 1.0], [0.5, 0.0]], np.float32).reshape(1, 2, 2, 1, 1)
    target = np.array([[1, 1], [0, 0]], np.float32).reshape(1, 2, 2, 1, 1)
    # class 0: overlap 1.5, sizes 1.25 and 2; class 1 is absent: overlap 0, sizes 0.25 and 0
    assert soft_dice(Tensor(p), Tensor(target), 0.0).asnumpy() == pytest.approx([3 / 3.25, 0])
    assert soft_dice(Tensor(p), Tensor(target), 1.0).asnumpy() == pytest.approx(
        [4 / 4.25, 1 / 1.25]
    )


def test_undecided_network_costs_the_logarithm_of_the_number_of_classes() -> None:
    _, target, _ = example()
    assert number(
        CrossEntropyLoss()(Tensor(np.zeros_like(target)), Tensor(target))
    ) == pytest.approx(np.log(4))


@pytest.mark.parametrize("sign", [1, -1])
def test_finite_at_large_logits(sign) -> None:
    _, target, _ = example()
    logits = Tensor(np.float32(sign * 1e4) * (2 * target - 1))
    for loss in LOSSES:
        value, gradient = ms.value_and_grad(lambda z, loss=loss: loss(z, Tensor(target)))(logits)
        assert np.isfinite(number(value))
        assert np.isfinite(gradient.asnumpy()).all()
    assert number(DiceLoss()(logits, Tensor(target))) == pytest.approx(
        0 if sign > 0 else 1, abs=0.05
    )
    assert number(CrossEntropyLoss()(logits, Tensor(target))) == pytest.approx(
        0 if sign > 0 else 2e4, rel=1e-3
    )


def test_log_softmax_adds_up_to_one_and_does_not_feel_a_shift() -> None:
    logits, _, _ = example()
    found = log_softmax(Tensor(logits)).asnumpy()
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found, log_p(logits), atol=1e-5)
    np.testing.assert_allclose(
        log_softmax(Tensor(logits + np.float32(1000))).asnumpy(), found, atol=1e-3
    )


def test_absent_class() -> None:
    """Not there and not predicted counts as right; a trace costs little, a spill costs all."""
    target = one_hot(np.zeros((1, 8, 8, 8), int))  # background only
    sure = Tensor(100 * target)
    value, gradient = ms.value_and_grad(DiceLoss())(sure, Tensor(target))
    assert number(value) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(gradient.asnumpy()).all()
    absent = Tensor(np.zeros((1, 1, 8, 8, 8)), ms.float32)
    for p, smooth in ((0.0, 1e-5), (0.0, 1.0), (1e-3, 1.0), (1.0, 1.0)):
        expected = smooth / (512 * p**2 + smooth)
        assert soft_dice(absent + p, absent, smooth).asnumpy()[0] == pytest.approx(
            expected, rel=1e-5
        )


def test_gradient_of_cross_entropy_is_p_minus_t() -> None:
    logits, target, _ = example()
    gradient = ms.grad(lambda z: CrossEntropyLoss()(z, Tensor(target)))(Tensor(logits)).asnumpy()
    np.testing.assert_allclose(
        gradient, (np.exp(log_p(logits)) - target) / (2 * 4 * 5 * 6), atol=1e-7
    )


def test_gradient_of_dice_against_finite_differences() -> None:
    logits, target, _ = example(scale=1.0)
    gradient = ms.grad(lambda z: DiceLoss()(z, Tensor(target)))(Tensor(logits)).asnumpy()
    for place in ((0, 0, 0, 0, 0), (0, 3, 1, 2, 3), (1, 2, 3, 4, 5)):
        values = []
        for step in (1e-4, -1e-4):
            moved = logits.astype(np.float64)
            moved[place] += step
            values.append((1 - dice_of(np.exp(log_p(moved)), target, 1.0)).mean())
        assert gradient[place] == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-3, abs=1e-8)


@pytest.mark.parametrize("sign", [1, -1])
def test_dice_loss_stays_in_its_range_where_dice_on_logits_does_not(sign) -> None:
    """Pitfall 1: on logits the loss leaves 0 to 1, or rises as a right network becomes surer."""
    _, target, _ = example()
    truth = Tensor(target)
    on_logits = [
        float((1 - soft_dice(truth * (sign * s), truth, 1.0)).mean().asnumpy())
        for s in (1.0, 4.0, 16.0)
    ]
    here = [number(DiceLoss()(truth * (sign * s), truth)) for s in (1.0, 4.0, 16.0)]
    assert all(-1e-6 <= loss <= 1 + 1e-6 for loss in here)  # rounding
    if sign > 0:
        assert on_logits == sorted(on_logits)
        assert here == sorted(here, reverse=True)
    else:
        assert min(on_logits) > 1


def test_gradient_written_by_hand_is_that_of_automatic_differentiation() -> None:
    """Against the plain formulas, differentiated by MindSpore, with uneven weights for the two
    parts.
    """
    logits, target, _ = example()
    truth = Tensor(target)

    def plain(z):
        p = ops.softmax(z, 1)
        return (
            0.3 * -(ops.log(p) * truth).sum() / (2 * 4 * 5 * 6)
            + 0.7 * (1 - soft_dice(p, truth, 1.0)).mean()
        )

    expected = ms.grad(plain)(Tensor(logits)).asnumpy()
    found = ms.grad(lambda z: DiceCELoss(lambda_ce=0.3, lambda_dice=0.7)(z, truth)[0])(
        Tensor(logits)
    ).asnumpy()
    np.testing.assert_allclose(found, expected, atol=1e-5 * abs(expected).max())


def test_gradient_goes_to_whichever_output_is_used() -> None:
    logits, target, _ = example()
    truth = Tensor(target)
    for place, alone in ((1, CrossEntropyLoss()), (2, DiceLoss())):
        expected = ms.grad(lambda z, f=alone: f(z, truth))(Tensor(logits)).asnumpy()
        found = ms.grad(lambda z, i=place: DiceCELoss()(z, truth)[i])(Tensor(logits)).asnumpy()
        assert np.array_equal(found, expected)


def test_class_numbers_and_one_hot_labels_are_the_same() -> None:
    logits, target, classes = example()
    expected = [number(part) for part in DiceCELoss()(Tensor(logits), Tensor(target))]
    for dtype in (np.uint8, np.int32, np.int64):
        for labels in (classes, classes[:, None]):
            assert [
                number(part) for part in DiceCELoss()(Tensor(logits), Tensor(labels.astype(dtype)))
            ] == expected


@pytest.mark.parametrize("wrong", [4, -1])
def test_class_number_out_of_range_is_refused(wrong) -> None:
    logits, _, classes = example()
    classes[0, 0, 0, 0] = wrong
    with pytest.raises(
        ValueError, match=f"^labels: expected class numbers from 0 to 3, found .*{wrong}"
    ):
        DiceLoss()(Tensor(logits), Tensor(classes.astype(np.int32)))


def test_labels_of_another_shape_or_kind_are_refused() -> None:
    logits, target, classes = example()
    for labels in (
        target[:, :3],
        target[0],
        classes[:, :2].astype(np.int32),
        classes.astype(np.float32),
    ):
        for loss in LOSSES:
            with pytest.raises(ValueError, match="^labels: expected one-hot of the logits' shape"):
                loss(Tensor(logits), Tensor(labels))


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="^reduction: expected mean, sum or none, found 'average'"):
        DiceLoss(reduction="average")
    with pytest.raises(ValueError, match="no single number"):
        DiceCELoss(reduction="none")
    with pytest.raises(
        ValueError, match="^train.loss: .*found 'DiceCEloss'; did you mean 'DiceCELoss'"
    ):
        make_loss("DiceCEloss")


def test_loss_by_name_is_the_sum_or_one_part() -> None:
    logits, target, _ = example()
    for name, place in (("CrossEntropyLoss", 1), ("DiceLoss", 2)):
        total, *_ = parts = [
            number(part) for part in make_loss(name)(Tensor(logits), Tensor(target))
        ]
        assert total == parts[place]
    total, ce, dice = (
        number(part) for part in make_loss("DiceCELoss")(Tensor(logits), Tensor(target))
    )
    assert total == pytest.approx(ce + dice)


def test_shapes_that_do_not_agree_are_refused() -> None:
    logits, target, _ = example()
    for loss in LOSSES:
        with pytest.raises((ValueError, RuntimeError)):
            value = loss(Tensor(logits), Tensor(target[:, :3]))
            (value if isinstance(value, Tensor) else value[0]).asnumpy()
    with pytest.raises((ValueError, RuntimeError, IndexError)):
        CrossEntropyLoss()(Tensor(logits[0]), Tensor(target[0])).asnumpy()


def test_logits_of_16_bits_are_summed_in_32() -> None:
    """A sum over more than 65504 voxels overflows float16, and the Dice of a right network would be
    nothing.
    """
    classes = np.zeros((1, 48, 48, 48), np.int32)
    classes[:, :10] = 1
    logits = 8 * one_hot(classes)
    for loss in LOSSES:
        full, half = (
            ms.value_and_grad(lambda z, f=loss: f(z, Tensor(classes)))(Tensor(logits, dtype))
            for dtype in (ms.float32, ms.float16)
        )
        assert half[0].dtype == ms.float32
        assert (
            number(half[0]) == pytest.approx(number(full[0]), rel=1e-3) and number(half[0]) < 0.05
        )
        assert np.isfinite(half[1].asnumpy()).all()


def test_the_dice_of_each_class_comes_along_and_changes_no_bit():
    rng = np.random.default_rng(3)
    logits = Tensor(rng.normal(size=(2, 4, 4, 4, 4)).astype(np.float32))
    labels = Tensor(rng.integers(0, 4, (2, 4, 4, 4)).astype(np.int32))
    found = []
    for per_class in (False, True):
        loss = make_loss("DiceCELoss", per_class=per_class)
        values, gradient = ms.value_and_grad(lambda x, loss=loss: loss(x, labels), has_aux=True)(
            logits
        )
        found.append([gradient.asnumpy(), *(value.asnumpy() for value in values)])
    assert all(np.array_equal(*pair) for pair in zip(found[0], found[1][:4], strict=True))
    each = found[1][4]
    assert each.shape == (4,) and np.array_equal(
        each, DiceLoss(reduction="none")(logits, labels).asnumpy()
    )
