"""Networks are found in a folder by data set, architecture and method."""

from __future__ import annotations

from pathlib import Path

from fastinterp.reproduce.networks import Network, find_network


def test_released_networks_are_found(shared: Path) -> None:
    found = find_network(shared / "networks", Network("mnist", "small", "ig-norm-sum"))
    assert found is not None
    assert found.name == "mnist_smallgap_igsum_100.pkl"
    assert find_network(shared / "networks", Network("mnist", "small", "nonsense")) is None
    wide = find_network(shared / "networks", Network("restricted_imagenet", "wresnet", "normal"))
    assert wide is not None
    assert wide.name == "restimagenet_wresnet_normal_35.pkl"


def test_networks_are_found_in_order(tmp_path: Path) -> None:
    network, wide = Network("mnist", "small", "int"), Network("mnist", "small", "int", 0.1)
    assert find_network(tmp_path, network) is None
    names = (
        "mnist-quick-int/model.safetensors",
        "mnist_smallgap_int_9.pkl",
        "mnist_smallgap_int_100.pkl",
        "mnist-small-int.safetensors",
        "mnist-small-int/model.safetensors",
    )
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        assert find_network(tmp_path, network) == path
    assert find_network(tmp_path, network, ["quick"]) == tmp_path / names[0]
    assert find_network(tmp_path, wide) is None
    run = tmp_path / "mnist-quick-int-gamma-0.1" / "model.safetensors"
    run.parent.mkdir()
    run.touch()
    assert find_network(tmp_path, wide) == run
    assert find_network(tmp_path, wide, ["paper"]) is None
    assert find_network(tmp_path, Network("cifar10", "small", "int"), ["quick"]) is None
