"""From an image set to a model: one loop, its timestep samplers, momentum rules, averages and settings."""
