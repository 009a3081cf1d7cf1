"""Every example in a docstring of pygan runs and prints what it says, and the pictures of docs/data.md are drawn."""

import doctest
import importlib
import os
import pathlib
import pkgutil
import re

import pytest

import pygan

MODULES = ["pygan", *(found.name for found in pkgutil.walk_packages(pygan.__path__, "pygan."))]
MODULES.remove("pygan._C")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0, "the output above says which examples differ"


def test_the_pictures_of_the_documentation(tmp_path, monkeypatch):
    page = pathlib.Path(__file__).parents[1] / "docs" / "data.md"
    block = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)[-1]
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert set(re.findall(r'"(\w+\.\w+)"', block)) == set(os.listdir())
    assert len(os.listdir()) == 8
