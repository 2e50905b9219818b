"""Jobs on several processes: the same results, lost processes replaced."""

import json
import os
import signal

import pytest
import torch

from deepinv_lvtino.cluster import Spread, WorkerLost


def square():
    def work(number):
        if number == 3:
            raise ValueError(str(number))
        return number**2

    return work


def test_one_process_does_jobs_in_turn_and_goes_on_after_an_error():
    found = list(Spread().run(square, [1, 2, 3, 4]))
    assert [job for job, _ in found] == [1, 2, 3, 4]
    assert [result for _, result in found if isinstance(result, int)] == [1, 4, 16]
    assert isinstance(found[2][1], ValueError)


def test_workers_give_the_same_and_each_is_made_once(ray):
    def make():
        made = []

        def work(number):
            made.append(number)
            if number == 3:
                raise ValueError(str(number))
            return number**2, os.getpid(), torch.get_num_threads()

        return work

    found = dict(Spread(workers=2, threads=1).run(make, range(6)))
    assert isinstance(found[3], ValueError) and str(found[3]) == "3"
    rest = [found[i] for i in (0, 1, 2, 4, 5)]
    assert [value for value, _, _ in rest] == [0, 1, 4, 16, 25]
    assert os.getpid() not in {process for _, process, _ in rest}
    assert len({process for _, process, _ in rest}) <= 2
    assert {threads for *_, threads in rest} == {1}


def test_a_job_whose_process_is_killed_is_done_again(ray, tmp_path):
    def make():
        def work(number):
            mark = tmp_path / str(number)
            if number == 1 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return number

        return work

    found = dict(Spread(workers=2).run(make, range(4)))
    assert found == {0: 0, 1: 1, 2: 2, 3: 3}
    assert (tmp_path / "1").exists()


def test_a_job_that_always_kills_is_given_up_and_the_others_done(ray):
    def make():
        def work(number):
            if number == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return number

        return work

    found = dict(Spread(workers=1).run(make, range(3)))
    assert isinstance(found[0], WorkerLost) and "lost 3 times" in str(found[0])
    assert found[1] == 1 and found[2] == 2


@pytest.mark.parametrize(
    ("options", "match"),
    [({"workers": 0}, "workers"), ({"threads": -1}, "threads"), ({"gpus": -1}, "gpus")],
)
def test_numbers_are_checked(options, match):
    with pytest.raises(ValueError, match=match):
        Spread(**options)


def test_ray_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ImportError, match=r"deepinv-lvtino\[cluster\]"):
        list(Spread(workers=2).run(square, [1]))


def test_a_benchmark_over_workers_has_the_same_cells(ray, tmp_path, capsys):
    from deepinv_lvtino.cli import main

    common = ["benchmark", "--clips", "procedural", "--count", "2", "--frames", "3"]
    common += ["--size", "32x24", "--solvers", "pinv", "lvtino", "--problems", "sr4"]
    common += ["--scores", "psnr", "--device", "cpu", "--threads", "1"]
    for name, options in (("one", []), ("two", ["--workers", "2"])):
        assert main([*common, "-o", str(tmp_path / name), *options]) == 0
        said = capsys.readouterr().out
        assert (
            said.count("problem sr4, ") == 4
        )  # the table is made of the workers' cells
    assert "clip 2 of 2 is done" in said
    found = {}
    for name in ("one", "two"):
        cells = sorted((tmp_path / name / "cells").glob("*.json"))
        assert len(cells) == 4
        found[name] = [json.loads(path.read_text())["scores"] for path in cells]
    assert found["one"] == found["two"]
