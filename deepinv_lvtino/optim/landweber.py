r"""Data step for operators without a proximal step."""

from __future__ import annotations

from dataclasses import dataclass

from deepinv.optim import DataFidelity
from deepinv.physics import Physics
from torch import Tensor

from deepinv_lvtino.optim.data_steps import DataStep
from deepinv_lvtino.utils import check_integer, check_positive


@dataclass(frozen=True)
class LandweberStep(DataStep):
    r"""
    A few gradient steps on :math:`\frac12 \|A(u) - y\|^2`, for any operator.

    .. math::

        u_{j+1} = u_j - \gamma \, J_A(u_j)^{\top} \left( A(u_j) - y \right),
        \qquad u_0 = z

    with the Jacobian that the physics declares (``physics.A_vjp``; the identity for
    :class:`deepinv_lvtino.physics.JPEGCompression`). There is no quadratic term, and the
    early stop stands in for it. The noise that the physics or the data fidelity declare
    plays no part.

    :math:`\gamma` does not depend on the pixel scale: with :math:`u' = 2u - 1` and
    measurements on the same scale, residual and iterate are both doubled and the
    Jacobian is unchanged.

    :param int num_steps: number of steps.
    :param float gamma: :math:`\gamma`; for a linear operator the iteration is stable below
        :math:`2 / \|A\|^2`.
    :raises ValueError: if an argument is not positive.
    """

    num_steps: int = 10
    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_positive("num_steps", self.num_steps)
        check_integer("num_steps", self.num_steps)
        check_positive("gamma", self.gamma)

    def __call__(
        self, z: Tensor, y: Tensor, physics: Physics, data_fidelity: DataFidelity
    ) -> Tensor:
        u = z
        for _ in range(self.num_steps):
            u = u - self.gamma * physics.A_vjp(u, physics.A(u) - y)
        return u
