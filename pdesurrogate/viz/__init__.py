"""Figures of fields, spectra and errors; the leaderboard page."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.viz.curves import plot_error_curves
    from pdesurrogate.viz.snapshots import plot_snapshots, save_film
    from pdesurrogate.viz.spectra import plot_spectra
    from pdesurrogate.viz.style import save_figure, style

__all__ = ["plot_error_curves", "plot_snapshots", "plot_spectra", "save_figure", "save_film", "style"]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "plot_error_curves": "curves",
        "plot_snapshots": "snapshots",
        "plot_spectra": "spectra",
        "save_figure": "style",
        "save_film": "snapshots",
        "style": "style",
    },
)
