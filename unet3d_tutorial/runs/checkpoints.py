"""Checkpoints: all that a run needs to go on as if it had never stopped, in one file that is whole
or not there.
"""

import unet3d_tutorial.environment  # noqa: F401

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ..config import Config, differences
from ..model import NETWORKS

FINAL = "unet3d.ckpt"  #: the weights of a finished run, written last
LAST, BEST = "last.ckpt", "best.ckpt"  #: to go on from, and the look with the highest mean Dice
#: entries of a checkpoint beside the weights
STATE, OPTIMIZER, AVERAGE = ("run.state", "optimizer.", "average.")
EXTRA = (STATE, OPTIMIZER, AVERAGE)


@dataclass
class RunState:
    """Where a run stands. The crops need no random state: each is decided by the seed and its
    number alone.
    """

    step: int = 0  #: steps done; the next one has this number
    skipped: int = 0  #: of these, steps whose gradient overflowed
    looks: int = 0  #: looks at the held-out volumes so far
    seconds: float = 0.0  #: time spent so far
    best_step: int = 0  #: step of the best look, 0 before the first
    best_dice: float = -1.0  #: its mean Dice over the structures
    #: loss of the last step and Dice of the last look
    metrics: dict[str, float] = field(default_factory=dict)
    loss_scale: float = 1.0  #: as the dynamic loss scale stands
    scale_age: int = 0  #: steps since it changed
    rank_size: int = 1  #: processes that share the data


def save_checkpoint(
    content: nn.Cell | list[dict], path: Path, *, entries: Mapping[str, str] | None = None
) -> None:
    """Write a checkpoint whole or not at all: to a temporary name, through to the disk, then
    rename.
    """
    part = path.with_name(path.stem + ".part.ckpt")
    try:
        ms.save_checkpoint(content, str(part), append_dict=dict(entries or {}))
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:
        raise OSError(f"{path}: the checkpoint could not be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def save_state(
    path: Path,
    config: Config,
    state: RunState,
    network: nn.Cell,
    optimizer: nn.Optimizer,
    average: Iterable[Parameter] = (),
) -> None:
    """Write weights, optimiser, moving average, random state, configuration and ``state`` to one
    file.

    Raises ``FloatingPointError`` if a weight is not a finite number, so that every checkpoint is a
    good one.
    """
    weights = list(network.get_parameters())
    broken = [p.name for p in weights if not np.isfinite(p.asnumpy()).all()]
    if broken:
        raise FloatingPointError(
            f"step {state.step - 1}: the weights of {broken[0]} are not finite"
        )
    named = [(p.name, p) for p in weights] + [
        (OPTIMIZER + p.name, p) for p in _own(optimizer, weights)
    ]
    named += [(AVERAGE + p.name, p) for p in average]
    about = {
        "config": config.to_dict(),
        "state": asdict(state),
        "random": ms.get_rng_state().asnumpy().tolist(),
        "mindspore": ms.__version__,
    }
    save_checkpoint(
        [{"name": name, "data": p} for name, p in named], path, entries={STATE: json.dumps(about)}
    )


def load_state(
    path: Path,
    config: Config,
    network: nn.Cell,
    optimizer: nn.Optimizer,
    average: Iterable[Parameter] = (),
) -> RunState:
    """Put network, optimiser, moving average and random numbers back to where :func:`save_state`
    found them.

    Raises ``ValueError`` if the file is no such checkpoint or belongs to another configuration.
    """
    stored = read_checkpoint(path)
    if STATE not in stored:
        raise ValueError(f"{path}: expected a checkpoint to go on from, found weights only")
    about = json.loads(stored[STATE])
    if found := differences(Config.from_dict(about["config"]), config):
        raise ValueError(f"{path} is of another configuration ({found})")
    weights = list(network.get_parameters())
    for prefix, group in (("", weights), (OPTIMIZER, _own(optimizer, weights)), (AVERAGE, average)):
        for parameter in group:
            # In place, where the optimiser looks.
            ops.assign(parameter, Tensor(stored[prefix + parameter.name].asnumpy()))
    ms.set_rng_state(Tensor(np.array(about["random"], np.uint8)))
    return RunState(**about["state"])


def read_checkpoint(path: str | Path) -> dict:
    """All entries of a checkpoint by name.

    Raises ``ValueError``, naming the file, if it is not one.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    try:
        return ms.load_checkpoint(str(path))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is not a MindSpore checkpoint: {error}") from error


def load_weights(network: nn.Cell, path: str | Path) -> None:
    """Load the weights of a checkpoint, or their moving average where it has one.

    Raises ``ValueError`` if the checkpoint belongs to another network.
    """
    stored = read_checkpoint(path)
    averages = {
        name.removeprefix(AVERAGE): value
        for name, value in stored.items()
        if name.startswith(AVERAGE)
    }
    weights = averages or {
        name: value for name, value in stored.items() if not name.startswith(EXTRA)
    }
    assign_weights(network, weights, source=str(path))


# What an optimiser, a loss scaler and a callback add to a checkpoint.
TRAINING_STATE = re.compile(
    r"(moments?[12]?|vhat|accum)\.|(learning_rate|global_step|beta[12]_power|epoch_num|step_num"
    r"|batch_num|loss_scale|current_iterator_step|last_overflow_iterator_step)$"
)


def zoo_name(name: str) -> str:
    """The name that a parameter of MindSpore's public model zoo (``official/cv/Unet3d``) has in
    :class:`.ResidualUNet3D`.

    They are the same, but for the prefix that a checkpoint gets when network and loss were saved as
    one.
    """
    return re.sub(r"^(_backbone|backbone|network|_network)\.", "", name)


def assign_weights(
    network: nn.Cell, weights: dict[str, Parameter], source: str = "checkpoint"
) -> None:
    """Put the weights of a checkpoint into ``network``, all of them or none.

    Takes this package's checkpoints and the model zoo's, whose training state is left aside. Raises
    ``ValueError`` with each parameter that is missing, extra or of another shape.
    """
    found = {
        zoo_name(name): value
        for name, value in weights.items()
        if not TRAINING_STATE.match(zoo_name(name))
    }
    expected = {parameter.name: parameter for parameter in network.get_parameters()}
    wrong = [f"missing {name}" for name in expected if name not in found]
    wrong += [f"extra {name}" for name in found if name not in expected]
    wrong += [
        f"{name} of shape {found[name].shape}, expected {value.shape}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    kinds = [name for name, kind in NETWORKS.items() if isinstance(network, kind)]
    kind = kinds[0] if kinds else type(network).__name__
    if wrong:
        raise ValueError(f"{source} is of another network than {kind}: {'; '.join(wrong)}")
    for name, value in expected.items():
        # set_data would cut it off from an optimiser's graph.
        ops.assign(value, Tensor(found[name].asnumpy(), value.dtype))


def publish(folder: Path, state: RunState, keep: int) -> None:
    """After a look: give ``last.ckpt`` its other names, ``step-....ckpt`` and perhaps
    ``best.ckpt``; drop the oldest.

    May be repeated: a run that was killed halfway through this does it again when it goes on.
    """
    also_as(folder / LAST, folder / f"step-{state.step:05d}.ckpt")
    if state.best_step == state.step:
        also_as(folder / LAST, folder / BEST)
    for old in sorted(folder.glob("step-*.ckpt"))[:-keep]:
        old.unlink()


def also_as(path: Path, other: Path) -> None:
    """Give a file a second name, at no cost in space; where the file system cannot, copy it."""
    part = other.with_name(other.stem + ".part.ckpt")
    part.unlink(missing_ok=True)
    try:
        os.link(path, part)
    except OSError:
        shutil.copyfile(path, part)
    part.replace(other)


def _own(optimizer: nn.Optimizer, weights: list[Parameter]) -> list[Parameter]:
    names = {p.name for p in weights}
    return [p for p in optimizer.get_parameters() if p.name not in names]
