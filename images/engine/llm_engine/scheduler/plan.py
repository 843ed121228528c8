"""From a model and a request's options to what has to be loaded, and whether what is loaded will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from llm_engine.runner.messages import Adapter, LoadSpec
from llm_engine.runner.threads import default_threads
from llm_engine.scheduler.memory import Shape
from llm_engine.scheduler.options import RunnerOptions

MIN_CTX = 4
LEAST_AUTOMATIC = 4096
"""An automatic context does not become shorter than this to leave room for layers."""
AUTO_PARALLEL = 4
# What parallel sequences share beyond one whole context, where nobody said how many there are to be: more
# would keep other models out of memory for answers that nobody may ask for.
AUTO_CELLS = 32768


@dataclass(frozen=True)
class ModelFiles:
    """What the scheduler needs to know of a model; the store's own type stays in the store."""

    name: str
    path: str
    shape: Shape
    splits: Sequence[str] = ()
    """The other files of weights that come in several."""
    adapters: Sequence[str] = ()
    scales: Sequence[float] = ()
    """How strong the model's own parameters make its adapters."""
    mmproj: str | None = None
    draft: str | None = None
    embedding: bool = False

    @property
    def key(self) -> str:
        """Names that share their files share a runner, unless they want them blended differently."""
        adapters = [
            path if scale == 1 else f"{path}@{scale:g}"
            for path, scale in zip(self.adapters, self.all_scales(None), strict=True)
        ]
        return "|".join([self.path, *self.splits, *adapters, self.mmproj or "", self.draft or ""])

    def all_scales(self, asked: Sequence[float] | None) -> tuple[float, ...]:
        """One for each adapter: as asked, else as the model says, else 1."""
        given = tuple(self.scales if asked is None else asked)[: len(self.adapters)]
        return given + (1.0,) * (len(self.adapters) - len(given))


@dataclass(frozen=True)
class Plan:
    """How one request wants its model."""

    files: ModelFiles
    options: RunnerOptions = field(default_factory=RunnerOptions)
    num_ctx: int = 4096
    automatic: bool = False
    """Nobody asked for this context; it may be shorter where that lets all layers be on a GPU."""

    @property
    def name(self) -> str:
        return self.files.name

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        scales = self.files.all_scales(self.options.adapter_scale)
        return tuple(map(Adapter, self.files.adapters, scales))


@dataclass(frozen=True)
class Defaults:
    """The server's settings as far as they decide loads."""

    context_length: int = 4096
    automatic_context: bool = False
    """The length comes from the GPU memory there is, not from the settings."""
    num_parallel: int = 0
    kv_type: str = "f16"
    flash_attention: bool | None = None
    max_queue: int = 512
    gpus: int = 0
    kv_cells: int = 0
    gap_ms: int = 400
    park_mb: int = -1
    prefix_cache: bool = True
    idle_cells: int = -1
    lookup: int = 8
    numa: str = ""
    split_mode: str = "layer"
    tensor_split: Sequence[float] = ()


def make_plan(files: ModelFiles, options: RunnerOptions, defaults: Defaults) -> Plan:
    automatic = not options.num_ctx and defaults.automatic_context
    wanted = options.num_ctx or defaults.context_length
    if automatic and options.num_gpu == 0:  # it was chosen by the memory of GPUs, and this one stays off them
        wanted = min(wanted, LEAST_AUTOMATIC)
    trained = files.shape.n_ctx_train
    num_ctx = max(min(wanted, trained) if trained else wanted, MIN_CTX)
    if not defaults.gpus:  # a wish for layers on a GPU that is not there must not make the model reload
        options = replace(options, num_gpu=None, main_gpu=None)
    elif options.num_gpu is not None and options.num_gpu < 0:
        options = replace(options, num_gpu=None)
    return Plan(files, options, num_ctx, automatic=automatic)


def _cells(plan: Plan, defaults: Defaults) -> int:
    """Tokens of cache for all sequences together; what only embeds computes one batch after the other."""
    num_ctx = plan.num_ctx
    if plan.files.embedding:
        return num_ctx
    if defaults.kv_cells:
        return defaults.kv_cells
    if defaults.num_parallel:
        return num_ctx * defaults.num_parallel
    return max(num_ctx, min(num_ctx * AUTO_PARALLEL, AUTO_CELLS))


def spec_for(plan: Plan, defaults: Defaults) -> LoadSpec:
    """The load before it is fitted to the memory there is."""
    options = plan.options
    parallel = defaults.num_parallel or AUTO_PARALLEL
    spec = LoadSpec(
        model_path=plan.files.path,
        splits=tuple(plan.files.splits),
        adapters=plan.adapters,
        mmproj=plan.files.mmproj,
        draft=plan.files.draft,
        num_ctx=plan.num_ctx,
        num_parallel=parallel,
        num_gpu=-1 if options.num_gpu is None else options.num_gpu,
        main_gpu=options.main_gpu or 0,
        threads=options.num_thread or None,
        kv_type=defaults.kv_type,
        flash_attn={None: "auto", True: "on", False: "off"}[defaults.flash_attention],
        mmap=options.use_mmap,
        mlock=bool(options.use_mlock),
        embedding=plan.files.embedding,
        max_queue=defaults.max_queue,
        cells=_cells(plan, defaults),
        gap_ms=float(defaults.gap_ms),
        numa=defaults.numa or None,
        split_mode=defaults.split_mode,
        tensor_split=tuple(defaults.tensor_split),
        park_bytes=None if defaults.park_mb < 0 else defaults.park_mb << 20,
        prefix_cache=defaults.prefix_cache,
        idle_cells=None if defaults.idle_cells < 0 else defaults.idle_cells,
        lookup=defaults.lookup,
    )
    if options.num_batch:
        spec = replace(spec, num_batch=options.num_batch)
    if options.draft_num_predict is not None:
        spec = replace(spec, draft_max=options.draft_num_predict)
    return spec


def satisfies(loaded: Plan, spec: LoadSpec, wanted: Plan, automatic_ctx: int | None = None) -> bool:
    """Whether a request can use what is loaded, as `spec` says. Only what it asked for by name can make it
    reload.

    `automatic_ctx` is what the automatic context came to when this model was last loaded with one: it would
    come to no more now, so that is enough for whoever asks for none."""
    enough = wanted.num_ctx
    if wanted.automatic:
        enough = min(enough, spec.num_ctx if loaded.automatic else automatic_ctx or enough)
    if enough > spec.num_ctx or wanted.adapters != loaded.adapters:
        return False
    options = wanted.options
    asked = (
        (options.num_batch, spec.num_batch),
        (options.num_thread or None, spec.threads or default_threads()),
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
    """Layer counts beyond all layers mean all."""
    return min(wanted, layers + 1) == min(loaded, layers + 1)
