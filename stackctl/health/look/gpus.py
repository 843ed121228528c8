"""What is asked of the GPUs, on the host or inside the engine's container, and how the answer reads.

NVIDIA's cards are asked with `nvidia-smi`. A ROCm card is read from the kernel's own files, because no AMD
tool needs to be in the image: it counts as there when its node in /dev/dri is and /dev/kfd can be opened,
which is what a container loses. Both answer in the same columns.
"""

from __future__ import annotations

from dataclasses import dataclass

FIELDS = (
    "name",
    "memory.used",
    "memory.total",
    "temperature.gpu",
    "ecc.errors.uncorrected.volatile.total",
    "clocks_throttle_reasons.hw_slowdown",
    "clocks_throttle_reasons.sw_thermal_slowdown",
    "utilization.gpu",
)
# A driver that hangs must not leave one more process in the engine's container at every look.
LIMIT = 8
NO_GPU = 127

_LIMITED = ("timeout", "-k", "1", str(LIMIT))
_NVIDIA = ("nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits")
_IF_NVIDIA = f"command -v nvidia-smi >/dev/null && exec {' '.join(_NVIDIA)}\n"
# $1 stands before every path: a test puts a tree of its own there.
_ROCM = r"""
[ -e "$1/dev/kfd" ] || { echo "no /dev/kfd inside the engine" >&2; exit 127; }
(: < "$1/dev/kfd") 2>/dev/null || { echo "/dev/kfd cannot be opened inside the engine" >&2; exit 1; }
for device in "$1"/sys/class/drm/card*/device; do
    [ -r "$device/mem_info_vram_total" ] || continue
    there=
    for node in "$device"/drm/renderD*; do [ -e "$1/dev/dri/${node##*/}" ] && there=yes; done
    [ "$there" ] || continue
    name=$(cat "$device/product_name" 2>/dev/null | tr , ' ')
    heat=$(cat "$device"/hwmon/hwmon*/temp1_input 2>/dev/null | head -n 1)
    errors=$(sed -n 's/^ue: *//p' "$device/ras/umc_err_count" 2>/dev/null)
    echo "${name:-AMD GPU}, $(($(cat "$device/mem_info_vram_used") / 1048576))," \
        "$(($(cat "$device/mem_info_vram_total") / 1048576)), ${heat:+$((heat / 1000))}," \
        "${errors}, Not Active, Not Active, $(cat "$device/gpu_busy_percent" 2>/dev/null)"
done
"""


def query(mode: str, root: str = "") -> tuple[str, ...]:
    """The command that answers with a line for each GPU; `NO_GPU` is its code when none was ever given."""
    if mode == "rocm":
        return (*_LIMITED, "sh", "-c", _ROCM, "rocm", root)
    if mode == "auto":
        return (*_LIMITED, "sh", "-c", _IF_NVIDIA + _ROCM, "any", root)
    return (*_LIMITED, *_NVIDIA)


@dataclass(frozen=True)
class Gpu:
    name: str
    used: float  # MiB
    total: float
    celsius: float | None
    ecc: float | None
    throttled: bool
    busy: float | None = None  # per cent


def parse(text: str) -> list[Gpu]:
    """The columns of FIELDS; `[N/A]`, `[Not Supported]` and nothing are None."""
    gpus = []
    for line in text.splitlines():
        columns = [column.strip() for column in line.split(",")]
        if len(columns) != len(FIELDS):
            continue
        used, size = _number(columns[1]), _number(columns[2])
        if used is None or size is None:
            continue
        throttled = "Active" in (columns[5], columns[6])
        heat, ecc, busy = (_number(columns[place]) for place in (3, 4, 7))
        gpus.append(Gpu(columns[0], used, size, heat, ecc, throttled, busy))
    return gpus


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
