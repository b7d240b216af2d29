"""The shapes of a model's inputs: what the file says, completed by what the user says of open dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeq.errors import ModelError, UsageError

Shapes = Mapping[str, Sequence[int]]
"""Input name ("" for the only input) → its whole shape; -1 in front leaves the batch open."""

BATCH = "batch"
"""The symbol of an open batch axis."""

_LETTERS = {3: "NCL", 4: "NCHW", 5: "NCDHW"}


def named(given: Shapes, inputs: Sequence[str]) -> Shapes:
    """The given shapes by the names of the model's inputs.

    Raises:
        UsageError: a name that no input has, or none where there are several inputs.
    """
    choices = ", ".join(inputs)
    for name in given:
        if name not in inputs and (name or len(inputs) != 1):
            tried = f"no input is called {name!r}" if name else "the model has several inputs"
            raise UsageError(tried, where="--input-shape", hint=f"NAME=SHAPE, with a name of: {choices}")
    return {name or inputs[0]: shape for name, shape in given.items()}


def settled(
    name: str, declared: Sequence[int | str | None] | None, given: Shapes, where: str = ""
) -> tuple[int | str, ...]:
    """The shape of one input, where no dimension but the batch is open.

    Args:
        name: the input.
        declared: the file's shape, anything but a positive integer where it is open; None without a rank.
        given: by `named`.
        where: the file, for messages; "" where the caller adds it.

    Raises:
        ModelError: a dimension other than the batch is open, and nothing is given for it.
        UsageError: what is given contradicts the file.
    """
    place = f"{where}, input {name!r}" if where else f"input {name!r}"
    fixed = None if declared is None else [_size(size) for size in declared]
    shape = fixed
    if name in given:
        shape = [_size(size) for size in given[name]]
        _check(list(given[name]), fixed, place)
    if shape is None:
        raise ModelError("the input has no shape", where=place, hint=_way_out(name, (None,) * 4))
    if any(size is None for size in shape[1:]):
        names = declared if declared is not None and len(declared) == len(shape) else shape
        spelt = ", ".join(str(size or name or "?") for size, name in zip(shape, names, strict=True))
        raise ModelError(
            f"the input has the open shape ({spelt}); only the batch in front may be open",
            where=place,
            hint=_way_out(name, shape),
        )
    return tuple(BATCH if size is None else size for size in shape)


def _size(size: object) -> int | None:
    """A dimension, None where it is open."""
    return size if isinstance(size, int) and size > 0 else None


def _check(given: list[int], fixed: Sequence[int | None] | None, place: str) -> None:
    """Refuses a given shape that is none, or not the file's."""
    spelt = ",".join(map(str, given))
    if not given or any(_size(size) is None for size in ([] if given[0] == -1 else given[:1]) + given[1:]):
        hint = "positive numbers; -1 in front leaves the batch open"
        raise UsageError(f"--input-shape {spelt} is no shape", where=place, hint=hint)
    if fixed is None:
        return
    agrees = len(given) == len(fixed) and all(b is None or a == b for a, b in zip(given, fixed, strict=True))
    if not agrees:
        said = ", ".join("?" if size is None else str(size) for size in fixed)
        raise UsageError(f"--input-shape {spelt} contradicts the file, which has ({said})", where=place)


def _way_out(name: str, shape: Sequence[int | None]) -> str:
    channels_last = len(shape) == 4 and shape[3] in (1, 3, 4)
    letters = "NHWC" if channels_last else _LETTERS.get(len(shape), "N" * len(shape))
    sizes = [str(size or letter) for size, letter in zip((shape[0] or 1, *shape[1:]), letters, strict=True)]
    return f"--input-shape {name}={','.join(sizes)} with numbers for the letters"
