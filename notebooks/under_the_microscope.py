# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A pair under the microscope
#
# Two models agree, or they do not. Four probes ask why: which noise levels are hard, which of them decides the image,
# what the loss looks like around a model and between two, and whether the two share a basin.

# %% tags=["parameters"]
STEPS = 600  # of training
COUNT = 64  # samples and images of a probe
SAMPLER_STEPS = 20
POINTS = 15  # positions on a line or path
CURVE_STEPS = 150  # of training of the curve between the two

# %%
import consistency_lab as cl

# %load_ext consistency_lab

images, held_out = cl.load_images("digits").split(1500, 297, seed=0)
a, b = (cl.train(images, network="mlp", seed=seed, steps=STEPS, progress=False) for seed in range(2))
sampler = cl.Sampler(steps=SAMPLER_STEPS)
likeness = cl.compare([a, b], cl.SharedNoise(0), count=COUNT, sampler=sampler, images=images)
print(cl.show(likeness))

# %% [markdown]
# ## Difficulty
#
# "Hard" depends on the unit: the error in eps vanishes towards noise, the error in x0 grows there. So several
# definitions are shown side by side, each with its interval over images.

# %%
difficulty = cl.probe_difficulty(a, held_out, count=COUNT, training_images=images)
cl.explore(difficulty)

# %% [markdown]
# Where each definition has its peak, with the range of times that cannot be told apart from it. (`over optimal` is
# computed on training images: the optimal denoiser knows no others.)

# %%
cl.difficulty_table(difficulty)[["definition", "peak_t", "peak_t_low", "peak_t_high"]]

# %% [markdown]
# ## Structure
#
# Sampling runs from t = 1 to 0. When is the image known, and whose image is it if the other model takes over at t?

# %%
structure = cl.probe_structure([a, b], images, count=COUNT, sampler=sampler)
cl.explore(structure)

# %% [markdown]
# ## Landscape
#
# The loss on a line through the weights: first in a random direction, each filter normalised to its own scale, then
# from one model to the other.

# %%
around = cl.probe_landscape(a, held_out, count=COUNT, points=POINTS)
cl.explore(around)

# %%
between = cl.probe_landscape(a, held_out, towards=b, count=COUNT, points=POINTS)
between

# %% [markdown]
# ## Connectivity
#
# A barrier on the straight line does not mean two basins: hidden units may be numbered differently, or a curved path
# may go around it. So we look at the straight line, a trained curve and, where it is defined, the line after alignment.

# %%
connectivity = cl.probe_connectivity(
    a, b, images, held_out, count=COUNT, points=POINTS, steps=CURVE_STEPS, samples=COUNT, sampler=sampler
)
connectivity

# %% [markdown]
# `cl.report([likeness, difficulty, structure, around, between, connectivity], "microscope.html")` puts all of it on one
# page.
