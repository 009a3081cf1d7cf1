"""Arguments that users type, checked and made plain: names (the nearest one is suggested), whole and real numbers.

numpy's scalars come out as Python's own, so that what is stored can be written to a file.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Callable, Iterable


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


def check_wholes(values: object, argument: str) -> tuple[int, ...]:
    """`values` as a tuple of ints if they are whole numbers of at least 1.

    >>> check_wholes([128, 64], "g_hidden")
    (128, 64)
    """
    try:
        return tuple(check_whole(value, argument) for value in values)
    except (TypeError, ValueError):
        raise ValueError(f"{argument} must be whole numbers of at least 1, got {values!r}") from None


def check_seed(value: object) -> int:
    """`value` as an int if it can be the seed of a run.

    >>> check_seed(7)
    7
    """
    seed = check_whole(value, "seed", least=0)
    if seed >= 2**63:
        raise ValueError(f"seed must be below 2^63, got {seed}")
    return seed


def check_number(value: object, argument: str, expected: str, valid: Callable[[float], bool]) -> float:
    """`value` as a float if it is a finite real number for which `valid` holds, else a ValueError that says `expected`.

    >>> check_number(1, "lr", "above 0", lambda lr: lr > 0)
    1.0
    """
    if not _is_finite(value) or not valid(float(value)):
        raise ValueError(f"{argument} must be {expected}, got {_shown(value)}")
    return float(value)


def check_pair(value: object, argument: str, expected: str, valid: Callable[[float, float], bool]) -> tuple:
    """`value` as a pair of finite numbers for which `valid` holds; whole ones stay whole.

    >>> check_pair([0, 1], "pixel_range", "(low, high), rising", lambda low, high: low < high)
    (0, 1)
    """
    try:
        pair = tuple(value)
    except TypeError:
        pair = ()
    if len(pair) != 2 or not all(map(_is_finite, pair)) or not valid(*pair):
        raise ValueError(f"{argument} must be {expected}, got {_shown(value)}")
    return tuple(int(number) if isinstance(number, numbers.Integral) else float(number) for number in pair)


def _is_finite(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: object) -> str:
    """A number as people write it, without the name of its numpy type."""
    return str(value) if isinstance(value, numbers.Real) else repr(value)
