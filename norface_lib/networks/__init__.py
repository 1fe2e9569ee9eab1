"""The paper's networks, and weights: normalizer, classifier, evaluator, frozen networks."""
