"""Checkpoints: weights, and all that a run needs to continue as if it had never stopped.

Each checkpoint is one file, which is complete or absent.
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
from ..files.whole import written_whole
from ..model import NETWORKS

FINAL = "unet3d.ckpt"  #: the weights of a finished run, written last
LAST = "last.ckpt"  #: the complete state, to continue from
BEST = "best.ckpt"  #: the complete state at the validation with the highest mean Dice

#: names, or prefixes of names, of the checkpoint entries that are not weights
STATE, OPTIMIZER, AVERAGE = "run.state", "optimizer.", "average."

# --------------------------------------------------------------------------------- reading, writing


def save_checkpoint(
    content: nn.Cell | list[dict], path: Path, *, entries: Mapping[str, str] | None = None
) -> None:
    """Write a checkpoint completely or not at all.

    ``content`` is a network, or parameters in the form that MindSpore's function takes;
    ``entries`` is text to store with it, by name. Raises ``OSError`` if it cannot be written.
    """
    try:
        with written_whole(path) as part:
            ms.save_checkpoint(content, str(part), append_dict=dict(entries or {}))
    except (OSError, RuntimeError) as error:
        raise OSError(f"{path}: the checkpoint could not be written: {error}") from error


def read_checkpoint(path: str | Path) -> dict:
    """Return all entries of a checkpoint by name.

    Raises ``FileNotFoundError`` if the file is missing, and ``ValueError`` if it is not a
    checkpoint.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    try:
        return ms.load_checkpoint(str(path))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is not a MindSpore checkpoint: {error}") from error


# ---------------------------------------------------------------------------- weights for a network

#: Names of what an optimiser, a loss scaler and a callback of MindSpore add to a checkpoint.
TRAINING_STATE = re.compile(
    r"(moments?[12]?|vhat|accum)\.|(learning_rate|global_step|beta[12]_power|epoch_num|step_num"
    r"|batch_num|loss_scale|current_iterator_step|last_overflow_iterator_step)$"
)


def load_weights(network: nn.Cell, path: str | Path) -> None:
    """Load the weights of a checkpoint, or their moving average if it has one.

    Raises as :func:`read_checkpoint` does, and ``ValueError`` if the checkpoint belongs to another
    network.
    """
    weights, averages = {}, {}
    for name, value in read_checkpoint(path).items():
        if name.startswith(AVERAGE):
            averages[name.removeprefix(AVERAGE)] = value
        elif not name.startswith((STATE, OPTIMIZER)):
            weights[name] = value
    assign_weights(network, averages or weights, source=str(path))


def assign_weights(
    network: nn.Cell, weights: dict[str, Parameter], source: str = "checkpoint"
) -> None:
    """Assign weights to ``network``, all of them or none.

    Accepts weights of this package and of MindSpore's model zoo; training state is ignored.
    ``source`` names the weights in an error. Raises ``ValueError`` with each parameter that is
    missing, extra or of another shape.
    """
    by_name = {}
    for name, value in weights.items():
        if not TRAINING_STATE.match(zoo_name(name)):
            by_name[zoo_name(name)] = value
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    problems = _mismatches(parameters, by_name)
    if problems:
        kind = _kind_of(network)
        raise ValueError(f"{source} is of another network than {kind}: {'; '.join(problems)}")
    for name, parameter in parameters.items():
        # set_data would disconnect it from an optimiser's graph.
        ops.assign(parameter, Tensor(by_name[name].asnumpy(), parameter.dtype))


def zoo_name(name: str) -> str:
    """Convert a parameter name of MindSpore's model zoo to that of :class:`.ResidualUNet3D`.

    The names of ``official/cv/Unet3d`` are the same, except for a prefix in checkpoints in which
    network and loss were saved together.
    """
    return re.sub(r"^(_backbone|backbone|network|_network)\.", "", name)


def _mismatches(parameters: Mapping[str, Parameter], weights: Mapping[str, Parameter]) -> list[str]:
    """Describe each weight that does not match the network's parameters."""
    missing = [f"missing {name}" for name in parameters if name not in weights]
    extra = [f"extra {name}" for name in weights if name not in parameters]
    misshapen = []
    for name, parameter in parameters.items():
        if name in weights and weights[name].shape != parameter.shape:
            misshapen.append(f"{name} of shape {weights[name].shape}, expected {parameter.shape}")
    return missing + extra + misshapen


def _kind_of(network: nn.Cell) -> str:
    """The name of a network in the configuration, or else of its class."""
    for name, kind in NETWORKS.items():
        if isinstance(network, kind):
            return name
    return type(network).__name__


# ------------------------------------------------------------------------------- the state of a run


@dataclass
class RunState:
    """The progress of a run.

    The crops need no random state: each depends only on the seed and its number. The field names
    are those in the checkpoint, so they stay as they are.
    """

    step: int = 0  #: steps done; the next one has this number
    skipped: int = 0  #: of these, steps whose gradient overflowed
    looks: int = 0  #: validations so far
    seconds: float = 0.0  #: time spent so far
    best_step: int = 0  #: step of the best validation, 0 before the first
    best_dice: float = -1.0  #: its mean Dice over the structures
    #: loss of the last step and Dice of the last validation
    metrics: dict[str, float] = field(default_factory=dict)
    loss_scale: float = 1.0  #: the current dynamic loss scale
    scale_age: int = 0  #: steps since it changed
    rank_size: int = 1  #: processes that share the data


def save_state(
    path: Path,
    config: Config,
    state: RunState,
    network: nn.Cell,
    optimizer: nn.Optimizer,
    average: Iterable[Parameter] = (),
) -> None:
    """Write one file with all that a run needs to continue.

    These are weights, optimiser, moving average, random state, configuration and ``state``. Raises
    ``FloatingPointError`` if a weight is not a finite number, so that every checkpoint is usable,
    and ``OSError`` if the file cannot be written.
    """
    for parameter in network.get_parameters():
        if not np.isfinite(parameter.asnumpy()).all():
            raise FloatingPointError(
                f"step {state.step - 1}: the weights of {parameter.name} are not finite"
            )
    content = [
        {"name": prefix + parameter.name, "data": parameter}
        for prefix, parameter in _all_parameters(network, optimizer, average)
    ]
    text = json.dumps(
        {
            "config": config.to_dict(),
            "state": asdict(state),
            "random": ms.get_rng_state().asnumpy().tolist(),
            "mindspore": ms.__version__,
        }
    )
    save_checkpoint(content, path, entries={STATE: text})


def load_state(
    path: Path,
    config: Config,
    network: nn.Cell,
    optimizer: nn.Optimizer,
    average: Iterable[Parameter] = (),
) -> RunState:
    """Restore everything that :func:`save_state` wrote; return the progress of the run.

    Raises ``ValueError`` if the file is not such a checkpoint or has another configuration.
    """
    stored = read_checkpoint(path)
    if STATE not in stored:
        raise ValueError(f"{path}: expected a checkpoint to continue from, found weights only")
    run = json.loads(stored[STATE])
    different = differences(Config.from_dict(run["config"]), config)
    if different:
        raise ValueError(f"{path} is of another configuration ({different})")
    for prefix, parameter in _all_parameters(network, optimizer, average):
        # In place, because the optimiser refers to these parameters.
        ops.assign(parameter, Tensor(stored[prefix + parameter.name].asnumpy()))
    ms.set_rng_state(Tensor(np.array(run["random"], np.uint8)))
    return RunState(**run["state"])


def _all_parameters(
    network: nn.Cell, optimizer: nn.Optimizer, average: Iterable[Parameter]
) -> list[tuple[str, Parameter]]:
    """The prefix of its name in a checkpoint, and the parameter, for each parameter."""
    weights = list(network.get_parameters())
    names = {parameter.name for parameter in weights}
    # An optimiser lists the weights among its parameters.
    own = [parameter for parameter in optimizer.get_parameters() if parameter.name not in names]
    return [
        *(("", parameter) for parameter in weights),
        *((OPTIMIZER, parameter) for parameter in own),
        *((AVERAGE, parameter) for parameter in average),
    ]


# -------------------------------------------------------------------------- checkpoints of a folder


def keep_validated(folder: Path, state: RunState, count: int) -> None:
    """After a validation, also keep ``last.ckpt`` under the name of its step.

    Only the latest ``count`` of these are kept. The best so far is also kept as ``best.ckpt``. The
    call may be repeated: a run that was killed halfway through repeats it when it continues.
    """
    add_name(folder / LAST, folder / f"step-{state.step:05d}.ckpt")
    if state.best_step == state.step:
        add_name(folder / LAST, folder / BEST)
    for old in sorted(folder.glob("step-*.ckpt"))[:-count]:
        old.unlink()


def add_name(path: Path, second: Path) -> None:
    """Give a file a second name without using space; copy it if the file system cannot link."""
    with written_whole(second) as part:
        part.unlink()  # a link needs an unused name
        try:
            os.link(path, part)
        except OSError:
            shutil.copyfile(path, part)
