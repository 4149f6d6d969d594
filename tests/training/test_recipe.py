from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastinterp import InputError, data, models
from fastinterp.data import SPLITS
from fastinterp.training import METHODS, Recipe, list_recipes, load_recipe, run_recipe
from fastinterp.training.families import recipe_name
from fastinterp.training.folder import NETWORK
from fastinterp.training.recipe import make_trainer, training_data

# Of version 0.1: dataset, epochs, batch size, lr, milestones; eps, steps, step size, schedule;
# train images, val images.
SETTINGS = {
    "mnist": ("mnist", 100, 50, 1e-4, (), 0.3, 40, 0.01, (2000, 10000), 0, 5000),
    "mnist-quick": ("mnist", 10, 50, 1e-3, (), 0.2, 10, 0.04, (200, 600), 5000, 1000),
    "cifar10": (
        *("cifar10", 200, 128, 1e-3, (40000, 60000)),
        *(8 / 255, 10, 2 / 255, (5000, 70000), 0, 5000),
    ),
    "digits": ("digits", 30, 50, 1e-3, (), 0.1, 7, 0.03, (200, 600), 0, 0),
    "restricted_imagenet": (
        *("restricted_imagenet", 100, 64, 1e-3, (8000, 16000)),
        *(0.3, 40, None, (), 0, 0),
    ),
}
OLD = list(METHODS)[:8]  # the methods of version 0.1
# The 44 names of version 0.1: (family, network, method).
NAMES = {
    f"{family}-{network}-{name}": (family, network, name)
    for family, networks in (("mnist", ("small", "pool")), ("cifar10", ("small", "wresnet")))
    for network in networks
    for name in OLD
}
NAMES |= {f"mnist-quick-{name}": ("mnist-quick", "small", name) for name in OLD}
NAMES |= {f"digits-small-{name}": ("digits", "small", name) for name in ("normal", "int", "adv")}
NAMES["restricted_imagenet-wresnet-normal"] = ("restricted_imagenet", "wresnet", "normal")


def settings_of(recipe: Recipe) -> tuple[object, ...]:
    return (
        *(recipe.dataset, recipe.epochs, recipe.batch_size, recipe.lr, recipe.lr_milestones),
        *(recipe.eps, recipe.steps, recipe.step_size, recipe.eps_schedule),
        *(recipe.train_images, recipe.val_images),
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_recipes_of_version_0_1(name: str) -> None:
    family, network, way = NAMES[name]
    recipe = load_recipe(name)
    assert (recipe.name, recipe.model, recipe.method) == (name, network, way)
    assert settings_of(recipe) == SETTINGS[family]
    assert (recipe.gamma, recipe.random_start, recipe.seed) == (None, True, 0)
    assert recipe_name(family, network, way) == name


def test_names_and_descriptions_are_made_from_parts() -> None:
    assert len(NAMES) == 44 and set(NAMES) < set(list_recipes())
    about = load_recipe("mnist-quick-int-1-class").description
    assert about == "MNIST, 5,000 images, Small: Int with the true class's map alone"
    for short, full in (
        ("mnist-int", "mnist-small-int"),
        ("cifar10-adv", "cifar10-small-adv"),
        ("mnist-quick-small-int", "mnist-quick-int"),
        ("restricted_imagenet-normal", "restricted_imagenet-wresnet-normal"),
    ):
        assert load_recipe(short) == load_recipe(full)
    assert recipe_name("digits") == "digits-small-int"
    assert load_recipe("mnist-wresnet-trades").model == "wresnet"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("mnsit",), "did you mean 'mnist'"),
        (("mnist", "smal"), "did you mean 'small'"),
        (("mnist", "pool", "itn"), "did you mean 'int'"),
        (("restricted_imagenet", None, "int"), "must be one of 'normal', got 'int'"),
    ],
)
def test_wrong_parts_of_a_name_are_refused(parts: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipe_name(*parts)


def test_overrides() -> None:
    recipe = load_recipe(
        "mnist-small-int",
        ["eps=8/255", "epochs = 3", "lr_milestones=[5, 7]", "random_start=false", "gamma=1e-3"],
    )
    assert (recipe.eps, recipe.epochs, recipe.lr_milestones) == (8 / 255, 3, (5, 7))
    assert (recipe.random_start, recipe.gamma) == (False, 1e-3)
    assert load_recipe("mnist-small-int", {"eps": 0.1, "eps_schedule": []}).eps_schedule == ()
    assert load_recipe("mnist-small-int", ["eps_schedule="]).eps_schedule == ()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epoch=3", "no setting 'epoch'.*did you mean 'epochs'"),
        ("epsilon=0.2", "no setting 'epsilon'.*did you mean 'eps'"),
        ("learning_rate=0.2", "did you mean 'lr'"),
        ("interpreter=repr", "interpreter must be one of 'cam', .*, got 'repr'"),
        ("norm=l3", "norm must be one of .*, got 'l3'"),
        ("xyzzy=3", "no setting 'xyzzy'; known names are description"),
        ("name=other", "no setting 'name'"),
        ("epochs", "has the form key=value"),
        ("epochs=many", "epochs must be a whole number, got 'many'"),
        ("epochs=2.5", "epochs must be a whole number"),
        ("eps=1/0", "eps must be a number or a fraction"),
        ("eps=__import__('os')", "eps must be a number or a fraction"),
        ("random_start=perhaps", "random_start must be true or false"),
        ("eps_schedule=1,x", "eps_schedule must be a list of whole numbers"),
    ],
)
def test_bad_overrides_are_refused(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe("mnist-small-int", [override])


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_recipes_of_ones_own(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.toml", 'base = "mnist-small-int"\nepochs = 7\nlr = 1\n')
    recipe = load_recipe(mine)
    assert (recipe.name, recipe.epochs, recipe.steps, recipe.lr) == ("mine", 7, 40, 1.0)
    other = write(tmp_path / "other.toml", 'base = "mine.toml"\nmethod = "adv"\n')
    assert load_recipe(other, ["steps=5"]).epochs == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = ", "is not valid TOML"),
        ('base = "mnist-small-itn"', "no recipe 'mnist-small-itn'; did you mean 'mnist-small-int'"),
        ("base = 3", "base must be the name of a recipe"),
        ('base = "a.toml"', "is its own base"),
        ('base = "gone.toml"', "no recipe file gone.toml"),
        ('method = "int"\ndataset = "digits"', "does not set epochs"),
        ('base = "mnist-small-int"\nstep = 3', "no setting 'step'.*did you mean 'steps'"),
        ('base = "mnist-small-int"\nepochs = true', "epochs must be a whole number, got True"),
        ('base = "mnist-small-int"\nepochs = 3.5', "epochs must be a whole number, got 3.5"),
        ('base = "mnist-small-int"\nmethod = 3', "method must be text"),
        ('base = "mnist-small-int"\nlr_milestones = 3', "lr_milestones must be a list"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(write(tmp_path / "a.toml", text))


def test_unknown_recipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no recipe 'zzz'; .*--list"):
        load_recipe("zzz")
    with pytest.raises(InputError, match="did you mean 'mnist-small-int'"):
        load_recipe("mnist-smal-int")
    with pytest.raises(InputError, match="no recipe file"):
        load_recipe(tmp_path / "zzz.toml")


QUICK = ["epochs=2", "train_images=60", "val_images=20", "batch_size=20", "steps=2"]


def test_recipes_name_interpreter_and_norm() -> None:
    recipe = load_recipe("digits-small-int", [*QUICK, "interpreter=gradcam++", "norm=l2", "eps=1"])
    train, _ = training_data(recipe, None)
    settings = make_trainer(recipe, train, "cpu").settings
    assert (settings["interpreter"], settings["norm"]) == ("GradCAMPlusPlus", "l2")
    _, history = run_recipe(recipe, device="cpu", progress=False)
    assert len(history) == 2
    with pytest.raises(InputError, match="'adv' takes no inner and no interpreter"):
        run_recipe(load_recipe("digits-small-adv", ["interpreter=gradcam"]), device="cpu")


def test_running_a_recipe(tmp_path: Path) -> None:
    recipe = load_recipe("digits-small-int", QUICK)
    model, history = run_recipe(recipe, out=tmp_path, device="cpu", progress=False)
    assert [row["step"] for row in history] == [3, 6]
    assert "val_accuracy" in history[0]
    info = models.info(tmp_path / NETWORK)
    assert info["recipe"]["method"] == "int" and info["recipe"]["epochs"] == 2
    saved = models.load(tmp_path / NETWORK)
    x = torch.rand(3, 1, 28, 28)
    assert not model.training
    assert torch.equal(saved(x), model(x))
    again = run_recipe(recipe, out=tmp_path, resume=True, device="cpu", progress=False)
    assert again.history == history


@pytest.mark.parametrize("change", ["val_images=2000", "train_images=2000", "val_images=1437"])
def test_more_images_than_there_are_is_refused(change: str) -> None:
    with pytest.raises(InputError, match="digits has 1437 training images, too few"):
        run_recipe(load_recipe("digits-small-int", [*QUICK, change]), progress=False)


def test_gamma_for_a_method_without_is_refused() -> None:
    with pytest.raises(InputError, match="'adv' has no regulariser"):
        run_recipe(load_recipe("digits-small-adv", [*QUICK, "gamma=0.1"]), progress=False)


def test_the_held_out_images_are_the_first(shared: Path) -> None:
    """Of MNIST's training split, as the authors did."""
    whole = data.load("mnist", shared / "data" / "MNIST", SPLITS[0])
    train, val = training_data(load_recipe("mnist-small-int"), shared / "data" / "MNIST")
    assert (len(train), len(val)) == (55000, 5000)
    assert torch.equal(val.images, whole.images[:5000])
    assert torch.equal(train.labels, whole.labels[5000:])
    train, _ = training_data(load_recipe("mnist-quick-int"), shared / "data" / "MNIST")
    assert len(train) == 5000
