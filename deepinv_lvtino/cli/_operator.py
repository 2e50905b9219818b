r"""What is known of an operator."""

from __future__ import annotations

from typing import Any

from deepinv_lvtino.cli._errors import user_errors
from deepinv_lvtino.cli._setup import check_divides, get_problem
from deepinv_lvtino.physics import (
    JPEGCompression,
    SeparableVideoPhysics,
    VideoInpainting,
    make_problem,
)


def print_operator(text: str, size: tuple[int, int, int, int]) -> None:
    """Sizes, condition and data step of an operator on a video."""
    problem = get_problem(text)
    check_divides(problem, size[3], size[2])
    with user_errors():
        physics: Any = make_problem(problem.name, size, alignment="center")
    measured = tuple(getattr(physics, "measurement_size", size))
    print(f"operator: {problem.operator}")
    print(f"  in words            {problem.description}")
    print(f"  video               {_words(size)}")
    print(f"  measurement         {_words(measured)}")
    print(f"  measured            {_share(measured, size)} of the values")
    print(f"  noise               sigma {problem.sigma:g}")
    print(f"  condition           {_condition(physics)}")
    print(f"  data step           {data_step(physics)}")


def data_step(physics: Any) -> str:
    """How the data step of an operator is solved."""
    if isinstance(physics, SeparableVideoPhysics):
        return "closed form: products with the singular vectors along each axis"
    if isinstance(physics, VideoInpainting):
        return "closed form: pixel by pixel"
    if isinstance(physics, JPEGCompression):
        return "iterations of Adam, as published"
    if getattr(physics, "exact_prox", False):
        return "closed form, frame by frame"
    return "conjugate gradients, to 0.1 % of the step"


def _words(size: tuple[int, ...]) -> str:
    _, frames, height, width = size
    return f"{width}x{height}, {frames} frames"


def _share(measured: tuple[int, ...], size: tuple[int, ...]) -> str:
    part = 100.0
    for few, many in zip(measured[1:], size[1:], strict=True):
        part *= few / many
    return f"{part:.3g} %"


def _condition(physics: Any) -> str:
    if not isinstance(physics, SeparableVideoPhysics):
        return "not computed (the operator is not separable)"
    value = float(physics.condition_number())
    return f"{value:.3g} (largest to smallest singular value that is not zero)"
