"""Find the poison in the features of a layer: per-sample scores, and tests of whole batches.

Every score is ``score(features [N, D], labels [N], ...) -> [N]`` (float64, CPU), higher = more
suspicious; the two depths take ``{layer: [N, D]}``. They refuse NaN, a class without samples and a
single class. One idea per file: ``margins`` (wrong label?), ``outliers`` (odd in its class?),
``consistency`` (does the answer stay when the image changes?), ``evaluate`` (with the truth at
hand), ``two_sample`` (batches of requests), ``cuts`` (where to cut when nobody knows how much is
poisoned). ``groups``, ``transplant``, ``crowds`` and
``mislabelled`` are the parts of the verdict in ``nclib.correction``, which trains.
"""

from nclib.detection.cuts import RULES, agreement, known_rate
from nclib.detection.evaluate import (
    auroc,
    by_layer,
    combine,
    evaluate,
    precision_at,
    random_score,
    tpr_at_fpr,
)
from nclib.detection.margins import (
    confident_learning,
    cosine_margin,
    deep_knn,
    ncc_depth,
    out_of_fold,
    prediction_depth,
    whitened_margin,
)
from nclib.detection.outliers import (
    activation_clustering,
    class_norm,
    class_norm_index,
    nc1_residual,
    robust_distance,
    scan,
    scan_classes,
    spectral,
)
from nclib.detection.two_sample import (
    bonferroni,
    disjoint_halves,
    layer_p_values,
    layer_rates,
    mmd,
    mmd_test,
    rate_p_values,
    top,
    witness,
)

# name -> score of one layer's features; the two depths, which need all layers, stand apart
SCORES = {
    "nc1_residual": nc1_residual,
    "whitened_margin": whitened_margin,
    "cosine_margin": cosine_margin,
    "deep_knn": deep_knn,
    "confident_learning": confident_learning,
    "robust_distance": robust_distance,
    "spectral": spectral,
    "activation_clustering": activation_clustering,
    "scan": scan,
    "class_norm": class_norm,
}
