# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Quick start: the same noise, the same image?
#
# Diffusion models that were trained from different seeds, and even with different architectures, turn the same noise into
# nearly the same image. Here models that ship with the package are compared, and the score is shown with what it must be
# read against. At the end two are trained.

# %% tags=["parameters"]
COUNT = 48  # samples
SAMPLER_STEPS = 12
STEPS = 600  # of training, at the end

# %%
import consistency_lab as cl

# %load_ext consistency_lab

# %% [markdown]
# The zoo: U-Nets, DiTs and MLPs of two seeds each, trained on Fashion-MNIST at 28x28. Two of one architecture, and one of
# another:

# %%
models = [cl.load(f"zoo:fashion-{name}") for name in ("unet-s0", "unet-s1", "dit-s0")]
models[0]

# %% [markdown]
# Image *i* of `SharedNoise(0)` is the same for every model. The score is 1 if the same noise gives the same image,
# and 0 if sharing the noise brings the images no closer. It is shown with its interval and, if there is a reason to
# doubt it, with a warning. Unfold the card for the numbers, how they were made, and the data.

# %%
sampler = cl.Sampler("dpm++2m", SAMPLER_STEPS)
likeness = cl.compare(models, cl.SharedNoise(0), count=COUNT, sampler=sampler)
likeness

# %% [markdown]
# Move through the comparison: `t` from noise (1) to data (0), the sample, the metric. Each picture is what a model
# estimates the image to be. Without ipywidgets this is one still figure.

# %%
cl.explore(likeness, t=0.5)

# %% [markdown]
# Everything is an `xarray.Dataset`, so you can compute with everything. The score of each pair, by the squared error:

# %%
parts = ["score", "score_low", "score_high"]
likeness[parts].sel(metric="mse").isel(t=-1).to_dataframe()[parts]

# %% [markdown]
# ## Your own
#
# Images in [-1, 1], with a name and a fingerprint. These came with scikit-learn; `cl.load_images("photos/")` reads a
# folder.

# %%
images = cl.load_images("digits")
images

# %% [markdown]
# Two small networks that share nothing but the data: they differ in initial weights, order of the data and training
# noise. With `store="runs"` they would be kept, and never be trained twice.

# %%
a, b = (cl.train(images, network="mlp", seed=seed, steps=STEPS, lr_final=0.1, progress=False) for seed in range(2))
a

# %% [markdown]
# With the images at hand, closed-form denoisers that need no training stand beside the models: how much of their agreement
# is the data's? These pixels are wild where training was short; `clip=True` keeps each estimate within [-1, 1], and the
# result says so.

# %%
own = cl.compare([a, b], cl.SharedNoise(0), count=COUNT, images=images, sampler=cl.Sampler(clip=True))
parts = ["reference_mean_score", "reference_mean_score_low", "reference_mean_score_high"]
own[parts].sel(metric="mse").isel(t=-1).to_dataframe()[parts]

# %% [markdown]
# One page to keep or to send. It needs no network.

# %%
cl.report([likeness, own], "report.html", title="The same noise, the same image?")
