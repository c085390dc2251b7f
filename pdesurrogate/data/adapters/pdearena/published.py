"""Means and deviations that were published for the sets in PDEArena's layouts."""

from __future__ import annotations

import torch

from pdesurrogate.data.adapters.base import PublishedStatistics

# Constants of the networks of Zhang et al., *SineNet*, ICLR 2024, arXiv:2403.19507, by the names of their tasks, from
# their code (models/normalizer.py). PDEArena itself does not normalize these fields.
SINENET = {
    "NavierStokes2D": (
        (0.7171192169189453, -5.4855921888252723e-11, -3.2108783187823065e-08),
        (0.4428091049194336, 0.4393102824687958, 0.508793294429779),
    ),
    "Cond-NavierStokes2D": (
        (0.7302607297897339, -1.935991089663247e-10, -2.489250405801613e-08),
        (0.44604259729385376, 0.39725640416145325, 0.45123395323753357),
    ),
    "CFD": (
        (5.041397571563721, 25.086105346679688, -3.756210207939148e-05, 1.1378322597010992e-05),
        (2.9829258918762207, 21.71123504638672, 0.16352088749408722, 0.16349086165428162),
    ),
}


def sinenet_statistics(task: str) -> PublishedStatistics:
    """Of a task: smoke and velocity, or density, pressure and velocity; float32.

    Example:
        >>> [round(value, 4) for value in sinenet_statistics("NavierStokes2D").std.tolist()]
        [0.4428, 0.4393, 0.5088]
    """
    mean, std = SINENET[task]
    return PublishedStatistics(torch.tensor(mean), torch.tensor(std))
