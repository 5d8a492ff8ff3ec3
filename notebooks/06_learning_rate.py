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
# # Learning rate
#
# One number decides more about a training run than any other: how large a step the weights take. This chapter makes the list of
# learning rates that the run of [chapter 8](08_training.ipynb) uses, one for each step, and holds it against the case's.
# At the end you can write such a schedule down, check it before a run is spent on it, and tell from a loss curve that the rate
# was wrong.
#
# **You will learn**
# - linear warm-up and cosine decay, as a formula and as a list
# - why the first steps of Adam are large, whatever the gradient
# - what too high and too low a rate look like, on a problem of seconds
# - how steps, epochs and batch size turn into each other, and three ways to get it wrong
#
# **You need**: [chapter 5](05_model.ipynb) for the network, and the phantoms of [chapter 2](02_data.ipynb), which are counted.

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.book import chapter

chapter.enter("phantom")

# %%
import textwrap
from pathlib import Path

import mindspore as ms
import numpy as np
from IPython.display import display
from mindspore import Tensor, nn
from unet3d_tutorial.config import Config
from unet3d_tutorial.dataset import list_cases
from unet3d_tutorial.schedule import case_cosine, warmup_cosine, warmup_steps
from unet3d_tutorial.view.charts import schedule_curve

quick, luna16 = Config.preset("quick"), Config.preset("luna16")

# %% [markdown]
# ## Warm-up, then cosine
#
# Let $T$ be the number of steps of the run, $w$ the number of warm-up steps, $\eta$ the highest rate and $r$ the share of it
# that the warm-up starts from. The rate of step $s = 0, 1, \ldots, T - 1$ is
#
# $$
# \eta_s = \begin{cases}
# \eta \left(r + (1 - r)\,\dfrac{s}{w}\right) & s < w \quad\text{(warm-up)} \\[2ex]
# \dfrac{\eta}{2} \left(1 + \cos \pi\,\dfrac{s - w}{T - w}\right) & s \ge w \quad\text{(cosine)}
# \end{cases}
# $$
#
# The first part climbs on a straight line. The second falls along half a cosine: slowly at first, fast in the middle, slowly at
# the end, where small steps let the weights settle (Loshchilov and Hutter, 2017).

# %% tags=["hide-input"]
chapter.source(warmup_cosine)

# %% [markdown]
# A run of ten steps, small enough to check by hand: two steps of warm-up from a tenth of the rate, then eight of cosine.

# %%
rates = warmup_cosine(lr=1.0, total_steps=10, warmup_step=2, warmup_ratio=0.1)
print([round(rate, 3) for rate in rates])

# %% [markdown]
# Three things to see. The first step already has a rate above zero, so that it is not wasted. The highest rate comes at step
# $w$, the first of the cosine. The last step is close to zero but not zero: zero would be reached one step later.
#
# ## Counting steps
#
# The formula needs the number of steps $T$, and no setting holds it: it follows from the number of volumes, the batch size
# and the number of epochs.

# %%
presets = {"quick": quick, "luna16": luna16}
volumes = {"quick": len(list_cases(Path(quick.data.data_path) / "train"))}
volumes["luna16"] = 888 - 10  # ten are held out
steps = {}
for name, preset in presets.items():
    train = preset.train
    steps[name] = volumes[name] * train.epoch_size // train.batch_size
    print(f"{name}: {volumes[name]} volumes x {train.epoch_size} epochs", end=" ")
    print(f"/ {train.batch_size} a batch = {steps[name]} steps,", end=" ")
    print(f"{train.warmup_step} of them warm-up")

# %% tags=["hide-input"] mystnb={"image": {"alt": "Learning rate of the quick preset over all its steps: a short straight rise, then half a cosine down to zero."}}
train = quick.train
schedule = warmup_cosine(
    lr=train.lr,
    total_steps=steps["quick"],
    warmup_step=train.warmup_step,
    warmup_ratio=train.warmup_ratio,
)
display(schedule_curve(schedule, title="quick preset"))

# %% [markdown]
# *Figure 1. The learning rate of every step of the quick run. This is the list that chapter 8 trains with.*

# %% tags=["hide-input"] mystnb={"image": {"alt": "Learning rate of the luna16 preset with two lengths of warm-up: 120 steps are a steep rise at the very start, three epochs rise over nearly a third of the run; both end at zero."}}
train, epoch = luna16.train, steps["luna16"] // luna16.train.epoch_size
curves = {
    name: warmup_cosine(
        lr=train.lr,
        total_steps=steps["luna16"],
        warmup_step=warmup,
        warmup_ratio=train.warmup_ratio,
    )
    for name, warmup in {
        "120 steps, as the case's code": 120,
        "3 epochs, as the case's text": warmup_steps(epochs=3, steps_per_epoch=epoch),
    }.items()
}
display(schedule_curve(curves, title="luna16 preset"))

# %% [markdown]
# *Figure 2. The luna16 preset with the two warm-ups of the case.*
#
# ## The case's schedule
#
# > **Pitfall 7.** The text of the case promises a warm-up of three epochs, its code does 120 steps. And its cosine is
# > stretched over *all* steps but starts only after the warm-up, so the run ends before the cosine does.
# > [All pitfalls](../book/pitfalls.md#pitfall-7)
#
# How much does it matter? The package keeps the formula of the case under the name `case_cosine`, so that we can ask. The rate of
# the last step should be next to nothing.

# %%
for warmup, name in ((120, "120 steps"), (3 * epoch, "3 epochs")):
    options = {
        "lr": train.lr,
        "total_steps": steps["luna16"],
        "warmup_step": warmup,
        "warmup_ratio": train.warmup_ratio,
    }
    case = case_cosine(**options)[-1] / train.lr
    ours = warmup_cosine(**options)[-1] / train.lr
    print(f"warm-up of {name}, {warmup / steps['luna16']:.1%} of the run. It ends at")
    print(f"  {case:.2%} of the highest rate (case), {ours:.6%} (ours)")

# %% tags=["hide-input"] mystnb={"image": {"alt": "With three epochs of warm-up the case's cosine is cut off well above zero at the end of the run, ours reaches zero."}}
display(
    schedule_curve(
        {"case": case_cosine(**options), "ours": warmup_cosine(**options)},
        title="3 epochs of warm-up",
    )
)

# %% [markdown]
# *Figure 3. The two formulas with three epochs of warm-up. The case's curve is cut off before it reaches its end.*
#
# With the short warm-up of the code the two mistakes hide each other: hardly anything is cut off. Let somebody
# mend only one of them, and make the warm-up as long as the text says, and training stops while the steps are still large.
# That is the trouble with a formula that is *nearly* right.
#
# Both forms are settings here: `train.warmup_step` counts steps, which is what the optimiser knows; `train.warmup_epoch`, if above
# 0, takes its place and counts epochs. `warmup_steps` turns one into the other.
#
# ## Why warm up
#
# Adam divides the mean gradient by its typical size. In the first step both come from the same single gradient, so the quotient
# is plus or minus one in nearly every weight, however small the gradient: **the first step moves every weight by the full
# learning rate.** (A tiny number, epsilon, which keeps Adam from dividing by zero, makes it less for the very smallest
# gradients.) The network is as good as random at that moment, and so is the direction. Is that a large step? It depends on the
# weights. We take one step at a rate of 0.003 and compare with the spread of the weights in the layers.

# %%
from unet3d_tutorial import DiceCELoss, OneHot
from unet3d_tutorial.book.learning import draw_losses, train_with
from unet3d_tutorial.book.toy import toy_config, toy_crop
from unet3d_tutorial.files.tables import Table
from unet3d_tutorial.runs.device import setup
from unet3d_tutorial.training import build_network, make_train_step
from unet3d_tutorial.volume import Volume

small = toy_config()
crop, crop_labels = toy_crop(small)
one_hot = OneHot(small.model.num_classes)
_, targets = one_hot(None, Volume(crop_labels, np.eye(4)))
image, label = Tensor(crop), Tensor(targets.array)
spacing_mm = small.data.spacing_mm[0]
print(f"grid of {spacing_mm:.0f} mm, image {image.shape}, label {label.shape}")

# %% [markdown]
# This is the toy problem of the chapter: *one* crop of *one* phantom on a coarse grid of 8 mm, and the network with half the
# channels. A step takes a fraction of a second. The only question is how fast the network learns this crop by heart.

# %% tags=["nbval-ignore-output"]
setup(seed=1)
network = build_network(small)
network.set_train(True)
before = {p.name: p.asnumpy().copy() for p in network.trainable_params()}
optimizer = nn.Adam(network.trainable_params(), learning_rate=0.003)
step = make_train_step(network, DiceCELoss(), optimizer)
losses = step(image, label)

# %% tags=["nbval-ignore-output"]
after = {p.name: p.asnumpy() for p in network.trainable_params()}
for layer in ("down1.down_conv.down_conv_1", "down5.down_conv.down_conv_2"):
    name = f"{layer}.weight"
    moved = np.median(abs(after[name] - before[name]))
    spread = before[name].std()
    print(f"{name}: moved by {moved:.4f},", end=" ")
    print(f"the spread was {spread:.2f}, that is {moved / spread:.0%}")

# %% [markdown]
# The step is close to the learning rate in both layers; in the deepest, epsilon takes a little of it. In the first, with few
# large weights, that is little. In the deepest, with many small weights, a few steps in a wrong direction wipe out what the
# initialisation had balanced. Warm-up takes the first steps with a small rate, while Adam collects enough gradients to know their
# typical size.
#
# ## Too low, too high
#
# The list becomes a tensor, the tensor goes to the optimiser, and the optimiser takes one value a step. Six schedules, the same
# first weights, the same crop. The case's has a warm-up of a third of the run, as its text wants.

# %% tags=["nbval-ignore-output"]
T = 24
schedules = {
    "ours: 0.003, warm-up, cosine": warmup_cosine(
        lr=0.003, total_steps=T, warmup_step=4, warmup_ratio=0.1
    ),
    "no warm-up: 0.003, cosine": warmup_cosine(lr=0.003, total_steps=T, warmup_step=0),
    "the case's: 0.003, long warm-up": case_cosine(
        lr=0.003, total_steps=T, warmup_step=T // 3, warmup_ratio=0.3
    ),
    "0.003, constant": [0.003] * T,
    "0.00003, constant": [0.00003] * T,
    "0.3, constant": [0.3] * T,
}

# %% tags=["nbval-ignore-output"]
losses = {}
for name, rates in schedules.items():
    losses[name], _ = train_with(small, rates, image, label)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Loss over the steps of the toy problem: the low rate hardly moves, the high rate first shoots up far above the first value and then comes down unsteadily, the four with a rate of 0.003 fall steadily."}}
draw_losses(losses)

# %% [markdown]
# *Figure 4. The toy problem with six schedules. Read the shape of each curve.*

# %% tags=["nbval-ignore-output"]
rows = []
for name, values in losses.items():
    row = [f"{values[0]:.2f}", f"{max(values):.2f}", f"{values[-1]:.2f}"]
    rows.append([name, *row, f"{schedules[name][-1]:.6f}"])
headings = ["schedule", "first loss", "highest", "last", "rate at the end"]
Table(headings, rows, align=["left"] + ["right"] * 4)

# %% [markdown]
# - **Too low**: the curve is a nearly flat line. It falls, so nothing is broken; it only takes far too long. Multiply the rate by ten.
# - **Too high**: the loss shoots up in the first steps, far above its first value, and comes back unsteadily. What the
#   initialisation had prepared is lost. Nothing becomes infinite here, because batch-norm keeps the numbers in bounds, so do not
#   wait for a `nan` to tell you. Divide the rate by ten.
# - **About right**: a steady fall from the first step.
#
# And be honest about the four with 0.003. On this toy the *constant* rate falls fastest, and the case's schedule does better than
# ours, for the very reason that makes it wrong: its rate has not come down at the end, as the last column shows. Leaving the warm-up
# out does no harm either: at this rate the first steps are not large enough for lasting damage. The crop never changes, so there is no
# noise for small last steps to average out, and in a run this short every step with a small rate is time lost. A schedule earns its
# keep in a run of hundreds of steps on changing crops, with a rate near the highest that works. A toy shows what is broken; it does
# not show what is best.
#
# ## Failures on purpose
#
# ### A warm-up longer than the run
#
# Shorten a run to try something, keep the other settings, and the warm-up may not fit. A schedule that only ever climbs would
# train, and badly. This one refuses.

# %%
few_steps = (
    20 * luna16.train.epoch_size // luna16.train.batch_size
)  # only 20 of LUNA16's scans
try:
    warmup_cosine(
        lr=luna16.train.lr, total_steps=few_steps, warmup_step=luna16.train.warmup_step
    )
except ValueError as error:
    print(error)

# %% [markdown]
# ### A list shorter than the run
#
# The list is made before training. If the steps were counted wrongly, say with a batch size that the data set does not use, the
# list runs out. MindSpore's optimiser then asks the list for an entry that is not there, at the end of a long run.

# %%
weight = ms.Parameter(Tensor([1.0], ms.float32), name="weight")
optimizer = nn.SGD([weight], learning_rate=Tensor([0.1, 0.2, 0.3], ms.float32))
for step in range(4):
    try:
        optimizer((Tensor([1.0], ms.float32),))
        print(f"step {step}: weight {weight.asnumpy()[0]:.2f}")
    except RuntimeError as error:
        message = str(error).splitlines()[0]
        print(textwrap.fill(f"step {step}: {message}", 88))

# %% [markdown]
# The three steps took 0.1, 0.2 and 0.3, as listed; the fourth has no rate. What happens here may differ on a GPU or on
# Ascend, where an index out of range need not raise an error. In the package one function, `count_steps`, gives both the list
# and the data set their length, so that they agree.
#
# The opposite, a list longer than the run, is silent: the run ends before the cosine does, as in pitfall 7.
#
# ## Exercises
#
# ### Exercise 1: half-way up
#
# The rate is 0.002, the warm-up has 100 steps and starts at a share of 0.2. What is the learning rate of step 50?
# Replace `...` and run the check.

# %%
answer = ...

# %%
check = warmup_cosine(lr=0.002, total_steps=1000, warmup_step=100, warmup_ratio=0.2)[50]
if answer is ...:
    print("Not tried yet: replace ... above.")
elif abs(answer - check) < 1e-9:
    print("Right.")
else:
    print("Not yet: the line runs from 0.2 * 0.002 to 0.002; where is its middle?")

# %% [markdown]
# <details>
# <summary>Solution of exercise 1</summary>
#
# Half-way between the two ends of the line:
#
# ```python
# answer = 0.002 * (0.2 + 0.8 * 50 / 100)
# ```
#
# </details>
#
# ### Exercise 2: half-way down
#
# At which step does the same schedule, 1000 steps with 100 of warm-up, come down through half of the highest rate?

# %%
step = ...

# %%
if step is ...:
    print("Not tried yet: replace ... above.")
elif step == 550:
    rate = warmup_cosine(lr=0.002, total_steps=1000, warmup_step=100)[step]
    print("Right: the rate there is", round(rate, 6))
else:
    print("Not yet: the cosine is zero in the middle of its own part,")
    print("which starts at step 100.")

# %% [markdown]
# <details>
# <summary>Solution of exercise 2</summary>
#
# The cosine is zero where its argument is $\pi / 2$, that is half of the way from step $w$ to step $T$:
#
# ```python
# step = (100 + 1000) // 2
# ```
#
# </details>
#
# ### Exercise 3: three epochs
#
# You have 500 training volumes and a batch size of 4, and want three epochs of warm-up. Which `warmup_step` do you set?

# %%
warmup_step = ...

# %%
if warmup_step is ...:
    print("Not tried yet: replace ... above.")
elif warmup_step == 3 * (500 // 4):
    print(
        "Right:",
        quick.updated({"train": {"warmup_step": warmup_step}}).train.warmup_step,
        "steps",
    )
else:
    print("Not yet: how many steps has one epoch?")

# %% [markdown]
# <details>
# <summary>Solution of exercise 3</summary>
#
# An epoch has 500 / 4 steps:
#
# ```python
# warmup_step = 3 * 500 // 4
# ```
#
# </details>
#
# ## Quiz
#
# **1. Two curves of the first twenty steps: A falls by a hundredth of its first value, B jumps to three times its first value and comes
# back. Which rate was too high, and what do you try next?**
#
# <details>
# <summary>Answer 1</summary>
#
# B's was too high: divide it by ten. A's was probably too low: multiply it by ten. It is tempting to trust B, because after the jump
# its curve falls fast. It only makes good what the first steps have broken.
#
# </details>
#
# **2. You halve the batch size and leave all other settings alone. What happens to the schedule?**
#
# - (a) nothing
# - (b) the run has twice as many steps, and the warm-up is a smaller share of it
# - (c) the cosine ends in the middle of the run
#
# <details>
# <summary>Answer 2</summary>
#
# (b), as long as `train.warmup_step` counts the warm-up: it keeps its number of steps. With `train.warmup_epoch` it would keep its
# share. (c) would happen to a list made for the old number of steps; the package counts the steps of the data set anew.
#
# </details>
#
# **3. A run prints a last learning rate of a fifth of the highest. Warm-up and cosine were asked for. What would you check first?**
#
# - (a) whether the cosine is spread over all steps, the warm-up included
# - (b) whether the highest rate is too high
# - (c) whether the loss is still falling
#
# <details>
# <summary>Answer 3</summary>
#
# (a): that is pitfall 7 with a long warm-up. (c) is worth knowing but says nothing about the schedule: here the loss fell most with the
# rates that did not come down. (b) changes the height of the curve, not its end.
#
# </details>
#
# **4. In Adam's very first step one weight has a gradient of a thousandth, another one of ten. Which moves further?**
#
# <details>
# <summary>Answer 4</summary>
#
# Neither: both move by about the learning rate, each against the sign of its gradient. Adam divides the gradient by its typical size,
# and after one step the only size it knows is that of this gradient. Plain gradient descent would move the second one ten
# thousand times as far.
#
# </details>
#
# ## What to remember
#
# - A schedule is a list, one rate a step. Plot it before you train with it.
# - Warm-up, because Adam's first steps are as large as the rate, whatever the gradient says.
# - The cosine must end where the run ends. Steps = volumes x epochs / batch size.
# - Flat curve: too low. A curve that shoots up at once: too high. Neither raises an error.
# - A toy problem finds what is broken, not what is best.
#
# ## References
#
# - I. Loshchilov, F. Hutter. *SGDR: Stochastic Gradient Descent with Warm Restarts.* ICLR, 2017.
#   [arXiv:1608.03983](https://arxiv.org/abs/1608.03983)
# - D. P. Kingma, J. Ba. *Adam: A Method for Stochastic Optimization.* ICLR, 2015.
#   [arXiv:1412.6980](https://arxiv.org/abs/1412.6980)
# - P. Goyal and others. *Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour.* 2017.
#   [arXiv:1706.02677](https://arxiv.org/abs/1706.02677) (gradual warm-up)
# - L. Liu and others. *On the Variance of the Adaptive Learning Rate and Beyond.* ICLR, 2020.
#   [arXiv:1908.03265](https://arxiv.org/abs/1908.03265) (why Adam needs it)
#
# ## Next
#
# The steps have a size. [Chapter 7](07_loss.ipynb) gives them a direction.

# %% tags=["nbval-ignore-output"]
chapter.leave()
