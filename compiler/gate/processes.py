"""A compiler in a process of its own, which can be stopped whatever it does.

In: a question, a time to be done by. Out: the answer, or how the process ended. It and all that it starts are one
process group, with a limit of memory; what they write goes into one folder. After an end the next question
starts another process.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rekern.settings import Settings

# A worker needs the back ends only. Importing the package itself imports torch: 2 s and 300 MB a worker.
START = """
import sys, types
rekern = types.ModuleType("rekern")
rekern.__path__ = [sys.argv[1]]
sys.modules["rekern"] = rekern
from rekern.gate.worker import main
main(int(sys.argv[2]))
"""
PACKAGE = Path(__file__).resolve().parents[1]
POLL_SECONDS = 0.05


class Late(Exception):
    """There was no answer in time."""


class Stopped(Exception):
    """The answer is not needed any more."""


class Died(Exception):
    """The process ended by itself; the message says how."""


class CompilerProcess:
    """One process, started when it is first asked, and again after an end.

    Args:
        folder: For all that it writes; whoever makes it removes it.
        memory_bytes: Of address space, for each of its processes.
    """

    def __init__(self, folder: Path, memory_bytes: int) -> None:
        self.folder, self.memory_bytes = folder, memory_bytes
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, question: Mapping[str, object], until: float, stop: threading.Event) -> dict[str, Any]:
        """The answer of the worker.

        Args:
            until: On the clock of `time.monotonic`.
            stop: Gives up at once when it is set.

        Raises:
            Late: the process was killed at `until`.
            Stopped: it was killed because of `stop`.
            Died: it ended by itself.
        """
        if self.process is None:
            self.process = self._start()
        process = self.process
        assert process.stdin is not None and process.stdout is not None
        read = b""
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            while not read.endswith(b"\n"):
                if stop.is_set():
                    raise Stopped
                if time.monotonic() >= until:
                    raise Late
                if select.select([process.stdout], [], [], POLL_SECONDS)[0]:
                    more = os.read(process.stdout.fileno(), 1 << 16)
                    if not more:
                        raise Died(self._last_words())
                    read += more
        except (Late, Stopped, Died):
            self.end()
            raise
        except BrokenPipeError:
            words = self._last_words()
            self.end()
            raise Died(words) from None
        found: dict[str, Any] = json.loads(read)
        return found

    def end(self) -> None:
        """End the process and all that it has started. It may be asked again."""
        process, self.process = self.process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):     # a question that was never read
                    pipe.close()

    def _start(self) -> subprocess.Popen[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        # Triton's own settings would change what is compiled, unknown to the memory of answers.
        kept = {key: value for key, value in os.environ.items() if not key.startswith("TRITON_")}
        places = {"TRITON_CACHE_DIR": "triton", "TRITON_HOME": "home", "TMPDIR": "tmp"}
        (self.folder / "tmp").mkdir(exist_ok=True)
        environment = kept | {name: str(self.folder / place) for name, place in places.items()}
        environment["REKERN_CACHE_DIR"] = str(Settings.read().cache_dir)
        with self._errors().open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-c", START, str(PACKAGE), str(self.memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )

    def _errors(self) -> Path:
        return self.folder / "errors"

    def _last_words(self) -> str:
        assert self.process is not None
        code = self.process.wait()
        lines = [line for line in self._errors().read_text(errors="replace").splitlines() if line.strip()]
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the compiler died: {how}" + (f" ({lines[-1].strip()[:200]})" if lines else "")
