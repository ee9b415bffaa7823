"""A GPU that is simulated, for tests of what runs on one."""

import pytest
import torch

from awqbench.ops import attend_binding, cuda_binding, cuda_build, cuda_fused
from awqbench.ops.cuda_workspace import Workspaces


@pytest.fixture
def gpu(simulated_kernels, monkeypatch):
    """Tensors of the CPU pass for those of a device, whose library is the simulator's."""
    workspaces = Workspaces(lambda size: torch.zeros(size, dtype=torch.uint8), lambda: False, lambda: None)
    monkeypatch.setenv(cuda_build.OVERRIDE, str(simulated_kernels))
    monkeypatch.setattr(cuda_build, "_located", cuda_build._located.__wrapped__)
    monkeypatch.setattr(cuda_binding, "_workspaces", lambda index: workspaces)
    monkeypatch.setattr(cuda_binding, "current_stream", lambda index: 0)
    monkeypatch.setattr("torch.cuda.current_device", lambda: -1)  # as get_device() says of a CPU
    kept = (
        cuda_binding._functions, cuda_binding._workspace_bytes, cuda_fused._functions, cuda_fused.takes_in,
        attend_binding._functions, attend_binding.workspace_bytes,
    )  # fmt: skip
    for function in kept:
        function.cache_clear()
    yield
    for function in kept:
        function.cache_clear()
