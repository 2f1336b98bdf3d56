"""Figures of studies, from their finished rows."""
