r"""Consistency models: the priors, known through a one-step generator."""

from deepinv_lvtino.models._memory import OutOfMemory
from deepinv_lvtino.models._published import MemoryEstimate, estimate_memory
from deepinv_lvtino.models._tiling import Tiles
from deepinv_lvtino.models._tiny_decoder import TinyVideoDecoder
from deepinv_lvtino.models.adapter import DiffusersConsistencyModel
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
from deepinv_lvtino.models.predictions import clean_latent
from deepinv_lvtino.models.sdxl import SDXLConsistencyModel
from deepinv_lvtino.models.tiny import TinyConsistencyModel, TinyDenoiser
from deepinv_lvtino.models.tiny_network import TinyConfig, TinyNetwork
from deepinv_lvtino.models.tiny_weights import (
    load_tiny,
    save_tiny,
    tiny_image,
    tiny_video,
)
from deepinv_lvtino.models.wan import WanConsistencyModel

__all__ = [
    "ConsistencyModel",
    "DiffusersConsistencyModel",
    "GaussianConsistencyModel",
    "MemoryEstimate",
    "NoiseSchedule",
    "OutOfMemory",
    "PowerSpectrum",
    "RectifiedFlow",
    "SDXLConsistencyModel",
    "SpectralGaussianModel",
    "Tiles",
    "TinyConfig",
    "TinyConsistencyModel",
    "TinyDenoiser",
    "TinyNetwork",
    "TinyVideoDecoder",
    "VariancePreserving",
    "WanConsistencyModel",
    "clean_latent",
    "estimate_memory",
    "gaussian_gain",
    "load_tiny",
    "save_tiny",
    "spectral_image",
    "spectral_video",
    "tiny_image",
    "tiny_video",
]
