"""Arguments that users type, checked: names (the nearest one is suggested) and whole numbers."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Iterable


def check_name(name: object, options: Iterable[str], argument: str) -> str:
    """`name` if it is one of `options`, else a ValueError of one sentence that suggests the nearest.

    >>> check_name("relu", ["relu", "tanh"], "activation")
    'relu'
    """
    options = tuple(options)
    if name in options:
        return name
    near = difflib.get_close_matches(str(name), options, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{argument} must be one of {', '.join(options)}, got {name!r}{hint}")


def check_whole(value: object, argument: str, *, least: int = 1) -> int:
    """`value` as an int if it is a whole number of at least `least`, else a ValueError of one sentence.

    >>> check_whole(3, "k")
    3
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{argument} must be a whole number of at least {least}, got {value!r}")
    return int(value)
