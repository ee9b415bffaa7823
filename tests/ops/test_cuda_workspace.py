import pytest
import torch

from awqbench.ops.cuda_workspace import SMALLEST, Workspaces


class Device:
    """Counts what is asked of a device, in the memory of this one."""

    def __init__(self) -> None:
        self.capturing, self.allocated, self.waits = False, [], 0

    def zeros(self, size):
        self.allocated.append((size, self.capturing))
        return torch.zeros(size, dtype=torch.uint8)

    def wait(self):
        self.waits += 1


@pytest.fixture
def device():
    return Device()


@pytest.fixture
def workspaces(device):
    return Workspaces(device.zeros, lambda: device.capturing, device.wait)


def test_a_stream_keeps_its_workspace_and_shares_it_with_none(workspaces, device):
    first = workspaces.take(0, 100)
    assert first.numel() == SMALLEST
    assert workspaces.take(0, 5000).data_ptr() == first.data_ptr()
    assert workspaces.take(7, 100).data_ptr() != first.data_ptr()
    assert workspaces.take(0, 100).data_ptr() == first.data_ptr()
    assert len(device.allocated) == 3  # two streams and the spare
    assert device.waits == 1


def test_it_grows_and_the_old_one_lives_on_for_graphs_that_write_to_it(workspaces):
    old = workspaces.take(0, 100)
    pointer = old.data_ptr()
    old[0] = 1
    new = workspaces.take(0, 3 * SMALLEST)
    assert new.numel() == 4 * SMALLEST
    assert new.data_ptr() != pointer
    assert [held.data_ptr() for held in workspaces._retired] == [pointer]


def test_a_capture_takes_the_spare_and_allocates_nothing(workspaces, device):
    warm = workspaces.take(0, 100)
    before = list(device.allocated)
    device.capturing = True
    captured = workspaces.take(3, 100)
    assert captured.data_ptr() != warm.data_ptr()
    assert workspaces.take(3, 100).data_ptr() == captured.data_ptr()
    assert workspaces.take(0, 100).data_ptr() == warm.data_ptr()
    assert device.allocated == before
    device.capturing = False
    workspaces.take(0, 100)
    assert len(device.allocated) == len(before) + 1  # a spare again, for the next capture
    device.capturing = True
    assert workspaces.take(4, 100).data_ptr() not in (warm.data_ptr(), captured.data_ptr())


def test_a_capture_without_a_spare_gets_fresh_zeros_each_time(workspaces, device):
    device.capturing = True
    first, second = workspaces.take(3, 100), workspaces.take(3, 100)
    assert first.data_ptr() != second.data_ptr()
    assert device.allocated == [(100, True), (100, True)]
    assert not workspaces._of_stream


def test_a_spare_that_is_too_small_is_not_used(workspaces, device):
    workspaces.take(0, 100)
    device.capturing = True
    assert workspaces.take(3, 2 * SMALLEST).numel() == 2 * SMALLEST
    device.capturing = False
    workspaces.take(0, 2 * SMALLEST)  # growing makes the spare grow, too
    device.capturing = True
    before = len(device.allocated)
    workspaces.take(3, 2 * SMALLEST)
    assert len(device.allocated) == before
