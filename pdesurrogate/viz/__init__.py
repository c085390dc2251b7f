"""Figures of fields, spectra, statistics and errors; the leaderboard page.

Plot functions give back the axes that they drew into, or an array of them. Figures are made without pyplot, so none is
kept alive behind the scenes: a notebook shows one, after ``%matplotlib inline``, where a cell ends with
``figure_of(plot_spectra(reports))``, or with ``plot_error_curves(reports).figure`` where there is one panel.
"""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.viz.centerlines import plot_centerlines, plot_rollout_centerlines
    from pdesurrogate.viz.cost import CostPoint, plot_cost_accuracy
    from pdesurrogate.viz.curves import plot_error_curves
    from pdesurrogate.viz.distributions import plot_density, plot_rank_histogram
    from pdesurrogate.viz.films import save_field_film
    from pdesurrogate.viz.forces import plot_forces, plot_rollout_forces
    from pdesurrogate.viz.generalization import CaseErrors, plot_error_maps
    from pdesurrogate.viz.misalignment import plot_misalignment
    from pdesurrogate.viz.plane_spectra import plot_plane_spectra
    from pdesurrogate.viz.planes import plot_planes
    from pdesurrogate.viz.profiles import plot_channel_profiles, plot_profiles, plot_wall_units
    from pdesurrogate.viz.refinement import plot_refinement
    from pdesurrogate.viz.snapshots import plot_snapshots, save_film
    from pdesurrogate.viz.spacetime import plot_spacetime
    from pdesurrogate.viz.spectra import plot_coherence, plot_spectra
    from pdesurrogate.viz.statistics import plot_statistic
    from pdesurrogate.viz.style import figure_of, save_figure, style
    from pdesurrogate.viz.vortices import plot_q_criterion

__all__ = [
    "CaseErrors",
    "CostPoint",
    "figure_of",
    "plot_centerlines",
    "plot_channel_profiles",
    "plot_coherence",
    "plot_cost_accuracy",
    "plot_density",
    "plot_error_curves",
    "plot_error_maps",
    "plot_forces",
    "plot_misalignment",
    "plot_plane_spectra",
    "plot_planes",
    "plot_profiles",
    "plot_q_criterion",
    "plot_rank_histogram",
    "plot_refinement",
    "plot_rollout_centerlines",
    "plot_rollout_forces",
    "plot_snapshots",
    "plot_spacetime",
    "plot_spectra",
    "plot_statistic",
    "plot_wall_units",
    "save_field_film",
    "save_figure",
    "save_film",
    "style",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "CaseErrors": "generalization",
        "CostPoint": "cost",
        "figure_of": "style",
        "plot_centerlines": "centerlines",
        "plot_channel_profiles": "profiles",
        "plot_coherence": "spectra",
        "plot_cost_accuracy": "cost",
        "plot_density": "distributions",
        "plot_error_curves": "curves",
        "plot_error_maps": "generalization",
        "plot_forces": "forces",
        "plot_misalignment": "misalignment",
        "plot_plane_spectra": "plane_spectra",
        "plot_planes": "planes",
        "plot_profiles": "profiles",
        "plot_q_criterion": "vortices",
        "plot_rank_histogram": "distributions",
        "plot_refinement": "refinement",
        "plot_rollout_centerlines": "centerlines",
        "plot_rollout_forces": "forces",
        "plot_snapshots": "snapshots",
        "plot_spacetime": "spacetime",
        "plot_spectra": "spectra",
        "plot_statistic": "statistics",
        "plot_wall_units": "profiles",
        "save_field_film": "films",
        "save_figure": "style",
        "save_film": "snapshots",
        "style": "style",
    },
)
