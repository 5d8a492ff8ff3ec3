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
from unet3d_tutorial.book.dataset import show_pipeline

show_pipeline()

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

from unet3d_tutorial import Config
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

temporary = TemporaryDirectory()
folder = Path(temporary.name)
(folder / "image").mkdir()
(folder / "seg").mkdir()
for number in (1, 2, 3):
    (folder / f"image/scan-{number}.nii.gz").touch()
for number in (1, 3):
    (folder / f"seg/scan-{number}.nii.gz").touch()

# %%
for tried in (folder, folder / "images"):
    try:
        list_cases(tried)
    except FileNotFoundError as error:
        print(str(error).replace(temporary.name, "data"))

# %% [markdown]
# ## What is done once, and what is done each time
#
# Reading a file, turning it and resampling it give the same result each time. Varying and cropping must not. So the chain
# of the last chapter is cut in two:

# %%
from textwrap import fill

from unet3d_tutorial.dataset import fixed_steps, random_steps

for name, chain in (("fixed", fixed_steps(config)), ("random", random_steps(config))):
    steps = " -> ".join(type(step).__name__ for step in chain.steps)
    print(fill(f"{name:7} {steps}", 88, subsequent_indent=" " * 8))

# %% [markdown]
# The fixed steps run once for each scan, and the result stays in memory, the image as 16-bit integers. The random ones run for
# each sample. Some of these draw nothing, but have to come after steps that do; and `OneHot` comes last because its result is many
# times as large as the label. How much time the cut saves, and how much memory it takes:

# %% tags=["nbval-ignore-output"]
import time

import numpy as np
from unet3d_tutorial.dataset import TrainingCrops

source = TrainingCrops(cases, config)
for name in ("first time", "again"):
    seconds = []
    for index in range(10):
        start = time.perf_counter()
        source[index]
        seconds.append(time.perf_counter() - start)
    print(f"{name:11} {np.median(seconds):.2f} s a crop")

# %% tags=["nbval-ignore-output"]
sizes = []
for image, label in source.prepared.in_memory.values():
    sizes.append(image.array.nbytes + label.array.nbytes)
size = np.mean(sizes)
print(f"in memory: {size / 1e6:.1f} MB a scan")
print(f"all {len(cases)} scans: {size * len(cases) / 1e9:.1f} GB")

# %% [markdown]
# That is a choice for scans on a coarse grid. Full-resolution LUNA16 scans would not fit into the memory of a laptop this
# way. With `data.cache_path` the prepared scans go to a folder instead, and are *memory-mapped*: the arrays look as usual, but
# only the parts that a sample touches are read. All *workers*, the threads or processes that make samples while the network
# computes, share them, and the next run finds them.

# %%
prepared = Path(temporary.name) / "prepared"
on_disk = config.override([f"data.cache_path={prepared}"])
mapped = TrainingCrops(cases, on_disk)
pairs = zip(mapped[0], source[0], strict=True)
print("same sample:", all(np.array_equal(a, b) for a, b in pairs))
print("prepared scans on disk:", len(list(prepared.iterdir())))

TrainingCrops(cases, on_disk)[0]
print("after the same again:", len(list(prepared.iterdir())))

coarser = on_disk.override(["data.spacing_mm=[5, 5, 5]"])
TrainingCrops(cases, coarser)[0]
print("after a change of the grid:", len(list(prepared.iterdir())))

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

from unet3d_tutorial import RandomCropSamples

shape, roi = (150, 140, 120), config.data.roi_size
crop = RandomCropSamples(roi, seed=0)
workers = [copy.deepcopy(crop) for _ in range(4)]
shared = []
for number, worker in enumerate(workers):
    corners = [tuple(worker.draw(shape)[0].tolist()) for _ in range(6)]
    shared += corners
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
drawn = []
for index in range(24):
    crop = RandomCropSamples(roi, seed=[config.train.seed, index])
    drawn.append(tuple(crop.draw(shape)[0].tolist()))
print("different crops of 24, one seed for all:     ", len(set(shared)))
print("different crops of 24, a seed for each sample:", len(set(drawn)))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two scatter plots of crop corners. With one seed for all workers 24 crops fall on six places; with a seed for each sample they spread over the area."}}
from unet3d_tutorial.book.dataset import show_corners

show_corners({"one seed for all workers": shared, "a seed for each sample": drawn})

# %% [markdown]
# *Figure 2. Where 24 crops begin. Left, each place is hit by all four workers; right, every crop is its own.*
#
# So much for what ought to be. The same with the real thing: the first batches of the run, once made by one worker and once
# by two.

# %%
from itertools import islice

from unet3d_tutorial import create_dataset


def first_images(workers):
    """The images of the first four batches of the run."""
    settings = config.override([f"data.num_worker={workers}"])
    stream = create_dataset(settings).create_tuple_iterator(output_numpy=True)
    return np.array([image for image, _ in islice(stream, 4)])


# %%
one, two = first_images(workers=1), first_images(workers=2)
print("two workers make the batches of one:", np.array_equal(one, two))
crops = [crop.tobytes() for batch in two for crop in batch]
print("different crops:", len(set(crops)), "of", len(crops))

# %% [markdown]
# ## Repeatable, and yet never the same
#
# Two properties can be checked rather than believed. Hashes help again: if the fingerprints of two samples agree, it is as good
# as certain that every bit agrees. First: sample $i$ is the same whoever makes it, in whatever order.

# %%
import hashlib


def fingerprint(sample):
    """The first twelve digits of a hash of the image and the label of a sample."""
    content = b"".join(array.tobytes() for array in sample)
    return hashlib.sha256(content).hexdigest()[:12]


# %%
another = TrainingCrops(cases, config)
forwards = [fingerprint(source[index]) for index in (0, 1, 2, 3, 4)]
backwards = [fingerprint(another[index]) for index in (4, 3, 2, 1, 0)]
same = forwards == backwards[::-1]
print("same samples, made in reverse order by another source:", same)

other_seed = TrainingCrops(cases, config.override(["train.seed=2"]))
same = forwards[0] == fingerprint(other_seed[0])
print("same samples with another seed:", same)

# %% [markdown]
# Second: the same scan gives another crop in the next epoch. An epoch visits each scan once, in an order of its own. We
# look for the samples of one scan in the first two epochs of the run:

# %%
places = []
for epoch in (0, 1):
    rng = np.random.default_rng([config.train.seed, epoch])
    order = rng.permutation(len(cases))
    place = int(np.flatnonzero(order == 0)[0])
    places.append(epoch * len(cases) + place)
first, second = places
print(f"{cases[0][0].name} is sample {first} in the first epoch")
print(f"and sample {second} in the second")
print("same crop:", fingerprint(source[first]) == fingerprint(source[second]))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Two coronal crops of the same phantom with labels, one from each epoch, cut at different places."}}
from unet3d_tutorial.book.dataset import show_crops

show_crops(
    {
        f"first epoch, sample {first}": source[first],
        f"second epoch, sample {second}": source[second],
    }
)

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
    f"{dataset.get_dataset_size()} steps =",
    f"{len(cases)} scans x {config.train.epoch_size} epochs",
    f"/ {config.train.batch_size} scans a step",
)
for name, array in batch.items():
    low, high = array.min(), array.max()
    print(f"{name:6} {array.shape} {array.dtype}, {low:.2f} to {high:.2f}")
print("one class for each voxel:", bool((batch["label"].sum(axis=1) == 1).all()))

# %% [markdown]
# MindSpore calls the axes `(N, C, D, H, W)`: batch, channel, and three in space. In this book the last three are always
# right, anterior, superior. The image has two channels, HU and position; the label has four, one for each class. With
# several crops from each scan, as in the `luna16` preset, the batch grows:

# %%
large = config.override(["data.num_samples=4", "train.batch_size=2"])
large_dataset = create_dataset(large)
batch = next(large_dataset.create_dict_iterator(output_numpy=True, num_epochs=1))
shapes = batch["image"].shape, batch["label"].shape
print("batch of", batch["image"].shape[0], "crops:", *shapes)

# %% [markdown]
# With several devices, each sees its share of the samples, `rank_id` of `rank_size`, and nothing twice. Step by step, two
# devices see together what one device with twice the batch size would see:

# %%
one = TrainingCrops(cases, config, rank_size=2, rank_id=0)
two = TrainingCrops(cases, config, rank_size=2, rank_id=1)
print("samples of each of two devices:", [len(one), len(two)], "of", len(source))

taken = [fingerprint(sample) for sample in (one[0], two[0], one[1], two[1])]
same = taken == [fingerprint(source[index]) for index in range(4)]
print("the first two of each are the first four of all:", same)

# %% [markdown]
# Numbers tell you that the shapes are right. Only pictures tell you that the contents are.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Eight coronal crops of different phantoms with labels: most show a good part of both lungs, the first the trachea too, the last little of either lung."}}
samples = {f"sample {index}": source[index] for index in range(8)}
show_crops(samples, rows=2, size=(10, 4))

# %% [markdown]
# *Figure 4. The first eight training samples, a coronal slice through the middle of each. Check: do the colours cover the
# lungs to their borders; is blue always on the right of the picture; do crops differ in place and look?*
#
# How much of what the network sees is each structure?

# %%
from unet3d_tutorial.labels import STRUCTURES

shares = []
for index in range(60):
    _, label = source[index]
    shares.append(label.mean(axis=(0, 2, 3, 4)))
for name, share in zip(("background", *STRUCTURES), np.transpose(shares), strict=True):
    absent = int((share == 0).sum())
    print(
        f"{name:11} {share.mean():6.2%} of the voxels,",
        f"absent from {absent} of {len(share)} crops",
    )

# %% [markdown]
# The trachea is a tiny share. A network that never finds it would still get nearly every voxel right. Chapter
# [Loss](07_loss.ipynb) deals with that.
#
# Where a structure were missing from most crops, one would cut some of them around it on purpose. That is what
# `data.foreground` is for: the share of crops that are centred on a voxel of a structure, each structure equally often.

# %%
for foreground in (0.0, 0.5, 1.0):
    chosen = TrainingCrops(cases, config.override([f"data.foreground={foreground}"]))
    chosen.prepared = source.prepared  # no need to prepare the scans again
    shares = []
    for index in range(60):
        _, label = chosen[index]
        shares.append(label[:, 3].mean())
    print(
        f"foreground={foreground}: trachea {np.mean(shares):.2%} of the voxels,",
        f"in {np.count_nonzero(shares)} of 60 crops",
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
from unet3d_tutorial.book.data import copy_case

copied = Path(temporary.name) / "copied"
for number in range(4):
    copy_case(Path(config.data.data_path), f"train/phantom-{number:04d}", copied)
    copy_case(Path(config.data.data_path), f"val/phantom-{180 + number:04d}", copied)

# %%
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
print("more than ten lines:", len(lines) > 10)
print("the first:", lines[0])

# %% [markdown]
# The scan is read by a thread of MindSpore's pipeline. The error comes back as text, with a traceback through files that are
# not ours, and the file that broke stands somewhere in the middle. `plain_error` takes out what was raised in the first
# place. Training does the same: `unet3d train` ends with this line and exit code 2, and once the file is mended, the same
# command goes on from the last checkpoint.

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.dataset import check_cases, plain_error

print(fill(str(plain_error(caught)).replace(f"{copied}/", ""), 88))

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
    print(fill(str(error).replace(f"{copied}/", ""), 88))

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
    seconds = time.perf_counter() - start
    total += seconds
    print(f"{type(step).__name__:20} {1000 * seconds:7.1f} ms -> {image.array.shape}")
print(f"{'together':20} {1000 * total:7.1f} ms")

# %% [markdown]
# Steps that act with a certain chance, such as `RandomBlur`, cost nothing when they do not act, so another sample has other
# numbers. And through MindSpore's pipeline, batch after batch:

# %% tags=["nbval-ignore-output"]
iterator = dataset.create_dict_iterator(output_numpy=True, num_epochs=1)
times = []
for _ in range(12):
    start = time.perf_counter()
    next(iterator)
    times.append(time.perf_counter() - start)
batch_s = np.median(times)
print(f"a batch: {batch_s:.2f} s, reading each scan for the first time")

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.training import load_result

history = load_result("runs/quick").history
step_s = np.median(np.diff(history["seconds"]))
share = batch_s / step_s
print(f"a step of the training run: {step_s:.2f} s; a batch takes {share:.0%} of that")

# %% [markdown]
# A batch is made while the network is at work on the one before. So its time does not add to that of the step, as long as it
# is the shorter of the two. To see this, let a pause of known length stand in for the network's step, and measure how long
# the next batch is waited for:


# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.book.dataset import median_wait_s

for step_ms in (0, 20, 50, 100, 200):
    wait_ms = 1000 * median_wait_s(config, step_ms / 1000)
    print(f"a step of {step_ms:3} ms: the batch is waited for {wait_ms:5.1f} ms")

# %% [markdown]
# With no step at all, the wait is the time of the pipeline itself. It shrinks as the step grows, and is next to nothing once
# the step is the longer of the two.
#
# A pause leaves the processor free, and a real step does not: on two cores, network and pipeline compete. So the training
# run measured itself. It wrote down, for each step, how long it waited for its batch:

# %% tags=["nbval-ignore-output"]
seconds = np.array(history["seconds"])
waits_s = np.array(history["wait"])
steps_s = np.diff(seconds, prepend=0.0)
share = waits_s.sum() / seconds[-1]
median_step_s, median_wait_ms = np.median(steps_s), 1000 * np.median(waits_s)
print(f"median step {median_step_s:.2f} s, median wait {median_wait_ms:.1f} ms")
print(f"all {len(waits_s)} steps waited {waits_s.sum():.1f} s, {share:.1%} of the run")

# %%
print("the network waits for less than a twentieth of the run:", bool(share < 0.05))

# %% tags=["nbval-ignore-output", "hide-input"] mystnb={"image": {"alt": "Seconds on a logarithmic scale over the steps of a training run: the time of a step lies steadily far above the time that the step waited for its batch, which stands out at the first step only."}}
from unet3d_tutorial.book.dataset import show_waits

show_waits(history["step"], steps_s, waits_s)

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
elif number_of_steps == 4390:
    print("Right.")
else:
    print("Not yet: does the number of crops from each scan matter here?")

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
    corners = set()
    for worker in copy.deepcopy(mended):
        for _ in range(6):
            corners.add(tuple(worker.draw(shape)[0].tolist()))
    if len(corners) == 24:
        print("Right.")
    else:
        print(f"Not yet: {len(corners)} different crops of 24.")

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
    expected = 0
    for index in range(40):
        _, label = source[index]
        expected += not label[:, 3].any()
    if without_trachea == expected:
        print("Right.")
    else:
        print("Not yet: which channel of the label is the trachea?")

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
