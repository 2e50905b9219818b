r"""Cells by what produced them, described and own problems, and what a call costs."""

from __future__ import annotations

import csv
import json

import deepinv
import pytest
import torch
from deepinv.models import Denoiser, Reconstructor
from deepinv.physics import GaussianNoise, LinearPhysics, Physics

from deepinv_lvtino import LVTINO, Schedule
from deepinv_lvtino.benchmark import Benchmark, Models, Solver, _identity
from deepinv_lvtino.benchmark import results as results_module
from deepinv_lvtino.benchmark._cost import Cost, count_evaluations
from deepinv_lvtino.benchmark._identity import (
    Describer,
    changed_by_use,
    difference,
    settled,
)
from deepinv_lvtino.cli import main
from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.models import tiny_image, tiny_video
from deepinv_lvtino.optim import ADMMTV
from deepinv_lvtino.physics import FramewiseLinearPhysics, TemporalPooling

FRAMES, HEIGHT, WIDTH = 5, 32, 48


def adjoint(y, physics):
    return physics.A_adjoint(y)


class Scaled:
    """A solver with a setting, and a counter that is none."""

    def __init__(self, factor):
        self.factor = factor
        self.calls = 0

    def __call__(self, y, physics):
        self.calls += 1
        return self.factor * physics.A_dagger(y)


@pytest.fixture(scope="module")
def clip():
    return procedural_clip(FRAMES, HEIGHT, WIDTH)


@pytest.fixture
def said():
    return []


@pytest.fixture
def bench(tmp_path, clip, monkeypatch, said):
    monkeypatch.setattr(
        results_module, "draw_bars", lambda path, *arguments: path.touch()
    )

    def make(solvers, problems=("A",), **changes):
        options = {"clips": {"one": clip}, "scores": ["psnr"], "say": said.append}
        return Benchmark(tmp_path / "out", solvers, problems, **(options | changes))

    return make


def score(results):
    return results.rows[0].scores["psnr"]


class TestChangedSolvers:
    def test_of_another_setting_is_computed_again(self, bench, said):
        first = score(bench({"own": Scaled(1.0)}).run())
        solver = Scaled(0.5)
        del said[:]
        second = score(bench({"own": solver}).run())
        assert solver.calls == 1
        assert second < first
        assert said[0].startswith("one, problem A, own: computed again: ")
        assert "solver.factor was 1.0, is 0.5" in said[0]
        # and then it is kept, though it has counted
        del said[:]
        assert score(bench({"own": solver}).run()) == second
        assert score(bench({"own": Scaled(0.5)}).run()) == second
        assert solver.calls == 1
        assert said == []

    def test_state_of_one_clip_is_none_of_the_next(self, bench, clip, said):
        clips = {"one": clip, "two": clip.flip(1)}
        bench({"own": Scaled(1.0)}, ["A", "sr4"], clips=clips).run()
        del said[:]
        bench({"own": Scaled(1.0)}, ["A", "sr4"], clips=clips).run()
        assert said == []

    def test_of_other_code_is_computed_again(self, bench, said):
        first = score(bench({"own": adjoint}).run())
        second = score(bench({"own": lambda y, physics: physics.A_dagger(y)}).run())
        assert second != first
        assert "computed again: solver was function adjoint" in said[1]

    def test_of_another_class_schedule_or_option(self, bench, said):
        schedules = [Schedule.calibrated(0.01, num_steps=2), Schedule.embedded("A")]
        values = [
            score(bench({"own": solver}).run())
            for solver in (
                ADMMTV("A"),
                LVTINO(schedule=schedules[0], seed=0),
                LVTINO(schedule=schedules[1], seed=0),
                LVTINO(schedule=schedules[1], seed=1),
            )
        ]
        assert len(set(values)) == 4
        assert sum("computed again" in line for line in said) == 3
        del said[:]
        solver = LVTINO(schedule=Schedule.embedded("A"), seed=1)
        assert score(bench({"own": solver}).run()) == values[-1]
        assert said == []

    def test_of_other_weights(self, bench, said):
        def models(scale):
            def load():
                video = tiny_video()
                with torch.no_grad():
                    next(video.parameters()).mul_(scale)
                return video, None

            return Models(load, "same name", Models.embedded().schedule)

        first = score(bench(["lvtino-v"], models=models(1.0)).run())
        assert score(bench(["lvtino-v"], models=models(1.0)).run()) == first
        assert len(said) == 1
        assert score(bench(["lvtino-v"], models=models(0.5)).run()) != first
        assert "[models][0].weights was sha256" in said[1]

    def test_of_other_weights_in_a_solver_of_ones_own(self, bench, said):
        def make(setting):
            def solve(y, physics):
                video = setting.models.pair[0]
                return LVTINO(video, schedule=Schedule.embedded("A"), seed=0)(
                    y, physics
                )

            return solve

        def models(scale):
            def load():
                video = tiny_video()
                with torch.no_grad():
                    next(video.parameters()).mul_(scale)
                return video, None

            return Models(load, "same name", Models.embedded().schedule)

        solvers = {"own": Solver("mine", make)}
        bench(solvers, models=models(1.0)).run()
        bench(solvers, models=models(1.0)).run()
        assert len(said) == 1
        bench(solvers, models=models(0.5)).run()
        assert "weights was sha256" in said[1]

    def test_every_named_solver_is_known_again(self, bench, said, monkeypatch):
        from deepinv_lvtino.benchmark import SOLVERS, solvers

        monkeypatch.setattr(solvers, "DPS_STEPS", 2)
        monkeypatch.setattr(solvers, "DIFFPIR_STEPS", 3)
        bench(list(SOLVERS), num_samples=2).run()
        del said[:]
        bench(list(SOLVERS), num_samples=2).run()
        assert said == []

    def test_version_of_the_code(self, bench, said, monkeypatch):
        solver = Scaled(1.0)
        bench({"own": solver}).run()
        monkeypatch.setattr(
            "deepinv_lvtino.benchmark.run.code_version", lambda: "another"
        )
        bench({"own": solver}).run()
        assert solver.calls == 2
        assert "computed again: code was deepinv_lvtino" in said[1]
        assert "is another" in said[1]

    def test_cell_of_before_is_computed_again(self, bench, said, tmp_path):
        bench({"own": adjoint}).run()
        (path,) = (tmp_path / "out" / "cells").iterdir()
        cell = json.loads(path.read_text())
        for key in ("identity", "state", "evaluations"):
            del cell[key]
        path.write_text(json.dumps(cell))
        bench({"own": adjoint}).run()
        assert "does not say what has produced it" in said[1]
        assert "identity" in json.loads(path.read_text())


class TestDescriptions:
    def described(self, value):
        return Describer().describe("v", value)

    def test_what_functions_refer_to(self):
        def closed(factor):
            return lambda y, physics: factor * y

        def code(text):
            space = {"__name__": "__main__"}
            exec(text, space)
            return self.described(space["solve"])

        assert self.described(closed(1.0)) == self.described(closed(1.0))
        assert self.described(closed(1.0)) != self.described(closed(2.0))
        text = "STRENGTH = {}\ndef help(y):\n    return y {} 1\n{}def solve(y, p):\n"
        text += "    return STRENGTH * help(y)\n"
        first = code(text.format(1, "+", ""))
        assert code(text.format(1, "+", "# a comment\n\n")) == first
        assert code(text.format(2, "+", "")) != first
        assert code(text.format(1, "-", "")) != first

    def test_tensors_cycles_and_large_ones(self):
        class Odd:
            pass

        odd = Odd()
        odd.me, odd.value, odd.many = odd, torch.ones(2), [object() for _ in range(99)]
        odd.device, odd.rng = torch.device("cpu"), torch.Generator().manual_seed(3)
        first = self.described(odd)
        assert first["v.me"] == "see v"
        assert first["v.rng"] == "generator of seed 3"
        odd.value = torch.zeros(2)
        second = self.described(odd)
        assert changed_by_use(first, second) == ["v.value"]
        assert settled(first, ["v.value"]) == settled(second, ["v.value"])
        words = difference(settled(first, []), settled(second, []))
        assert words.startswith("v.value was tensor (2,)")
        assert len(settled(first, [])) < 40

    def test_growth_is_state_as_a_whole(self):
        first = self.described({"calls": [], "f": adjoint})
        second = self.described({"calls": [adjoint, Scaled(1)], "f": adjoint})
        assert changed_by_use(first, second) == ["v[calls]"]

    def test_code_version_is_of_the_source(self):
        _identity.code_version.cache_clear()
        assert _identity.code_version().startswith("deepinv_lvtino ")


class Halved(Physics):
    """Not linear, and without noise of its own."""

    def A(self, x, **kwargs):
        return x.square()


def pooled(img_size, rng):
    physics = TemporalPooling(img_size, 2)
    physics.set_noise_model(GaussianNoise(0.05, rng=rng))
    return physics


class TestProblems:
    def test_description(self, bench, tmp_path, clip):
        text = "every=2,downscale=2"
        results = bench(["pinv", "lvtino"], [text], save_videos=True).run()
        assert {row.problem for row in results.rows} == {"every=2, downscale=2"}
        (video,) = (tmp_path / "out" / "videos" / "one").iterdir()
        assert set(video.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
        assert "| one | every=2, downscale=2 | pinv |" in results.to_markdown()

    def test_names_and_descriptions_by_label(self, bench, said):
        problems = {"mine": "downscale=2, noise=0.02", "A": "sr4"}
        first = bench(["pinv", "admm-tv"], problems).run()
        assert [cell["sigma"] for cell in first.cells] == [0.02, 0.02, 0.001, 0.001]
        problems["mine"] = "downscale=4, noise=0.02"
        bench(["pinv", "admm-tv"], problems).run()
        again = [line for line in said if "computed again" in line]
        assert len(again) == 2
        assert "operator was 'downscale=2" in again[0] or "downscale=2" in again[0]

    def test_physics_of_ones_own(self, bench, said, clip):
        solvers = ["pinv", "admm-tv", "diffpir", "lvtino"]
        results = bench(solvers, {"pooled": pooled}).run()
        assert [row.solver for row in results.rows] == solvers
        cell = results.cells[0]
        assert cell["sigma"] is None
        rng = torch.Generator().manual_seed(cell["noise_seed"])
        physics = pooled(tuple(clip.shape), rng)
        x = deepinv.loss.metric.PSNR()(
            physics.A_dagger(physics(clip[None])), clip[None]
        )
        assert (
            abs(float(x) - cell["scores"]["psnr"]) < 3
        )  # below the noise it leaves out
        del said[:]
        assert bench(solvers, {"pooled": pooled}).run().rows == results.rows
        assert said == []

    def test_changed_physics_is_computed_again(self, bench, said):
        def factory(count):
            return lambda img_size, rng: TemporalPooling(img_size, count)

        first = score(bench({"own": adjoint}, {"p": factory(2)}).run())
        assert score(bench({"own": adjoint}, {"p": factory(4)}).run()) != first
        assert "operator.count was 2, is 4" in said[1]

        class Hidden:
            """What a factory reads and its code does not say."""

            __slots__ = ()
            count = {1: 2}

        def hidden(img_size, rng):
            return TemporalPooling(img_size, Hidden().count[1])

        bench({"own": adjoint}, {"q": hidden}).run()
        Hidden.count[1] = 4
        del said[:]
        bench({"own": adjoint}, {"q": hidden}).run()
        assert "operator.output was tensor" in said[0]

    def test_what_is_not_linear(self, bench):
        results = bench(
            ["pinv", "admm-tv", "lvtino", "diffpir"],
            {"square": lambda img_size, rng: Halved()},
        )
        own = {"own": lambda y, physics: y.clamp(min=0).sqrt()}
        skipped = bench(["admm-tv", "lvtino"], {"square": lambda s, rng: Halved()})
        assert set(skipped.run().skipped) == {
            ("square", "admm-tv"),
            ("square", "lvtino"),
        }
        found = bench(own, {"square": lambda img_size, rng: Halved()}).run()
        assert score(found) > 60
        assert list(results.problems) == ["square"]

    def test_physics_of_images_frame_by_frame(self, bench):
        def blur(img_size, rng):
            kernel = torch.full((1, 1, 3, 3), 1 / 9)
            return FramewiseLinearPhysics(
                deepinv.physics.Blur(kernel, padding="circular")
            )

        assert len(bench(["pinv"], {"blur": blur}).run().rows) == 1

    @pytest.mark.parametrize(
        ("problems", "error", "message"),
        [
            ({"p": 3}, TypeError, r"`problems\['p'\]` must be a name, a description"),
            ({"": "A"}, ValueError, "`problems` must have labels"),
            ([pooled], ValueError, "a dictionary with functions"),
            (["magic=2"], ValueError, "which is not known"),
            ({}, ValueError, "got none"),
        ],
    )
    def test_refusals(self, bench, problems, error, message):
        with pytest.raises(error, match=message):
            bench(["pinv"], problems)

    def test_factories_must_give_a_physics_of_videos(self, bench):
        with pytest.raises(TypeError, match=r"`problems\['p'\]` must return a physics"):
            bench(["pinv"], {"p": lambda img_size, rng: 3}).run()

        def images(img_size, rng):
            return deepinv.physics.Blur(torch.ones(1, 1, 3, 3) / 9)

        with pytest.raises(ValueError, match="FramewiseLinearPhysics"):
            bench(["pinv"], {"p": images}).run()


class Net(Denoiser):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv3d(3, 3, 1)

    def forward(self, x, sigma=None, **kwargs):
        return self.layer(self.layer(x))


class Artifacts(Reconstructor):
    """Holds a network and calls it."""

    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, y, physics):
        x = physics.A_adjoint(y)
        for _ in range(3):
            x = self.net(x)
        return x


class TestCost:
    def test_columns(self, bench, tmp_path):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Conv3d(3, 3, 1), torch.nn.ReLU())
        solvers = {
            "pinv": "pinv",
            "pnp": "pnp-admm",
            "lvtino": LVTINO(schedule=Schedule.embedded("A"), seed=0),
            "plain": lambda y, physics: net(physics.A_adjoint(y)),
            "own": Artifacts(),
        }
        results = bench(solvers).run()
        found = {row.solver: row.evaluations for row in results.rows}
        # two sweeps of two priors, and Algorithm 1 ends after the first half of the last
        assert found["lvtino"] == 3
        assert (found["plain"], found["own"], found["pinv"]) == (1, 3, None)
        assert found["pnp"] > 1
        assert all(row.memory is None or row.memory >= 0 for row in results.rows)
        page = results.to_markdown()
        assert "| seconds ↓ | memory (GB) ↓ | network evaluations |" in page
        with (tmp_path / "out" / "benchmark.csv").open(newline="") as file:
            lines = {line["solver"]: line for line in csv.DictReader(file)}
        assert lines["own"]["evaluations"] == "3.0"
        assert lines["pinv"]["evaluations"] == ""
        assert float(lines["pinv"]["seconds"]) >= 0

    def test_memory_of_a_call(self):
        with Cost(torch.device("cpu")) as cost:
            torch.ones(30_000_000).sum()
        if cost.memory is None:
            pytest.skip("the system does not tell the memory")
        assert 0.1 < cost.memory < 0.2

    def test_nothing_stays_behind(self):
        before = tiny_video().__class__.denoise
        with count_evaluations() as counter:
            model = tiny_image()
            model.sae(torch.rand(1, 3, 2, 16, 16), 100.0)
        assert counter.count == 1
        assert tiny_video().__class__.denoise is before
        model.sae(torch.rand(1, 3, 2, 16, 16), 100.0)
        assert counter.count == 1

    def test_failures_are_counted_out(self):
        class Fails(Denoiser):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.ones(1))

            def forward(self, x, sigma=None, **kwargs):
                raise RuntimeError

        with count_evaluations() as counter:
            for _ in range(2):
                with pytest.raises(RuntimeError):
                    Fails()(torch.ones(1))
            Net()(torch.rand(1, 3, 2, 4, 4))
        assert counter.count == 3


def test_command_line(tmp_path, capsys):
    options = ("--solvers", "pinv", "--problems", "A", "temporal-mean=2, downscale=2")
    small = ("--size", "48x32", "--frames", "5", "--scores", "psnr", "--device", "cpu")
    assert main(["benchmark", "-o", str(tmp_path / "out"), *options, *small]) == 0
    printed = capsys.readouterr().out
    assert "| procedural | temporal-mean=2, downscale=2 | pinv |" in printed
    wrong = ("--solvers", "pinv", "--problems", "downscale=5")
    assert main(["benchmark", "-o", str(tmp_path / "other"), *wrong, *small]) == 2
    assert "multiples of 5" in capsys.readouterr().err
    assert isinstance(pooled((3, 4, 16, 16), None), LinearPhysics)
    assert Solver("mine", lambda setting: adjoint).linear_only
