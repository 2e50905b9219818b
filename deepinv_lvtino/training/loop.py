r"""The training loop: optimisers, moving average, checkpoints and the loss curve."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepinv_lvtino._schema import (
    SchemaError,
    choice,
    integer,
    listing,
    number,
    optional,
    record,
    table,
    text,
    wrong,
)
from deepinv_lvtino.models._networks import check_names
from deepinv_lvtino.models._weight_files import UNREADABLE, load_tensors
from deepinv_lvtino.models._weight_files import reason_of as _reason
from deepinv_lvtino.models.tiny import TinyConsistencyModel
from deepinv_lvtino.models.tiny_network import TinyNetwork, fast_dtype
from deepinv_lvtino.training.data import PoolClips
from deepinv_lvtino.training.losses import (
    NUM_STEPS,
    consistency_loss,
    denoising_loss,
)
from deepinv_lvtino.utils import check_integer, check_number, check_seed


@dataclass(frozen=True)
class TrainingOptions:
    r"""
    Settings of a training run.

    :param str stage: ``"denoise"`` (stage 1) or ``"consistency"`` (stage 2).
    :param int batch_size: clips in a batch.
    :param float minutes: length of the run; the learning rate falls to zero at its end.
        Counted over all resumed parts.
    :param int steps: largest number of steps, or 0 for no limit; with a number, the
        learning rate follows the steps and not the clock, and a run on one device is
        repeatable.
    :param float learning_rate: of Muon, for the convolutions' kernels.
    :param float adam_rate: of AdamW, for everything else.
    :param int warmup: steps of linear rise of both.
    :param float decay: of the moving average.
    :param int seed: seed of noise and crops.
    :param bool compile: compile the network; pays on long runs.
    """

    stage: str = "denoise"
    batch_size: int = 8
    minutes: float = 60.0
    steps: int = 0
    learning_rate: float = 1e-2
    adam_rate: float = 6e-3
    warmup: int = 100
    decay: float = 0.998
    seed: int = 0
    compile: bool = False

    def __post_init__(self) -> None:
        if self.stage not in ("denoise", "consistency"):
            msg = f"`stage` must be 'denoise' or 'consistency'; got {self.stage!r}."
            raise ValueError(msg)
        for name in ("batch_size", "steps", "warmup"):
            check_integer(name, getattr(self, name))
        check_seed("seed", self.seed)
        for name in ("learning_rate", "adam_rate", "minutes"):
            check_number(name, getattr(self, name))
        check_number("decay", self.decay, least=0.0, most=1.0)
        if self.warmup < 1 or min(self.learning_rate, self.adam_rate) <= 0:
            msg = (
                "`warmup`, `learning_rate` and `adam_rate` must be positive; got "
                f"{self.warmup}, {self.learning_rate} and {self.adam_rate}."
            )
            raise ValueError(msg)
        if self.batch_size < 1 or self.minutes <= 0 or self.steps < 0:
            msg = (
                "`batch_size` and `minutes` must be positive and `steps` not negative; "
                f"got {self.batch_size}, {self.minutes} and {self.steps}."
            )
            raise ValueError(msg)


class Trainer:
    r"""
    Trains a network in place; resumes from the checkpoint of its folder if there is one.

    Convolutions in bfloat16 (autocast) where the hardware computes in it, weights and
    optimiser in float32. The folder
    receives ``checkpoint.pt`` (everything needed to resume, replaced as a whole) and
    ``loss.jsonl`` (step, minutes, loss).

    :param TinyNetwork network: the network; for stage 2, that of stage 1.
    :param PoolClips clips: source of clips.
    :param str, pathlib.Path folder: where the checkpoint is kept.
    :param TrainingOptions options: settings.
    :param TinyNetwork teacher: denoiser to distil in stage 2; by default the network as it
        comes. With one, stage 2 goes on from its own weights.
    :raises ImportError: if PyTorch is too old to have the optimiser Muon
        :footcite:p:`jordan2024muon`.
    :raises ValueError: if the folder holds a run of the other stage, or a checkpoint that
        is damaged.

    |sep|

    .. footbibliography::
    """

    def __init__(
        self,
        network: TinyNetwork,
        clips: PoolClips,
        folder: str | Path,
        options: TrainingOptions,
        teacher: TinyNetwork | None = None,
    ) -> None:
        self.network = network
        self.options = options
        self.clips = clips
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.device = next(network.parameters()).device
        self.average = copy.deepcopy(network).requires_grad_(False)
        self.teacher = (
            copy.deepcopy(teacher or network).requires_grad_(False)
            if options.stage == "consistency"
            else None
        )
        if not hasattr(torch.optim, "Muon"):
            msg = (
                "training needs PyTorch 2.9 or newer, for the optimiser Muon; found "
                f"{torch.__version__}. Using the trained models does not."
            )
            raise ImportError(msg)
        kernels = [p for name, p in network.named_parameters() if _is_kernel(name, p)]
        others = [
            p for name, p in network.named_parameters() if not _is_kernel(name, p)
        ]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                kernels,
                lr=options.learning_rate,
                weight_decay=0.0,
                momentum=0.95,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(
                others, lr=options.adam_rate, betas=(0.9, 0.99), weight_decay=0.0
            ),
        ]
        self.generator = torch.Generator(self.device).manual_seed(options.seed)
        self.step = 0
        self.seconds = 0.0
        if self.checkpoint.exists():
            self._load()

    @property
    def checkpoint(self) -> Path:
        """The checkpoint file."""
        return self.folder / "checkpoint.pt"

    @property
    def progress(self) -> float:
        """Part of the run that is done, from 0 to 1."""
        if self.options.steps:
            return min(self.step / self.options.steps, 1.0)
        return min(self.seconds / (60 * self.options.minutes), 1.0)

    def run(
        self,
        log_every: int = 50,
        save_every: float = 120.0,
        check: Callable[[], object] | None = None,
        check_every: float = 600.0,
    ) -> TinyNetwork:
        r"""
        Train to the end of the run.

        :param int log_every: steps between two entries of the loss curve.
        :param float save_every: seconds between two checkpoints.
        :param Callable check: called with nothing from time to time, to measure
            ``average``.
        :param float check_every: seconds between two such calls.
        :return: (TinyNetwork) the moving average of the network.
        """
        start, before = time.monotonic(), self.seconds
        saved = checked = start
        total, count = torch.zeros((), device=self.device), 0
        live, teacher = self._compiled(self.network), self._compiled(self.teacher)
        # where bfloat16 is only emulated it is many times slower than float32
        dtype = fast_dtype(self.device)
        half = dtype != torch.float32
        batches = self._batches()
        torch.backends.cudnn.benchmark = True  # all batches have one shape
        while self.progress < 1:
            latent = self._encode(next(batches).to(self.device))
            with torch.autocast(
                self.device.type, dtype if half else None, enabled=half
            ):
                value = self._loss(live, teacher, latent)
            value.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self._update()
            total, count = total + value.detach(), count + 1
            now = time.monotonic()
            self.seconds = before + now - start
            if self.step % log_every == 0:
                self._log(float(total) / count)
                total, count = torch.zeros_like(total), 0
            if now - saved > save_every:
                self._save()
                saved = now
            if check is not None and now - checked > check_every:
                check()
                checked = time.monotonic()
        batches.close()
        self._save()
        return self.average

    def _batches(self) -> Generator[Tensor]:
        """Batches, cut while the device computes with the one before."""
        size = self.options.batch_size
        with ThreadPoolExecutor(1) as executor:
            coming = executor.submit(self.clips.batch, size)
            while True:
                batch = coming.result()
                coming = executor.submit(self.clips.batch, size)
                yield batch

    def _compiled(self, network: nn.Module | None) -> Any:
        if network is None or not self.options.compile:
            return network
        return torch.compile(network, dynamic=False)

    def _loss(
        self, live: nn.Module, teacher: nn.Module | None, latent: Tensor
    ) -> Tensor:
        if teacher is None:
            return denoising_loss(live, latent, self.generator).mean()
        # several points on each trajectory; the denoiser is kept in practice meanwhile
        part = -(-len(latent) // NUM_STEPS)
        denoising = denoising_loss(live, latent[-part:], self.generator).mean()
        jump = consistency_loss(live, teacher, latent[:part], self.generator)
        return jump.mean() + 0.25 * denoising

    def _encode(self, clips: Tensor) -> Tensor:
        return TinyConsistencyModel(self.network).encode((clips + 1) / 2)

    def _update(self) -> None:
        rise = min((self.step + 1) / self.options.warmup, 1.0)
        fall = 0.5 * (1 + math.cos(math.pi * self.progress))
        rates = (self.options.learning_rate, self.options.adam_rate)
        for optimizer, rate in zip(self.optimizers, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * rise * fall
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(self.options.decay, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()),
                list(self.network.parameters()),
                1 - decay,
            )

    def _log(self, loss: float) -> None:
        entry = {"step": self.step, "minutes": self.seconds / 60, "loss": loss}
        with (self.folder / "loss.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def _save(self) -> None:
        state = {
            "options": asdict(self.options),
            "config": asdict(self.network.config),
            "step": self.step,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "teacher": self.teacher.state_dict() if self.teacher else None,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "generator": self.generator.get_state(),
            "device": self.device.type,
        }
        temporary = self.checkpoint.with_suffix(".part")
        torch.save(state, temporary)
        temporary.replace(self.checkpoint)

    def _load(self) -> None:
        state = read_checkpoint(self.checkpoint)
        if state["options"]["stage"] != self.options.stage:
            msg = (
                f"`folder` holds a checkpoint of stage {state['options']['stage']!r}; "
                f"this run is of stage {self.options.stage!r}: name another folder."
            )
            raise ValueError(msg)
        networks = {"network": self.network, "average": self.average}
        if self.teacher is not None:
            networks["teacher"] = self.teacher
        for name, network in networks.items():
            check_names(network, state[name], f"{self.checkpoint} (`{name}`)")
        self.step, self.seconds = state["step"], float(state["seconds"])
        try:
            optimizers = zip(self.optimizers, state["optimizers"], strict=True)
            for optimizer, saved in optimizers:
                optimizer.load_state_dict(saved)
            if state["device"] == self.device.type:
                self.generator.set_state(state["generator"])
            else:  # another kind of device has other random numbers
                self.generator.manual_seed(self.options.seed + self.step)
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise _damaged(self.checkpoint, _reason(error)) from error
        for name, network in networks.items():
            network.load_state_dict(state[name])
        # the crops before the interruption are not drawn a second time
        self.clips.reseed(self.options.seed + self.step)


def read_checkpoint(path: Path) -> dict[str, Any]:
    r"""
    A checkpoint, every field checked.

    :param pathlib.Path path: the file.
    :return: (dict) what it holds.
    :raises ValueError: if it is damaged, or no checkpoint of this program; the message
        names the file and the field.
    """
    try:
        state = load_tensors(path)
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # it is not there, or may not be read
        raise _damaged(path, _reason(error)) from error
    try:
        _CHECKPOINT("", state)
    except SchemaError as error:
        raise _damaged(path, str(error).removesuffix(".")) from error
    return state


def _damaged(path: Path, reason: str) -> ValueError:
    msg = (
        f"{path} is damaged, or no checkpoint of this training ({reason}). Remove it to "
        "start again, or name another folder."
    )
    return ValueError(msg)


def _tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise wrong(name, "a tensor", value)


def _weights(name: str, value: Any) -> None:
    # PyTorch's ordered dictionary is one too
    table(_tensor, 100_000)(name, value)


def _state_of_optimizer(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise wrong(name, "an object", value)


_CHECKPOINT = record(
    {
        "options": record({"stage": choice("denoise", "consistency")}),
        "config": record({}),
        "step": integer(0, 10**12),
        "seconds": number(0, 1e12),
        "network": _weights,
        "average": _weights,
        "teacher": optional(_weights),
        "optimizers": listing(_state_of_optimizer, 2, shortest=2),
        "generator": _tensor,
        "device": text(20),
    }
)


def _is_kernel(name: str, parameter: Tensor) -> bool:
    """Whether Muon trains it: kernels inside the network, not its ends or embedding."""
    outside = name.startswith(("enter", "leave", "embed")) or "modulation" in name
    return parameter.ndim == 2 and not outside
