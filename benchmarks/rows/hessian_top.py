from _hessian import curvlinops, eigenthings, math_attention, subject

TITLE = (
    "the 4 highest and 4 lowest eigenpairs of the Hessian of a U-Net (16 samples of 3x16x16), to a thousandth of each"
)
PEER = "curvlinops 3.0.1 with scipy's eigsh; hessian-eigenthings 1.0.0a5"
CASES = ("curvlinops", "hessian-eigenthings")
GOALS = {"": 1.5}
TOLERANCE = 1e-3
PACKAGES = ("curvlinops-for-pytorch", "hessian-eigenthings", "scipy")
NOTE = (
    "eigsh finds both ends at once. hessian-eigenthings has one end a run, and its runs have the fewest steps, of 20, 30 and 40, with "
    "which they converge, which its user would have to try; one run of its Lanczos kernel read at both ends would take 30 products "
    "instead of 50, and be about as fast as ours, which also looks for eigenvalues that occur twice and multiplies the vectors that it "
    "found once more for their residuals."
)


def ours(case):
    from consistency_lab.probes.lanczos import extreme_eigenpairs
    from consistency_lab.probes.operators import Hessian

    operator = Hessian(subject(16))

    def work():
        with operator.held():
            top, bottom = extreme_eigenpairs(operator, 4, steps=50)
        return {"values": [*top.values, *bottom.values]}

    return work


def theirs(case):
    given = subject(16)
    if case == "curvlinops":
        from scipy.sparse.linalg import eigsh

        operator = curvlinops(given).to_scipy()

        def work():
            with math_attention():
                values = eigsh(operator, k=8, which="BE", tol=1e-3, return_eigenvectors=True)[0]
            return {"values": [*sorted(values)[:3:-1], *sorted(values)[:4]]}
    else:
        from hessian_eigenthings import lanczos

        operator = eigenthings(given)

        def work():
            with math_attention():
                top = lanczos(operator, k=4, max_iter=20, which="LA", tol=1e-3, seed=0)
                bottom = lanczos(operator, k=4, max_iter=30, which="SA", tol=1e-3, seed=0)
            return {"values": [*top.eigenvalues.tolist(), *bottom.eigenvalues.tolist()]}

    return work
