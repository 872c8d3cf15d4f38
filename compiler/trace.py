"""Arrays that record: the body of a spec runs once on these, with NumPy's meaning of every operation.

In: the values that a spec's function touches. Out: an `Array` of formulas (`rekern.ir`). Axes with a name
stay symbolic; axes with a literal size are unrolled, one formula a cell, so loops over them are plain Python.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from types import EllipsisType
from typing import NoReturn, SupportsFloat

from rekern import ir
from rekern.errors import SpecError
from rekern.ir import Index, Node

Dim = int | str
Cell = tuple[int, ...]
Key = int | slice | EllipsisType | None
MOST_CELLS = 64  # unrolled formulas of one array; a longer axis wants a name


class Array:
    """A value of one time step: `dims` (a name or a number each) and one formula for each literal cell.

    The free indices of a formula are among `ir.canonical_axes` of the named dims.
    """

    __slots__ = ("cells", "dims")
    __array_ufunc__ = None  # NumPy scalars leave operators to us
    __hash__ = None  # type: ignore[assignment]  # == compares elementwise

    def __init__(self, dims: tuple[Dim, ...], cells: Mapping[Cell, Node]) -> None:
        if len(cells) > MOST_CELLS:
            raise SpecError(
                f"an array of shape {show(dims)} unrolls into {len(cells)} formulas, "
                f"at most {MOST_CELLS} are read\n"
                f"give the long axis a name, as in Input('D'); its length comes with the data"
            )
        self.dims = dims
        self.cells = dict(cells)

    # -- shape

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.dims

    @property
    def ndim(self) -> int:
        return len(self.dims)

    @property
    def T(self) -> Array:
        """All axes reversed."""
        return permute(self, tuple(reversed(range(self.ndim))))

    def __len__(self) -> int:
        if not self.dims:
            raise SpecError("a single number cannot be unpacked or looped over")
        if isinstance(self.dims[0], str):
            raise SpecError(
                f"axis {self.dims[0]!r} has no fixed size, so it cannot be unpacked or looped over\n"
                f"declare it as a number, or bind it: spec.bind({self.dims[0]}=2)"
            )
        return self.dims[0]

    def __iter__(self) -> Iterator[Array]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Key | tuple[Key, ...]) -> Array:
        return take(self, key if isinstance(key, tuple) else (key,))

    # -- arithmetic

    def __add__(self, other: Array | float) -> Array:
        return elementwise("add", self, other)

    def __radd__(self, other: float) -> Array:
        return elementwise("add", other, self)

    def __sub__(self, other: Array | float) -> Array:
        return elementwise("sub", self, other)

    def __rsub__(self, other: float) -> Array:
        return elementwise("sub", other, self)

    def __mul__(self, other: Array | float) -> Array:
        return elementwise("mul", self, other)

    def __rmul__(self, other: float) -> Array:
        return elementwise("mul", other, self)

    def __truediv__(self, other: Array | float) -> Array:
        return elementwise("div", self, other)

    def __rtruediv__(self, other: float) -> Array:
        return elementwise("div", other, self)

    def __neg__(self) -> Array:
        return elementwise("neg", self)

    def __pos__(self) -> Array:
        return self

    def __abs__(self) -> Array:
        return elementwise("abs", self)

    def __pow__(self, exponent: float) -> Array:
        return power(self, exponent)

    def __matmul__(self, other: Array) -> Array:
        return matmul(self, other)

    # -- comparison: 1 where it holds, 0 elsewhere

    def __lt__(self, other: Array | float) -> Array:
        return elementwise("lt", self, other)

    def __le__(self, other: Array | float) -> Array:
        return elementwise("le", self, other)

    def __gt__(self, other: Array | float) -> Array:
        return elementwise("gt", self, other)

    def __ge__(self, other: Array | float) -> Array:
        return elementwise("ge", self, other)

    # Of two arrays it is an array, as in NumPy; `object` promises a bool.
    def __eq__(self, other: object) -> Array:  # type: ignore[override]
        return elementwise("eq", self, as_array(other))

    def __ne__(self, other: object) -> Array:  # type: ignore[override]
        return elementwise("ne", self, as_array(other))

    # -- what a recurrence cannot do

    def __bool__(self) -> NoReturn:
        raise SpecError(
            "the values of a step are not known when the recurrence is read, "
            "so Python cannot branch on them\nchoose with rekern.math.where(condition, a, b)"
        )

    def __float__(self) -> NoReturn:
        raise SpecError(
            "a function outside the language was called on a value of the step\n"
            "use the functions of rekern.math (exp, tanh, sigmoid, where, outer, ...)"
        )

    __int__ = __index__ = __float__

    def __setitem__(self, key: object, value: object) -> NoReturn:
        raise SpecError(
            "arrays of a step are values and cannot be assigned to; build the new array from its parts"
        )

    def __repr__(self) -> str:
        return f"Array{show(self.dims)}"


def show(dims: Sequence[Dim]) -> str:
    """A shape as the user writes it: `(4, D)`."""
    return "(" + ", ".join(map(str, dims)) + ("," if len(dims) == 1 else "") + ")"


def cells_of(dims: Sequence[Dim]) -> Iterator[Cell]:
    """Every cell of the literal axes of `dims`."""
    return itertools.product(*(range(d) for d in dims if isinstance(d, int)))


def named(dims: Sequence[Dim]) -> list[str]:
    return [d for d in dims if isinstance(d, str)]


def operand(name: str, dims: tuple[Dim, ...]) -> Array:
    """The array that stands for an operand: every cell is a read."""
    axes = ir.canonical_axes(named(dims))
    return Array(dims, {cell: ir.read(name, cell, axes) for cell in cells_of(dims)})


def as_array(value: object) -> Array:
    if isinstance(value, Array):
        return value
    if isinstance(value, SupportsFloat) and getattr(value, "ndim", 0) == 0:
        return Array((), {(): ir.number(float(value))})
    raise SpecError(f"{value!r} is neither a number nor a value of the step; expected one of these")


def elementwise(function: str, *values: Array | float) -> Array:
    """`function` of `values`, broadcast against each other from the right."""
    arrays = [as_array(v) for v in values]
    dims = arrays[0].dims
    for other in arrays[1:]:
        dims = broadcast_dims(dims, other.dims)
    aligned = [broadcast(a, dims) for a in arrays]
    return Array(
        dims, {cell: ir.build(function, *(a.cells[cell] for a in aligned)) for cell in cells_of(dims)}
    )


def broadcast_dims(a: tuple[Dim, ...], b: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """NumPy's rule; two axes meet if they have the same name or size, or one is a literal 1."""
    rank = max(len(a), len(b))
    result: list[Dim] = []
    for x, y in zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True):
        if x != y and x != 1 and y != 1:
            raise SpecError(
                f"shapes {show(a)} and {show(b)} do not broadcast: axis {x!r} meets axis {y!r}\n"
                f"axes meet from the right and need the same name or size; "
                f"insert axes with [:, None], or use outer"
            )
        result.append(y if x == 1 else x)
    return tuple(result)


def broadcast(array: Array, dims: tuple[Dim, ...]) -> Array:
    """`array` with the shape `dims`, to which its own broadcasts."""
    if array.dims == dims:
        return array
    missing = len(dims) - array.ndim
    targets = _axis_indices(dims)[missing:]
    mapping = {}
    for index, target in zip(_axis_indices(array.dims), targets, strict=True):
        if index is not None and target is not None:
            mapping[index] = target
    cells = {}
    for cell in cells_of(dims):
        position = iter(cell)
        full = [next(position) if isinstance(d, int) else None for d in dims][missing:]
        source = tuple(
            0 if d == 1 else p for d, p in zip(array.dims, full, strict=True) if isinstance(d, int)
        )
        cells[cell] = ir.rename(array.cells[tuple(p or 0 for p in source)], mapping)
    return Array(dims, cells)


def _axis_indices(dims: Sequence[Dim]) -> list[Index | None]:
    """For each axis its index, None for a literal one."""
    indices = iter(ir.canonical_axes(named(dims)))
    return [next(indices) if isinstance(d, str) else None for d in dims]


def permute(array: Array, order: tuple[int, ...]) -> Array:
    """Axis n of the result is axis `order[n]` of `array`."""
    dims = tuple(array.dims[n] for n in order)
    old = _axis_indices(array.dims)
    mapping = {}
    for source, new in zip(order, _axis_indices(dims), strict=True):
        index = old[source]
        if index is not None and new is not None:
            mapping[index] = new
    literal = [n for n, d in enumerate(array.dims) if isinstance(d, int)]
    cells = {}
    for cell in cells_of(dims):
        at = dict(zip([n for n in order if n in literal], cell, strict=True))
        cells[cell] = ir.rename(array.cells[tuple(at[n] for n in literal)], mapping)
    return Array(dims, cells)


def take(array: Array, key: tuple[Key, ...]) -> Array:
    """NumPy's basic indexing with numbers (literal axes only), ':', None and '...'."""
    if sum(k is Ellipsis for k in key) > 1:
        raise SpecError("an index has at most one '...'; write ':' for the other axes")
    used = sum(k is not None and k is not Ellipsis for k in key)
    if used > array.ndim:
        raise SpecError(f"{used} indices for an array of shape {show(array.dims)}")
    at = next((n for n, k in enumerate(key) if k is Ellipsis), len(key))
    keys: list[Key] = [*key[:at], *[slice(None)] * (array.ndim - used), *key[at + 1 :]]
    axes = iter(array.dims)
    # for each key: the axis of the result, the cell of the source
    steps = [_step(k, None if k is None else next(axes)) for k in keys]
    dims = tuple(dim for dim, _ in steps if dim is not None)
    cells = {}
    for cell in cells_of(dims):
        position = iter(cell)
        source = []
        for k, (dim, pick) in zip(keys, steps, strict=True):
            here = next(position) if isinstance(dim, int) else pick
            if k is not None and here is not None:
                source.append(here)
        cells[cell] = array.cells[tuple(source)]
    return Array(dims, cells)


def _step(key: Key, dim: Dim | None) -> tuple[Dim | None, int | None]:
    """What one key does to one axis: the axis that stays, or the cell that is picked."""
    if dim is None:
        return 1, None
    if isinstance(key, slice):
        if key != slice(None):
            raise SpecError(
                "a part of an axis cannot be sliced out; index single cells, or take the whole axis with ':'"
            )
        return dim, None
    if isinstance(key, bool) or not isinstance(key, int):
        raise SpecError(f"cannot index with {key!r}; use numbers, ':', None and '...'")
    if isinstance(dim, str):
        raise SpecError(
            f"axis {dim!r} is named, so it has no cell {key}; only axes with a literal size are indexed"
        )
    if not -dim <= key < dim:
        raise SpecError(f"index {key} is outside an axis of size {dim}")
    return None, key % dim


def outer(a: Array, b: Array) -> Array:
    """`outer(a, b)[i, j] = a[i] * b[j]` for two vectors."""
    if a.ndim != 1 or b.ndim != 1:
        raise SpecError(
            f"outer takes two vectors, not shapes {show(a.dims)} and {show(b.dims)}; "
            f"for others use [..., None]"
        )
    return elementwise("mul", a[:, None], b)


def matmul(a: Array, b: Array) -> Array:
    """NumPy's `a @ b`: the last axis of `a` meets the first of a vector `b`, or the last but one."""
    a, b = as_array(a), as_array(b)
    if a.ndim == 0 or b.ndim == 0:
        raise SpecError("'@' takes arrays with axes; multiply by a number with '*'")
    left, right = a.dims[-1], b.dims[-2 if b.ndim > 1 else 0]
    if left != right:
        which = "second last" if b.ndim > 1 else "only"
        raise SpecError(
            f"'@' joins the last axis of {show(a.dims)} with the {which} axis of {show(b.dims)}, "
            f"but {left!r} is not {right!r}\ntranspose with .T, or swap the two sides"
        )
    rows = a if a.ndim > 1 else a[None, :]
    columns = b if b.ndim > 1 else b[:, None]
    columns = permute(columns, (*range(columns.ndim - 2), columns.ndim - 1, columns.ndim - 2))
    products = elementwise("mul", rows[..., :, None, :], columns[..., None, :, :])
    result = reduce(products, "sum", (-1,))
    if b.ndim == 1:
        result = result[..., 0]
    return result[..., 0, :] if a.ndim == 1 and b.ndim > 1 else result[..., 0] if a.ndim == 1 else result


def reduce(array: Array, operation: ir.Reduction, axes: Sequence[int], keepdims: bool = False) -> Array:
    """`sum` or `max` over `axes`."""
    chosen = set()
    for axis in axes:
        if not -array.ndim <= axis < array.ndim:
            raise SpecError(f"axis {axis} is outside an array of shape {show(array.dims)}")
        if axis % array.ndim in chosen:
            raise SpecError(
                f"axis {axis} of an array of shape {show(array.dims)} is given twice; give each once"
            )
        chosen.add(axis % array.ndim)
    old = _axis_indices(array.dims)
    kept = tuple(d for n, d in enumerate(array.dims) if n not in chosen)
    kept_old = [i for n, i in enumerate(old) if n not in chosen]
    mapping = {
        o: n for o, n in zip(kept_old, _axis_indices(kept), strict=True) if o is not None and n is not None
    }
    literal = [n for n, d in enumerate(array.dims) if isinstance(d, int)]
    groups: dict[Cell, list[Node]] = {}
    for cell, node in array.cells.items():
        rest = tuple(p for n, p in zip(literal, cell, strict=True) if n not in chosen)
        groups.setdefault(rest, []).append(node)
    cells = {}
    for cell, nodes in groups.items():
        joined = nodes[0]
        for node in nodes[1:]:
            joined = ir.add(joined, node) if operation == "sum" else ir.apply("maximum", joined, node)
        for n in sorted(chosen):
            index = old[n]
            if index is not None:
                joined = ir.reduce(operation, index, joined)
        # the bound indices are gone: what is left may be renumbered
        cells[cell] = ir.rename(joined, mapping)
    result = Array(kept, cells)
    if keepdims:
        result = take(result, tuple(None if n in chosen else slice(None) for n in range(array.ndim)))
    return result


def power(array: Array, exponent: Array | float) -> Array:
    """`x ** n` for the exponents that have one meaning for every real x or an own function."""
    square = elementwise("square", array)
    powers: dict[float, Array] = {
        1: array, 2: square, 3: square * array, 4: square * square, -1: 1 / array, -2: 1 / square,
        0.5: elementwise("sqrt", array), -0.5: elementwise("rsqrt", array),
    }  # fmt: skip
    if not isinstance(exponent, Array) and exponent in powers:
        return powers[exponent]
    raise SpecError(
        f"the exponent {exponent!r} is not one of 1, 2, 3, 4, 0.5, -0.5, -1, -2\n"
        f"write exp({exponent!r} * log(x))"
    )
