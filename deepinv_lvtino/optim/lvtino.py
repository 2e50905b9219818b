r"""The LVTINO reconstructor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from deepinv.loss.metric import Metric
from deepinv.optim import BaseOptim, DataFidelity
from deepinv.physics import Physics
from deepinv.sampling.utils import Welford
from torch import Tensor

from deepinv_lvtino.models import (
    ConsistencyModel,
    TinyConsistencyModel,
    tiny_image,
    tiny_video,
)
from deepinv_lvtino.optim._measured import check_measurement, check_start
from deepinv_lvtino.optim.calibrated import check_eta
from deepinv_lvtino.optim.data_fidelity import GaussianLikelihood
from deepinv_lvtino.optim.iteration import Callback, LVTINOIteration
from deepinv_lvtino.optim.noise import NoiseSource, Seed, check_seeds, noise_source_of
from deepinv_lvtino.optim.priors import ProductOfExperts
from deepinv_lvtino.optim.schedule import Schedule
from deepinv_lvtino.optim.starts import STARTS, Init, named_start
from deepinv_lvtino.optim.sweep import SweepPlan, with_variation
from deepinv_lvtino.optim.tv.variation import Variation
from deepinv_lvtino.utils import check_clamp, check_integer


class LVTINO(BaseOptim):
    r"""
    Zero-shot posterior sampler for video, with consistency models as priors.

    Draws one sample of

    .. math::

        p(x | y) \propto p(y | x) \, p_V(x)^{\eta} \, p_I(x)^{1-\eta} \,
        e^{-\lambda \mathrm{TV}(x)}

    for a measurement :math:`y = A x + n` with known :math:`A`, a video prior :math:`p_V`
    and a frame-wise image prior :math:`p_I` :footcite:p:`spagnoletti2025lvtino`. Each sweep
    (:class:`LVTINOIteration`) takes one stochastic autoencoding per prior, each followed by
    a data step (in closed form for the operators of this package, else by conjugate
    gradients, to a known error); no gradient of a network is taken. With the video prior
    alone (``eta=1`` or no image model) this is LVTINO-V, with the image prior alone
    (``eta=0`` or no video model) frame-wise LATINO.

    It is a DeepInverse reconstructor: ``x = LVTINO()(y, physics)``. A *sample* lies below
    the posterior *mean* in PSNR by its nature (by 3 dB if the priors are right);
    :meth:`sample` gives the mean.

    :param ConsistencyModel video_model: video prior.
    :param ConsistencyModel image_model: image prior. With neither, the embedded defaults
        (:func:`deepinv_lvtino.models.tiny_video` and
        :func:`deepinv_lvtino.models.tiny_image`).
    :param Schedule, CalibratedSchedule schedule: times and steps; with the embedded models
        ``Schedule.embedded()`` by default (:meth:`Schedule.embedded` has a setting for
        each problem), else :meth:`Schedule.calibrated`.
    :param float eta: weight of the video prior, in [0, 1]; the schedule's by default. It
        counts only where both priors are given.
    :param deepinv.optim.DataFidelity, list data_fidelity: data fidelity, or one per sweep;
        by default the Gaussian likelihood with the noise that the physics declares.
    :param str, Variation tv: total variation in the first data step of every sweep,
        ``'temporal'``, ``'spacetime'``, ``'motion'`` (:class:`MotionVariation`: along the
        motion of the video, estimated anew in every sweep) or a :class:`Variation`; none
        by default.
    :param float, Sequence[float] lambda_reg: weight :math:`\lambda` of the total variation,
        per unit of intensity, one number or one per sweep.
    :param dict tv_options: ``solver``, ``tol`` and ``max_iter`` of :func:`prox_l2_tv`;
        a tolerance of 1e-3 by default.
    :param bool final_data_step: whether the last sweep ends with its data step
        (Algorithm 1) or returns the model's output before it (the released code).
    :param str, torch.Tensor, Callable init: start of the run: ``'pinv'``
        (:func:`pseudo_inverse`; singular values below the noise level are left out),
        ``'prox'`` (:func:`proximal_start`, from black with weight 200), ``'tv'``
        (:func:`tv_start`), ``'motion'`` (:func:`motion_start`, total variation along the
        motion), ``'interpolate'`` (:func:`interpolate`, motion-compensated), a video, or a
        function ``init(y, physics)`` as in DeepInverse; the schedule's by default:
        ``'motion'`` for the embedded models, else ``'pinv'`` for a calibrated one.
    :param Callable noise_source: ``(label, like)`` to standard normal noise, for every
        draw (``"k0/video"``, ``"k0/image"``, …), so that a run can be replayed exactly.
    :param int, Sequence[int] seed: seed of every call, or one per element of the batch; by
        default PyTorch's global generator is used. Each element of a batch draws numbers of
        its own (:func:`element_seed`): the first those of a run alone with this seed.
    :param tuple[float, float] clamp: interval that the start and intermediate videos are
        projected to; the schedule's by default (none for a calibrated one, and the
        published ones have another for the start).
    :param dict custom_metrics: DeepInverse metrics to follow over the sweeps.
    :param Callable get_output: ``{"est": (x,)}`` to output; the video by default.
    :param bool verbose: print what DeepInverse's loop prints.
    :param bool show_progress_bar: show a progress bar over the sweeps.
    :raises TypeError: if a model is not a consistency model.
    :raises ValueError: if ``eta`` is out of range or cannot be followed by ``schedule``, a
        name in ``init`` is unknown, or both ``seed`` and ``noise_source`` are given.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino import LVTINO, make_problem
        >>> x = torch.rand(1, 3, 8, 32, 32)
        >>> physics = make_problem("A", img_size=(3, 8, 32, 32))
        >>> y = physics(x)
        >>> solver = LVTINO(seed=0)
        >>> solver(y, physics).shape
        torch.Size([1, 3, 8, 32, 32])
        >>> mean, variance = solver.sample(y, physics, num_samples=2)

    |sep|

    .. footbibliography::
    """

    def __init__(
        self,
        video_model: ConsistencyModel | None = None,
        image_model: ConsistencyModel | None = None,
        *,
        schedule: SweepPlan | None = None,
        eta: float | None = None,
        data_fidelity: DataFidelity | Sequence[DataFidelity] | None = None,
        tv: str | Variation | None = None,
        lambda_reg: float | Sequence[float] = 10.0,
        tv_options: dict[str, Any] | None = None,
        final_data_step: bool = True,
        init: Init | None = None,
        noise_source: NoiseSource | None = None,
        seed: Seed | None = None,
        clamp: tuple[float, float] | None = None,
        custom_metrics: dict[str, Metric] | None = None,
        get_output: Callable[[dict[str, Any]], Tensor] = lambda X: X["est"][0],
        verbose: bool = False,
        show_progress_bar: bool = False,
    ) -> None:
        check_eta(eta)
        check_clamp(clamp)
        if video_model is None and image_model is None:
            video_model, image_model = tiny_video(), tiny_image()
        if schedule is None:
            schedule = _default_schedule(video_model, image_model)
        if not isinstance(schedule, SweepPlan):
            msg = (
                "`schedule` must be a Schedule, such as Schedule.published('A'); got "
                f"{schedule!r}."
            )
            raise TypeError(msg)
        eta = schedule.eta if eta is None else eta
        video_model, image_model = _weighted(video_model, image_model, eta)
        prior = ProductOfExperts(video_model, image_model)
        both = video_model is not None and image_model is not None
        sweeps = schedule.resolve(video_model, image_model, eta if both else None)
        if isinstance(data_fidelity, Sequence) and len(data_fidelity) not in (
            1,
            len(sweeps),
        ):
            msg = (
                f"`data_fidelity` must be one or one per sweep ({len(sweeps)}); got "
                f"{len(data_fidelity)}."
            )
            raise ValueError(msg)
        if tv is not None:
            sweeps = with_variation(
                sweeps, tv, lambda_reg, {"tol": 1e-3} | (tv_options or {})
            )
        if not final_data_step:
            sweeps = (*sweeps[:-1], sweeps[-1].with_data_step(-1, None))
        start_clamp = clamp
        if clamp is None:
            clamp, start_clamp = schedule.clamp, schedule.init_clamp or schedule.clamp
        super().__init__(
            LVTINOIteration(),
            params_algo={
                "sweep": list(sweeps),
                "index": list(range(len(sweeps))),
                "clamp": [clamp],
                "init_clamp": [start_clamp],
            },
            data_fidelity=(
                GaussianLikelihood() if data_fidelity is None else data_fidelity
            ),
            prior=prior,
            max_iter=len(sweeps),
            early_stop=False,
            custom_metrics=custom_metrics,
            custom_init=named_start(schedule.init if init is None else init),
            get_output=get_output,
            verbose=verbose or show_progress_bar,
            show_progress_bar=show_progress_bar,
        )
        # BaseOptim keeps priors in a list; as attributes the models follow `.to()` and
        # are part of the state dict.
        self.video_model = video_model
        self.image_model = image_model
        self.schedule = schedule
        noise_source_of(seed, noise_source)  # refuses both
        self.noise_source = noise_source
        self.seed = None if seed is None else check_seeds("seed", seed)
        self.eval()

    @property
    def num_evaluations(self) -> int:
        r"""Network evaluations of one call (published: 9, or 5 for LVTINO-V)."""
        return sum(len(sweep.halves) for sweep in self.init_params_algo["sweep"])

    def forward(
        self,
        y: Tensor,
        physics: Physics,
        init: Init | dict[str, Any] | tuple[Tensor, ...] | None = None,
        x_gt: Tensor | None = None,
        compute_metrics: bool = False,
        *,
        seed: Seed | None = None,
        noise_source: NoiseSource | None = None,
        first_sweep: int = 0,
        callback: Callback | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Any]]:
        r"""
        Draw one posterior sample.

        :param torch.Tensor y: measurement, finite floating-point values, with a batch axis.
        :param deepinv.physics.Physics physics: measurement operator on videos
            ``(B, C, T, H, W)`` with values in [0, 1].
        :param init: start of this run, see the class; DeepInverse's tuples and dictionaries
            are accepted too.
        :param torch.Tensor x_gt: true video, for the PSNR over the sweeps.
        :param bool compute_metrics: also return the metrics of every sweep.
        :param int, Sequence[int] seed: seed of this run, or one per element of the batch;
            the solver's by default. A batch with seeds ``[3, 8]`` is what two runs with
            these seeds are.
        :param Callable noise_source: noise of this run; the solver's by default.
        :param int first_sweep: go on with this sweep, counted from 0, from the iterate
            :math:`x_k` given as ``init``, which is taken as it is (a start is projected to
            the interval that the schedule has for it). Its noise has the same labels as
            in a whole run; metrics repeat the first value for the sweeps passed over.
        :param Callable callback: ``(label, x)``, called with the start (``"start"``) and,
            in each sweep :math:`k`, with :math:`x_{k+1/4}` (``"k0/video/prior"``),
            :math:`x_{k+1/2}` (``"k0/video/data"``), :math:`x_{k+3/4}`
            (``"k0/image/prior"``) and :math:`x_{k+1}` (``"k0/image/data"``), those that
            the sweep has. The video is not a copy: do not change it in place.
        :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``, not projected to
            [0, 1]; with ``compute_metrics`` also the dictionary of metrics.
        :raises TypeError: if ``y`` is not a floating-point tensor of the operator's dtype.
        :raises ValueError: if ``y`` does not fit the operator (shape, device), holds NaN
            or infinity, is on a scale that no video in [0, 1] gives (0 to 255), or the
            noise level is not known; or ``first_sweep`` is not the number of a sweep, or
            has no iterate to go on from.
        :raises NotImplementedError: if the operator has no proximal step, and a data step
            of the schedule is one.
        """
        self._check_call(y, physics)
        if isinstance(init, dict):
            init = dict(init)  # DeepInverse writes the cost into it
        if first_sweep != 0:
            init = self._resumed(init, first_sweep)
        return super().forward(
            y,
            physics,
            init=named_start(init) if isinstance(init, str) else init,
            x_gt=x_gt,
            compute_metrics=compute_metrics,
            noise_source=self._noise(seed, noise_source),
            callback=callback,
        )

    def sample(
        self,
        y: Tensor,
        physics: Physics,
        num_samples: int = 8,
        *,
        init: Init | None = None,
        seed: Seed | None = None,
        noise_source: NoiseSource | None = None,
        callback: Callable[[int, Tensor], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        r"""
        Mean and variance of independent posterior samples, in constant memory.

        The counterpart of :meth:`deepinv.sampling.BaseSampling.sample`, with its running
        sums (Welford); each sample is one run of the solver.

        :param torch.Tensor y: measurement.
        :param deepinv.physics.Physics physics: measurement operator.
        :param int num_samples: number of samples.
        :param init: start of every run, see the class.
        :param int, Sequence[int] seed: seed of the whole series, or one per element of the
            batch; the solver's by default.
        :param Callable noise_source: noise of the whole series, labels ``"s0/k0/video"``,
            …, ``"s1/k0/video"``, …; the solver's by default.
        :param Callable callback: called with the number and the video of every sample (for
            the videos on the way to one, see :meth:`forward`).
        :return: (tuple[torch.Tensor, torch.Tensor]) mean and unbiased variance, shape
            ``(B, C, T, H, W)`` each; the variance of one sample is zero.
        :raises ValueError: if ``num_samples`` is not positive, or as in :meth:`forward`.
        """
        if check_integer("num_samples", num_samples) < 1:
            msg = f"`num_samples` must be 1 or more; got {num_samples}."
            raise ValueError(msg)
        noise = self._noise(seed, noise_source)
        start: Any = self.custom_init if init is None else named_start(init)
        if any(start is named for named in STARTS.values()):
            self._check_call(y, physics)
            with torch.no_grad():  # the same for every run: computed once
                start = start(y, physics)
        statistics: Welford | None = None
        for i in range(num_samples):
            x = self(
                y,
                physics,
                init=start,
                noise_source=lambda label, like, i=i: noise(f"s{i}/{label}", like),
            )
            if statistics is None:
                statistics = Welford(x)
            else:
                statistics.update(x)
            if callback is not None:
                callback(i, x)
        return statistics.mean(), statistics.var()  # type: ignore[union-attr]

    def start(self, y: Tensor, physics: Physics) -> Tensor:
        r"""
        The video that a run begins with, before it is projected to its interval.

        :param torch.Tensor y: measurement.
        :param deepinv.physics.Physics physics: measurement operator.
        :return: (:class:`torch.Tensor`) video ``(B, C, T, H, W)``, a copy of one's own.
        """
        start: Any = self.custom_init
        return (start(y, physics) if callable(start) else start).clone()

    def init_iterate_fn(
        self, y: Tensor, physics: Physics, init: Any = None, cost_fn: Any = None
    ) -> dict[str, Any]:
        r"""
        First iterate, as in :class:`deepinv.optim.BaseOptim`, checked to be a video.

        :param torch.Tensor y: measurement.
        :param deepinv.physics.Physics physics: measurement operator.
        :param init: start, see the class.
        :param cost_fn: not used: the sampler has no cost.
        :return: (dict) the iterate ``{"est": (x,), "cost": None}``.
        :raises ValueError: if it is not a batch of videos for this measurement.
        """
        X = super().init_iterate_fn(y, physics, init=init, cost_fn=cost_fn)
        x = X["est"][0]
        check_start(x, y, physics)
        clamp = self.update_params_fn(0)["init_clamp"]
        if clamp is not None and "first_sweep" not in X:
            X["est"] = (x.clamp(*clamp), *X["est"][1:])
        return X

    def _resumed(self, init: Any, first_sweep: int) -> dict[str, Any]:
        """The iterate that a run goes on from, with the number of its sweep."""
        count = self.max_iter
        if not hasattr(first_sweep, "__index__") or not 0 < first_sweep < count:
            msg = (
                f"`first_sweep` must be a whole number from 0 to {count - 1}, as there are "
                f"{count} sweeps; got {first_sweep}."
            )
            raise ValueError(msg)
        if isinstance(init, Tensor):
            init = (init,)
        if not isinstance(init, (dict, tuple)):
            msg = (
                f"`first_sweep`={first_sweep} goes on from an iterate: give that video as "
                f"`init` of the call; got {init!r}."
            )
            raise ValueError(msg)
        X = init if isinstance(init, dict) else {"est": init}
        return X | {"first_sweep": int(first_sweep)}

    def _noise(
        self, seed: Seed | None, noise_source: NoiseSource | None
    ) -> NoiseSource:
        """Noise of one call: what the call says, else what the solver says."""
        if seed is None and noise_source is None:
            seed, noise_source = self.seed, self.noise_source
        return noise_source_of(seed, noise_source)

    def _check_call(self, y: Tensor, physics: Physics) -> None:
        """Refuse what no run can use, before anything is computed."""
        if not isinstance(physics, Physics):
            msg = (
                "`physics` must be a deepinv.physics.Physics; got "
                f"{type(physics).__name__}."
            )
            raise TypeError(msg)
        for k, sweep in enumerate(self.init_params_algo["sweep"]):
            for half in sweep.halves:
                if half.data_step is not None:
                    half.data_step.check(physics, self.update_data_fidelity_fn(k))
        models = {"video_model": self.video_model, "image_model": self.image_model}
        check_measurement(y, physics, self.data_fidelity[0], models)


def _weighted(
    video: ConsistencyModel | None, image: ConsistencyModel | None, eta: float | None
) -> tuple[ConsistencyModel | None, ConsistencyModel | None]:
    """The models without one of weight zero."""
    for name, model, unused in (("image", image, 0), ("video", video, 1)):
        if model is None and eta == unused:
            msg = (
                f"`eta`={eta} leaves the {name} prior alone, but `{name}_model` is None. "
                "Give that model, or another `eta`."
            )
            raise ValueError(msg)
    return (None if eta == 0 else video), (None if eta == 1 else image)


def _default_schedule(*models: ConsistencyModel | None) -> SweepPlan:
    """The tuned one for the embedded models."""
    given = [model for model in models if model is not None]
    if all(isinstance(model, TinyConsistencyModel) for model in given):
        return Schedule.embedded()
    return Schedule.calibrated()
