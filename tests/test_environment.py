"""One set of versions: pyproject.toml, environment.yml and constraints.txt agree."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins(requirements: list[str]) -> dict[str, str]:
    """``{"name": "version"}`` of ``"Name==version"`` lines, names in their normal form; a marker
    after it does not count.
    """
    found = {}
    for requirement in requirements:
        name, equals, version = requirement.partition(";")[0].partition("==")
        assert equals and re.fullmatch(r"[\w.-]+", name), (
            f"{requirement!r} is not of the form name==version"
        )
        found[re.sub(r"[-_.]+", "-", name).lower()] = version
    return found


def project_pins() -> dict[str, str]:
    extras = PROJECT["optional-dependencies"]
    return pins([*PROJECT["dependencies"], *extras["book"], *extras["test"]])


def test_environment_yml_has_the_versions_of_pyproject() -> None:
    packages = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))[
        "dependencies"
    ]
    by_pip = next(entry["pip"] for entry in packages if isinstance(entry, dict))
    assert pins([line for line in by_pip if not line.startswith("-")]) == project_pins()
    assert "--constraint constraints.txt" in by_pip


def test_environment_yml_has_the_python_of_pyproject() -> None:
    packages = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))[
        "dependencies"
    ]
    assert "python=3.11" in packages
    assert PROJECT["requires-python"] == ">=3.11,<3.12"


def test_constraints_hold_every_version_of_pyproject() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    constraints = pins([line for line in lines if line and not line.startswith("#")])
    assert project_pins().items() <= constraints.items()
