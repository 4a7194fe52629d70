"""The type of flags that are shares: above 0, at most 1."""

from jsonargparse.typing import restricted_number_type

Share = restricted_number_type("Share", float, [(">", 0), ("<=", 1)])
