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
# # Model
#
# You have crops; now they need a network. This chapter builds the 3D U-Net of the case from its smallest part up, and
# looks at what each part does to a small array before it is used. At the end you can read the whole network line by
# line, say the shape of every feature map without running it, and name the mistakes that make a good network give bad
# answers.
#
# **You will learn**
# - how the network of the 3D U-Net paper and the network of the case differ, and how to tell which of them you have
# - what a strided convolution, a PReLU, a batch-norm, a residual shortcut and a transposed convolution do to an array
# - why batch-norm ruins predictions in training mode
# - why crop sizes must be multiples of 16, and how far the network sees
# - what the two networks cost: parameters, multiplications, memory, seconds
# - what a trained network's feature maps look like
# - what 16-bit numbers change, and why a network that is fine in 32 bits may break in 16
# - what two settings make MindSpore fast on a processor
#
# **You need**: [chapter 4](04_dataset.ipynb) for where the crops come from. Nothing is trained here; one figure and one failure
# look into the network that [chapter 8](08_training.ipynb) trains.

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.book import chapter

chapter.enter("phantom", "run")

# %% [markdown]
# The package comes before MindSpore in the imports, because it sets a variable that MindSpore's kernels read. A
# [later section](#two-traps-on-a-processor) says which.

# %%
import os
import textwrap

import matplotlib.pyplot as plt
import mindspore as ms
import numpy as np
from IPython.display import Markdown, display
from mindspore import Tensor, nn
from unet3d_tutorial import Config, ResidualUNet3D, UNet3D, accelerate
from unet3d_tutorial.book import model as drawings
from unet3d_tutorial.book.model import count_parameters, outputs_of
from unet3d_tutorial.files.tables import Table
from unet3d_tutorial.model import BatchNorm3d, PReLU, conv3d
from unet3d_tutorial.runs.device import setup

# %%
config = Config.preset("quick")
setup(seed=config.train.seed)
rng = np.random.default_rng(0)

# %% [markdown]
# ## The picture and the network
#
# A U-Net has two arms. The *encoder* makes the volume smaller and the number of channels larger: it trades *where* for
# *what*. The *decoder* goes back up. At each level the decoder also gets the encoder's feature map of the same size, through
# a *skip connection*, because the fine detail that the way down has thrown away cannot be guessed on the way up.
#
# Çiçek and others drew that picture for volumes in 2016. It is reprinted in many projects, also in the case of this book.
#
# > **Pitfall 13.** The case shows the paper's figure, with max-pooling and three input channels, and builds another
# > network: residual, with strided convolutions and one input channel. Whoever reads the figure and loads the checkpoint
# > is surprised. [All pitfalls](../book/pitfalls.md#pitfall-13)
#
# | | the paper's network | the case's network, and ours |
# |---|---|---|
# | input channels | 3 colours of a microscope | 1, the HU; the quick preset adds the [position](#where-am-i-the-position-channel) |
# | going down | 2 x 2 x 2 max-pooling | 3 x 3 x 3 convolution with stride 2 |
# | how many times | 3 | 4 |
# | in each level on the way down | two convolutions, one after the other | two convolutions beside a shortcut |
# | activation | ReLU | PReLU, with one learned slope each |
# | borders | convolutions without padding: the output is smaller than the input | padding: the output has the input's size |
# | going up | 2 x 2 x 2 transposed convolution, then join | join, then 3 x 3 x 3 transposed convolution |
# | last layer | 1 x 1 x 1 convolution | 3 x 3 x 3 convolution |
#
# The surest way to tell two networks apart is to count. The paper states its number of parameters. A 3 x 3 x 3
# convolution from $a$ to $b$ channels has $27ab$ weights and $b$ biases, so the figure alone is enough to check it.

# %%
from unet3d_tutorial.model import ConvUnit, valid_size

paper = UNet3D(in_channels=3, num_classes=3)
case = ResidualUNet3D(in_channels=1, num_classes=4)
ours = ResidualUNet3D(config.model.in_channels, config.model.num_classes)

from_figure = drawings.paper_parameters()
built = count_parameters(paper, without="norm")
more = count_parameters(ours) - count_parameters(case)
print(f"paper, from its figure:       {from_figure:>10,}  (it states 19,069,955)")
print(f"paper, built by this package: {built:>10,}")
print(f"case, one input channel:      {count_parameters(case):>10,}")
print(f"quick preset, two channels:   {count_parameters(ours):>10,}  (+{more})")

# %% [markdown]
# The paper's count comes out to the last digit, from the figure and from the network that the package builds after it. (It
# leaves out the scale and shift of the batch-norms, and the transposed convolutions have no bias.) The network of the
# case is a quarter of it, and is deeper by a level: it spends its weights differently.
#
# ## The paper's network, block by block
#
# Its only building block is a convolution, a normalisation and a ReLU. Two of them make a level.

# %% tags=["hide-input"]
chapter.source(ConvUnit, UNet3D)

# %% [markdown]
# Send the paper's own input through it, in thought: without padding each convolution costs two voxels of each axis, pooling
# halves, the transposed convolution doubles. The package does the sum for any size, and checks it before it runs.

# %%
print("paper's input and output:", (132, 132, 116), "->", valid_size((132, 132, 116)))
narrow = UNet3D(in_channels=1, num_classes=2, channels=(4, 8, 16), padding="valid")
parts = {}
for kind in ("down", "up", "join"):
    for level, cell in enumerate(getattr(narrow, kind)):
        parts[f"{kind} {level}"] = cell

image = Tensor(np.zeros((1, 1, 60, 60, 44)), ms.float32)
print(f"{'input':7} {image.shape}")
for name, output in outputs_of(parts, lambda: narrow(image)).items():
    print(f"{name:7} {output.shape}")
print(f"{'logits':7} {narrow(image).shape}")

# %%
try:
    narrow(Tensor(np.zeros((1, 1, 58, 60, 44)), ms.float32))
except ValueError as error:
    print(textwrap.fill(str(error), 88))

# %% [markdown]
# These are the shapes of a forward pass of a narrow copy with three levels, written down by *forward hooks*: functions that
# MindSpore calls after a layer, with the layer's input and output. The logits cover the middle of the input only. The rest is
# context, which a voxel at the border of the output sees in full, where padding would have shown it zeros. The price is a
# smaller output for the same work. With `padding="same"` the network keeps the size, like the case's.
#
# ## Halving: stride or pooling
#
# Both networks halve the volume on the way down. Max-pooling keeps the largest value of each 2 x 2 x 2 block: no
# weights, nothing to learn. A convolution with stride 2 computes its output only at every second voxel: it halves the
# volume *and* learns what to keep.

# %%
volume = Tensor(rng.normal(size=(1, 2, 16, 12, 8)), ms.float32)  # (N, C, D, H, W)
pooled = nn.MaxPool3d(kernel_size=2, stride=2)(volume)
strided = conv3d(2, 16, stride=2)(volume)
plain = conv3d(2, 16)(volume)
for name, result in {
    "input": volume,
    "max-pooling": pooled,
    "stride 2": strided,
    "stride 1": plain,
}.items():
    print(f"{name:12} {result.shape}")

# %% [markdown]
# With a kernel of 3 and one voxel of zeros around the volume, stride 1 keeps the size and stride 2 halves it. This is the
# package's convolution. It has no bias, because nearly everywhere a batch-norm follows, and batch-norm takes the mean away: a
# bias before it would be learned in vain.

# %% tags=["hide-input"]
chapter.source(conv3d)

# %% [markdown]
# `he_normal` draws the first weights with a standard deviation of $\sqrt{2 / ((1 + a^2) n)}$, where $n$ is the number of
# inputs of one output and $a$ the slope of the activation below zero. So the values neither fade nor grow as they pass through
# the layers (He and others, 2015).
#
# ## PReLU, written out
#
# The activation leaves positive values alone and multiplies negative ones by a slope $a$ that is learned:
#
# $$\mathrm{PReLU}(x) = \max(x, 0) + a \min(x, 0) = \mathrm{relu}(x) - a\,\mathrm{relu}(-x)$$
#
# The right-hand form is the one that the package computes. It uses ReLU alone, and the reason is a measurement: on a
# processor the gradient of MindSpore's own `nn.PReLU` with respect to $a$ is inexact, and may change from call to call.
# The true gradient is the sum of $\min(x, 0)$ times the gradient that arrives, which NumPy gives in double precision.

# %% tags=["nbval-ignore-output"]
x = rng.normal(size=(2, 16, 48, 48, 48)).astype(np.float32)
arriving = (rng.random(x.shape) / x.size).astype(np.float32)
print("relative error of the slope's gradient in three calls:")
for name, layer in {"nn.PReLU": nn.PReLU(), "package": PReLU()}.items():
    errors = drawings.slope_gradient_errors(layer, x, arriving)
    print(f"{name:9}", ", ".join(f"{error:.1e}" for error in errors))

# %% tags=["hide-input"] mystnb={"image": {"alt": "PReLU for three slopes: the identity to the right of zero, a straight line of slope 0, 0.25 or 1 to the left."}}
values = np.linspace(-3, 3, 101, dtype=np.float32)
looks = {0.0: (":", "#56B4E9"), 0.25: ("-", "black"), 1.0: ("--", "#CC79A7")}
plt.figure(figsize=(5, 3))
for slope, (style, color) in looks.items():
    bent = PReLU(slope)(Tensor(values)).asnumpy()
    plt.plot(values, bent, style, color=color, linewidth=2, label=f"a = {slope}")
plt.gca().set(xlabel="x", ylabel="PReLU(x)")
plt.legend()
plt.grid(alpha=0.3)
plt.show()

# %% [markdown]
# *Figure 1. PReLU with three slopes. With a = 0 it is ReLU, with a = 1 it changes nothing. Training starts at a = 0.25 and
# each PReLU of the network finds its own.*
#
# ## Batch-norm has two modes
#
# Batch-norm brings every channel to mean 0 and standard deviation 1, then multiplies by a learned scale `gamma` and adds
# a learned shift `beta`. It does so in two ways:
#
# - in **training mode** with the mean and variance of the batch that passes through; it also moves its memory of them
#   a little way, *memory = 0.9 memory + 0.1 batch*
# - in **evaluation mode** with the remembered values
#
# Beware of the word momentum: MindSpore's `momentum=0.9` is the share that is kept, in PyTorch it is the share that is new.

# %%
measurements = (5 + 3 * rng.normal(size=(1, 1, 16, 16, 16))).astype(np.float32)
print("passes | memory of the mean | by the formula | mean of the output")
for passes in (0, 1, 10, 50):
    norm = BatchNorm3d(channels=1, momentum=0.9)
    norm.set_train(True)
    for _ in range(passes):
        norm(Tensor(measurements))
    norm.set_train(False)
    memory = float(norm.bn2d.moving_mean.asnumpy()[0])
    formula = float(measurements.mean()) * (1 - 0.9**passes)
    output = norm(Tensor(measurements)).asnumpy().mean()
    print(f"{passes:6} | {memory:18.2f} | {formula:14.2f} | {output:18.2f}")

# %% [markdown]
# A fresh batch-norm remembers nothing and lets the mean of 5 through. After fifty passes its memory is right, and the
# output has mean 0.
#
# ### A failure: training mode forgotten
#
# A scan must get the same answer whoever lies next to it in the batch. In training mode it does not, because the mean and
# the variance are taken over the whole batch. Nothing stops; there is no warning; the masks are just worse.

# %% tags=["nbval-ignore-output"]
network = ResidualUNet3D(in_channels=1, num_classes=4)
patient = rng.normal(0.3, 0.2, size=(1, 1, 32, 32, 32)).astype(np.float32)
neighbour = rng.normal(0.9, 0.5, size=(1, 1, 32, 32, 32)).astype(np.float32)
print("how far a neighbour moves the patient's logits, in standard deviations:")
for training in (True, False):
    network.set_train(training)
    alone = network(Tensor(patient)).asnumpy()[0]
    together = network(Tensor(np.concatenate([patient, neighbour]))).asnumpy()[0]
    change = abs(alone - together).max() / alone.std()
    print(f"set_train({training}): {change:.0e}")

# %% [markdown]
# In evaluation mode nothing moves, or no more than the rounding of 32-bit numbers. There is a second harm: every prediction in
# training mode also moves the memory, so that the network changes while it is used. `load_network` of the package sets
# evaluation mode for you. MindSpore builds a network in evaluation mode, where PyTorch builds it in training mode; from then on
# the last call of `set_train` counts. So whoever has trained calls `network.set_train(False)` before the next prediction. It is
# also the first thing to check when a network scores well in training and badly afterwards.
#
# ## A residual unit
#
# Two convolutions, each with batch-norm and PReLU, *beside* a shortcut; the results are added. The shortcut is a
# convolution too, so that channels and size agree.

# %% tags=["hide-input"]
from unet3d_tutorial.model import IdentityUnit, ResidualUnit, Up

chapter.source(ResidualUnit)

# %% [markdown]
# The two convolutions have to learn only what the shortcut does not already give, and the gradient has a way down that no
# activation weakens (He and others, 2016). We can see the shortcut alone: with `gamma` of the second batch-norm
# at zero the two convolutions are silent, and what is left must be the shortcut, to the last bit.

# %%
unit = ResidualUnit(2, 16, stride=2, shortcut_kernel=3, momentum=0.9)
unit.set_train(False)
before = unit(volume).asnumpy()
unit.batchNormal2.bn2d.gamma.set_data(Tensor(np.zeros(16), ms.float32))
shortcut = unit.residual(volume).asnumpy()
print("shape:", volume.shape, "->", before.shape)
print(
    "convolutions silent, equal to the shortcut:",
    np.array_equal(unit(volume).asnumpy(), shortcut),
)

# %% [markdown]
# The decoder's `IdentityUnit` is the same idea with one convolution and nothing on the shortcut.
#
# ## Going up: a transposed convolution
#
# The decoder doubles the volume with a transposed convolution: each input voxel adds the kernel, multiplied by its value,
# to the output, and the next input voxel does so two voxels further on. For an axis of $n$ voxels, kernel 3, stride 2, padding 1 and
# output padding 1 the size is
#
# $$2 (n - 1) - 2 \cdot 1 + 3 + 1 = 2n$$
#
# A kernel of 3 that moves on by 2 overlaps with its neighbours at every second voxel. With a kernel and an input of ones
# the output counts the overlaps.

# %%
options = {
    "stride": 2,
    "pad_mode": "pad",
    "padding": 1,
    "output_padding": 1,
    "weight_init": "ones",
}
counts = nn.Conv3dTranspose(1, 1, 3, **options)(
    Tensor(np.ones((1, 1, 8, 8, 8)), ms.float32)
).asnumpy()[0, 0]
print("size:", counts.shape)
print("along one edge:", counts[0, 0, :15].astype(int))
print("contributions inside:", np.unique(counts[:15, :15, :15]).astype(int))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Slice through the overlap counts of the transposed convolution: a regular checkerboard in which neighbouring voxels get between two and eight contributions."}}
plt.figure(figsize=(4.5, 3.4))
plt.imshow(counts[1], cmap="viridis", vmin=0, vmax=8, origin="lower")
plt.colorbar(label="kernels that reach the voxel", ticks=[0, 2, 4, 8])
plt.gca().set(xlabel="W (voxels)", ylabel="H (voxels)")
plt.show()

# %% [markdown]
# *Figure 2. How many input voxels contribute to each output voxel, in one slice of a transposed convolution. The pattern
# has a name, checkerboard artefact (Odena and others, 2016).*
#
# Even voxels get one contribution along an axis, odd ones two; inside the volume that makes one to eight. A trained kernel
# can balance this, and the convolution that follows can smooth it. Look for the pattern where a mask has an edge like a
# saw. The very last odd voxel of each axis has only one neighbour, so the far border of the volume is treated a little
# worse than the near one.

# %% tags=["hide-input"]
chapter.source(Up, IdentityUnit)

# %% [markdown]
# ## The whole network
#
# Four residual units with stride 2, a fifth without, and four steps up. The last step ends in a plain convolution with no
# activation: its output, the *logits*, must be free to take any value. What makes probabilities of them is the
# [loss](07_loss.ipynb).

# %% tags=["hide-input"]
chapter.source(ResidualUNet3D)

# %% [markdown]
# Nine hooks write down the shapes of a real pass, with the crop of the quick preset. This table is measured, not drawn
# from memory.

# %%
network = ResidualUNet3D(config.model.in_channels, config.model.num_classes)
network.set_train(False)
size = (1, config.model.in_channels, *config.data.roi_size)
crop = Tensor(rng.normal(size=size), ms.float32)
outputs = outputs_of(network.name_cells(), lambda: network(crop))
display(drawings.parts_table(network, outputs, crop.shape))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram of the network in the form of a U: input, five encoder levels down, four decoder levels up, with channels and size at each, and four dashed skip connections from encoder to decoder."}}
shapes = {"input": crop.shape}
for name, output in outputs.items():
    shapes[name] = output.shape
drawings.draw_network(shapes)

# %% [markdown]
# *Figure 3. The network with the shapes of the table. Orange: encoder, green: decoder, black arrows: main path, blue
# dashed: skip connections. Each `up` part first joins what comes from below with the skip connection, then doubles the
# size.*
#
# Two things to read off. First, the parameters sit at the bottom and the voxels at the top: `down5` alone has over half of the
# weights, on the smallest volumes, while most of the work is done on the large volumes at the top, with hardly any weights.
# Second, the largest feature maps of the encoder have half the input's size along each axis. The finest skip connection comes
# from `down1`, so the network never sees its own input at full resolution again; the last transposed convolution has to draw
# the finest edge.
#
# ### Names of the parameters
#
# A checkpoint is a table from names to arrays. The names are those of the case, so that checkpoints of its public
# implementation stay readable.

# %%
for parameter in list(network.get_parameters())[:8]:
    trained = "trained" if parameter.requires_grad else "not trained"
    print(f"{parameter.name:45} {str(parameter.shape):20} {trained}")

# %% [markdown]
# ## Sizes: multiples of 16
#
# Four halvings divide by 16. A crop of 40 voxels becomes 20, 10, 5 and 3, since half of 5 is rounded up. Going up, 3 becomes 6,
# and 6 does not fit the 5 of the skip connection. The network refuses such a crop at its door, before any layer has worked.

# %%
try:
    network(Tensor(np.zeros((1, config.model.in_channels, 40, 32, 32)), ms.float32))
except ValueError as error:
    print(textwrap.fill(str(error), 88))

# %% [markdown]
# Even that comes late, when the data are loaded. So the configuration refuses the crop before anything runs, and names the setting.

# %%
try:
    config.updated({"data": {"roi_size": [40, 32, 32]}})
except ValueError as error:
    print(textwrap.fill(str(error), 88))

# %% [markdown]
# Scans may have any size nevertheless: the [sliding window](09_evaluation.ipynb) cuts them into boxes of the right size.
#
# ## How far the network sees
#
# A voxel of the output depends on a box of the input, its *receptive field*. Every convolution with kernel 3 widens it by two
# of *its* voxels, and a voxel deep in the encoder is large: 2, 4, 8, 16 voxels of the input.

# %%
field = 1  # width of the receptive field, in voxels of the input
voxel = 1  # width of a voxel of this level, in voxels of the input
for level, stride in enumerate((2, 2, 2, 2, 1), start=1):
    for step in (stride, 1):  # the two convolutions of the residual unit
        field += 2 * voxel
        voxel *= step
    width_mm = field * config.data.spacing_mm[0]
    print(f"down{level}: a voxel is {voxel:2} wide, sees {field:3} = {width_mm:.0f} mm")

# %% [markdown]
# The bottom of the U sees more than the whole crop. That is what it needs to know lung from bowel gas: both are dark, and only
# the surroundings tell. But *sees* is a bound, not a measure. How much each input voxel really counts is the gradient of one
# logit with respect to the input.

# %%
d, h, w = (n // 2 for n in config.data.roi_size)
one_logit = ms.grad(lambda image: network(image)[0, 1, d, h, w])
influence = abs(one_logit(crop).asnumpy()[0, 0])
near = (
    influence[d - 16 : d + 16, h - 16 : h + 16, w - 16 : w + 16].sum() / influence.sum()
)
box = 32**3 / influence.size
print("voxels that count at all:", f"{(influence > 0).mean():.0%}")

# %% tags=["nbval-ignore-output"]
display(
    Markdown(
        f"The box of 32 voxels around the place holds **{box:.0%}** of the crop "
        f"and **{near:.0%}** of the influence."
    )
)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Influence of the input voxels on one logit in the middle of the crop, on a logarithmic scale: a bright centre that fades outwards by about two powers of ten, grainy from voxel to voxel."}}
plt.figure(figsize=(6, 3.6))
share = np.log10(np.maximum(influence[:, h, :] / influence.max(), 1e-8)).T
plt.imshow(share, origin="lower", cmap="magma", vmin=-5, vmax=0)
plt.colorbar(label="influence, power of ten")
plt.plot(d, w, "+", color="cyan", markersize=10, label="place of the logit")
plt.gca().set(xlabel="R axis (voxels)", ylabel="S axis (voxels)")
plt.legend(loc="upper right", fontsize=8)
plt.show()

# %% [markdown]
# *Figure 4. Influence of each input voxel on one logit (cross) of a fresh network, in a coronal slice, as a power of ten
# of the largest. The whole crop counts, the surroundings of the place count most. The grain comes from
# the random weights.*
#
# This concentration is general: the *effective* receptive field is smaller than the theoretical one (Luo and others, 2016).
# So a crop that is somewhat smaller than the receptive field need not lose much.
#
# ## What they cost
#
# Parameters are what a checkpoint holds. Time goes into multiplications, and memory into feature maps, which training keeps for
# the gradient, and into the parameters, for each of which there are a gradient and two means that Adam keeps. Here are all of
# them for one crop of 32 x 32 x 32 voxels, with one input channel and four classes. Parameters, multiplications and feature
# maps are counted; memory is measured in a fresh process for each network, from before it is built to after its second training
# step, and the time is that of the fastest of three steps.

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial import DiceCELoss
from unet3d_tutorial.book.costs import multiply_adds, step_memory
from unet3d_tutorial.training import make_train_step

shape = (1, 1, 32, 32, 32)
crop32 = Tensor(rng.normal(size=shape), ms.float32)
label32 = Tensor(rng.integers(0, 4, (1, 32, 32, 32)), ms.int32)
kinds = {"the paper's": UNet3D, "the case's": ResidualUNet3D}
networks, steps = {}, {}
for name, kind in kinds.items():
    compared = networks[name] = kind(in_channels=1, num_classes=4)
    optimizer = nn.Adam(compared.set_train(True).trainable_params())
    steps[name] = make_train_step(accelerate(compared), DiceCELoss(), optimizer)

# %% tags=["nbval-ignore-output"]
rows = []
for name, compared in networks.items():
    step = steps[name]
    seconds = drawings.median_seconds(lambda: step(crop32, label32)[0].asnumpy(), 3)
    products, voxels = multiply_adds(compared, shape)
    memory = step_memory(kinds[name].__name__, shape)
    row = [name, f"{count_parameters(compared):,}", f"{products / 1e9:.2f}"]
    row += [f"{4 * voxels / 1e6:.0f}", f"{memory / 1e6:.0f}", f"{seconds:.2f}"]
    rows.append(row)
columns = ["parameters", "10⁹ multiply-adds, forward", "MB of feature maps"]
columns += ["MB for training", "seconds a step"]
Table(["network", *columns], rows, align=["left"] + ["right"] * 5)

# %% [markdown]
# The parameters differ by a factor of four, the multiplications by far more. The paper's network works at full resolution with
# 32 and 64 channels; the case's halves the volume in its very first convolution and returns to full resolution only at the end,
# with as many channels as there are classes. Its memory is smaller in both parts: weights, gradient and Adam's two means stay
# as they are for any crop, feature maps grow with it. The time does not differ as much as the multiplications do: a crop this
# small gives the case's network so little to multiply that the rest of the step, with Adam at work on every weight, counts as
# well. The larger the crop, the more the multiplications decide. With `model.name=UNet3D` in the configuration you can train
# the paper's network all the same, narrower if need be: `model.channels=[16,32,64,128]`.
#
# ## Where am I: the position channel
#
# A convolution does the same everywhere. It knows what is around a voxel, not where the voxel is. For lungs that is a problem of
# its own: one label is *left* lung, another *right* lung, and the two look much alike.

# %%
from unet3d_tutorial import CenterOnBody, Compose, generate
from unet3d_tutorial.transforms import grid_steps, input_steps

size = {"spacing_mm": [6, 6, 6], "roi_size": [64, 48, 48]}
coarse = config.updated({"data": size}).data
prepare = Compose([*grid_steps(coarse), CenterOnBody(), *input_steps(coarse)])
image, _ = generate(seed=3, spacing_mm=6.0)
channels = prepare(image, None)[0].array
position = channels[1]
changes = [bool(abs(np.diff(position, axis=axis)).max() > 1e-4) for axis in range(3)]
first, last = position[0, 0, 0], position[-1, 0, 0]
print("input of the network:", channels.shape)
print("position falls or rises along R, A, S:", changes)
print(f"position from left to right, in 100 mm: {first:.2f} to {last:.2f}")

# %% tags=["hide-input"] mystnb={"image": {"alt": "Three axial slices of one phantom: the HU channel, the HU channel mirrored, which looks like just another patient, and the position channel, which rises evenly from the patient's left to the right."}}
drawings.draw_position_channel(channels)

# %% [markdown]
# *Figure 5. An axial slice of a phantom (patient's right on the left of the picture), its mirror image, and the position
# channel. The mirror image could be another patient; only the heart's side gives it away, and many crops hold no heart.*
#
# With HU alone the network must find the heart, or the border of the crop, to tell the lungs apart, and it can do that only at
# the bottom of the U, from far away. The quick preset tells it instead: a second channel holds the distance from the
# body's middle plane, in 100 mm. The price is a second input channel in the two convolutions of `down1` that touch the
# input, the few weights that the first count shows. The `luna16` preset keeps the case's single channel.
#
# ## Inside a trained network
#
# What do the feature maps hold? We load the trained run, send in a phantom that it has never seen, and keep what leaves each part.
# `load_network` insists on every name and shape, so that a checkpoint of another network cannot slip in.

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial import load_network

trained = load_network(config, f"{config.train.output_path}/unet3d.ckpt")
prepare = Compose([*grid_steps(config.data), CenterOnBody(), *input_steps(config.data)])
image, _ = generate(seed=9001, spacing_mm=4.0)
unseen = prepare(image, None)[0].array
box = []
for n in unseen.shape[1:]:
    kept = n // 16 * 16
    start = (n - kept) // 2
    box.append(slice(start, start + kept))
scan = Tensor(np.ascontiguousarray(unseen[None, :, *box]))

# %% tags=["nbval-ignore-output"]
maps = outputs_of(trained.name_cells(), lambda: trained(scan))
found = trained(scan).asnumpy()[0].argmax(axis=0)
print("input", scan.shape, "classes found:", np.unique(found))

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"image": {"alt": "One coronal slice through the input and through the strongest channel of each part of the trained network: fine outlines at the top of the encoder, coarse blobs at the bottom, lungs taking shape again in the decoder, and the labels found: right lung orange, left lung blue, trachea green."}}
first = {name: values[0] for name, values in maps.items()}
drawings.draw_feature_maps(scan.asnumpy()[0, 0], first, found)

# %% [markdown]
# *Figure 6. A coronal slice of a phantom (patient's right on the left of the picture), the channel with the largest spread
# that leaves each part of the trained network, and the labels found in the colours of this book: left lung blue, right lung
# orange, trachea green. Each grey picture is drawn to its own scale.*
#
# Read it along the U. `down1` still looks like the scan, with its outlines. Further down there is less *where* in every picture
# and, we hope, more *what*; at the bottom a voxel is 16 voxels of the input wide. On the way up the shapes come back, and what
# comes out of `up4` are no longer grey values but logits. Look for the checkerboard of figure 2 in the pictures of the decoder.
# One channel of many is a keyhole, so do not read too much into a single picture.
#
# ## Half as many digits
#
# Many accelerators compute faster with 16-bit numbers than with 32-bit ones, and feature maps take half the memory (Micikevicius and
# others, 2018). The case has a switch for that, `enable_fp16_gpu`, with a loss scale of 256. Here it is `train.mixed_precision=true`, with
# `train.loss_scale=256`, or `train.dynamic_loss_scale=true`, which finds the scale by itself. The weights stay in 32 bits, batch-norm
# and the loss compute in 32, and MindSpore's own `amp` puts the rest into `float16`.

# %% tags=["hide-input"]
from unet3d_tutorial.model import half_precision

chapter.source(half_precision)

# %% [markdown]
# What does it do to the logits of a fresh network?

# %% tags=["nbval-ignore-output"]
fresh = ResidualUNet3D(config.model.in_channels, config.model.num_classes)
fresh.set_train(False)
full = fresh(crop).asnumpy()
half = half_precision(fresh)(crop).asnumpy()
difference = abs(half - full).max() / abs(full).max()
same = (half.argmax(axis=1) == full.argmax(axis=1)).mean()
float16 = np.finfo(np.float16)
print(f"largest difference: {difference:.2%} of the largest logit, kind {half.dtype}")
print(f"voxels with the same label: {same:.2%}")
print(f"float16 ends at {float16.max:,.0f}; it has {float16.nmant + 1} binary digits,")
print(f"float32 has {np.finfo(np.float32).nmant + 1}")

# %% [markdown]
# A little rounding, as expected. So the trained network should survive it, too.
#
# ### A second failure: the same switch, the trained network

# %% tags=["nbval-ignore-output"]
half = half_precision(load_network(config, f"{config.train.output_path}/unet3d.ckpt"))
broken = np.isnan(half(scan).asnumpy()).mean()
print(f"logits that are no number at all: {broken:.1%}")

# %% [markdown]
# Rounding cannot do that. But `float16` has an end, and a number beyond it becomes infinite. The hooks know which layer is guilty: run
# the *whole* network in 32 bits, and write down the largest number that leaves each shortcut of the encoder and each transposed
# convolution of the decoder.

# %% tags=["nbval-ignore-output"]
shortcuts = {}
for name, cell in trained.cells_and_names():
    if name.endswith(("residual", "conv3d_transpose")):
        shortcuts[name] = cell
limit = np.finfo(np.float16).max
for name, output in outputs_of(shortcuts, lambda: trained(scan)).items():
    largest = abs(output).max()
    print(f"{name:26} {largest:10,.0f}", "beyond float16" if largest > limit else "")

# %% [markdown]
# No batch-norm stands on the shortcuts, so each level multiplies what the one before has grown to. Where `up1` adds up all that comes
# from below, the sum passes the end of `float16`, in a few voxels. In 32 bits nobody notices, because the batch-norm that
# follows divides it away. In 16 bits it spreads, and `nan` has no label. (If your own training ended with smaller numbers, nothing
# is broken: the margin was luck.) Three lessons. A test with first weights proves little about trained ones. Weights trained in 32 bits
# are not promised to work in 16: the trained network must be looked at, on real input. And in *training* with 16 bits the package
# stops at a loss that is not finite, and skips steps whose gradient overflowed, so that it cannot happen in silence.
#
# Plainly: what was run for this book in 16 bits was run on a processor, namely the cells above and the package's tests, which train a
# small network for some steps with both kinds of loss scale and compare it with 32 bits. A processor computes 16-bit numbers by way of
# 32-bit ones, so it is *slower* there, and the package says so. **Not run:** a GPU and an Ascend. MindSpore as it is installed
# here can drive processors and Ascend but holds no part for NVIDIA's GPUs, and no Ascend was at hand. The code has
# nothing particular to a device.
#
# ## Two traps on a processor
#
# MindSpore is at home on accelerators. On a processor two defaults can make it many times slower than it has to be. The package
# removes both.
#
# 1. **The slow kernel.** MindSpore's convolutions come from the library oneDNN. On a processor with AVX-512 instructions oneDNN
#    prefers, for the plain memory layout that MindSpore 2.10 hands it, a path that ends in its *reference* kernel, a plain loop.
#    Kept to the older AVX2 family by an environment variable, it makes matrix products. The variable is read once, at the first
#    operation, so the package sets it before it imports MindSpore. A value that you set yourself stays.
# 2. **The stalling queue.** In PyNative mode Python puts operations into a queue, and other threads run them. Where few cores
#    share the work, the queue spends its time waiting. `launch_blocking()` runs each operation at once; `accelerate` asks for it.
#    Set `UNET3D_LAUNCH=queue` to keep the queue.
#
# If your training is slow, let the package look: `unet3d doctor` in a terminal prints versions, kernel, launch mode and the time of a
# training step, with a remedy for each thing that is wrong. Here is what it asks oneDNN; a name with `ref` would be the slow kernel.

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.cpu.layers import kernels
from unet3d_tutorial.cpu.runtime import convolution_kernel

print("ONEDNN_MAX_CPU_ISA =", os.environ["ONEDNN_MAX_CPU_ISA"])
print("MindSpore's kernel:", convolution_kernel())
print("convolutions of an accelerated network:", kernels())

# %% [markdown]
# ## A second oneDNN
#
# Without the traps there is still something to gain. Matrix products need every voxel copied once for each weight of the kernel. In
# a memory layout where sixteen channels lie side by side, a convolution reads each voxel in place and uses the wide registers in
# full. MindSpore does not ask its copy of oneDNN for that layout. So on a processor of the x86 family under Linux the networks of
# this package hand their convolutions to a second copy, which may choose the layout, and reorder what goes in and out.
#
# Reordering costs time as well. So a convolution and the batch-norm and PReLU that follow it run as *one* operation, and what
# lies between them never leaves the good layout. Its gradient is one operation, too. This is how a unit of the network asks for it:

# %% tags=["hide-input"]
from unet3d_tutorial.cpu.units import FusedResidualUnit

chapter.source(FusedResidualUnit)

# %% [markdown]
# Names, checkpoints and exported files do not change, and results agree to rounding. Where you put a hook on one of the three layers,
# they run one by one, so that the hook sees what it should. `UNET3D_CONVOLUTIONS=mindspore` turns all of it off, which we do for one of two
# networks here:

# %% tags=["nbval-ignore-output"]
from unittest import mock

kinds = {"MindSpore's kernels": "mindspore", "the second oneDNN": ""}
networks = {}
for name, choice in kinds.items():
    plain = ResidualUNet3D(config.model.in_channels, config.model.num_classes)
    with mock.patch.dict(os.environ, UNET3D_CONVOLUTIONS=choice):
        networks[name] = accelerate(plain)

# %% tags=["nbval-ignore-output"]
batch = Tensor(np.concatenate([crop.asnumpy()] * 2))
print("seconds of a pass forward and backward, median, batch of", batch.shape)
for name, either in networks.items():
    weights = either.set_train(True).trainable_params()
    network = either
    gradients = ms.value_and_grad(lambda x: (network(x) ** 2).mean(), None, weights)
    seconds = drawings.median_seconds(lambda: gradients(batch)[1][0].asnumpy())
    print(f"{name:20} {seconds:.3f}")

# %% [markdown]
# A prediction needs no gradient, so nothing has to be kept, and batch-norm is no more than a factor and a shift for each channel. In
# evaluation mode the *whole network* therefore runs as one program of the second oneDNN: a convolution scales, shifts, bends and
# adds while it writes its results, and no array between image and logits is plain.

# %% tags=["nbval-ignore-output"]
print("seconds of a pass forward only, median, batch of", batch.shape)
for name, either in networks.items():
    either.set_train(False)
    seconds = drawings.median_seconds(lambda: either(batch).asnumpy())
    print(f"{name:20} {seconds:.3f}")

# %% [markdown]
# The logits are the layers' own, to rounding. A hook makes the network run layer by layer, so we can compare:

# %%
either = networks["the second oneDNN"]
whole = either(batch).asnumpy()
hook = either.up4.register_forward_hook(lambda cell, x, y: None)
difference = abs(either(batch).asnumpy() - whole).max() / abs(whole).max()
hook.remove()
print(
    "largest difference is below a hundred-thousandth of the largest logit:",
    bool(difference < 1e-5),
)

# %% [markdown]
# How MindSpore compares with PyTorch and ONNX Runtime on one machine is measured on the page [How fast it is](../book/speed.md).
# All that a script of your own needs to be fast, and repeatable, is one call before anything else. Here is what it does:

# %% tags=["hide-input"]
chapter.source(setup)

# %% [markdown]
# ## Exercises
#
# ### Exercise 1: the parameters of `down1`
#
# How many trained numbers has `down1` in the network of the case, with *one* input channel? It is a residual unit from 1 to 16
# channels with two convolutions, a 3 x 3 x 3 convolution as shortcut, two batch-norms and two PReLUs. Replace `...` by
# an expression and run the check.

# %%
parameters = ...

# %%
check = count_parameters(ResidualUNet3D(in_channels=1).down1)
if parameters is ...:
    print("Not tried yet: replace ... above.")
elif parameters == check:
    print("Right.")
else:
    much = "many" if parameters > check else "few"
    print(f"Too {much}: no convolution has a bias; batch-norm learns two numbers")
    print("a channel, PReLU one in all.")

# %% [markdown]
# <details>
# <summary>Solution of exercise 1</summary>
#
# Three convolutions (1 to 16, 16 to 16, and the shortcut 1 to 16), two batch-norms with scale and shift, two slopes:
#
# ```python
# parameters = 27 * 1 * 16 + 27 * 16 * 16 + 27 * 1 * 16 + 2 * (16 + 16) + 2
# ```
#
# The mean and variance that batch-norm remembers are not trained and do not count.
#
# </details>
#
# ### Exercise 2: which sizes go through
#
# Which of these sizes of an axis can the network take? Keep only those. The check sends each through it.

# %%
sizes = ...  # a list, from 16, 24, 32, 36, 48, 56, 64

# %%
if sizes is ...:
    print("Not tried yet: replace ... above.")
elif set(sizes) == {n for n in (16, 24, 32, 36, 48, 56, 64) if n % 2**4 == 0}:
    passed = [
        network(Tensor(np.zeros((1, 2, n, 16, 16)), ms.float32)).shape[2] for n in sizes
    ]
    print("Right: sizes in and out", list(sizes), passed)
else:
    print("Not yet: halve each size four times; every result must be whole.")

# %% [markdown]
# <details>
# <summary>Solution of exercise 2</summary>
#
# The multiples of 16. The number 24 would fail late: 24, 12, 6, 3 and then 2, which comes back up as 4.
#
# ```python
# sizes = [16, 32, 48, 64]
# ```
#
# </details>
#
# ### Exercise 3: find the mode
#
# A colleague trains a network further and segments some scans with it, in one script: `network.set_train(True)`, then a loop of
# training steps, then `logits = network(scans)`. Afterwards the colleague says: "The mask of a scan depends on which other scan is
# in the batch." Write down, as a string, the one line that is missing before the last.

# %%
missing = ...

# %%
if missing is ...:
    print("Not tried yet: replace ... above.")
elif str(missing).replace(" ", "") == "network.set_train(False)":
    print("Right.")
else:
    print("Not yet: which layer remembers what it has seen, and in which mode?")

# %% [markdown]
# <details>
# <summary>Solution of exercise 3</summary>
#
# After the loop batch-norm is still in training mode, and uses the statistics of the whole batch.
#
# ```python
# missing = "network.set_train(False)"
# ```
#
# The mistake likes to hide where a script looks at held-out scans between two training steps. The function `validate` of the
# package switches to evaluation mode and back.
#
# </details>
#
# ## Quiz
#
# **1. Somebody gives each convolution that stands before a batch-norm a bias of its own. What can the network do now that it could
# not do before?**
#
# - (a) shift each channel up or down
# - (b) nothing
# - (c) learn faster, as there are more parameters
#
# <details>
# <summary>Answer 1</summary>
#
# (b). Batch-norm subtracts the mean of the channel, and the bias with it; then it adds a shift of its own, `beta`. So (a) is possible
# already. (c) tempts because more parameters often mean more freedom, but these get a gradient of zero.
#
# </details>
#
# **2. "Our network has a quarter of the paper's parameters, so a step takes a quarter of its time." Which measurement in this
# chapter contradicts that, and why?**
#
# <details>
# <summary>Answer 2</summary>
#
# The table of costs: the multiplications of the two networks differ by far more than their parameters, and so the time differs by
# more, too. A weight of a convolution is used once for each voxel of the output. Weights at full resolution are used hundreds or
# thousands of times as often as those at the bottom of the U, so a checkpoint's size says little about time.
#
# </details>
#
# **3. Your script loads a checkpoint with the package, trains a few steps more, and scores the network on the held-out scans. The
# score is far below that of the checkpoint, though the loss is as it was. What do you check first?**
#
# - (a) the learning rate
# - (b) whether the script calls `network.set_train(False)` before it scores
# - (c) whether the checkpoint has all parameters
#
# <details>
# <summary>Answer 3</summary>
#
# (b). Without it batch-norm takes the statistics of the scan at hand in place of those it remembers. (a) is tempting, since a high
# rate ruins weights in a few steps, but then the loss would have risen. (c) cannot be: a missing parameter stops the package with a
# line that names it.
#
# </details>
#
# **4. A crop has 48 x 48 x 40 voxels. Two of its axes fit. What does the network do?**
#
# - (a) it works, and the logits have 48 x 48 x 48 voxels
# - (b) it refuses before any layer has worked
# - (c) it works, with a somewhat worse border
#
# <details>
# <summary>Answer 4</summary>
#
# (b). 40 is no multiple of 16: the halvings give 20, 10, 5 and 3, and doubled again 3 becomes 6, which does not fit the 5 of the skip
# connection. (a) is what would come out of the decoder without skip connections. Pad the crop, or let the sliding window do it.
#
# </details>
#
# **5. A network trained in 32 bits gives `nan` in 16 bits. A colleague proposes a larger loss scale. Does it help?**
#
# <details>
# <summary>Answer 5</summary>
#
# No. The loss scale lifts *gradients* that are too small for 16 bits. Here a number of the *forward* pass is too large, and the loss
# has not even been computed. Find the layer with hooks; keep that layer in 32 bits, or use a 16-bit kind with the range of 32
# bits (`bfloat16`), or train in 16 bits from the start.
#
# </details>
#
# ## What to remember
#
# - A figure is not a network. Count the parameters and print the shapes.
# - Encoder: strided residual units, volume down, channels up. Decoder: join the skip connection, double, refine. Logits come
#   out at the input's size.
# - Four halvings: every axis of a crop is a multiple of 16.
# - After training, batch-norm needs `set_train(False)` before every prediction. Nothing warns you.
# - Convolutions do not know where they are. If the labels need it, give them the position.
# - Multiplications, not parameters, decide the time; full resolution with many channels is dear.
# - 16 bits have an end. Look at the largest numbers of the trained network before you trust them.
# - On a processor: `unet3d doctor`, before you blame the network.
#
# ## References
#
# - Ö. Çiçek, A. Abdulkadir, S. S. Lienkamp, T. Brox, O. Ronneberger. *3D U-Net: Learning Dense Volumetric Segmentation from
#   Sparse Annotation.* MICCAI, 2016. [doi:10.1007/978-3-319-46723-8_49](https://doi.org/10.1007/978-3-319-46723-8_49)
# - E. Kerfoot, J. Clough, I. Oksuz, J. Lee, A. P. King, J. A. Schnabel. *Left-Ventricle Quantification Using Residual U-Net.*
#   STACOM, 2019. [doi:10.1007/978-3-030-12029-0_40](https://doi.org/10.1007/978-3-030-12029-0_40)
# - K. He, X. Zhang, S. Ren, J. Sun. *Delving Deep into Rectifiers.* ICCV, 2015.
#   [arXiv:1502.01852](https://arxiv.org/abs/1502.01852)
# - K. He, X. Zhang, S. Ren, J. Sun. *Deep Residual Learning for Image Recognition.* CVPR, 2016.
#   [arXiv:1512.03385](https://arxiv.org/abs/1512.03385)
# - S. Ioffe, C. Szegedy. *Batch Normalization.* ICML, 2015. [arXiv:1502.03167](https://arxiv.org/abs/1502.03167)
# - A. Odena, V. Dumoulin, C. Olah. *Deconvolution and Checkerboard Artifacts.* Distill, 2016.
#   [doi:10.23915/distill.00003](https://doi.org/10.23915/distill.00003)
# - P. Micikevicius and others. *Mixed Precision Training.* ICLR, 2018. [arXiv:1710.03740](https://arxiv.org/abs/1710.03740)
#   (16 bits and the loss scale)
# - W. Luo, Y. Li, R. Urtasun, R. Zemel. *Understanding the Effective Receptive Field in Deep Convolutional Neural Networks.*
#   NIPS, 2016. [arXiv:1701.04128](https://arxiv.org/abs/1701.04128)
#
# ## Next
#
# The network is there and knows nothing. Before it learns, [chapter 6](06_learning_rate.ipynb) decides how large its steps are.

# %% tags=["nbval-ignore-output"]
chapter.leave()
