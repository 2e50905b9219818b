r"""Priors of the sampler: the stochastic autoencoder, and a product of two of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from deepinv.optim import Prior
from torch import Tensor

from deepinv_lvtino.models import ConsistencyModel


class SAEPrior(Prior):
    r"""
    Prior whose proximal step is the stochastic autoencoder of a consistency model.

    .. math::

        \operatorname{prox}(x) \leftarrow \operatorname{SAE}(x, t)
        = D\left(f\left(a(t) E(x) + s(t) \varepsilon, t\right)\right)

    It is random, as a Langevin step is, and is not the minimiser of anything. In
    DeepInverse's algorithms the prior's parameter (``g_param`` or ``sigma_denoiser``) is
    the time :math:`t`.

    :param ConsistencyModel model: video or image model.
    :raises TypeError: if ``model`` is not a consistency model.
    """

    def __init__(self, model: ConsistencyModel) -> None:
        if not isinstance(model, ConsistencyModel):
            msg = (
                "`model` must be a deepinv_lvtino.models.ConsistencyModel; got "
                f"{type(model).__name__}."
            )
            raise TypeError(msg)
        super().__init__()
        self.model = model

    def prox(
        self,
        x: Tensor,
        time: float,
        *args: Any,
        noise: Tensor | Callable[[Tensor], Tensor] | None = None,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> Tensor:
        r"""
        One stochastic autoencoding.

        :param torch.Tensor x: video, shape ``(B, C, T, H, W)``.
        :param float time: time :math:`t`, in the unit of the model's schedule.
        :param torch.Tensor, Callable noise: see
            :meth:`deepinv_lvtino.models.ConsistencyModel.sae`.
        :param torch.Generator generator: generator for the default noise.
        :return: (:class:`torch.Tensor`) video, shape of ``x``.
        """
        return self.model.sae(x, time, noise=noise, generator=generator)


class ProductOfExperts(Prior):
    r"""
    Product of a video prior and a frame-wise image prior.

    .. math::

        p(x) \propto p_V(x)^{\eta} \, p_I(x)^{1 - \eta}

    Its proximal step is not available; :class:`LVTINOIteration` takes those of the
    experts, ``video`` and ``image``, in turn.

    :param ConsistencyModel video: video model, or ``None`` (then :math:`\eta` is 0).
    :param ConsistencyModel image: image model, or ``None`` (then :math:`\eta` is 1).
    :raises TypeError: if neither is given, or one is not a consistency model.
    """

    def __init__(
        self, video: ConsistencyModel | None, image: ConsistencyModel | None
    ) -> None:
        super().__init__()
        if video is None and image is None:
            msg = "`video` and `image` are both None; give at least one model."
            raise TypeError(msg)
        self.video = None if video is None else SAEPrior(video)
        self.image = None if image is None else SAEPrior(image)

    def expert(self, name: str) -> SAEPrior:
        r"""
        One of the experts.

        :param str name: ``'video'`` or ``'image'``.
        :return: (:class:`SAEPrior`) the expert.
        :raises ValueError: if there is none of that name.
        """
        found = {"video": self.video, "image": self.image}.get(name)
        if found is None:
            msg = f"`name` must be that of an expert of this product; got {name!r}."
            raise ValueError(msg)
        return found

    def prox(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        r"""
        Not available for the product.

        :param torch.Tensor x: video.
        :raises NotImplementedError: always; use the experts' proximal steps.
        """
        msg = (
            "The proximal step of a product of experts is not known; use those of its "
            "`video` and `image` experts, as LVTINOIteration does."
        )
        raise NotImplementedError(msg)
