"""What pyproject.toml promises, and what README, models' pages and messages say of it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
TEXTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("models/**/*.md")),
    *sorted(ROOT.glob("models/**/*.py")),
    *sorted(ROOT.glob("poolembed/**/*.py")),
]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_extras_that_are_named_exist_and_can_be_installed(path: Path) -> None:
    text = path.read_text("utf-8")
    named = {extra for extras in re.findall(r"'\.\[([\w,]+)\]'", text) for extra in extras.split(",")}
    assert named <= PROJECT["optional-dependencies"].keys()
    # poolembed is installed from its checkout: no index has it.
    assert not re.search(r"pip install '?poolembed\b", text)


def test_what_can_break_between_versions_has_an_upper_bound() -> None:
    bounded = {re.split(r"[><=]", each)[0] for each in PROJECT["dependencies"] if "<" in each}
    assert bounded >= {"av", "torch"}


def test_classifiers_begin_with_the_oldest_python() -> None:
    minors = [int(each) for each in re.findall(r"Python :: 3\.(\d+)", "\n".join(PROJECT["classifiers"]))]
    assert PROJECT["requires-python"] == f">=3.{minors[0]}"
    assert minors == list(range(minors[0], minors[-1] + 1))
