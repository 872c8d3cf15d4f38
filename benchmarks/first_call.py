"""What a user waits for: the first call of a kernel, forward and backward, in a process of its own.

In: a SPEC and a file of operands (torch.save). Out: one line of JSON on stdout: seconds of the imports, of the call
(wall time), and of all CPU time that the call took, compilers included. `REKERN_CACHE_DIR` decides whether something
is built.
"""

from __future__ import annotations

import json
import os
import sys
import time

start = time.perf_counter()
import torch  # noqa: E402  # imports are part of what is timed

torch_there = time.perf_counter()
import rekern  # noqa: E402  # timed
from rekern.cli.specs import find  # noqa: E402  # timed

imported = time.perf_counter()


def cpu_seconds() -> float:
    """Of this process and of those that it waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def main() -> None:
    name, path = sys.argv[1:]
    spec = find(name)
    operands = {n: t.requires_grad_() for n, t in torch.load(path, weights_only=True).items()}
    wall, cpu = time.perf_counter(), cpu_seconds()
    out, _ = rekern.compile(spec)(**operands)
    forward = time.perf_counter()
    outputs = [out] if isinstance(out, torch.Tensor) else list(out.values())
    torch.autograd.grad([o.sum() for o in outputs], list(operands.values()), materialize_grads=True)
    result = {
        "torch_import_seconds": torch_there - start,
        "rekern_import_seconds": imported - torch_there,
        "forward_seconds": forward - wall,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": cpu_seconds() - cpu,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
