"""Configuration: round trip, overrides, and refusal of what cannot work."""

import pickle
import re
from contextlib import nullcontext
from dataclasses import FrozenInstanceError, asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from unet3d_tutorial import config as config_module
from unet3d_tutorial.cli import main
from unet3d_tutorial.config import (
    CASE,
    PRESETS,
    Config,
    DataConfig,
    InferenceConfig,
    ModelConfig,
    RemoteConfig,
    TrainConfig,
    differences,
)
from unet3d_tutorial.predict.engines import dump_config

#: what the presets were saved as when the first runs and networks were stored
SAVED = Path(__file__).parent / "saved_settings"
SETTINGS = [
    (section.name, entry.name)
    for section in fields(Config)
    for entry in fields(getattr(Config(), section.name))
]


@pytest.mark.parametrize("preset", PRESETS)
def test_saved_configuration_loads_equal(preset, tmp_path):
    config = Config.preset(preset)
    config.save(tmp_path / "config.yaml")
    assert Config.load(tmp_path / "config.yaml") == config
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("preset", PRESETS)
def test_saved_text_is_the_same_to_the_byte(preset, tmp_path):
    """A stored run and an exported network must stay comparable with what is made today."""
    config = Config.preset(preset)
    config.save(tmp_path / "config.yaml")
    assert (tmp_path / "config.yaml").read_bytes() == (SAVED / f"{preset}.yaml").read_bytes()
    exported = (SAVED / f"{preset}.onnx.yaml").read_text(encoding="utf-8")
    assert dump_config(config) == exported
    assert config.to_dict() == yaml.safe_load((SAVED / f"{preset}.yaml").read_bytes())


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
    names = [name for _, name in SETTINGS]
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
        (
            "train.epoch_size=1.5",
            "train.epoch_size: expected a whole number of at least 1, found 1.5",
        ),
        (
            "train.seed=true",
            "train.seed: expected a whole number of at least 0 and below 4294967296, found 'true'",
        ),
        ("data.augment=1", "data.augment: expected true or false, found '1'"),
        (
            "train.epoch_size=.inf",
            "train.epoch_size: expected a whole number of at least 1, found '.inf'",
        ),
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
        (
            "train.seed=-1",
            "train.seed: expected a whole number of at least 0 and below 4294967296, found -1",
        ),
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
        (
            "inference.mode=median",
            "inference.mode: expected one of constant, gaussian, found 'median'",
        ),
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


# ------------------------------------------------------------------------------- made from Python
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: TrainConfig(batch_size=2.5),
            "train.batch_size: expected a whole number of at least 1, found 2.5",
        ),
        (lambda: TrainConfig(lr="fast"), "train.lr: expected a number above 0, found 'fast'"),
        (lambda: TrainConfig(lr="3"), "train.lr: expected a number above 0, found '3'"),
        (lambda: TrainConfig(lr=True), "train.lr: expected a number above 0, found True"),
        (
            lambda: TrainConfig(lr=float("inf")),
            "train.lr: expected a finite number above 0, found inf",
        ),
        (lambda: TrainConfig(seed=True), "train.seed: expected a whole number of at least 0"),
        (lambda: TrainConfig(warmup_ratio=2), "train.warmup_ratio: expected a number from 0 to 1"),
        (lambda: TrainConfig(lr=None), "train.lr: expected a number above 0, found None"),
        (lambda: TrainConfig("DiceCE"), "train.loss: expected one of DiceCELoss, DiceLoss"),
        (
            lambda: DataConfig(roi_size=(64, 64)),
            "data.roi_size: expected three whole numbers of at least 1, found (64, 64)",
        ),
        (
            lambda: DataConfig(roi_size=(64, 64, 1.5)),
            "data.roi_size: expected three whole numbers of at least 1, found (64, 64, 1.5)",
        ),
        (lambda: DataConfig(data_path=Path("x")), "data.data_path: expected a folder, found Posix"),
        (lambda: DataConfig(augment=1), "data.augment: expected true or false, found 1"),
        (lambda: DataConfig(cache_path=None), "data.cache_path: expected text, found None"),
        (
            lambda: ModelConfig(channels=[16]),
            "model.channels: expected two or more whole numbers of at least 2, found [16]",
        ),
        (
            lambda: ModelConfig(norm="grup"),
            "model.norm: expected one of batch, group, found 'grup'; did you mean 'group'?",
        ),
        (
            lambda: TrainConfig(learning_rat=1),
            "unknown setting in section 'train': 'learning_rat'; there are loss, lr",
        ),
        (
            lambda: TrainConfig(epoch_sise=1),
            "unknown setting in section 'train': 'epoch_sise'; did you mean 'epoch_size'?",
        ),
        (lambda: RemoteConfig("", "", "", False, 1), "RemoteConfig: expected at most 4 values"),
        (lambda: TrainConfig("DiceLoss", loss="DiceLoss"), "TrainConfig: loss is given twice"),
        (lambda: Config(data={"augment": False}), "data: expected DataConfig, found {"),
        (lambda: Config(trian=TrainConfig()), "unknown section: 'trian'; did you mean 'train'?"),
        (lambda: replace(Config(), data=3), "data: expected DataConfig, found 3"),
        (
            lambda: Config(data=DataConfig(position=False)),
            "model.in_channels: expected 2 with data.position, 1 without, found 2",
        ),
        (lambda: Config.from_dict([1]), "expected sections (data, model, train"),
        (lambda: Config.from_dict({"train": 3}), "section 'train': expected name: value pairs"),
        (lambda: Config.from_dict({"train": {1: 2}}), "unknown setting in section 'train': 1"),
        (lambda: Config.from_dict({"train": {"lr": "1e-3"}}), "train.lr: expected a number"),
    ],
)
def test_python_values_are_checked_too(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as caught:
        make()
    assert type(caught.value) is ValueError and "\n" not in str(caught.value)


def test_python_values_become_those_of_the_setting():
    train = TrainConfig(warmup_epoch=2, batch_size=np.int64(4), lr=np.float32(0.5))
    assert (train.warmup_epoch, train.batch_size, train.lr) == (2.0, 4, 0.5)
    assert {type(train.warmup_epoch), type(train.lr)} == {float}
    assert type(train.batch_size) is int
    data = DataConfig(roi_size=[32, 32, 16], spacing_mm=np.array([1, 2, 3]))
    assert data.roi_size == (32, 32, 16) and data.spacing_mm == (1.0, 2.0, 3.0)
    assert type(data.spacing_mm[0]) is float


def test_sections_are_dataclasses_like_any_other():
    config = Config.preset("luna16")
    assert pickle.loads(pickle.dumps(config)) == config != Config()
    assert hash(Config.preset("luna16")) == hash(config) and config in {Config(), config}
    assert replace(config.train, lr=1.0).lr == 1.0
    assert asdict(config)["data"]["roi_size"] == (224, 224, 96)
    assert [entry.default for entry in fields(TrainConfig)][:3] == ["DiceCELoss", 0.003, 2]
    assert repr(InferenceConfig()).startswith("InferenceConfig(roi_size=(96, 96, 96), overlap=0.25")


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=200)
    | st.binary(max_size=200),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(setting=st.sampled_from(SETTINGS), value=ANYTHING)
def test_any_value_is_taken_or_refused_in_a_short_line(setting, value):
    section, name = setting
    try:
        config = Config().updated({section: {name: value}})
    except ValueError as error:
        line = str(error)
        assert type(error) is ValueError and "\n" not in line and len(line) < 300
        assert re.match(r"(data|model|train|inference|export|remote)\.[a-z_]+: expected ", line)
    else:
        assert Config.from_yaml(config_text(config), "x") == config


def config_text(config: Config) -> str:
    return yaml.safe_dump(config.to_dict())


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("train", "lr", 10**5000),
        ("train", "seed", "9" * 10**6),
        ("data", "roi_size", ["a" * 10**6] * 1000),
        ("model", "norm", "b" * 10**6),
        ("data", "spacing_mm", np.zeros(10**5)),
    ],
    ids=["digits", "text", "list", "name", "array"],
)
def test_a_huge_value_makes_no_huge_message(section, name, value):
    with pytest.raises(ValueError, match=f"{section}.{name}: expected") as caught:
        Config().updated({section: {name: value}})
    assert len(str(caught.value)) < 200


# ----------------------------------------------------------------------- values as they are written
@pytest.mark.parametrize(
    "text",
    ["007", "2024", "1e3", "on", "null", "yes", "~", "0x10", "1:30", "2024-01-01", ".inf", "1_0"],
)
def test_a_text_stays_as_it_was_written(text, tmp_path):
    changed = Config().override(f"train.output_path={text}")
    assert changed.train.output_path == text
    file = tmp_path / "config.yaml"
    file.write_text(f"train:\n  output_path: {text}  # a folder\n", encoding="utf-8")
    assert Config.load(file) == changed
    changed.save(file)
    assert Config.load(file) == changed


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.lr=1e-3", 0.001),
        ("train.lr=3E-3", 0.003),
        ("train.lr=.5", 0.5),
        ("train.lr=2", 2.0),
        ("train.lr='0.1'", 0.1),
        ("data.min_val=-1_000", None),
        ("train.epoch_size=+7", 7),
        ("train.epoch_size=010", 10),
        ("train.epoch_size=1e2", 100),
        ("train.epoch_size=2.0", 2),
        ("train.epoch_size=0x10", None),
        ("data.augment=off", False),
        ("data.augment=False", False),
        ("data.mirror=yes", True),
        ("data.spacing_mm=~", None),
    ],
)
def test_a_number_or_a_truth_value_is_read_as_the_setting_says(override, value):
    section, name = override.partition("=")[0].split(".")
    if value is None and name != "spacing_mm":
        with pytest.raises(ValueError, match=f"^{section}.{name}: expected"):
            Config().override(override)
        return
    found = getattr(getattr(Config().override(override), section), name)
    assert found == value and type(found) is type(value)


def test_one_override_needs_no_list(tmp_path):
    (tmp_path / "empty.yaml").touch()
    assert Config().override("train.lr=1").train.lr == 1.0
    assert Config.load(tmp_path / "empty.yaml", "train.lr=1") == Config().override("train.lr=1")


# ------------------------------------------------------------------------------- shown to a reader
def test_a_printed_configuration_marks_what_is_not_the_default():
    text = str(Config.preset("luna16"))
    assert len(text.splitlines()) == len(SETTINGS) + 6 <= 80
    changed = [line.split()[1] for line in text.splitlines() if line.startswith("  *")]
    luna16 = Config.preset("luna16").to_dict()
    differ = [
        name for part, name in SETTINGS if luna16[part][name] != Config().to_dict()[part][name]
    ]
    assert changed == differ
    assert "* roi_size          [224, 224, 96]  (default: [64, 64, 48])" in text
    assert "*" not in str(Config())
    assert str(TrainConfig(lr=1.0)).splitlines()[1].split(None, 2)[1:] == [
        "lr",
        "1.0  (default: 0.003)",
    ]


def test_jupyter_shows_tables():
    html = Config.preset("luna16")._repr_html_()
    assert html.count("<tr>") == len(SETTINGS) + 1 and "data.roi_size" in html
    assert re.search(
        r"<td>data.roi_size *</td><td>\[224, 224, 96\] *</td><td>\[64, 64, 48\] *<", html
    )
    assert "<table>" in TrainConfig()._repr_html_()


def test_differences_are_named_but_not_those_without_effect():
    other = Config().override(["train.lr=1", "data.num_worker=3"])
    assert differences(Config(), other) == "train.lr is 0.003 there, 1.0 here"
    assert differences(other, other) == ""


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
