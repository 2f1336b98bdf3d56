"""Models whose images are known in closed form."""

import torch

import consistency_lab as cl

SHAPE = (1, 4, 4)


class Painter:
    """Images that are the noise, moved by a part of other noise; ``ruined`` ones are another image, ``broken`` ones not finite."""

    def __init__(self, name, noise=0.0, seed=99, ruined=(), broken=(), shape=SHAPE):
        self.name, self.noise_shape, self.facts = name, shape, {}
        self.noise, self.seed, self.ruined, self.broken = noise, seed, set(ruined), set(broken)

    def generate(self, noise, indices):
        images = 0.5 * noise.initial(indices, self.noise_shape)
        other = 0.5 * cl.SharedNoise(self.seed).initial(indices, self.noise_shape)
        images = images + self.noise * other
        for place, index in enumerate(indices):
            if index in self.ruined:
                images[place] = other[place]
            if index in self.broken:
                images[place, 0, 0, 0] = torch.nan
        return images
