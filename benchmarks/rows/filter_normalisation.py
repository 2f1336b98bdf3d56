TITLE = "filter normalisation of a random direction of the 35.7 million weights of DDPM's U-Net"
PEER = "loss-landscapes 3.0.6"
CASES = ("35.7 M",)
GOALS = {"": 50}
TOLERANCE = 1e-5
PACKAGES = ("loss-landscapes",)
NOTE = (
    "Drawing 35.7 million normals is in our time (loss-landscapes draws uniform numbers). The goal is out of reach: to read "
    "weights and direction and to write the direction moves 430 MB, which takes one core some 30 ms at 15 GB/s, a fiftieth of "
    "loss-landscapes' time, before anything is drawn. What is compared is the norms of the filters of three convolutions; biases and norms "
    "stay where they are in ours (Li et al.) and are scaled element by element in loss-landscapes."
)


def _network():
    from consistency_lab.networks.registry import build_network

    network = build_network("unet-ddpm", (3, 32, 32), seed=0).requires_grad_(False)
    for p in network.parameters():  # loss-landscapes divides by zero where a filter, or one bias, is 0
        p.add_(1e-3)
    return network


def _norms(parameters):
    import torch

    chosen = [p for p in parameters if p.dim() == 4 and p.shape[2] == 3][1:4]
    return {"norms": torch.cat([p.flatten(1).double().norm(dim=1) for p in chosen])}


def ours(case):
    from consistency_lab.probes.directions import random_axes

    network = _network()

    def work():
        return _norms(random_axes(network, seed=0).axes[0])

    return work


def theirs(case):
    from loss_landscapes.model_interface.model_parameters import rand_u_like
    from loss_landscapes.model_interface.model_wrapper import wrap_model

    point = wrap_model(_network()).get_module_parameters()

    def work():
        direction = rand_u_like(point)
        direction.filter_normalize_(point)
        return _norms(direction.parameters)

    return work
