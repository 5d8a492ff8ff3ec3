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
# # The data set
#
# Training asks for one batch after the other: other scans, other crops, other variations, and all of it the same again when
# you repeat the run. At the end of this chapter you can build such a stream of batches, prove that it is varied *and*
# repeatable, and notice when it only seems to be.
#
# **You will learn**
# - how image and label files are paired, and what happens if one is missing
# - which steps are done once for each scan and which anew for each crop, and where the prepared scans are kept
# - how a fixed seed makes all workers cut the same crops, and how to seed well
# - what a batch looks like, in numbers and in pictures
# - how workers and devices share the work without changing the result
# - what happens when a scan turns out to be broken in the middle of a run
# - how fast the stream is, where its time goes, and whether the network ever waits for it
#
# **You need**: [Transforms](03_transforms.ipynb), the phantoms, and, for one comparison at the end, the training run.

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.book import chapter

chapter.enter("phantom", "run")

# %% tags=["hide-input"] mystnb={"image": {"alt": "Diagram, left to right: files; fixed steps, once a scan; prepared scans in memory or on disk; random steps, for each sample; batch; network. The seed and the number of the sample point at the random steps."}}
import matplotlib.pyplot as plt

stages = [
    ("files", "image and seg"),
    ("fixed steps", "once a scan"),
    ("prepared scans", "memory or disk"),
    ("random steps", "each sample anew"),
    ("batch", "(N, C, D, H, W)"),
    ("network", "one step"),
]
figure, axis = plt.subplots(figsize=(10, 1.9), dpi=80, layout="constrained")
for x, (name, text) in enumerate(stages):
    color = "#E69F00" if name == "random steps" else "#0072B2"
    box = {
        "boxstyle": "round,pad=0.5",
        "facecolor": "white",
        "edgecolor": color,
        "linewidth": 2,
    }
    axis.annotate(
        f"{name}\n{text}", (x, 0), ha="center", va="center", fontsize=8, bbox=box
    )
    if x:
        axis.annotate(
            "",
            (x - 0.44, 0),
            (x - 0.58, 0),
            arrowprops={"arrowstyle": "->", "linewidth": 2},
        )
axis.annotate(
    "run's seed, number of the sample",
    (3, 0.35),
    (3, 0.95),
    ha="center",
    fontsize=8,
    arrowprops={"arrowstyle": "->"},
)
axis.axis([-0.5, 5.5, -0.5, 1.2])
axis.set_axis_off()
plt.show()

# %% [markdown]
# *Figure 1. The pipeline of this chapter. Which scan a sample is cut from and how it is varied depend on two numbers only: the
# seed of the run and the number of the sample.*
#
# ## Cases: pairs of files
#
# A case is an image and its label. `list_cases` pairs them by name and sorts them, so that every computer sees the same
# order:

# %%
from pathlib import Path

from unet3d_tutorial.config import Config
from unet3d_tutorial.dataset import list_cases

config = Config.preset("quick")
cases = list_cases(Path(config.data.data_path) / "train")
print(len(cases), "cases; the first:")
print(*cases[0], sep="\n")

# %% [markdown]
# Pairing by position in two lists would be shorter. It goes wrong silently: if one label is missing, every later image gets
# its neighbour's label. Pairing by name turns this into an error:

# %%
from tempfile import TemporaryDirectory

with TemporaryDirectory() as name:
    folder = Path(name)
    for kind, numbers in (("image", (1, 2, 3)), ("seg", (1, 3))):
        (folder / kind).mkdir()
        for number in numbers:
            (folder / kind / f"scan-{number}.nii.gz").touch()
    for tried in (folder, folder / "images"):
        try:
            list_cases(tried)
        except FileNotFoundError as error:
            print(str(error).replace(name, "data"))

# %% [markdown]
# ## What is done once, and what is done each time
#
# Reading a file, turning it and resampling it give the same result each time. Varying and cropping must not. So the chain
# of the last chapter is cut in two:

# %%
from unet3d_tutorial.dataset import fixed_steps, random_steps

for name, chain in (("fixed", fixed_steps(config)), ("random", random_steps(config))):
    print(f"{name:7}", " -> ".join(type(step).__name__ for step in chain.steps))

# %% [markdown]
# The fixed steps run once for each scan, and the result stays in memory, the image as 16-bit integers. The random ones run for
# each sample. Some of these draw nothing, but have to come after steps that do; and `OneHot` comes last because its result is many
# times as large as the label. How much time the cut saves, and how much memory it takes:

# %% tags=["nbval-ignore-output"]
import time

import numpy as np
from unet3d_tutorial.dataset import TrainingCrops

source = TrainingCrops(cases, config)
seconds = {"first time": [], "again": []}
for times in seconds.values():
    for index in range(10):
        start = time.perf_counter()
        source[index]
        times.append(time.perf_counter() - start)

# %% tags=["nbval-ignore-output"]
for name, times in seconds.items():
    print(f"{name:11} {np.median(times):.2f} s a crop")
held = np.mean(
    [
        image.array.nbytes + label.array.nbytes
        for image, label in source.prepared.held.values()
    ]
)
print(
    f"in memory: {held / 1e6:.1f} MB a scan, {held * len(cases) / 1e9:.1f} GB for all {len(cases)}"
)

# %% [markdown]
# That is a choice for scans on a coarse grid. Full-resolution LUNA16 scans would not fit into the memory of a laptop this
# way. With `data.cache_path` the prepared scans go to a folder instead, and are *memory-mapped*: the arrays look as usual, but
# only the parts that a sample touches are read. All *workers*, the threads or processes that make samples while the network
# computes, share them, and the next run finds them.

# %%
with TemporaryDirectory() as folder:
    on_disk = config.override([f"data.cache_path={folder}/prepared"])
    mapped = TrainingCrops(cases, on_disk)
    print(
        "same sample:",
        all(np.array_equal(a, b) for a, b in zip(mapped[0], source[0], strict=True)),
    )
    print("prepared scans on disk:", len(list(Path(folder, "prepared").iterdir())))
    TrainingCrops(cases, on_disk)[0]
    print("after the same again:", len(list(Path(folder, "prepared").iterdir())))
    TrainingCrops(cases, on_disk.override(["data.spacing_mm=[5, 5, 5]"]))[0]
    print("after a change of the grid:", len(list(Path(folder, "prepared").iterdir())))

# %% [markdown]
# A cache that hands out yesterday's result for today's settings is worse than none. The name of each entry is therefore a
# *hash*, a short fingerprint, of everything that decides its content: the two files, byte by byte, the settings of the steps,
# and even their code and the libraries that it calls. If any of these changes, the old entry is not found, and a new one is made.

# %% tags=["hide-input"]
from unet3d_tutorial.cache import key, recipe

chapter.source(recipe, key)

# %% [markdown]
# ## The crop that repeats itself
#
# Random numbers in a computer come from a seed. The original case seeds its cropping with 0, always. With one worker, that
# makes a run repeatable. With four workers, each a copy of the program, four copies of the *same* random stream are at work.
# Here are the corners that four such workers draw for the first six scans of each:

# %%
import copy

from unet3d_tutorial.transforms import RandomCropSamples

shape, roi = (150, 140, 120), config.data.roi_size
crop = RandomCropSamples(roi, seed=0)
workers = [copy.deepcopy(crop) for _ in range(4)]
same = [[tuple(worker.draw(shape)[0].tolist()) for _ in range(6)] for worker in workers]
for number, corners in enumerate(same):
    print(f"worker {number}:", *corners)

# %% [markdown]
# > **Pitfall 4. Every worker cuts the same crops.** In the original case all workers start from seed 0, and so does every
# > new start of a worker, such as that of a next epoch. The scans differ, so nothing looks wrong in a single batch. But the
# > network sees far fewer places than you pay for.
# > [All pitfalls](../book/pitfalls.md#pitfall-4)
#
# Two remedies come to mind. Seeding with the clock makes the crops differ, but the run can never be repeated. A seed for each
# worker helps as long as the number of workers stays the same. The best remedy makes a random stream not for each worker, but
# for each **sample**: sample number $i$ of the run takes its numbers from the seed $[\text{seed}, i]$, and from nothing else.
# Then it does not matter who makes it, or when:

# %% tags=["hide-input"]
chapter.source(TrainingCrops)

# %% [markdown]
# Here are both, with 24 samples from four workers: how many crops differ, and where they begin.

# %%
drawn = [
    tuple(
        RandomCropSamples(roi, seed=[config.train.seed, index]).draw(shape)[0].tolist()
    )
    for index in range(24)
]
shared = [corner for worker in same for corner in worker]
print(
    "different crops of 24: one seed for all:",
    len(set(shared)),
    " a seed for each sample:",
    len(set(drawn)),
)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two scatter plots of crop corners. With one seed for all workers 24 crops fall on six places; with a seed for each sample they spread over the area."}}
figure, axes = plt.subplots(
    1, 2, figsize=(8.5, 3.4), dpi=80, layout="constrained", sharex=True, sharey=True
)
for axis, corners, title in zip(
    axes,
    (shared, drawn),
    ("one seed for all workers", "a seed for each sample"),
    strict=True,
):
    for worker, (marker, color) in enumerate(
        zip("o^sD", ("#0072B2", "#E69F00", "#009E73", "#CC79A7"), strict=True)
    ):
        x, y, _ = np.transpose(corners[6 * worker : 6 * worker + 6])
        axis.scatter(
            x,
            y,
            s=160 - 40 * worker,
            marker=marker,
            color=color,
            label=f"worker {worker}",
        )
    axis.set(title=title, xlabel="corner along R, voxels")
axes[0].set_ylabel("corner along A, voxels")
axes[0].legend(fontsize=8, loc="lower right")
plt.show()

# %% [markdown]
# *Figure 2. Where 24 crops begin. Left, each place is hit by all four workers; right, every crop is its own.*
#
# So much for what ought to be. The same with the real thing: the first batches of the run, once made by one worker and once
# by two.

# %%
from unet3d_tutorial.dataset import create_dataset


def first_batches(workers, number=4):
    stream = create_dataset(
        config.override([f"data.num_worker={workers}"])
    ).create_tuple_iterator(output_numpy=True)
    return [image for image, _ in (next(stream) for _ in range(number))]


one, two = first_batches(1), first_batches(2)
print(
    "two workers make the batches of one:",
    all(np.array_equal(a, b) for a, b in zip(one, two, strict=True)),
)
print(
    "different crops:",
    len({crop.tobytes() for batch in two for crop in batch}),
    "of",
    sum(map(len, two)),
)

# %% [markdown]
# ## Repeatable, and yet never the same
#
# Two properties can be checked rather than believed. Hashes help again: if the fingerprints of two samples agree, it is as good
# as certain that every bit agrees. First: sample $i$ is the same whoever makes it, in whatever order.

# %%
import hashlib


def fingerprint(sample):
    return hashlib.sha256(b"".join(array.tobytes() for array in sample)).hexdigest()[
        :12
    ]


another = TrainingCrops(cases, config)
forwards = [fingerprint(source[index]) for index in range(5)]
backwards = [fingerprint(another[index]) for index in reversed(range(5))][::-1]
print("same samples, made in reverse order by another source:", forwards == backwards)
other_seed = TrainingCrops(cases, config.override(["train.seed=2"]))
print("same samples with another seed:", forwards[0] == fingerprint(other_seed[0]))

# %% [markdown]
# Second: the same scan gives another crop in the next epoch. An epoch visits each scan once, in an order of its own. We
# look for the samples of one scan in the first two epochs of the run:

# %%
first, second = [
    epoch * len(cases) + int(np.flatnonzero(order == 0)[0])
    for epoch, order in enumerate(
        np.random.default_rng([config.train.seed, epoch]).permutation(len(cases))
        for epoch in (0, 1)
    )
]
print(
    f"{cases[0][0].name} is sample {first} in the first epoch and sample {second} in the second"
)
print("same crop:", fingerprint(source[first]) == fingerprint(source[second]))

# %% tags=["hide-input"]
from matplotlib.colors import ListedColormap
from unet3d_tutorial.labels import COLORS


def draw_crop(axis, sample, title):
    """Coronal slice through the middle of a crop, patient's right on the left."""
    image, label = (
        array[0, :, ::-1, array.shape[3] // 2, ::-1].swapaxes(1, 2) for array in sample
    )
    axis.imshow(image[0], cmap="gray", vmin=0, vmax=1)
    classes = np.ma.masked_equal(label.argmax(axis=0), 0)
    axis.imshow(
        classes,
        cmap=ListedColormap(list(COLORS.values())),
        vmin=1,
        vmax=3,
        alpha=0.4,
        interpolation="nearest",
    )
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=9)


# %% tags=["hide-input"] mystnb={"image": {"alt": "Two coronal crops of the same phantom with labels, one from each epoch, cut at different places."}}
figure, axes = plt.subplots(1, 2, figsize=(7, 2.8), dpi=80, layout="constrained")
for axis, epoch, index in zip(axes, ("first", "second"), (first, second), strict=True):
    draw_crop(axis, source[index], f"{epoch} epoch, sample {index}")
plt.show()

# %% [markdown]
# *Figure 3. The same phantom in two epochs, cut at another place and shifted by another number of HU. Left lung blue, right lung
# orange; the patient's right is on the left.*
#
# ## Batches
#
# `create_dataset` wraps the source in a MindSpore data set. One pass gives every batch of every epoch of the run. A batch
# holds `batch_size` scans with `num_samples` crops of each.

# %%
dataset = create_dataset(config)
batch = next(dataset.create_dict_iterator(output_numpy=True, num_epochs=1))
print(
    f"{dataset.get_dataset_size()} steps = {len(cases)} scans x {config.train.epoch_size} epochs / "
    f"{config.train.batch_size} scans a step"
)
for name, array in batch.items():
    print(
        f"{name:6} {array.shape} {array.dtype}, {array.min():.2f} to {array.max():.2f}"
    )
print("one class for each voxel:", bool((batch["label"].sum(axis=1) == 1).all()))

# %% [markdown]
# MindSpore calls the axes `(N, C, D, H, W)`: batch, channel, and three in space. In this book the last three are always
# right, anterior, superior. The image has two channels, HU and position; the label has four, one for each class. With
# several crops from each scan, as in the `luna16` preset, the batch grows:

# %%
large = config.override(["data.num_samples=4", "train.batch_size=2"])
batch = next(
    create_dataset(large).create_dict_iterator(output_numpy=True, num_epochs=1)
)
print(
    "batch of",
    batch["image"].shape[0],
    "crops:",
    batch["image"].shape,
    batch["label"].shape,
)

# %% [markdown]
# With several devices, each sees its share of the samples, `rank_id` of `rank_size`, and nothing twice. Step by step, two
# devices see together what one device with twice the batch size would see:

# %%
shares = [TrainingCrops(cases, config, rank_size=2, rank_id=rank) for rank in (0, 1)]
print(
    "samples of each of two devices:",
    [len(share) for share in shares],
    "of",
    len(source),
)
taken = [fingerprint(share[index]) for index in (0, 1) for share in shares]
print(
    "the first two of each are the first four of all:",
    taken == [fingerprint(source[index]) for index in range(4)],
)

# %% [markdown]
# Numbers tell you that the shapes are right. Only pictures tell you that the contents are.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Eight coronal crops of different phantoms with labels: most show a good part of both lungs, the first the trachea too, the last little of either lung."}}
figure, axes = plt.subplots(2, 4, figsize=(10, 4), dpi=80, layout="constrained")
for index, axis in enumerate(axes.flat):
    draw_crop(axis, source[index], f"sample {index}")
plt.show()

# %% [markdown]
# *Figure 4. The first eight training samples, a coronal slice through the middle of each. Check: do the colours cover the
# lungs to their borders; is blue always on the right of the picture; do crops differ in place and look?*
#
# How much of what the network sees is each structure?

# %%
from unet3d_tutorial.labels import STRUCTURES

shares = np.array([source[index][1].mean(axis=(0, 2, 3, 4)) for index in range(60)])
for number, name in enumerate(("background", *STRUCTURES)):
    absent = int((shares[:, number] == 0).sum())
    print(
        f"{name:11} {shares[:, number].mean():6.2%} of the voxels, absent from {absent} of {len(shares)} crops"
    )

# %% [markdown]
# The trachea is a tiny share. A network that never finds it would still get nearly every voxel right. Chapter
# [Loss](07_loss.ipynb) deals with that.
#
# Where a structure were missing from most crops, one would cut some of them around it on purpose. That is what
# `data.foreground` is for: the share of crops that are centred on a voxel of a structure, each structure equally often.

# %%
for share in (0.0, 0.5, 1.0):
    chosen = TrainingCrops(cases, config.override([f"data.foreground={share}"]))
    chosen.prepared = source.prepared  # no need to prepare the scans again
    labels = np.array([chosen[index][1].mean(axis=(0, 2, 3, 4)) for index in range(60)])
    print(
        f"foreground={share}: trachea {labels[:, 3].mean():.2%} of the voxels, in {(labels[:, 3] > 0).sum()} of 60 crops"
    )

# %% [markdown]
# Most crops of this size hold some of the trachea anyway, so little changes. And more is not better without end: crops that are
# always centred on something teach the network that something is always in the centre.
#
# ## Failure on purpose: a scan that breaks on the way
#
# Disks fail, and copies stop halfway. We copy a few cases and flip one bit at the end of one file, in the checksum of its
# voxels. The header and the length of the file are as they should be. Then we ask for all batches of a short run:

# %%
import shutil

temporary = TemporaryDirectory()
copied = Path(temporary.name)
for split in ("train", "val"):
    for files in list_cases(Path(config.data.data_path) / split)[:4]:
        for file in files:
            (copied / split / file.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copied / split / file.parent.name)
scan = copied / "train/image/phantom-0002.nii.gz"
content = bytearray(scan.read_bytes())
content[-6] ^= 1
scan.write_bytes(content)
broken = config.override([f"data.data_path={copied}", "train.epoch_size=1"])

# %%
try:
    for _ in create_dataset(broken).create_tuple_iterator(num_epochs=1):
        pass
except RuntimeError as error:
    caught = error
lines = str(caught).splitlines()
print(f"more than ten lines: {len(lines) > 10}; the first:", lines[0])

# %% [markdown]
# The scan is read by a thread of MindSpore's pipeline. The error comes back as text, with a traceback through files that are
# not ours, and the file that broke stands somewhere in the middle. `plain_error` takes out what was raised in the first
# place. Training does the same: `unet3d train` ends with this line and exit code 2, and once the file is mended, the same
# command goes on from the last checkpoint.

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.dataset import check_cases, plain_error

print(str(plain_error(caught)).replace(f"{copied}/", ""))

# %% [markdown]
# Better still is not to begin. Before the first step, training looks at the header and the length of every file, which takes
# next to no time. That does not find a flipped bit. It does find what happens more often: a file that is cut short, a label
# on another grid.

# %%
check_cases(broken)
print("the flipped bit is not found: nothing was read but headers and lengths")
scan.write_bytes(content[:-100])
try:
    check_cases(broken)
except ValueError as error:
    print(str(error).replace(f"{copied}/", ""))

# %% [markdown]
# `unet3d data check` of [chapter 2](02_data.ipynb#a-whole-data-set-at-a-glance) reads every file to its end and finds both.
#
# ## How fast is it?
#
# The stream must not keep the network waiting. Where does the time of one sample go, once the scan is in memory?

# %% tags=["nbval-ignore-output"]
image, label = source.prepared[0]
steps = random_steps(config).set_random_state([1, 0]).steps
total = 0.0
for step in steps:
    start = time.perf_counter()
    image, label = step(image, label)
    total += (spent := time.perf_counter() - start)
    print(f"{type(step).__name__:20} {1000 * spent:7.1f} ms -> {image.array.shape}")
print(f"{'together':20} {1000 * total:7.1f} ms")

# %% [markdown]
# Steps that act with a certain chance, such as `RandomBlur`, cost nothing when they do not act, so another sample has other
# numbers. And through MindSpore's pipeline, batch after batch:

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.training import load_result

iterator = dataset.create_dict_iterator(output_numpy=True, num_epochs=1)
times = []
for _ in range(12):
    start = time.perf_counter()
    next(iterator)
    times.append(time.perf_counter() - start)
step = np.median(np.diff(load_result("runs/quick").history["seconds"]))
print(f"a batch: {np.median(times):.2f} s, reading each scan for the first time")
print(
    f"a step of the training run: {step:.2f} s; a batch takes {np.median(times) / step:.0%} of that"
)

# %% [markdown]
# A batch is made while the network is at work on the one before. So its time does not add to that of the step, as long as it
# is the shorter of the two. To see this, let a pause of known length stand in for the network's step, and measure how long
# the next batch is waited for:


# %% tags=["nbval-ignore-output"]
def median_wait(step_s, number=20):
    """Median seconds until the next batch is there, for a network that needs ``step_s`` seconds a step."""
    stream, waits = create_dataset(config).create_tuple_iterator(num_epochs=1), []
    for _ in range(number):
        start = time.perf_counter()
        next(stream)
        waits.append(time.perf_counter() - start)
        time.sleep(step_s)
    return np.median(waits[2:])  # the first ones have had no step to hide behind


for milliseconds in (0, 20, 50, 100, 200):
    print(
        f"a step of {milliseconds:3} ms: the batch is waited for {1000 * median_wait(milliseconds / 1000):5.1f} ms"
    )

# %% [markdown]
# With no step at all, the wait is the time of the pipeline itself. It shrinks as the step grows, and is next to nothing once
# the step is the longer of the two.
#
# A pause leaves the processor free, and a real step does not: on two cores, network and pipeline compete. So the training
# run measured itself. It wrote down, for each step, how long it waited for its batch:

# %% tags=["nbval-ignore-output"]
history = {
    name: np.array(column) for name, column in load_result("runs/quick").history.items()
}
waits, steps = history["wait"], np.diff(history["seconds"], prepend=0.0)
print(
    f"median step {np.median(steps):.2f} s, median wait {1000 * np.median(waits):.1f} ms"
)
print(
    f"all {len(waits)} steps waited {waits.sum():.1f} s together, {waits.sum() / history['seconds'][-1]:.1%} of the run"
)

# %%
print(
    "the network waits for less than a twentieth of the run:",
    bool(waits.sum() < 0.05 * history["seconds"][-1]),
)

# %% tags=["nbval-ignore-output", "hide-input"] mystnb={"image": {"alt": "Seconds on a logarithmic scale over the steps of a training run: the time of a step lies steadily far above the time that the step waited for its batch, which stands out at the first step only."}}
figure, axis = plt.subplots(figsize=(8, 2.8), dpi=80, layout="constrained")
axis.semilogy(
    history["step"], steps, ".", markersize=3, color="#0072B2", label="the whole step"
)
axis.semilogy(
    history["step"],
    waits,
    ".",
    markersize=3,
    color="#E69F00",
    label="waiting for its batch",
)
axis.set(xlabel="step of the training run", ylabel="seconds")
axis.legend(fontsize=8)
plt.show()

# %% [markdown]
# *Figure 5. Every step of the training run, and how much of it was waiting. The first batch has nothing to hide behind; after
# it the network hardly ever waits. A step that comes after a look at the held-out volumes seems longer by that look.*
#
# So one worker is enough here, and a second one would win nothing. Chapter [Training](08_training.ipynb) looks at the same
# history for other reasons.
#
# Two more settings matter for large scans, and the `luna16` preset has both. `data.crop_first` cuts before it varies, so that
# noise is not drawn for millions of voxels that nobody will see. `data.num_worker` lets several threads make samples at
# once; the batches stay the same.
#
# ## Exercises
#
# ### Exercise 1: the length of a run
#
# A training set has 878 scans. With `batch_size=2`, `num_samples=4` and `epoch_size=10`, how many steps has the run? An
# incomplete last batch is dropped.

# %%
number_of_steps = ...

# %%
if number_of_steps is ...:
    print("Not tried yet: replace ... above.")
else:
    print(
        "Right."
        if number_of_steps == 4390
        else "Not yet: does the number of crops from each scan matter here?"
    )

# %% [markdown]
# <details>
# <summary>Solution of exercise 1</summary>
#
# ```python
# number_of_steps = 878 * 10 // 2  # 4390
# ```
#
# `num_samples` makes each batch larger (eight crops), not the run longer.
#
# </details>
#
# ### Exercise 2: mend the workers
#
# Make four workers whose crops differ, and which draw the same again when the cell is run once more. Give each its own
# stream; `RandomCropSamples` takes a list of numbers as its seed.

# %%
mended = ...

# %%
if mended is ...:
    print("Not tried yet: replace ... above.")
else:
    found = [
        tuple(worker.draw(shape)[0].tolist())
        for worker in copy.deepcopy(mended)
        for _ in range(6)
    ]
    print(
        "Right."
        if len(set(found)) == 24
        else f"Not yet: {len(set(found))} different crops of 24."
    )

# %% [markdown]
# <details>
# <summary>Solution of exercise 2</summary>
#
# ```python
# mended = [RandomCropSamples(roi, seed=[0, worker]) for worker in range(4)]
# ```
#
# With three workers in place of four, the run would be another one. That is why the package seeds samples, not workers.
#
# </details>
#
# ### Exercise 3: keep the trachea in view
#
# In how many of the first 40 samples is the trachea absent? Use `source`, whose samples are pairs `(image, label)` with
# labels of shape `(S, 4, I, J, K)`.

# %%
without_trachea = ...

# %%
if without_trachea is ...:
    print("Not tried yet: replace ... above.")
else:
    truth = sum(not source[index][1][:, 3].any() for index in range(40))
    print(
        "Right."
        if without_trachea == truth
        else "Not yet: which channel of the label is the trachea?"
    )

# %% [markdown]
# <details>
# <summary>Solution of exercise 3</summary>
#
# ```python
# without_trachea = sum(not source[index][1][:, 3].any() for index in range(40))
# ```
#
# If there are too many for your taste, `data.foreground` is the remedy.
#
# </details>
#
# ## Quiz
#
# **1. You run the same configuration with one worker and with four. The losses differ from the first step on. What do you
# suspect?**
#
# - (a) rounding: four threads add in another order
# - (b) a random stream that belongs to a worker and not to a sample
# - (c) the batches come in another order, which is harmless
#
# <details>
# <summary>Answer 1</summary>
#
# (b). If each sample has its own stream, it does not matter who makes it. Check it with the fingerprint of sample 0 in both
# runs. (a) would change the last digits of a sum, not the crops, and these workers add nothing together. (c) does not explain
# it away: MindSpore keeps the order, and a run whose order depends on the number of workers cannot be repeated either.
#
# </details>
#
# **2. A step of the network takes twenty times as long as a batch. You give the pipeline four workers in place of one. How
# much faster is the run?**
#
# - (a) about four times
# - (b) a little, since each step has less to wait for
# - (c) not at all, or it is slower
#
# <details>
# <summary>Answer 2</summary>
#
# (c). The batch was ready long before it was asked for, so there is no wait to shorten. On a computer with two cores more
# workers even take time from the network. Workers help where waiting is a good part of the step, and figure 5 shows that here
# it is not.
#
# </details>
#
# **3. You keep prepared scans in `data.cache_path`. Then you correct an error in the code of `Spacing`, with all settings as
# before. What does the next run train on?**
#
# <details>
# <summary>Answer 3</summary>
#
# On scans that the new code has prepared. The name of an entry is a hash of the files, the settings *and* the code of the
# steps, so the old entries are not found. A cache that is named by the settings alone, as many are, would hand out the old
# scans, and you would wonder why the correction changes nothing.
#
# </details>
#
# **4. Two devices share the training. Somebody proposes that each shuffles the whole data set with a seed of its own and takes
# the first half. What is wrong with that?**
#
# <details>
# <summary>Answer 4</summary>
#
# The halves are cut from different orders, so some scans are in both and others in neither: in one epoch about a quarter of
# them is never seen and another quarter is seen twice. Here all devices share one order, and device number `rank_id` takes
# every `rank_size`-th sample of it.
#
# </details>
#
# ## What to remember
#
# - Pair files by name. A missing label must be an error, not a shift by one.
# - Do once what gives the same result each time; do anew what is random.
# - Name a cached result by a hash of all that it was made from.
# - Seed samples, not workers: varied, repeatable, and independent of the number of workers.
# - Prove it with fingerprints. Look at crops with your own eyes before you train.
# - Look at all headers before a long run, and expect the rest of a file to break all the same.
# - Measure the stream. It must be faster than the network, and need not be faster than that.
#
# ## References
#
# - MindSpore documentation, [mindspore.dataset.GeneratorDataset](https://www.mindspore.cn/docs/en/master/api_python/dataset/mindspore.dataset.GeneratorDataset.html).
# - NumPy documentation, [Parallel random number generation](https://numpy.org/doc/stable/reference/random/parallel.html): why
#   a list of numbers makes a good seed.
# - Ö. Çiçek, A. Abdulkadir, S. S. Lienkamp, T. Brox, O. Ronneberger, *3D U-Net: Learning Dense Volumetric Segmentation from
#   Sparse Annotation*, MICCAI 2016, [doi:10.1007/978-3-319-46723-8_49](https://doi.org/10.1007/978-3-319-46723-8_49).
#
# ## Next
#
# The batches are ready. The [model](05_model.ipynb) is what they feed.

# %% tags=["nbval-ignore-output"]
temporary.cleanup()
chapter.leave()
