# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Quick start: two models, the same noise
#
# Diffusion models that were trained from different seeds turn the same noise into nearly the same image. Here two are
# trained on real digits and compared, and the score is shown with what it must be read against.

# %% tags=["parameters"]
STEPS = 600  # of training; 1,500 and network="unet" give better digits
COUNT = 128  # samples

# %%
import consistency_lab as cl

# %load_ext consistency_lab

# %% [markdown]
# Images in [-1, 1], with a name and a fingerprint. These came with scikit-learn; `cl.load_images("photos/")` reads a
# folder.

# %%
images = cl.load_images("digits")
images

# %% [markdown]
# Two small networks that share nothing but the data: they differ in initial weights, order of the data and training
# noise.

# %%
a = cl.train(images, network="mlp", seed=0, steps=STEPS, progress=False)
b = cl.train(images, network="mlp", seed=1, steps=STEPS, progress=False)
a

# %% [markdown]
# Image *i* of `SharedNoise(0)` is the same for every model. The score is 1 if the same noise gives the same image,
# and 0 if sharing the noise brings the images no closer. It is shown with its interval and, if there is a reason to
# doubt it, with a warning. Unfold the card for the numbers, how they were made, and the data.

# %%
likeness = cl.compare([a, b], cl.SharedNoise(0), count=COUNT, images=images)
likeness

# %% [markdown]
# With two models the interval is over noise and holds for this pair alone. Three or more give an interval over noise and
# over models like these.
#
# Move through the comparison: `t` from noise (1) to data (0), the sample, the metric. The upper row shows what each
# model, and each closed-form denoiser, estimates the image to be. Without ipywidgets this is one still figure.

# %%
cl.explore(likeness, t=0.5)

# %% [markdown]
# Everything is an `xarray.Dataset`, so you can compute with everything. The scores of the closed-form references,
# which need no training:

# %%
parts = ["reference_mean_score", "reference_mean_score_low", "reference_mean_score_high"]
likeness[parts].sel(metric="mse").isel(t=-1).to_dataframe()[parts]

# %% [markdown]
# One page to keep or to send. It needs no network.

# %%
cl.report([likeness], "report.html", title="Two MLPs on digits")
