"""Streams and counters: every random number is a function of (seed, stream, step, element).

The same table as csrc/core/philox.h reads: an op's ``offset`` is ``(stream << 48) + step``, and inside a stream the
element's index in its tensor counts. So a run is reproduced, or continued, from its seed and its iteration alone.
"""

NOISE_D = 0  # z of the discriminator's steps
NOISE_G = 1  # z of the generator's steps
MINIBATCH = 2  # order of the data, one permutation an epoch
INIT = 3  # weights
SAMPLE = 4  # z of Trainer.sample

# Dropout masks; the layer's index is added.
DROPOUT_D_REAL = 0x100  # discriminator on real rows
DROPOUT_D_FAKE = 0x200  # discriminator on generated rows
DROPOUT_D_IN_G = 0x300  # discriminator in the generator's step
DROPOUT_G_IN_D = 0x400  # generator in the discriminator's step
DROPOUT_G = 0x500  # generator in its own step


def offset(stream: int, step: int = 0) -> int:
    """The ``offset`` argument of an op: stream (below 2^15) and step (below 2^48) in one integer.

    >>> offset(NOISE_G, 3) == (1 << 48) + 3
    True
    """
    if not (0 <= stream < 1 << 15 and 0 <= step < 1 << 48):
        raise ValueError(f"offset: stream must be in [0, 2^15) and step in [0, 2^48), got {stream} and {step}")
    return (stream << 48) + step


def fresh_seed() -> int:
    """A seed from torch's generator of the CPU, whatever the default device."""
    import torch

    return int(torch.randint(2**63 - 1, (), device="cpu"))
