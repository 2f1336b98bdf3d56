"""Checkpoints of well-known code bases: how each is recognised, unwrapped, and built or told about."""
