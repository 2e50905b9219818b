r"""Every piece of code on the pages runs: Python as it is, commands on small files."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import checkpoints
import deepinv_lvtino
from deepinv_lvtino import cli, make_problem
from deepinv_lvtino.cli._parser import build_parser
from deepinv_lvtino.datasets import procedural_clip, write_video
from deepinv_lvtino.models import (
    SDXLConsistencyModel,
    TinyVideoDecoder,
    WanConsistencyModel,
)
from pages import ROOT, Block, blocks, commands, pages

PAGES = pages()
CODE = [(name, block) for name, path in PAGES.items() for block in blocks(path)]

pytestmark = pytest.mark.skipif(not PAGES, reason="needs the source tree")

# -- Python ----------------------------------------------------------------------------

#: Sizes that the pages use, and those that are run.
SMALL = {
    "(3, 25, 192, 320)": "(3, 5, 16, 24)",
    "(3, 25, 768, 1280)": "(3, 5, 16, 32)",
    "(3, 9, 64, 96)": "(3, 5, 16, 24)",
    "num_frames=9, height=64, width=96": "num_frames=5, height=16, width=24",
    "num_samples=8": "num_samples=2",
}

#: What a page supposes to be there: the reader's own measurement.
SUPPOSED = {"docs/source/user_guide/real_models.rst": "B"}


def own_measurement(problem: str) -> dict[str, Any]:
    physics = make_problem(problem, (3, 5, 16, 24), sigma=0.001)
    return {"physics": physics, "y": physics(procedural_clip(5, 16, 24)[None])}


def checked(function: Callable[..., Any], stand_in: Callable[..., Any]) -> Any:
    r"""A stand-in that refuses arguments that the function does not have."""

    def call(*args: Any, **kwargs: Any) -> Any:
        inspect.signature(function).bind(*args, **kwargs)
        return stand_in(*args, **kwargs)

    return call


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    wan = checkpoints.wan_folder(tmp_path_factory.mktemp("wan"))
    transformer = checkpoints.wan_transformer(seed=7)
    return {
        "wan": wan,
        "causvid": checkpoints.save_causvid(wan / "model.pt", transformer),
        "sdxl": checkpoints.sdxl_folder(tmp_path_factory.mktemp("sdxl")),
    }


@pytest.fixture
def no_downloads(
    small_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    r"""Small models with random weights in place of what would be fetched."""
    wan, sdxl = (
        WanConsistencyModel.from_pretrained,
        SDXLConsistencyModel.from_pretrained,
    )

    def small_wan(
        *args: Any, checkpoint: Any = None, autoencoder: Any = None, **options: Any
    ) -> Any:
        if "decoder" in options:
            options["decoder"] = TinyVideoDecoder(4, (4, 4, 4, 4))
        return wan(small_models["wan"], small_models["causvid"], **_local(options))

    def small_sdxl(
        *args: Any, checkpoint: Any = None, autoencoder: Any = None, **options: Any
    ) -> Any:
        return sdxl(small_models["sdxl"], None, autoencoder=None, **_local(options))

    monkeypatch.setattr(WanConsistencyModel, "from_pretrained", checked(wan, small_wan))
    monkeypatch.setattr(
        SDXLConsistencyModel, "from_pretrained", checked(sdxl, small_sdxl)
    )
    _small_pipelines(monkeypatch)


def _local(options: dict[str, Any]) -> dict[str, Any]:
    names = ("revision", "checkpoint_revision", "cache_dir", "device", "dtype")
    kept = {key: value for key, value in options.items() if key not in names}
    return kept | {"device": "cpu", "local_files_only": True}


class Pipeline:
    r"""What the guide uses of a pipeline of diffusers."""

    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)

    def get_guidance_scale_embedding(self, scale: Any, size: int) -> torch.Tensor:
        return torch.zeros(len(scale), size)


def _small_pipelines(monkeypatch: pytest.MonkeyPatch) -> None:
    import diffusers

    from test_adapter import ltx

    def stable_diffusion(*args: Any, **kwargs: Any) -> Pipeline:
        unet = checkpoints.sdxl_unet(
            addition_embed_type=None,
            projection_class_embeddings_input_dim=None,
            time_cond_proj_dim=6,
        )
        width = unet.config.cross_attention_dim
        return Pipeline(
            unet=unet,
            vae=checkpoints.sdxl_autoencoder(),
            encode_prompt=lambda *_: (torch.zeros(1, 5, width), None),
        )

    def ltx_pipeline(*args: Any, **kwargs: Any) -> Pipeline:
        model = ltx()
        told = model.conditioning
        return Pipeline(
            transformer=model.network,
            vae=model.autoencoder,
            encode_prompt=lambda *_, **__: (
                told["encoder_hidden_states"],
                told["encoder_attention_mask"],
                None,
                None,
            ),
        )

    for name, stand_in in (
        ("StableDiffusionPipeline", stable_diffusion),
        ("LTXPipeline", ltx_pipeline),
    ):
        pipeline = getattr(diffusers, name)
        monkeypatch.setattr(
            pipeline, "from_pretrained", checked(pipeline.from_pretrained, stand_in)
        )


@pytest.mark.parametrize(
    "name", [n for n in PAGES if any(b.language == "python" for b in blocks(PAGES[n]))]
)
def test_python_blocks_run(
    name: str, no_downloads: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "page"}
    if name in SUPPOSED:
        namespace |= own_measurement(SUPPOSED[name])
    for block in blocks(PAGES[name]):
        if block.language != "python":
            continue
        code = block.code
        if '"small.mp4"' in code:
            input_file(Path("small.mp4"), ["", "restore", "--problem", "A"])
        for large, small in SMALL.items():
            code = code.replace(large, small)
        # errors name the page and the line
        compiled = compile("\n" * (block.line - 1) + code, name, "exec")
        exec(compiled, namespace)


def test_models_of_the_guide_work(
    no_downloads: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "docs/source/user_guide/real_models.rst"
    namespace: dict[str, Any] = own_measurement("B")
    for block in blocks(PAGES[name]):
        if block.language == "python":
            exec(block.code, namespace)
    x = procedural_clip(9, 32, 32)[None]
    for model in (namespace["image_model"], namespace["video_model"]):
        assert model.sae(x, 500.0).shape == x.shape


# -- commands --------------------------------------------------------------------------

SIZE, FRAMES = (32, 48), 9
REPLACED = {"--size": f"{SIZE[1]}x{SIZE[0]}", "--frames": str(FRAMES), "--samples": "2"}
REPLACED_FOR_BENCHMARK = REPLACED | {"--frames": "4", "--count": "1"}
REPLACED_FOR_TUNE = {name: REPLACED[name] for name in ("--size", "--frames")}
REPLACED_FOR_TUNE |= {"--trials": "2"}
#: Commands that reach out of the folder they run in, or belong to other tests.
LEFT_OUT = ("pip", "tox", "venv", "source", "download")
#: Scores whose networks have weights to fetch.
FETCHED = ("lpips", "fvmd")

SHELL = [(name, block) for name, block in CODE if block.language in ("bash", "console")]


def input_file(path: Path, words: list[str]) -> None:
    r"""The file that a command reads: a clean clip, or a measurement of its problem."""
    path.unlink(missing_ok=True)
    x = procedural_clip(FRAMES, *SIZE)[None]
    if words[1].startswith("restore") and "--simulate" not in words:
        option = "--problem" if "--problem" in words else "--operator"
        name = words[words.index(option) + 1]
        x = make_problem(name, tuple(x.shape[1:])).A(x).clamp(0, 1)
    write_video(path, x[0], 24)


def provide_inputs(words: list[str], weights: Path) -> None:
    r"""The files and folders that a command reads, where they are not there yet."""
    for before, word in zip(words[:-1], words[1:], strict=True):
        if word.endswith(".mp4") and before != "-o" and not Path(word).exists():
            input_file(Path(word), words)
        if word.startswith("adobe240:"):
            folder = Path(word.partition(":")[2])
            folder.mkdir()
            input_file(folder / "one.mp4", words)
    if "wan" in words and not Path("weights").exists():
        Path("weights").symlink_to(weights, target_is_directory=True)


def made_small(words: list[str]) -> list[str]:
    r"""The command with a small size, few frames and few samples."""
    others = {"benchmark": REPLACED_FOR_BENCHMARK, "tune": REPLACED_FOR_TUNE}
    replaced = others.get(words[1], REPLACED)
    result = [
        replaced.get(before, word)
        for before, word in zip(["", *words[:-1]], words, strict=True)
        if word not in FETCHED
    ]
    if "wan" in words and words[1] != "info" and "--weights" not in words:
        result += ["--weights", "weights"]
    if words[1] in ("demo", "benchmark", "tune"):
        for option, value in replaced.items():
            if option not in words:
                result += [option, value]
    return result


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    r"""What ``download --to`` leaves, with small networks of random weights."""
    return checkpoints.published_folder(tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize(
    "name, block", SHELL, ids=[f"{name}:{block.line}" for name, block in SHELL]
)
def test_commands_run(
    name: str,
    block: Block,
    small_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in commands(block):
        if any(part in words for part in LEFT_OUT):
            continue
        if words[:3] == ["python", "-m", "deepinv_lvtino.training"]:
            check_training_command(words[3:], capsys)
            continue
        assert words[0] == "deepinv-lvtino", f"{name} shows the command {words}"
        if any(word.endswith(":FOLDER") for word in words):  # data of the reader's
            assert build_parser().parse_args(words[1:])
            continue
        provide_inputs(words, small_weights)
        assert cli.main(made_small(words)[1:]) == 0
        if "-o" in words:
            assert Path(words[words.index("-o") + 1]).exists()
    assert "error" not in capsys.readouterr().err


def check_training_command(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    r"""Training takes minutes: here only its options are compared with the help."""
    from deepinv_lvtino.training.__main__ import main

    with pytest.raises(SystemExit) as stop:
        main([words[0], "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in words if word.startswith("--"))


def test_there_is_code_of_each_kind() -> None:
    assert {block.language for _, block in CODE} <= {"python", "bash", "text", ""}
    assert SHELL


# -- the reference ---------------------------------------------------------------------


def public_modules() -> list[str]:
    found = (module.name for module in pkgutil.iter_modules(deepinv_lvtino.__path__))
    named = [name for name in found if not name.startswith("_")]
    return [
        name
        for name in named
        if hasattr(importlib.import_module(f"deepinv_lvtino.{name}"), "__all__")
        and name != "cli"  # described on the page of the command line
    ]


@pytest.mark.parametrize("name", public_modules())
def test_every_public_name_is_in_the_reference(name: str) -> None:
    page = (ROOT / "docs" / "source" / "api" / f"{name}.rst").read_text(
        encoding="utf-8"
    )
    listed = set(re.findall(r"^ {3}(\w+)$", page, flags=re.M))
    listed |= set(re.findall(r"^\.\. py:data:: (\w+)$", page, flags=re.M))
    public = set(importlib.import_module(f"deepinv_lvtino.{name}").__all__)
    assert public - listed == set()


def test_every_page_of_the_reference_is_listed() -> None:
    folder = ROOT / "docs" / "source" / "api"
    index = (folder / "index.rst").read_text(encoding="utf-8")
    listed = set(re.findall(r"^ {3}(\w+)$", index, flags=re.M))
    assert set(public_modules()) <= listed
