"""The training loop, the same for every kind of network."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from mmfusion.errors import DataError, ModelError
from mmfusion.train.alignment import Alignment, align_gradients, require_alignment, task_gradients
from mmfusion.train.board import Board
from mmfusion.train.hardware import device_name
from mmfusion.train.norm_statistics import retake_statistics
from mmfusion.train.optimisers import create_optimiser, create_schedule
from mmfusion.train.output import (
    LOG,
    RECORD,
    STATE,
    WEIGHTS,
    WEIGHTS_BEST,
    replace_file,
)
from mmfusion.train.processes import Processes, synchronised
from mmfusion.train.recipes import Loop, Optimiser
from mmfusion.train.samples import load_samples
from mmfusion.train.state import load_state, save_state
from mmfusion.train.step_log import StepLog
from mmfusion.train.task import Task, Validation

_Gradients = list[Tensor | None]


class Recipe(Protocol):
    """What the recipes of all kinds of networks have."""

    @property
    def loop(self) -> Loop:
        """How training runs."""

    @property
    def optimiser(self) -> Optimiser:
        """How weights follow gradients."""


class Trainer:
    """Trains the network of a task, and keeps all that it takes to go on after an interruption."""

    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        out: Path,
        processes: Processes,
        identity: Mapping[str, Any],
    ) -> None:
        """Set up the first step.

        Args:
            task: what to learn.
            recipe: how.
            out: folder that exists; gets weights, state, log, and pictures for TensorBoard.
            processes: that train together.
            identity: what makes this training this one; it goes on from states of the same only.

        Raises:
            ModelError: if gradients are to be aligned and cannot be.
        """
        self._task = task
        self._loop, self._settings = loop, optimiser = recipe.loop, recipe.optimiser
        if 0 < task.align_every <= loop.steps:
            require_alignment()
        self._out, self._processes = out, processes
        self._identity = dict(identity)
        self._network = task.network = synchronised(task.network.to(processes.device), processes)
        self._parameters = [p for p in self._network.parameters() if p.requires_grad]
        self._optimiser = create_optimiser(self._network, optimiser)
        self._schedule = create_schedule(self._optimiser, optimiser, loop, len(task.names))
        self._average = (
            AveragedModel(self._network, multi_avg_fn=get_ema_multi_avg_fn(loop.ema))
            if loop.ema
            else None
        )
        self._done = 0
        self._best = -np.inf
        self._seconds = 0.0

    def resume(self) -> None:
        """Go on from the last saved state; from the first step if there is none.

        Raises:
            DataError: if the state is damaged or that of another training.
        """
        path = self._out / STATE
        if not path.exists():
            return
        state = load_state(path, self._processes.device)
        others = sorted(
            key
            for key in self._identity.keys() | state["identity"].keys()
            if self._identity.get(key) != state["identity"].get(key)
        )
        if others:
            raise DataError(
                f"{path} is of another training; it differs in {', '.join(others)}: resume with "
                "the same recipe, data, --initial and version of mmfusion, or pass another --out"
            )
        self._network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._done, self._best = state["step"], state["best"]
        self._seconds = state["seconds"]
        self._task.facts = {**state["facts"], **self._task.facts}

    def run(self, workers: int = 0) -> None:
        """Train to the last step.

        Args:
            workers: processes that draw samples beside each one that trains.

        Raises:
            DataError: if the data are unusable.
            ModelError: if the losses are no longer finite.
        """
        batches = iter(load_samples(self._task, self._loop, self._done, self._processes, workers))
        started = time.monotonic() - self._seconds
        log = board = None
        if self._processes.first:
            log = StepLog(self._out / LOG, self._done)
            board = Board(self._out, self._done)
        with tqdm(
            initial=self._done,
            total=self._loop.steps,
            unit="step",
            dynamic_ncols=True,
            disable=not self._processes.first,
        ) as progress:
            if self._done == 0 and board is not None:
                # What can fail does so now, not after hours; and what was learnt can be told.
                self._validate(0, board, progress)
            if self._done == self._loop.steps and self._processes.first:
                progress.write(f"all {self._done} steps in {self._out} were done before")
            while self._done < self._loop.steps:
                values, alignment = self._step(batches)
                self._seconds = time.monotonic() - started
                last = self._done == self._loop.steps
                if last and self._loop.norm_batches:
                    self._retake_statistics(workers)
                if log is not None and board is not None:
                    record: dict[str, Any] = {**values, "learning_rate": self._rate()}
                    board.losses(self._done, values, self._rate())
                    if alignment is not None:
                        record["alignment"] = asdict(alignment)
                    if last or self._done % self._loop.validate_every == 0:
                        validation = self._validate(self._done, board, progress)
                        if validation is not None:
                            record["validation"] = validation.figures
                    log.write(self._done, record)
                    progress.update()
                    progress.set_postfix({name: f"{value:.3g}" for name, value in values.items()})
                    if last or self._done % self._loop.save_every == 0:
                        log.sync()
                        self._save()
        if log is not None and board is not None:
            log.close()
            board.close()
            self._write_record()

    def _step(self, batches: Iterator[list[Any]]) -> tuple[dict[str, float], Alignment | None]:
        """One step of the optimiser."""
        seed = np.random.SeedSequence((self._loop.seed, 2, self._done, self._processes.rank))
        torch.manual_seed(int(seed.generate_state(1)[0]))  # for dropout
        self._network.train()
        self._optimiser.zero_grad(set_to_none=True)
        every = self._task.align_every
        aligned = every > 0 and (self._done + 1) % every == 0
        tasks: list[_Gradients] = []
        parts: list[dict[str, Tensor]] = []
        for _ in range(self._loop.accumulate):
            samples = next(batches)  # as they are, in whatever precision the network runs
            with self._precision():
                losses, terms = self._task.losses(samples, self._processes)
            shares = [loss / self._loop.accumulate for loss in losses]
            if aligned:
                tasks = _added(tasks, task_gradients(shares, self._parameters))
            else:
                torch.stack(shares).sum().backward()
            parts.append(terms)
        values = self._mean_terms(parts)
        mean = self._processes.mean_gradients
        alignment = None
        if aligned:
            tasks = [mean(gradients, self._parameters) for gradients in tasks]
            alignment = align_gradients(tasks, self._parameters)
        else:
            means = mean([p.grad for p in self._parameters], self._parameters)
            for parameter, gradient in zip(self._parameters, means, strict=True):
                parameter.grad = gradient
        if self._settings.clip_value is not None:
            nn.utils.clip_grad_value_(self._parameters, self._settings.clip_value)
        if self._settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._settings.clip_norm)
        self._optimiser.step()
        self._schedule.step()
        if self._average is not None:
            self._average.update_parameters(self._network)
        self._done += 1
        return values, alignment

    def _retake_statistics(self, workers: int) -> None:
        """From the samples that further steps would have had."""
        more = replace(self._loop, steps=self._done + self._loop.norm_batches)
        parts = load_samples(self._task, more, self._done, self._processes, workers)
        with self._precision():
            retake_statistics(self._task, self._weights(), parts, self._processes)

    def _precision(self) -> Any:
        if self._loop.precision == "fp32":
            return nullcontext()
        return torch.autocast(self._processes.device.type, torch.bfloat16)

    def _mean_terms(self, parts: list[dict[str, Tensor]]) -> dict[str, float]:
        """Terms of the whole batch.

        Raises:
            ModelError: if one is not finite.
        """
        stacked = torch.stack([torch.stack(list(terms.values())) for terms in parts])
        means = self._processes.mean(stacked.float().mean(dim=0)).tolist()
        values = dict(zip(parts[0], means, strict=True))
        if not np.isfinite(means).all():
            told = ", ".join(f"{name} {value}" for name, value in values.items())
            raise ModelError(
                f"the training has diverged in step {self._done + 1}: {told}; start anew with a "
                "lower optimiser.learning_rate, or with loop.precision: fp32"
            )
        return values

    def _validate(self, step: int, board: Board, progress: Any) -> Validation | None:
        network = self._weights()
        network.eval()
        with torch.inference_mode():
            validation = self._task.validate(network)
        if validation is None:
            return None
        board.validation(step, validation)
        figures = ", ".join(f"{name} {value:.3f}" for name, value in validation.figures.items())
        progress.write(f"step {step}: {figures}")
        if step and validation.score > self._best:
            self._best = validation.score
            _write_weights(network, self._out / WEIGHTS_BEST)
        return validation

    def _weights(self) -> nn.Module:
        """The network to use: of averaged weights, if there are."""
        return self._network if self._average is None else self._average.module

    def _rate(self) -> float:
        return float(max(self._schedule.get_last_lr()))  # a backbone's may be less

    def _save(self) -> None:
        _write_weights(self._weights(), self._out / WEIGHTS)
        save_state(
            self._out / STATE,
            {
                "identity": self._identity,
                "step": self._done,
                "best": float(self._best),
                "seconds": self._seconds,
                "facts": self._task.facts,
                "network": self._network.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "schedule": self._schedule.state_dict(),
                "average": None if self._average is None else self._average.state_dict(),
            },
        )

    def _write_record(self) -> None:
        content = {
            "samples": len(self._task.names),
            **self._task.facts,
            "steps": self._done,
            "seconds": round(self._seconds),
            "device": device_name(self._processes.device),
            "threads": torch.get_num_threads(),
            "processes": self._processes.count,
            "torch": torch.__version__,
        }
        with replace_file(self._out / RECORD) as fresh:
            fresh.write_text(json.dumps(content, indent=2) + "\n")


def _added(sums: list[_Gradients], more: list[_Gradients]) -> list[_Gradients]:
    """Sums of gradients, task by task."""
    if not sums:
        return more
    return [
        [b if a is None else a if b is None else a + b for a, b in zip(one, other, strict=True)]
        for one, other in zip(sums, more, strict=True)
    ]


def _write_weights(network: nn.Module, path: Path) -> None:
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    with replace_file(path) as fresh:
        save_file(weights, fresh)
