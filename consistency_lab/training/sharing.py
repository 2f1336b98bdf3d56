"""One model trained by several processes, each of which takes its rows of every batch.

A batch is a function of the step, so every process makes all of it and none is sent. Gradients are summed over the processes, and with
them come the losses of all rows: clipping, optimizer, average and timestep sampler do in each process what they would do in one. The
first process leads: it alone reads and writes the run folder, logs, and decides before each step whether there is one.

Gradients go as one flat tensor and not through DistributedDataParallel, whose buckets change after the first step: sums over three or
more processes would depend on where a run was resumed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from consistency_lab.errors import UserError
from consistency_lab.networks.own import weights_digest
from consistency_lab.store.run import Run
from consistency_lab.training.describing import differences
from consistency_lab.training.group import Group, joined
from consistency_lab.training.loop import Batch, BatchSource, TrainingLoop, TrainingStep, losses_of
from consistency_lab.training.processes import started
from consistency_lab.training.settings import LoopSettings
from consistency_lab.training.stopping import Stopped, stop_between_steps

_START, _STEP, _END = range(3)


class SharedLoop(TrainingLoop):
    """A `TrainingLoop` that several processes run together (see `in_company`).

    Args:
        module, loss, source, settings, device, rate: see `TrainingLoop`; a batch's data are tensors of one row a sample.
        group: the processes.

    Raises:
        UserError: as `TrainingLoop`; a batch that cannot be divided by the processes; a network with batch norm.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[..., Tensor],
        source: BatchSource,
        settings: LoopSettings,
        device: torch.device,
        rate: Callable[[int], float] | None = None,
        group: Group | None = None,
    ):
        super().__init__(module, loss, source, settings, device, rate)
        self.group = group or joined()
        size, left = divmod(settings.batch, self.group.count)
        if left:
            raise UserError(
                f"a batch of {settings.batch} images cannot be divided among {self.group.count} processes; make batch a multiple of "
                f"{self.group.count} (it is the images of a step over all of them)."
            )
        if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()):
            raise UserError(
                "the network has batch norm, whose statistics are those of a whole batch, and each of several processes sees a part of it; "
                "use group norm, or train in one process."
            )
        self.rows = slice(size * self.group.index, size * (self.group.index + 1))
        self._compared = False

    def __iter__(self) -> Iterator[TrainingStep]:
        """Train from where the loop stands to the last step; the others get its state, and take each step in `follow`."""
        if self.group.index == 0:
            self.group.tell(_START, {"loop": self.state_dict(), "threads": torch.get_num_threads()})
        return super().__iter__()

    def follow(self) -> dict[str, str]:
        """Do what the first process does, until it has ended. Returns how it ended."""
        steps: Iterator[TrainingStep] = iter(())
        while True:
            word, content = self.group.hear()
            if word == _END:
                return content
            if word == _STEP:
                next(steps)
                continue
            torch.set_num_threads(content["threads"])  # sums on a CPU depend on how they are divided
            self.load_state_dict(content["loop"])
            steps = iter(self)

    def _advance(self) -> TrainingStep:
        if self.group.index == 0:
            self.group.tell(_STEP)
        self.module.train()
        batch = self.source.batch(self.step)
        part = Batch(tuple(each[self.rows] for each in batch.data), batch.weight[self.rows])
        own = losses_of(self.loss, self.module, part, self.settings.precision)
        self.descent.optimizer.zero_grad(set_to_none=True)
        ((part.weight * own).sum() / len(batch.weight)).backward()
        losses = torch.zeros_like(batch.weight)
        losses[self.rows] = own.detach()
        losses = self._exchanged(losses)
        self.descent.descend(self.step)
        if not self._compared:
            self._compare()
        return self._stepped(batch, losses, (batch.weight * losses).mean())

    def _exchanged(self, losses: Tensor) -> Tensor:
        """Sum the gradients of all processes, and return the losses of all rows, given those of this one's and zeros.

        A parameter that no process has used has no gradient afterwards, as in one process: an optimizer leaves it alone.
        """
        parameters = self.descent.parameters
        used = [p.grad is not None for p in parameters]
        if all(used):
            counts = torch.ones(len(used), device=losses.device)
        else:
            counts = torch.tensor(used, dtype=torch.float32, device=losses.device)
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters] + [losses, counts]
        flat = torch.cat([part.reshape(-1) for part in parts])
        self.group.add(flat)
        *gradients, losses, counts = flat.split([part.numel() for part in parts])
        if not all(used):
            used = [count > 0 for count in counts.tolist()]
        for parameter, gradient, there in zip(parameters, gradients, used, strict=True):
            if there and parameter.grad is None:
                parameter.grad = gradient.view_as(parameter).clone()
        moved = [(p.grad, gradient) for p, gradient in zip(parameters, gradients, strict=True) if p.grad is not None]
        torch._foreach_copy_([mine for mine, _ in moved], [summed.view_as(mine) for mine, summed in moved])
        return losses

    def _compare(self) -> None:
        """Raise `UserError`, in every process, where they do not hold the same network after a step."""
        if len(set(self.group.gathered(weights_digest(self.module)))) > 1:
            raise UserError(
                "after one step the processes hold different networks: something in it follows the images that it is shown (statistics "
                "of a batch), or the machines compute differently; train in one process."
            )
        self._compared = True


def loop_class() -> type[TrainingLoop]:
    """The loop of one process, or the one that several run together."""
    return SharedLoop if started()[0] > 1 else TrainingLoop


def in_company(loop: SharedLoop, spec: Mapping[str, Any], lead: Callable[[], Run | None]) -> Run | None:
    """Have the first process train a loop, and the others take each step with it.

    A stop (Ctrl-C, a callback) is the first process's to decide. The others wait until it has written what it writes.

    Args:
        loop: the same in every process, at step 0.
        spec: of its run.
        lead: what the first process does; it iterates the loop.

    Returns:
        In every process: the run that ``lead`` returned.

    Raises:
        UserError: the processes were given different specs; in the others also whatever error ended the first.
        Stopped: the first process was stopped.
    """
    found = loop.group.gathered(dict(spec))
    if any(other != found[0] for other in found):
        said = "; ".join(text or "nothing" for text in dict.fromkeys(differences(found)))
        raise UserError(
            f"the processes were given different things to train ({said}); draw whatever makes images or a network alike in each of them, "
            "for example with network=lambda shape, classes: Net() in the place of network=Net()."
        )
    if loop.group.index:
        threads = torch.get_num_threads()
        try:
            with stop_between_steps():
                end = loop.follow()
                if "stopped" in end:
                    raise Stopped(end["stopped"])
                if "failed" in end:
                    raise UserError(end["failed"])
        finally:
            torch.set_num_threads(threads)
        return Run.open(end["folder"]) if "folder" in end else None
    try:
        run = lead()
    except BaseException as error:
        with contextlib.suppress(UserError):  # they may be gone too
            loop.group.tell(_END, {"stopped" if isinstance(error, Stopped) else "failed": str(error) or repr(error)})
        raise
    loop.group.tell(_END, {} if run is None else {"folder": str(run.folder)})
    return run
