from _hessian import curvlinops, eigenthings, math_attention, subject

TITLE = "density of the eigenvalues of the Hessian of a U-Net (16 samples of 3x16x16), 2 probes of 20 steps"
PEER = "curvlinops 3.0.1; hessian-eigenthings 1.0.0a5"
CASES = ("curvlinops", "hessian-eigenthings")
GOALS = {"": 1.5}
TOLERANCE = 0.02
PACKAGES = ("curvlinops-for-pytorch", "hessian-eigenthings")
NOTE = (
    "Equal error is equal probes and steps: the random vectors are independent and of one law (normal, or signs), so that the moments "
    "of the densities have the same variance. What is compared is both ends of the spectrum, which do not depend on the vectors. "
    "curvlinops finds these by products of their own before its probes, and does not orthogonalise again."
)
PROBES, STEPS = 2, 20


def ours(case):
    from consistency_lab.probes.lanczos import quadrature
    from consistency_lab.probes.operators import Hessian

    operator = Hessian(subject(16))

    def work():
        with operator.held():
            found = quadrature(operator, probes=PROBES, steps=STEPS)
        width = 0.01 * float(found.nodes.max() - found.nodes.min())
        found.density(found.grid(1024, width), width).mean(0)
        return {"ends": [found.nodes.min(), found.nodes.max()]}

    return work


def theirs(case):
    given = subject(16)
    if case == "curvlinops":
        from curvlinops import lanczos_approximate_spectrum

        operator = curvlinops(given)

        def work():
            with math_attention():
                grid, _ = lanczos_approximate_spectrum(operator, STEPS, num_repeats=PROBES, margin=0.0)
            return {"ends": [float(grid[0]), float(grid[-1])]}
    else:
        from hessian_eigenthings import spectral_density

        operator = eigenthings(given)

        def work():
            with math_attention():
                found = spectral_density(operator, num_runs=PROBES, lanczos_steps=STEPS, num_grid_points=1024, seed=0)
            return {"ends": [float(found.raw_eigenvalues.min()), float(found.raw_eigenvalues.max())]}

    return work
