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
# The book trains on two cores. The real data set, at its own resolution, wants more: several graphics cards or NPUs, on one machine or
# on several. At the end of this chapter you can start such a run, say beforehand what it will roughly cost, and find the place where
# more devices stop helping.
#
# **You will learn**
# - how several processes train one network, and what they must agree on
# - what stays the same when the work is shared, and what does not: batch-norm, and the Dice of a batch
# - how to work out memory, messages and time from numbers that you measure
# - the commands for one host and for several, and for data in a store
#
# **You need**: [chapter 8](08_training.ipynb), and the phantoms.

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial import chapter

chapter.enter("phantom")

# %%
import subprocess
import sys
import time

import numpy as np
from mindspore import Tensor

from unet3d_tutorial.config import Config
from unet3d_tutorial.costs import count_macs, gradient_bytes
from unet3d_tutorial.dataset import batch_names
from unet3d_tutorial.distributed import Group
from unet3d_tutorial.losses import CrossEntropyLoss, DiceLoss
from unet3d_tutorial.runtime import setup
from unet3d_tutorial.training import build_network

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
    print("process", rank, "step 0:", *batch_names(config, 0, rank_size=2, rank_id=rank))
double = config.override([f"train.batch_size={2 * config.train.batch_size}"])
print("one process, twice the batch:", *batch_names(double, 0))

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
classes = rng.integers(0, 4, (4, 1, 8, 8, 8)) * (np.arange(4) > 1).reshape(4, 1, 1, 1, 1)  # two volumes of background only
target = Tensor((classes == np.arange(4).reshape(1, 4, 1, 1, 1)).astype(np.float32))
for loss in (CrossEntropyLoss(), DiceLoss()):
    halves = [float(loss(logits[part], target[part]).asnumpy()) for part in (slice(0, 2), slice(2, 4))]
    print(f"{type(loss).__name__:16} whole batch {float(loss(logits, target).asnumpy()):.4f}, mean of halves {np.mean(halves):.4f}")

# %% [markdown]
# **Batch-norm.** In training it divides by the spread of the batch at hand, which for each process is its own half. We give one network
# a batch of four volumes of different brightness, whole and in halves:

# %%
network = build_network(config.override(["model.channels=[4, 4, 8, 8, 16]"]))
bright = np.array([0.1, 0.3, 1.0, 3.0], np.float32).reshape(4, 1, 1, 1, 1)
volumes = Tensor(rng.normal(size=(4, 2, 16, 16, 16)).astype(np.float32) * bright)
for mode, training in (("training, statistics of the batch", True), ("evaluation, running statistics", False)):
    network.set_train(training)
    whole = network(volumes).asnumpy()
    halves = np.concatenate([network(volumes[part]).asnumpy() for part in (slice(0, 2), slice(2, 4))])
    print(f"{mode:34}: largest difference {np.abs(whole - halves).max():.1e} of {np.abs(whole).max():.1f}")

# %% [markdown]
# In training the halves give other logits than the whole. This is no error, but it is another training: batch-norm sees smaller
# batches. The package leaves it so, as most do, and averages the *running* statistics, so that all processes hold one and the same
# network. Where batches become very small, group-norm, which looks at one volume at a time, is the way out. With batch-norm frozen and
# cross-entropy alone, two processes do follow one, and a test of the package holds them to it.
#
# ## What a step costs
#
# Three numbers decide how far one can go. They are counted on the network itself: multiplications of one volume, bytes of one
# gradient, and time.

# %% tags=["nbval-ignore-output"]
network = build_network(config)
network.set_train(False)
crop = (1, config.model.in_channels, *config.data.roi_size)
macs = count_macs(network, crop)
times = []
for _ in range(4):
    start = time.perf_counter()
    network(Tensor(np.ones(crop, np.float32))).asnumpy()
    times.append(time.perf_counter() - start)
rate = macs / np.median(times[1:])
print(f"forward pass: {macs / 1e9:.1f} billion multiplications, {np.median(times[1:]):.2f} s: {rate / 1e9:.0f} billion a second")

# %%
case = Config.preset("luna16")
big = build_network(case)
voxels = np.prod(case.data.roi_size) / np.prod(config.data.roi_size)
per_crop = count_macs(big.set_train(False), (1, 1, 32, 32, 32)) * np.prod(case.data.roi_size) / 32**3
print(f"luna16 crop: {per_crop / 1e9:.0f} billion multiplications, {per_crop / macs:.0f} times a quick one ({voxels:.0f} times the voxels)")
print(f"gradient: {gradient_bytes(big) / 1e6:.1f} MB a step and process")

# %% [markdown]
# The large crop is too large to run through this machine for a count, so it was counted on a small cube: every level of the network is
# a convolution, and its cost grows with the voxels.
#
# From these follow the costs of the full run: 877 scans for training (the 887 that the original case counts, less ten for
# validation), ten epochs, four crops a scan. A training step takes about three times the multiplications of a forward
# pass. How many of them a device does in a second *in practice* is the number to measure first on your own machine. The table asks what
# would be, for three assumed rates.

# %%
crops = 877 * case.train.epoch_size * case.data.num_samples
print(f"{crops} crops, {3 * per_crop * crops / 1e15:.1f} thousand million million multiplications")
print("assumed rate (billion a second)  1 device  8 devices  32 devices   (minutes, messages not counted)")
for assumed in (1_000, 5_000, 20_000):
    minutes = 3 * per_crop * crops / (assumed * 1e9) / 60
    print(f"{assumed:31}  {minutes:8.1f}  {minutes / 8:9.1f}  {minutes / 32:10.1f}")

# %% [markdown]
# ### Memory
#
# Training keeps the output of every layer until the backward pass has used it. We add up what each convolution, batch-norm and
# activation of the first level hands on, which is most of it: its maps have half the crop's edges.

# %%
edge = np.prod(case.data.roi_size) / 8  # voxels of a map at the first level
first_level = 16 * edge * 4  # 16 maps in 32-bit floats
print(f"one output at the first level: {first_level / 1e6:.0f} MB for each crop")
print(f"crops in a step: {case.train.batch_size * case.data.num_samples}")
print(f"twenty such outputs: {20 * first_level * case.train.batch_size * case.data.num_samples / 1e9:.0f} GB a step")

# %% [markdown]
# That is a bound from below, and an estimate: measure the first step before you order a hundred. If it does not fit, take
# `train.batch_size=1` with `train.accumulate=2`, fewer crops a scan (`data.num_samples`), or `train.mixed_precision=true`, which halves
# the convolutions' share.
#
# ## Where the three lines cross
#
# A step ends when the slowest of three is done: computing, loading, sending. Computing and loading shrink with more processes on more
# hosts; sending does not: a ring sends each gradient almost twice, however many take part.

# %%
step_macs = 3 * per_crop * case.train.batch_size * case.data.num_samples
for name, gigabytes in (("10 Gbit/s network", 1.25), ("100 Gbit/s network", 12.5), ("cards joined directly", 100)):
    sending = 2 * gradient_bytes(big) / (gigabytes * 1e9)
    print(f"{name:22} {1000 * sending:6.2f} ms a step: as long as computing at {step_macs / sending / 1e12:,.0f} million million a second")

# %% [markdown]
# A million million a second is a thousand billion a second, so compare with the rates assumed above. The highest of them comes near the
# first line: over the slow network such devices would spend half of their time sending. With the other two, sending is no concern. The
# network is small and the crops are large; where crops are small, the lines cross sooner. Loading is the likelier limit. Measure how long
# one full-resolution scan takes, as [chapter 4](04_dataset.ipynb) does, divide by the step's time, and you know how many scans must be
# prepared at a time. The column `wait` in a run's history says whether you got it right: it should be a few per cent of the time at most.
#
# ## Two processes, here
#
# The same on this machine, at a small size: one process with one core, one with all, two with one core each.

# %% tags=["nbval-ignore-output"]
done = subprocess.run([sys.executable, "benchmarks/scaling.py"], capture_output=True, text=True, check=True)
print(done.stdout)

# %% [markdown]
# Read the last two lines together. Two processes on two cores share what one process could use alone, and send the whole gradient
# through the same memory on top; with steps as short as these that takes a large part of the time. Data parallelism is for *more*
# hardware and long steps, not for the same hardware and short ones.
#
# ## The commands
#
# Run here, in this chapter and in the tests, is the first one. The others follow MindSpore's documentation and were not run: this
# machine has neither GPU nor NPU.
#
# ```bash
# # two processes on this CPU
# msrun --worker_num=2 --local_worker_num=2 --join=True "$(which unet3d)" train --preset quick train.run_distribute=true
#
# # eight NPUs (Ascend) or GPUs of one host
# msrun --worker_num=8 --local_worker_num=8 --join=True "$(which unet3d)" train --preset luna16 \
#     train.run_distribute=true train.device_target=Ascend
#
# # four hosts with eight each; on every host, with its own number 0 to 3
# msrun --worker_num=32 --local_worker_num=8 --master_addr=ADDRESS_OF_HOST_0 --master_port=8118 --node_rank=NUMBER --join=True \
#     "$(which unet3d)" train --preset luna16 train.run_distribute=true train.device_target=Ascend
# ```
#
# For GPUs write `train.device_target=GPU`. The rate was chosen for a batch of one process; with eight times the batch, a rate that is two or
# three times higher with a longer warm-up is a usual start. `train.output_path` must be one folder that all hosts see, because a run that
# is gone on with is read by all. Start the same number of processes again: with another number the stream of crops would be another, and
# the run refuses.
#
# ## Data and results in a store
#
# Machines in a cloud come without your data. Three settings copy what is needed, through fsspec, so that S3, SFTP and many more
# work; OBS speaks the S3 protocol:
#
# ```bash
# pip install s3fs
# export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... AWS_ENDPOINT_URL=https://...
# unet3d train --preset luna16 remote.data_url=s3://bucket/LUNA16 remote.train_url=s3://bucket/run-1
# ```
#
# One process of each host copies, the others wait. Files arrive under another name and are renamed when their size is right; a list that is
# written last says that all are there. `remote.enable_modelarts=true` copies with `moxing` instead, on the service that brings it along.
#
# ## Exercise: is it the network?
#
# A colleague trains on four hosts. Each step takes 0.9 s, the column `wait` says 0.5 s. Will faster cards help? Answer `"yes"` or `"no"`.

# %%
answer = ...

# %%
if answer is ...:
    print("Not tried yet: replace ... above.")
else:
    print("Right." if answer == "no" else "Not yet: what do the cards do while the step waits?")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# More than half of each step is waiting for data. Faster cards would wait longer. Prepare more scans at a time, or store them prepared.
#
# ```python
# answer = "no"
# ```
#
# </details>
#
# ## What to remember
#
# - Equal start, averaged gradients, equal change: the weights stay equal.
# - A mean over volumes does not notice how the batch is shared. Batch-norm and the Dice of a batch do.
# - Measure multiplications, bytes and loading before you order devices.
# - Say which numbers you measured and which you assumed.
#
# ## References
#
# - P. Goyal and others. *Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour.* 2017. [arXiv:1706.02677](https://arxiv.org/abs/1706.02677)
# - Y. Wu, K. He. *Group Normalization.* ECCV, 2018. [arXiv:1803.08494](https://arxiv.org/abs/1803.08494)
# - P. Micikevicius and others. *Mixed Precision Training.* ICLR, 2018. [arXiv:1710.03740](https://arxiv.org/abs/1710.03740)

# %% tags=["nbval-ignore-output"]
chapter.leave()
