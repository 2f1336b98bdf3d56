"""What `tests/training/test_processes.py` has some processes do: ``torchrun --nproc_per_node 3 several_processes.py FOLDER``."""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

import consistency_lab as cl
from consistency_lab.errors import UserError
from consistency_lab.store.run import Run
from consistency_lab.training.sharing import SharedLoop
from consistency_lab.training.stopping import Stopped

HOW = {
    "network": "mlp(width=16, depth=1)",
    "steps": 50,
    "batch": 24,
    "timesteps": "loss_root(history=1, cells=5)",
    "momentum": "mdlrc",
    "lr": 5e-3,
    "lr_warmup": 5,
    "clip_norm": 0.5,
    "name": "shared",
    "device": "cpu",
}


def images():
    return cl.load_images("digits").take(range(200), "some digits")


class Net(nn.Linear):
    def forward(self, x, t, cond=None):
        return super().forward(x.flatten(1)).view_as(x)


def forbidden(*_, **__):
    raise AssertionError("only the first process writes")


def main(folder):
    rank, some, said = int(os.environ["RANK"]), images(), {}
    if rank:
        Run.begin = Run.discard = Run.log = forbidden
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def refusal(train):
        try:
            train()
        except (UserError, Stopped) as error:
            return f"{type(error).__name__}: {error}"

    said["whole"] = str(cl.train(some, **HOW, store=folder / "whole").folder)
    advance = SharedLoop._advance

    def stopping(loop):
        if loop.step == 30:
            signal.raise_signal(signal.SIGINT)
        return advance(loop)

    SharedLoop._advance = stopping
    said["stopped"] = refusal(lambda: cl.train(some, **HOW, store=folder / "resumed"))
    SharedLoop._advance = advance
    said["resumed"] = str(cl.train(some, **HOW, store=folder / "resumed").folder)
    said["odd"] = refusal(lambda: cl.train(some, **{**HOW, "batch": 25}))
    torch.manual_seed(rank)
    said["unlike"] = refusal(lambda: cl.train(some, **{**HOW, "network": Net(64, 64)}))
    said["device"] = refusal(lambda: cl.train(some, **{**HOW, "device": "meta"}))
    unkept = cl.train(some, **HOW)
    torch.save(unkept.denoiser.network.state_dict(), folder / f"unkept-{rank}.pt")
    vae = cl.train_vae(some, steps=3, batch=6, device="cpu", store=folder / "vae")
    said["vae"] = str(vae.folder)
    (folder / f"said-{rank}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
