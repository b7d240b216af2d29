"""The process that holds one engine: a fault in a runtime fails one variant, not the run.

Requests and replies are one JSON object per line on standard input and output. A runtime may print what it
likes: its output goes to standard error, which the run keeps in the variant's log.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import sys
import time
from typing import Any, Callable, Dict, List, Mapping, Sequence, Union

from . import engines
from .feeds import Feed
from .files import publish, read_text
from .perf import Counter, NoCounter

Reply = Dict[str, Any]
PROGRESS_NS = 500_000_000
OOM_SCORE = "500"
"""When memory runs out the kernel ends this process, which costs a variant, and not the run's own."""


class Worker:
    """One loaded variant; each public method answers one kind of request."""

    def __init__(self, reply: Callable[[Reply], None]) -> None:
        self._reply = reply

    def load(self, request: Mapping[str, Any]) -> Reply:
        """Loads the runtime and the model, binds the first samples and runs the first inference."""
        variant, blobs = request["variant"], request["blobs"]
        library = variant["library"] and os.path.join(blobs, variant["library"])
        self._counter = _counter()  # before the runtime starts threads, so that it counts them too
        start = time.monotonic_ns()
        self._engine = engines.load(
            variant["engine"],
            library,
            os.path.join(blobs, variant["model"]),
            variant["threads"],
            variant["options"],
            request["profile"],
        )
        load_ns = time.monotonic_ns() - start
        self._batch = variant["batch"]
        self._feeds = self._in_model_order([Feed(fields, blobs) for fields in variant["feeds"]])
        self._bind(0)
        first_ns = self._engine.invoke()
        version = self._engine.version or variant["library_version"]
        return {"load_ns": load_ns, "first_inference_ns": first_ns, "runtime_version": version}

    def warm_up(self, request: Mapping[str, Any]) -> Reply:
        """Runs a number of inferences, or until latency is steady."""
        if request["inferences"] is None:
            return {"latency_ns": engines.warm_up(self._engine, request["limit_s"])}
        return {"latency_ns": [self._engine.invoke() for _ in range(request["inferences"])]}

    def measure(self, request: Mapping[str, Any]) -> Reply:
        """One window of back-to-back inferences."""
        start = time.monotonic_ns()
        taken = engines.measure(self._engine, request["inferences"], request["seconds"], request["limit_s"])
        return {"latency_ns": taken, "start_ns": start, "end_ns": time.monotonic_ns()}

    def count(self, request: Mapping[str, Any]) -> Reply:
        """Instructions of each of a number of inferences, or why they cannot be counted."""
        if isinstance(self._counter, str):
            return {"instructions_unavailable": self._counter}
        found = []
        try:
            for _ in range(request["inferences"]):
                self._counter.start()
                self._engine.invoke()
                found.append(self._counter.stop())
        except NoCounter as error:
            return {"instructions_unavailable": str(error)}
        return {"instructions": found}

    def outputs(self, request: Mapping[str, Any]) -> Reply:
        """Runs every sample and stores the raw outputs, one file per model output, named by digest."""
        count = min(feed.count for feed in self._feeds)
        paths = ["%s-%d.part" % (request["prefix"], i) for i in range(len(self._engine.outputs))]
        hashes = [hashlib.sha256() for _ in paths]
        shapes: List[List[int]] = []
        files = [open(path, "wb") for path in paths]  # noqa: SIM115
        try:
            told = time.monotonic_ns()
            for start in range(0, count, self._batch):
                rows = min(self._batch, count - start)
                shapes = self._one_batch(start, rows, files, hashes)
                if time.monotonic_ns() - told > PROGRESS_NS:
                    told = time.monotonic_ns()
                    self._reply({"done": start + rows, "total": count})
        finally:
            for file in files:
                file.close()
        found = []
        for path, digest, shape, tensor in zip(paths, hashes, shapes, self._engine.outputs):
            publish(path, os.path.join(os.path.dirname(path), digest.hexdigest()))
            found.append(
                {
                    "name": tensor.name,
                    "blob": digest.hexdigest(),
                    "count": count,
                    "shape": shape,
                    "dtype": tensor.dtype,
                    "scale": tensor.scale,
                    "zero_point": tensor.zero_point,
                }
            )
        self._bind(0)
        return {"outputs": found}

    def profile(self, request: Mapping[str, Any]) -> Reply:
        """Runs a number of inferences and ends profiling."""
        for _ in range(request["inferences"]):
            self._engine.invoke()
        return {"ops": engines.totals(self._engine.op_times())}

    def memory(self, _: Mapping[str, Any]) -> Reply:
        """This process's peak resident memory."""
        for line in (read_text("/proc/self/status") or "").splitlines():
            if line.startswith("VmHWM:"):
                return {"peak_memory_bytes": int(line.split()[1]) * 1024}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"peak_memory_bytes": peak if sys.platform == "darwin" else peak * 1024}

    def _in_model_order(self, feeds: Sequence[Feed]) -> List[Feed]:
        by_name = {feed.input: feed for feed in feeds}
        names = [tensor.name for tensor in self._engine.inputs]
        if set(by_name) == set(names):
            return [by_name[name] for name in names]
        if len(feeds) == len(names) == 1:  # a file without signature names it as it likes
            return list(feeds)
        message = "the model's inputs are %s, samples were sent for %s"
        raise engines.EngineError(message % (", ".join(names), ", ".join(by_name)))

    def _bind(self, start: int) -> None:
        batches = [feed.batch(start, self._batch) for feed in self._feeds]
        self._engine.bind([data for data, _ in batches], [shape for _, shape in batches])

    def _one_batch(
        self, start: int, rows: int, files: Sequence[Any], hashes: Sequence[Any]
    ) -> List[List[int]]:
        self._bind(start)
        self._engine.invoke()
        found = self._engine.read()
        shapes = []
        for raw, shape, file, digest in zip(found, self._engine.output_shapes, files, hashes):
            batched = len(shape) > 0 and shape[0] == self._batch
            if not batched and self._batch > 1:
                raise engines.EngineError("an output of shape %s has no batch axis" % list(shape))
            part = raw[: len(raw) * rows // self._batch]
            file.write(part)
            digest.update(part)
            shapes.append(list(shape[1:] if batched else shape))
        return shapes


def _counter() -> Union[Counter, str]:
    """A counter of instructions, or why there is none."""
    try:
        return Counter()
    except NoCounter as error:
        return str(error)


def serve() -> int:
    """Answers requests until standard input ends."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write(OOM_SCORE)
    # Not sys.stdin and sys.stdout: they may hold what the process that was forked had read and not written.
    asked, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(message: Reply) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    worker = Worker(reply)
    for line in asked:
        request = json.loads(line)
        try:
            reply({"reply": getattr(worker, request["do"])(request)})
        except (engines.EngineError, OSError) as error:
            reply({"error": str(error)})
        except Exception as error:  # a wheel raises what it likes; the run must hear of it
            reply({"error": "%s: %s" % (type(error).__name__, error)})
    return 0
