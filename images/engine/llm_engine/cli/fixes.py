"""What to do about an error of the server: its answers hold a sentence, in Ollama's form, and no command."""

from __future__ import annotations

import re

_FIXES = (
    (
        r"unauthorized: registry\.ollama\.ai ",
        "cat ~/.ollama/id_ed25519.pub  # add it at https://ollama.com/settings/keys",
    ),
    (r"unauthorized: (\S+) ", "llm-engine login {0}"),
    (r"insecure protocol http", "add --insecure, if you trust the network to this registry"),
    (r"(?i)certificate.verify.failed", "export SSL_CERT_FILE=authority.pem  # where the server is started"),
    (r"no space left on the disk of (\S+)", "df -h {0}"),
    (r"model '([^']+)' not found", "llm-engine list"),
    (r"is incomplete: blob |manifest of \S+ is corrupt", "llm-engine doctor"),
)


def fix_for(error: str) -> str | None:
    for pattern, fix in _FIXES:
        if found := re.search(pattern, error):
            return fix.format(*found.groups())
    return None
