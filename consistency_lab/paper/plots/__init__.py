"""Figures of studies, from their finished rows, and of races."""
