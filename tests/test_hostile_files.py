r"""Files that are damaged, or made to do harm: refused by name, nothing unpickled."""

from __future__ import annotations

import importlib.util
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from deepinv_lvtino._schema import (
    SchemaError,
    choice,
    integer,
    listing,
    number,
    rate,
    read_json,
    record,
    table,
    text,
)
from deepinv_lvtino.cli._report import find_degrade_report
from deepinv_lvtino.models import _weight_files
from deepinv_lvtino.models._networks import build
from deepinv_lvtino.models._weight_files import read_file, read_folder
from deepinv_lvtino.models.tiny_network import TinyConfig, TinyNetwork
from deepinv_lvtino.models.tiny_weights import load_tiny, save_tiny
from deepinv_lvtino.training import PoolClips, Trainer, TrainingOptions
from deepinv_lvtino.training.footage import find_footage
from deepinv_lvtino.training.loop import read_checkpoint
from helpers import randn

CASES = Path(__file__).parents[2] / "shared" / "data" / "cases"
DEEP = "[" * 100_000

needs_diffusers = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason="needs diffusers"
)
needs_muon = pytest.mark.skipif(
    not hasattr(torch.optim, "Muon"), reason="needs the optimiser Muon"
)


def refused(function, *words):
    """The message of an error of the kinds a user is to see."""
    with pytest.raises((ValueError, TypeError)) as caught:
        function()
    message = str(caught.value)
    for word in words:
        assert word in message
    # PyTorch's and NumPy's advice to unpickle all the same
    for advice in (
        "weights_only",
        "allow_pickle",
        "arbitrary code",
        "add_safe_globals",
    ):
        assert advice not in message
    return message


class Harm:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


# -- weights -------------------------------------------------------------------------------


def rezip(path: Path, target: Path, compression: int) -> Path:
    """The same archive, its parts compressed."""
    with (
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(target, "w", compression) as archive,
    ):
        for part in source.infolist():
            archive.writestr(part.filename, source.read(part))
    return target


class TestWeights:
    @pytest.fixture
    def weights(self):
        return {f"l{i}.weight": randn(16, 8 + i, seed=i) for i in range(5)}

    @pytest.mark.parametrize("compression", (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    def test_an_archive_that_was_packed_again(self, weights, tmp_path, compression):
        torch.save({"generator": weights}, tmp_path / "plain.pt")
        path = rezip(tmp_path / "plain.pt", tmp_path / "again.pt", compression)
        found = read_file(path)
        assert set(found) == set(weights)
        assert all(torch.equal(found[name], weights[name]) for name in weights)

    def test_what_torch_wrote_is_mapped(self, weights, tmp_path, monkeypatch):
        torch.save(weights, tmp_path / "plain.pt")
        rezip(tmp_path / "plain.pt", tmp_path / "again.pt", zipfile.ZIP_DEFLATED)
        mapped = []
        original = torch.load

        def load(*args, **kwargs):
            mapped.append(kwargs["mmap"])
            return original(*args, **kwargs)

        monkeypatch.setattr(torch, "load", load)
        for name in ("plain.pt", "again.pt"):
            read_file(tmp_path / name)
        assert mapped == [True, False]

    @pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not on this machine")
    def test_the_reported_pair(self):
        plain, again = (read_file(CASES / f"{n}.pt") for n in ("plain", "rezipped"))
        assert len(plain) == 20
        assert all(torch.equal(plain[name], again[name]) for name in plain)

    def test_nothing_is_unpickled_and_no_advice_to(self, tmp_path):
        for count, value in enumerate(
            ({"w": Harm()}, Harm(), {"w": torch.nn.Linear(2, 2)})
        ):
            path = tmp_path / f"{count}.pt"
            torch.save(value, path)
            refused(lambda path=path: read_file(path), str(path), "safetensors")
        (tmp_path / "old.bin").write_bytes(pickle.dumps(Harm()))
        refused(lambda: read_file(tmp_path / "old.bin"), "old.bin", "safetensors")

    @pytest.mark.parametrize(
        "content", ("{", DEEP, "[]", '{"weight_map": [1]}', '{"weight_map": {"a": 5}}')
    )
    def test_index_of_several_files(self, tmp_path, content):
        name = "diffusion_pytorch_model.safetensors.index.json"
        (tmp_path / name).write_text(content)
        refused(lambda: read_folder(tmp_path), name)


# -- configurations ------------------------------------------------------------------------


@needs_diffusers
class TestConfigurations:
    WAN = {
        "_class_name": "WanTransformer3DModel",
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 4,
        "out_channels": 4,
        "text_dim": 8,
        "freq_dim": 8,
        "ffn_dim": 16,
        "num_layers": 1,
    }

    def build(self, folder, **changes):
        from diffusers import WanTransformer3DModel

        (folder / "config.json").write_text(json.dumps(self.WAN | changes))
        return build(WanTransformer3DModel, folder)

    def test_a_good_one_is_built(self, tmp_path):
        network = self.build(tmp_path)
        assert all(parameter.is_meta for parameter in network.parameters())
        assert not any(buffer.is_meta for buffer in network.buffers())

    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"rope_max_seq_len": 10**9}, "tables"),  # of 24 GB or more
            ({"rope_max_seq_len": 10**30}, "`rope_max_seq_len`"),
            ({"num_layers": 10**6}, "`num_layers`"),
            ({"ffn_dim": 2**31, "text_dim": 2**31}, "weights"),
            ({"num_attention_heads": 2**20, "attention_head_dim": 128}, "weights"),
            ({"patch_size": [1] * 5000}, "`patch_size`"),
            ({"num_layers": "many"}, "WanTransformer3DModel"),
            ({"num_attention_heads": None}, "WanTransformer3DModel"),
            ({"patch_size": {"a": "b"}}, "WanTransformer3DModel"),
            ({"num_layers": float("inf")}, "Infinity"),
            ({"num_layers": float("nan")}, "NaN"),
        ],
    )
    def test_nothing_is_built_of_a_bad_one(self, tmp_path, changes, word):
        refused(lambda: self.build(tmp_path, **changes), "config.json", word)

    @pytest.mark.parametrize("content", ("", "{", "[]", DEEP, '{"a": 1e400000000}'))
    def test_text_that_is_none(self, tmp_path, content):
        from diffusers import WanTransformer3DModel

        (tmp_path / "config.json").write_text(content)
        refused(lambda: build(WanTransformer3DModel, tmp_path), "config.json")


class TestTiny:
    CONFIG = TinyConfig(channels=(4, 6), blocks=(1, 1), embedding=4)

    def save(self, folder, config=None, weights=None):
        """A file with a configuration, or weights, of its own."""
        from safetensors.torch import save_file

        network = TinyNetwork(self.CONFIG)
        state = network.state_dict() if weights is None else weights
        path = folder / "model.safetensors"
        metadata = {} if config is None else {"tiny_config": config}
        save_file(state, path, metadata=metadata)
        return path

    def test_a_good_one(self, tmp_path):
        save_tiny(TinyNetwork(self.CONFIG), tmp_path / "model.safetensors")
        assert load_tiny(tmp_path / "model.safetensors").network.config == self.CONFIG

    @pytest.mark.parametrize(
        "config",
        [
            None,
            "{",
            DEEP,
            "[]",
            "{}",
            '{"channels": [4], "blocks": [1], "embedding": 1e999, "temporal": true}',
            '{"channels": [4], "blocks": [1], "embedding": 1e9, "temporal": true}',
            '{"channels": 4, "blocks": [1], "embedding": 4, "temporal": true}',
            '{"channels": [true], "blocks": [1], "embedding": 4, "temporal": true}',
            '{"channels": [4], "blocks": [1], "embedding": 4, "temporal": 1}',
            '{"channels": [4], "blocks": [1000000000], "embedding": 4, "temporal": true}',
            '{"channels": [4, 4], "blocks": [1], "embedding": 4, "temporal": true}',
            f'{{"channels": [{"9" * 5000}], "blocks": [1], "embedding": 4}}',
            json.dumps({"channels": [4] * 10**5, "blocks": [1], "embedding": 4}),
        ],
    )
    def test_sizes_that_are_none(self, tmp_path, config):
        refused(lambda: load_tiny(self.save(tmp_path, config)))

    def test_weights_of_another_network(self, tmp_path):
        config = json.dumps(
            {
                "channels": [4096] * 3,
                "blocks": [2] * 3,
                "embedding": 9,
                "temporal": True,
            }
        )
        # 7 GB of weights, were they built
        refused(lambda: load_tiny(self.save(tmp_path, config)), "enter.weight")

    def test_file_that_is_cut_short(self, tmp_path):
        path = tmp_path / "model.safetensors"
        save_tiny(TinyNetwork(self.CONFIG), path)
        path.write_bytes(path.read_bytes()[:-100])
        refused(lambda: load_tiny(path), "model.safetensors")


# -- training ------------------------------------------------------------------------------


def pool():
    return np.zeros((2, 3, 3, 16, 16), dtype=np.uint8)


@needs_muon
class TestTraining:
    CONFIG = TinyConfig(channels=(4,), blocks=(1,), embedding=4)

    def trainer(self, folder):
        options = TrainingOptions(batch_size=1, steps=1)
        clips = PoolClips([pool()], num_frames=3, size=16)
        return Trainer(TinyNetwork(self.CONFIG), clips, folder, options)

    @pytest.fixture
    def checkpoint(self, tmp_path):
        self.trainer(tmp_path).run()
        path = tmp_path / "checkpoint.pt"
        assert self.trainer(tmp_path).step == 1  # it is resumed as it is
        return path

    def test_every_field_is_checked(self, checkpoint):
        state = read_checkpoint(checkpoint)
        other = TinyNetwork(TinyConfig(channels=(6,), blocks=(1,), embedding=4))
        wrong = {
            "options": [None, {}, {"stage": "sleep"}, {"stage": ["denoise"]}],
            "config": [None, 3],
            "step": [None, -1, 2.5, True, 10**30],
            "seconds": [None, -1.0, float("nan"), float("inf"), "1"],
            "network": [None, {}, {"enter.weight": 3}, other.state_dict()],
            "average": [None, {}, other.state_dict()],
            "optimizers": [None, [], [{}, {}], [3, 4]],
            "generator": [None, torch.zeros(3), torch.zeros(3, dtype=torch.uint8)],
            "device": [None, 3],
        }
        for field, values in wrong.items():
            for value in values:
                torch.save(state | {field: value}, checkpoint)
                refused(lambda: self.trainer(checkpoint.parent), "checkpoint.pt")
            torch.save({k: v for k, v in state.items() if k != field}, checkpoint)
            refused(lambda: self.trainer(checkpoint.parent), "checkpoint.pt", field)

    def test_file_that_is_none(self, checkpoint):
        whole = checkpoint.read_bytes()
        for content in (b"", whole[:500], whole[:-500], pickle.dumps(Harm())):
            checkpoint.write_bytes(content)
            refused(lambda: self.trainer(checkpoint.parent), "checkpoint.pt", "Remove")
        torch.save({"step": Harm()}, checkpoint)
        refused(lambda: self.trainer(checkpoint.parent), "checkpoint.pt", "Remove")

    def test_pools(self, tmp_path):
        path = tmp_path / "pool.npy"
        np.save(path, pool())
        assert len(PoolClips([path], num_frames=3, size=16)) == 2
        whole = path.read_bytes()
        np.save(tmp_path / "objects.npy", np.array([Harm()]), allow_pickle=True)
        objects = (tmp_path / "objects.npy").read_bytes()
        np.savez(tmp_path / "archive.npz", pool())
        archive = (tmp_path / "archive.npz").read_bytes()
        for content in (b"", whole[:90], whole[:-900], objects, archive, b"text"):
            path.write_bytes(content)
            refused(lambda: PoolClips([path], num_frames=3, size=16), "pool.npy")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        DEEP,
        "[]",
        '{"clips": 3}',
        '{"clips": [3]}',
        '{"clips": [{}]}',
        '{"clips": [{"file": 3}]}',
        '{"clips": [{"file": ""}]}',
        '{"clips": [{"file": "/etc/hostname"}]}',
        '{"photos": [{"file": "photos/../../a.jpg"}]}',
        '{"photos": [{"file": "a.jpg", "flower": "yes"}]}',
        '{"photos": [{"file": "a.jpg", "size": NaN}]}',
    ],
)
def test_index_of_footage(tmp_path, content):
    (tmp_path / "index.json").write_text(content)
    refused(lambda: find_footage(tmp_path), "index.json")


# -- reports -------------------------------------------------------------------------------

REPORT = {
    "command": "degrade",
    "problem": "A",
    "grid": "deepinv",
    "measurement_error": 0.0015,
    "mask_seed": 3,
    "measurement": {"frames": 3, "height": 12, "width": 16, "fps": "30000/1001"},
    "original": {"frames": 9},
    "sha256": {"output": "0" * 64},
}


def changed(path: str, value) -> str:
    """The report with one field replaced, as text."""
    report = json.loads(json.dumps(REPORT))
    *parents, last = path.split(".")
    place = report
    for name in parents:
        place = place[name]
    place[last] = "@"
    return json.dumps(report).replace('"@"', value)


HUGE = "9" * 4000
WRONG_FIELDS = [
    (field, value)
    for field, values in {
        "problem": ("3", "null", f'"{HUGE}"', "[]"),
        "grid": ("null", '"left"', '["center"]', "{}"),
        "measurement_error": ("0", "-1", "1e30", "true", '"1"', HUGE, "null"),
        "mask_seed": ("-1", "1.5", "true", HUGE, '"3"'),
        "measurement": ("5", "[]", "{}", "null"),
        "measurement.frames": ("0", "-3", "2.0", "true", HUGE, "null", '"3"'),
        "measurement.height": ("0", "1e3", "100000000", "[12]"),
        "measurement.width": ("0", "1e3", "100000000", "[12]"),
        "measurement.fps": (
            "25",
            '"0"',
            '"1/0"',
            '"-25"',
            '"1e400000000"',
            '"nan"',
            '"inf"',
            f'"{HUGE}"',
            f'"1/{HUGE}"',
            '"25/"',
            '" 25"',
            "null",
            "[]",
        ),
        "original": ("9", "{}", "null"),
        "original.frames": ("0", "1.0", HUGE, "true"),
        "sha256": ("3", '{"output": 3}', f'{{"output": "{HUGE}"}}'),
    }.items()
    for value in values
]


class TestReports:
    @pytest.fixture
    def beside(self, tmp_path, capsys):
        def find(content):
            (tmp_path / "m.json").write_text(content)
            found = find_degrade_report(tmp_path / "m.mkv")
            return found, capsys.readouterr().out

        return find

    def test_a_good_one(self, beside, tmp_path):
        assert beside(json.dumps(REPORT)) == ((tmp_path / "m.json", REPORT), "")

    @pytest.mark.parametrize(("field", "value"), WRONG_FIELDS)
    def test_a_field_that_is_wrong_is_named(self, beside, field, value):
        found, said = beside(changed(field, value))
        assert found is None
        assert "m.json" in said
        assert "--problem" in said
        # a number of more digits than Python reads is no JSON
        assert f"`{field}" in said or value is HUGE
        assert len(said) < 600

    @pytest.mark.parametrize("value", ("NaN", "Infinity", "-Infinity", "1e400000000"))
    @pytest.mark.parametrize("field", ("measurement.fps", "measurement_error"))
    def test_numbers_that_are_not_finite(self, beside, field, value):
        found, said = beside(changed(field, value))
        assert found is None
        assert "finite" in said

    @pytest.mark.parametrize(
        "content",
        (DEEP, '{"a":' * 50_000, "{", "", "\0" * 50, b"\xff\xfe{"),
    )
    def test_text_that_is_none(self, beside, tmp_path, content):
        if isinstance(content, bytes):
            (tmp_path / "m.json").write_bytes(content)
            assert find_degrade_report(tmp_path / "m.mkv") is None
            return
        found, said = beside(content)
        assert found is None
        assert "is not used" in said

    @pytest.mark.parametrize("content", ("[]", "7", "{}", '{"command": "restore"}'))
    def test_of_another_program(self, beside, content):
        assert beside(content) == (None, "")

    @pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not on this machine")
    @pytest.mark.parametrize("case", ("report_hang", "report_inf", "report_deep"))
    def test_the_reported_ones(self, case, tmp_path, capsys):
        for file in (CASES / case).iterdir():
            shutil.copy(file, tmp_path / file.name)
        assert find_degrade_report(tmp_path / "m.mkv") is None
        assert "m.json is not used" in capsys.readouterr().out


class TestSchema:
    def test_size_is_bounded(self, tmp_path, monkeypatch):
        (tmp_path / "a.json").write_text('"' + "a" * 1000 + '"')
        monkeypatch.setattr("deepinv_lvtino._schema.MOST_BYTES", 500)
        refused(lambda: read_json(tmp_path / "a.json"), "a.json", "1002 bytes")

    @pytest.mark.parametrize(
        ("check", "good", "bad"),
        [
            (integer(1, 5), (1, 5), (0, 6, 1.0, True, "1", None)),
            (number(0, 1), (0, 0.5, 1), (-1, 2, float("nan"), False, "0")),
            (number(0, 1, above=True), (0.5, 1), (0,)),
            (text(3), ("", "abc"), ("abcd", 3)),
            (choice("a", "b"), ("a",), ("c", None, ["a"])),
            (rate, ("25", "24000/1001", "29.97"), ("0", "1/9999", "1e3", 25, "1/00")),
            (listing(integer(0, 1), 2, 1), ([0], [1, 0]), ([], [0, 0, 0], [2], {})),
            (table(integer(0, 1), 1), ({}, {"a": 1}), ({"a": 2}, {"a": 1, "b": 1}, [])),
            (record({"a": text()}), ({"a": "", "b": 0},), ({}, {"a": 1}, [])),
        ],
    )
    def test_checks(self, check, good, bad):
        for value in good:
            check("field", value)
        for value in bad:
            with pytest.raises(SchemaError, match="`field"):
                check("field", value)


def test_advice_of_pytorch_is_left_out():
    error = RuntimeError("Weights only load failed. Re-running with weights_only=False")
    assert _weight_files.reason_of(error) == "Weights only load failed"
    assert (
        _weight_files.reason_of(ValueError("set `weights_only` to False"))
        == "ValueError"
    )
