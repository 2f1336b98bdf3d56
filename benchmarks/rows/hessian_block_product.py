from _hessian import curvlinops, eigenthings, math_attention, subject, vectors

TITLE = "Hessian of a U-Net (165 thousand weights, 32 samples of 3x16x16) times 8 vectors"
PEER = "curvlinops 3.0.1; hessian-eigenthings 1.0.0a5, vector by vector"
CASES = ("curvlinops", "hessian-eigenthings")
GOALS = {"": 1.5}
TOLERANCE = 1e-4
PACKAGES = ("curvlinops-for-pytorch", "hessian-eigenthings")
NOTE = (
    "curvlinops differentiates forward over reverse, which torch does not have for SiLU and group norm: in its network both are written "
    "out in elementary operations. hessian-eigenthings multiplies one vector at a time."
)


def ours(case):
    from consistency_lab.probes.operators import Hessian

    operator, columns = Hessian(subject()), vectors(8)

    def work():
        return {"product": operator @ columns}

    return work


def theirs(case):
    import torch

    columns, given = vectors(8), subject()
    if case == "curvlinops":
        operator = curvlinops(given)

        def work():
            with math_attention():
                return {"product": operator @ columns}
    else:
        operator = eigenthings(given)

        def work():
            with math_attention():
                return {"product": torch.stack([operator.matvec(column) for column in columns.T], 1)}

    return work
