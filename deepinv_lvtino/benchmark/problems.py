r"""The problems of a benchmark: named ones, described ones, and physics of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from deepinv.physics import LinearPhysics, Physics
from torch import Tensor

from deepinv_lvtino.benchmark._identity import Describer, Identity, tensor_digest
from deepinv_lvtino.physics import PROBLEMS, find_problem, make_problem
from deepinv_lvtino.physics._terms import Size
from deepinv_lvtino.physics.problems import Problem

Factory = Callable[[Size, torch.Generator], Physics]

#: Longest label of a problem.
_LONGEST_LABEL = 500


@dataclass(frozen=True)
class OwnProblem:
    r"""
    Physics of one's own at one size, as solvers see it.

    :param str name: its label.
    :param bool linear: whether the operator is linear.
    :param float sigma: standard deviation of the noise, where the physics says one.
    :param str description: one line for people.
    """

    name: str
    linear: bool
    sigma: float | None
    description: str


@dataclass(frozen=True)
class Case:
    r"""
    A problem of a benchmark.

    :param str label: name in the table, unique in a benchmark.
    :param Problem problem: the named or described problem, or ``None``.
    :param Callable factory: from the size ``(C, T, H, W)`` and a generator to a physics,
        where there is no such problem.
    """

    label: str
    problem: Problem | None = None
    factory: Factory | None = None
    _probed: dict[Any, tuple[OwnProblem, str]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def at(self, size: Size, device: torch.device) -> Problem | OwnProblem:
        r"""
        The problem as solvers see it.

        :param tuple[int, int, int, int] size: size of the videos.
        :param torch.device device: device.
        :return: (Problem | OwnProblem) the problem.
        """
        return self.problem or self._probe(size, device)[0]

    def build(
        self,
        size: Size,
        sigma: float | None,
        alignment: str,
        seed: int,
        device: torch.device,
    ) -> Physics:
        r"""
        The operator.

        :param tuple[int, int, int, int] size: size of the videos.
        :param float sigma: standard deviation of the noise; one's own physics has its own.
        :param str alignment: pixel grid of the downsampling.
        :param int seed: seed of the noise, and of what one's own physics draws.
        :param torch.device device: device.
        :return: (deepinv.physics.Physics) the operator.
        :raises TypeError: if the factory returns something else.
        """
        rng = torch.Generator(device).manual_seed(seed)
        if self.problem is not None:
            return make_problem(
                self.problem.name,
                size,
                sigma,
                alignment=alignment,
                rng=rng,
                device=device,
            )
        assert self.factory is not None
        physics = self.factory(size, rng)
        if not isinstance(physics, Physics):
            msg = (
                f"`problems[{self.label!r}]` must return a physics of DeepInverse "
                "(deepinv.physics.Physics) when called with (img_size, rng); got "
                f"{type(physics).__name__}. Return the operator itself."
            )
            raise TypeError(msg)
        return physics.to(device)

    def identity(
        self, size: Size, device: torch.device, describer: Describer
    ) -> Identity:
        r"""
        What the operator is.

        :param tuple[int, int, int, int] size: size of the videos.
        :param torch.device device: device.
        :param Describer describer: describes the factory.
        :return: (dict[str, str]) the description, with the hashes of its files; of a
            factory its code and a hash of what its operator measures of a fixed video.
        """
        if self.problem is not None:
            operator = self.problem.operator
            found = {"operator": str(operator)}
            for name, digest in operator.hashes().items():
                found[f"operator.files[{name}]"] = digest
            return found
        found = describer.describe("operator", self.factory)
        return found | {"operator.output": self._probe(size, device)[1]}

    def _probe(self, size: Size, device: torch.device) -> tuple[OwnProblem, str]:
        """Kind of one's own physics, and a hash of its output on a random video."""
        key = tuple(size), str(device)
        if key not in self._probed:
            devices = [device] if device.type == "cuda" else []
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(0)
                physics = self.build(size, None, "deepinv", 0, device)
                rng = torch.Generator().manual_seed(0)
                x = torch.rand((1, *size), generator=rng).to(device)
                with torch.no_grad():
                    try:
                        y = physics(x)
                    except (RuntimeError, ValueError, IndexError) as error:
                        raise ValueError(self._no_video(size, error)) from error
            if not isinstance(y, Tensor):
                raise ValueError(self._no_video(size, f"it returns {type(y).__name__}"))
            kind = type(physics).__name__
            own = OwnProblem(
                self.label, isinstance(physics, LinearPhysics), _noise(physics), kind
            )
            self._probed[key] = own, tensor_digest(y)
        return self._probed[key]

    def _no_video(self, size: Size, why: Any) -> str:
        return (
            f"`problems[{self.label!r}]` must return a physics that measures videos "
            f"(B, C, T, H, W), here {(1, *size)}; {why}. A physics of images becomes "
            "one of videos by `deepinv_lvtino.physics.FramewiseLinearPhysics`."
        )


def _noise(physics: Physics) -> float | None:
    """Standard deviation of Gaussian noise, where there is one for all."""
    sigma = getattr(getattr(physics, "noise_model", None), "sigma", None)
    if isinstance(sigma, Tensor):
        return float(sigma) if sigma.numel() == 1 else None
    return float(sigma) if isinstance(sigma, (int, float)) else None


def as_cases(
    problems: Sequence[str] | Mapping[str, str | Factory], eta: float | None
) -> dict[str, Case]:
    r"""
    Names, descriptions and factories to problems by label.

    :param Sequence[str] | dict problems: names or descriptions
        (:func:`deepinv_lvtino.physics.find_problem`); or a dictionary from labels to these
        or to factories ``(img_size, rng)`` to a physics.
    :param float eta: weight of the video prior.
    :return: (dict[str, Case]) the problems.
    :raises ValueError: if a name is unknown, there is none, or ``eta`` does not fit.
    :raises TypeError: if one is none of these.
    """
    if isinstance(problems, str):
        problems = [problems]
    labelled = isinstance(problems, Mapping)
    items = list(problems.items()) if isinstance(problems, Mapping) else []
    if not isinstance(problems, Mapping):
        items = [(name, name) for name in problems]
    if not items:
        raise ValueError(_among("none"))
    found: dict[str, Case] = {}
    for label, value in items:
        if labelled and not (
            isinstance(label, str) and 0 < len(label) <= _LONGEST_LABEL
        ):
            msg = (
                "`problems` must have labels, the keys of the dictionary, of 1 to "
                f"{_LONGEST_LABEL} characters; got {label!r:.60}. Rename it."
            )
            raise ValueError(msg)
        if isinstance(value, str):
            try:
                problem = find_problem(value)
            except ValueError as error:
                if "=" in value:
                    raise
                raise ValueError(_among(repr(value))) from error
            case = Case(label if labelled else problem.name, problem)
        elif labelled and callable(value):
            case = Case(label, factory=value)
        elif labelled:
            msg = (
                f"`problems[{label!r}]` must be a name, a description, or a function "
                f"(img_size, rng) to a physics; got {type(value).__name__}."
            )
            raise TypeError(msg)
        else:
            raise ValueError(_among(repr(value)))
        found[case.label] = case
    fixed = [label for label, c in found.items() if c.problem and not c.problem.linear]
    if eta not in (None, 0, 1) and fixed:
        msg = (
            f"`eta` must be 0 or 1 for problem {fixed[0]}, which is not linear, so that "
            f"its schedule is the published one; got {eta}. Leave one of them out."
        )
        raise ValueError(msg)
    return found


def _among(got: str) -> str:
    return (
        f"`problems` must be among {', '.join(map(repr, PROBLEMS))}, descriptions such as "
        "'temporal-mean=2, downscale=2', or a dictionary with functions (img_size, rng) to "
        f"your own physics; got {got}."
    )
