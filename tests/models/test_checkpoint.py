"""Our own checkpoints: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastinterp import InputError, __version__, models
from fastinterp.models import checkpoint


@pytest.mark.parametrize("make", [models.small, models.pool, models.wresnet])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_network_comes_back_bit_for_bit(tmp_path: Path, make: Any, dtype: torch.dtype) -> None:
    model = make(3, 7, seed=0).to(dtype)
    path = tmp_path / "new" / "folder" / "model.safetensors"
    models.save(model, path)
    before = torch.get_rng_state()
    read = models.load(path)
    assert torch.equal(torch.get_rng_state(), before)  # nothing is drawn and thrown away
    assert read.config == model.config
    assert not read.training
    for name, parameter in model.named_parameters():
        again = read.get_parameter(name)
        assert again.dtype == dtype
        assert again.requires_grad
        assert torch.equal(parameter, again), name


def test_channels_last_networks_can_be_saved(tmp_path: Path) -> None:
    model = models.small(3, seed=0).to(memory_format=torch.channels_last)
    models.save(model, tmp_path / "model.safetensors")
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(models.load(tmp_path / "model.safetensors")(x), model(x))


def test_info_is_kept_with_config_and_version(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    models.save(models.small(), path, info={"method": "int", "eps": 0.3, "epochs": [1, 2]})
    assert models.info(path) == {
        "config": {"name": "small", "in_channels": 1, "num_classes": 10},
        "fastinterp": __version__,
        "method": "int",
        "eps": 0.3,
        "epochs": [1, 2],
    }
    (tmp_path / "released.pkl").write_bytes(b"")
    assert models.info(tmp_path / "released.pkl") == {}


def test_the_same_network_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        models.save(models.small(seed=0), tmp_path / f"{name}.safetensors", {"seed": 0})
    a, b = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("a", "b"))
    assert a == b


def test_a_save_that_fails_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    models.save(models.small(seed=0), path)
    before = path.read_bytes()

    def half_written(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:100])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half_written)
    with pytest.raises(OSError, match="No space"):
        models.save(models.small(seed=1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_loaded_network_does_not_depend_on_its_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    models.save(models.small(seed=0), path)
    model = models.load(path)
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert torch.equal(model.weight, models.small(seed=0).weight)


def test_save_wants_the_suffix_that_load_knows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.safetensors"):
        models.save(models.small(), tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("info", "says"),
    [({"config": 1}, "config"), ({"tensor": torch.ones(1)}, "JSON"), ({"fastinterp": 1}, "key")],
)
def test_info_that_cannot_be_kept_is_refused(
    tmp_path: Path, info: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        models.save(models.small(), tmp_path / "model.safetensors", info)
    assert not list(tmp_path.iterdir())


def test_networks_that_cannot_be_rebuilt_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = models.small()
    with pytest.raises(InputError, match=r"bare network"):
        models.save(torch.compile(models.small()), path)  # type: ignore[arg-type]
    model.config = {"name": "pool", "in_channels": 1, "num_classes": 10}
    with pytest.raises(InputError, match=r"not those of the network"):
        models.save(model, path)
    assert not path.exists()


def one_sentence(path: Path) -> str:
    with pytest.raises(InputError) as error:
        models.load(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    assert "no file" in one_sentence(tmp_path / "absent.safetensors")
    assert "no file" in one_sentence(tmp_path / "absent.pkl")
    (tmp_path / "model.pt").write_bytes(b"")
    assert ".safetensors" in one_sentence(tmp_path / "model.pt")
    for suffix in (".safetensors", ".pkl"):
        (tmp_path / f"folder{suffix}").mkdir()
        assert "folder" in one_sentence(tmp_path / f"folder{suffix}")


def test_the_folder_of_a_run_is_its_network(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(InputError, match="no file"):
        models.load(run)
    run.mkdir()
    with pytest.raises(InputError, match=r"no network in .*run.*model\.safetensors"):
        models.load(run)
    model = models.small(seed=0)
    models.save(model, run / "model.safetensors", {"epochs": 3})
    assert torch.equal(models.load(str(run)).weight, model.weight)
    assert models.info(run)["epochs"] == 3


def test_the_state_of_a_run_is_no_network(tmp_path: Path) -> None:
    from fastinterp.training.state import save_state

    model = models.small(seed=0)
    optimizer = torch.optim.Adam(model.parameters())
    save_state(tmp_path / "state.safetensors", model, optimizer, torch.zeros(3), {})
    with pytest.raises(InputError, match=r"state\.safetensors is the state .*model\.safetensors"):
        models.load(tmp_path / "state.safetensors")
    with pytest.raises(InputError, match=r"state but no model\.safetensors.*resume.*wrapped"):
        models.load(tmp_path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    models.save(models.small(seed=0), path)
    content = path.read_bytes()
    for length in (0, 1, 7, 8, 50, 1000, len(content) - 1):
        path.write_bytes(content[:length])
        assert "damaged" in one_sentence(path)
    path.write_bytes(b"\xff" * 1000)
    assert "damaged" in one_sentence(path)


def test_files_of_other_programs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(1)}, path)
    assert "not one that fastinterp wrote" in one_sentence(path)
    save_file({"a": torch.ones(1)}, path, metadata={"fastinterp": "not json"})
    assert "damaged" in one_sentence(path)
    save_file({"a": torch.ones(1)}, path, metadata={"fastinterp": "[]"})
    assert "not one that fastinterp wrote" in one_sentence(path)
    save_file({"a": torch.ones(1)}, path, metadata={"fastinterp": "{}"})
    assert "config" in one_sentence(path)


def test_parameters_that_do_not_fit_the_header_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    models.save(models.small(seed=0), path)
    state = load_file(path)
    header = json.dumps(models.info(path))
    save_file({**state, "weight": torch.ones(3, 3)}, path, metadata={"fastinterp": header})
    assert "does not hold the parameters" in one_sentence(path)
    del state["weight"]
    save_file(state, path, metadata={"fastinterp": header})
    assert "does not hold the parameters" in one_sentence(path)


def test_unknown_devices_are_refused(tmp_path: Path) -> None:
    models.save(models.small(), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="'gpu'"):
        models.load(tmp_path / "model.safetensors", map_location="gpu")


def test_the_header_is_readable_without_the_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.save(models.small(), tmp_path / "model.safetensors", {"note": "x"})
    monkeypatch.setattr(checkpoint, "empty", None)
    assert models.info(tmp_path / "model.safetensors")["note"] == "x"


@pytest.mark.cuda
def test_networks_load_onto_a_gpu(tmp_path: Path) -> None:
    model = models.small(seed=0).cuda()
    models.save(model, tmp_path / "model.safetensors")
    read = models.load(tmp_path / "model.safetensors", map_location="cuda")
    assert read.device.type == "cuda"
    assert torch.equal(read.weight, model.weight)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = models.small(seed=0)
    with torch.no_grad():
        model.weight[0, 0] = torch.inf
    models.save(model, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="not finite"):
        models.load(tmp_path / "model.safetensors")


def _spoilt(change: str) -> tuple[dict[str, torch.Tensor], str]:
    model = models.small(seed=0)
    state = {name: value.detach() for name, value in model.state_dict().items()}
    config = {"name": "small", "in_channels": 1, "num_classes": 10}
    header = {"config": config, "fastinterp": __version__}
    if change == "mixed":
        state["weight"] = state["weight"].double()
    elif change == "whole":
        state = {name: value.long() for name, value in state.items()}
    elif change == "shape":
        state["weight"] = state["weight"][:, :, None]
    elif change == "deep":
        return state, "[" * 100_000
    else:
        config["num_classes"] = {"float": 1e30, "huge": 10**30, "many": 2**40}[change]
    return state, json.dumps(header)


@pytest.mark.parametrize("change", ["mixed", "whole", "shape", "deep", "float", "huge", "many"])
def test_files_that_lie_are_refused(tmp_path: Path, change: str) -> None:
    state, header = _spoilt(change)
    path = tmp_path / "model.safetensors"
    save_file(state, path, metadata={"fastinterp": header})
    with pytest.raises(InputError) as error:
        models.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["x" * 5000 + ".pkl", "fifo.pkl", "fifo.safetensors"])
def test_paths_of_no_file_are_refused(tmp_path: Path, name: str) -> None:
    if name.startswith("fifo"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(InputError):
        models.load(tmp_path / name)
