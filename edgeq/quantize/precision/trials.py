"""Trials of a network with parts or layers in other numbers: run anywhere, remembered by content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.errors import EdgeqError
from edgeq.progress import SILENT, Progress
from edgeq.quantize.dialect import Numbers
from edgeq.quantize.plan import Plan
from edgeq.quantize.precision.executors import Pool
from edgeq.quantize.precision.homes import groups, layout_of
from edgeq.quantize.precision.mixed import lift
from edgeq.quantize.precision.sensitivity import Effect, Part, effect, outputs, quantized_graph, with_parts
from edgeq.quantize.recipe import Recipe

Arrays = Mapping[str, NDArray[Any]]

TOGETHER = 6
"""Trials that travel together: the network is loaded once for them."""


@dataclass(frozen=True)
class Alone:
    """Some parts are quantised, everything else is float. Tried on the first `samples` samples."""

    parts: tuple[Part, ...]
    samples: int


@dataclass(frozen=True)
class Together:
    """Everything is quantised but for the layers that are assigned finer numbers."""

    assignment: tuple[tuple[str, Numbers], ...]
    samples: int


Trial = Alone | Together


@dataclass(frozen=True, eq=False)
class Bench:
    """A quantised network and samples, in a form that travels.

    Attributes:
        graph, reference: ONNX files.
        plan: as JSON.
        samples: model inputs; labels where known.
        classes: whether the first output is a vector of classes.
    """

    graph: bytes
    reference: bytes
    plan: str
    recipe: Recipe
    samples: tuple[Arrays, ...]
    labels: NDArray[np.int64] | None
    classes: bool

    @classmethod
    def of(
        cls,
        graph: ir.Model,
        reference: ir.Model,
        plan: Plan,
        recipe: Recipe,
        samples: Sequence[Arrays],
        labels: NDArray[np.int64] | None,
    ) -> Bench:
        """Packs a network of int8 layers."""
        shape = graph.graph.outputs[0].shape
        sizes = [size for size in (shape or ()) if isinstance(size, int)]
        classes = shape is not None and len(shape) == 2 and bool(sizes) and sizes[-1] > 1
        return cls(
            graph=ir.to_proto(graph).SerializeToString(),
            reference=ir.to_proto(reference).SerializeToString(),
            plan=plan.to_json(),
            recipe=recipe,
            samples=tuple(dict(sample) for sample in samples),
            labels=labels,
            classes=classes,
        )

    @cached_property
    def digest(self) -> str:
        """Of everything that an effect depends on."""
        seen = hashlib.sha256()
        said = (version("edgeq"), version("onnxruntime"), self.plan, self.recipe.keep_float, self.recipe.io)
        seen.update(repr(said).encode())
        for data in (self.graph, self.reference):
            seen.update(data)
        for sample in self.samples:
            for name in sorted(sample):
                seen.update(name.encode() + np.ascontiguousarray(sample[name]).tobytes())
        if self.labels is not None:
            seen.update(self.labels.tobytes())
        return seen.hexdigest()


class _Loaded:
    """A bench, unpacked."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.graph, self.reference = (_model(data) for data in (bench.graph, bench.reference))
        self.plan = Plan.from_json(bench.plan)
        self.groups = groups(layout_of(self.graph, self.plan, bench.recipe), bench.recipe)
        self.expected = outputs(self.reference, bench.samples)

    def effect(self, trial: Trial) -> Effect:
        match trial:
            case Alone(parts, count):
                model = with_parts(self.graph, self.reference, self.plan, self.groups, parts)
            case Together(assignment, count):
                args = (self.graph, self.reference, self.plan, self.bench.recipe)
                mixed = lift(*args, dict(assignment))
                model = quantized_graph(mixed.graph, mixed.plan)
        seen = outputs(model, self.bench.samples[:count])
        labels = None if self.bench.labels is None else self.bench.labels[:count]
        return effect(self.expected[:count], seen, labels, self.bench.classes)


def _model(data: bytes) -> ir.Model:
    import onnx

    return ir.from_proto(onnx.load_from_string(data))


_loaded: dict[str, _Loaded] = {}
"""The bench that this process worked on last."""


def run(bench: Bench, digest: str, trials: Sequence[Trial]) -> list[Effect]:
    """Runs trials on a bench, in the process that it is called in.

    Raises:
        ModelError: ONNX Runtime cannot run the graph.
    """
    loaded = _loaded.get(digest) or _Loaded(bench)
    _loaded.clear()
    _loaded[digest] = loaded
    return [loaded.effect(trial) for trial in trials]


@dataclass
class Laboratory:
    """Runs trials of one bench on a pool, and remembers what they gave.

    Attributes:
        folder: of journals, one per bench; an interrupted search finds its results there again.
    """

    bench: Bench
    pool: Pool
    folder: Path | None = None
    _known: dict[str, Effect] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known = dict(_read(self._journal))
        self._shared = self.pool.share(self.bench)

    def effects(self, trials: Sequence[Trial], progress: Progress = SILENT) -> list[Effect]:
        """The effect of every trial, in order; known ones are not run again.

        Raises:
            ModelError: ONNX Runtime cannot run the graph.
            EdgeqError: the executor's workers were lost.
        """
        new = [trial for trial in dict.fromkeys(trials) if _key(trial) not in self._known]
        progress.advance(len(trials) - len(new))
        chunks = [new[start : start + TOGETHER] for start in range(0, len(new), TOGETHER)]
        submit = self.pool.executor.submit
        running: dict[Future[list[Effect]], list[Trial]] = {
            submit(run, self._shared, self.bench.digest, chunk): chunk for chunk in chunks
        }
        try:
            for done in as_completed(running):
                self._remember(zip(running[done], done.result(), strict=True))
                progress.advance(len(running[done]))
        except BrokenExecutor as error:
            raise EdgeqError(
                f"the workers of the search were lost: {error}",
                hint="call edgeq from under `if __name__ == '__main__':`, or use --executor threads",
            ) from error
        finally:
            for future in running:
                future.cancel()
        return [self._known[_key(trial)] for trial in trials]

    @property
    def _journal(self) -> Path | None:
        return None if self.folder is None else self.folder / f"{self.bench.digest}.jsonl"

    def _remember(self, found: Iterable[tuple[Trial, Effect]]) -> None:
        lines = []
        for trial, seen in found:
            self._known[_key(trial)] = seen
            lines.append("\n" + json.dumps({"trial": _key(trial), **asdict(seen)}))  # after a cut line, too
        if self._journal is not None:
            with suppress(OSError):  # a search without memory is slower, not worse
                self._journal.parent.mkdir(parents=True, exist_ok=True)
                with self._journal.open("a", encoding="utf-8") as stream:
                    stream.write("".join(lines))


def _key(trial: Trial) -> str:
    return hashlib.sha256(repr(trial).encode()).hexdigest()


def _read(journal: Path | None) -> Iterator[tuple[str, Effect]]:
    """What a journal remembers; a line that was cut short is forgotten."""
    if journal is None or not journal.is_file():
        return
    for line in journal.read_text("utf-8").splitlines():
        with suppress(ValueError, KeyError, TypeError):
            raw = json.loads(line)
            yield raw.pop("trial"), Effect(**{**raw, "noise": tuple(raw["noise"])})


def cache_folder() -> Path | None:
    """Where journals are kept: edgeq/search in $XDG_CACHE_HOME or ~/.cache; None without a home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "edgeq" / "search"
    except RuntimeError:
        return None
