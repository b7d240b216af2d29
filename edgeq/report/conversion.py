"""ConversionFigures → Document: what was made, how good it is, and what was not done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeq.report.document import (
    Cell,
    Document,
    Facts,
    Items,
    Note,
    Section,
    Table,
    Tone,
    Verdict,
    columns,
    number,
)
from edgeq.report.mixture import layer_effect_blocks, mixture_blocks
from edgeq.report.models import files_blocks, layer_blocks, operator_blocks
from edgeq.report.units import (
    DASH,
    count,
    decibel,
    maybe,
    percent,
    plural,
    points,
    ratio,
    seconds,
    size,
)

if TYPE_CHECKING:
    from edgeq.figures import AgreementFigure, ConversionFigures, FileFigure, ParityFigure

LOW_AGREEMENT = 0.9
"""Below this share of equal top-1 classes the report warns: the INT8 model is another model."""


def document(figures: ConversionFigures) -> Document:
    """The conversion report."""
    sections = (
        Section("Summary", (_summary(figures),)),
        Section("Files", files_blocks(figures.files)),
        Section("Against the float model", _quality(figures)),
        Section("Accuracy and price", mixture_blocks(figures.mixture)),
        Section("What to know", _caveats(figures)),
        Section("What was done", (Items(figures.steps),) if figures.steps else ()),
        Section("Operators", operator_blocks(figures), detail=True),
        Section("Layers", layer_blocks(figures.layers), detail=True),
        Section("Effect of each layer", layer_effect_blocks(figures.mixture), detail=True),
        Section("Provenance", _provenance(figures), detail=True),
    )
    return Document(
        title=f"{_name(figures.source)} in INT8",
        subtitle=f"edgeq conversion report, {figures.source_format} to INT8 for {figures.target}",
        verdict=_verdict(figures),
        sections=tuple(section for section in sections if section.blocks),
    )


def _name(source: str) -> str:
    return source.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _verdict(figures: ConversionFigures) -> Verdict:
    """Size, agreement, parity, and how much stands against them."""
    doubts = _doubts(figures)
    claims = (
        _size_claim(figures.files),
        _agreement_claim(figures),
        _parity_claim(figures.parity),
        f"To know: {', '.join(doubts)}." if doubts else "",
    )
    differs = figures.parity is None or figures.parity.differing > 0
    poor = figures.samples > 0 and any(_poor(figure) for figure in figures.agreement)
    tone = Tone.BAD if poor else Tone.WARN if doubts or differs else Tone.GOOD
    return Verdict(" ".join(claim for claim in claims if claim), tone)


def _doubts(figures: ConversionFigures) -> list[str]:
    in_float = max(
        (sum(f.float_operators.values()) for f in figures.files if f.precision == "int8"), default=0
    )
    doubts = ["no calibration data was used"] if figures.samples == 0 else []
    return doubts + ([f"{plural(in_float, 'operator')} computed in float"] if in_float else [])


def _poor(figure: AgreementFigure) -> bool:
    return figure.agreement is not None and figure.agreement < LOW_AGREEMENT


def _size_claim(files: tuple[FileFigure, ...]) -> str:
    pairs = [
        (integer, base)
        for integer in files
        for base in files
        if integer.precision == "int8" and base.precision == "float32" and integer.format == base.format
    ]
    if not pairs:
        return ""
    integer, base = min(pairs, key=lambda pair: pair[0].bytes_total)
    factor = ratio(base.bytes_total / integer.bytes_total) if integer.bytes_total else DASH
    return f"INT8 takes {size(integer.bytes_total)} instead of {size(base.bytes_total)} ({factor} smaller)."


def _agreement_claim(figures: ConversionFigures) -> str:
    """The worst file's agreement; on random inputs there is none worth claiming."""
    if figures.samples == 0:
        return "How accurate it is was not measured, for want of data."
    known = [
        (figure.agreement, figure.samples) for figure in figures.agreement if figure.agreement is not None
    ]
    if known:
        least, samples = min(known)
        return f"It chooses the float model's class on {percent(least)} of {plural(samples, 'sample')}."
    if figures.agreement:
        lowest = min(figure.sqnr_db for figure in figures.agreement)
        return f"Its outputs follow the float model's at {decibel(lowest)}."
    return "It was not run against the float model."


def _parity_claim(parity: ParityFigure | None) -> str:
    if parity is None:
        return "The two runtimes were not compared."
    if parity.differing == 0:
        return f"LiteRT and ONNX Runtime give the same integers, all {count(parity.values)} of them."
    return (
        f"LiteRT and ONNX Runtime differ in {count(parity.differing)} of {count(parity.values)} integers, "
        f"by at most {plural(parity.max_steps, 'step')}."
    )


def _summary(figures: ConversionFigures) -> Facts:
    if figures.samples:
        calibration = Cell(f"{figures.calibrated}, {plural(figures.samples, 'sample')}")
    else:
        calibration = Cell(f"no data used: {figures.calibrated}", tone=Tone.WARN)
    return Facts(
        (
            ("Source", Cell(f"{figures.source} ({figures.source_format})")),
            ("Recipe", Cell(figures.recipe)),
            ("Target", Cell(figures.target)),
            ("Ranges from", calibration),
            ("Preprocess", Cell(figures.preprocess or "none: samples are taken as they are")),
        )
    )


def _quality(figures: ConversionFigures) -> tuple[Table | Note, ...]:
    blocks: list[Table | Note] = []
    if figures.agreement:
        heads = columns("File", ">Samples", ">Agreement", ">SQNR", ">Top-1", ">Float top-1", ">Points")
        caption = (
            "Agreement: the same top-1 class as float. SQNR: signal to quantisation noise of the output."
        )
        blocks.append(Table(heads, tuple(_agreement_row(figure) for figure in figures.agreement), caption))
    if figures.parity:
        tone = Tone.GOOD if figures.parity.differing == 0 else Tone.WARN
        differing, values = count(figures.parity.differing), count(figures.parity.values)
        samples = plural(figures.parity.samples, "sample" if figures.samples else "random input")
        text = f"Parity of LiteRT and ONNX Runtime over {samples}: {differing} of {values} integers differ."
        blocks.append(Note(text, tone))
    else:
        blocks.append(Note("Parity of LiteRT and ONNX Runtime was not checked.", Tone.WARN))
    return tuple(blocks)


def _agreement_row(figure: AgreementFigure) -> tuple[Cell, ...]:
    known = figure.top1 is not None and figure.float_top1 is not None
    change = (figure.top1 or 0.0) - (figure.float_top1 or 0.0) if known else None
    return (
        Cell(figure.file),
        number(count(figure.samples), figure.samples),
        number(maybe(figure.agreement, percent), figure.agreement, Tone.BAD if _poor(figure) else Tone.PLAIN),
        number(decibel(figure.sqnr_db), figure.sqnr_db),
        number(maybe(figure.top1, percent), figure.top1),
        number(maybe(figure.float_top1, percent), figure.float_top1),
        number(maybe(change, points), change),
    )


def _caveats(figures: ConversionFigures) -> tuple[Note | Items | Table, ...]:
    """What was not done, and why."""
    blocks: list[Note | Items | Table] = []
    if figures.samples and not any(figure.top1 is not None for figure in figures.agreement):
        blocks.append(
            Note("No labels were given, so accuracy is told by agreement with float alone.", Tone.MUTED)
        )
    if figures.warnings:
        blocks.append(Items(figures.warnings, Tone.WARN))
    if figures.float_ops:
        rows = tuple((Cell(op.node), Cell(op.op_type), Cell(op.reason)) for op in figures.float_ops)
        blocks.append(Table(columns("Stays float", "Operator", "Why"), rows))
    else:
        blocks.append(Note("Every operator was planned in integers.", Tone.GOOD))
    return tuple(blocks)


def _provenance(figures: ConversionFigures) -> tuple[Facts, ...]:
    times = tuple((f"Time: {stage}", Cell(seconds(spent))) for stage, spent in figures.seconds.items())
    versions = tuple((name, Cell(version)) for name, version in figures.versions.items())
    return tuple(Facts(pairs) for pairs in (versions, times) if pairs)
