r"""The Fréchet video motion distance, through its published package."""

from __future__ import annotations

import io
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from deepinv.loss.metric import Metric
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from deepinv_lvtino.metrics._checks import (
    Clamp,
    check_pair,
    clamped,
    need_reference,
)
from deepinv_lvtino.utils import check_clamp

#: Frames of the windows that motion is tracked in, and their side in pixels.
WINDOW, SIDE = 16, 256


class FVMD(Metric):
    r"""
    Fréchet video motion distance :footcite:p:`liu2024fvmd`, by the package ``fvmd``.

    Points on a grid are followed through every window of 16 successive frames, resized to
    256×256, in both sets of videos; histograms of their velocities and accelerations are
    the features, and the value is the Fréchet distance between Gaussians fitted to them.
    It compares *sets*: one value for all videos together, of shape ``(1,)``. A set of
    few windows (a video of T frames has T - 15) says little, and values of sets of
    different sizes cannot be compared.

    Needs the package (``pip install "deepinv-lvtino[fvmd]"``; its requirements are pinned
    to versions that exist for Python 3.10 and 3.11), a CUDA device, which the package's
    code names, and the weights of its point tracker, which it fetches on first use.

    :param tuple[float, float] clamp: interval that the estimates are projected to before
        rounding to 8 bit, or ``None``.
    :raises ValueError: if ``clamp`` is not an interval.

    |sep|

    .. footbibliography::
    """

    def __init__(self, *, clamp: Clamp = (0.0, 1.0)) -> None:
        check_clamp(clamp)
        super().__init__()
        self.clamp = clamp

    def metric(
        self,
        x_net: Tensor | None = None,
        x: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        r"""
        One value for the whole set.

        :param torch.Tensor x_net: estimates, shape ``(B, 3, T, H, W)``, 16 frames or more,
            two windows or more in all.
        :param torch.Tensor x: references of the same shape.
        :return: (:class:`torch.Tensor`) shape ``(1,)``.
        :raises TypeError: if a video is not a floating-point tensor.
        :raises ValueError: if shapes do not fit, or there is no reference.
        :raises ImportError: if the package ``fvmd`` cannot be imported.
        :raises RuntimeError: if there is no CUDA device, or the weights are missing and
            cannot be fetched.
        """
        x_net = check_pair(x_net, x, least_frames=WINDOW)
        estimate, reference = self.features(x_net, need_reference("FVMD", x))
        return x_net.new_tensor([self.distance(estimate, reference)])

    def features(self, x_net: Tensor, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
        r"""
        Motion histograms of every window of 16 frames.

        Features of many clips can be gathered one clip at a time and compared in the end
        by :meth:`distance`.

        :param torch.Tensor x_net: estimates, shape ``(B, 3, T, H, W)``.
        :param torch.Tensor x: references of the same shape.
        :return: (tuple[numpy.ndarray, numpy.ndarray]) features of the estimates and of the
            references, shape ``(B (T - 15), D)`` each.
        :raises TypeError: if a video is not a floating-point tensor.
        :raises ValueError: if shapes do not fit.
        :raises ImportError: if the package ``fvmd`` cannot be imported.
        :raises RuntimeError: if there is no CUDA device, or the weights are missing and
            cannot be fetched.
        """
        check_pair(x_net, x, least_frames=WINDOW)
        if x_net.shape[1] != 3:
            msg = f"`x_net` must have 3 channels (RGB); got {x_net.shape[1]}."
            raise ValueError(msg)
        package = self.require()
        with (
            tempfile.TemporaryDirectory() as folder,
            redirect_stdout(io.StringIO()),  # a table of the tracker's parameters
        ):
            # as the package's own `fvmd` calls it
            velocity, true_velocity, acceleration, true_acceleration = (
                package.keypoint_tracking.track_keypoints(
                    log_dir=folder,
                    gen_dataset=MotionWindows(clamped(x_net, self.clamp)),
                    gt_dataset=MotionWindows(x),
                    v_stride=1,
                )
            )

        def joined(*fields: np.ndarray) -> np.ndarray:
            histogram = package.extract_motion_features.calc_hist
            rows = [histogram(field).reshape(len(field), -1) for field in fields]
            return np.concatenate(rows, axis=1)

        return (
            joined(velocity, acceleration),
            joined(true_velocity, true_acceleration),
        )

    def distance(self, estimate: np.ndarray, reference: np.ndarray) -> float:
        r"""
        Fréchet distance between two sets of features.

        :param numpy.ndarray estimate: features of the estimates, shape ``(N, D)``.
        :param numpy.ndarray reference: features of the references, shape ``(N, D)``.
        :return: (float) the distance.
        :raises ValueError: if there are fewer than two windows.
        :raises ImportError: if the package ``fvmd`` cannot be imported.
        """
        if min(len(estimate), len(reference)) < 2:
            msg = (
                "`x_net` must hold two windows of 16 frames or more for FVMD; got "
                f"{min(len(estimate), len(reference))}. Give longer or more videos."
            )
            raise ValueError(msg)
        package = _package()
        distance = package.frechet_distance.calculate_fd_given_vectors
        return float(distance(reference, estimate))

    @staticmethod
    def require() -> ModuleType:
        r"""
        The package ``fvmd``, once everything that it needs is known to be there.

        :return: (module) the package.
        :raises ImportError: if it cannot be imported.
        :raises RuntimeError: if there is no CUDA device, or the weights are missing and
            cannot be fetched.
        """
        package = _package()
        if not torch.cuda.is_available():
            msg = (
                "FVMD needs a CUDA device: the code of the package `fvmd` runs on nothing "
                "else. Compute it on another machine, or leave it out."
            )
            raise RuntimeError(msg)
        url = package.keypoint_tracking.PIPS_WEIGHTS
        try:
            torch.hub.load_state_dict_from_url(url, map_location="cpu", progress=False)
        except OSError as error:
            place = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
            msg = (
                "the weights of FVMD's point tracker are missing and cannot be fetched "
                f"({error}). Download {url} elsewhere and store it as {place}."
            )
            raise RuntimeError(msg) from error
        return package


def _package() -> ModuleType:
    try:
        import fvmd
        import fvmd.extract_motion_features
        import fvmd.frechet_distance
        import fvmd.keypoint_tracking
    except ImportError as error:
        msg = (
            f"FVMD needs the package `fvmd`, which cannot be imported ({error}). Install "
            'it with: pip install "deepinv-lvtino[fvmd]" (Python 3.10 or 3.11, to which '
            "its requirements are pinned)."
        )
        raise ImportError(msg) from error
    return fvmd


class MotionWindows(Dataset[Tensor]):
    r"""
    Windows of 16 successive frames, as ``fvmd`` reads them from folders of frames.

    Frames are rounded to 8 bit and resized to 256×256 by Pillow's bilinear filter, the
    aspect ratio not kept.

    :param torch.Tensor videos: shape ``(B, 3, T, H, W)``, values in [0, 1].
    """

    def __init__(self, videos: Tensor) -> None:
        frames = videos.detach().clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
        self.videos = [
            torch.stack([_square(frame) for frame in video])
            for video in frames.permute(0, 2, 3, 4, 1)
        ]
        starts = videos.shape[2] - WINDOW + 1
        self.places = [(b, t) for b in range(len(videos)) for t in range(starts)]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Tensor:
        b, t = self.places[index]
        return self.videos[b][t : t + WINDOW]


def _square(frame: Tensor) -> Tensor:
    image = Image.fromarray(frame.numpy())
    small = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)
