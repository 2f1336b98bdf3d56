# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Did my quantised pipeline change?
#
# A DiT with weights of 8 bits, of 4 and of 3: do they still make the images of the model that they were made from? A gate
# answers pass, fail or cannot tell, with stated error rates.

# %% tags=["parameters"]
COUNT = 512  # samples at most
SAMPLER_STEPS = 12
SHOWN = 48  # samples of the comparison at the end

# %%
import copy

import torch

import consistency_lab as cl

# %load_ext consistency_lab

reference = cl.load("zoo:fashion-dit-s0")
sampler = cl.Sampler("dpm++2m", SAMPLER_STEPS)


# %% [markdown]
# ## Quantise it
#
# Each weight matrix is rounded to integers with one scale for each of its outputs, the simplest of all schemes.


# %%
def quantised(model, bits):
    denoiser = copy.deepcopy(model.denoiser)
    with torch.no_grad():
        for weight in (each for each in denoiser.parameters() if each.ndim > 1):
            largest = weight.abs().flatten(1).amax(1).clamp_min(1e-12)
            step = (largest / (2 ** (bits - 1) - 1)).reshape(-1, *[1] * (weight.ndim - 1))
            weight.copy_((weight / step).round() * step)
    return cl.DiffusionModel(f"int{bits}", denoiser)


int8, int4, int3 = (quantised(reference, bits) for bits in (8, 4, 3))

# %% [markdown]
# ## Does it still make the same images?
#
# The score is 1 for the same images and 0 for images no closer than those of other noise. At least .95 is asked for. The
# gate looks after every 32 samples and stops as soon as it can tell.

# %%
eight = cl.gate(reference, int8, at_least=0.95, count=COUNT, sampler=sampler, progress=False)
eight

# %% [markdown]
# *Cannot tell* is an answer, with the number of samples that it lacks. A lower bound, or more samples, would tell.

# %%
four = cl.gate(reference, int4, at_least=0.95, count=COUNT, sampler=sampler, progress=False)
four

# %%
three = cl.gate(reference, int3, at_least=0.95, count=COUNT, sampler=sampler, progress=False)
three

# %% [markdown]
# ## Beside another seed
#
# How much is .95? A DiT that was trained from another seed never saw these weights. A candidate that agrees with its
# reference no better than that model does has become another model.

# %%
other = cl.load("zoo:fashion-dit-s1")
likeness = cl.compare([reference, int8, int4, int3, other], count=SHOWN, sampler=sampler)
likeness

# %% [markdown]
# Which of them, and from which noise level on? Pairs beside each other, then the estimates at any `t`:

# %%
likeness[["score", "score_low", "score_high"]].sel(metric="mse").isel(t=-1).to_dataframe()[
    ["score", "score_low", "score_high"]
]

# %%
cl.explore(likeness, t=0.3)

# %% [markdown]
# ## The same for your pipeline
#
# Two folders of images, paired by name, are enough, and a second run of the reference is the ceiling:
#
#     consistency-lab gate images:reference images:candidate --again images:reference-again --markdown comment.md
#
# Pipelines of diffusers are opened as they are: `cl.load("diffusers:path/to/pipeline")`. The page to keep:

# %%
cl.report([eight, four, three, likeness], "quantised.html", title="Did my quantised pipeline change?")
