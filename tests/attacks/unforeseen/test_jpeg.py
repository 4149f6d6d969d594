"""The JPEG threat against a codec of scipy's transforms; Frank-Wolfe against linear programs."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from scipy.optimize import linprog
from torch import Tensor, nn

from fastinterp import InputError
from fastinterp.attacks import JPEG, LinfBall
from fastinterp.attacks.unforeseen import CappedL1Ball, JPEGThreat
from fastinterp.attacks.unforeseen.dct import CHROMINANCE, LUMINANCE, _basis

TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
TO_RGB = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]])


def codec_plane(plane: np.ndarray, z: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Level shift, DCT, quantise without rounding, add z / 2, and back, block by block."""
    out = np.empty_like(plane)
    for number in range(z.size // 64):
        row, column = divmod(number, plane.shape[1] // 8)
        block = np.s_[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        steps = dctn(plane[block] - 128, norm="ortho") / table
        steps += z[64 * number : 64 * number + 64].reshape(8, 8) / 2
        out[block] = idctn(steps * table, norm="ortho") + 128
    return out


def codec(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """One image [C, H, W] in [0, 1] through the whole pipeline."""
    channels, height, width = x.shape
    unit = 8 if channels == 1 else 16
    extra = [-side % unit for side in (height, width)]
    pad = [(0, 0), *((e // 2, e - e // 2) for e in extra)]
    image = np.pad(255 * x, pad, mode="edge")
    area = image.shape[1] * image.shape[2]
    if channels == 1:
        image = codec_plane(image[0], z, np.array(LUMINANCE))[None]
    else:
        ycc = np.einsum("kc,chw->khw", TO_YCC, image)
        planes = [codec_plane(ycc[0], z[:area], np.array(LUMINANCE))]
        for k, part in ((1, z[area : area + area // 4]), (2, z[area + area // 4 :])):
            small = ycc[k].reshape(ycc.shape[1] // 2, 2, -1, 2).mean((1, 3)) + 128
            small = codec_plane(small, part, np.array(CHROMINANCE)) - 128
            planes.append(small.repeat(2, 0).repeat(2, 1))
        image = np.einsum("ck,khw->chw", TO_RGB, np.stack(planes))
    top, left = extra[0] // 2, extra[1] // 2
    return np.clip(image[:, top : top + height, left : left + width] / 255, 0, 1)


@pytest.mark.parametrize(
    ("shape", "coefficients"),
    [((3, 32, 32), 1536), ((1, 28, 28), 1024), ((3, 20, 27), 1536), ((1, 8, 16), 128)],
)
def test_render_against_a_codec(make_images, shape, coefficients: int) -> None:
    x = make_images(2, *shape)
    threat = JPEGThreat(LinfBall(2.0, 0.1, -math.inf, math.inf))
    z = threat.init(x, True, torch.Generator().manual_seed(0))
    assert z.shape == (2, coefficients)
    expected = np.stack([codec(*pair) for pair in zip(x.numpy(), z.numpy(), strict=True)])
    # The constants of JFIF invert each other to six digits.
    assert np.abs(threat.render(x, z).numpy() - expected).max() < 1e-5


def test_tables_are_those_of_the_standard() -> None:
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image.new("RGB", (16, 16)).save(file, "JPEG", quality=50)  # 50: the tables as they stand
    found = image.open(file).quantization
    assert np.array_equal(np.reshape(found[0], (8, 8)), LUMINANCE)
    assert np.array_equal(np.reshape(found[1], (8, 8)), CHROMINANCE)


@pytest.mark.parametrize("shape", [(3, 6, 9), (1, 8, 5)])
@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_gradient(make_images, shape, norm: str) -> None:
    x = make_images(1, *shape, middle=True)
    threat = JPEG(nn.Identity(), eps=0.1, norm=norm).threat
    z = threat.init(x, True, torch.Generator().manual_seed(0)).requires_grad_()
    assert threat.render(x, z).min() > 0 and threat.render(x, z).max() < 1
    assert torch.autograd.gradcheck(lambda z: threat.render(x, z), (z,))


def test_a_basis_made_under_inference_mode_serves_autograd(make_images) -> None:
    x = make_images(1, 1, 8, 8, middle=True)
    threat = JPEG(nn.Identity()).threat
    z = threat.init(x, False, None)
    _basis.cache_clear()
    with torch.inference_mode():
        threat.render(x, z)
    threat.render(x, z.requires_grad_()).sum().backward()
    assert z.grad.any()


@pytest.mark.parametrize(
    ("norm", "eps", "order", "cap"),
    [("linf", 0.25, math.inf, 0.25), ("l2", 8.0, 2, 2.0), ("l1", 256.0, 1, 2.0)],
)
def test_coefficients_stay_in_the_set(make_images, norm, eps, order, cap) -> None:
    x = make_images(3, 3, 16, 16)
    threat = JPEG(nn.Identity(), norm=norm, steps=4).threat
    z = threat.init(x, True, torch.Generator().manual_seed(0))
    assert norm != "l2" or z[0].norm() > eps / 2  # a ball's volume lies near its surface
    grad = torch.randn_like(z)
    for step in range(8):
        v = z if norm != "l1" else z[:, :-1]
        assert (torch.linalg.vector_norm(v, ord=order, dim=1) <= eps * (1 + 1e-12)).all()
        assert v.abs().max() <= cap + 1e-12
        if norm == "l1":
            assert (z[:, -1] == step).all()
        z = threat.step(x, z, grad + 0.3 * torch.randn_like(z))
    reached = torch.linalg.vector_norm(z if norm != "l1" else z[:, :-1], ord=order, dim=1)
    assert (reached > 0.7 * eps).all()


def test_a_size_for_each_image(make_images) -> None:
    x = make_images(3, 1, 8, 8)
    for norm in ("linf", "l2", "l1"):
        eps = torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64)
        threat = JPEG(nn.Identity(), eps, norm, steps=4).threat
        z = threat.init(x, True, torch.Generator().manual_seed(0))
        order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
        for _ in range(3):
            z = threat.step(x, z, torch.randn_like(z))
        length = torch.linalg.vector_norm(z[:, :64], ord=order, dim=1)
        assert (length <= eps + 1e-12).all() and length[2] > 0.1
        picked = threat.rows(torch.tensor([2, 0]))
        assert torch.equal(
            picked.step(x[[2, 0]], z[[2, 0]], torch.ones_like(z[:2]))[1, :64], z[0, :64]
        )


def test_start_at_the_centre(make_images) -> None:
    x = make_images(2, 1, 12, 12)
    for norm in ("linf", "l2", "l1"):
        threat = JPEG(nn.Identity(), norm=norm).threat
        assert not threat.init(x, False, None).any()
        assert torch.allclose(threat.render(x, threat.init(x, False, None)), x)


def first_step(grad: Tensor, eps: float, cap: float) -> Tensor:
    ball = CappedL1Ball(eps, cap)
    origin = torch.zeros_like(grad)
    z = ball.init(origin, False, None)
    return ball.render(origin, ball.step(origin, z, torch.cat([grad, grad[:, :1]], dim=1)))


@pytest.mark.parametrize(("eps", "cap"), [(3.0, 2.0), (0.7, 2.0), (50.0, 2.0), (4.0, 0.5)])
def test_the_first_step_is_the_best_point_of_the_set(eps: float, cap: float) -> None:
    grad = torch.randn(4, 7, dtype=torch.float64)
    v = first_step(grad, eps, cap)
    for g, found in zip(grad.numpy(), v.numpy(), strict=True):
        # v = p - q with 0 <= p, q <= cap, sum p + q <= eps.
        best = linprog(-np.r_[g, -g], A_ub=np.ones((1, 14)), b_ub=[eps], bounds=(0, cap))
        assert g @ found == pytest.approx(-best.fun)


def test_frank_wolfe_is_a_mean_of_its_points_and_forgets_the_start() -> None:
    ball, origin = CappedL1Ball(1.5, 2.0), torch.zeros(1, 3, dtype=torch.float64)
    grads = [torch.tensor([[3.0, -2, 1, 0]]), torch.tensor([[0.0, 0, -1, 0]])]
    results = []
    for random_start in (False, True):
        z = ball.init(origin, random_start, torch.Generator().manual_seed(0))
        for grad in grads:
            z = ball.step(origin, z, grad.double())
        results.append(z)
    # From 0: (1.5, 0, 0), then (0, 0, -1.5) with equal weight.
    assert torch.allclose(results[0], torch.tensor([[0.75, 0, -0.75, 2]]).double())
    assert results[1][0, -1] == 2 and results[1][:, :-1].abs().sum() <= 1.5


def test_a_coordinate_at_the_cap_gets_nothing() -> None:
    ball, origin = CappedL1Ball(2.5, 2.0), torch.zeros(1, 3, dtype=torch.float64)
    grad = torch.tensor([[3.0, -2, 1, 0]]).double()
    z = ball.step(origin, ball.init(origin, False, None), grad)
    assert z.tolist() == [[2.0, -0.5, 0.0, 1.0]]
    # Room now: 0, 1.5 and 2; of 2.5 the second gets 1.5, the third 1. Half way there:
    assert ball.step(origin, z, grad).tolist() == [[1.0, -1.0, 0.5, 2.0]]


def test_norms_and_steps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="norm must be one of"):
        JPEG(nn.Identity(), norm="l3")
    with pytest.raises(InputError, match="leave step_size out"):
        JPEG(nn.Identity(), norm="l1", step_size=1.0)
