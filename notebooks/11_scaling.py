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
# # Scaling up
#
# The book trains on two cores. The real data set, at its own resolution, wants more: several graphics cards or NPUs (such as
# Huawei's Ascend), on one machine or on several. At the end of this chapter you can start such a run, say beforehand what it
# will roughly cost, and find what its steps will wait for and where more devices stop helping.
#
# **You will learn**
# - how several processes train one network, and what they must agree on
# - what stays the same when the work is shared, and what does not: batch-norm, and the Dice of a batch
# - how to work out time, steps, memory and messages from numbers that you measure
# - the commands for one host and for several, and for data in a store
#
# **You need**: [chapter 8](08_training.ipynb) for the training loop, [chapter 7](07_loss.ipynb) for the Dice of a batch,
# [chapter 5](05_model.ipynb) for batch-norm.

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.book import chapter

chapter.enter("phantom")

# %%
import subprocess
import sys
from textwrap import fill

import numpy as np
from IPython.display import display
from mindspore import Tensor
from unet3d_tutorial import Config, CrossEntropyLoss, DiceLoss, Volume
from unet3d_tutorial.book.costs import gradient_bytes, multiply_adds, step_memory
from unet3d_tutorial.book.timing import measure_seconds
from unet3d_tutorial.dataset import batch_names, random_steps
from unet3d_tutorial.files.tables import Table
from unet3d_tutorial.runs.device import setup
from unet3d_tutorial.runs.networks import build_network
from unet3d_tutorial.runs.processes import Group, join

# %% [markdown]
# ## Many processes, one network
#
# In data parallelism every process holds the whole network and sees its own share of each batch. After the backward pass the gradients
# are averaged over all processes. All then make the same change to the same weights, so the weights stay equal without ever being sent.
#
# Who sees what? Samples are dealt like cards: of two processes the first gets samples 0, 2, 4 and so on. Together they see what one
# process with twice the batch would see.

# %%
setup(seed=1)
config = Config.preset("quick")
for rank in (0, 1):
    names = batch_names(config, 0, rank_size=2, rank_id=rank)
    print(f"process {rank}, step 0:", *names)
double = config.override([f"train.batch_size={2 * config.train.batch_size}"])
print("one process, twice the batch:")
print("   ", *batch_names(double, 0))

# %% [markdown]
# The averages go through `Group`. Alone, each of its methods gives back what it got, so the training loop has no second version for
# several processes.

# %% tags=["hide-input"]
chapter.source(Group)

# %% [markdown]
# ## What does not stay the same
#
# If the loss is a mean over volumes, the mean of two gradients is the gradient of the larger batch: two workers with batch $b$ follow
# one with batch $2b$ to the last digits. Two parts of our training are no such means.
#
# **The Dice of a batch.** It adds up overlap and volume over the whole batch before it divides. A ratio of sums is not the mean of the
# ratios:

# %%
rng = np.random.default_rng(0)
logits = Tensor(rng.normal(size=(4, 4, 8, 8, 8)).astype(np.float32))
classes = rng.integers(0, 4, (4, 1, 8, 8, 8))
classes[:2] = 0  # two volumes of background only
one_hot = classes == np.arange(4).reshape(1, 4, 1, 1, 1)
target = Tensor(one_hot.astype(np.float32))

# %%
halves = slice(0, 2), slice(2, 4)
for loss in (CrossEntropyLoss(), DiceLoss()):
    name = type(loss).__name__
    whole = float(loss(logits, target).asnumpy())
    parts = [float(loss(logits[half], target[half]).asnumpy()) for half in halves]
    print(f"{name:16} whole batch {whole:.4f}, mean of halves {np.mean(parts):.4f}")

# %% [markdown]
# **Batch-norm.** In training it divides by the spread of the batch at hand, which for each process is its own half. We give one network
# a batch of four volumes of different brightness, whole and in halves:

# %%
brightness = np.array([0.1, 0.3, 1.0, 3.0], np.float32).reshape(4, 1, 1, 1, 1)
noise = rng.normal(size=(4, 2, 16, 16, 16)).astype(np.float32)
volumes = Tensor(noise * brightness)
small = config.override(["model.channels=[4, 4, 8, 8, 16]"])

# %%
for norm, training in (("batch", True), ("batch", False), ("group", True)):
    network = build_network(small.override([f"model.norm={norm}"]))
    network.set_train(training)
    whole = network(volumes).asnumpy()
    parts = [network(volumes[half]).asnumpy() for half in halves]
    largest = np.abs(whole).max()
    close = np.allclose(whole, np.concatenate(parts), atol=1e-4 * largest)
    mode = "training" if training else "evaluation"
    answer = "the same" if close else "others"
    print(f"{norm}-norm in {mode:10}: the halves give {answer:8}", end=" ")
    print(f"(largest logit {largest:.1f})")

# %% [markdown]
# With batch-norm in training the halves give other logits than the whole. This is no error, but it is another training: batch-norm
# sees smaller batches. The package leaves it so, as most do, and averages the *running* statistics, so that all processes hold one
# and the same network. Where batches become very small, group-norm, which looks at one volume at a time, is the way out
# (`model.norm=group`). With group-norm, or with batch-norm frozen, and with cross-entropy alone, two processes do follow one, and a
# test of the package holds them to it.
#
# ## Failures on purpose
#
# ### Every process sees the same
#
# The likeliest mistake is a data set that does not know of the other processes. Nothing fails. The loss falls, the processes agree,
# and the bill is twice as high. What did they see in ten steps?

# %%
for what, ranks in (("each its own share", (0, 1)), ("the rank forgotten", (0, 0))):
    seen = []
    for rank in ranks:
        for step in range(10):
            seen += batch_names(config, step, rank_size=2, rank_id=rank)
    print(f"{what}: {len(seen)} crops made, from {len(set(seen))} volumes")

# %% [markdown]
# The mean of two equal gradients is the gradient that one process had anyway. The loss does not tell; the names of the files do. Ask
# each process for them before a long run.
#
# ### Nobody else came
#
# The other mistake: eight devices are paid for, and the run was started without `msrun`, MindSpore's command that starts several
# processes and introduces them to each other. It would train on one device and say nothing.
# `train.run_distribute=true` tells the package what you expect, so that it can refuse:

# %%
try:
    join(config.override(["train.run_distribute=true"]).train)
except ValueError as error:
    message = fill(str(error), 88, subsequent_indent="    ", break_on_hyphens=False)
    print(message)

# %% [markdown]
# And if one of many processes dies in the middle of a run? The others wait for its gradient; `msrun` sees the death, ends them and
# returns an error. The same command goes on from the last checkpoint. A test kills one to see it.
#
# ## What a step costs
#
# How far can one go? That begins with numbers that are counted and measured on the network itself: the multiplications of one crop, how
# many of them a second brings, and the bytes of one gradient.

# %%
network = build_network(config)
network.set_train(False)
crop = (1, config.model.in_channels, *config.data.roi_size)
macs, _ = multiply_adds(network, crop)
print(f"forward pass: {macs / 1e9:.1f} billion multiplications")


# %% tags=["nbval-ignore-output"]
def forward():
    network(Tensor(np.ones(crop, np.float32))).asnumpy()


seconds = np.median(measure_seconds(forward, repeats=4)[1:])
rate = macs / seconds
print(f"forward pass: {seconds:.2f} s, {rate / 1e9:.0f} billion a second")

# %%
case = Config.preset("luna16")
big = build_network(case)
crop_voxels, quick_voxels = np.prod(case.data.roi_size), np.prod(config.data.roi_size)
voxels = crop_voxels / quick_voxels
per_cube, _ = multiply_adds(big, (1, 1, 32, 32, 32))
per_crop = per_cube * crop_voxels / 32**3
print(f"luna16 crop: {per_crop / 1e9:.0f} billion multiplications,", end=" ")
print(f"{per_crop / macs:.1f} times a quick one ({voxels:.1f} times the voxels)")
print(f"gradient: {gradient_bytes(big) / 1e6:.1f} MB a step and process")

# %% [markdown]
# The large crop was counted on a small cube, which is quicker: the work of a convolution grows with the voxels.
#
# From these follow the costs of the full run: the 888 scans of LUNA16, less ten for validation, with the preset's epochs and crops. A
# training step takes about three times the multiplications of a forward pass: one pass forward, and two of the same size for the
# gradients of maps and weights. How many of them a device does in a second *in practice* is the number to measure first on your own
# machine. The table asks what would be: first at the rate measured above, then at three assumed ones.

# %%
volumes = (888 - 10) * case.train.epoch_size
crops = volumes * case.data.num_samples
work = 3 * per_crop * crops
print(f"{case.train.epoch_size} epochs, {crops} crops,", end=" ")
print(f"{work / 1e15:.1f} million billion multiplications")

# %% tags=["nbval-ignore-output"]
devices = np.array([1, 8, 32])
measured, assumed = rate / 1e9, (1_000, 5_000, 20_000)
rows = []
for speed in (measured, *assumed):
    minutes = work / (speed * 1e9) / 60 / devices
    source = "assumed" if speed in assumed else "this machine"
    label = f"minutes at {speed:,.0f} billion a second ({source})"
    rows.append([label, *(f"{value:,.1f}" for value in minutes)])
steps = volumes // (case.train.batch_size * devices)
rows.append(["steps", *steps])
rows.append(["steps of the preset's warm-up", *[case.train.warmup_step] * 3])
headings = ["without sending", "1 device", "8 devices", "32 devices"]
display(Table(headings, rows, align=["left", "right", "right", "right"]))

# %% [markdown]
# Do not read the minutes alone, read the last two lines as well. Each process brings a batch of its own, so more devices mean larger and
# fewer steps. With 32 of them the preset's warm-up would fill most of the run, and too few steps would be left to learn in. This is the
# first place where more devices stop helping.
#
# ### Memory
#
# Training keeps what every layer hands on until the backward pass has used it. [Chapter 5](05_model.ipynb#what-they-cost) measured the
# memory of a training step. We do it again, with one quick crop and with four. The difference is what three crops take; weights,
# gradient and Adam's means are in both. It grows with the voxels, as the work does.

# %% tags=["nbval-ignore-output"]
one = step_memory(case.model.name, (1, 1, *config.data.roi_size))
four = step_memory(case.model.name, (4, 1, *config.data.roi_size))
quick_crop = (four - one) / 3
luna16_crop = voxels * quick_crop
step_crops = case.train.batch_size * case.data.num_samples
print(f"quick crop {quick_crop / 1e6:.0f} MB, luna16 crop {luna16_crop / 1e9:.1f} GB")
step_gigabytes = step_crops * luna16_crop / 1e9
print(f"{step_crops} crops in a step: {step_gigabytes:.0f} GB for each device")

# %% [markdown]
# That is more than many graphics cards have, and a card needs room for its kernels on top: measure the first step before you order a
# hundred. If it does not fit, take `train.batch_size=1` with `train.accumulate=2` (batch-norm then sees half as many crops at a time),
# fewer crops a scan (`data.num_samples`), or `train.mixed_precision=true`: then all but batch-norm computes in 16 bits, and what it
# hands on takes half the space.
#
# ## What a step waits for
#
# Three things take time in a step: computing, sending, and making the crops. Each process computes and makes crops for its own batch, so
# both take as long with many processes as with one. Sending comes on top as soon as there are two: the package sends the gradient when
# the backward pass is done. Where the processes pass their sums on in a ring, each sends it almost twice, however many take part. From
# which rate of computing on does sending take as long as computing?

# %%
step_macs = 3 * per_crop * step_crops
rows = []
for name, gigabytes_a_second in (
    ("10 Gbit/s network", 1.25),
    ("100 Gbit/s network", 12.5),
    ("cards joined directly", 100),
):
    sending = 2 * gradient_bytes(big) / (gigabytes_a_second * 1e9)
    speed = step_macs / sending / 1e9
    rows.append([name, f"{1000 * sending:.2f}", f"{speed:,.0f}"])
headings = ["", "sending, ms a step", "computing takes as long at (billion a second)"]
display(Table(headings, rows, align=["left", "right", "right"]))

# %% [markdown]
# Compare with the rates assumed above. The highest of them comes near the first line: over the slow network such devices would spend
# nearly half of their time sending. With the other two, sending is no concern. The network is small and the crops are large; where
# crops are small, sending weighs more.
#
# And the crops? They are made while the step before computes, so a step waits only for what is not ready by then. We make one of the full
# size, from noise, as the preset would: cut first, then varied. How many cores must make crops so that no step waits?

# %% tags=["nbval-ignore-output"]
shape = (1, 300, 300, 150)
scan = Volume(rng.integers(-1000, 400, shape, dtype=np.int16), np.eye(4))
mask = Volume(rng.integers(0, 4, shape, dtype=np.uint8), np.eye(4))
make = random_steps(case.override(["data.num_samples=1"])).set_random_state(1)
seconds = np.median(measure_seconds(make, scan, mask, repeats=7))
print(f"one crop: {seconds:.2f} s on one core of this machine")

# %% tags=["nbval-ignore-output"]
for speed in assumed:
    step = step_macs / (speed * 1e9)
    cores = step_crops * seconds / step
    print(f"at {speed:6} billion a second a step takes {step:5.2f} s:", end=" ")
    print(f"{cores:5.1f} cores for each device")

# %% [markdown]
# This limit comes first: a fast device is easily kept waiting by its processor. The remedies, in this order: keep the prepared scans on
# disk (`data.cache_path`, as the preset does), give more cores (`data.num_worker`), vary less (`data.augment`). The column `wait` in a
# run's history says whether you got it right: it should be a few per cent of the time at most.
#
# ## Two processes, here
#
# The same on this machine, at a small size: one process with one core, one with all, two with one core each. The *efficiency* is the
# rate of two processes as a share of twice the rate of one.

# %% tags=["nbval-ignore-output"]
command = [sys.executable, "benchmarks/scaling.py"]
done = subprocess.run(command, capture_output=True, text=True, check=True)
print(done.stdout)

# %% [markdown]
# Read the last two lines together. Two processes on two cores share what one process could use alone: memory, caches, and the other
# core for the data. They send the whole gradient through the same memory on top, and their steps are as short as these. Data parallelism
# is for *more* hardware and long steps, not for the same hardware and short ones.
#
# ## The commands
#
# Run here, in this chapter and in the tests, is the first one, with smaller scans. The others follow
# [MindSpore's documentation of msrun](https://www.mindspore.cn/tutorials/en/master/parallel/msrun_launcher.html) and were not run:
# this machine has neither GPU nor NPU.
#
# ```bash
# # two processes on this CPU
# msrun --worker_num=2 --local_worker_num=2 --join=True "$(which unet3d)" \
#     train --preset quick train.run_distribute=true
#
# # eight NPUs (Ascend) of one host
# msrun --worker_num=8 --local_worker_num=8 --join=True "$(which unet3d)" \
#     train --preset luna16 train.run_distribute=true train.device_target=Ascend
#
# # four hosts with eight each; on every host, with its own number 0 to 3
# msrun --worker_num=32 --local_worker_num=8 --join=True \
#     --master_addr=ADDRESS_OF_HOST_0 --master_port=8118 --node_rank=NUMBER \
#     "$(which unet3d)" train --preset luna16 \
#     train.run_distribute=true train.device_target=Ascend
# ```
#
# For GPUs write `train.device_target=GPU`; that needs a MindSpore built for them, which the one from PyPI is not. The learning rate was
# chosen for the batch of one process. With eight times the batch, Goyal and others take eight times the rate after a warm-up, for plain
# gradient descent; for Adam two or three times is a more careful start. Count the warm-up against the steps that are left, or give
# it in epochs (`train.warmup_epoch`). `train.output_path` must be one folder that all hosts see, because a run that
# is gone on with is read by all. Start the same number of processes again: with another number the stream of crops would be another, and
# the run refuses.
#
# ## Data and results in a store
#
# Machines in a cloud come without your data. `remote.data_url` says where to fetch it, `remote.train_url` where results go, and
# `remote.checkpoint_url` with which weights to begin. The copies go through fsspec, so that S3, SFTP and many more work; OBS speaks the
# S3 protocol:
#
# ```bash
# pip install -e '.[remote]'
# export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... AWS_ENDPOINT_URL=https://...
# unet3d train --preset luna16 \
#     remote.data_url=s3://bucket/LUNA16 remote.train_url=s3://bucket/run-1
# ```
#
# One process of each host copies, the others wait. Files arrive under another name and are renamed when their size is right; a list that is
# written last says that all are there. It also keeps what the store says of each file's version, so that a file that was replaced by one of
# the same size is copied again. `remote.enable_modelarts=true` copies with `moxing` instead, on the service that brings it along.
#
# ## Exercises
#
# ### Exercise 1: is it the network?
#
# A colleague trains on four hosts. Each step takes 0.9 s, the column `wait` says 0.5 s. Will faster cards help? Answer `"yes"` or `"no"`.

# %%
answer = ...

# %%
if answer is ...:
    print("Not tried yet: replace ... above.")
elif answer == "no":
    print("Right.")
else:
    print("Not yet: what do the cards do while the step waits?")

# %% [markdown]
# <details>
# <summary>Solution of exercise 1</summary>
#
# More than half of each step is waiting for data. Faster cards would wait longer. Make more crops at a time, or keep the scans prepared.
#
# ```python
# answer = "no"
# ```
#
# </details>
#
# ### Exercise 2: deal the cards
#
# Four processes, two volumes each a step. Which samples of the run does process 3 get in step 1? Processes, samples and steps count from 0.

# %%
samples = ...  # such as [0, 4]

# %%
right = [sample for sample in range(8, 16) if sample % 4 == 3]
if samples is ...:
    print("Not tried yet: replace ... above.")
elif list(samples) == right:
    print("Right.")
elif list(samples) == [14, 15]:
    print("Not yet: they are dealt one by one, not in blocks.")
else:
    print("Not yet: how many samples does one step of all processes use up,", end=" ")
    print("and which of them are the process's own?")

# %% [markdown]
# <details>
# <summary>Solution of exercise 2</summary>
#
# A step uses up eight samples, so step 1 has samples 8 to 15. Process 3 gets every fourth of them, from 8 + 3 on:
#
# ```python
# samples = list(range(1 * 8 + 3, 2 * 8, 4))
# ```
#
# </details>
#
# ### Exercise 3: when the Dice is a mean
#
# Above, the Dice loss of four volumes was not the mean over both halves. Choose `options` of `DiceLoss` with which it is one.

# %%
options = ...  # such as {"squared": False}

# %%
if options is ...:
    print("Not tried yet: replace ... above.")
else:
    loss = DiceLoss(**options)
    whole = loss(logits, target).asnumpy().mean()
    parts = [loss(logits[half], target[half]).asnumpy().mean() for half in halves]
    if abs(whole - np.mean(parts)) < 1e-6:
        print("Right.")
    else:
        print("Not yet: which option sums over all samples before it divides?")

# %% [markdown]
# <details>
# <summary>Solution of exercise 3</summary>
#
# Without `batch` each volume has a Dice of its own, and their mean is a mean over volumes, however they are shared. The price: a
# structure that is missing from one crop then counts in full for that crop.
#
# ```python
# options = {"batch": False}
# ```
#
# </details>
#
# ## Quiz
#
# **1. Two processes with batch 2 train the book's network. Which single process do they follow?**
#
# - (a) One with batch 2, because each of them has batch 2.
# - (b) One with batch 4, to the last digits.
# - (c) One with batch 4, but only roughly.
#
# <details>
# <summary>Answer 1</summary>
#
# (c). The gradients are averaged, so a step uses four volumes, which rules out (a). But batch-norm takes its statistics from two volumes
# at a time, and the Dice of a batch is a ratio of sums over two. So (b), which tempts because it is true of cross-entropy with group-norm,
# is not true here.
#
# </details>
#
# **2. The weights are never sent between the processes. Why are they equal after a thousand steps?**
#
# <details>
# <summary>Answer 2</summary>
#
# Same start, from the same seed; same change at each step, because all use the same averaged gradient; same arithmetic. If one of the three
# fails, for instance because a process has another seed, they drift apart and no message says so. That is why a test compares them.
#
# </details>
#
# **3. With 32 devices in place of 8 a run becomes only twice as fast. What do you look at first?**
#
# - (a) The column `wait`.
# - (b) The loss.
# - (c) The number of weights.
#
# <details>
# <summary>Answer 3</summary>
#
# (a). Four times the devices do a quarter of the steps, so a step now takes twice as long. If it waits for data, the crops are the
# limit, and it is the cheapest thing to see: hosts that read from one store share it. If it does not wait, look at sending: the way
# between hosts may be slower than that within one. (b) says how well it learns, not how fast it runs. (c) decides the message's size,
# but the message was the same with 8 devices.
#
# </details>
#
# **4. A run of eight processes was stopped. You have only four devices today. What happens if you start four?**
#
# <details>
# <summary>Answer 4</summary>
#
# It refuses. With four processes a step would use half as many volumes and each process would get other samples, so the run would go on as
# another one. Start eight again, or begin a new run in another folder.
#
# </details>
#
# ## What to remember
#
# - Equal start, averaged gradients, equal change: the weights stay equal.
# - A mean over volumes does not notice how the batch is shared. Batch-norm and the Dice of a batch do.
# - Ask each process which files it sees. Two processes with the same crops look healthy.
# - Measure work, memory, bytes and loading before you order devices, and count the steps that are left.
# - Say which numbers you measured and which you assumed.
#
# ## References
#
# - P. Goyal and others. *Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour.* 2017. [arXiv:1706.02677](https://arxiv.org/abs/1706.02677)
# - Y. Wu, K. He. *Group Normalization.* ECCV, 2018. [arXiv:1803.08494](https://arxiv.org/abs/1803.08494)
# - P. Micikevicius and others. *Mixed Precision Training.* ICLR, 2018. [arXiv:1710.03740](https://arxiv.org/abs/1710.03740)
# - MindSpore. *msrun launching*, in the
#   [tutorials](https://www.mindspore.cn/tutorials/en/master/parallel/msrun_launcher.html).
#
# ## Next
#
# A network that was trained on many devices is the same kind of file. [Chapter 12](12_export.ipynb) takes it out of MindSpore.

# %% tags=["nbval-ignore-output"]
chapter.leave()
