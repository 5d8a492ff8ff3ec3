"""``import unet3d_tutorial as u3``: cheap, harmless, and with all that people use behind it."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import unet3d_tutorial

PACKAGE = Path(unet3d_tutorial.__file__).parent
STUB = PACKAGE / "__init__.pyi"
# The public names of version 0.1.0, which other people's code relies on.
PUBLIC = """
    Config load_volume save_volume Volume generate convert Compose create_dataset UNet3D
    ResidualUNet3D warmup_cosine DiceLoss DiceCELoss train segment sliding_window_inference dice
    jaccard hd95 asd assd precision sensitivity evaluate SliceViewer to_mindir to_onnx
""".split()

LOOK = """
import json, os, sys
before = dict(os.environ)
{imports}
changed = {{name: os.environ[name] for name in os.environ if before.get(name) != os.environ[name]}}
print(json.dumps([sorted(sys.modules), changed]))
"""


def after(imports: str, **environment: str) -> tuple[set[str], dict[str, str]]:
    """Loaded modules and changed environment variables of a fresh process after some imports."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("ONEDNN", "OMP"))}
    done = subprocess.run(
        [sys.executable, "-c", LOOK.format(imports=imports)],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    modules, changed = json.loads(done.stdout.splitlines()[-1])
    return set(modules), changed


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there(name: str) -> None:
    assert name in dir(unet3d_tutorial)
    assert getattr(unet3d_tutorial, name).__name__ == name


def test_names_are_those_of_the_stub() -> None:
    listed = []
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, "a stub exports only what it names twice"
            listed.append(alias.name)
    assert sorted(listed) == sorted(unet3d_tutorial.__all__)
    assert all(getattr(unet3d_tutorial, name) is not None for name in listed)


def test_the_import_loads_next_to_nothing_and_changes_nothing() -> None:
    modules, changed = after("import unet3d_tutorial")
    assert not {"numpy", "scipy", "mindspore", "pydantic", "matplotlib", "nibabel"} & modules
    assert changed == {}


@pytest.mark.parametrize(
    "name", ["metrics", "volume", "transforms", "inference", "config", "viewer", "labels"]
)
def test_what_needs_no_mindspore_loads_none_and_changes_nothing(name: str) -> None:
    modules, changed = after(f"import unet3d_tutorial.{name}")
    assert "mindspore" not in modules
    assert changed == {}


@pytest.mark.parametrize("name", ["model", "losses", "training", "cpu"])
def test_what_needs_mindspore_sets_its_variables_before_it(name: str) -> None:
    _, changed = after(f"import unet3d_tutorial.{name}")
    assert changed["ONEDNN_MAX_CPU_ISA"] == "AVX2" and changed["OMP_WAIT_POLICY"] == "passive"
    _, changed = after(f"import unet3d_tutorial.{name}", ONEDNN_MAX_CPU_ISA="AVX")
    assert "ONEDNN_MAX_CPU_ISA" not in changed


def test_a_program_that_loaded_mindspore_has_chosen() -> None:
    _, changed = after("import mindspore, unet3d_tutorial.model")
    assert not {"ONEDNN_MAX_CPU_ISA", "OMP_WAIT_POLICY"} & changed.keys()


def test_every_module_that_imports_mindspore_sets_its_variables_first() -> None:
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        names = []
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.append(node.module)
        first = [name for name in names if name.split(".")[0] == "mindspore"]
        if first and "unet3d_tutorial.environment" not in names[: names.index(first[0])]:
            wrong.append(path.name)
    assert wrong == []


def test_editors_and_type_checkers_find_types() -> None:
    assert (PACKAGE / "py.typed").is_file() and STUB.is_file()
