"""The networks and losses against PyTorch and MONAI.

Compared are forward pass, loss, every gradient, and batch-norm's memory.
"""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from unet3d_tutorial import model
from unet3d_tutorial.losses import DiceCELoss, DiceLoss
from unet3d_tutorial.runs.device import setup

torch = pytest.importorskip("torch")
twins = pytest.importorskip("torch_twins")

CHANNELS = (4, 6, 8, 10, 12)
CASES = {
    "residual": (
        model.ResidualUNet3D,
        twins.ResidualUNet3D,
        (2, 4, CHANNELS),
        {},
        (2, 2, 32, 16, 16),
    ),
    "paper": (model.UNet3D, twins.UNet3D, (2, 4, (4, 8, 16)), {}, (2, 2, 16, 8, 12)),
    "group": (model.UNet3D, twins.UNet3D, (2, 4, (8, 16)), {"norm": "group"}, (2, 2, 8, 6, 10)),
    "instance": (
        model.UNet3D,
        twins.UNet3D,
        (2, 4, (8, 16)),
        {"norm": "instance"},
        (2, 2, 8, 6, 10),
    ),
    "none": (model.UNet3D, twins.UNet3D, (2, 4, (8, 16)), {"norm": "none"}, (2, 2, 8, 6, 10)),
    "valid": (
        model.UNet3D,
        twins.UNet3D,
        (2, 4, (4, 8, 16)),
        {"padding": "valid"},
        (1, 2, 44, 44, 48),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def mindspore_set_up() -> None:
    setup(seed=1)


def torch_loss(logits, target):
    """Cross-entropy plus batch Dice with squares and smooth 1, in PyTorch's own words."""
    p = logits.softmax(1)
    size = (p**2).sum((0, 2, 3, 4)) + (target**2).sum((0, 2, 3, 4))
    dice = (2 * (p * target).sum((0, 2, 3, 4)) + 1) / (size + 1)
    return torch.nn.functional.cross_entropy(logits, target.argmax(1)) + (1 - dice).mean()


def one_hot_like(shape: tuple[int, ...]) -> np.ndarray:
    classes = np.random.default_rng(1).integers(0, shape[1], (shape[0], *shape[2:]))
    return (classes[:, None] == np.arange(shape[1]).reshape(1, -1, 1, 1, 1)).astype(np.float32)


def close(ours: np.ndarray, theirs, tolerance: float, scale: float = 0.0) -> None:
    """Largest difference against the largest entry, as rounding in a sum is relative to its largest
    terms.
    """
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    assert abs(ours - theirs).max() <= tolerance * max(abs(theirs).max(), scale)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("case", CASES)
def test_network_is_its_twin(case, training) -> None:
    ours, theirs, arguments, options, shape = CASES[case]
    network, twin = ours(*arguments, **options), theirs(*arguments, **options).double()
    rng = np.random.default_rng(0)
    for parameter in network.get_parameters():  # no zeros and ones, which would hide an exchange
        if parameter.ndim == 1:
            parameter.set_data(Tensor(rng.uniform(0.5, 1.5, parameter.shape), ms.float32))
    twins.copy_weights(network, twin)
    network.set_train(training)
    twin.train(training)

    image = rng.normal(size=shape).astype(np.float32)
    theirs_logits = twin(torch.from_numpy(image).double())
    target = one_hot_like(tuple(theirs_logits.shape))
    loss_fn, kept = DiceCELoss(), []

    def forward(x):
        logits = network(x)
        kept.append(logits)
        return loss_fn(logits, Tensor(target))[0]

    loss, gradients = ops.value_and_grad(forward, None, list(network.trainable_params()))(
        Tensor(image)
    )
    theirs_loss = torch_loss(theirs_logits, torch.from_numpy(target).double())
    theirs_loss.backward()
    close(kept[0].asnumpy(), theirs_logits, 2e-5)
    assert float(loss.asnumpy()) == pytest.approx(float(theirs_loss), rel=1e-5)
    named = dict(twin.named_parameters())
    largest = max(float(parameter.grad.abs().max()) for parameter in named.values())
    assert len(gradients) == len(named)
    for parameter, gradient in zip(network.trainable_params(), gradients, strict=True):
        close(
            gradient.asnumpy(),
            named[twins.torch_name(parameter.name)].grad,
            1e-4,
            scale=1e-2 * largest,
        )
    memory = dict(twin.named_buffers())
    for parameter in network.get_parameters():
        if "moving" in parameter.name:
            close(parameter.asnumpy(), memory[twins.torch_name(parameter.name)], 1e-5)


def test_twin_has_the_paper_s_size_too() -> None:
    counted = sum(
        p.numel()
        for name, p in twins.UNet3D(3, 3, (64, 128, 256, 512)).named_parameters()
        if "bn2d" not in name
    )
    assert counted == 19_069_955


# ------------------------------------------------------------------------------------------- losses

OPTIONS = [
    {},
    {"squared": False},
    {"batch": False},
    {"include_background": False},
    {"reduction": "sum"},
    {"squared": False, "batch": False, "include_background": False},
]


@pytest.mark.parametrize("absent", [False, True], ids=["all classes", "absent class"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("smooth", [1e-5, 1.0])
def test_losses_are_monai_s(options, smooth, absent) -> None:
    monai = pytest.importorskip("monai.losses")
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 3, (2, 4, 6, 5, 4)).astype(np.float32)
    classes = rng.integers(0, 3 if absent else 4, (2, 1, 6, 5, 4))
    words = {"squared": "squared_pred"}
    theirs_options = {
        "squared_pred": True,
        "batch": True,
        **{words.get(k, k): v for k, v in options.items()},
    }
    common = {
        "softmax": True,
        "to_onehot_y": True,
        "smooth_nr": smooth,
        "smooth_dr": smooth,
        **theirs_options,
    }
    mixed = {"lambda_dice": 0.7, "lambda_ce": 1.3}
    pairs = [
        (DiceLoss(smooth, **options), monai.DiceLoss(**common)),
        (
            lambda z, t: DiceCELoss(smooth, **mixed, **options)(z, t)[0],
            monai.DiceCELoss(**mixed, **common),
        ),
    ]
    if options.get("reduction") == "sum":
        pairs = pairs[:1]  # MONAI sums the cross-entropy too, over all voxels
    for ours, theirs in pairs:
        z = torch.from_numpy(logits).double().requires_grad_()
        value = theirs(z, torch.from_numpy(classes))
        value.backward()
        one_hot = (classes == np.arange(4).reshape(1, 4, 1, 1, 1)).astype(np.float32)
        for labels in (Tensor(classes[:, 0].astype(np.int32)), Tensor(one_hot)):
            found, gradient = ms.value_and_grad(lambda v, t=labels, f=ours: f(v, t))(Tensor(logits))
            assert float(found.asnumpy()) == pytest.approx(float(value), rel=1e-5)
            close(gradient.asnumpy(), z.grad, 1e-5)


def test_dice_of_each_class_is_monai_s() -> None:
    monai = pytest.importorskip("monai.losses")
    rng = np.random.default_rng(3)
    logits, classes = (
        rng.normal(size=(2, 4, 4, 4, 4)).astype(np.float32),
        rng.integers(0, 4, (2, 1, 4, 4, 4)),
    )
    for batch, shape in ((True, (4,)), (False, (2, 4))):
        theirs = monai.DiceLoss(
            softmax=True,
            to_onehot_y=True,
            squared_pred=True,
            batch=batch,
            reduction="none",
            smooth_nr=1.0,
            smooth_dr=1.0,
        )(torch.from_numpy(logits), torch.from_numpy(classes))
        found = DiceLoss(1.0, batch=batch, reduction="none")(
            Tensor(logits), Tensor(classes)
        ).asnumpy()
        assert found.shape == shape
        np.testing.assert_allclose(found, theirs.numpy().reshape(shape), rtol=1e-5)
