r"""The scores of a benchmark by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from deepinv.loss.metric import LPIPS, PSNR, SSIM, HaarPSI, Metric

from deepinv_lvtino.metrics import (
    FVMD,
    FrameMetric,
    TemporalDifferenceError,
    WarpingError,
)


def _nothing() -> str | None:
    return None


@dataclass(frozen=True)
class Score:
    r"""
    A score of a restored video.

    :param str label: heading of its column, unit included.
    :param bool higher_better: whether larger values are better.
    :param Callable make: from a device to the metric of videos.
    :param Callable missing: why the score cannot be computed here, or ``None``.
    :param int digits: significant digits in tables for people.
    :param bool ranked: whether the best value is the best video: the warping error has
        its goal at that of the clean clip, not at zero.
    :param bool of_sets: whether the score compares sets of videos (FVMD) rather than one
        with one.
    """

    label: str
    higher_better: bool
    make: Callable[[torch.device], Metric]
    missing: Callable[[], str | None] = _nothing
    digits: int = 3
    ranked: bool = True
    of_sets: bool = False


def _lpips_file() -> tuple[str, Path]:
    from torchvision.models import AlexNet_Weights

    url: str = AlexNet_Weights.DEFAULT.url
    return url, Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _missing_lpips() -> str | None:
    if find_spec("torchvision") is None:
        return "torchvision is not installed"
    if not _lpips_file()[1].is_file():
        return "its weights are not on this machine; ask for it by name to fetch them"
    return None


def _lpips(device: torch.device) -> FrameMetric:
    try:
        return FrameMetric(LPIPS(device=device))
    except OSError as error:
        url, place = _lpips_file()
        msg = (
            f"the weights of LPIPS cannot be fetched ({error}). Download {url} elsewhere "
            f"and store it as {place}, or leave this score out."
        )
        raise RuntimeError(msg) from error


def _missing_flow() -> str | None:
    if find_spec("cv2") is None:
        return 'OpenCV is not installed: pip install "deepinv-lvtino[flow]"'
    return None


def _fvmd(device: torch.device) -> FVMD:
    FVMD.require()
    return FVMD()


def heading(name: str) -> str:
    r"""
    Heading of a column or a panel: label, and the better direction.

    :param str name: key of :data:`SCORES`.
    :return: (str) the heading.
    """
    score = SCORES[name]
    if not score.ranked:
        return score.label
    return f"{score.label} {'↑' if score.higher_better else '↓'}"


#: The scores by name. HaarPSI has the parameters for natural images.
SCORES: dict[str, Score] = {
    "psnr": Score("PSNR (dB)", True, lambda device: FrameMetric(PSNR()), digits=4),
    "ssim": Score("SSIM", True, lambda device: FrameMetric(SSIM())),
    "haarpsi": Score(
        "HaarPSI", True, lambda device: FrameMetric(HaarPSI(C=30.0, alpha=4.2))
    ),
    "lpips": Score("LPIPS", False, _lpips, _missing_lpips),
    "warping_error": Score(
        "warping error",
        False,
        lambda device: WarpingError(),
        _missing_flow,
        ranked=False,
    ),
    "temporal_difference_error": Score(
        "temporal difference error", False, lambda device: TemporalDifferenceError()
    ),
    "fvmd": Score(
        "FVMD",
        False,
        _fvmd,
        lambda: "it takes long, and is computed if asked for by name",
        digits=4,
        of_sets=True,
    ),
}


def choose_scores(
    names: Sequence[str] | None, say: Callable[[str], None] = print
) -> list[str]:
    r"""
    The scores asked for, or all that can be computed here.

    :param Sequence[str] names: keys of :data:`SCORES`; by default all but those that
        something is missing for, which is said.
    :param Callable say: called with a sentence about each score that is left out.
    :return: (list[str]) names, in the order of :data:`SCORES`.
    :raises ValueError: if a name is unknown, or there is none.
    """
    if names is None:
        chosen = []
        for name, score in SCORES.items():
            reason = score.missing()
            if reason is None:
                chosen.append(name)
            else:
                say(f"left out: {score.label}: {reason}")
        return chosen
    unknown = [name for name in names if name not in SCORES]
    if unknown or not names:
        msg = (
            f"`scores` must be among {', '.join(map(repr, SCORES))}; got "
            f"{', '.join(map(repr, unknown)) or 'none'}."
        )
        raise ValueError(msg)
    return [name for name in SCORES if name in names]


def make_metrics(
    names: Sequence[str], device: torch.device | str = "cpu"
) -> dict[str, Metric]:
    r"""
    Metrics of videos for some scores.

    :param Sequence[str] names: keys of :data:`SCORES`.
    :param torch.device device: device of what they compute with.
    :return: (dict[str, deepinv.loss.metric.Metric]) the metrics by name.
    :raises ImportError: if a package is missing for one of them.
    :raises RuntimeError: if weights are missing and cannot be fetched, or a device is.
    """
    return {name: SCORES[name].make(torch.device(device)) for name in names}
