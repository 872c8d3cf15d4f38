"""A process that compiles what it is told to, one kernel after the other; it may be killed at any time.

In: lines of JSON on stdin, each a source and an architecture. Out: a line of JSON for each on the stdout that it was
started with: what the kernel takes, or why there is none. Compilers may print what they like: that goes elsewhere.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import signal
import sys
import threading
from typing import Any, TextIO

NO_MEMORY = "Memory allocation failure"     # in the words of ptxas


def main(memory_bytes: int) -> None:
    """Serve until stdin ends. Whoever asked is gone then, so a compiler still at work is ended with this process."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))    # for ptxas too, which inherits it
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    questions: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin, questions), daemon=True).start()
    while True:
        answers.write(json.dumps(answer(json.loads(questions.get()))) + "\n")
        answers.flush()


def answer(question: dict[str, Any]) -> dict[str, object]:
    """What the compiler says: `resources` and `seconds`, `failed` with a message, or `died`."""
    from rekern.backends.compile import compile_source
    from rekern.backends.offline import from_json
    from rekern.errors import RekernError

    try:
        done = compile_source(from_json(question["source"]), question["architecture"], question["disassemble"])
    except RekernError as error:
        if NO_MEMORY in str(error):
            return {"died": "out of memory"}
        return {"failed": str(error)}
    except MemoryError:
        return {"died": "out of memory"}
    return {"resources": done.resources.as_json(), "seconds": done.seconds}


def _listen(source: TextIO, questions: queue.SimpleQueue[str]) -> None:
    for line in source:
        questions.put(line)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]))
