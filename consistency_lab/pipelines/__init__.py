"""Whole generators of others, whose code or files make the images: folders of images, recorded trajectories, pipelines."""
