r"""The sampler: priors, data steps, schedules, and the LVTINO reconstructor."""

from deepinv_lvtino.optim.baselines import (
    ADMMTV,
    ADMMTVIteration,
    PnPADMM,
)
from deepinv_lvtino.optim.calibrated import CalibratedSchedule
from deepinv_lvtino.optim.damped import DataStepError
from deepinv_lvtino.optim.data_fidelity import (
    GaussianLikelihood,
    data_weight,
    noise_std,
    prox_l2,
)
from deepinv_lvtino.optim.data_steps import (
    AdamTVStep,
    ConjugateGradientStep,
    DataStep,
    GammaStep,
    PrimalDualTVStep,
    ProximalStep,
    VariationStep,
)
from deepinv_lvtino.optim.inverse import filled_inverse, pseudo_inverse
from deepinv_lvtino.optim.iteration import LVTINOIteration
from deepinv_lvtino.optim.landweber import LandweberStep
from deepinv_lvtino.optim.long import LongPhysics
from deepinv_lvtino.optim.lvtino import LVTINO
from deepinv_lvtino.optim.measured_motion import measured_motion, start_motion
from deepinv_lvtino.optim.motion_tv import MotionTV, MotionTVIteration
from deepinv_lvtino.optim.noise import (
    FrameNoise,
    SeededNoise,
    element_seed,
    global_noise,
)
from deepinv_lvtino.optim.priors import ProductOfExperts, SAEPrior
from deepinv_lvtino.optim.schedule import Schedule
from deepinv_lvtino.optim.settings import Settings
from deepinv_lvtino.optim.starts import (
    STARTS,
    interpolate,
    motion_start,
    proximal_start,
)
from deepinv_lvtino.optim.sweep import Half, HalfStep, Sweep, SweepPlan
from deepinv_lvtino.optim.tiled import Tiled
from deepinv_lvtino.optim.tv import (
    AbstractVariation,
    Motion,
    MotionVariation,
    SpaceTimeVariation,
    TemporalVariation,
    TVOptions,
    TVProblem,
    TVResult,
    Variation,
    prox_l2_tv,
    solve_l2_tv,
    video_motion,
)
from deepinv_lvtino.optim.variation_start import tv_start
from deepinv_lvtino.optim.windowed import Windowed, WindowState

__all__ = [
    "FrameNoise",
    "LongPhysics",
    "Tiled",
    "Windowed",
    "WindowState",
    "ADMMTV",
    "LVTINO",
    "STARTS",
    "ADMMTVIteration",
    "AbstractVariation",
    "AdamTVStep",
    "CalibratedSchedule",
    "ConjugateGradientStep",
    "DataStep",
    "DataStepError",
    "GammaStep",
    "GaussianLikelihood",
    "Half",
    "HalfStep",
    "LVTINOIteration",
    "LandweberStep",
    "Motion",
    "MotionTV",
    "MotionTVIteration",
    "MotionVariation",
    "PnPADMM",
    "PrimalDualTVStep",
    "ProductOfExperts",
    "ProximalStep",
    "SAEPrior",
    "Schedule",
    "SeededNoise",
    "Settings",
    "SpaceTimeVariation",
    "Sweep",
    "SweepPlan",
    "TVOptions",
    "TVProblem",
    "TVResult",
    "TemporalVariation",
    "Variation",
    "VariationStep",
    "data_weight",
    "element_seed",
    "filled_inverse",
    "global_noise",
    "interpolate",
    "measured_motion",
    "motion_start",
    "noise_std",
    "prox_l2",
    "prox_l2_tv",
    "proximal_start",
    "pseudo_inverse",
    "solve_l2_tv",
    "start_motion",
    "tv_start",
    "video_motion",
]
