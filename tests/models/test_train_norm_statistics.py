"""Statistics of batch norms after the last step: those of the last weights."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch import distributed, multiprocessing, nn

from mmfusion.train.norm_statistics import retake_statistics
from mmfusion.train.processes import Processes
from mmfusion.train.task import Losses

pytestmark = pytest.mark.torch
ALONE = Processes(0, 1, torch.device("cpu"))


class Normalising:
    """A task whose network is one batch norm over what it is shown."""

    align_every = 0

    def __init__(self):
        self.network = nn.Sequential(nn.BatchNorm1d(2, momentum=0.1))

    def losses(self, samples, processes):
        loss = self.network(torch.stack(samples)).sum()
        assert not loss.requires_grad
        return Losses((loss,), {})


def batches():
    generator = torch.Generator().manual_seed(0)
    return [list(3 + torch.randn(5, 2, generator=generator)) for _ in range(4)]


@pytest.mark.parametrize("averaged", [False, True])
def test_they_are_the_mean_over_the_batches(averaged):
    task = Normalising()
    own = task.network
    network = nn.Sequential(nn.BatchNorm1d(2)) if averaged else own
    (norm,) = network
    norm.running_mean.fill_(100)
    retake_statistics(task, network, batches(), ALONE)
    shown = torch.stack([torch.stack(batch) for batch in batches()])
    torch.testing.assert_close(norm.running_mean, shown.mean((0, 1)))
    torch.testing.assert_close(norm.running_var, shown.var(1).mean(0))
    assert norm.momentum == 0.1
    assert task.network is own
    assert int(own[0].num_batches_tracked) == (0 if averaged else 4)


def test_all_is_as_before_where_samples_cannot_be_had():
    def broken():
        yield from batches()[:1]
        raise OSError("disk")

    task = Normalising()
    own, averaged = task.network, nn.Sequential(nn.BatchNorm1d(2))
    with pytest.raises(OSError, match="disk"):
        retake_statistics(task, averaged, broken(), ALONE)
    assert task.network is own
    assert averaged[0].momentum == 0.1


def test_networks_without_batch_norms_need_no_samples():
    def none():
        raise AssertionError
        yield

    retake_statistics(Normalising(), nn.Sequential(nn.Linear(2, 2)), none(), ALONE)


def retake_share(rank, store, count, out):
    """Of every batch, one process's share."""
    distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=count)
    task = Normalising()
    processes = Processes(rank, count, torch.device("cpu"))
    retake_statistics(task, task.network, batches()[rank::count], processes)
    torch.save(task.network.state_dict(), out / f"{rank}.pt")
    distributed.destroy_process_group()


def test_processes_come_to_the_statistics_of_all_their_samples(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    multiprocessing.spawn(retake_share, (tmp_path / "store", 2, tmp_path), nprocs=2)
    task = Normalising()
    retake_statistics(task, task.network, batches(), ALONE)
    (norm,) = task.network
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(found["0.running_mean"], norm.running_mean)
        torch.testing.assert_close(found["0.running_var"], norm.running_var)
