"""The machine code of the 4-bit product: wide loads, matrix instructions, bulk copies where they were meant to be.

Needs nvcc and cuobjdump with nvdisasm (NVIDIA's toolkit, or pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm).
That no kernel spills is asserted where the library is built, in tests/ops.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from awqbench.ops import cuda_build

NVCC = cuda_build.nvcc()
PLACES = os.pathsep.join([os.environ.get("PATH", ""), *([str(Path(NVCC).resolve().parent)] if NVCC else [])])
DISASSEMBLER = shutil.which("cuobjdump", path=PLACES)
pytestmark = [
    pytest.mark.skipif(NVCC is None, reason="no nvcc"),
    pytest.mark.skipif(DISASSEMBLER is None, reason="no cuobjdump"),
    pytest.mark.slow,
    pytest.mark.timeout(900),
]
KINDS = {"stream": 0, "tall": 1, "rows": 2, "bulk": 3, "group": 4, "tall-group": 5}


@pytest.fixture(scope="module")
def code():
    """Architecture and mangled name to the instructions of a kernel."""
    listing = subprocess.run(
        [DISASSEMBLER, "-sass", cuda_build.library_path()], check=True, capture_output=True, text=True
    ).stdout
    found = {}
    for part in re.split(r"arch = sm_", listing)[1:]:
        architecture = part.split()[0]
        for function in part.split("Function : ")[1:]:
            found[architecture, function.split()[0]] = function
    return found


def kernels(code, architecture, kind):
    return [
        text
        for (arch, name), text in code.items()
        if arch == architecture and "gemm_kernel" in name and re.search(rf"KindE{KINDS[kind]}E", name)
    ]


@pytest.mark.parametrize("architecture", ["80", "90a", "120"])
@pytest.mark.parametrize("kind", ["stream", "tall", "rows"])
def test_weights_come_in_16_bytes_to_the_tensor_cores(code, architecture, kind):
    found = kernels(code, architecture, kind)
    assert found
    for text in found:
        assert re.search(r"LDG\.E\.[\w.]*128[\w.]*CONSTANT", text)
        assert "HMMA.16816.F32" in text
        assert "LDSM.16.M88.4" in text
        assert not re.search(r"\b(LDL|STL)\b", text)


@pytest.mark.parametrize("architecture", ["90a", "120"])
def test_bulk_copies_are_the_copy_engine_s(code, architecture):
    found = kernels(code, architecture, "bulk")
    assert found
    for text in found:
        assert "UBLKCP" in text
        assert "HMMA.16816.F32" in text


@pytest.mark.parametrize("kind", ["group", "tall-group"])
def test_hopper_multiplies_by_warpgroup(code, kind):
    found = kernels(code, "90a", kind)
    assert found
    for text in found:
        assert "HGMMA.64x" in text
        assert "HMMA" not in text.replace("HGMMA", "")


def test_prefill_multiplies_while_it_decodes(code):
    found = [text for (arch, name), text in code.items() if arch == "90a" and "prefill_kernel" in name]
    assert len(found) == 12
    for text in found:
        assert re.search(r"HGMMA\.64x(96|128|256)x16", text)
        assert "WARPGROUP.DEPBAR.LE gsb0, 0x1" in text
        assert "LDGSTS.E.BYPASS.128" in text
        assert "USETMAXREG" in text
        assert re.search(r"LDG\.E\.NA\.128\.CONSTANT", text)
        assert not re.search(r"\b(LDL|STL)\b", text)
