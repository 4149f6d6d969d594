"""Networks on the Hugging Face Hub, by the mixin of huggingface_hub, an optional library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from .._utils.errors import InputError
from .checkpoint import load, save
from .sources import Network

try:
    from huggingface_hub import ModelHubMixin, hf_hub_download
except ImportError as error:
    raise InputError(
        f"fastinterp.models.hub needs huggingface_hub ({error}); install it with "
        "`pip install huggingface_hub`."
    ) from error

_FILE = "model.safetensors"


class HubNetwork(  # type: ignore[call-arg]
    ModelHubMixin,  # type: ignore[misc]
    library_name="fastinterp",
    tags=["image-classification"],
):
    """A network with `from_pretrained`, `save_pretrained` and `push_to_hub` of huggingface_hub.

    What is stored is what `fastinterp.models.save` writes, in a file model.safetensors.

    Args:
        network: the network, which `from_pretrained` makes by `fastinterp.models.load`.
        info: stored in the file's header, see `save`.

    Attributes:
        network: see above.
    """

    def __init__(self, network: nn.Module, info: dict[str, Any] | None = None) -> None:
        self.network = network
        self.info = info

    def _save_pretrained(self, save_directory: Path) -> None:
        save(self.network, Path(save_directory) / _FILE, self.info)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        map_location: str = "cpu",
        into: nn.Module | None = None,
        trust: str | None = None,
        **_: Any,
    ) -> HubNetwork:
        path = Path(model_id) / _FILE
        if not Path(model_id).is_dir():
            path = Path(
                hf_hub_download(
                    model_id,
                    _FILE,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            )
        if into is not None:
            return cls(load(path, into=into))
        return cls(load(path, map_location, trust=trust))


def from_pretrained(name: str | Path, **settings: Any) -> Network | nn.Module:
    """The network of a repository on the Hub, or of a local folder.

    Args:
        name: owner/name, or a folder that `save_pretrained` wrote, or a run's folder.
        settings: map_location, into and trust of `fastinterp.models.load`; revision, token,
            cache_dir and others of huggingface_hub.
    """
    found: HubNetwork = HubNetwork.from_pretrained(name, **settings)
    return found.network


def save_pretrained(network: nn.Module, folder: str | Path, **settings: Any) -> None:
    """Write a network as a repository in a local folder; settings as in huggingface_hub."""
    HubNetwork(network).save_pretrained(folder, **settings)


def push_to_hub(network: nn.Module, name: str, **settings: Any) -> str:
    """Upload a network to the repository owner/name; settings as in huggingface_hub.

    Returns:
        The address of the commit.
    """
    return str(HubNetwork(network).push_to_hub(name, **settings))
