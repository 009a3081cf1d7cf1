"""Pictures of a training run, each written whole to one file: samples, loss curves, points in the plane, modes.

Two are the paper's: the game on the line (`figure_1`), and what its two losses leave a generator (`generator_losses`).

matplotlib is imported when the first picture is drawn, and its pyplot state is never touched.
"""

from .canvas import COLOURS, STYLE
from .curves import loss_curves
from .game import figure_1
from .gradients import generator_losses
from .images import sample_grid
from .interpolation import interpolate, interpolation_grid
from .modes import generator_flow, mode_film, mode_map
from .neighbours import neighbour_grid
from .plane import scatter_2d

__all__ = [
    "COLOURS",
    "STYLE",
    "figure_1",
    "generator_flow",
    "generator_losses",
    "interpolate",
    "interpolation_grid",
    "loss_curves",
    "mode_film",
    "mode_map",
    "neighbour_grid",
    "sample_grid",
    "scatter_2d",
]
