"""The operations of a model that differentiates a network."""

import torch

from scoresde import VP, ClassifierGuided, NoisyClassifier
from scoresde.comparison.measure import flops_per_evaluation
from scoresde.nets import MLP, MLPClassifier
from scoresde.score import NetworkScore


def test_the_gradient_of_a_classifier_is_counted():
    """Torch's counter of operations fails on such gradients while it tracks the modules."""
    model = NetworkScore(MLP((3,), width=16, depth=1), VP())
    classifier = NoisyClassifier(MLPClassifier((3,), 2, width=16, depth=1), VP())
    guided = ClassifierGuided(model, classifier, 2.0).given(torch.tensor([1]))
    x = torch.zeros(4, 3)
    alone = flops_per_evaluation(model, x)
    assert flops_per_evaluation(guided, x) > 2 * alone  # a pass forward and one back of another
