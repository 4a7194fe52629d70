"""Seeds for the parts of a run."""


def derive_seed(seed: int, index: int) -> int:
    """A seed for the index-th epoch or step of a run, apart from its neighbours' and from another run's."""
    return (seed * 1_000_003 + index) % 2**31
