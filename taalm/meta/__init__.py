"""Meta-learning of token weights: the inner step, its hypergradient, the outer loop."""
