from _hessian import curvlinops, eigenthings, math_attention, subject

TITLE = "largest eigenvalue of the Hessian of a U-Net, to a thousandth, with its vector"
PEER = "curvlinops 3.0.1 with scipy's eigsh; hessian-eigenthings 1.0.0a5"
CASES = ("curvlinops", "hessian-eigenthings")
GOALS = {"": 1.5}
TOLERANCE = 1e-3
PACKAGES = ("curvlinops-for-pytorch", "hessian-eigenthings", "scipy")
NOTE = ""
COUNT, STEPS = 3, 20
