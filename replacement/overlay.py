"""The patch for one process: nn.Module's two methods are compiled from the patched source; no file changes."""

import ast
import types
from pathlib import Path

import torch
from torch.nn.modules import module as torch_module

from replacement.patch import MARK, patched

METHODS = ("register_parameter", "__setattr__")


def module_file() -> Path:
    """Where the installed torch/nn/modules/module.py lies."""
    return Path(torch_module.__file__)


def overlay() -> None:
    """Let nn.Module take plain tensors as parameters from now on, in this process. A second call changes nothing.

    Raises PatchError when the installed torch is not as expected.
    """
    if getattr(torch.nn.Module.register_parameter, "_taalm", False):
        return
    source = module_file().read_text()
    if MARK in source:  # installed on disk: there is nothing to do
        return
    name = f"<taalm replacement of {module_file()}>"
    tree = ast.parse(patched(source))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == "Module":
            kept = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name in METHODS]
            shell = ast.ClassDef(
                "Module", [], [], kept, [], **({"type_params": []} if hasattr(node, "type_params") else {})
            )
    scope = dict(vars(torch_module))
    exec(compile(ast.fix_missing_locations(ast.Module([shell], [])), name, "exec"), scope)
    for method in METHODS:
        made = vars(scope["Module"])[method]
        # super() without arguments looks up __class__ in the closure: it must be the real nn.Module
        cells = tuple(types.CellType(torch.nn.Module) for _ in made.__code__.co_freevars)
        live = types.FunctionType(made.__code__, vars(torch_module), method, made.__defaults__, cells)
        live.__annotations__, live.__doc__, live._taalm = made.__annotations__, made.__doc__, True
        setattr(torch.nn.Module, method, live)
