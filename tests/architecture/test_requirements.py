"""The pinned requirements fit pyproject.toml, are hashed, and name no address: any mirror will do."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PIN = re.compile(
    r"^(?P<name>[\w.-]+)(?:\[[\w,-]+\])?==(?P<version>\S+)(?P<rest>.*(?:\n    --hash=sha256:[0-9a-f]{64}.*)*)",
    re.MULTILINE,
)


def pins(file: str) -> dict[str, str]:
    """Name -> version of each pinned distribution."""
    found = PIN.finditer((ROOT / file).read_text())
    return {canonicalize_name(pin["name"]): pin["version"] for pin in found}


def wanted(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for, with these extras."""
    texts = list(PROJECT["dependencies"])
    for extra in extras:
        texts += PROJECT["optional-dependencies"][extra]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize(
    ("file", "extras"),
    [
        ("requirements.txt", ("edge", "gateway", "sim")),
        ("requirements-dev.txt", ("edge", "gateway", "sim", "dev")),
    ],
)
def test_every_requirement_is_pinned_within_its_bounds(file: str, extras: tuple[str, ...]) -> None:
    pinned = pins(file)
    unfit = [
        f"{requirement} is pinned to {pinned.get(canonicalize_name(requirement.name))}"
        for requirement in wanted(*extras)
        if pinned.get(canonicalize_name(requirement.name), "") not in requirement.specifier
    ]
    assert unfit == [], "run `make requirements`"


def test_tests_run_on_the_very_versions_that_are_shipped() -> None:
    assert pins("requirements.txt").items() <= pins("requirements-dev.txt").items()


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_every_pin_is_hashed(file: str) -> None:
    unhashed = [
        pin["name"] for pin in PIN.finditer((ROOT / file).read_text()) if "--hash=" not in pin["rest"]
    ]
    assert unhashed == []


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_no_address_stands_in_the_pins(file: str) -> None:
    text = (ROOT / file).read_text()
    assert re.findall(r"\w+://\S+|--(?:extra-)?index-url|--find-links", text) == []
