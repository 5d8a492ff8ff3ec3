"""Configuration: round trip, overrides, and refusal of what cannot work."""

import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from unet3d_tutorial import config as config_module
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
    assert (config.train.warmup_step, config.train.warmup_ratio, config.train.keep_checkpoint_max) == (120, 0.3, 1)
    assert (config.data.min_val, config.data.max_val, config.data.roi_size) == (-500, 1000, (224, 224, 96))
    assert (config.model.in_channels, config.model.num_classes, config.inference.overlap) == (1, 4, 0.25)


def test_overrides_take_the_type_of_the_setting():
    config = Config.preset("quick").override(["train.lr=1e-3", "data.roi_size=[32, 48, 64]", "data.spacing_mm=null"])
    assert config.train.lr == 0.001
    assert config.data.roi_size == (32, 48, 64)
    assert config.data.spacing_mm is None


def test_settings_that_belong_together_can_be_overridden_together():
    config = Config.preset("quick").override(["data.position=false", "model.in_channels=1"])
    assert (config.data.position, config.model.in_channels) == (False, 1)


def test_every_setting_is_used():
    """A setting that no module reads would be a promise that nobody keeps."""
    sources = "".join(path.read_text(encoding="utf-8") for path in Path(config_module.__file__).parent.glob("*.py")
                      if path.name != "config.py")
    names = [entry.name for section in fields(Config) for entry in fields(getattr(Config(), section.name))]
    assert len(names) > 20
    assert [name for name in names if not re.search(rf"\.{name}\b", sources)] == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.learning_rate=1", "learning_rate"),
        ("train.warmup_steps=1", "did you mean 'warmup_step'"),
        ("trian.lr=1", "did you mean 'train'"),
        ("lr=1", "section.name=value"),
        ("train.lr=fast", "train.lr: expected float, found 'fast'"),
        ("train.epoch_size=1.5", "train.epoch_size: expected int"),
        ("train.seed=true", "train.seed: expected int"),
        ("data.augment=1", "data.augment: expected bool"),
        ("train.epoch_size=.inf", "train.epoch_size: expected int, found inf"),
        ("train.lr=.nan", "train.lr: expected float, found nan"),
        ("train.lr=true", "train.lr: expected float, found True"),
        ("data.max_val=.inf", "data.max_val: expected float, found inf"),
        ("data.spacing_mm=[4, 4, .inf]", "data.spacing_mm: expected tuple"),
        ("train.output_path=", "train.output_path: expected a folder, found none"),
        ("train.output_path=[a, b]", "train.output_path: expected str, found"),
        ("export.file_name=no", "export.file_name: expected str, found False"),
        ("train.seed=-1", "train.seed: expected at least 0, found -1"),
        ("data.roi_size=[32, 32", "data.roi_size: '[32, 32' is not valid YAML"),
        ("data.roi_size=[32, 32]", "data.roi_size"),
        ("data.roi_size=[32, 32, 40]", "multiples of 16"),
        ("data.spacing_mm=[1, 1, 0]", "data.spacing_mm"),
        ("data.min_val=500", "data.min_val: expected below data.max_val"),
        ("data.position=false", "model.in_channels: expected 2 with data.position, 1 without"),
        ("inference.overlap=1", "inference.overlap"),
        ("inference.mode=median", "constant or gaussian"),
        ("inference.placement=random", "fixed or even"),
        ("inference.batch_size=0", "inference.batch_size: expected at least 1"),
        ("inference.flip_axes=[0, 0]", "inference.flip_axes: expected each of 0, 1 and 2 at most once"),
        ("inference.flip_axes=[3]", "inference.flip_axes"),
    ],
)
def test_what_cannot_work_is_refused_by_name(override, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        Config.preset("quick").override([override])


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


#: every setting of the original case, in its order; ``train_url`` is spelt ``train_ur`` there
CASE_SETTINGS = """enable_fp16_gpu enable_modelarts data_url train_url checkpoint_url run_distribute enable_profiling
data_path output_path load_path device_target checkpoint_path checkpoint_file_path num_worker lr
batch_size epoch_size warmup_step warmup_ratio num_classes in_channels keep_checkpoint_max
loss_scale roi_size overlap min_val max_val upper_limit lower_limit device_id ckpt_file file_name
file_format pre_result_path post_result_path""".split()


def test_every_setting_of_the_case_has_a_home_that_is_there():
    assert list(CASE) == CASE_SETTINGS
    sections = Config().to_dict()
    for old, (place, _) in CASE.items():
        for home in place.split(", "):
            section, dot, name = home.partition(".")
            assert name in sections[section] if dot else home.startswith("option --"), old
    for old in CASE_SETTINGS:  # what kept its name is found under it
        here = {f"{section}.{old}" for section, entries in sections.items() if old in entries}
        assert not here or here & set(CASE[old][0].split(", ")), old


def test_nothing_is_an_empty_text_and_numbers_are_names_too():
    changed = Config.preset("luna16").override(["data.cache_path=", "train.output_path=2024"])
    assert changed.data.cache_path == "" and changed.train.output_path == "2024"


def test_every_setting_says_what_it_is():
    lines = Path(config_module.__file__).read_text(encoding="utf-8").splitlines()
    for section in fields(Config):
        for entry in fields(getattr(Config(), section.name)):
            assert any(re.match(rf"    {entry.name}: .*  #: \S", line) for line in lines), entry.name
