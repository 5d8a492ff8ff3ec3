# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Training
#
# Crops, network, learning rate and loss come together in a loop. The loop is short, and you will know every line of it. The
# longer part of the chapter is about reading what a run leaves behind. At the end you can train the network, tell a healthy run
# from one that is stuck, repeat a run to the last bit, and trust the file that it saves.
#
# **You will learn**
# - what one training step is, and what its gradient promises
# - what the loop does beside the steps, and which files it leaves
# - how to read loss curves together with the Dice of held-out volumes
# - the plateau: why a network may find both lungs and still not know which is which, and how to see that it is stuck there
# - how to make a run repeatable, how it survives being stopped, and what that costs
# - how three kinds of accident look
#
# **You need**: [chapter 4](04_dataset.ipynb) for the crops, [chapter 5](05_model.ipynb) for the network,
# [chapter 6](06_learning_rate.ipynb) for the rate, [chapter 7](07_loss.ipynb) for the loss. The first cell trains the quick preset if that
# has not been done yet, which takes minutes. The time below does not include it.

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.book import chapter

chapter.enter("phantom", "run")

# %%
import os

os.environ["TQDM_DISABLE"] = (
    "1"  # no progress bars in stored outputs; tqdm reads this when it is imported
)

# %%
import textwrap
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import mindspore as ms
import numpy as np
from IPython.display import Markdown, display
from mindspore import Tensor

# %%
from unet3d_tutorial import (
    Config,
    DiceCELoss,
    create_dataset,
    dice,
    load_network,
    train,
    training,
)

# %%
from unet3d_tutorial.book import training as measured
from unet3d_tutorial.dataset import list_cases, validation_cases
from unet3d_tutorial.files.tables import Table
from unet3d_tutorial.labels import COLORS, STRUCTURES
from unet3d_tutorial.runs.checkpoints import save_checkpoint, save_state
from unet3d_tutorial.runs.curves import LivePlot
from unet3d_tutorial.runs.device import setup
from unet3d_tutorial.runs.networks import build_network
from unet3d_tutorial.training import validate
from unet3d_tutorial.training_step import make_gradients, make_train_step
from unet3d_tutorial.view.charts import loss_curves, schedule_curve

# %% [markdown]
# ## A problem of seconds
#
# The real run takes minutes, so we first look at a small one: a few phantoms on a coarse grid of 8 mm, small crops, a network
# with half the channels, few steps. The phantoms are copied to a temporary folder in the same layout, `train` and `val`, `image`
# and `seg`. Everything else is as in the quick preset.

# %%
quick = Config.preset("quick")
temporary = TemporaryDirectory()
sandbox = Path(temporary.name)
some = measured.copy_cases(quick.data.data_path, sandbox / "some", train=40, val=4)
few = measured.copy_cases(quick.data.data_path, sandbox / "few", train=6, val=1)

# %%
crops = {"spacing_mm": [8, 8, 8], "roi_size": [32, 32, 32]}
short = {"epoch_size": 2, "warmup_step": 5, "validate_every": 10}
small = quick.updated(
    {
        "data": {"data_path": str(some), **crops},
        "model": {"channels": [8, 16, 32, 64, 128]},
        "inference": {"roi_size": [32, 32, 32]},
        "train": {"output_path": str(sandbox / "run"), **short},
    }
)
print("steps of the small run:", create_dataset(small).get_dataset_size())

# %% [markdown]
# ## One step
#
# A step takes a batch, asks how the loss would change if each weight changed a little, and lets the optimiser move the weights.

# %% tags=["hide-input"]
chapter.source(make_gradients, make_train_step)

# %% [markdown]
# - `forward` is the *function of which we want the gradient*: batch in, loss out. `DiceCELoss` gives three numbers: the sum of
#   cross-entropy and Dice loss, and both parts.
# - `value_and_grad` turns it into a function that returns the value *and* the gradient, by going backwards through everything that
#   `forward` computed. `None` says that we want no gradient with respect to the inputs; `weights`, here `optimizer.parameters`, are
#   what we do want it for. With `has_aux=True` only the first of the three numbers is differentiated, and the others come along.
# - `optimizer(gradients)` is Adam. It changes the weights in place and takes the next learning rate from its list.
#
# A run uses `TrainStep`: the same three lines, and around them what some settings ask for, such as clipping. It also measures the
# length of the gradient.
#
# > **Pitfall 1.** The loss that goes in here is not the case's: its Dice is computed on probabilities.
# > [Chapter 7](07_loss.ipynb#on-probabilities-not-on-logits) shows what happens otherwise. A wrong loss does not stop the loop; it
# > trains something else. [All pitfalls](../book/pitfalls.md#pitfall-1)
#
# What does a gradient promise? Call it $g$. If all weights move by $-t g$, with a small $t$, the loss must fall by $t \lVert g \rVert^2$.
# For larger $t$ the promise fades, because the loss is not a plane. We take one batch, move a fresh network by hand, and
# compare.

# %%
setup(seed=small.train.seed)
network, loss_fn = build_network(small), DiceCELoss()
network.set_train(True)
image, label = next(create_dataset(small).create_tuple_iterator(num_epochs=1))
print("image", image.shape, "label", label.shape)

# %% tags=["nbval-ignore-output"]
weights = network.trainable_params()
loss, gradients = ms.value_and_grad(
    lambda x, y: loss_fn(network(x), y)[0], None, weights
)(image, label)
start = [(w.value() + 0, g) for w, g in zip(weights, gradients, strict=True)]
squared = sum(float((g * g).sum().asnumpy()) for g in gradients)
for promised in (0.001, 0.01, 0.1, 1.0):
    t = promised / squared
    for w, (value, g) in zip(weights, start, strict=True):
        w.set_data(value - t * g)
    found = float(loss.asnumpy()) - float(loss_fn(network(image), label)[0].asnumpy())
    print(f"step size {t:.1e}: promised fall {promised:.3f}, found {found:.3f}")

# %% [markdown]
# For small steps the promise is kept; for large ones it is not, and a larger one still may even make things worse. The gradient knows the
# slope under your feet, not the landscape. That is why there are many small steps and a [learning rate](06_learning_rate.ipynb).
#
# ## The loop
#
# Now the steps in a row. Read `train` for what surrounds a run, `Run.go` for the loop, `Run.step` for one turn of it, `validate`
# for the look at the held-out volumes.

# %% tags=["hide-input"]
chapter.source(train, training.Run.go, training.Run.step, validate)

# %% [markdown]
# Beside the step there are seven things in it, and each has been the reason for somebody's lost night:
#
# 1. `setup(seed=...)` comes before the network is built, because the first weights are random.
# 2. The number of steps is asked of the data set, and the list of rates is made to that length.
# 3. `network.set_train(True)` before the steps, and `validate` puts it back after each look:
#    [batch-norm has two modes](05_model.ipynb#batch-norm-has-two-modes).
# 4. A loss or a gradient that is not finite stops the run at once, before it reaches the weights. The message names the step,
#    the files of the batch and the last good checkpoint. The loss alone does not tell: `relu` makes a zero of a number that is none.
# 5. History and validation are written line by line, so that a run that is interrupted can still be read.
# 6. Every `save_every` steps, all that the run needs to go on is saved. Ctrl-C finishes the step and saves, too.
# 7. The last file to be written is the final checkpoint. If it is there, the run is finished.
#
# > **Pitfall 5.** `batch_size`, `epoch_size` and `keep_checkpoint_max` stand in the case's configuration, but its loop is a literal
# > `range(10)`, and nothing deletes old checkpoints. Change a setting and nothing happens. Here each is used: watch the number of
# > steps. [All pitfalls](../book/pitfalls.md#pitfall-5)

# %%
for change in ({}, {"batch_size": 4}, {"epoch_size": 10}):
    print(
        change,
        "->",
        create_dataset(small.updated({"train": change})).get_dataset_size(),
        "steps",
    )

# %% [markdown]
# And the small run, live. It is `train`, the same function that the real run uses. `LivePlot` draws the curves again after each look
# at the held-out volumes, and every twenty steps; what stays below the cell is its last picture.

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Loss curves of the small run, drawn while it was going on: total, cross-entropy and Dice loss fall; beside them the Dice of three structures on four held-out phantoms, which stays low."}}
trial = train(small, watch=LivePlot(title="small run: 8 mm, half the channels"))

# %% [markdown]
# *Figure 1. The small run at its last step. Left: the loss of each step (thin) and means over fifteen steps. Right: Dice on four
# held-out phantoms.*

# %% tags=["nbval-ignore-output"]
for name in ("loss", "ce", "dice"):
    values = trial.history[name]
    first, last = np.mean(values[:5]), np.mean(values[-5:])
    print(f"{name:5} first five steps {first:.3f}, last five {last:.3f}")

# %% [markdown]
# Every step sees two other crops, and some crops are harder than others. So the thin line jumps, and a single value says nothing: judge
# means. The loss falls steeply, so the machine works.
#
# And now the right-hand picture. After all that progress the held-out phantoms get little. The small run has learnt what is frequent and easy: that
# most voxels are background, and roughly where lung is. Its few steps are not enough for more. **A falling loss shows that something is learnt. Only held-out Dice shows what.**
#
# ## The real run
#
# `train` with the quick preset finds the finished run and reads it back.

# %%
result = train(quick)
print(result.checkpoint, "is there:", result.checkpoint.is_file())
columns = ", ".join(result.history)
print(textwrap.fill(f"a row for each step: {columns}", 88))
print("a row for each validation:", ", ".join(result.validation))
steps, validations = len(result.history["step"]), len(result.validation["step"])
print(f"{steps} steps, {validations} validations on the held-out volumes")

# %% tags=["nbval-ignore-output"]
seconds = np.diff(result.history["seconds"])
minutes = result.history["seconds"][-1] / 60
waited = sum(result.history["wait"][1:]) / seconds.sum()
last = [f"**{result.validation[name][-1]:.3f}** ({name})" for name in STRUCTURES]
display(
    Markdown(
        f"The run took **{minutes:.1f} minutes**, {np.median(seconds):.2f} s for a "
        f"typical step, of which {waited:.1%} was waiting for data. At its end the "
        f"held-out phantoms reach a mean Dice of {', '.join(last)}."
    )
)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Loss curves of the real run, total, cross-entropy and Dice loss, falling steeply at first and slowly at the end, beside the held-out Dice of left lung, right lung and trachea, the trachea lowest."}}
display(loss_curves(result.history, result.validation, title="quick preset"))

# %% [markdown]
# *Figure 2. The real run. Left: training loss, thick lines are means over fifteen steps. Right: mean Dice on the ten held-out
# phantoms.*

# %% tags=["hide-input"] mystnb={"image": {"alt": "Soft Dice of the training crops over the steps: both lungs rise from the start and close together, the trachea stays near zero at first and rises later; the held-out values are marked."}}
figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
for name in STRUCTURES:
    mean = np.convolve(result.history[name], np.ones(25) / 25, mode="valid")
    axis.plot(12 + np.arange(mean.size), mean, color=COLORS[name], label=name)
    axis.plot(
        result.validation["step"], result.validation[name], "o", color=COLORS[name]
    )
axis.set(xlabel="step", ylabel="soft Dice", ylim=(0, 1))
axis.legend()
plt.show()

# %% [markdown]
# *Figure 3. The Dice that the loss is made of, for each structure: means over twenty-five steps. Dots: the held-out Dice of Figure 2.*
#
# The loss computes the Dice of each class anyway, so the history keeps it. It is *soft*: taken from probabilities, not from masks. It is also
# unsteady: many crops hold no trachea, and there it says only how little was called so. Compare the lines with each other, not with the dots.

# %% tags=["hide-input"] mystnb={"image": {"alt": "The learning rate that the run recorded, a short rise and half a cosine down to almost zero."}}
display(schedule_curve(result.history["lr"], title="the rates that the run recorded"))

# %% [markdown]
# *Figure 4. The learning rate of the same steps. Put it under Figure 2: large changes happen while the rate is high, and the curve calms
# down as the rate falls.*
#
# How to read the pictures together:
#
# - **Cross-entropy falls first.** Most voxels are background, and background is learnt in the first steps. Dice counts a structure as a
#   structure, so its loss stays high until each of them is found.
# - **The structures do not come together.** In Figure 3 the lungs rise from the start, the trachea long after: it is thin, and
#   many crops hold little of it.
# - **The end is quiet.** When the rate goes to zero the weights settle, and the training loss changes little.
# - **The held-out curve need not rise to its end.** In the stored run the lungs gain a little from the last look but one to the last, and
#   the trachea loses a little. Few phantoms are held out, and a trachea is few voxels: a change of this size is no trend.
# - **The held-out curve is the one that counts.** If it falls while the loss on the left goes on falling, the network learns its
#   training volumes by heart. The held-out phantoms are of another family than the training phantoms, see
#   [chapter 2](02_data.ipynb#why-the-phantoms-are-so-different-from-each-other).
#
# Which checkpoint would you hand on: the end, or the look with the highest mean? The run keeps both.

# %% tags=["nbval-ignore-output"]
looks = np.array([result.validation[name] for name in STRUCTURES])
for step, mean in zip(result.validation["step"], looks.mean(axis=0), strict=True):
    print(
        f"step {step:.0f}: mean Dice over the structures {mean:.3f}"
        + ("  <- best.ckpt" if mean == looks.mean(axis=0).max() else "")
    )
print(
    "last look less the one before:",
    ", ".join(
        f"{k} {d:+.3f}"
        for k, d in zip(STRUCTURES, looks[:, -1] - looks[:, -2], strict=True)
    ),
)

# %% [markdown]
# The book uses the end, `unet3d.ckpt`, whatever the looks say. That rule was fixed beforehand, so the held-out scores stay what they are. Who
# takes the best of many looks has chosen by these volumes, and their score then flatters the network a little.
#
# The real CT is not in these pictures, and that is on purpose. Whatever you look at while you choose settings, you fit. The real CT is for
# afterwards, when nothing is left to choose: [chapter 9](09_evaluation.ipynb).
#
# ## What a run leaves behind

# %% tags=["nbval-ignore-output"]
for path in sorted(
    path for path in result.checkpoint.parent.iterdir() if path.is_file()
):
    print(f"{path.name:20} {path.stat().st_size / 1e6:8.3f} MB")

# %% [markdown]
# | file | content |
# |---|---|
# | `config.yaml` | every setting of the run; `Config.load` reads it back |
# | `history.csv` | one line a step: rate, loss, its two parts, length of the gradient, seconds, how long the step waited for data, overflows, soft Dice of each structure |
# | `validation.csv` | one line a look: held-out Dice of each structure |
# | `step-....ckpt` | everything at the last looks, as many as `keep_checkpoint_max` |
# | `last.ckpt` | everything at the last save: weights, optimiser, position, configuration, metrics; a stopped run goes on from here |
# | `best.ckpt` | everything at the look with the highest mean Dice |
# | `events/` | the same curves for TensorBoard (`tensorboard --logdir runs`), and as MindSpore summary |
# | `lock` | held by the run that uses the folder; a second one is refused |
# | `unet3d.ckpt` | the final weights, written last |
# | `evaluation.json`, `.csv`, `.png` | the scores of chapter 9, if they have been made |
# | `unet3d.onnx` | the network for other programs, if chapter 12 has made it |
#
# MindSpore's summary files are made for MindInsight, which the original case uses for its curves and which is no longer maintained.
# That is why there are files for TensorBoard as well, and why the tables are plain text.
#
# > **Pitfall 6.** The case saves `Epoch_9_model.ckpt` and prints that it saved `model_9_epoch.ckpt`. Whoever copies the printed name into
# > the inference script gets a missing file, after hours of training. Here the name is a variable, and what is returned is what was
# > written. [All pitfalls](../book/pitfalls.md#pitfall-6)
#
# ### Whole or not at all
#
# Writing weights takes a moment, and a computer may be switched off in it. Half a file under the right name is worse than
# none, because `train` would take the run for finished. So the file is written under another name and then renamed, which the
# operating system does in one go.

# %% tags=["hide-input"]
chapter.source(save_checkpoint)

# %% [markdown]
# What if somebody copies a checkpoint and the copy is cut short? We cut one.

# %%
from contextlib import redirect_stderr
from io import StringIO

damaged = sandbox / "damaged.ckpt"
damaged.write_bytes(result.checkpoint.read_bytes()[:1_000_000])
try:
    with redirect_stderr(StringIO()):  # MindSpore's own report
        load_network(quick, damaged)
except ValueError as error:
    print(str(error).replace(f"{sandbox}/", "").split(":")[0])

# %% [markdown]
# ### Stopped, and gone on
#
# A run may end before its end: Ctrl-C, a full disk, a power cut, a data worker that the system killed for want of memory. The same command goes on from `last.ckpt`. Is the result the same as
# that of a run that was never stopped? We stop one halfway, between two checkpoints, with an error of our own, and compare bytes.


# %%
class PowerCut(Exception):
    """Stands for anything that ends a run from outside."""


def cut(history, validation):
    raise PowerCut


# %%
often = {"save_every": 7, "validate_every": 40}
stopped = small.updated({"train": {"output_path": str(sandbox / "stopped"), **often}})
try:
    train(stopped, watch=cut)
except PowerCut:
    history = (sandbox / "stopped" / "history.csv").read_text(encoding="utf-8")
    print("stopped; steps in the history:", len(history.splitlines()) - 1)

# %%
from contextlib import redirect_stdout

with redirect_stdout(StringIO()) as said:
    gone_on = train(stopped)
print(said.getvalue().replace(f"{sandbox}/", ""))

# %%
print(
    "final weights, same bytes:",
    gone_on.checkpoint.read_bytes() == trial.checkpoint.read_bytes(),
)
print("history, same numbers:    ", gone_on.history["loss"] == trial.history["loss"])

# %% [markdown]
# Three things must come back for this to hold: the weights, what the optimiser remembers of earlier gradients, and the position in
# the stream of crops. The tables are cut to the checkpoint, so the steps that were lost and done again are not counted twice. The
# crops need no random state, because [each is decided by its number](04_dataset.ipynb#the-crop-that-repeats-itself).
#
# What does it cost to be able to go on? We let steps and checkpoints of the real run take turns, so that both feel the same machine.

# %% tags=["nbval-ignore-output"]
run = training.Run(quick, sandbox)  # it writes nothing before it goes
batch = [next(create_dataset(quick).create_tuple_iterator(num_epochs=1))]
step_seconds, checkpoint_seconds = [], []
for _ in range(6):
    start = time.perf_counter()
    run.train_step(batch)
    between = time.perf_counter()
    save_state(sandbox / "cost.ckpt", quick, run.state, run.network, run.optimizer)
    step_seconds.append(between - start)
    checkpoint_seconds.append(time.perf_counter() - between)

# %% tags=["nbval-ignore-output"]
ratio = np.median(checkpoint_seconds[1:]) / np.median(step_seconds[1:])
saves = measured.count_saves(quick, run.total_steps)
print(f"a checkpoint takes as long as {ratio:.2f} steps;", end=" ")
print(f"{saves} of them in {run.total_steps} steps:", end=" ")
print(f"{saves * ratio / run.total_steps:.2%} more time")

# %% [markdown]
# Saving is cheap here, because it is rare. Against it stand the steps that a crash repeats, at most `save_every`. With a larger network, or a
# slow disk, measure again and choose.
#
# ## The plateau
#
# Left and right lung look alike. Both are dark, both are full of vessels, and one is nearly the mirror image of the other. A network learns
# within few steps *that* something is lung. *Which* lung it is, is another question, and until it is answered the network
# does best to hedge. How good does a hedge look? We give three answers for the held-out phantoms that are perfect except for the side.

# %%
cases = list(validation_cases(quick))
rng = np.random.default_rng(0)
scores = {
    "all lung is called right": [],
    "each voxel by the toss of a coin": [],
    "by the sign of the position channel": [],
}
for _, image, label in cases:
    truth = label.array[0]
    lung = (truth == 1) | (truth == 2)
    coin = rng.random(truth.shape) < 0.5
    sides = (np.ones(truth.shape, bool), coin, image.array[1] > 0)
    for rows, is_right in zip(scores.values(), sides, strict=True):
        left = dice(lung & ~is_right, truth == 1)
        rows.append([left, dice(lung & is_right, truth == 2)])

# %%
rows = []
for answer, dices in scores.items():
    left, right = np.mean(dices, axis=0)
    rows.append([answer, f"{left:.3f}", f"{right:.3f}"])
Table(["answer", "left lung", "right lung"], rows, align=["left", "right", "right"])

# %% [markdown]
# These are the fingerprints of the plateau. One lung near zero and the other near two thirds: the network calls everything the same. Both
# near one half: it tosses a coin. A *mean* over both hides the fingerprint, it merely looks mediocre; and a mean is all that many
# training scripts print.
#
# And the loss? A network that is sure of background and trachea and gives each lung one half pays this:

# %%
_, _, label = cases[0]
classes = [label.array == value for value in range(4)]
truth = Tensor(np.stack(classes, axis=1).astype(np.float32))
hedge = truth.asnumpy().copy()  # without the copy they would share their memory
hedge[:, 1] = hedge[:, 2] = (hedge[:, 1] + hedge[:, 2]) / 2
total, ce, dice_loss = DiceCELoss()(Tensor(np.log(hedge + 1e-4)), truth)
print(f"hedging the side: loss {float(total.asnumpy()):.3f}", end=" = ")
print(f"cross-entropy {float(ce.asnumpy()):.3f}", end=" + ")
print(f"Dice loss {float(dice_loss.asnumpy()):.3f}")

# %% [markdown]
# That is little compared with the loss at the start of Figure 2. In a loss curve the plateau looks like the end of training: steep fall, then nearly flat.
# It is a plateau because hedging is the best answer as long as the network has no clue, so the gradient points nowhere in particular. Some clue
# must first grow out of noise.
#
# ### How far must one look?
#
# Which clues are there? We ask a classifier that is as simple as can be, one weighted sum, for the side of single lung voxels. All that it gets is a blurred picture of the surroundings
# and its slopes along the three axes. It learns on twenty training phantoms and is tested on the held-out ones. The only thing that we change is
# the width of the blur, that is, how far it sees.

# %%
folder = Path(quick.data.data_path)
learnt = measured.surroundings(small, list_cases(folder / "train")[:20])
tested = measured.surroundings(small, list_cases(folder / "val")[:20])

# %%
scales_mm = measured.SCALES_MM
accuracy = []
print("share of the held-out voxels whose side is right, by the widest blur:")
for count, scale_mm in enumerate(scales_mm, start=1):
    accuracy.append(measured.side_accuracy(learnt, tested, scales=count))
    print(f"{scale_mm:2} mm: {accuracy[-1]:.0%}")

# %% tags=["hide-input"] mystnb={"image": {"alt": "Share of lung voxels whose side is named rightly over the width of the surroundings: at chance level for 8 and 16 millimetres, rising at 32, high at 64."}}
figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
axis.plot(scales_mm, accuracy, "o-", color="black")
axis.axhline(0.5, color="0.6", linestyle="--", label="a coin")
axis.set(
    xscale="log",
    xticks=scales_mm,
    xticklabels=scales_mm,
    ylim=(0.4, 1),
    ylabel="side named rightly",
    xlabel="standard deviation of the widest blur (mm)",
)
axis.minorticks_off()
axis.legend()
plt.show()

# %% [markdown]
# *Figure 5. How well a simple rule tells the side of a lung voxel, by how far it sees.*
#
# From near, left and right are a coin toss for such a rule. From afar, where heart and midline come into view, the side is clear. In the network
# only the deep levels [see that far](05_model.ipynb#how-far-the-network-sees), a crop cuts much of it off, and the fine levels learn of the side only what the deep ones have understood. That is why the
# quick preset adds the [position channel](05_model.ipynb#where-am-i-the-position-channel), the distance from the middle plane of the body: the last row of the
# table above. Its sign alone names nearly every lung voxel rightly, at every level of the network. The exact border in the middle, and the tilted patient,
# must still be learnt; in training the plane is moved a little at random so that the network does not rely on it to the millimetre.
#
# ### How to detect it
#
# Look at each structure by itself, on volumes that were not trained on, early in the run. If one lung is missing after a fair share of the steps, stop
# and find out why: too little context in the crop, too few steps, mirrored volumes among the training data. And never mirror left and right to gain
# variety, unless the labels are swapped too.

# %% tags=["nbval-ignore-output"]
for step, left, right in zip(
    *(result.validation[name] for name in ("step", "left lung", "right lung")),
    strict=True,
):
    verdict = (
        "one lung is missing"
        if min(left, right) < 0.3
        else "both lungs found"
        if min(left, right) > 0.8
        else "undecided"
    )
    print(f"quick run, step {step:4.0f}: left {left:.3f}, right {right:.3f}: {verdict}")

# %% [markdown]
# ## The same run twice
#
# Chance is in four places: the first weights, the order of the volumes, the place of the crops, the augmentation. All four follow from
# `train.seed`. If that is true, two runs with one seed must give the same file, byte for byte. We train three times for three steps.

# %%
files = {}
for name, seed in (("first", 1), ("second", 1), ("other seed", 2)):
    options = {
        "seed": seed,
        "epoch_size": 1,
        "warmup_step": 1,
        "output_path": str(sandbox / name),
    }
    run = train(
        small.updated({"data": {"data_path": str(sandbox / "few")}, "train": options})
    )
    files[name] = run.checkpoint.read_bytes()
print(len(run.history["step"]), "steps each")
print("same seed, same bytes: ", files["first"] == files["second"])
print("other seed, same bytes:", files["first"] == files["other seed"])

# %% [markdown]
# Not approximately equal: equal. This holds on one machine with one set of versions. On another processor sums are taken in another order, the
# last digits differ, and after hundreds of steps the weights do too. So the scores that you see on your machine differ from the
# stored ones in the later digits. What should agree is the conclusion.
#
# A bit-exact run is not pedantry. It tells whether a change of the code changes anything: repeat the run, and any difference is due to it.
# It does not tell how much of a *score* is luck. For that, train with several seeds and look at the spread.
#
# ## Failures on purpose
#
# ### A rate that is far too high
#
# The rate of the quick preset, times a thousand.

# %% tags=["nbval-ignore-output"]
high = {
    "lr": 1000 * small.train.lr,
    "epoch_size": 1,
    "output_path": str(sandbox / "high"),
}
losses = {
    small.train.lr: trial.history["loss"],
    high["lr"]: train(small.updated({"train": high})).history["loss"],
}
for rate, values in losses.items():
    print(f"rate {rate:g}: mean loss of steps 11 to 20 {np.mean(values[10:20]):.2f}")
undecided = float(DiceCELoss()(truth * 0, truth)[0].asnumpy())
print(f"a quarter for each class, everywhere: {undecided:.2f}")

# %% [markdown]
# The run does not crash: batch-norm divides by whatever size the numbers have, so the loss stays finite. *Finite* is not *healthy*. Know the loss of a network
# that knows nothing, the last line, from [exercise 2 of chapter 7](07_loss.ipynb#exercise-2-the-first-value-of-a-loss-curve), and compare: a run that is still near or above it after
# twenty steps has a rate that is too high, or wrong labels. Divide the rate by ten.
#
# And a rate that nobody would choose:

# %% tags=["nbval-ignore-output"]
folder = str(sandbox / "absurd")
absurd = small.updated({"train": {"lr": 1e30, "epoch_size": 1, "output_path": folder}})
try:
    train(absurd)
except FloatingPointError as error:
    print(textwrap.fill(str(error), 88))

# %% [markdown]
# Here the loop stopped. The loss was still a number, but its gradient was not, and one such step would have made every weight a number no more.
#
# ### A checkpoint and another network
#
# A checkpoint is a list of names and arrays. It does not hold the network. Loaded into another one, some frameworks take what fits and say nothing
# about the rest, and a network that is half random gives masks that look half right. `load_network` compares names and shapes first.

# %%
try:
    load_network(
        quick.updated({"data": {"position": False}, "model": {"in_channels": 1}}),
        result.checkpoint,
    )
except ValueError as error:
    print(textwrap.fill(str(error), 88))

# %% [markdown]
# ### Another configuration, the same folder
#
# Change a setting, forget to change the folder, and a lesser design would either overwrite a good run or hand out its result under the new settings.

# %%
try:
    train(quick.updated({"train": {"lr": 0.01}}))
except ValueError as error:
    print(textwrap.fill(str(error), 88))

# %% [markdown]
# ## Exercises
#
# ### Exercise 1: which checkpoints are left?
#
# The quick preset looks at the held-out volumes every `validate_every` steps and after the last step, saves a checkpoint each time, and keeps the
# newest `keep_checkpoint_max`. Write the list of the `step-` files that are left, oldest first. The settings:

# %%
train_settings = quick.train
print("steps", len(result.history["step"]))
print("validate_every", train_settings.validate_every)
print("keep_checkpoint_max", train_settings.keep_checkpoint_max)
left_over = ...  # such as ["step-00010.ckpt", "step-00020.ckpt"]

# %%
if left_over is ...:
    print("Not tried yet: replace ... above.")
elif list(left_over) == sorted(
    path.name for path in result.checkpoint.parent.glob("step-*.ckpt")
):
    print("Right.")
else:
    print("Not yet: list all looks, the last step included, and keep the newest.")

# %% [markdown]
# <details>
# <summary>Solution of exercise 1</summary>
#
# ```python
# total, every = len(result.history["step"]), quick.train.validate_every
# looks = sorted({*range(every, total + 1, every), total})
# left_over = [f"step-{step:05d}.ckpt" for step in looks[-quick.train.keep_checkpoint_max:]]
# ```
#
# </details>
#
# ### Exercise 2: the fingerprint by hand
#
# In a patient 45 % of the lung volume is the left lung. A network finds all lung exactly and calls all of it *right*. What is
# the Dice of the right lung?

# %%
answer = ...

# %%
truth = np.repeat([1, 2], [45, 55]).reshape(1, 1, -1)
if answer is ...:
    print("Not tried yet: replace ... above.")
elif abs(answer - dice(truth > 0, truth == 2)) < 1e-3:
    print("Right.")
else:
    print("Not yet: twice the overlap over the sum of both volumes.")
    print("The prediction is all lung.")

# %% [markdown]
# <details>
# <summary>Solution of exercise 2</summary>
#
# The prediction has volume 1, the right lung 0.55, and they overlap in 0.55:
#
# ```python
# answer = 2 * 0.55 / (1 + 0.55)
# ```
#
# </details>
#
# ### Exercise 3: three runs
#
# Three runs, invented, each at five looks. Which of them sits on the plateau, which has a rate that is too high, and which learns its training
# volumes by heart? Replace each `...` by `"plateau"`, `"rate"` or `"by heart"`.
#
# | run | training loss | Dice, left lung | Dice, right lung |
# |---|---|---|---|
# | A | 0.60, 0.35, 0.22, 0.12, 0.06 | 0.70, 0.88, 0.91, 0.89, 0.86 | 0.72, 0.89, 0.92, 0.90, 0.85 |
# | B | 0.60, 0.33, 0.31, 0.30, 0.30 | 0.05, 0.01, 0.00, 0.02, 0.00 | 0.60, 0.66, 0.67, 0.67, 0.68 |
# | C | 1.90, 1.20, 1.70, 1.10, 1.60 | 0.10, 0.30, 0.00, 0.25, 0.05 | 0.20, 0.05, 0.30, 0.00, 0.10 |

# %%
diagnosis = {"A": ..., "B": ..., "C": ...}

# %%
right = {"A": "by heart", "B": "plateau", "C": "rate"}
if ... in diagnosis.values():
    print("Not tried yet: replace ... above.")
elif diagnosis == right:
    print("Right.")
else:
    print("Not yet: compare the last column with the table of the plateau,")
    print("and the loss with the held-out Dice.")

# %% [markdown]
# <details>
# <summary>Solution of exercise 3</summary>
#
# In A the loss goes on falling while the held-out Dice turns down: by heart. B has the plateau's fingerprint, nothing and two thirds, and a loss
# that stands still. C jumps and does not settle: rate.
#
# ```python
# diagnosis = {"A": "by heart", "B": "plateau", "C": "rate"}
# ```
#
# </details>
#
# ## Quiz
#
# **1. A run was killed between two checkpoints and started again. The weights come back to the last bit, but the optimiser's memory was
# forgotten. What would you see?**
#
# - (a) Nothing: the weights are all that counts.
# - (b) An error when the checkpoint is loaded.
# - (c) A run that goes on without complaint, and ends with other weights.
#
# <details>
# <summary>Answer 1</summary>
#
# (c). Adam divides by what it remembers of earlier gradients. With an empty memory its first steps are others than they would have been, and
# all later ones follow from them. (a) is tempting because the loss looks the same at the first step: it depends on weights and crops only.
# No message would tell; comparing bytes does.
#
# </details>
#
# **2. After a third of the run the training loss is nearly flat. The held-out Dice is 0.02 for the left lung and 0.66 for the right.
# What would you check first?**
#
# - (a) Whether the learning rate is too high.
# - (b) Whether the network can know left from right.
# - (c) Whether the checkpoint was written whole.
#
# <details>
# <summary>Answer 2</summary>
#
# (b). Nothing and two thirds is the fingerprint of one answer for both sides. With a rate that is too high the loss would jump, not lie flat.
# A torn checkpoint is refused with a message; it does not score two thirds.
#
# </details>
#
# **3. You train with three seeds and get 0.91, 0.93 and 0.92 for the left lung. A colleague changes the loss, trains once and gets 0.935. Is
# the new loss better?**
#
# <details>
# <summary>Answer 3</summary>
#
# One cannot tell. The seeds alone move the score by as much as the gain is large. That each run is repeatable to the bit does not help: it
# says that the same seed gives the same luck. Train the new loss with several seeds, too.
#
# </details>
#
# **4. Which of these two lines of a history must be wrong? (i) loss 0.50, cross-entropy 0.20, Dice loss 0.30. (ii) loss 1.30,
# cross-entropy 0.10, Dice loss 1.20.**
#
# <details>
# <summary>Answer 4</summary>
#
# (ii). Both add up, so the sum does not tell. But a Dice on probabilities lies between 0 and 1, and so does one minus Dice. A Dice loss
# above 1 means that it was not computed on probabilities, which is [pitfall 1](../book/pitfalls.md#pitfall-1).
#
# </details>
#
# ## What to remember
#
# - A step: loss, gradient, optimiser. `value_and_grad` gives the first two.
# - The gradient is right for small steps only.
# - Judge a run by the Dice of each structure on held-out volumes, not by the loss, and not by a mean over structures.
# - One lung at nothing and the other at two thirds: the network does not know left from right. Tell it where it is.
# - One seed, one machine: the same bytes. Test it, do not believe it.
# - A finite loss is not a healthy loss.
# - Going on after a crash needs weights, optimiser and position. It costs little: measure it.
# - Write files whole, return the name that was written, refuse a checkpoint that does not fit.
#
# ## References
#
# - D. P. Kingma, J. Ba. *Adam: A Method for Stochastic Optimization.* ICLR, 2015.
#   [arXiv:1412.6980](https://arxiv.org/abs/1412.6980)
# - R. Liu, J. Lehman, P. Molino and others. *An Intriguing Failing of Convolutional Neural Networks and the CoordConv Solution.*
#   NeurIPS, 2018. [arXiv:1807.03247](https://arxiv.org/abs/1807.03247)
# - J. Pineau and others. *Improving Reproducibility in Machine Learning Research.* Journal of Machine Learning Research 22, 2021.
#   [arXiv:2003.12206](https://arxiv.org/abs/2003.12206)
# - MindSpore. *mindspore.value_and_grad*, in the [API documentation](https://www.mindspore.cn/docs/en/master/index.html).
#
# ## Next
#
# The network is trained, on drawings. [Chapter 9](09_evaluation.ipynb) shows it a patient.

# %% tags=["nbval-ignore-output"]
temporary.cleanup()
chapter.leave()
