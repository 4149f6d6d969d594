"""The Hub's mixin, offline: what is saved in a folder comes back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from fastinterp import InputError, models

try:
    import huggingface_hub
    from huggingface_hub import ModelHubMixin  # noqa: F401
except ImportError:
    huggingface_hub = None
needs_hub = pytest.mark.skipif(huggingface_hub is None, reason="huggingface_hub is not installed")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules, "fastinterp.models.hub", raising=False)
    with pytest.raises(InputError, match="pip install huggingface_hub"):
        import fastinterp.models.hub  # noqa: F401


@needs_hub
@pytest.mark.interop
def test_a_network_comes_back_from_a_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from fastinterp.models import hub

    model = models.from_source("torchvision:shufflenet_v2_x0_5", 5, seed=0)
    hub.save_pretrained(model, tmp_path / "net")
    assert (tmp_path / "net" / "model.safetensors").is_file()
    read = hub.from_pretrained(tmp_path / "net")
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(read(x), model.eval()(x), rtol=0, atol=0)
    into = models.build(model.config)
    assert hub.from_pretrained(tmp_path / "net", into=into) is into
    torch.testing.assert_close(into(x), read(x), rtol=0, atol=0)


@needs_hub
@pytest.mark.interop
def test_push_uploads_what_save_writes(monkeypatch) -> None:
    from fastinterp.models import hub

    sent = {}

    class Api:
        def __init__(self, **_: object) -> None: ...

        def create_repo(self, repo_id: str, **_: object) -> object:
            return type("Repo", (), {"repo_id": repo_id})()

        def upload_folder(self, *, repo_id: str, folder_path: str, **_: object) -> str:
            sent[repo_id] = sorted(path.name for path in Path(folder_path).iterdir())
            return "commit"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    assert hub.push_to_hub(models.small(seed=0), "owner/net") == "commit"
    assert "model.safetensors" in sent["owner/net"]
