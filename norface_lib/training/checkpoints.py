"""The state of a training, and its two newest checkpoints, from which it goes on."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from norface_lib.common.errors import CheckpointError
from norface_lib.common.files import write_atomically
from norface_lib.training.optimizer import TrainConfig, parameter_groups


def older(path: Path) -> Path:
    """Place of the checkpoint before the one at ``path``."""
    return path.with_name(f"{path.stem}.before{path.suffix}")


class Run:
    """The state of a training that a checkpoint holds."""

    def __init__(self, model: nn.Module, config: TrainConfig):
        self.model = model
        self.config = config
        self.step = 0
        groups = parameter_groups(model, config.weight_decay, config.layer_decay)
        # one kernel for all of a step: small networks would wait for the loop over their tensors
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
        self.average = (
            AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.average))
            if config.average
            else None
        )
        self._damaged = False  # is the newest checkpoint

    @property
    def finished(self) -> bool:
        return self.step >= self.config.steps

    def finish(self) -> None:
        """Puts the averaged weights into the model and drops what only training needs."""
        if self.average:
            self.model.load_state_dict(self.average.module.state_dict())
        self.average = self.optimizer = None

    def save(self, path: Path) -> None:
        """Writes a checkpoint. The newest so far becomes the `older` one; a finished training,
        which is written once and never again, needs none."""
        state = {
            "config": json.dumps(asdict(self.config)),
            "step": self.step,
            "model": self.model.state_dict(),
        }
        state |= {name: part.state_dict() for name, part in self._training_parts().items()}

        def write(part: Path) -> None:
            with part.open("wb") as file:  # given a path, torch hides why it cannot write
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())  # on the disk before it takes the place of another one
            if path.exists() and not self._damaged:
                os.replace(path, older(path))

        write_atomically(path, write)
        self._damaged = False
        if self.finished:
            older(path).unlink(missing_ok=True)

    def resume(self, path: Path) -> str:
        """Goes on from the newest checkpoint, or from the `older` one if that is damaged. Says
        which, or nothing if there is none.

        Raises :class:`CheckpointError` if none can be read, and for one of other settings or of
        another network.
        """
        existing = [each for each in (path, older(path)) if each.exists()]
        if not existing:
            return ""
        for checkpoint in existing:
            state = _read(checkpoint)
            if state is not None:
                break
        else:
            raise CheckpointError(f"{path}: {_UNREADABLE}; {_deleted(existing)}")
        self._take(state, checkpoint, existing)
        self._damaged = checkpoint != existing[0]
        if self.finished:
            return "trained already, used as it is"
        if self._damaged:
            return f"{path} is damaged; goes on from step {self.step}, the checkpoint before it"
        return f"goes on from step {self.step}"

    def _training_parts(self) -> dict[str, Any]:
        parts = {"optimizer": self.optimizer, "average": self.average}
        return {name: part for name, part in parts.items() if part is not None}

    def _take(self, state: dict[str, Any], path: Path, existing: list[Path]) -> None:
        """Takes over the state of a checkpoint, one of the ``existing`` ones."""
        try:
            # older checkpoints lack newer settings
            same = TrainConfig(**json.loads(state["config"])) == self.config
            if same:
                self.step = state["step"]
                self.model.load_state_dict(state["model"])
                if self.finished:
                    self.average = self.optimizer = None
                for name, part in self._training_parts().items():
                    part.load_state_dict(state[name])
        except Exception as error:  # torch raises many kinds for what does not fit
            raise CheckpointError(f"{path}: {_UNREADABLE}; {_deleted(existing)}") from error
        if not same:
            raise CheckpointError(
                f"{path}: was made with other settings; {_deleted(existing)}, or choose another "
                "folder"
            )


_UNREADABLE = "this checkpoint cannot be read or does not fit the network"


def _deleted(existing: list[Path]) -> str:
    """What to do about checkpoints that cannot be used."""
    before = f" and {existing[1].name} beside it" if len(existing) > 1 else ""
    return f"delete it{before} to start anew"


def _read(path: Path) -> dict[str, Any] | None:
    """The state in a checkpoint; None if the file is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many kinds for a damaged file
        return None
