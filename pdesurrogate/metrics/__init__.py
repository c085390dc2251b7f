"""Pure functions that measure fields, and thin streaming classes around them."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.metrics.base import RolloutMetric
    from pdesurrogate.metrics.conservation import ConservationMetric, DivergenceMetric
    from pdesurrogate.metrics.errors import ErrorMetric, correlation, correlation_time, relative_l2, rmse
    from pdesurrogate.metrics.spectra import SpectrumMetric, energy_spectrum, enstrophy_spectrum, log_spectral_distance
    from pdesurrogate.metrics.suites import default_suite

__all__ = [
    "ConservationMetric",
    "DivergenceMetric",
    "ErrorMetric",
    "RolloutMetric",
    "SpectrumMetric",
    "correlation",
    "correlation_time",
    "default_suite",
    "energy_spectrum",
    "enstrophy_spectrum",
    "log_spectral_distance",
    "relative_l2",
    "rmse",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "ConservationMetric": "conservation",
        "DivergenceMetric": "conservation",
        "ErrorMetric": "errors",
        "RolloutMetric": "base",
        "SpectrumMetric": "spectra",
        "correlation": "errors",
        "correlation_time": "errors",
        "default_suite": "suites",
        "energy_spectrum": "spectra",
        "enstrophy_spectrum": "spectra",
        "log_spectral_distance": "spectra",
        "relative_l2": "errors",
        "rmse": "errors",
    },
)
