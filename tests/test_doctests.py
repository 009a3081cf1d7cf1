"""Every example in a docstring of pygan runs and prints what it says."""

import doctest
import importlib
import pkgutil

import pytest

import pygan

MODULES = ["pygan", *(found.name for found in pkgutil.walk_packages(pygan.__path__, "pygan."))]
MODULES.remove("pygan._C")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0, "the output above says which examples differ"
