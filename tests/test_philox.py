"""Philox4x32-10 against the vectors published with Random123 (kat_vectors), and the twin against the core."""

import pytest
import torch

import pygan
from pygan import reference

VECTORS = {
    "zeros": (
        (0x00000000, 0x00000000, 0x00000000, 0x00000000),
        (0x00000000, 0x00000000),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    "ones": (
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    "pi": (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
}


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS.values(), ids=VECTORS)
def test_published_vectors(counter, key, expected):
    assert tuple(pygan._C.philox4x32_10(counter, key)) == expected
    assert tuple(int(word) for word in reference.philox4x32_10(counter, key)) == expected


def test_twin_equals_the_core_on_random_counters():
    numbers = torch.randint(0, 2**32, (200, 6), dtype=torch.int64)
    twin = torch.stack(reference.philox4x32_10(numbers[:, :4].unbind(1), (17, 2**32 - 5)), dim=1)
    core = [pygan._C.philox4x32_10(row[:4], (17, 2**32 - 5)) for row in numbers.tolist()]
    assert twin.tolist() == [list(words) for words in core]


def test_each_bit_of_counter_and_key_changes_the_block():
    start = [1, 2, 3, 4, 5, 6]
    blocks = {tuple(pygan._C.philox4x32_10(start[:4], start[4:]))}
    for place in range(6):
        for bit in range(32):
            changed = list(start)
            changed[place] ^= 1 << bit
            blocks.add(tuple(pygan._C.philox4x32_10(changed[:4], changed[4:])))
    assert len(blocks) == 1 + 6 * 32
