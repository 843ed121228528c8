"""What can go wrong with models, as one tree. The texts are what clients of Ollama already know, where they
are good.

    ModelsError
    ├── InvalidName          the text is no model name
    ├── ModelNotFound        the name is fine, nothing is stored under it
    ├── InvalidDigest        not `sha256:` and 64 hexadecimal digits
    ├── DigestMismatch       the bytes are not what their name says
    ├── BlobMissing          a manifest mentions a blob that is not there, or not whole
    ├── PinMismatch          a name with a digest that what it shall name has not
    ├── CorruptManifest      a manifest or configuration that cannot be read
    ├── InvalidGGUF          a file that is no GGUF, or a hostile one
    ├── CreateError          a request to create that cannot be fulfilled
    ├── StoreFull            no space left; the store is as it was
    └── RegistryError        the other side refused, or cannot be reached
"""

from __future__ import annotations

from llm_engine.errors import EngineError


class ModelsError(EngineError):
    """`status` is the HTTP status that fits when the error ends a request."""

    status = 500


class InvalidName(ModelsError):
    status = 400

    def __init__(self, text: str) -> None:
        super().__init__("invalid model name")
        self.text = text


class ModelNotFound(ModelsError):
    status = 404

    def __init__(self, name: str) -> None:
        super().__init__(f"model '{name}' not found", fix=f"llm-engine pull {name}")
        self.name = name


class InvalidDigest(ModelsError):
    status = 400

    def __init__(self, text: str) -> None:
        super().__init__("invalid digest format")
        self.text = text


class DigestMismatch(ModelsError):
    status = 400

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f'digest mismatch, expected "{expected}", got "{got}"')
        self.expected = expected
        self.got = got


class BlobMissing(ModelsError):
    status = 500

    def __init__(self, digest: str, model: str = "", state: str = "missing") -> None:
        what = (
            f"model '{model}' is incomplete: blob {digest} is {state}"
            if model
            else f"blob {digest} is {state}"
        )
        super().__init__(what, fix=f"llm-engine pull {model}" if model else None)
        self.digest = digest


class PinMismatch(ModelsError):
    status = 400

    def __init__(self, name: str, pin: str, digest: str) -> None:
        super().__init__(f"'{name}' cannot be pinned to {pin}: its manifest would be {digest}")


class CorruptManifest(ModelsError):
    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"manifest of {where} is corrupt: {why}", fix="llm-engine doctor")
        self.where = where
        self.why = why


class InvalidGGUF(ModelsError):
    status = 400


class CreateError(ModelsError):
    status = 400


class StoreFull(ModelsError):
    status = 507

    def __init__(self, where: str, needed: int | None = None) -> None:
        size = f" for {needed} bytes" if needed else ""
        super().__init__(f"no space left on the disk of {where}{size}", fix=f"df -h {where}")


class RegistryError(ModelsError):
    """`retryable` tells the transfer that trying again may help; `http_status` is the registry's own."""

    def __init__(
        self,
        text: str,
        *,
        http_status: int = 0,
        retryable: bool = False,
        retry_after: float = 0.0,
        fix: str | None = None,
    ) -> None:
        super().__init__(text, fix=fix)
        self.http_status = http_status
        self.retryable = retryable
        self.retry_after = retry_after
