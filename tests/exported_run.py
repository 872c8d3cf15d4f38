"""Runs an exported file in a process that cannot import rekern, and saves what comes out.

    python exported_run.py FILE NAME OPERANDS RESULTS

In: a file of torch with operands, first states and cotangents by name. Out: outputs, final states, gradients, and the
outputs of single steps, in a file of torch. Kernels are interpreted where TRITON_INTERPRET=1.
"""

import importlib.util
import sys
from pathlib import Path

import torch


class NoRekern:
    """Refuses to find rekern."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "rekern":
            raise ImportError(f"an exported file imports {name}")
        return None


def main(file: str, name: str, given: str, results: str) -> None:
    sys.meta_path.insert(0, NoRekern())
    described = importlib.util.spec_from_file_location("exported", Path(file))
    assert described is not None and described.loader is not None
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    data = torch.load(given)
    operands = {n: t.requires_grad_() for n, t in data["operands"].items()}
    state = {n: t.requires_grad_() for n, t in data["state"].items()}
    function, step = getattr(module, name), getattr(module, f"{name}_step")

    out, last = function(*operands.values(), state=state)
    outputs = out if isinstance(out, dict) else {"out": out}
    found = [*outputs.values(), *last.values()]
    gradients = torch.autograd.grad(found, [*operands.values(), *state.values()], data["cotangents"])

    def is_alike(alike) -> bool:
        again, again_last = function(*operands.values(), state=state)
        same = [(again if isinstance(again, dict) else {"out": again}), again_last]
        return all(alike(a[n], b[n]) for a, b in zip([outputs, last], same) for n in a)

    repeated = is_alike(torch.equal)
    rounding = 1e-5 if found[0].dtype == torch.float32 else 2**-7
    with torch.no_grad():  # another kernel, whose compiler may round elsewhere
        repeated &= is_alike(lambda a, b: torch.allclose(a, b, rtol=rounding, atol=1e-6))

    own = {n: t.detach().clone() for n, t in state.items()}
    steps = []
    for t in range(found[0].shape[1]):
        at = [v[:, t] if n in data["inputs"] else v for n, v in operands.items()]
        out, new = step(*at, state=own, in_place=True)
        assert all(new[n] is own[n] for n in own)
        steps.append(out if isinstance(out, dict) else {"out": out})
    torch.save(
        {
            "outputs": {n: t.detach() for n, t in outputs.items()},
            "final": {n: t.detach() for n, t in last.items()},
            "gradients": dict(zip([*operands, *state], gradients)),
            "steps": {n: torch.stack([s[n] for s in steps], 1) for n in outputs} if steps else {},
            "final of steps": own,
            "repeated": repeated,
            "rekern": sorted(n for n in sys.modules if n.partition(".")[0] == "rekern"),
        },
        results,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
