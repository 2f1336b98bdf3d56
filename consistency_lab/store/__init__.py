"""Experiments on disk: a spec, its hash, its run folder, checkpoints and results. It knows no model's meaning."""
