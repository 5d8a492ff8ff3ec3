"""Two workers with batch 1, or one with batch 2: train six steps and write the losses.

``msrun`` starts the two, and the one runs alone. No layer takes statistics of a batch: the last
argument is ``"batch, frozen"``, where batch-norm uses its running statistics as in evaluation, or
``"group"``.
"""

import json
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from runs import settings
from unet3d_tutorial.dataset import create_dataset
from unet3d_tutorial.losses import CrossEntropyLoss
from unet3d_tutorial.runs.checkpoints import RunState
from unet3d_tutorial.runs.device import setup
from unet3d_tutorial.runs.processes import join
from unet3d_tutorial.training import build_network
from unet3d_tutorial.training_step import TrainStep


class CrossEntropyOnly(nn.Cell):
    """In the form of the package's loss.

    Dice is left out: it is not a mean over volumes, it adds up a whole batch.
    """

    def __init__(self):
        super().__init__()
        self.ce = CrossEntropyLoss()

    def construct(self, logits: Tensor, target: Tensor):
        loss = self.ce(logits, target)
        return loss, loss, loss * 0


def main(data: str, output: str, norm: str) -> None:
    """Six steps; each process writes its losses, its weights' sum and the samples that it saw."""
    setup(seed=1)
    different = "data.augment=true"  # no two crops are the same
    config = settings(Path(data), Path(output), different, f"model.norm={norm.partition(',')[0]}")
    group = join(config.train)
    config = config.override([f"train.batch_size={2 // group.rank_size}"])
    network = build_network(config)
    network.set_train("frozen" not in norm)
    optimizer = nn.Adam(network.trainable_params(), 1e-3)
    step = TrainStep(network, CrossEntropyOnly(), optimizer, config.train, RunState(), group)
    losses, seen = [], []
    for image, label in create_dataset(
        config, rank_size=group.rank_size, rank_id=group.rank_id
    ).create_tuple_iterator():
        losses.append(float(group.sum(step([(image, label)]))[0] / group.rank_size))
        seen += [hash(crop.tobytes()) for crop in image.asnumpy()]
    weights = np.concatenate([p.asnumpy().ravel() for p in network.get_parameters()])
    found = {"losses": losses, "seen": [str(s) for s in seen], "weights": weights.tobytes().hex()}
    Path(output, f"{norm}-{group.rank_size}-{group.rank_id}.json").write_text(
        json.dumps(found), encoding="utf-8"
    )
    assert ms.get_context("device_target") == "CPU"


if __name__ == "__main__":
    main(*sys.argv[1:])
