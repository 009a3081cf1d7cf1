"""Pictures of a training run, each written whole to one file: sample grids, loss curves, points in the plane.

Two are the paper's: the game on the line (`figure_1`), and what its two losses leave a generator (`generator_losses`).

matplotlib is imported when the first picture is drawn, and its pyplot state is never touched.
"""

from .canvas import COLOURS, STYLE
from .curves import loss_curves
from .game import figure_1
from .gradients import generator_losses
from .images import sample_grid
from .plane import scatter_2d

__all__ = ["COLOURS", "STYLE", "figure_1", "generator_losses", "loss_curves", "sample_grid", "scatter_2d"]
