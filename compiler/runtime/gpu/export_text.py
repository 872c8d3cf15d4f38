"""Several kernels in one file: each as it is compiled, with one name for one thing.

In: the text of generated modules by pass. Out: `Merged`: constants, functions and kernels, in the order of a file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Merged:
    """Parts of a file.

    Args:
        constants: Lines, as the kernels have them.
        functions: The text of every function that kernels call.
        kernels: The text of every kernel, by pass.
        renamed: By pass, the name that a constant of its module has in the file.
    """

    constants: tuple[str, ...]
    functions: tuple[str, ...]
    kernels: Mapping[str, str]
    renamed: Mapping[str, Mapping[str, str]]


def merge(modules: Mapping[str, str], entries: Mapping[str, str]) -> Merged:
    """One file of the modules of several passes.

    A constant that is not the same in all passes has the name of the first pass with its value in front of its own.

    Args:
        entries: Names of the kernels by pass.
    """
    constants = {name: _constants(text) for name, text in modules.items()}
    values: dict[str, dict[str, str]] = {}  # the pass that has a line first, by the name of the constant
    for name, found in constants.items():
        for constant, line in found.items():
            values.setdefault(constant, {}).setdefault(line, name)
    renamed = {
        name: {c: c if len(values[c]) == 1 else f"{values[c][line].upper()}_{c}" for c, line in found.items()}
        for name, found in constants.items()
    }
    lines = {
        renamed[name][constant]: _aligned(line.replace(constant, renamed[name][constant], 1))
        for name, found in constants.items()
        for constant, line in found.items()
    }
    functions: dict[str, str] = {}
    kernels: dict[str, str] = {}
    for name, text in modules.items():
        for function, source in _functions(text).items():
            if function == entries[name]:
                kernels[name] = _renamed(source, renamed[name])
            else:
                functions[function] = source
    ordered = [constant for found in constants for constant in dict.fromkeys(renamed[found].values())]
    return Merged(tuple(lines[c] for c in dict.fromkeys(ordered)), tuple(functions.values()), kernels, renamed)


def _constants(text: str) -> dict[str, str]:
    """The lines `NAME = tl.constexpr(..)` of a module."""
    return {found[1]: found[0] for found in re.finditer(r"^(\w+) = tl\.constexpr\(.*$", text, re.MULTILINE)}


def _aligned(line: str) -> str:
    code, _, reason = line.partition("#")
    return f"{code.rstrip().ljust(41)}#{reason}"


def _functions(text: str) -> dict[str, str]:
    """The functions of a module with their decorators, as they are written."""
    lines = text.splitlines()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            found[node.name] = "\n".join(lines[first - 1 : node.end_lineno])
    return found


def _renamed(source: str, names: Mapping[str, str]) -> str:
    return re.sub(r"\b[A-Za-z_]\w*\b", lambda word: names.get(word[0], word[0]), source)
