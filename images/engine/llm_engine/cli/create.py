"""`llm-engine create`: reads a Modelfile, uploads the files it names, and asks the server for the model."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from llm_engine.cli.client import Client
from llm_engine.cli.progress import Progress
from llm_engine.errors import EngineError
from llm_engine.models.errors import InvalidGGUF
from llm_engine.models.modelfile import Modelfile, parse
from llm_engine.models.names import Name

CONVERTER = "convert_hf_to_gguf.py"  # of llama.cpp
# Names of models have dots as well (llama3.2): only these endings say that a file is meant.
WEIGHTS = (".gguf", ".safetensors", ".bin", ".pt", ".pth")


@click.command()
@click.argument("model")
@click.option(
    "-f", "--file", "path", default="Modelfile", show_default=True, help="The Modelfile; - is stdin."
)
@click.option("-q", "--quantize", default="", metavar="TYPE", help="Quantise to this type, such as q4_K_M.")
@click.option("--draft-quantize", default="", metavar="TYPE", help="Quantise the draft model as well.")
def create(model: str, path: str, quantize: str, draft_quantize: str) -> None:
    """Make MODEL as a Modelfile says."""
    try:
        raw = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise EngineError(
            f"cannot read {path}: {error.strerror}", fix="llm-engine create MODEL -f FILE"
        ) from None
    modelfile = parse(raw)
    _check_request(model, modelfile, quantize, draft_quantize)
    for warning in modelfile.warnings:
        click.echo(warning, err=True)
    folder = Path.cwd() if path == "-" else Path(path).resolve().parent
    client = Client()
    request = request_for(client, modelfile, folder)
    request |= {"model": model, "quantize": quantize, "draft_quantize": draft_quantize}
    Progress().follow(client.stream("/api/create", request))


def _check_request(model: str, modelfile: Modelfile, *quantisations: str) -> None:
    """Refuses what the server would refuse, before files are read and sent."""
    # Imported here: these bring the interpreter of templates along.
    from llm_engine.models.quantize import check_target
    from llm_engine.templates.errors import TemplateError
    from llm_engine.templates.gotemplate import Template

    Name.parse(model)
    for target in filter(None, quantisations):
        check_target(target)
    for command in modelfile.named("template")[-1:]:
        try:
            Template(command.value)
        except TemplateError as error:
            raise EngineError(f"(line {command.line}): template error: {error}") from None


def request_for(client: Client, modelfile: Modelfile, folder: Path) -> dict[str, Any]:
    """The body of the request; files are uploaded on the way."""
    request: dict[str, Any] = {"files": {}}
    for command in modelfile.named("from"):
        source = command.value
        files = _files(folder, source)
        if files:
            request["files"] |= _uploaded(client, files)
        elif "from" in request or source.startswith((".", "/", "~")) or source.lower().endswith(WEIGHTS):
            raise EngineError(f"(line {command.line}): FROM {source}: there is no such file in {folder}")
        else:
            request["from"] = source
    for name, key in (("adapter", "adapters"), ("draft", "draft_files")):
        for command in modelfile.named(name):
            value = command.value
            files = _files(folder, value)
            if not files:
                where = f"(line {command.line}): {name.upper()} {value}"
                raise EngineError(f"{where}: there is no such file in {folder}")
            converter = "convert_lora_to_gguf.py" if name == "adapter" else CONVERTER
            _join(request.setdefault(key, {}), _uploaded(client, files, converter))
    for name in ("template", "system", "renderer", "parser", "requires"):
        if (text := modelfile.last(name)) is not None:
            request[name] = text
    if licenses := modelfile.values("license"):
        request["license"] = licenses
    request["messages"] = [{"role": role, "content": text} for role, text in modelfile.messages]
    request["parameters"] = modelfile.parameters
    return request


def _join(files: dict[str, str], more: dict[str, str]) -> None:
    """Files of different folders may have one name; both count."""
    for name, digest in more.items():
        free, number = name, 1
        while files.get(free, digest) != digest:
            number += 1
            free = f"{number}-{name}"
        files[free] = digest


def _files(folder: Path, value: str) -> list[Path]:
    """The files that a FROM, ADAPTER or DRAFT means; none when it is the name of a model."""
    try:
        path = Path(value).expanduser()
    except RuntimeError as error:
        raise EngineError(f"{value}: {error}") from None
    path = path if path.is_absolute() else folder / path
    if path.is_file():
        return [path]
    if not path.is_dir():
        return []
    found = sorted(path.glob("*.gguf")) or sorted(path.glob("*.safetensors"))
    if not found:
        raise EngineError(f"{path} holds neither *.gguf nor *.safetensors files")
    return found


def _uploaded(client: Client, files: Iterable[Path], converter: str = CONVERTER) -> dict[str, str]:
    found = {}
    for path in files:
        if path.suffix == ".safetensors":
            raise EngineError(
                f"{path.name} is not a GGUF file, and other formats are not converted here",
                fix=f"python {converter} {shlex.quote(str(path.parent))} --outfile model.gguf",
            )
        _check(path)
        with path.open("rb") as file:
            digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
            with client.send("HEAD", f"/api/blobs/{digest}") as response:
                there = response.status == 200
            if not there:
                file.seek(0)
                click.echo(f"uploading {path.name}", err=True)
                client.upload(digest, file, path.stat().st_size)
        found[path.name] = digest
    return found


def _check(path: Path) -> None:
    """Refuses a file that the server would refuse, before gigabytes of it are sent."""
    # Imported here: a Modelfile without files must not pay for a reader of them.
    from llm_engine.models.gguf import GGUFFile

    try:
        GGUFFile.open(path)
    except InvalidGGUF as error:
        raise EngineError(
            f"{path}: {error}",
            fix=f"sha256sum {shlex.quote(str(path))}  # not its publisher's: download it again",
        ) from None
    except OSError as error:
        raise EngineError(
            f"{path} cannot be read: {error.strerror}", fix=f"sudo chmod a+r {shlex.quote(str(path))}"
        ) from None
