"""Plain tensors as parameters of a live module: a patch of torch/nn/modules/module.py, made from the installed torch.

For code that must inject tensors; taalm itself uses torch.func.functional_call and needs no patch. Ways to have it:
- in this process only, site-packages untouched: `replacement.overlay()`, or `python -m replacement run script.py ...`;
- on disk, with a backup: `python -m replacement install`, `restore`, `status`.
"""

from replacement.inject import injected_call
from replacement.overlay import overlay

__all__ = ["injected_call", "overlay"]
