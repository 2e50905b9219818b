r"""What a measurement tells about its noise and its blur."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from deepinv_lvtino.utils import check_number, check_video

#: Patches of frames, rows and columns, the largest first, of which one is taken that the
#: measurement holds ``_PATCHES_PER_VALUE`` times as many of as it has values.
_PATCHES = ((3, 6), (3, 4), (1, 4), (1, 3), (1, 2))
#: Width in pixels that sharp videos seem to have (0.25 to 0.46 on eight clips), and the
#: least gain of blurred ones.
SHARP, LEAST_GAIN = 0.5, 0.2

_BRIGHTNESS = (0.2126, 0.7152, 0.0722)
_PATCHES_PER_VALUE, _MOST_PATCHES = 40, 60_000


def estimate_noise(y: Tensor, *, brightness: bool = False) -> float:
    r"""
    Standard deviation of the noise in a measurement, by its patches.

    Patches of a video vary in few directions, noise in all: the smallest principal
    variances are those of the noise :footcite:p:`chen2015efficient`. The method is that of
    :class:`deepinv.models.PatchCovarianceNoiseEstimator`, with patches that also
    extend over three frames and one covariance for all frames: frames of a measurement are
    often small, and what is unforeseeable in one frame is not in the next.

    Detail without any redundancy counts as noise, and so does what is in the video already,
    such as grain: below 0.005 expect too much. Where colours have fewer pixels than the
    brightness (4:2:0, as in most video files), their noise is smooth, and patches of all
    three channels vary in few directions with their noise, too: then ask for the noise of
    the brightness alone, which has less to compare, so that below 0.01 fine detail counts.

    :param torch.Tensor y: measurement, shape ``(B, C, T, H, W)``, with white noise of one
        level.
    :param bool brightness: look at the brightness (BT.709) of RGB alone.
    :return: (float) standard deviation, in the unit of ``y``.
    :raises ValueError: if it is no video, or smaller than 4×4 pixels.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino.estimate import estimate_noise
        >>> rng = torch.Generator().manual_seed(0)
        >>> y = 0.5 + 0.02 * torch.randn(1, 3, 8, 48, 64, generator=rng)
        >>> round(estimate_noise(y), 3)
        0.02

    |sep|

    .. footbibliography::
    """
    check_video("y", y)
    if min(y.shape[-2:]) < 4:
        msg = f"`y` must have 4x4 pixels or more; got {tuple(y.shape[-2:])}."
        raise ValueError(msg)
    if brightness and y.shape[1] == 3:
        y = torch.einsum("bcthw,c->bthw", y, y.new_tensor(_BRIGHTNESS))[:, None]
    patches = _patches(y)
    patches = patches.double() - patches.double().mean(dim=0)
    variances = torch.linalg.eigvalsh(patches.T @ patches / len(patches))
    # of the smallest ones as many as are noise: their mean is their median
    for count in range(len(variances), 0, -1):
        part = variances[:count]
        if part.mean() <= part.median():
            break
    return math.sqrt(max(0.0, float(part.mean())))


def _patches(y: Tensor) -> Tensor:
    for frames, side in _PATCHES:
        values = y.shape[1] * frames * side**2
        if y.shape[2] < frames or min(y.shape[-2:]) < side:
            continue
        found = y.unfold(2, frames, 1).unfold(3, side, 1).unfold(4, side, 1)
        count = found.shape[0] * math.prod(found.shape[2:5])
        if count >= _PATCHES_PER_VALUE * values or side == _PATCHES[-1][1]:
            break
    index = torch.arange(count)
    if count > _MOST_PATCHES:
        rng = torch.Generator().manual_seed(0)
        index = torch.randint(count, (_MOST_PATCHES,), generator=rng)
    places = torch.unravel_index(index.to(y.device), found.shape[:1] + found.shape[2:5])
    batch, t, h, w = places
    return found[batch, :, t, h, w].flatten(1)


@dataclass(frozen=True)
class BlurEstimate:
    r"""
    Width of a Gaussian blur.

    :param float width: standard deviation of the kernel, in pixels.
    :param float uncertainty: standard deviation of that estimate, in pixels.
    :param float gain: how much better it explains the spectrum than no blur does, in
        natural logarithms of the likelihood for each frequency.
    """

    width: float
    uncertainty: float
    gain: float


def estimate_blur(y: Tensor, sigma: float | None = None) -> BlurEstimate:
    r"""
    Width of the Gaussian blur in a measurement, by the decay of its spectrum.

    The power of natural images at frequency :math:`f` falls like :math:`f^{-b}`; blur
    takes :math:`e^{-4 \pi^2 s^2 f^2}` of it, and noise adds :math:`\sigma^2`:

    .. math::

        S(f) = a f^{-b} e^{-4 \pi^2 s^2 f^2} + \sigma^2

    Width, amplitude and exponent maximise the likelihood of the periodogram (Whittle's),
    with an exponent of 2.2 ± 0.3 as of natural images. The uncertainty is what the
    curvature of the likelihood at its maximum says, and the spread over quarters of the
    frames if that is larger: it does not know that a scene may be soft by itself.

    :param torch.Tensor y: measurement, shape ``(B, C, T, H, W)``, blurred alone: not
        made smaller after the blur.
    :param float sigma: standard deviation of the noise; by default estimated.
    :return: (BlurEstimate) the width, how sure it is, and how much it explains.
    :raises ValueError: if the frames are smaller than 32×32 pixels.
    """
    check_video("y", y)
    height, width = y.shape[-2:]
    if min(height, width) < 32:
        msg = f"`y` must have 32x32 pixels or more; got {height}x{width}."
        raise ValueError(msg)
    sigma = (
        estimate_noise(y) if sigma is None else check_number("sigma", sigma, least=0)
    )
    frequency, power = _spectrum(y)
    best, curvature, gain = _fit(frequency, power.mean(dim=0), sigma)
    parts = [part for part in power.chunk(4) if len(part)]
    widths = torch.tensor(
        [_fit(frequency, part.mean(dim=0), sigma)[0] for part in parts]
    )
    spread = float(widths.std()) if len(parts) > 1 else 0.0
    return BlurEstimate(best, max(curvature, spread), gain)


def _spectrum(y: Tensor) -> tuple[Tensor, Tensor]:
    """Radial frequencies in cycles per pixel, and the power of every frame at them."""
    height, width = y.shape[-2:]
    window = torch.outer(
        torch.hann_window(height, periodic=False, dtype=torch.float64),
        torch.hann_window(width, periodic=False, dtype=torch.float64),
    ).to(y.device)
    frames = y.double().mean(dim=1).flatten(0, 1)
    frames = (frames - frames.mean(dim=(1, 2), keepdim=True)) * window
    power = torch.fft.rfft2(frames).abs().square() / window.square().sum()
    # the mean over the channels has a third of their noise's variance: given per channel
    vertical = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
    horizontal = torch.fft.rfftfreq(width, dtype=torch.float64)[None]
    radius = (vertical.square() + horizontal.square()).sqrt().to(y.device)
    rings = torch.linspace(3 / min(height, width), 0.5, 40, dtype=torch.float64)
    number = torch.bucketize(radius, rings.to(y.device))
    means = []
    middles = []
    for ring in range(1, len(rings)):
        inside = number == ring
        if bool(inside.any()):
            means.append(power[:, inside].mean(dim=1))
            middles.append(radius[inside].mean())
    return torch.stack(middles), torch.stack(means, dim=1) * y.shape[1]


_EXPONENT, _EXPONENT_SPREAD = 2.2, 0.3


def _fit(frequency: Tensor, power: Tensor, sigma: float) -> tuple[float, float, float]:
    """Width, its standard deviation by the curvature, and the gain on no blur."""
    start = (power[:5] * frequency[:5] ** _EXPONENT).log().mean()

    def loss(values: Tensor) -> Tensor:
        log_a, b, width = values
        model = torch.exp(log_a - b * frequency.log()) * torch.exp(
            -4 * math.pi**2 * width**2 * frequency**2
        )
        model = model + max(sigma**2, 1e-10)
        prior = ((b - _EXPONENT) / _EXPONENT_SPREAD).square() / 2
        return (model.log() + power / model).sum() + prior

    found = []
    for width in (0.0, 0.5, 1.0, 2.0, 4.0):
        values = torch.stack(
            [start, start.new_tensor(_EXPONENT), start.new_tensor(width)]
        ).requires_grad_()
        solver = torch.optim.LBFGS(
            [values], max_iter=100, line_search_fn="strong_wolfe"
        )

        def closure(
            values: Tensor = values, solver: torch.optim.LBFGS = solver
        ) -> Tensor:
            solver.zero_grad()
            value = loss(values)
            value.backward()
            return value

        solver.step(closure)
        best = values.detach()
        found.append((float(loss(best)), best))
    value, values = min(found, key=lambda pair: pair[0])
    plain = found[0][0]  # a width of zero stays there: its gradient is zero
    hessian = torch.autograd.functional.hessian(loss, values)
    inverse = torch.linalg.pinv(hessian)
    error = math.sqrt(max(0.0, float(inverse[2, 2])))
    return abs(float(values[2])), error, (plain - value) / len(frequency)
