"""From a configuration and the facts of the host to the file that a runtime takes. Pure: reads templates, no
more."""

from __future__ import annotations

from stackctl.config import StackConfig
from stackctl.render.facts import Facts
from stackctl.render.rendered import Rendered

__all__ = ["Facts", "Rendered", "render"]


def render(config: StackConfig, facts: Facts) -> Rendered:
    """Rendered and policy-checked; a document that breaks the policy is never returned."""
    if facts.runtime == "local":
        from stackctl.render.processes import render_processes

        return render_processes(config, facts)
    from stackctl.render.compose import render_compose

    return render_compose(config, facts)
