r"""The published models on the command line, as small random networks, without network."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import checkpoints
from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.cli import _models, main
from deepinv_lvtino.datasets import procedural_clip, read_video, write_video
from deepinv_lvtino.models import (
    MemoryEstimate,
    OutOfMemory,
    SDXLConsistencyModel,
    TinyVideoDecoder,
    WanConsistencyModel,
)

HEIGHT, WIDTH, FRAMES = 32, 48, 9
WAN = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.published_folder(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clean") / "clean.mkv"
    return write_video(path, procedural_clip(FRAMES, HEIGHT, WIDTH), 25, lossless=True)


@pytest.fixture
def hub(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> checkpoints.Hub:
    made = checkpoints.Hub(weights, tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.snapshot_download", made.snapshot_download)
    return made


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    r"""Message of a command that must fail as a mistake of the user."""
    capsys.readouterr()
    assert run(*arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]  # after bars of progress
    assert error.startswith("deepinv-lvtino: error: ")
    return error


def report_of(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def restore(clean: Path, output: Path, *options: object) -> tuple[object, ...]:
    fixed = ("--simulate", "--model", "wan", "--device", "cpu")
    return ("restore", clean, "-o", output, *fixed, *options)


# -- restore ---------------------------------------------------------------------------


@pytest.mark.parametrize(("problem", "evaluations"), [("A", 9), ("B", 9), ("C", 5)])
def test_restore_from_a_local_folder(
    weights: Path, clean: Path, tmp_path: Path, problem: str, evaluations: int
) -> None:
    output = tmp_path / "out"
    options = ("--weights", weights, "--problem", problem, "--seed", "3")
    assert run(*restore(clean, output, *options)) == 0
    report = report_of(tmp_path / "out.json")
    assert report["models"] == {
        "video": "WanConsistencyModel",
        "image": "SDXLConsistencyModel",
    }
    assert report["schedule"]["evaluations"] == evaluations
    assert "eta" not in report["schedule"]  # the published one has no such number
    assert report["weights"]["folder"] == str(weights)
    assert {"load", "restore"} <= set(report["seconds"])
    if problem != "B":
        return
    # the same from Python
    video = WanConsistencyModel.from_pretrained(
        weights / WAN,
        weights / "tianweiy/CausVid/bidirectional_checkpoint2/model.pt",
        device="cpu",
    )
    image = SDXLConsistencyModel.from_pretrained(
        weights / SDXL,
        weights / "tianweiy/DMD2/dmd2_sdxl_4step_unet_fp16.bin",
        autoencoder=weights / "madebyollin/sdxl-vae-fp16-fix",
        device="cpu",
    )
    x = read_video(clean).frames[None]
    rng = torch.Generator().manual_seed(report["noise_seed"])
    physics = make_problem(problem, x.shape[1:], 0.001, rng=rng)
    solver = LVTINO(video, image, schedule=Schedule.published(problem), seed=3)
    expected = solver(physics(x), physics)[0].clamp(0, 1)
    found = read_video(output).frames
    torch.testing.assert_close(found, expected, atol=0.5 / 255 + 1e-6, rtol=0)


def test_a_tiny_decoder_for_the_video_model(
    weights: Path,
    clean: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(0)
    decoder = TinyVideoDecoder(latent_channels=4, widths=(4, 4, 4, 4))
    torch.save(decoder.state_dict(), tmp_path / "taew2_1.pth")
    fixed = ("--weights", weights, "--problem", "B", "--decoder")
    options = (*fixed, tmp_path / "taew2_1.pth", "--eta", "1")
    assert run(*restore(clean, tmp_path / "out", *options)) == 0
    entry = report_of(tmp_path / "out.json")["weights"]
    assert entry["decoder"] == str(tmp_path / "taew2_1.pth")
    assert (entry["video"]["entry"], entry["video"]["layout"]) == ("generator", "Wan")
    assert run(*restore(clean, tmp_path / "b", *fixed, "nowhere.pth")) == 2
    assert "nowhere.pth does not exist" in capsys.readouterr().err
    assert run(*restore(clean, tmp_path / "b", *options[:-1], "0")) == 2
    assert "--decoder is for the video model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("eta", "missing", "unused", "evaluations"),
    [("1", "image", SDXL, 5), ("0", "video", WAN, 4)],
)
def test_one_model_alone_does_not_need_the_other(
    weights: Path,
    clean: Path,
    tmp_path: Path,
    eta: str,
    missing: str,
    unused: str,
    evaluations: int,
) -> None:
    folder = tmp_path / "weights"
    names = checkpoints.Hub(weights, folder).remote.glob("*/*")
    for path in names:
        name = path.relative_to(weights)
        if str(name) != unused:
            (folder / name.parent).mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(path)
    options = ("--weights", folder, "--problem", "B", "--eta", eta)
    assert run(*restore(clean, tmp_path / "out.mp4", *options)) == 0
    report = report_of(tmp_path / "out.json")
    assert report["models"][missing] is None
    assert report["schedule"]["evaluations"] == evaluations


def test_steps_ask_for_a_calibrated_schedule(
    weights: Path, clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def measure(self: Any, x: torch.Tensor, **options: Any) -> float:
        measured.append((type(self).__name__, tuple(x.shape)))
        self.pixel_scale = 0.3
        return 0.3

    for model in (WanConsistencyModel, SDXLConsistencyModel):
        monkeypatch.setattr(model, "measure_pixel_scale", measure)
    options = ("--weights", weights, "--problem", "sr4", "--steps", "2", "--eta", "0.4")
    assert run(*restore(clean, tmp_path / "out.mp4", *options)) == 0
    schedule = report_of(tmp_path / "out.json")["schedule"]
    assert (schedule["steps"], schedule["evaluations"]) == (2, 3)
    assert schedule["eta"] == 0.4
    size = (1, 3, FRAMES, HEIGHT, WIDTH)
    assert measured == [("WanConsistencyModel", size), ("SDXLConsistencyModel", size)]


def test_the_published_schedule_of_jpeg(
    weights: Path, clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--weights", weights, "--problem", "jpeg")
    assert run(*restore(clean, tmp_path / "out.mp4", *options, "--eta", "1")) == 0
    assert report_of(tmp_path / "out.json")["schedule"]["evaluations"] == 5
    wrong = restore(clean, tmp_path / "b.mp4", *options, "--eta", "0.5")
    assert "--eta cannot be followed" in fails(capsys, *wrong)


def test_options_reach_the_models(
    weights: Path, clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, dict[str, Any]] = {}

    def spy(model: Any) -> Any:
        original = model.from_pretrained.__func__

        def load(cls: Any, *arguments: Any, **options: Any) -> Any:
            seen[cls.__name__] = options
            return original(cls, *arguments, **options)

        return classmethod(load)

    for model in (WanConsistencyModel, SDXLConsistencyModel):
        monkeypatch.setattr(model, "from_pretrained", spy(model))
    options = (
        *("--weights", weights, "--problem", "B", "--prompt", "a high resolution"),
        *("--offload", "always", "--frame-batch", "2", "--tile", "64"),
        *("--dtype", "bfloat16", "--offline"),
    )
    assert run(*restore(clean, tmp_path / "out.mp4", *options)) == 0
    assert seen["SDXLConsistencyModel"]["frame_batch"] == 2
    assert "frame_batch" not in seen["WanConsistencyModel"]
    for found in seen.values():
        assert found["prompt"] == "a high resolution"
        assert found["offload"] is True
        assert found["dtype"] == torch.bfloat16
        assert (found["tiling"].side, found["tiling"].overlap) == (64, 16)
        assert found["local_files_only"] is True


def test_running_out_of_memory_names_options(
    weights: Path,
    clean: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any) -> None:
        msg = (
            "out of memory on cuda:0 in the autoencoder. Settings that need less, the "
            "cheapest first: `frame_batch=1` (fewer); `offload=True` (one); "
            "`tiling=Tiles(side=...)` (smaller); `dtype=torch.bfloat16` (half)."
        )
        raise OutOfMemory(msg)

    monkeypatch.setattr(SDXLConsistencyModel, "encode", fail)
    options = ("--weights", weights, "--problem", "B")
    error = fails(capsys, *restore(clean, tmp_path / "out.mp4", *options))
    for option in (
        "--frame-batch 1 (fewer)",
        "--offload always (one)",
        "--tile (smaller)",
        "--dtype bfloat16 (half)",
    ):
        assert option in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--weights", "nowhere"), "--weights nowhere lacks Wan-AI/Wan2.1"),
        (("--tile", "8"), "--tile must be 64 or more; got 8"),
        (("--revision", "a/b=main"), "--revision names a/b; the repositories in use"),
        (
            ("--weights", "here", "--revision", f"{WAN}=main"),
            "--revision is for the Hub",
        ),
    ],
)
def test_mistakes_are_refused_before_anything_is_read(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    wrong = restore(tmp_path / "missing.mp4", tmp_path / "out.mp4", *options)
    assert message in fails(capsys, *wrong)


@pytest.mark.parametrize(
    "option", ["--weights", "--prompt", "--frame-batch", "--tile", "--dtype"]
)
def test_options_of_the_published_models_need_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    value = "float32" if option == "--dtype" else "64"
    arguments = ("restore", tmp_path / "a.mp4", "-o", tmp_path / "b.mp4", option, value)
    assert f"{option} is for --model wan" in fails(capsys, *arguments)


def test_a_missing_library_names_the_extra(
    tmp_path: Path,
    clean: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("diffusers", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, name, None)
    for arguments in (
        restore(clean, tmp_path / "out.mp4"),
        ("download",),
        ("info", "--model", "wan"),
    ):
        assert "pip install 'deepinv-lvtino[diffusers]'" in fails(capsys, *arguments)


def test_a_checkpoint_that_does_not_fit_is_the_users_mistake(
    weights: Path, clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(weights, folder)
    torch.save(
        {"generator": {"model.x": torch.zeros(2)}},
        folder / "tianweiy/CausVid/bidirectional_checkpoint2/model.pt",
    )
    options = ("--weights", folder, "--problem", "B")
    error = fails(capsys, *restore(clean, tmp_path / "out.mp4", *options))
    assert "does not fit WanTransformer3DModel" in error
    assert "1 unexpected: x" in error
    assert not (tmp_path / "out.mp4").exists()


# -- download --------------------------------------------------------------------------


def fetched(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_download_into_the_cache_and_restore_without_a_network(
    hub: checkpoints.Hub,
    clean: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("download") == 0
    printed = capsys.readouterr().out
    assert printed.count(f"(commit {checkpoints.COMMIT})") == 5
    found = fetched(hub.cache)
    below = f"snapshots/{checkpoints.COMMIT}"
    assert f"tianweiy/CausVid/{below}/bidirectional_checkpoint2/model.pt" in found
    assert f"{WAN}/{below}/text_encoder/model.safetensors" in found
    # the weights of the base models are not needed: the checkpoints replace them
    assert f"{WAN}/{below}/transformer/config.json" in found
    assert not [name for name in found if "transformer/diffusion" in name]
    assert not [name for name in found if "unet/diffusion" in name]
    hub.online = False
    options = ("--problem", "B", "--offline")
    assert run(*restore(clean, tmp_path / "out.mp4", *options)) == 0
    report = report_of(tmp_path / "out.json")["weights"]
    assert set(report["commits"].values()) == {checkpoints.COMMIT}
    assert len(report["commits"]) == 5


def test_download_into_a_folder_for_restore(
    hub: checkpoints.Hub, clean: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "weights"
    assert run("download", "wan", "--to", folder) == 0
    assert fetched(folder) >= {
        "tianweiy/CausVid/bidirectional_checkpoint2/model.pt",
        f"{WAN}/vae/config.json",
    }
    assert not (folder / SDXL).exists() and not hub.cache.exists()
    options = ("--weights", folder, "--problem", "B", "--eta", "1")
    assert run(*restore(clean, tmp_path / "out.mp4", *options)) == 0


def test_revisions_are_passed_on(
    hub: checkpoints.Hub, clean: Path, tmp_path: Path
) -> None:
    pinned = ("--revision", f"{WAN}={checkpoints.COMMIT}")
    pinned += ("--revision", f"madebyollin/sdxl-vae-fp16-fix={checkpoints.COMMIT}")
    expected = {
        WAN: checkpoints.COMMIT,
        "tianweiy/CausVid": None,
        SDXL: None,
        "tianweiy/DMD2": None,
        "madebyollin/sdxl-vae-fp16-fix": checkpoints.COMMIT,
    }
    assert run("download", *pinned) == 0
    assert {call["repo"]: call["revision"] for call in hub.calls} == expected
    hub.calls.clear()
    assert run(*restore(clean, tmp_path / "out.mp4", "--problem", "B", *pinned)) == 0
    assert {call["repo"]: call["revision"] for call in hub.calls} == expected


def test_download_says_what_went_wrong(
    hub: checkpoints.Hub,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = fails(capsys, "download", "wan", "--revision", f"{WAN}=v9")
    assert f"{WAN} cannot be fetched" in error and "Revision Not Found" in error
    error = fails(capsys, "download", "wan", "--revision", f"{SDXL}=main")
    assert f"--revision names {SDXL}" in error and "tianweiy/CausVid" in error
    error = fails(capsys, "download", "--offline")
    assert "without --offline" in error
    # a repository that has lost a file
    hub.remote = tmp_path / "remote"
    shutil.copytree(weights, hub.remote)
    (hub.remote / "tianweiy/DMD2/dmd2_sdxl_4step_unet_fp16.bin").unlink()
    error = fails(capsys, "download", "sdxl")
    assert "tianweiy/DMD2 cannot be fetched" in error or "holds no dmd2" in error


def test_interrupted_connections_are_the_networks_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub

    transport = getattr(huggingface_hub.errors, "HTTPError", OSError)

    def broken(*_: Any, **__: Any) -> str:
        msg = "peer closed connection"
        raise transport(msg)

    monkeypatch.setattr("huggingface_hub.snapshot_download", broken)
    error = fails(capsys, "download", "wan")
    assert "peer closed connection" in error and "goes on from there" in error


def test_restore_without_weights_names_download(
    hub: checkpoints.Hub,
    clean: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.online = False
    arguments = restore(clean, tmp_path / "out.mp4", "--problem", "B")
    error = fails(capsys, *arguments)
    assert "CausVid" in error and "`deepinv-lvtino download`" in error
    assert "cached snapshot" in error


@pytest.mark.parametrize("wrong", [["flux"], ["--revision", "main"]])
def test_wrong_arguments_of_download(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["download", *wrong])
    assert stop.value.code == 2
    assert "expected" in capsys.readouterr().err


# -- info ------------------------------------------------------------------------------


def test_info_estimates_the_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gib = 2**30
    found = {
        "wan": MemoryEstimate(
            10 * gib,
            {"network": 2 * gib, "autoencoder": gib},
            {"encode": 3 * gib, "denoise": 4 * gib, "decode": 5 * gib},
        ),
        "sdxl": MemoryEstimate(
            gib,
            {"network": 6 * gib, "autoencoder": gib},
            {"encode": gib, "denoise": 2 * gib, "decode": gib},
        ),
    }
    asked = []

    def estimate(name: str, *size: int) -> MemoryEstimate:
        asked.append((name, *size))
        return found[name]

    monkeypatch.setattr(_models, "estimate_memory", estimate)
    assert run("info", "--model", "wan", "--size", "256x128", "--frames", "5") == 0
    assert asked == [("wan", 5, 128, 256), ("sdxl", 5, 128, 256)]
    lines = capsys.readouterr().out.splitlines()[-5:]
    assert "memory for 5 frames of 256x128" in lines[0]
    assert lines[1].split() == ["weights", "prompt", "encode", "jump", "decode"]
    assert lines[2].split() == ["wan", "3.0", "10.0", "3.0", "4.0", "5.0"]
    assert lines[3].split() == ["sdxl", "7.0", "1.0", "1.0", "2.0", "1.0"]
    # all weights and the largest activation; the largest network with its own; prompts
    assert "15.0 with --offload never, 8.0 with --offload always" in lines[4]
    assert "10.0 for the prompt" in lines[4]


def test_what_download_fetches_is_what_restore_reads() -> None:
    for name, default in (
        ("wan", WanConsistencyModel.from_pretrained),
        ("sdxl", SDXLConsistencyModel.from_pretrained),
    ):
        pretrained, checkpoint = default.__defaults__
        repositories = _models.WEIGHTS[name]
        assert pretrained in repositories
        owner, repository, file = checkpoint.split("/", 2)
        assert repositories[f"{owner}/{repository}"] == [file]
