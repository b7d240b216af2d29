"""What a capability check found, as a section of any report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeq.devices.check import Finding
    from edgeq.report.document import Section


def findings_section(findings: Sequence[Finding]) -> tuple[Section, ...]:
    """One section with the most severe finding first, or none."""
    from edgeq.devices.check import Severity
    from edgeq.report.document import Note, Section, Tone

    tones = {Severity.BLOCKING: Tone.BAD, Severity.WARNING: Tone.WARN, Severity.NOTE: Tone.MUTED}
    notes = tuple(
        Note(finding.message + (f" → {finding.hint}" if finding.hint else ""), tones[finding.severity])
        for finding in findings
    )
    return (Section("What to know", notes),) if notes else ()
