TITLE = "slowest paths of `make demo`"
BEFORE = "eb307a4"
PEER = "this package at eb307a4"
CASES = ("20 training steps of its U-Net", "its comparison, 64 of 256 samples", "difficulty of its MLP")
GOALS = {}
TOLERANCE = 0.02
PROFILE = True
NOTE = (
    "The demo's own settings and data, models of three steps. What is compared: the log of the loss; the distances; the excess errors. "
    "Training is bound by the network (see the row of the training step)."
)


def ours(case):
    from consistency_lab.presets import demo_plan
    from consistency_lab.studies.demo import demo_data
    from consistency_lab.training.train import train

    plan = demo_plan("digits")
    images, held_out = demo_data(plan)

    def trained(name, steps):
        settings = plan.runs[name].replace(steps=steps, snapshots=0)
        return train(images, name=name, settings=settings, device="cpu", progress=False)

    if "training" in case:

        def work():
            model = trained("unet-s0", 20)
            weights = [p.detach().double().flatten() for p in model.denoiser.parameters()]
            return {"weights": [float(w.norm()) for w in weights]}

    elif "comparison" in case:
        from consistency_lab.diffusion.sampling import Sampler
        from consistency_lab.similarity.compare import compare

        models = [trained(name, 3) for name in plan.runs]

        def work():
            result = compare(models, count=64, sampler=Sampler(**plan.sampler), images=images)
            return {"distance": result["distance"].sel(metric="mse").values}

    else:
        from consistency_lab.probes.difficulty import probe_difficulty

        model = trained("mlp-s3", 3)

        def work():
            found = probe_difficulty(model, held_out, training_images=images)
            return {"error": found["error"].values}

    return work
