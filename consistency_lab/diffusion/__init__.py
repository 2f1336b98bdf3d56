"""The mathematics of diffusion: schedules, denoisers, the loss, shared noise, sampling, closed-form references."""
