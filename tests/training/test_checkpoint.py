"""Checkpoint files: whole or not at all, and clear words for what does not fit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from training import checkpoint
from training.errors import TrainingError


def small(path: Path, step: int = 3, robot: str = "panda") -> Path:
    weights = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.zeros(2)}
    checkpoint.write(path, {"ema": weights}, {"a": {"b": [1, 2.5]}}, {"robot": robot, "keypoint_names": ["x", "y"]}, step, {"place": 7})
    return path


def test_round_trip(tmp_path: Path) -> None:
    found = checkpoint.read(small(tmp_path / "a.safetensors"))
    assert (found.config, found.step, found.loader) == ({"a": {"b": [1, 2.5]}}, 3, {"place": 7})
    model = nn.Linear(3, 2)
    checkpoint.load_weights(model, found)
    assert torch.equal(model.weight, torch.arange(6.0).view(2, 3))
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_optimizer_round_trip(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    tensors, groups = checkpoint.optimizer_tensors(optimizer)
    checkpoint.write(tmp_path / "a.safetensors", {"optimizer": tensors}, {}, {}, 1, None, groups)
    fresh = torch.optim.AdamW(model.parameters(), 0.5)
    checkpoint.load_optimizer(fresh, checkpoint.read(tmp_path / "a.safetensors"))
    one, two = optimizer.state_dict(), fresh.state_dict()
    assert one["param_groups"] == two["param_groups"]
    assert all(torch.equal(one["state"][i][k], two["state"][i][k]) for i in one["state"] for k in one["state"][i])


def test_moments_lie_in_memory_as_their_weights_do(tmp_path: Path) -> None:
    """A fused step pairs numbers by their place in memory: after a restart it must go on as if nothing had happened."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 5, 5)

    def stepped(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(images).square().sum().backward()
        optimizer.step()

    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(1)
        model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return model, torch.optim.AdamW(model.parameters(), 0.1, fused=True)

    model, optimizer = build()
    stepped(model, optimizer)
    tensors, groups = checkpoint.optimizer_tensors(optimizer)
    checkpoint.write(tmp_path / "a.safetensors", {"model": model.state_dict(), "optimizer": tensors}, {}, {}, 1, None, groups)
    other, fresh = build()
    found = checkpoint.read(tmp_path / "a.safetensors")
    checkpoint.load_weights(other, found, "model")
    checkpoint.load_optimizer(fresh, found)
    stepped(model, optimizer)
    stepped(other, fresh)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_broken_newest_is_passed_over_and_old_ones_go(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        small(checkpoint.step_path(tmp_path, step), step)
    (tmp_path / ".step_000000004.safetensors.tmp").write_bytes(b"half")
    checkpoint.prune(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_000000002.safetensors", "step_000000003.safetensors"]
    newest = checkpoint.step_path(tmp_path, 3)
    newest.write_bytes(newest.read_bytes()[:100])
    assert checkpoint.latest(tmp_path) == checkpoint.step_path(tmp_path, 2) and checkpoint.read(tmp_path).step == 2
    with pytest.raises(TrainingError, match="cannot be read"):
        checkpoint.read(newest)


def test_what_does_not_fit(tmp_path: Path) -> None:
    found = checkpoint.read(small(tmp_path / "a.safetensors"))
    with pytest.raises(TrainingError, match="for robot panda, this run for ur5; take a checkpoint of the same robot"):
        checkpoint.check_identity(found, {"robot": "ur5"})
    with pytest.raises(TrainingError, match="for keypoint names x, y, this run for x, z"):
        checkpoint.check_identity(found, {"robot": "panda", "keypoint_names": ("x", "z")})
    with pytest.raises(TrainingError, match="does not fit: 1 tensors differ, first weight"):
        checkpoint.load_weights(nn.Linear(4, 2), found)
    with pytest.raises(TrainingError, match="no checkpoint at .*none.safetensors; give"):
        checkpoint.read(tmp_path / "none.safetensors")
    with pytest.raises(TrainingError, match="no checkpoint at"):
        checkpoint.read(tmp_path.parent / "nowhere")
    save_file({"x": torch.zeros(1)}, tmp_path / "b.safetensors", {"format": "pt"})
    with pytest.raises(TrainingError, match="no checkpoint of ours: its format is 'pt'"):
        checkpoint.read(tmp_path / "b.safetensors")
