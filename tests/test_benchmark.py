r"""The benchmark: its cells, what is kept of them, its table, and its solvers."""

from __future__ import annotations

import csv
import json
from urllib.error import URLError

import numpy as np
import pytest
import torch
from deepinv.loss.metric import LPIPS, PSNR
from deepinv.models import Reconstructor
from PIL import Image

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.benchmark import (
    PUBLISHED_COST,
    PUBLISHED_SCORES,
    SCORES,
    SOLVERS,
    Benchmark,
    Clip,
    Models,
    NotApplicable,
    Setting,
    Solver,
    find_clips,
    make_metrics,
    quoted_rows,
    solvers,
)
from deepinv_lvtino.benchmark import results as results_module
from deepinv_lvtino.benchmark import scores as score_module
from deepinv_lvtino.datasets import procedural_clip, read_video, write_video
from deepinv_lvtino.metrics import FVMD, FrameMetric
from deepinv_lvtino.models import spectral_video
from deepinv_lvtino.optim import pseudo_inverse
from deepinv_lvtino.physics import PROBLEMS

FRAMES, HEIGHT, WIDTH = 5, 32, 48


def adjoint(y, physics):
    return physics.A_adjoint(y)


def inverse(y, physics):
    return physics.A_dagger(y)


@pytest.fixture(scope="module")
def clip():
    return procedural_clip(FRAMES, HEIGHT, WIDTH)


@pytest.fixture
def bench(tmp_path, clip, monkeypatch):
    """A benchmark that costs nothing, with the arguments of one's choice."""

    def make(draw=False, **changes):
        if not draw:  # which takes longer than all the rest
            monkeypatch.setattr(
                results_module, "draw_bars", lambda path, *arguments: path.touch()
            )
        options = {
            "solvers": {"adjoint": adjoint, "inverse": inverse},
            "problems": ["A"],
            "clips": {"one": clip, "two": clip.flip(1)},
            "scores": ["psnr", "temporal_difference_error"],
            "say": lambda line: None,
        }
        return Benchmark(tmp_path / "out", **(options | changes))

    return make


def cells_of(folder):
    return {
        (cell["clip"], cell["problem"], cell["solver"]): cell
        for cell in (
            json.loads(path.read_text()) for path in (folder / "cells").glob("*.json")
        )
    }


class TestCells:
    def test_scores_are_those_of_the_measurement_that_the_cell_describes(
        self, bench, clip, tmp_path
    ):
        results = bench().run()
        cells = cells_of(tmp_path / "out")
        assert len(cells) == 4
        cell = cells["one", "A", "inverse"]
        rng = torch.Generator().manual_seed(cell["noise_seed"])
        physics = make_problem("A", cell["shape"], cell["sigma"], rng=rng)
        estimate = physics.A_dagger(physics(clip[None]))
        expected = FrameMetric(PSNR())(estimate, clip[None]).item()
        assert cell["scores"]["psnr"] == pytest.approx(expected, abs=1e-4)
        assert cell["seconds"] >= 0
        assert cell["versions"]["torch"] == torch.__version__
        assert cell["device"].startswith("cpu")
        # rows: one per data, problem and solver
        found = {(row.data, row.solver): row for row in results.rows}
        assert found["one", "inverse"].scores == cell["scores"]
        assert found["one", "inverse"].clips == 1

    def test_noise_is_the_same_for_all_solvers_and_differs_between_clips(
        self, bench, tmp_path
    ):
        bench(problems=["A", "B"]).run()
        seeds = {}
        for (name, problem, _), cell in cells_of(tmp_path / "out").items():
            seeds.setdefault((name, problem), set()).add(cell["noise_seed"])
        assert all(len(found) == 1 for found in seeds.values())
        assert len(set.union(*seeds.values())) == 4

    def test_means_are_over_the_clips_of_the_same_data(self, bench, clip):
        clips = [
            Clip(f"all/{k}", "all", tuple(clip.shape), lambda k=k: (0.9**k) * clip)
            for k in range(3)
        ]
        results = bench(clips=clips).run()
        row = results.rows[1]
        assert (row.data, row.solver, row.clips) == ("all", "inverse", 3)
        values = [
            cell["scores"]["psnr"]
            for cell in results.cells
            if cell["solver"] == "inverse"
        ]
        assert row.scores["psnr"] == pytest.approx(np.mean(values))
        assert row.spread["psnr"] == pytest.approx(np.std(values, ddof=1))

    def test_run_leaves_the_global_generator_alone(self, bench):
        torch.manual_seed(5)
        expected = torch.rand(1)
        torch.manual_seed(5)
        bench(solvers={"noise": lambda y, p: p.A_dagger(y) * torch.rand(1)}).run()
        assert torch.equal(torch.rand(1), expected)

    def test_a_solver_without_generator_is_seeded(self, bench):
        def noisy(y, physics):
            return physics.A_dagger(y) + 0.1 * torch.randn(physics.img_size)

        def psnr(**options):
            rows = bench(solvers={"noisy": noisy}, overwrite=True, **options).run().rows
            return rows[0].scores["psnr"]

        first = psnr()
        assert psnr() == first
        assert psnr(seed=1) != first

    def test_videos_are_saved_on_demand(self, bench, tmp_path, clip):
        bench(save_videos=True, clips={"one": clip}).run()
        path = tmp_path / "out" / "videos" / "one" / "A" / "inverse"
        assert read_video(path).frames.shape == clip.shape


class TestResume:
    def test_finished_cells_are_kept(self, bench, tmp_path):
        calls = []

        def count(y, physics):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return physics.A_dagger(y)

        solvers = {"inverse": inverse, "count": count}
        with pytest.raises(KeyboardInterrupt):
            bench(solvers=solvers).run()
        # interrupted in the second clip: three cells are whole, and nothing else is there
        assert len(list((tmp_path / "out" / "cells").iterdir())) == 3
        assert not (tmp_path / "out" / "benchmark.csv").exists()
        before = cells_of(tmp_path / "out")
        results = bench(solvers=solvers).run()
        assert len(calls) == 3
        assert len(results.cells) == 4
        after = cells_of(tmp_path / "out")
        assert all(after[key] == cell for key, cell in before.items())
        bench(solvers=solvers).run()
        assert len(calls) == 3
        bench(solvers=solvers, overwrite=True).run()
        assert len(calls) == 5

    def test_kept_clips_are_not_read_again(self, bench, clip):
        loads = []

        def load():
            loads.append(1)
            return clip

        def clips():
            return [Clip("one", "one", tuple(clip.shape), load)]

        bench(clips=clips()).run()
        bench(clips=clips()).run()
        assert loads == [1]

    def test_more_can_be_added(self, bench):
        bench().run()
        results = bench(problems=["A", "sr4"], scores=["psnr"]).run()
        assert len(results.rows) == 8

    def test_a_score_that_is_new_is_computed(self, bench):
        bench(scores=["psnr"]).run()
        results = bench(scores=["psnr", "ssim"]).run()
        assert all(row.scores["ssim"] is not None for row in results.rows)

    def test_damaged_cell_is_computed_again(self, bench, tmp_path):
        bench().run()
        path = next(iter((tmp_path / "out" / "cells").iterdir()))
        path.write_text('{"clip": ')
        assert len(bench().run().cells) == 4

    @pytest.mark.parametrize(
        ("change", "word"),
        [
            ({"seed": 1}, "`seed` 0, not 1"),
            ({"sigma": 0.1}, "`sigma` 0.001, not 0.1"),
            ({"num_samples": 2}, "`num_samples` 8, not 2"),
            ({"eta": 0.5}, "`eta` None, not 0.5"),
            ({"clips": {"one": torch.zeros(3, 4, 32, 48)}}, "`shape`"),
        ],
    )
    def test_other_settings_are_refused_before_anything_is_computed(
        self, bench, change, word
    ):
        bench().run()

        def never(y, physics):
            raise AssertionError

        solvers = {"never": never, "inverse": inverse}
        with pytest.raises(ValueError, match=f"{word}.*Choose another folder"):
            bench(solvers=solvers, **change).run()


class TestTable:
    def test_csv_markdown_json_and_figure_agree(self, bench, tmp_path):
        results = bench(draw=True).run()
        folder = tmp_path / "out"
        with (folder / "benchmark.csv").open(newline="") as file:
            table = list(csv.DictReader(file))
        stored = json.loads((folder / "benchmark.json").read_text())
        page = (folder / "benchmark.md").read_text()
        assert len(table) == len(stored["measured"]) == len(results.rows) == 4
        for line, entry, row in zip(
            table, stored["measured"], results.rows, strict=True
        ):
            assert line["source"] == "measured"
            assert float(line["psnr"]) == entry["scores"]["psnr"] == row.scores["psnr"]
            assert line["solver"] == entry["solver"] == row.solver
            assert f"{row.scores['psnr']:#.4g}" in page
        with Image.open(folder / "benchmark.png") as picture:
            assert picture.width > picture.height > 100
        assert sorted(path.name for path in folder.iterdir()) == [
            "benchmark.csv",
            "benchmark.json",
            "benchmark.md",
            "benchmark.png",
            "cells",
        ]

    def test_best_of_each_group_is_bold(self, bench):
        lines = bench().run().to_markdown().splitlines()
        for line in lines:
            if line.startswith("| one | A | inverse"):
                assert line.count("**") == 4
            if line.startswith("| one | A | adjoint"):
                assert "**" not in line

    def test_page_says_what_the_numbers_depend_on(self, bench):
        page = bench().run().to_markdown()
        for word in ("Seed: 0", "Noise: 0.001", "3x5x32x48", "Processor: ", "torch 2"):
            assert word in page

    def test_warping_error_stands_beside_that_of_the_clean_clip(self, bench):
        pytest.importorskip("cv2")
        results = bench(scores=["warping_error"]).run()
        clean = results.cells[0]["clean"]["warping_error"]
        assert clean > 0
        page = results.to_markdown()
        assert f"of the clean clips, which is the goal: one {clean:#.3g}" in page
        assert "**" not in page  # its smallest value is not the best

    def test_published_results_stand_apart(self, bench, tmp_path):
        bench(published=True).run()
        folder = tmp_path / "out"
        page = (folder / "benchmark.md").read_text()
        measured, quoted = page.split("## Quoted from the paper, not measured here")
        assert "VISION-XL" in quoted
        assert "VISION-XL" not in measured
        assert "one | A | inverse" not in quoted
        assert "25 frames of 1280x768" in quoted
        # the same columns in both
        heads = [line for line in page.splitlines() if line.startswith("| data")]
        assert heads[0].startswith(heads[1].removesuffix("|"))
        with (folder / "benchmark.csv").open(newline="") as file:
            table = list(csv.DictReader(file))
        sources = [line["source"] for line in table]
        assert sources == ["measured"] * 4 + ["quoted"] * 12
        assert table[-1]["fvmd"] == "232.6"
        stored = json.loads((folder / "benchmark.json").read_text())
        assert len(stored["measured"]) == 4
        assert len(stored["quoted"]["rows"]) == 12
        assert "arXiv:2510.01339" in stored["quoted"]["source"]

    def test_published_numbers(self):
        found = {
            (row["data"], row["problem"], row["solver"]): row["scores"]
            for row in PUBLISHED_SCORES
        }
        assert found["Adobe240", "A", "LVTINO"] == {
            "fvmd": 371.1,
            "psnr": 27.25,
            "ssim": 0.837,
            "lpips": 0.249,
        }
        assert found["GoPro240", "C", "LVTINO"]["lpips"] == 0.445
        assert found["Adobe240", "C", "ADMM-TV"]["fvmd"] == 1645.0
        assert PUBLISHED_COST["LVTINO"]["seconds"] == 132.0
        assert all(row.clips == 0 and row.seconds is None for row in quoted_rows())


class TestSolvers:
    @pytest.mark.parametrize("problem", ["A", "jpeg"])
    def test_every_solver_runs_or_says_why_not(self, problem, clip, monkeypatch):
        monkeypatch.setattr(solvers, "DPS_STEPS", 2)
        monkeypatch.setattr(solvers, "DIFFPIR_STEPS", 3)
        physics = make_problem(problem, clip.shape)
        y = physics(clip[None])
        models = Models.embedded()
        setting = Setting(
            PROBLEMS[problem], models, 0.001, torch.device("cpu"), num_samples=2
        )
        for name, solver in SOLVERS.items():
            if problem == "jpeg" and solver.linear_only:
                with pytest.raises(NotApplicable):
                    solver.check(setting.problem)
                continue
            x = solver.make(setting)(y, physics)
            assert x.shape == (1, *clip.shape), name
            assert torch.isfinite(x).all(), name

    def test_names_are_what_they_say(self, clip):
        physics = make_problem("B", clip.shape)
        y = physics(clip[None])
        models = Models.embedded()
        setting = Setting(
            PROBLEMS["B"], models, 0.001, torch.device("cpu"), seed=3, num_samples=2
        )
        schedule = Schedule.embedded("B")
        sampler = LVTINO(schedule=schedule, seed=3)
        expected = {
            "pinv": pseudo_inverse(y, physics),
            "lvtino": sampler(y, physics),
            "lvtino-mean": sampler.sample(y, physics, 2)[0],
            "lvtino-v": LVTINO(models.pair[0], schedule=schedule, seed=3)(y, physics),
            "latino": LVTINO(image_model=models.pair[1], schedule=schedule, seed=3)(
                y, physics
            ),
        }
        for name, x in expected.items():
            found = SOLVERS[name].make(setting)(y, physics)
            torch.testing.assert_close(found, x, msg=name)

    def test_reconstructors_of_deepinverse_can_be_added(self, bench):
        class Own(Reconstructor):
            def forward(self, y, physics):
                return physics.A_adjoint(y)

        results = bench(
            solvers={
                "own": Own(),
                "also": Solver("mine", lambda s: adjoint),
                "pinv": "pinv",
            }
        ).run()
        first = {row.solver: row.scores for row in results.rows[:3]}
        assert first["own"] == first["also"] != first["pinv"]
        assert results.solvers["own"] == "Own"

    def test_registered_solver_has_a_name(self, bench, monkeypatch):
        monkeypatch.setitem(SOLVERS, "mine", Solver("mine", lambda setting: adjoint))
        assert bench(solvers=["mine"]).run().rows[0].solver == "mine"

    def test_models_of_ones_own(self, bench, clip):
        """No view as a denoiser, no image model: said in the table, not an error."""
        models = Models(
            lambda: (spectral_video(), None),
            "flat",
            lambda name, eta: Schedule.calibrated(eta=eta),
        )
        results = bench(
            solvers=["pinv", "pnp-admm", "latino", "lvtino-v"],
            models=models,
            clips={"one": clip},
        ).run()
        assert [row.solver for row in results.rows] == ["pinv", "lvtino-v"]
        assert set(results.skipped) == {("A", "pnp-admm"), ("A", "latino")}
        page = results.to_markdown()
        assert (
            "`pnp-admm` has no answer to problem A: the video model of 'flat'" in page
        )
        assert "Models: flat" in page

    def test_networks_are_loaded_when_they_are_needed(self, bench):
        def never():
            raise AssertionError

        models = Models(never, "big", lambda name, eta: Schedule.calibrated())
        bench(solvers=["pinv", "admm-tv"], models=models).run()

    def test_published_models_have_published_schedules(self):
        models = Models.published(lambda: (None, None))
        assert models.schedule("A", None) == Schedule.published("A")
        assert models.schedule("sr4", None) == Schedule.calibrated()
        assert models.schedule("A", 0.3) == Schedule.calibrated(eta=0.3)


class TestScores:
    def test_default_is_what_can_be_computed(self, bench, monkeypatch, tmp_path):
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        monkeypatch.setattr(score_module, "find_spec", lambda name: None)
        said = []
        found = bench(scores=None, say=said.append).scores
        assert found == ["psnr", "ssim", "haarpsi", "temporal_difference_error"]
        assert any("LPIPS" in line for line in said)
        assert any("deepinv-lvtino[flow]" in line for line in said)

    def test_lpips_without_weights(self, bench, monkeypatch, tmp_path):
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        said = []
        assert "lpips" not in bench(scores=None, say=said.append).scores
        assert any("weights are not on this machine" in line for line in said)

        def offline(*args, **kwargs):
            msg = "no network"
            raise URLError(msg)

        monkeypatch.setattr(LPIPS, "__init__", offline)
        with pytest.raises(RuntimeError, match=r"weights of LPIPS .*alexnet"):
            bench(scores=["lpips"]).run()

    def test_lpips_with_weights_is_a_default(self, bench, monkeypatch, tmp_path):
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        place = score_module._lpips_file()[1]
        place.parent.mkdir(parents=True)
        place.write_bytes(b"weights")
        assert "lpips" in bench(scores=None).scores

    def test_scores_of_sets_compare_all_clips_at_once(self, bench, clip, monkeypatch):
        def features(self, estimate, reference):
            return tuple(
                x.mean((1, 3, 4)).reshape(-1, 1).double().numpy()
                for x in (estimate, reference)
            )

        monkeypatch.setattr(FVMD, "require", staticmethod(lambda: None))
        monkeypatch.setattr(FVMD, "features", features)
        monkeypatch.setattr(
            FVMD, "distance", lambda self, a, b: float(len(a)) + abs(a - b).mean()
        )
        clips = [
            Clip(f"all/{k}", "all", tuple(clip.shape), lambda: clip) for k in range(2)
        ]
        options = {"clips": clips, "scores": ["psnr", "fvmd"]}
        first = bench(**options).run()
        assert first.rows[0].clips == 2
        assert int(first.rows[0].scores["fvmd"]) == 2 * FRAMES
        # kept with the cells
        monkeypatch.setattr(FVMD, "features", None)
        assert bench(**options).run().rows == first.rows

    def test_metrics_by_name(self, clip):
        metrics = make_metrics(["psnr", "haarpsi"])
        assert metrics["psnr"](clip[None], clip[None]).item() == pytest.approx(80)
        assert metrics["haarpsi"](clip[None], clip[None]).item() == pytest.approx(
            1, abs=1e-5
        )
        assert all(
            metric.lower_better != SCORES[name].higher_better
            for name, metric in metrics.items()
        )


class TestClips:
    def test_computed_clips(self):
        clips = find_clips("procedural", FRAMES, HEIGHT, WIDTH, count=2)
        assert [clip.name for clip in clips] == ["procedural/0", "procedural/1"]
        assert {clip.data for clip in clips} == {"procedural"}
        first, second = (clip.load() for clip in clips)
        assert first.shape == second.shape == clips[0].shape
        assert not torch.equal(first, second)
        (leaves,) = find_clips("dead-leaves", 2, 16, 24)
        assert leaves.load().shape == leaves.shape == (3, 2, 16, 24)

    def test_files_and_folders(self, tmp_path, clip):
        write_video(tmp_path / "all" / "a.mkv", clip, 24, lossless=True)
        write_video(tmp_path / "all" / "b", clip)
        (file,) = find_clips(str(tmp_path / "all" / "a.mkv"), 3, 16, 24)
        (folder,) = find_clips(str(tmp_path / "all" / "b"), 3, HEIGHT, WIDTH)
        assert (file.name, folder.name) == ("a", "b")
        assert file.load().shape == (3, 3, 16, 24)
        torch.testing.assert_close(folder.load(), clip[:, :3], atol=0.5 / 255, rtol=0)
        clips = find_clips(str(tmp_path / "all"), 3, 16, 24)
        assert [c.name for c in clips] == ["all/a.mkv", "all/b"]
        assert len(find_clips(str(tmp_path / "all"), 3, 16, 24, count=1)) == 1

    def test_data_sets(self, tmp_path, clip):
        write_video(tmp_path / "GOPRO_Large_all" / "test" / "GOPR1", clip)
        write_video(tmp_path / "adobe" / "IMG_1.mov", clip, 24)
        (gopro,) = find_clips(f"gopro240:{tmp_path / 'GOPRO_Large_all'}", 2, 16, 24)
        (adobe,) = find_clips(f"adobe240:{tmp_path / 'adobe'}", 2, 16, 24)
        assert (gopro.name, gopro.data) == ("GoPro240/test/GOPR1", "GoPro240")
        assert (adobe.name, adobe.data) == ("Adobe240/IMG_1.mov", "Adobe240")
        assert gopro.load().shape == adobe.load().shape == (3, 2, 16, 24)

    def test_refusals(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="'adobe240:FOLDER'"):
            find_clips("nothing")
        with pytest.raises(FileNotFoundError, match="holds no video"):
            find_clips(f"adobe240:{tmp_path}")
        with pytest.raises(ValueError, match="`count`"):
            find_clips("procedural", count=0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"solvers": ["magic"]}, ValueError, "`solvers` must be among 'pinv'"),
        ({"solvers": []}, ValueError, "`solvers` must hold one"),
        ({"solvers": {"own": 3}}, TypeError, r"`solvers\['own'\]` must be a name"),
        ({"problems": ["Z"]}, ValueError, "`problems` must be among 'A'"),
        (
            {"problems": ["jpeg"], "eta": 0.5},
            ValueError,
            "`eta` must be 0 or 1 for problem jpeg",
        ),
        ({"eta": 2}, ValueError, "`eta` must lie in"),
        ({"sigma": 0.0}, ValueError, "`sigma` must be positive"),
        ({"seed": -1}, ValueError, "`seed` 0 or more"),
        ({"scores": ["taste"]}, ValueError, "`scores` must be among 'psnr'"),
        ({"clips": {}}, ValueError, "`clips` must hold one clip"),
        ({"clips": [torch.zeros(3)]}, TypeError, "`clips` must be a dictionary"),
        ({"clips": {"a": torch.zeros(3, 4, 8, 8)}}, ValueError, "16 pixels or more"),
    ],
)
def test_refusals(bench, change, error, message):
    with pytest.raises(error, match=message):
        bench(**change)


def test_a_solver_must_return_a_video(bench):
    with pytest.raises(ValueError, match=r"`solvers\['bad'\]` must return a video"):
        bench(solvers={"bad": lambda y, physics: y}).run()
    with pytest.raises(ValueError, match="got NoneType"):
        bench(solvers={"bad": lambda y, physics: None}).run()
