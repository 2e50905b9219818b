r"""What the solvers know of a total variation."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

#: Values beyond which the parts of a video (channels, frames) are worked on one by one.
LARGE = 2**24


class AbstractVariation(ABC):
    r"""
    Total variation :math:`\sum |K u|` as the solvers see it.

    :math:`K` (:meth:`differences`), its adjoint, the bound of its norm, and what
    :math:`|\cdot|` means. :class:`Variation` makes a prior of it.
    """

    #: Bound of :math:`\|K\|^2`, tight for long axes.
    sqnorm: float

    #: Whether :math:`K` is the difference along time alone, and :math:`|\cdot|` the
    #: absolute value: what the solver ``"admm"`` is made for.
    along_time = False

    #: What the value is smoothed by, in intensity units.
    smoothing = 0.0

    @abstractmethod
    def differences(self, u: Tensor) -> Tensor:
        r"""
        Apply :math:`K`.

        :param torch.Tensor u: video, shape ``(B, C, T, H, W)``.
        :return: (:class:`torch.Tensor`) differences.
        """

    @abstractmethod
    def adjoint(self, p: Tensor) -> Tensor:
        r"""
        Apply :math:`K^{\top}`.

        :param torch.Tensor p: dual variable, shape of :meth:`differences`.
        :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
        """

    @abstractmethod
    def magnitude(self, d: Tensor) -> Tensor:
        r"""
        Size of every difference, whose sum is the total variation.

        :param torch.Tensor d: differences.
        :return: (:class:`torch.Tensor`) sizes, with the batch on the first axis.
        """

    @abstractmethod
    def project(self, p: Tensor, bound: float) -> Tensor:
        r"""
        Project a dual variable on :math:`\{|p| \le \lambda\}`.

        :param torch.Tensor p: dual variable.
        :param float bound: :math:`\lambda`.
        :return: (:class:`torch.Tensor`) the projection.
        """

    def squares(self, d: Tensor) -> Tensor:
        r"""
        Squared size of every difference, unsmoothed; smooth where that is zero too.

        :param torch.Tensor d: differences, their components on the second axis.
        :return: (:class:`torch.Tensor`) squares, without that axis.
        """
        return d.square().sum(1)

    def at(self, video: Tensor) -> AbstractVariation:
        r"""
        The variation to be used on a video; a subclass may follow its motion.

        :param torch.Tensor video: shape ``(B, C, T, H, W)``.
        :return: (:class:`AbstractVariation`) variation whose differences are linear; this
            one.
        """
        return self

    def of_element(self, i: int) -> AbstractVariation:
        r"""
        The variation to be used on one video of a batch.

        :param int i: which one.
        :return: (:class:`AbstractVariation`) the variation; this one unless it differs by
            video.
        """
        return self

    def value(self, x: Tensor) -> Tensor:
        r"""
        Total variation of every video of a batch.

        :param torch.Tensor x: videos, shape ``(B, C, T, H, W)``.
        :return: (:class:`torch.Tensor`) values, shape ``(B,)``.
        """
        variation = self.at(x)
        return variation.magnitude(variation.differences(x)).flatten(1).sum(1)
