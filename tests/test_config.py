"""Configuration: round trip, overrides, and refusal of what cannot work."""

import re
from contextlib import nullcontext
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from unet3d_tutorial import config as config_module
from unet3d_tutorial.cli import main
from unet3d_tutorial.config import CASE, PRESETS, Config


@pytest.mark.parametrize("preset", PRESETS)
def test_saved_configuration_loads_equal(preset, tmp_path):
    config = Config.preset(preset)
    config.save(tmp_path / "config.yaml")
    assert Config.load(tmp_path / "config.yaml") == config
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_luna16_preset_has_the_values_of_the_case():
    config = Config.preset("luna16")
    assert (config.train.lr, config.train.batch_size, config.train.epoch_size) == (5e-4, 2, 10)
    assert (
        config.train.warmup_step,
        config.train.warmup_ratio,
        config.train.keep_checkpoint_max,
    ) == (120, 0.3, 1)
    assert (config.data.min_val, config.data.max_val, config.data.roi_size) == (
        -500,
        1000,
        (224, 224, 96),
    )
    assert (config.model.in_channels, config.model.num_classes, config.inference.overlap) == (
        1,
        4,
        0.25,
    )


def test_overrides_take_the_type_of_the_setting():
    config = Config.preset("quick").override(
        ["train.lr=1e-3", "data.roi_size=[32, 48, 64]", "data.spacing_mm=null"]
    )
    assert config.train.lr == 0.001
    assert config.data.roi_size == (32, 48, 64)
    assert config.data.spacing_mm is None


def test_settings_that_belong_together_can_be_overridden_together():
    config = Config.preset("quick").override(["data.position=false", "model.in_channels=1"])
    assert (config.data.position, config.model.in_channels) == (False, 1)


def test_every_setting_is_used():
    """A setting that no module reads would be a promise that nobody keeps."""
    sources = "".join(
        path.read_text(encoding="utf-8")
        for path in Path(config_module.__file__).parent.rglob("*.py")
        if path.name != "config.py"
    )
    names = [
        entry.name
        for section in fields(Config)
        for entry in fields(getattr(Config(), section.name))
    ]
    assert len(names) > 20
    assert [name for name in names if not re.search(rf"\.{name}\b", sources)] == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.learning_rate=1", "learning_rate"),
        ("train.warmup_steps=1", "did you mean 'warmup_step'"),
        ("trian.lr=1", "did you mean 'train'"),
        ("lr=1", "section.name=value"),
        ("train.lr=fast", "train.lr: expected a number above 0, found 'fast'"),
        ("train.epoch_size=1.5", "train.epoch_size: expected a whole number of at least 1, found 1.5"),
        ("train.seed=true", "train.seed: expected a whole number of at least 0, found 'true'"),
        ("data.augment=1", "data.augment: expected true or false, found '1'"),
        ("train.epoch_size=.inf", "train.epoch_size: expected a whole number of at least 1, found '.inf'"),
        ("train.lr=.nan", "train.lr: expected a number above 0, found '.nan'"),
        ("train.lr=true", "train.lr: expected a number above 0, found 'true'"),
        ("data.max_val=.inf", "data.max_val: expected a number, found '.inf'"),
        ("data.spacing_mm=[4, 4, .inf]", "data.spacing_mm: expected three positive lengths in mm"),
        ("train.output_path=", "train.output_path: expected a folder, found none"),
        ("train.output_path=[a, b]", "train.output_path: expected a folder, found ['a', 'b']"),
        ("export.file_name=[no]", "export.file_name: expected text, found ['no']"),
        ("data.max_val=1e999", "data.max_val: expected a finite number, found inf"),
        ("train.output_path=a: b", "train.output_path, line 1: expected a value or a list"),
        ("train.output_path=*a", "train.output_path, line 1: anchors (&) and aliases (*) are not"),
        ("train.seed=-1", "train.seed: expected a whole number of at least 0, found -1"),
        ("data.roi_size=[32, 32", "data.roi_size: '[32, 32' is not valid YAML"),
        ("data.roi_size=[32, 32]", "data.roi_size"),
        ("data.roi_size=[32, 32, 40]", "multiples of 16"),
        ("data.spacing_mm=[1, 1, 0]", "data.spacing_mm"),
        ("data.min_val=500", "data.min_val: expected below data.max_val"),
        (
            "data.lower_limit=0",
            "data.lower_limit: expected a whole number of at least 1, because 0 is background",
        ),
        ("data.position=false", "model.in_channels: expected 2 with data.position, 1 without"),
        (
            "model.norm=grup",
            "model.norm: expected one of batch, group, found 'grup'; did you mean 'group'",
        ),
        ("inference.overlap=1", "inference.overlap"),
        ("inference.mode=median", "inference.mode: expected one of constant, gaussian, found 'median'"),
        ("inference.placement=random", "inference.placement: expected one of fixed, even"),
        ("inference.batch_size=0", "inference.batch_size: expected a whole number of at least 1"),
        (
            "inference.flip_axes=[0, 0]",
            "inference.flip_axes: expected each of 0, 1 and 2 at most once",
        ),
        ("inference.flip_axes=[3]", "inference.flip_axes"),
    ],
)
def test_what_cannot_work_is_refused_by_name(override, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Config.preset("quick").override([override])


@pytest.mark.parametrize(
    ("lower", "upper", "fit"),
    [(3, 5, True), (3, 4, True), (1, 3, True), (5, 5, False), (1, 5, False)],
)
def test_only_scans_with_both_lungs_can_be_mirrored(lower, upper, fit):
    limits = [
        f"data.lower_limit={lower}",
        f"data.upper_limit={upper}",
        f"model.num_classes={upper - lower + 2}",
    ]
    Config.preset("quick").override(limits)
    with (
        nullcontext()
        if fit
        else pytest.raises(ValueError, match="^data.mirror: expected false unless left and right")
    ):
        Config.preset("quick").override([*limits, "data.mirror=true"])


def test_files_that_are_not_a_configuration(tmp_path):
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n", encoding="utf-8")
    (tmp_path / "broken.yaml").write_text("train: {lr: 1", encoding="utf-8")
    (tmp_path / "latin.yaml").write_bytes("train: {output_path: Größe}".encode("latin-1"))
    with pytest.raises(ValueError, match="latin.yaml is not valid YAML"):
        Config.load(tmp_path / "latin.yaml")
    with pytest.raises(ValueError, match="list.yaml: expected sections"):
        Config.load(tmp_path / "list.yaml")
    with pytest.raises(ValueError, match="broken.yaml is not valid YAML"):
        Config.load(tmp_path / "broken.yaml")
    with pytest.raises(ValueError, match="unknown preset 'fast'; there are quick, luna16"):
        Config.preset("fast")


def test_a_configuration_cannot_be_changed_in_place():
    with pytest.raises(FrozenInstanceError):
        Config().train.lr = 1.0


#: every setting of the original case with its value there, in its order; ``train_url`` is spelt
#: ``train_ur`` there
CASE_SETTINGS = {
    "enable_fp16_gpu": False,
    "enable_modelarts": False,
    "data_url": "",
    "train_url": "",
    "checkpoint_url": "",
    "run_distribute": False,
    "enable_profiling": False,
    "data_path": "data/LUNA16/train/",
    "output_path": "output",
    "load_path": "/checkpoint_path/",
    "device_target": "GPU",
    "checkpoint_path": "./checkpoint/",
    "checkpoint_file_path": "Unet3d-10-110.ckpt",
    "num_worker": 4,
    "lr": 0.0005,
    "batch_size": 2,
    "epoch_size": 10,
    "warmup_step": 120,
    "warmup_ratio": 0.3,
    "num_classes": 4,
    "in_channels": 1,
    "keep_checkpoint_max": 1,
    "loss_scale": 256.0,
    "roi_size": [224, 224, 96],
    "overlap": 0.25,
    "min_val": -500,
    "max_val": 1000,
    "upper_limit": 5,
    "lower_limit": 3,
    "device_id": 0,
    "ckpt_file": "./checkpoint/Unet3d-10-110.ckpt",
    "file_name": "unet3d",
    "file_format": "MINDIR",
    "pre_result_path": "./preprocess_Result",
    "post_result_path": "./result_Files",
}
#: where ours is another on purpose: folders and files, the device (this book runs everywhere), the
#: format everybody reads
OWN_VALUES = ("data_path", "output_path", "checkpoint_path", "device_target", "file_format")


def test_every_setting_of_the_case_has_a_home_that_is_there():
    assert list(CASE) == list(CASE_SETTINGS)
    sections = Config().to_dict()
    for old, (place, _) in CASE.items():
        for home in place.split(", "):
            section, _, name = home.partition(".")
            assert home == "option --checkpoint" or name in sections[section], old


def test_nothing_is_an_empty_text_and_numbers_are_names_too():
    changed = Config.preset("luna16").override(["data.cache_path=", "train.output_path=2024"])
    assert changed.data.cache_path == "" and changed.train.output_path == "2024"


def test_a_setting_that_kept_its_name_is_named_as_its_home():
    places = {old: place.split(", ") for old, (place, _) in CASE.items()}
    for section, entries in Config().to_dict().items():
        for name in entries.keys() & CASE.keys():
            assert f"{section}.{name}" in places[name] or (section, name) == (
                "inference",
                "batch_size",
            )


def test_the_luna16_preset_has_every_value_of_the_case():
    """But for those that are ours on purpose."""
    sections = Config.preset("luna16").to_dict()
    for old, (place, _) in CASE.items():
        section, dot, name = place.split(", ")[0].partition(".")
        if dot and old not in OWN_VALUES:
            found, value = sections[section][name], CASE_SETTINGS[old]
            assert found == (value.removeprefix("./") if isinstance(value, str) else value), old


def test_the_options_of_the_command_line_that_the_table_names_are_there(capsys):
    options = {
        place.removeprefix("option ") for place, _ in CASE.values() if place.startswith("option ")
    }
    for command in ("predict", "evaluate", "export"):
        with pytest.raises(SystemExit):
            main([command, "-h"])
        assert all(option in capsys.readouterr().out for option in options)


def test_every_setting_says_what_it_is():
    source = Path(config_module.__file__).read_text(encoding="utf-8")
    for section in fields(Config):
        for entry in fields(getattr(Config(), section.name)):
            beside = rf"    {entry.name}: .*  #: \S"
            above = rf"    #: \S.*\n    {entry.name}: "
            assert re.search(f"{beside}|{above}", source), entry.name
