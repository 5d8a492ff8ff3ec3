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
# # Configuration
#
# A training run is a program plus a set of numbers: which scans, which window of intensities, how fast to learn, for how
# long. At the end of this chapter you can find each of these numbers, change one without touching code, keep it beside
# the result that it produced, and make a typing error stop the run before the run costs you an hour.
#
# **You will learn**
# - what a run depends on, and how the settings are grouped, typed and checked
# - how the two presets differ: `quick` for two processor cores, `luna16` for the original case
# - how to save, load and override a configuration
# - which names come from the original case, and which of its settings are gone
#
# **You need**: Python, and the installed package. No data yet.

# %% tags=["nbval-ignore-output"]
from unet3d_tutorial.book import chapter

chapter.enter()

# %% [markdown]
# ## What a run depends on
#
# Four things decide what comes out of a run: the **data** and how they are prepared, the **model**, the way it is
# **trained**, and the way a whole scan is put together from the network's answers, the **inference**. `Config` has one
# section for each. Two more say where things go: **export**, for the network as a file, and **remote**, for data and
# results that lie elsewhere. A preset is a complete, ready-made configuration:

# %%
from pprint import pprint

from unet3d_tutorial import Config

config = Config.preset("quick")
pprint(config.train, width=88)

# %% [markdown]
# Each section is a small dataclass. Its source is its documentation: every setting has a type, a default and, after
# `#:`, its meaning and its unit. Lengths are millimetres, intensities Hounsfield units (HU), sizes voxels.

# %% tags=["hide-input"]
from unet3d_tutorial.config import (
    DataConfig,
    ExportConfig,
    InferenceConfig,
    ModelConfig,
    RemoteConfig,
    TrainConfig,
)

chapter.source(
    DataConfig, ModelConfig, TrainConfig, InferenceConfig, ExportConfig, RemoteConfig
)

# %% [markdown]
# Much of this will mean little to you now. Each later chapter explains the settings that it uses; come back to this
# list as you would to a table of contents.
#
# ## Types and checks
#
# A configuration is *frozen*: nothing can change it by accident halfway through a run. To change a setting you ask for a
# changed copy. `override` takes text of the form `section.name=value`, the same text that the command line takes:

# %%
faster = config.override(["train.lr=1e-2", "data.spacing_mm=[5, 5, 5]"])
print("changed copy:", faster.train.lr, faster.data.spacing_mm)
print("the original:", config.train.lr, config.data.spacing_mm)

# %% [markdown]
# The value is read as YAML and then given the type of the setting that it replaces. That second step is not pedantry.
# YAML has a trap for everybody who writes learning rates:

# %%
import yaml

plain = yaml.safe_load("lr: 1e-2")["lr"]
print("YAML alone:", repr(plain), type(plain).__name__)
print("Config:    ", repr(faster.train.lr), type(faster.train.lr).__name__)

# %% [markdown]
# To [YAML 1.1](https://yaml.org/type/float.html), which the reader PyYAML follows, a number needs a decimal point before its
# exponent. Without one it is a piece of text, and the error shows up somewhere in the optimiser, far from its cause.
# `Config` knows that a learning rate is a `float`.
#
# A type is not enough: a number can be of the right kind and still make no sense. So each copy is checked as a whole.
# The message names the setting, what was expected and what was found.

# %%
nonsense = [
    "train.epoch_size=1.5",
    "train.lr=fast",
    "train.lr=.inf",
    "data.roi_size=[100, 80, 64]",
    "data.min_val=500",
    "inference.overlap=1",
    "model.num_classes=2",
]

# %%
from textwrap import fill

for text in nonsense:
    try:
        config.override([text])
    except ValueError as error:
        print(fill(str(error), 88, subsequent_indent="    "))

# %% [markdown]
# The last two deserve a second look. An overlap of 1 would move the sliding window by no voxel at all, for ever. And
# `model.num_classes` is not free: it follows from the label values in the files, which stand in another section. A check
# across sections is something that no comment can replace.
#
# ## Two presets side by side
#
# This table is made from the presets themselves, so it cannot be out of date.

# %%
from unet3d_tutorial.files.tables import Table

quick = Config.preset("quick").to_dict()
luna16 = Config.preset("luna16").to_dict()
rows = []
for section, settings in quick.items():
    for name, value in settings.items():
        other = luna16[section][name]
        remark = "differs" if value != other else ""
        rows.append([f"{section}.{name}", value, other, remark])
Table(["setting", "quick", "luna16", ""], rows)

# %%
number = sum(row[-1] == "differs" for row in rows)
print(f"{len(rows)} settings in {len(quick)} sections; {number} of them differ")

# %% [markdown]
# `luna16` holds the values of the original case, wherever the case has one. It wants the real data set, scans at their own
# resolution, and a graphics card. `quick` is made for two processor cores. Most of the difference in cost comes from one
# decision: how much of the patient the network sees at once, and how finely. The next figure draws the training crops of both
# over one synthetic patient, at one scale. Scans in LUNA16 differ in resolution; 0.7 mm between pixels is a typical one.

# %% tags=["hide-input"] mystnb={"image": {"alt": "Axial slice of a synthetic chest with two rectangles: the quick preset's crop holds most of the chest, the luna16 preset's crop only its middle part."}}
import numpy as np
from unet3d_tutorial import generate
from unet3d_tutorial.book.config import show_crop_sizes

patient, _ = generate([0, 8])
quick_mm = np.multiply(quick["data"]["roi_size"], quick["data"]["spacing_mm"])
luna16_mm = np.multiply(luna16["data"]["roi_size"], 0.7)
show_crop_sizes(patient, {"quick": quick_mm, "luna16": luna16_mm})

# %% [markdown]
# *Figure 1. What the network sees at once, drawn over an axial slice of a phantom: the training crop (region of interest, ROI)
# of the `quick` preset (solid) and of the `luna16` preset (dotted), centred on the same place. The patient's right is on the
# left.*

# %%
for name, preset in (("quick", quick), ("luna16", luna16)):
    i, j, k = preset["data"]["roi_size"]
    print(f"{name:7} {i} x {j} x {k} voxels = {i * j * k / 1e6:.2f} million")

# %% [markdown]
# The coarse crop has far fewer voxels and yet shows more of this plane. That is a fair trade for organs as large as
# lungs, and a poor one for small structures: a nodule of a few millimetres would be a single voxel. Chapter
# [Transforms](03_transforms.ipynb) shows what the coarse grid loses.
#
# ## Save, load, override
#
# A result without its settings cannot be explained a month later. `train` therefore saves the configuration beside the
# weights. The file is YAML, made for reading:

# %%
import textwrap
from pathlib import Path
from tempfile import TemporaryDirectory

folder = TemporaryDirectory()
path = Path(folder.name) / "config.yaml"
config.save(path)
for line in path.read_text(encoding="utf-8").splitlines():
    print(textwrap.fill(line, 88, subsequent_indent="    "))

# %%
changes = ["train.epoch_size=8", "train.output_path=runs/longer"]
changed = Config.load(path, overrides=changes)
print("loads to an equal configuration:", Config.load(path) == config)
print(changed.train.epoch_size, changed.train.output_path)

# %% [markdown]
# On the command line the same is written so, and `unet3d train -h` lists the forms:
#
# ```bash
# unet3d train --preset quick train.epoch_size=8 train.output_path=runs/longer
# unet3d train --config runs/longer/config.yaml
# ```
#
# A file need not be complete: what it does not mention keeps the default of the `quick` preset.
#
# ## Failure on purpose: a misspelt setting
#
# You want to train longer and write `epoch_sise`. With settings in a plain dictionary, as in many projects, this is what
# happens:

# %%
settings = {"lr": 5e-4, "epoch_size": 10}
settings.update({"epoch_sise": 50})
print("epochs to train:", settings["epoch_size"])

# %% [markdown]
# No error. The run takes as long as before and gives the same result as before, and you conclude that training longer
# does not help. Now the same with `Config`:

# %%
misspelt = [
    "train.epoch_sise=50",
    "trian.epoch_size=50",
    "epoch_size=50",
    "model.depth=5",
]
for text in misspelt:
    try:
        config.override([text])
    except ValueError as error:
        print(fill(str(error), 88, subsequent_indent="    "))

# %%
try:
    Config.preset("quik")
except ValueError as error:
    print(error)

# %% [markdown]
# The unknown name is refused, and the nearest known one is offered where there is a near one. The same holds for a file
# that is loaded.
#
# > **Pitfall 6. Three spellings of one folder.** The text of the original case says `train/images`, its code reads
# > `train/image`. One of its settings is called `train_ur`. The name of the checkpoint that it prints is not the one that
# > it saves. None of these stops the program at once. Here there is one spelling, and unknown names are refused.
# > [All pitfalls](../book/pitfalls.md#pitfall-6)
#
# ## Settings that nobody reads
#
# A misspelt name can be refused. There is a worse kind of setting: one that exists, is spelt correctly and has no effect.
#
# > **Pitfall 5. Settings that nobody reads.** `batch_size`, `epoch_size`, `keep_checkpoint_max` and `loss_scale` stand in
# > the original case's configuration. Its training loop runs over a literal `range(10)`, never makes a batch of
# > `batch_size` scans, deletes no old checkpoint and scales no loss. Whoever changes one of them changes nothing.
# > [All pitfalls](../book/pitfalls.md#pitfall-5)
#
# A first check takes a few lines: gather the text of the package's other modules, then look for the name of each setting in it.

# %%
code = ""
for module in sorted(Path("unet3d_tutorial").rglob("*.py")):
    if module.name != "config.py":
        code += module.read_text(encoding="utf-8")

# %%
import re

names, unread = [], []
for section, settings in quick.items():
    for name in settings:
        names.append(f"{section}.{name}")
        if not re.search(rf"\.{name}\b", code):
            unread.append(f"{section}.{name}")
print(f"{len(names)} settings, read by no module: {unread or 'none'}")

# %% [markdown]
# The search is coarse. It finds `path.name` and takes it for `model.name`, so it can only convict a setting, never acquit
# it. The proof is to change the setting and see something change.
#
# ## What became of the original case's settings
#
# If you know the original case you will look for its names. `CASE` holds all of them, with the place of each here. A test
# compares it with the case's own list of settings, and each place with `Config`, so that none is missing and none points to
# nowhere. Which weights to use is no setting of a run but a question for each call, so it became an option.

# %%
from unet3d_tutorial.config import CASE

rows = []
for name, (home, remark) in CASE.items():
    rows.append([name, home, remark.replace("`", "")])
Table(["original case", "here", "remark"], rows)

# %% [markdown]
# The settings that the original case's list does not have. A few are fixed in its code, such as the number of crops from each
# scan; most came with this book:

# %%
homes = set()
for home, _ in CASE.values():
    homes.update(home.split(", "))
for name in names:
    if name not in homes:
        print(name)

# %% [markdown]
# Most have their place in a chapter. The others have their line in the listing at the top.
#
# ## Exercises
#
# ### Exercise 1: a run of your own
#
# Write the overrides for a run that learns half as fast, makes two crops from each scan and leaves its results in
# `runs/mine`.

# %%
overrides = ...

# %%
if overrides is ...:
    print("Not tried yet: replace ... above.")
else:
    mine = config.override(overrides)
    share = mine.train.lr / config.train.lr
    answer = (share, mine.data.num_samples, mine.train.output_path)
    if answer == (0.5, 2, "runs/mine"):
        print("Right.")
    else:
        print(f"Not yet: share of lr, crops and folder are {answer}.")

# %% [markdown]
# <details>
# <summary>Solution of exercise 1</summary>
#
# ```python
# overrides = [
#     f"train.lr={config.train.lr / 2}",
#     "data.num_samples=2",
#     "train.output_path=runs/mine",
# ]
# ```
#
# </details>
#
# ### Exercise 2: the next window that works
#
# You would like a window of at least 100 x 90 x 70 voxels. The network halves each axis four times, so every length must
# be a multiple of $2^4 = 16$. Which is the smallest `roi_size` that does?

# %%
roi_size = ...

# %%
if roi_size is ...:
    print("Not tried yet: replace ... above.")
else:
    try:
        tried = config.updated({"data": {"roi_size": roi_size}}).data.roi_size
        if tried == (112, 96, 80):
            print("Right.")
        else:
            print(f"{tried} works, but is it the smallest of at least 100 x 90 x 70?")
    except ValueError as error:
        print(fill(f"Not yet: {error}", 88))

# %% [markdown]
# <details>
# <summary>Solution of exercise 2</summary>
#
# Round each length up to the next multiple of 16:
#
# ```python
# roi_size = [-(-n // 16) * 16 for n in (100, 90, 70)]  # (112, 96, 80)
# ```
#
# </details>
#
# ### Exercise 3: lungs without the trachea
#
# In the files the left lung is 3, the right lung 4 and the trachea 5. Make a configuration that learns the two lungs only
# and counts the trachea as background. Two settings must change together; if you change one, the check tells you about
# the other.

# %%
lungs_only = ...

# %%
if lungs_only is ...:
    print("Not tried yet: replace ... above.")
else:
    limits = (lungs_only.data.lower_limit, lungs_only.data.upper_limit)
    if limits == (3, 4) and lungs_only.model.num_classes == 3:
        print("Right.")
    else:
        print("Not yet: which label values count as structures,")
        print("and how many classes is that with the background?")

# %% [markdown]
# <details>
# <summary>Solution of exercise 3</summary>
#
# ```python
# lungs_only = config.updated({"data": {"upper_limit": 4}, "model": {"num_classes": 3}})
# ```
#
# `override(["data.upper_limit=4", "model.num_classes=3"])` does the same: all changes are made first, and checked together.
#
# </details>
#
# ## Quiz
#
# **1. A colleague sends you her weights and says: "made with the `quick` preset". You want to compare her scores with yours.
# What else do you ask her for?**
#
# - (a) nothing, the preset's name says it all
# - (b) `config.yaml` from the folder of her run
# - (c) the command line that she typed
#
# <details>
# <summary>Answer 1</summary>
#
# (b). A preset is only what a run starts from. Overrides change it and leave no trace in its name, and a later version of the
# package may have another `quick`. The command line (c) has the overrides, but not the values of the preset on that day. The
# saved file has every value that was used.
#
# </details>
#
# **2. You call `config.override(["train.lr=1e-2"])`, train with `config`, and the run learns as slowly as before. What
# happened?**
#
# - (a) YAML read `1e-2` as text
# - (b) the changed copy was thrown away
# - (c) the training ignores the setting
#
# <details>
# <summary>Answer 2</summary>
#
# (b). A configuration is frozen. `override` returns a changed copy and leaves `config` as it is, so the line must read
# `config = config.override(...)`. (a) is tempting after this chapter, but `Config` turns the text into a number, and would
# have raised an error if it could not.
#
# </details>
#
# **3. You make the grid twice as fine, `data.spacing_mm=[2, 2, 2]`, and leave `data.roi_size` alone. What does one crop show
# of the patient?**
#
# - (a) the same part, more finely
# - (b) a part of half the length along each axis
# - (c) a part of twice the length along each axis
#
# <details>
# <summary>Answer 3</summary>
#
# (b). A crop is counted in voxels, and the voxels became smaller: it shows an eighth of the volume that it showed before. (a)
# would need a `roi_size` of twice the length, with eight times the voxels, and with it about eight times the memory and the
# work. Settings of one section belong together even where no check can say so.
#
# </details>
#
# **4. The cell above finds no setting that nobody reads. Is it now certain that each of them has an effect?**
#
# <details>
# <summary>Answer 4</summary>
#
# No. The name may belong to something else, as `path.name` does, or the value may be read and then not used. What a search
# can prove is the opposite: a name that occurs nowhere has no effect. For the rest, change the setting and test that the
# result changes.
#
# </details>
#
# ## What to remember
#
# - A run is a program plus a configuration. Save the second beside the result of the first.
# - Types catch `1e-2` read as text; checks catch values that cannot work; both name the setting.
# - An unknown name must be an error. Silence turns a typing error into a wrong conclusion.
# - A setting that nobody reads is a lie. Search for its use, then test its effect.
# - `quick` and `luna16` differ most in the grid, the window of HU and the size of the crop; the code is the same.
#
# ## References
#
# - YAML Ain't Markup Language, version 1.1, 2005, [floating-point type](https://yaml.org/type/float.html).
# - Python documentation, [dataclasses](https://docs.python.org/3/library/dataclasses.html).
# - A. A. A. Setio et al., *Validation, comparison, and combination of algorithms for automatic detection of pulmonary
#   nodules in computed tomography images: the LUNA16 challenge*, Medical Image Analysis 42, 2017,
#   [doi:10.1016/j.media.2017.06.015](https://doi.org/10.1016/j.media.2017.06.015).
#
# ## Next
#
# The settings speak of HU, millimetres and label values. The next chapter, [Data](02_data.ipynb), shows what they are.

# %% tags=["nbval-ignore-output"]
folder.cleanup()
chapter.leave()
