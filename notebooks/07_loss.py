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
# # Loss
#
# The loss says in one number how wrong the network is, and its gradient says what to change. It is where a training run learns
# what you care about. This chapter builds the loss of this book, cross-entropy plus Dice, from its parts. At the end you
# can say which mistakes each part punishes, why neither is enough alone, and how to recognise a loss that rewards the
# wrong thing.
#
# **You will learn**
# - how rare the trachea is, and what that does to a loss that counts voxels
# - cross-entropy, and how to compute it without overflow
# - the soft Dice loss, on probabilities, and what goes wrong on logits
# - what the smoothing term is for, and what it does to a class that is absent
# - where in the picture each loss pulls
# - what cross-entropy alone does to the trachea, in two short runs
#
# **You need**: [chapter 5](05_model.ipynb) for the logits, [chapter 6](06_learning_rate.ipynb) for the steps of the short runs,
# [chapter 2](02_data.ipynb) for phantoms. No file is read.

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.book import chapter

chapter.enter()

# %%
import matplotlib.pyplot as plt
import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from unet3d_tutorial import CrossEntropyLoss, DiceCELoss, DiceLoss, dice, generate
from unet3d_tutorial.book import learning
from unet3d_tutorial.files.tables import Table
from unet3d_tutorial.labels import COLORS, STRUCTURES
from unet3d_tutorial.losses import ClassSums, log_softmax, soft_dice
from unet3d_tutorial.runs.device import setup

setup()
rng = np.random.default_rng(0)

# %% [markdown]
# ## How rare is the trachea
#
# One phantom on a grid of 5 mm, and the share of its voxels that belongs to each class.

# %%
image, label = generate(seed=3, spacing_mm=5.0)
classes = ("background", *STRUCTURES)
share = np.bincount(label.array.ravel(), minlength=4) / label.array.size
for name, part in zip(classes, share, strict=True):
    print(f"{name:10} {part:7.2%}")
print(f"background voxels for each voxel of the trachea: {share[0] / share[3]:.0f}")

# %% tags=["hide-input"] mystnb={"image": {"alt": "Bar chart of the share of voxels of each class on a logarithmic axis: background is most of the volume, the lungs some percent each, the trachea a small fraction of a percent."}}
plt.figure(figsize=(6, 2.6))
bars = plt.barh(classes, share * 100, color=["0.6", *COLORS.values()])
plt.bar_label(bars, [f"{part:.2%}" for part in share], padding=4)
plt.gca().set(
    xscale="log",
    xlabel="share of the voxels in percent (logarithmic)",
    xlim=(0.01, 400),
)
plt.gca().invert_yaxis()
plt.show()

# %% [markdown]
# *Figure 1. How the voxels of a phantom are shared out. Without the logarithmic axis the bar of the trachea could not be
# seen.*
#
# A network that forgets the trachea altogether still gets nearly every voxel right. Keep that in mind: *the share of right
# voxels* is not a measure for this task.
#
# ## Cross-entropy
#
# The network gives four logits $z_k$ for each voxel. Softmax makes probabilities of them, and cross-entropy is the mean over
# all $V$ voxels of minus the logarithm of the probability that the true class got:
#
# $$p_k = \frac{e^{z_k}}{\sum_j e^{z_j}}, \qquad L_{\mathrm{CE}} = -\frac{1}{V} \sum_{\text{voxels}} \log p_{\text{true}}$$
#
# ### A failure: the exponential of a large number
#
# Written down as it stands, the formula breaks where the network is sure. Single precision ends at about $10^{38}$, and
# $e^{100}$ is beyond that.

# %%
with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
    for size in (1, 10, 100, 10000):
        z = np.array([size, 0, 0, -size], np.float32)
        naive = np.log(np.exp(z) / np.exp(z).sum())
        stable = log_softmax(Tensor(z.reshape(1, 4, 1, 1, 1))).asnumpy().ravel()
        print(f"logits up to {size:5}: naive  ", np.round(naive, 3))
        print(f"{'package':>27}", np.round(stable, 3))

# %% [markdown]
# The naive form gives `nan` or minus infinity, and one such voxel is enough to make the loss, all gradients and then all weights
# `nan`. The cure is an identity. Softmax does not change if the same number is taken from all logits, so take away the largest:
#
# $$\log p_k = (z_k - m) - \log \sum_j e^{z_j - m}, \qquad m = \max_j z_j$$
#
# Now the largest exponential is $e^0 = 1$. Nothing overflows, the sum is at least 1, and its logarithm is finite. The logarithm
# is never taken of a probability that has been rounded to zero. This is the *log-sum-exp* form, and MindSpore's own softmax and
# log-softmax use it.
#
# All losses of this book are made of three sums over the voxels, so the package computes those, for each sample and each class,
# and everything else is arithmetic on a handful of numbers.

# %% tags=["hide-input"]
chapter.source(ClassSums, CrossEntropyLoss)

# %% [markdown]
# The method `bprop` is the gradient, written by hand. MindSpore can derive it, but what it derives for the softmax is slow on a
# processor. A gradient by hand is easy to get wrong, so check it against a finite difference: nudge one logit, and see whether the
# loss moves as the gradient says.

# %%
z = rng.normal(size=(1, 4, 3, 3, 3)).astype(np.float32)
t = (rng.integers(0, 4, (1, 1, 3, 3, 3)) == np.arange(4).reshape(1, 4, 1, 1, 1)).astype(
    np.float32
)
both = DiceCELoss()
gradient = ms.grad(lambda v: both(v, Tensor(t))[0])(Tensor(z)).asnumpy()
nudge = np.zeros_like(z)
nudge[0, 2, 1, 1, 1] = 0.05
up, down = (
    float(both(Tensor(z + sign * nudge), Tensor(t))[0].asnumpy()) for sign in (1, -1)
)
print(
    f"by hand {gradient[0, 2, 1, 1, 1]:.5f}, finite difference {(up - down) / 0.1:.5f}"
)

# %% [markdown]
# The cross-entropy must agree with MindSpore's own cross-entropy, which takes class numbers instead of one-hot labels.

# %%
target_classes = rng.integers(0, 4, (2, 6, 5, 4))
one_hot = (target_classes[:, None] == np.arange(4).reshape(1, 4, 1, 1, 1)).astype(
    np.float32
)
logits = rng.normal(0, 3, (2, 4, 6, 5, 4)).astype(np.float32)
package = float(CrossEntropyLoss()(Tensor(logits), Tensor(one_hot)).asnumpy())
mindspore = float(
    ops.cross_entropy(Tensor(logits), Tensor(target_classes.astype(np.int32))).asnumpy()
)
print(f"package {package:.5f}, mindspore.ops {mindspore:.5f}")

# %% [markdown]
# ## Soft Dice
#
# The score that counts in the end is Dice: twice the overlap over the sum of both volumes, per structure. It cannot be
# trained on directly, because a mask is made by a decision, and a decision has no gradient. *Soft* Dice puts probabilities in the
# place of the mask. With $p$ the probability of a class, $t$ its one-hot label and $\varepsilon$ the smoothing term:
#
# $$D_k = \frac{2 \sum p_k t_k + \varepsilon}{\sum p_k^2 + \sum t_k^2 + \varepsilon}, \qquad
# L_{\mathrm{Dice}} = 1 - \frac{1}{K} \sum_k D_k$$
#
# The sums run over all voxels of the batch, and the mean over the classes counts the trachea as much as the background. That is
# the point: the size of a structure cancels out. The squares below are those of V-Net (Milletari and others, 2016).

# %% tags=["hide-input"]
chapter.source(soft_dice, DiceLoss)

# %% [markdown]
# `DiceLoss` has a switch for each choice that papers make differently, so that you can compute *their* loss: squares or plain sums in
# the denominator, one Dice for the batch or one for each sample, with the background or without. The numbers differ, so a Dice
# loss quoted without its form says little.

# %%
guess = Tensor(logits)
forms = {
    "this book": {},
    "plain denominator": {"squared": False},
    "each sample for itself": {"batch": False},
    "without background": {"include_background": False},
}
for name, options in forms.items():
    print(
        f"{name:23} {float(DiceLoss(**options)(guess, Tensor(one_hot)).asnumpy()):.4f}"
    )

# %% [markdown]
# ### On probabilities, not on logits
#
# > **Pitfall 1.** The case hands the logits themselves to a Dice loss. Logits are not between 0 and 1, and the formula loses its
# > meaning: it can leave its range, and it punishes being sure. [All pitfalls](../book/pitfalls.md#pitfall-1)
#
# To see it, take the phantom's labels and let the network be *right everywhere*: logit $s$ for the true class and 0 for the
# others. The larger $s$, the surer the network. At $-s$ it is wrong everywhere. What do the two forms say?

# %%
truth = Tensor((label.array == np.arange(4).reshape(1, 4, 1, 1, 1)).astype(np.float32))
sizes = np.array([-2, -1, 0, 0.5, 1, 2, 4, 8, 12])
on_logits = [
    float((1 - soft_dice(truth * float(s), truth, 1.0)).mean().asnumpy()) for s in sizes
]
on_probabilities = [float(DiceLoss()(truth * float(s), truth).asnumpy()) for s in sizes]
print("logit s of the true class", *(f"{s:6.1f}" for s in sizes))
print("Dice loss on logits      ", *(f"{loss:z6.2f}" for loss in on_logits))
print("Dice loss on probability ", *(f"{loss:z6.2f}" for loss in on_probabilities))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two Dice losses over the logit of the true class: on probabilities it falls steadily to zero, on logits it is above one for negative logits, zero at one and rises again for larger, surer logits."}}
plt.figure(figsize=(6, 3.2))
plt.plot(sizes, on_logits, "s--", color="#D55E00", label="on logits (the case)")
plt.plot(sizes, on_probabilities, "o-", color="#0072B2", label="on probabilities")
plt.axhspan(0, 1, color="0.93", zorder=0, label="range of 1 - Dice")
plt.gca().set(xlabel="logit of the true class (others: 0)", ylabel="Dice loss")
plt.legend(fontsize=8)
plt.show()

# %% [markdown]
# *Figure 2. The Dice loss of a network that is right everywhere (to the right of 0), as it becomes surer.*
#
# On probabilities the loss falls as the network becomes surer. On logits it is perfect at 1, where softmax is still undecided,
# and *rises* from there: with the surest logits of the table the loss says that little overlaps. To the left of 0 it leaves the
# range of one minus a Dice. Training against it drags all right answers towards 1, while the cross-entropy beside it pushes them
# up. The run does not fail. It compromises, and nobody sees why it is not better.
#
# ### The smoothing term, and a class that is not there
#
# Many crops hold no trachea. Then $\sum t = 0$, the overlap is 0, and without $\varepsilon$ a right prediction, no trachea anywhere,
# gives 0 / 0. With it, above *and* below, the right answer counts 1.

# %%
absent = Tensor(np.zeros((1, 1, 20, 20, 20)), ms.float32)
everywhere = {"nothing": 0.0, "p = 0.001 everywhere": 1e-3, "p = 0.1 everywhere": 0.1}
print("Dice of a class that is absent, by what was predicted:")
for smooth in (0.0, 1e-5, 1.0):
    for predicted, p in everywhere.items():
        value = float(soft_dice(absent + p, absent, smooth).asnumpy()[0])
        print(f"smooth {smooth:7}: {predicted:20} {value:.4f}")

# %% [markdown]
# The size of the term decides what happens between the two ends. With $10^{-5}$, as in the case, a class that is absent scores near
# zero as soon as a trace of probability is anywhere: a term of the loss that is *on* for every such crop, whatever the
# network does. With 1, a trace is forgiven and a real spill is not. Our default is 1: it is one voxel's worth. Next to a structure of
# hundreds of voxels it makes hardly any difference.
#
# ## Which mistakes cost what
#
# Five predictions for the phantom, as sure as a logit of 10 can be, and two that are undecided. The *lazy* one says background
# everywhere.


# %%
found = label.array
sure = learning.logits_of
shares = Tensor(np.log(share).reshape(1, 4, 1, 1, 1), ms.float32)
predictions = {
    "right everywhere": sure(found),
    "trachea forgotten": sure(np.where(found == 3, 0, found)),
    "one lung forgotten": sure(np.where(found == 1, 0, found)),
    "lungs exchanged": sure(np.choose(found, [0, 2, 1, 3])),
    "lazy: background everywhere": sure(np.zeros_like(found)),
    "undecided: a quarter each": sure(found) * 0,
    "undecided: the classes' shares": sure(found) * 0 + shares,
}

# %%
rows = []
for name, logits in predictions.items():
    total, ce, dice_loss = DiceCELoss()(logits, truth)
    right = (logits.asnumpy().argmax(axis=1)[0] == found).mean()
    values = [f"{float(value.asnumpy()):.3f}" for value in (ce, dice_loss, total)]
    rows.append([name, f"{right:.1%}", *values])
headings = ["prediction", "right voxels", "cross-entropy", "Dice loss", "sum"]
Table(headings, rows, align=["left"] + ["right"] * 4)

# %% [markdown]
# Read it row by row. (Of equal logits the first is taken, so a network that gives a quarter to each seems to say background.)
# Forgetting the trachea costs cross-entropy next to nothing, Dice a quarter: one class of four. The lazy prediction has most
# voxels right, and Dice sees through it. On the other hand Dice alone sees little difference between the undecided and the lazy:
# it says how much overlap there is, not how sure the network is of each voxel.
#
# The two complement each other, so the loss of the book is their sum:

# %% tags=["hide-input"]
chapter.source(DiceCELoss)

# %% [markdown]
# ## Where each loss pulls
#
# The network does not see the loss, it feels its gradient. For cross-entropy the gradient with respect to the logits has a simple
# form, $(p_k - t_k) / V$: every voxel pulls according to its own error, whatever its class. For Dice another factor takes the
# place of $1 / V$, about one over the volume that the structure has in label and prediction together.
#
# We look at two moments of a run: the *start*, with all four classes equally likely, and a point *half-way*, where everything is in its
# place but blurred: the labels, smoothed by 1.5 voxels. The pull of a voxel is the sum of the absolute gradients of its four logits,
# here multiplied by the number of voxels.

# %%
from scipy import ndimage

smoothed = ndimage.gaussian_filter(truth.asnumpy(), (0, 0, 1.5, 1.5, 1.5))
start = predictions["undecided: a quarter each"]
moments = {"start": start, "half-way": Tensor(np.log(smoothed + 1e-3))}
losses = {"cross-entropy": CrossEntropyLoss(), "Dice": DiceLoss()}
gradients, pulls = {}, {}
for moment, logits in moments.items():
    for name, loss in losses.items():
        gradients[moment, name], pulls[moment, name] = learning.pull_of(
            loss, logits, truth
        )
difference = gradients["start", "cross-entropy"] - (0.25 - truth.asnumpy()[0])
same = bool(abs(difference).max() < 1e-4)
print("cross-entropy at the start is p - t:", same)

# %%
rows = []
for (moment, name), pull in pulls.items():
    trachea = pull[3] * share[3] / (pull * share).sum()
    rows.append([moment, name, *(f"{value:.2f}" for value in pull), f"{trachea:.1%}"])
headings = ["", "loss", *classes, "share of the trachea in the whole pull"]
print("Mean pull of one voxel of each class:")
Table(headings, rows, align=["left"] * 2 + ["right"] * 5)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two groups of bars, pull at one voxel of each class: at the start cross-entropy pulls alike at all classes and Dice weakly at the background; half-way Dice pulls at a voxel of the trachea many times more strongly than anything else."}}
learning.draw_pulls(pulls, classes)

# %% [markdown]
# *Figure 3. How strongly each loss pulls at one voxel of each class, at two moments. The axis is logarithmic.*

# %% tags=["hide-input"] mystnb={"image": {"alt": "Coronal slice of a phantom beside the half-way gradient of cross-entropy and of Dice on the logit of the trachea: cross-entropy shows faint traces along the trachea's wall, Dice a strong red trachea with a blue rim."}}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.3), layout="constrained")
row = int(np.argmax((found == 3).sum(axis=(0, 2))))
axes[0].imshow(image.array[:, row].T, cmap="gray", vmin=-1000, vmax=400, origin="lower")
axes[0].set_title("phantom, coronal slice", fontsize=10)
top = np.quantile(abs(gradients["half-way", "Dice"][3][found == 3]), 0.95)
for ax, name in zip(axes[1:], losses, strict=True):
    pull = gradients["half-way", name][3, :, row].T
    shown = ax.imshow(pull, cmap="RdBu", vmin=-top, vmax=top, origin="lower")
    ax.set_title(f"{name}, half-way", fontsize=10)
figure.colorbar(shown, ax=axes, label="gradient on the trachea's logit")
for ax in axes:
    ax.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# *Figure 4. The gradient of the two losses with respect to the logit of the trachea, in one slice and on one scale. Red, negative:
# the loss wants the logit to rise; blue: to fall. The patient's right is on the left.*
#
# Cross-entropy treats voxels as equals, so a structure's say grows with its volume: half-way, the trachea has hardly any. Dice treats
# *structures* as equals, so half-way the trachea's few voxels get a large part of the whole pull. At the start it is otherwise.
# Where the prediction is spread over the whole volume, Dice divides by that volume: its pull at a voxel of the trachea is of the
# same order as that of cross-entropy, and in the background it is weak. Cross-entropy clears the background in the first
# steps, Dice sees to it that nothing small is forgotten later. That is the reason for the sum.
#
# ## Each in a run of its own
#
# So much for theory. Does a network that is trained with cross-entropy alone really ignore the trachea? Two short runs, equal in all
# but the loss: the same first weights, the same steps at the same rate, the network with half the channels, and one crop of one
# phantom on a grid of 8 mm, which it may learn by heart.

# %%
from unet3d_tutorial.book.toy import crop_around, toy_config

small = toy_config()
_, crop_labels = crop_around(small, value=3)  # the trachea
for name, count in zip(classes, np.bincount(crop_labels.ravel()), strict=True):
    print(f"{name:10} {count:6} voxels, {count / crop_labels.size:7.2%}")

# %% [markdown]
# Around the trachea it is less rare than in the whole scan, so the test is a mild one. Every fourth step we ask which share of each
# structure's voxels has been found.

# %% tags=["nbval-ignore-output"]
steps = range(0, 81, 4)
recalls = {}
for name in ("CrossEntropyLoss", "DiceCELoss"):
    recalls[name] = learning.recalls_while_training(small, name, steps)

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"image": {"alt": "Share of each structure's voxels that was found, over the steps of two runs: both lungs, after a dip, rise early with either loss; the trachea rises to all with the sum, and with cross-entropy alone it stays near nothing for most of the run and only begins to rise at its end."}}
learning.draw_recalls(steps, recalls)

# %% [markdown]
# *Figure 5. Share of each structure's voxels that the network finds while it learns one crop by heart. Solid: trained with
# cross-entropy + Dice. Dashed: with cross-entropy alone, from the same first weights.*

# %% tags=["nbval-ignore-output"]
rows = []
for number in range(0, len(steps), 4):
    alone, together = (recalls[name][number][2] for name in recalls)
    rows.append([steps[number], f"{alone:.0%}", f"{together:.0%}"])
print("Share of the trachea found:")
Table(["step", "cross-entropy alone", "sum"], rows, align=["right"] * 3)

# %% [markdown]
# Both runs learn the lungs. With the sum the trachea follows soon after them. With cross-entropy alone it is still next to nothing
# when the other run has nearly all of it, and it begins to come up only at the end.
#
# So *ignores* is too strong a word. Cross-entropy is smallest where everything is right: it does not forbid the trachea, it postpones
# it, because first comes what has many voxels. In a run that ends before its turn, that is the same. And learning one crop by heart
# says nothing about a new patient. What the two runs do show is the order in which things are learned, and that the order is a
# matter of the loss.
#
# ## What Dice does not treat equally
#
# One warning, for this chapter and for the [evaluation](09_evaluation.ipynb). Shift each true mask by one single voxel and
# take its Dice with itself.

# %%
shifted = {}
print("Dice after a shift by one voxel:")
for spacing_mm in (5.0, 3.0):
    _, masks = generate(seed=3, spacing_mm=spacing_mm)
    for value, name in enumerate(STRUCTURES, start=1):
        mask = masks.array == value
        moved = np.roll(mask, 1, axis=0)
        shifted[name, spacing_mm] = dice(moved, mask, spacing_mm=(spacing_mm,) * 3)
        print(
            f"{name:10} grid of {spacing_mm:.0f} mm, {mask.sum():7,} voxels:", end=" "
        )
        print(f"{shifted[name, spacing_mm]:.3f}")

# %% tags=["hide-input"] mystnb={"image": {"alt": "Bars of the Dice lost by a shift of one voxel: the trachea loses more than twice as much as a lung, and all structures lose more on the coarse grid of 5 mm than on that of 3 mm."}}
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
for shift, spacing_mm in ((-0.2, 5.0), (0.2, 3.0)):
    lost = [1 - shifted[name, spacing_mm] for name in STRUCTURES]
    bars = ax.bar(np.arange(3) + shift, lost, 0.38, color=COLORS.values())
    ax.bar_label(bars, [f"{spacing_mm:.0f} mm"] * 3, fontsize=8)
ax.set_xticks(range(3), STRUCTURES)
ax.set(ylabel="1 - Dice after a shift by one voxel")
plt.show()

# %% [markdown]
# *Figure 6. What an error of one voxel costs in three structures and on two grids. Above each bar: the size of the voxels.*
#
# The error is the same in all three structures, and the trachea pays more than twice what a lung pays. The reason is the share of
# voxels that lie at the surface. On the coarse grid one voxel is a longer way, and costs all of them more. So a Dice that is poor for
# a lung may be good for a trachea. Two Dice values of different structures cannot be compared, nor can those of different grids,
# where no border can be more exact than the voxels are. Distances in millimetres can, and chapter 9 reports both.
#
# ## Exercises
#
# ### Exercise 1: Dice by hand
#
# A structure has 100 voxels. A prediction with probability 1 covers 80 voxels, 60 of them right. What is its Dice, without
# smoothing?

# %%
answer = ...

# %%
p, t = np.zeros((1, 1, 1, 1, 200), np.float32), np.zeros((1, 1, 1, 1, 200), np.float32)
p[..., 40:120], t[..., :100] = 1, 1
if answer is ...:
    print("Not tried yet: replace ... above.")
elif abs(answer - float(soft_dice(Tensor(p), Tensor(t), 0.0).asnumpy()[0])) < 1e-5:
    print("Right.")
else:
    print("Not yet: twice the overlap, over the sum of the two volumes.")

# %% [markdown]
# <details>
# <summary>Solution of exercise 1</summary>
#
# ```python
# answer = 2 * 60 / (80 + 100)
# ```
#
# </details>
#
# ### Exercise 2: the first value of a loss curve
#
# A fresh network knows nothing. If it gave all four classes the same probability, what would the cross-entropy be? It is a good habit
# to know this number before training: a first loss far above it hints at a bad initialisation or wrong labels.

# %%
answer = ...

# %%
quarter = float(
    CrossEntropyLoss()(predictions["undecided: a quarter each"], truth).asnumpy()
)
if answer is ...:
    print("Not tried yet: replace ... above.")
elif abs(answer - quarter) < 1e-3:
    print(f"Right: {quarter:.4f}")
else:
    print("Not yet: minus the logarithm of the probability of the true class.")

# %% [markdown]
# <details>
# <summary>Solution of exercise 2</summary>
#
# Every voxel costs $-\log \frac{1}{4}$, whatever its label:
#
# ```python
# answer = np.log(4)
# ```
#
# </details>
#
# ### Exercise 3: an absent class
#
# A crop of 16 x 16 x 16 voxels holds no trachea. The network gives it the probability $p$ everywhere. For which $p$ is its soft
# Dice one half, with a smoothing term of 1?

# %%
p = ...

# %%
crop = Tensor(np.zeros((1, 1, 16, 16, 16)), ms.float32)
if p is ...:
    print("Not tried yet: replace ... above.")
elif abs(float(soft_dice(crop + float(p), crop, 1.0).asnumpy()[0]) - 0.5) < 1e-4:
    print("Right.")
else:
    print("Not yet: solve 1 / (V p^2 + 1) = 1 / 2 for p, with V voxels.")

# %% [markdown]
# <details>
# <summary>Solution of exercise 3</summary>
#
# The overlap and the label's volume are zero, so $D = 1 / (V p^2 + 1)$, which is one half for $V p^2 = 1$:
#
# ```python
# p = 1 / np.sqrt(16**3)
# ```
#
# </details>
#
# ## Quiz
#
# **1. A colleague reports: "99.8 % of all voxels are right after the first epoch." Which network would you suspect?**
#
# - (a) a very good one
# - (b) one that says background nearly everywhere on scans with much background, or forgets the trachea
# - (c) one with too high a learning rate
#
# <details>
# <summary>Answer 1</summary>
#
# (b). The table of predictions shows it: the network that forgot the trachea altogether has nearly all voxels right. (a) may be true
# as well, but the number cannot tell it from (b), so ask for the Dice of each structure.
#
# </details>
#
# **2. At some steps of a training run the Dice loss is well above 1. What is wrong?**
#
# <details>
# <summary>Answer 2</summary>
#
# It is not computed on probabilities. On those, overlap and sizes keep Dice between 0 and 1, and the loss with it. On logits the overlap
# may be negative, and then the loss is above 1, as on the left of figure 2; with plain sums in the denominator it may fall below 0, too.
# A tiny negative number, of the size of rounding, is harmless: the table of predictions shows one.
#
# </details>
#
# **3. Somebody sets the smoothing term to 0, and the loss becomes `nan`, but only at some steps. At which?**
#
# - (a) at those with a high learning rate
# - (b) at those where a class is in no crop of the batch and has been given no probability at all
# - (c) at those with large logits
#
# <details>
# <summary>Answer 3</summary>
#
# (b). Then overlap and size are both zero, and 0 / 0 is no number. (c) is the failure of the naive exponential, which the package's
# softmax does not have; large logits only make exact zeros of some probabilities, and with that (b) possible.
#
# </details>
#
# **4. In the short runs, cross-entropy alone was late with the trachea. Would weighting the trachea's voxels a hundred times in
# the cross-entropy be the same as adding Dice?**
#
# <details>
# <summary>Answer 4</summary>
#
# No, though it would bring the trachea earlier. A weight is a fixed number, chosen in advance for one share of voxels; Dice divides by
# the volumes that are there, so that its balance follows the crop. And with a fixed weight every voxel that is wrongly called trachea
# stays cheap, compared with a missed one, so that the network spills. Dice counts both.
#
# </details>
#
# **5. The logits come in 16 bits, and somebody sums the squared probabilities of the background over a crop of 64 x 64 x 64 voxels
# in `float16`. What comes out for a network that is right, and what does the loss say?**
#
# <details>
# <summary>Answer 5</summary>
#
# Infinity: such a crop has more voxels of background than the largest number that `float16` can hold (chapter 5 prints it). Dice
# of the background becomes a number divided by infinity, zero, and the loss says that a right answer is wrong. No error is
# raised. (If the overlap is summed in 16 bits as well, it is infinity by infinity, `nan`, which at least one notices.) The losses of the
# package turn logits into 32 bits first.
#
# </details>
#
# ## What to remember
#
# - The share of right voxels says nothing where one class is rare.
# - Cross-entropy counts voxels, Dice counts structures. Their sum has what each lacks.
# - Cross-entropy alone learns the large first and the small last. In a run of limited length, last may be never.
# - Dice is for probabilities. On logits it punishes being sure.
# - Never write the exponential of a raw logit: take a softmax that subtracts the largest first.
# - A gradient written by hand is checked against finite differences.
# - The smoothing term decides what an absent class costs. It belongs above and below.
# - Dice values of large and of thin structures cannot be compared.
#
# ## References
#
# - F. Milletari, N. Navab, S.-A. Ahmadi. *V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image Segmentation.*
#   3DV, 2016. [doi:10.1109/3DV.2016.79](https://doi.org/10.1109/3DV.2016.79)
# - C. H. Sudre and others. *Generalised Dice Overlap as a Deep Learning Loss Function for Highly Unbalanced Segmentations.*
#   DLMIA, 2017. [doi:10.1007/978-3-319-67558-9_28](https://doi.org/10.1007/978-3-319-67558-9_28)
# - F. Isensee and others. *nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation.* Nature
#   Methods 18, 2021. [doi:10.1038/s41592-020-01008-z](https://doi.org/10.1038/s41592-020-01008-z) (the sum of both losses)
# - L. Maier-Hein, A. Reinke and others. *Metrics reloaded.* Nature Methods 21, 2024.
#   [doi:10.1038/s41592-023-02151-z](https://doi.org/10.1038/s41592-023-02151-z)
#
# ## Next
#
# Network, rate and loss are there. [Chapter 8](08_training.ipynb) puts them into a loop and trains.

# %% tags=["nbval-ignore-output"]
chapter.leave()
