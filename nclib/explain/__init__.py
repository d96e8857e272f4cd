"""What did it look at? ``explain(model, images, classes, ...) -> maps`` [N, H, W].

A map is high where a pixel speaks for the class (a logit of the model). gradients.py follows the
slope, gradcam.py the last feature maps; occlusion.py, surrogate.py and shapley.py switch parts off
and ask again; counterfactual.py looks for what would change the answer. scores.py measures what a
map is worth.
"""

from nclib.explain.counterfactual import counterfactual
from nclib.explain.gradcam import grad_cam
from nclib.explain.gradients import gradient, gradient_x_input, integrated_gradients
from nclib.explain.occlusion import occlusion
from nclib.explain.scores import agreement, hit_rate, randomised, restored
from nclib.explain.shapley import shapley
from nclib.explain.surrogate import squares, surrogate
