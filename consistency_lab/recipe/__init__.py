"""Findings in, training settings out, with the derivation as text. Nothing is computed here that is not in the findings.

**Density over t.** With importance weights 1 / p, the gradient of a drawn time is an unbiased estimate of the uniform loss's gradient for
every p, and its variance is least for p(t) in proportion to sqrt(E |g_t|^2), the root of the expected squared norm of a sample's gradient
at t (Cauchy-Schwarz; Katharopoulos & Fleuret 1803.00942 for data, Nichol & Dhariwal 2102.09672, equation 18, for t). A difficulty result
that has it gives it (as ``gradient_second_moment``, or as the squared norm of the mean gradient plus the noise around it, which
`probe_difficulty` measures); without, the root of the second moment of the eps-loss stands in for it, as in the latter.

That is for SGD. Adam divides each weight's gradient by the root of its own second moment v_i. Where noise is most of v, a step lowers the
loss by a sum over weights of G_i^2 / sqrt(v_i(p)), with G the mean gradient and v_i(p) the mean over t of E g_ti^2 / p(t); with one
signal-to-noise ratio G_i^2 / v_i for all weights that is largest for

    p(t) in proportion to sqrt(sum_i E g_ti^2 / sqrt(v_i)),

the norm in Adam's own metric (``adam_second_moment`` of `probe_difficulty`). It matters: in a U-Net the plain norm hardly falls with t,
since it is that of few loud weights.

The field ``draws`` says which of two things that density is used for:

* ``"importance"``: with those weights. The objective stays the uniform loss; only the noise of its gradient falls.
* ``"objective"``: without, as the paper does. The loss that is minimised is then E_p[L_t]: hard times count for more.

``density`` says when it is measured. ``"fixed"``: it is the findings', from the first step to the last. ``"followed"``, for importance
weights: it goes with the losses of the run itself, p in proportion to E[L_t]^q, since hard times change while a model learns. The gradient
of a squared error |r|^2 is 2 J'r, so E |g_t|^2 goes with E[L_t] as far as the size of the Jacobian J does not depend on t, and q = 1/2;
the findings say with which power it really goes (about .9 in Adam's metric, in an MLP and in a U-Net), and q is half of that, times the
exponent.

``exponent`` tempers or sharpens it: p in proportion to the root raised to it. 1 is the above. 1/2 is the best split of draws among times
that are learned apart from each other with errors that fall as 1 / draws: minimising sum_t E_t / n_t at a fixed sum of n_t gives n_t in
proportion to sqrt(E_t).

**Target.** What is left of a gradient's noise at a time is that of the image and the noise. Part of it is the target's own: several
images of the set could have made a noisy one, and the loss pulls towards the one that did. Their posterior mean in its place changes no
mean gradient (`consistency_lab.training.targets`). What that takes out of the target is measured on the images alone, in a second; where it
is a tenth of the closed form's loss or more, the recipe does it.

**Optimizer.** Muon's steps go further than Adam's in the races of docs/findings.md; what they cost are products of matrices whose number
does not depend on the batch. Where that is less than a tenth of the arithmetic of a step the recipe takes it: in convolutional networks,
whose weights are used at every pixel, and not in a wide MLP on small images, where it would be several times the step.

**Momentum.** On a quadratic with curvatures from h to H, heavy-ball descent is fastest at (Polyak 1964)

    beta* = ((sqrt(kappa) - 1) / (sqrt(kappa) + 1))^2,        kappa = H / h.

H is the measured top eigenvalue of the Hessian, h the mean one, trace / parameters. Adam's steps do not change when the loss is multiplied
by a constant, so what it asks for can depend on ratios of curvature alone: a stiffer top direction asks for more momentum, twice the
whole Hessian for the same. A smooth, well-conditioned landscape asks for little, which is the paper's argument for less of it. (Adam does
not descend in the metric of this kappa. On the digits' MLP it came to .954, and the race with it was slower than with the usual .9: see
docs/findings.md. So a recipe leaves it alone unless it is told otherwise, by ``measured_momentum=True``.)

**Annealing.** At a rate eta a direction of curvature h forgets the noise of its gradients in 1 / (eta h) steps and keeps a variance in
proportion to eta. Under a linear decay over I steps it follows the falling rate until s steps are left with s^2 eta h / I = 1, at
s / I = 1 / sqrt(eta h I), and is frozen after that. Below that fraction of the peak nothing is gained in the stiffest direction and every
flatter one moves less, so

    lr_final = 1 / sqrt(eta H I).

For SGD, eta H is measured: lr / (1 - momentum) times the top eigenvalue. Adam rescales curvature, and trains at the edge of
stability, where eta H = 2 (1 + beta) / (1 - beta) in its own metric whatever the Hessian (Cohen et al. 2207.14484): 38 for its usual
beta of .9.

Both need the loss to be near a quadratic: where a landscape result deviates from one by more than `SMOOTH` of its range they are not
applied. Where momentum is to be measured and no curvature was, a smooth landscape gets the paper's momentum decay (MDLRC).
"""

from consistency_lab.recipe.derivation import SMOOTH, UNIFORM_SHARE, Curvature, heavy_ball_momentum, read_curvature
from consistency_lab.recipe.recipe import Recipe, shuffled

__all__ = ["SMOOTH", "UNIFORM_SHARE", "Curvature", "Recipe", "heavy_ball_momentum", "read_curvature", "shuffled"]
