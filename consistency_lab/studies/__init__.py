"""Whatever trains more than one model."""
