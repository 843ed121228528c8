"""Numbers for people, in the forms that Ollama prints: `4.7 GB`, `1.2B`, `3 weeks ago`."""

from __future__ import annotations

from datetime import UTC, datetime


def number(count: int) -> str:
    """A number of parameters: one decimal for billions, two for millions, none where it is whole."""
    if count >= 1_000_000_000:
        value = count / 1e9
        return f"{value:.0f}B" if value == int(value) else f"{value:.1f}B"
    if count >= 1_000_000:
        value = count / 1e6
        return f"{value:.0f}M" if value == int(value) else f"{value:.2f}M"
    if count >= 1_000:
        return f"{count / 1e3:.0f}K"
    return str(count)


def size(count: int) -> str:
    """Decimal units; from ten on without decimals."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if count >= factor:
            value = count / factor
            return f"{int(value)} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{count} B"


def span(seconds: float) -> str:
    """`Less than a second`, `5 seconds`, `About a minute`, `About an hour`, `3 weeks`."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    minutes, hours = whole // 60, round(seconds / 3600)
    if whole < 60:
        return f"{whole} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / 3600 / 24 / 365)} years"


def moment(when: datetime | None, never: str = "Never") -> str:
    """`3 weeks ago`, `4 minutes from now`, `Forever`."""
    if when is None:
        return never
    delta = (datetime.now(UTC) - when).total_seconds()
    if delta < -20 * 365 * 24 * 3600:
        return "Forever"
    return f"{span(-delta)} from now" if delta < 0 else f"{span(delta)} ago"
