"""The loop: learning, exact resume after SIGKILL, NaN, mixed precision, several processes, bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dataengine.errors import ConfigError
from tests.training.toy_recipe import Toy, config
from training import checkpoint, distributed
from training.config import OptimConfig
from training.errors import TrainingError
from training.logs import read_lines
from training.loop import learning_rate, train

ROOT = Path(__file__).resolve().parents[2]


def run(out: Path, steps: int, pause_s: float = 0.0, processes: int = 1) -> subprocess.Popen[bytes]:
    program = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *program, str(ROOT / "tests/training/toy_recipe.py"), str(out), str(steps), str(pause_s)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def same(a: Path, b: Path) -> bool:
    one, two = checkpoint.read(a), checkpoint.read(b)
    return one.tensors.keys() == two.tensors.keys() and all(torch.equal(t, two.tensors[n]) for n, t in one.tensors.items())


def test_it_learns_and_leaves_what_it_says(tmp_path: Path) -> None:
    seen: list[int] = []
    result = train(Toy(), config(300, validate_every=100), tmp_path, progress=lambda step, values: seen.append(step))
    lines = read_lines(tmp_path / "log.jsonl")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.5 * losses[0] and result.metrics["mse"] < 1.0 and result.ran == 300
    assert {"loss", "mae", "grad_norm", "lr", "steps_per_s", "step"} == set(lines[0]) and seen[0] == 5
    assert [line["step"] for line in lines if "val/mse" in line] == [100, 200, 300]
    assert sorted(p.name for p in tmp_path.glob("*.safetensors")) == [
        "model.safetensors",
        "step_000000290.safetensors",
        "step_000000300.safetensors",
    ]
    final = checkpoint.read(tmp_path)
    assert final.config == config(300, validate_every=100).as_dict() and final.identity == {"recipe": "toy", "robot": "panda"}
    assert all(name.startswith("ema/") for name in final.tensors)


def test_killed_and_resumed_equals_undisturbed(tmp_path: Path) -> None:
    """SIGKILL in the middle of a run: weights, optimizer, averages and loader end bit by bit as without."""
    train(Toy(), config(60), tmp_path / "whole")
    broken = tmp_path / "broken"
    process = run(broken, 60, pause_s=0.05)
    deadline = time.monotonic() + 300
    while not list(broken.glob(checkpoint.PATTERN)) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    reached = checkpoint.latest(broken)
    assert reached is not None and checkpoint.read(reached).step < 60
    result = train(Toy(), config(60), broken)
    assert 0 < result.ran < 60
    assert same(tmp_path / "whole" / "step_000000060.safetensors", broken / "step_000000060.safetensors")
    assert same(tmp_path / "whole" / "model.safetensors", broken / "model.safetensors")
    steps = [line["step"] for line in read_lines(broken / "log.jsonl")]
    assert steps == sorted(set(steps)) and steps[-1] == 60


def test_a_finished_run_has_nothing_to_do_and_more_steps_go_on(tmp_path: Path) -> None:
    train(Toy(), config(20), tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    assert train(Toy(), config(20), tmp_path).ran == 0 and (tmp_path / "model.safetensors").read_bytes() == before
    assert train(Toy(), config(30), tmp_path).ran == 10
    assert train(Toy(), config(20), tmp_path, resume=False).ran == 20 and checkpoint.read(tmp_path).step == 20


def test_nan_stops_saves_the_batch_and_keeps_the_last_good(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step 27: loss nan.*bad_batch.*last good checkpoint .*step_000000020") as caught:
        train(Toy(bad_step=27), config(40), tmp_path)
    assert "\n" not in str(caught.value)
    bad = checkpoint.read(tmp_path / "bad_batch.safetensors")
    assert bad.step == 27 and bad.tensors["batch/x"].shape == (16, 3)
    newest = checkpoint.latest(tmp_path)
    assert newest is not None and all(t.isfinite().all() for t in checkpoint.read(newest).tensors.values())


def test_dry_run_writes_nothing_and_forecasts(tmp_path: Path) -> None:
    result = train(Toy(), config(1000), tmp_path / "no", dry_run=True)
    assert not (tmp_path / "no").exists() and result.checkpoint is None
    assert result.metrics["parameters"] == 16 * 3 + 16 + 32 + 16 + 1 and result.metrics["forecast_s"] > 0


def test_bfloat16_learns_about_as_well(tmp_path: Path) -> None:
    full, half = (train(Toy(), config(200, amp=amp, validate_every=200), tmp_path / amp).metrics["mse"] for amp in ("off", "bf16"))
    assert half == pytest.approx(full, rel=0.3) and half != full
    assert all(t.dtype in (torch.float32, torch.int64) for t in checkpoint.read(tmp_path / "bf16").tensors.values())


def test_weights_from_elsewhere(tmp_path: Path) -> None:
    train(Toy(), config(50), tmp_path / "a")
    train(Toy(), replace(config(1), optim=OptimConfig(lr=0.0, ema=0.0)), tmp_path / "b", start_from=tmp_path / "a")
    a, b = checkpoint.read(tmp_path / "a").weights(), checkpoint.read(tmp_path / "b").weights()
    assert torch.equal(a["0.weight"], b["0.weight"])
    with pytest.raises(TrainingError, match="is for robot panda, this run for robot ur5|is for robot panda, this run for ur5"):
        train(Toy("ur5"), config(1), tmp_path / "c", start_from=tmp_path / "a")


def test_another_robot_or_other_settings_in_the_same_folder(tmp_path: Path) -> None:
    train(Toy(), config(10), tmp_path)
    with pytest.raises(TrainingError, match="take a checkpoint of the same robot"):
        train(Toy("ur5"), config(20), tmp_path)
    with pytest.raises(TrainingError, match=r"holds a run with loop.batch=16, asked for 32; choose another folder"):
        train(Toy(), config(20, batch=32), tmp_path)


@pytest.mark.parametrize(
    ("loop", "message"),
    [
        ({"steps": 0}, "loop.steps=0"),
        ({"amp": "fp8"}, "unknown loop.amp 'fp8'"),
        ({"device": "cuda"}, "torch sees no GPU"),
        ({"logs": ("x",)}, "log 'x'"),
    ],
)
def test_bad_settings(tmp_path: Path, loop: dict[str, object], message: str) -> None:
    if loop.get("device") == "cuda" and torch.cuda.is_available():
        message = "cuda"
    with pytest.raises(ConfigError, match=message):
        train(Toy(), config(**{"steps": 5, **loop}), tmp_path)  # type: ignore[arg-type]


def test_tensorboard(tmp_path: Path) -> None:
    train(Toy(), config(10, logs=("jsonl", "tensorboard")), tmp_path)
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_missing_logger_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match="needs the package 'mlflow'"):
        train(Toy(), config(10, logs=("mlflow",)), tmp_path)


def test_global_random_state_is_left_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    train(Toy(), config(10), tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_learning_rates() -> None:
    cosine = OptimConfig(lr=1.0, warmup=10, final=0.1)
    assert [learning_rate(cosine, s, 110) for s in (1, 10, 60, 110)] == [pytest.approx(v) for v in (0.1, 1.0, 0.55, 0.1)]
    stepwise = OptimConfig(lr=1.0, warmup=0, schedule="steps", milestones=(3, 5))
    assert [learning_rate(stepwise, s, 9) for s in (3, 4, 6)] == [pytest.approx(v) for v in (1.0, 0.1, 0.01)]
    assert learning_rate(OptimConfig(lr=2.0, warmup=0, schedule="constant"), 9, 9) == 2.0


def two_ranks(tmp_path: Path, step: int = 1) -> list[nn.Module]:
    """One step by hand: the gradients of two ranks' batches, averaged."""
    from training.loop import _begin, _forward, _generator

    toy, settings = Toy(), config(1, batch=8)
    state = _begin(toy, settings, distributed.Ranks())
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(settings.optim, 1, 1)
    state.model.train()
    for rank in (0, 1):
        generator = _generator(0, step, rank, torch.device("cpu"))
        toy.source.place = 0
        loss, _ = _forward(toy, settings, state.model, toy.source.next(generator), generator, distributed.Ranks())
        (loss / 2).backward()
    nn.utils.clip_grad_norm_(state.model.parameters(), settings.optim.grad_clip)
    state.optimizer.step()
    return [state.model]


@pytest.mark.slow
def test_two_processes_average_their_gradients(tmp_path: Path) -> None:
    process = run(tmp_path / "two", 1, processes=2)
    assert process.wait(120) == 0
    got = checkpoint.read(tmp_path / "two" / "step_000000001.safetensors").weights("model")
    wanted = dict(two_ranks(tmp_path)[0].named_parameters())
    for name, parameter in wanted.items():
        torch.testing.assert_close(got[name], parameter.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_ray_train_resumes_with_the_loaders_state(tmp_path: Path) -> None:
    import ray

    train(Toy(), config(10), tmp_path)  # what an earlier worker left
    try:
        metrics = distributed.train_with_ray(ray_run(tmp_path), tmp_path, workers=2)
    finally:
        ray.shutdown()
    assert metrics["steps"] == 20 and metrics["ran"] == 10
    last = checkpoint.read(tmp_path / "step_000000020.safetensors")
    assert last.loader == {"place": 20}


def ray_run(out: Path) -> Callable[[], dict[str, float]]:
    """A closure, which Ray pickles by value."""

    def work() -> dict[str, float]:
        sys.path.insert(0, str(ROOT))
        from tests.training.toy_recipe import Toy, config
        from training.loop import train

        result = train(Toy(), config(20), out)
        return {"steps": float(result.steps), "ran": float(result.ran)}

    return work


def test_log_lines_after_a_kill(tmp_path: Path) -> None:
    from training.logs import JsonLines

    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1}) + "\n" + json.dumps({"step": 9}) + "\n" + '{"step": 1')
    log = JsonLines(tmp_path, {}, 5)
    log.write(6, {"loss": 0.5})
    log.close()
    assert read_lines(tmp_path / "log.jsonl") == [{"step": 1}, {"step": 6, "loss": 0.5}]
