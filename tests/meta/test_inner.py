"""Run: pytest tests/meta/test_inner.py. Our pure AdamW against torch.optim.AdamW, its derivatives against autograd."""

import pytest
import torch

from taalm.meta.inner import SGD, AdamW, InnerConfig, make_optimizer


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.8, 0.95)])
def test_update_equals_torch_adamw(weight_decay, betas):
    torch.manual_seed(0)
    start = torch.randn(5, 3, dtype=torch.float64)
    live = start.clone().requires_grad_()
    reference = torch.optim.AdamW([live], lr=1e-2, betas=betas, eps=1e-8, weight_decay=weight_decay)
    ours = AdamW(1e-2, betas, 1e-8, weight_decay)
    parameters, state = {"w": start}, ours.init({"w": start})
    for _ in range(7):
        live.grad = torch.randn(5, 3, dtype=torch.float64)
        reference.step()
        parameters, state = ours.update({"w": live.grad}, state, parameters)
        torch.testing.assert_close(parameters["w"], live.detach(), rtol=1e-12, atol=1e-14)


def test_derivatives_equal_autograd_through_the_update():
    torch.manual_seed(1)
    size = 11
    adamw = AdamW(1e-2, weight_decay=0.1)
    theta, m, g = (torch.randn(size, dtype=torch.float64) for _ in range(3))
    v = torch.rand(size, dtype=torch.float64)
    state = adamw.init({"w": theta})._replace(m={"w": m}, v={"w": v}, step=3)

    def updated(g, m, v, theta):
        return adamw.update({"w": g}, state._replace(m={"w": m}, v={"w": v}), {"w": theta})[0]["w"]

    by_g, by_m, by_v, by_theta = torch.autograd.functional.jacobian(updated, (g, m, v, theta))
    slope = adamw.derivatives(*adamw.moments(g, m, v), 4)
    b1, b2 = adamw.betas
    assert torch.equal(by_g, torch.diag(by_g.diagonal()))  # elementwise
    torch.testing.assert_close(by_g.diagonal(), (1 - b1) * slope.m + 2 * (1 - b2) * g * slope.v, rtol=1e-12, atol=0)
    torch.testing.assert_close(by_m.diagonal(), b1 * slope.m, rtol=1e-12, atol=0)
    torch.testing.assert_close(by_v.diagonal(), b2 * slope.v, rtol=1e-12, atol=0)
    torch.testing.assert_close(by_theta.diagonal(), torch.full((size,), adamw.decay, dtype=torch.float64))


def test_a_parameter_without_gradient_stays_and_has_no_slope():
    adamw = AdamW(1e-2)
    theta = {"w": torch.ones(3, dtype=torch.float64)}
    gradient = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64, requires_grad=True)
    updated, state = adamw.update({"w": gradient}, adamw.init(theta), theta)
    slope = adamw.derivatives(state.m["w"], state.v["w"], 1)
    assert updated["w"][0] == 1 and updated["w"][1] < 1
    assert slope.m[0] == slope.v[0] == 0 and torch.isfinite(slope.m).all()
    (through,) = torch.autograd.grad(updated["w"].sum(), gradient)
    assert torch.isfinite(through).all()


def test_sgd_equals_torch_sgd_and_has_a_constant_slope():
    torch.manual_seed(2)
    start = torch.randn(4, dtype=torch.float64)
    live = start.clone().requires_grad_()
    reference, ours = torch.optim.SGD([live], lr=0.1, weight_decay=0.2), SGD(0.1, weight_decay=0.2)
    parameters, state = {"w": start}, ours.init({"w": start})
    for _ in range(3):
        live.grad = torch.randn(4, dtype=torch.float64)
        reference.step()
        parameters, state = ours.update({"w": live.grad}, state, parameters)
        torch.testing.assert_close(parameters["w"], live.detach(), rtol=1e-12, atol=1e-14)
    slope = ours.derivatives(state.m["w"], state.v["w"], 3)
    assert (slope.m == -0.1).all() and (slope.v == 0).all()
    assert isinstance(make_optimizer(InnerConfig(optimizer="sgd")), SGD)
