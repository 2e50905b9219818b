r"""The sampler: priors, data steps, schedules, and the LVTINO reconstructor."""

from deepinv_lvtino.optim.data_fidelity import GaussianLikelihood, noise_std
from deepinv_lvtino.optim.data_steps import (
    AdamTVStep,
    ConjugateGradientStep,
    DataStep,
    GammaStep,
    PrimalDualTVStep,
    ProximalStep,
)
from deepinv_lvtino.optim.iteration import LVTINOIteration
from deepinv_lvtino.optim.lvtino import LVTINO
from deepinv_lvtino.optim.noise import SeededNoise, global_noise
from deepinv_lvtino.optim.priors import ProductOfExperts, SAEPrior
from deepinv_lvtino.optim.schedule import (
    CalibratedSchedule,
    HalfStep,
    Schedule,
    Sweep,
)

__all__ = [
    "LVTINO",
    "AdamTVStep",
    "CalibratedSchedule",
    "ConjugateGradientStep",
    "DataStep",
    "GammaStep",
    "GaussianLikelihood",
    "HalfStep",
    "LVTINOIteration",
    "PrimalDualTVStep",
    "ProductOfExperts",
    "ProximalStep",
    "SAEPrior",
    "Schedule",
    "SeededNoise",
    "Sweep",
    "global_noise",
    "noise_std",
]
