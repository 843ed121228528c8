"""From a model and a request's options to what has to be loaded, and whether what is loaded will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from llm_engine.runner.messages import Adapter, LoadSpec
from llm_engine.scheduler.memory import Shape
from llm_engine.scheduler.options import RunnerOptions

MIN_CTX = 4
AUTO_PARALLEL = 4


@dataclass(frozen=True)
class ModelFiles:
    """What the scheduler needs to know of a model; the store's own type stays in the store."""

    name: str
    path: str
    shape: Shape
    splits: Sequence[str] = ()
    """The other files of weights that come in several."""
    adapters: Sequence[str] = ()
    mmproj: str | None = None
    draft: str | None = None
    embedding: bool = False

    @property
    def key(self) -> str:
        """Names that share their files share a runner."""
        return "|".join([self.path, *self.splits, *self.adapters, self.mmproj or "", self.draft or ""])


@dataclass(frozen=True)
class Plan:
    """How one request wants its model."""

    files: ModelFiles
    options: RunnerOptions = field(default_factory=RunnerOptions)
    num_ctx: int = 4096
    keep_alive: float = 300.0

    @property
    def name(self) -> str:
        return self.files.name


@dataclass(frozen=True)
class Defaults:
    """The server's settings as far as they decide loads."""

    context_length: int = 4096
    num_parallel: int = 0
    kv_type: str = "f16"
    flash_attention: bool | None = None
    max_queue: int = 512
    gpus: int = 0
    kv_cells: int = 0
    gap_ms: int = 400
    park_mb: int = -1
    numa: str = ""
    split_mode: str = "layer"
    tensor_split: Sequence[float] = ()


def make_plan(files: ModelFiles, options: RunnerOptions, defaults: Defaults, keep_alive: float) -> Plan:
    wanted = options.num_ctx or defaults.context_length
    trained = files.shape.n_ctx_train
    num_ctx = max(min(wanted, trained) if trained else wanted, MIN_CTX)
    if not defaults.gpus:  # a wish for layers on a GPU that is not there must not make the model reload
        options = replace(options, num_gpu=None, main_gpu=None)
    return Plan(files, options, num_ctx, keep_alive)


def spec_for(plan: Plan, defaults: Defaults) -> LoadSpec:
    """The load before it is fitted to the memory there is."""
    options = plan.options
    parallel = defaults.num_parallel or AUTO_PARALLEL
    spec = LoadSpec(
        model_path=plan.files.path,
        splits=tuple(plan.files.splits),
        adapters=tuple(Adapter(path) for path in plan.files.adapters),
        mmproj=plan.files.mmproj,
        draft=plan.files.draft,
        num_ctx=plan.num_ctx,
        num_parallel=parallel,
        num_gpu=-1 if options.num_gpu is None else options.num_gpu,
        main_gpu=options.main_gpu or 0,
        threads=options.num_thread or None,
        kv_type=defaults.kv_type,
        flash_attn={None: "auto", True: "on", False: "off"}[defaults.flash_attention],
        mmap=options.use_mmap is not False,
        mlock=bool(options.use_mlock),
        embedding=plan.files.embedding,
        max_queue=defaults.max_queue,
        cells=defaults.kv_cells or None,
        gap_ms=float(defaults.gap_ms),
        numa=defaults.numa or None,
        split_mode=defaults.split_mode,
        tensor_split=tuple(defaults.tensor_split),
        park_bytes=None if defaults.park_mb < 0 else defaults.park_mb << 20,
    )
    if options.num_batch:
        spec = replace(spec, num_batch=options.num_batch)
    if options.draft_num_predict is not None:
        spec = replace(spec, draft_max=options.draft_num_predict)
    return spec


def satisfies(loaded: Plan, spec: LoadSpec, wanted: Plan) -> bool:
    """Whether a request can use what is loaded. Only what it asked for by name can make it reload."""
    if wanted.num_ctx > max(loaded.num_ctx, spec.num_ctx):
        return False
    options = wanted.options
    asked = (
        (options.num_batch, spec.num_batch),
        (options.num_thread or None, spec.threads),
        (options.use_mmap, spec.mmap),
        (options.use_mlock, spec.mlock),
        (options.draft_num_predict if wanted.files.draft else None, spec.draft_max),
    )
    if any(value is not None and value != have for value, have in asked):
        return False
    if options.main_gpu is not None and spec.num_gpu and options.main_gpu != spec.main_gpu:
        return False
    return options.num_gpu is None or _same_offload(
        options.num_gpu, spec.num_gpu, len(wanted.files.shape.layers)
    )


def _same_offload(wanted: int, loaded: int, layers: int) -> bool:
    """Layer counts beyond all layers mean all; a negative count leaves the choice to us."""
    return wanted < 0 or min(wanted, layers + 1) == min(loaded, layers + 1)
