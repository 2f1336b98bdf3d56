# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From findings to a recipe
#
# A short pilot run is probed, and the findings are turned into training settings: how often each noise level is drawn,
# and to what learning rate to anneal. The recipe gives its reasons. Whether it is *faster* is a question for a race, with
# controls and several seeds; this notebook ends where the race begins.

# %% tags=["parameters"]
NETWORK = "mlp"
PILOT_STEPS = 200
STEPS = 600  # of the training that the recipe is for
COUNT = 64  # images of a probe
LANCZOS = 40  # steps of the curvature's Lanczos process
PRODUCTS = 30  # matrix-vector products of its trace

# %%
import consistency_lab as cl
from consistency_lab.intervals import mean_interval

# %load_ext consistency_lab

images, held_out = cl.load_images("digits").split(1500, 297, seed=0)
pilot = cl.train(images, network=NETWORK, seed=0, steps=PILOT_STEPS, progress=False)

# %% [markdown]
# ## Findings
#
# How noisy the gradient is at each noise level, and how stiff the loss is, both on images that the pilot did not see.

# %%
difficulty = cl.probe_difficulty(pilot, held_out, count=COUNT, training_images=images)
cl.explore(difficulty, measure="gradient noise")

# %%
curvature = cl.probe_curvature(
    pilot,
    held_out,
    count=COUNT,
    operators=("gauss_newton",),
    eigenvalues=1,
    steps=LANCZOS,
    products=PRODUCTS,
    by_t=False,
)
curvature

# %% [markdown]
# ## Recipe
#
# `draws="importance"` draws noisy times more often and weights the draws back, so that the loss that is minimised
# stays the uniform one. Momentum stays as it is.

# %%
settings = cl.TrainingSettings(network=NETWORK, steps=STEPS)
recipe = cl.Recipe.from_findings(difficulty, curvature=curvature, draws="importance", settings=settings)
recipe

# %%
recipe.to_dataset()

# %% [markdown]
# ## Does it differ from uniform at all?
#
# 0: the times are drawn as uniformly as without a recipe; 1: never from the same times.

# %%
audit = cl.audit_timesteps(["uniform", recipe.changes["timesteps"]], cl.SCHEDULES.build("linear"), STEPS)
audit["run_total_variation"].values

# %% [markdown]
# ## Train with and without it

# %%
plain = cl.train(images, settings=settings, seed=1, name="uniform", progress=False)
with_recipe = cl.train(images, settings=settings, seed=1, recipe=recipe, name="recipe", progress=False)
errors = {
    model.name: cl.probe_difficulty(model, held_out, count=COUNT, training_images=images)["error"].sel(units="eps")
    for model in (plain, with_recipe)
}
mean_interval((errors["recipe"] - errors["uniform"]).mean("t").values)

# %% [markdown]
# This is the difference in held-out error (eps, mean over noise levels), below 0 if the recipe is better. Its interval
# is over images, and it is from **one run each**: no evidence about the recipe. Part of the difference is due to the
# annealing, which uniform times could have had too, and part to the seed. To tell these apart takes controls and
# several seeds, a race:
#
# ```sh
# consistency-lab race --preset digits --dry-run
# ```
#
# `recipe.save("recipe.json")` and `consistency-lab race --recipes recipe.json` enter this recipe in the race.
#
# Does the recipe change *what* is learned? The two models from the same noise:

# %%
cl.compare([plain, with_recipe], cl.SharedNoise(0), count=COUNT, images=images)
