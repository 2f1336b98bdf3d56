TITLE = "a step of Muon"
PEER = "torch.optim.Muon, which orthogonalises in bfloat16"
CASES = ("matrices of the U-Net", "matrices of the MLP")
GOALS = {}
TOLERANCE = 0.1  # of the largest entry of a step: what bfloat16 leaves
NOTE = (
    "The same optimizer, whose iterations ours leaves in float32 on a CPU. How much that saves depends on the processor: one with "
    "instructions for bfloat16 multiplies in it as fast as in float32 or faster, one without takes up to 25 times as long."
)


def _matrices(case):
    import torch

    from consistency_lab.networks.registry import build_network
    from consistency_lab.training.optimizers import as_matrix

    network = build_network("unet" if "U-Net" in case else "mlp", (1, 8, 8))
    made = torch.Generator().manual_seed(0)
    matrices = [torch.nn.Parameter(as_matrix(p).clone()) for p in network.parameters() if p.ndim > 1]
    for each in matrices:
        each.grad = torch.randn(each.shape, generator=made)
    return matrices


def _stepped(matrices, optimizer):
    import torch

    before = [each.detach().clone() for each in matrices]
    optimizer.step()
    step = torch.cat([(b - a.detach()).flatten() for b, a in zip(before, matrices, strict=True)])

    def work():
        optimizer.step()
        return {"step": step}

    return work


def ours(case):
    from consistency_lab.training.optimizers import Muon

    matrices = _matrices(case)
    return _stepped(matrices, Muon(matrices, 0.01))


def theirs(case):
    import torch

    matrices = _matrices(case)
    options = {"weight_decay": 0.0, "momentum": 0.95, "adjust_lr_fn": "match_rms_adamw"}
    return _stepped(matrices, torch.optim.Muon(matrices, 0.01, **options))
