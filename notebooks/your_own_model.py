# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Bring your own model
#
# A network that was trained elsewhere is compared and probed like one that was trained here, once three things are
# stated: how its noisy states were mixed, what its output means, and in which form it takes the time. Here "elsewhere" is a
# plain PyTorch loop.

# %% tags=["parameters"]
STEPS = 600  # of training
COUNT = 128  # samples of the comparison
IMAGES = 64  # images of the probe

# %%
import torch
from torch import nn

import consistency_lab as cl

# %load_ext consistency_lab

images = cl.load_images("digits")


# %% [markdown]
# ## Your own network and training loop
#
# The network takes the timestep 0 ... 999 and predicts the noise, as in DDPM.


# %%
class Mine(nn.Module):
    def __init__(self, width=256):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(65, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 64)
        )

    def forward(self, x, timestep):
        return self.layers(torch.cat([x.flatten(1), timestep[:, None] / 1000], 1)).view_as(x)


torch.manual_seed(0)
network = Mine()
optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
alphas_cumprod = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
data = images.all()
for _ in range(STEPS):
    x0 = data[torch.randint(len(data), (128,))]
    index = torch.randint(1000, (128,))
    alpha_bar, eps = alphas_cumprod[index].float()[:, None, None, None], torch.randn(x0.shape)
    x_t = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps
    loss = (network(x_t, index.float()) - eps).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %% [markdown]
# ## Wrap it
#
# The weights are yours, the sampler is ours. `time="index"` passes the timestep as floats.

# %%
mine = cl.wrap_module(network, schedule=alphas_cumprod, predicts="eps", shape=(1, 8, 8), time="index", name="mine")
mine

# %% [markdown]
# ## Is it wrapped correctly?
#
# A wrong time or a wrong prediction gives a model that runs but is bad. The best linear denoiser is the yardstick: at
# middle noise levels a model that learned something is below it (`over gaussian` below zero).

# %%
difficulty = cl.probe_difficulty(mine, images, count=IMAGES)
cl.explore(difficulty, measure="over gaussian", t=0.3)

# %% [markdown]
# The same network wrapped wrongly, as one that predicts the clean image:

# %%
wrong = cl.wrap_module(
    network, schedule=alphas_cumprod, predicts="x0", shape=(1, 8, 8), time="index", name="wrapped wrongly"
)
cl.explore(cl.probe_difficulty(wrong, images, count=IMAGES), measure="over gaussian", t=0.3)

# %% [markdown]
# ## Compare it with one of ours
#
# A different network, training loop and seed; the same images.

# %%
ours = cl.train(images, network="mlp", seed=1, steps=STEPS, progress=False)
likeness = cl.compare([mine, ours], cl.SharedNoise(0), count=COUNT, images=images)
likeness

# %% [markdown]
# Models of diffusers and TorchScript files need no wrapping: `cl.load("diffusers:path/to/pipeline")`. A TorchScript file
# is a program, so it wants `trust=True`. Pickles are refused, because opening one runs the code in it.
