"""What every picture shares: the colours, the style, and the way to the file."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .._files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart under every common colour blindness.
COLOURS = {
    "data": "#0072B2",
    "model": "#D55E00",
    "ink": "#333333",
    "faint": "#8A8A8A",
    "gutter": "#5C5C5C",
}
STYLE = {
    "axes.edgecolor": COLOURS["faint"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.dpi": 100,
    "font.size": 10,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "savefig.dpi": 150,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["ink"],
    "ytick.color": COLOURS["ink"],
}
_FORMATS = (".png", ".pdf", ".svg")


def style() -> AbstractContextManager:
    """`STYLE` for the block it opens; the user's own settings hold again after it."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, known to no one else."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def check_path(path: str | os.PathLike, formats: tuple[str, ...] = _FORMATS) -> Path:
    """Asked before anything is drawn, so that a wrong path costs no time."""
    path = Path(path)
    if path.suffix.lower() not in formats:
        kind = "a figure" if formats == _FORMATS else "an animation"
        raise ValueError(f"{kind}'s name must end in {', '.join(formats)}, got {path.name!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is not a folder; make it before writing {path.name} there")
    return path


def save(figure: Figure, path: Path, **options: Any) -> None:
    """Whoever opens `path` meanwhile sees the old picture or the new one, never half of one."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), **options)


def as_array(values: Any) -> np.ndarray:
    """A tensor of any device and dtype, or whatever numpy takes, as an array."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values)
