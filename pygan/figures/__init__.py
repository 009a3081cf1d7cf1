"""Pictures of a training run, each written whole to one file: sample grids, loss curves, points in the plane.

matplotlib is imported when the first picture is drawn, and its pyplot state is never touched.
"""

from .canvas import COLOURS, STYLE
from .curves import loss_curves
from .images import sample_grid
from .plane import scatter_2d

__all__ = ["COLOURS", "STYLE", "loss_curves", "sample_grid", "scatter_2d"]
