"""The patched source: both places that refuse a plain tensor as a parameter, found in the syntax tree and relaxed."""

import ast

MARK = "# taalm replacement"


class PatchError(Exception):
    """The source is not as expected; says what was not found."""


def _method(tree: ast.Module, name: str) -> ast.FunctionDef:
    """Module.<name>."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == "Module":
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == name:
                    return item
    raise PatchError(f"there is no class Module with a method {name}")


def _refusal(method: ast.FunctionDef, test: str, message: str) -> ast.If:
    """The one `if <test>:` of a method that does nothing but raise a TypeError whose text holds `message`."""
    found = [
        node
        for node in ast.walk(method)
        if isinstance(node, ast.If)
        and ast.unparse(node.test) == test
        and len(node.body) == 1
        and isinstance(node.body[0], ast.Raise)
        and ast.unparse(node.body[0]).startswith("raise TypeError(")
        and message in ast.unparse(node.body[0])
    ]
    if len(found) != 1:
        raise PatchError(
            f"Module.{method.name}: {len(found)} places that say `if {test}: raise TypeError(... {message} ...)`, "
            "expected one; this torch is not one that the patch understands"
        )
    return found[0]


def patched(source: str) -> str:
    """The source of torch/nn/modules/module.py with both refusals relaxed for plain tensors; nothing else changes.

    `register_parameter` stores a tensor that is no Parameter as it is, graph and all; `__setattr__` passes it on.
    Raises PatchError when a place is not found, or when the source is patched already.
    """
    if MARK in source:
        raise PatchError("this source is patched already")
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise PatchError(f"this is no Python source: {error}") from None
    lines = source.splitlines(keepends=True)
    register = _refusal(_method(tree, "register_parameter"), "not isinstance(param, Parameter)", "to parameter")
    assign = _refusal(_method(tree, "__setattr__"), "value is not None", "as parameter")
    inner = " " * register.body[0].col_offset
    edits = {
        register.body[0].lineno - 1: [
            f"{inner}if isinstance(param, Tensor):  {MARK}\n",
            f"{inner}    self._parameters[name] = param\n",
            f"{inner}    return\n",
        ],
        assign.body[0].lineno - 1: [
            f"{' ' * assign.body[0].col_offset}if isinstance(value, Tensor):  {MARK}\n",
            f"{' ' * assign.body[0].col_offset}    return self.register_parameter(name, value)\n",
        ],
    }
    for line in sorted(edits, reverse=True):
        lines[line:line] = edits[line]
    return "".join(lines)
