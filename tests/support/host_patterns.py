"""Code that lets the host wait for a GPU, by its looks: what `meta` cannot see, and branches that no test takes.

A pattern is a suspicion. What is looked for: numbers and arrays read from tensors, shapes that depend on values,
tensors made on the host where others are on a device, and linear algebra that looks for errors.
"""

import ast
from typing import NamedTuple

READS = ("item", "tolist", "numpy", "cpu", "nonzero", "argwhere", "masked_select", "unique", "unique_consecutive")
READS += ("is_nonzero", "equal", "allclose", "synchronize", "bincount", "pin_memory", "cuda")
CHECKED = ("inv", "solve", "cholesky", "eigh", "eig", "svd", "svdvals", "lstsq", "qr", "matrix_rank", "pinv", "lu")
LISTS = ("tensor", "as_tensor", "from_numpy", "new_tensor")
MADE = ("arange", "zeros", "ones", "full", "eye", "linspace", "empty", "rand", "randn", "randint", "randperm")
REDUCTIONS = (
    "any",
    "all",
    "sum",
    "mean",
    "max",
    "min",
    "amax",
    "amin",
    "norm",
    "argmax",
    "argmin",
    "isfinite",
    "isnan",
)
SETUP = ("__init__", "__post_init__", "<module>", "<class>")  # runs before the hot path


class Suspicion(NamedTuple):
    """Where, and what of it is suspicious."""

    function: str
    pattern: str


def suspicions(code: str) -> list[Suspicion]:
    """List the suspicious places of a module's functions, constructors aside."""
    finder = _Finder()
    finder.visit(ast.parse(code))
    return [found for found in finder.found if found.function.rpartition(".")[2] not in SETUP]


class _Finder(ast.NodeVisitor):
    def __init__(self) -> None:
        self.inside = ["<module>"]
        self.found: list[Suspicion] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._enter(node.name, node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._enter("<class>", node)

    def _enter(self, name: str, node: ast.AST) -> None:
        self.inside.append(name)
        self.generic_visit(node)
        self.inside.pop()

    def _note(self, pattern: str) -> None:
        self.found.append(Suspicion(self.inside[-1], pattern))

    def visit_Call(self, node: ast.Call) -> None:
        name = _name(node.func)
        keywords = {keyword.arg for keyword in node.keywords}
        if isinstance(node.func, ast.Attribute):
            of_torch = _name(node.func.value) == "torch"
            if name in READS or (name in CHECKED and _name(node.func.value) == "linalg"):
                self._note(name)
            if name in LISTS and (of_torch or name == "new_tensor"):
                self._note(name)
            if name in MADE and of_torch and not keywords & {"device", "generator", "out"}:
                self._note(f"{name} without device")
            if name == "one_hot" and len(node.args) + len(node.keywords) < 2:
                self._note("one_hot of unknown length")
        elif name in ("int", "float", "bool") and any(_reduces(argument) for argument in node.args):
            self._note(f"{name} of a reduction")
        if "non_blocking" in keywords:
            self._note("non_blocking")
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if any(isinstance(part, ast.Compare) for part in ast.walk(node.slice)):
            self._note("index by a mask")
        self.generic_visit(node)

    def visit_If(self, node: ast.If | ast.While | ast.Assert | ast.IfExp) -> None:
        if _reduces(node.test):
            self._note("branch on a reduction")
        self.generic_visit(node)

    visit_While = visit_Assert = visit_IfExp = visit_If


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _reduces(node: ast.AST) -> bool:
    """Check whether an expression calls a reduction of a tensor."""
    return any(_is_reduction(part) for part in ast.walk(node))


def _is_reduction(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in REDUCTIONS):
        return False
    return _name(node.func.value) not in ("math", "np")
