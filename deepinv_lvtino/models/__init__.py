r"""Consistency models: the priors, known through a one-step generator."""

from deepinv_lvtino.models.consistency import ConsistencyModel
from deepinv_lvtino.models.gaussian import (
    GaussianConsistencyModel,
    PowerSpectrum,
    SpectralGaussianModel,
    gaussian_gain,
    spectral_image,
    spectral_video,
)
from deepinv_lvtino.models.noise_schedules import (
    NoiseSchedule,
    RectifiedFlow,
    VariancePreserving,
)

__all__ = [
    "ConsistencyModel",
    "GaussianConsistencyModel",
    "NoiseSchedule",
    "PowerSpectrum",
    "RectifiedFlow",
    "SpectralGaussianModel",
    "VariancePreserving",
    "gaussian_gain",
    "spectral_image",
    "spectral_video",
]
