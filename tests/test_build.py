"""What set-up decides before it compiles: the toolkit, the switches, the architectures."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from fastinterp._utils import toolkit

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_of_fastinterp", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_toolkit(home: Path, version: str) -> Path:
    (home / "bin").mkdir(parents=True)
    (home / "include").mkdir()
    (home / "include" / "cuda_runtime.h").touch()
    nvcc = home / "bin" / "nvcc"
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {version}, V{version}.1'\n")
    nvcc.chmod(0o755)
    return home


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty place for toolkits: no variables, nothing on PATH, nothing under /usr/local."""
    for name in ("CUDA_HOME", "CUDA_PATH", "FASTINTERP_CUDA", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    monkeypatch.setattr(toolkit.shutil, "which", lambda name: None)
    real = toolkit.Path
    monkeypatch.setattr(
        toolkit, "Path", lambda p: tmp_path / "local" if str(p) == "/usr/local" else real(p)
    )
    return tmp_path


def test_nothing_is_found_where_nothing_is(elsewhere: Path) -> None:
    assert toolkit.find_toolkit() is None


def test_cuda_home_comes_first(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_toolkit(elsewhere / "local" / "cuda-13.0", "13.0")
    home = make_toolkit(elsewhere / "mine", "12.8")
    monkeypatch.setenv("CUDA_HOME", str(home))
    assert toolkit.find_toolkit() == toolkit.Toolkit(home, "12.8")


def test_a_wrapper_on_the_path_is_not_a_toolkit(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = elsewhere / "path" / "bin" / "nvcc"
    wrapper.parent.mkdir(parents=True)
    wrapper.write_text("#!/bin/sh\necho release 13.0\n")
    wrapper.chmod(0o755)
    monkeypatch.setattr(toolkit.shutil, "which", lambda name: str(wrapper))
    assert toolkit.find_toolkit() is None
    make_toolkit(elsewhere / "local" / "cuda-9.2", "9.2")
    home = make_toolkit(elsewhere / "local" / "cuda-13.0", "13.0")
    assert toolkit.find_toolkit() == toolkit.Toolkit(home, "13.0")


def fake_torch(cuda: str | None, capabilities: tuple[tuple[int, int], ...] = ()) -> SimpleNamespace:
    return SimpleNamespace(
        __version__="2.14.1",
        version=SimpleNamespace(cuda=cuda),
        cuda=SimpleNamespace(
            device_count=lambda: len(capabilities),
            get_device_capability=lambda i: capabilities[i],
        ),
    )


def found(setup: ModuleType, monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    monkeypatch.setattr(
        setup, "load_toolkit_module", lambda: SimpleNamespace(find_toolkit=lambda: value)
    )


def test_cuda_kernels_are_left_out_or_demanded(
    setup: ModuleType, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thirteen = toolkit.Toolkit(Path("/t"), "13.0")
    found(setup, monkeypatch, thirteen)
    assert setup.choose_toolkit(fake_torch("13.0")) is thirteen
    assert setup.choose_toolkit(fake_torch("12.8")) is None
    assert setup.choose_toolkit(fake_torch(None)) is None
    monkeypatch.setenv("FASTINTERP_CUDA", "0")
    assert setup.choose_toolkit(fake_torch("13.0")) is None
    monkeypatch.setenv("FASTINTERP_CUDA", "1")
    with pytest.raises(SystemExit, match=r"FASTINTERP_CUDA=1, but .* torch was built with CUDA 12"):
        setup.choose_toolkit(fake_torch("12.8"))
    found(setup, monkeypatch, None)
    with pytest.raises(SystemExit, match="no CUDA toolkit was found"):
        setup.choose_toolkit(fake_torch("13.0"))
    monkeypatch.setenv("FASTINTERP_CUDA", "yes")
    with pytest.raises(SystemExit, match="must be 0 or 1, got 'yes'"):
        setup.choose_toolkit(fake_torch("13.0"))


def test_architectures(setup: ModuleType, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert setup.choose_archs(fake_torch("13.0")) == "9.0+PTX"
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST")
    assert setup.choose_archs(fake_torch("13.0", ((8, 0), (8, 0)))) == "8.0+PTX"
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.6;9.0+PTX")
    archs = setup.choose_archs(fake_torch("13.0", ((8, 0),)))
    flags = setup.defines(fake_torch("13.0"), toolkit.Toolkit(Path("/t"), "13.0"), archs)
    assert '-DFASTINTERP_CUDA_ARCHS="8.6,9.0"' in flags
    assert '-DFASTINTERP_CUDA_PTX="9.0"' in flags
    assert "-DFASTINTERP_WITH_CUDA=1" in flags
