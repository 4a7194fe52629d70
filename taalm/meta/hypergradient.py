"""d task loss(theta') / d weights, three ways that give the same numbers (docs/method.md).

theta' comes from theta by `warmup_steps` AdamW steps (not differentiated) and K differentiated ones on the weighted
document loss. Letters: B documents, T tokens; parameters are dicts of theta's trainable tensors.

- double_backward: create_graph=True through the K steps; the reference. Memory grows with K.
- jvp (default): the adjoint recursion below; q by one forward-mode pass a step, exact.
- finite_difference: the same recursion, derivatives along u by central differences.

The recursion goes backwards over the steps with adjoints of theta and both moments (theta_bar = d task / d theta'):
    m_bar += theta_bar * d theta'/d m'     v_bar += theta_bar * d theta'/d v'
    u = (1 - b1) m_bar + 2 (1 - b2) g * v_bar
    q_t += d/deps l_t(theta + eps u)       Hu = d/deps grad L(theta + eps u)
    theta_bar <- decay * theta_bar + Hu    m_bar <- b1 m_bar    v_bar <- b2 v_bar
and d task / d w = d/dw weighted_mean(q, w): the adjoint of g is u, and u . grad L(w) = weighted mean of u . grad l_t.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from taalm.errors import UserError
from taalm.head_loss import Known
from taalm.losses import weighted_mean
from taalm.meta.inner import AdamW, Tensors, UpdateDerivatives, zeros_like

TokenLosses = Callable[..., Tensor]  # (parameters, known) -> l_t, (B, T-1); `known` as in taalm.head_loss
# (parameters, what weighs l_t into a scalar) -> (l_t, the scalar's gradients)
LayerwiseLosses = Callable[[Tensors, Callable[[Tensor], Tensor]], tuple[Tensor, dict[str, Tensor]]]
TaskLoss = Callable[[Tensors], Tensor]  # parameters -> scalar


@dataclass(frozen=True)
class InnerProblem:
    """Everything that theta' depends on, and the loss that judges it.

    With `together` > 1 every document of the batch has a theta' of its own: parameters are (B, ...), `together` is B,
    and losses are sums over the documents, so that each theta' sees its own document's loss alone.
    """

    token_losses: TokenLosses
    task_loss: TaskLoss
    mask: Tensor  # (B, T-1), m_t
    optimizer: AdamW
    warmup_steps: int
    steps: int
    together: int = 1
    start: Known = field(default_factory=Known)  # token losses where theta' starts
    by_layers: LayerwiseLosses | None = None  # where the model can be gone through layer by layer
    checkpoint: bool = False  # all gradients of the token losses layer by layer; second-order passes always are

    def weigh(self, values: Tensor, weights: Tensor) -> Tensor:
        """The weighted mean of values (B, T-1) by document, as the inner loss takes it of the token losses."""
        return self.together * weighted_mean(values, weights, self.mask)

    def inner_loss(self, parameters: Tensors, weights: Tensor, known: Known | None = None) -> Tensor:
        return self.weigh(self.token_losses(parameters, known), weights)

    def slopes(
        self, parameters: Tensors, weights: Tensor, lean: bool, known: Known | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """l_t and the inner loss's gradients; `lean`: with one layer's graph at a time, where the model can."""
        if lean and self.by_layers is not None:
            return self.by_layers(parameters, lambda losses: self.weigh(losses, weights))
        losses = self.token_losses(parameters, known)
        return losses, gradients_of(self.weigh(losses, weights), parameters)


class Hypergradient(NamedTuple):
    """The task loss at theta' and its gradient by the weights (B, T-1)."""

    task_loss: Tensor
    weight_gradient: Tensor


def gradients_of(loss: Tensor, parameters: Tensors, create_graph: bool = False) -> dict[str, Tensor]:
    """d loss / d every parameter, 0 where the loss does not depend on it."""
    found = torch.autograd.grad(loss, list(parameters.values()), create_graph=create_graph, materialize_grads=True)
    return dict(zip(parameters, found, strict=True))


def as_leaves(parameters: Tensors) -> dict[str, Tensor]:
    """Leaves with the same values to differentiate by; nothing writes into them, so theta keeps its storage."""
    return {name: value.detach().requires_grad_() for name, value in parameters.items()}


class Course:
    """The inner steps without a graph. Of the differentiated ones only the gradients are kept, one set of theta's size
    a step; parameters and moments on the way are computed again from where the warm-up ends.
    """

    def __init__(self, problem: InnerProblem, theta: Tensors, weights: Tensor):
        self.optimizer: AdamW = problem.optimizer
        self.start, self.state = dict(theta), problem.optimizer.init(theta)
        known = replace(problem.start)
        for done in range(1, problem.warmup_steps + 1):
            for name, g in self._gradients(problem, self.start, weights, known).items():  # what was there is let go
                moved = self.optimizer.step(g, self.start[name], self.state.m[name], self.state.v[name], done)
                self.start[name], self.state.m[name], self.state.v[name] = moved
            self.state, known = self.state._replace(step=done), Known()
        self.gradients: list[dict[str, Tensor]] = []  # of the differentiated steps
        self.known: list[Known] = []
        for step in range(problem.steps):
            self.gradients.append(self._gradients(problem, self.parameters(step), weights, known))
            self.known.append(known)
            known = Known()

    @staticmethod
    def _gradients(problem: InnerProblem, parameters: Tensors, weights: Tensor, known: Known) -> dict[str, Tensor]:
        return problem.slopes(as_leaves(parameters), weights, problem.checkpoint, known)[1]

    def parameters(self, steps: int) -> dict[str, Tensor]:
        """theta after so many of the differentiated steps."""
        return {name: self.after(steps, name)[0] for name in self.start}

    def after(self, steps: int, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """(theta, m, v) of one tensor after so many of the differentiated steps."""
        theta, m, v = self.start[name], self.state.m[name], self.state.v[name]
        for done, gradients in enumerate(self.gradients[:steps], start=self.state.step + 1):
            theta, m, v = self.optimizer.step(gradients[name], theta, m, v, done)
        return theta, m, v

    def update(self, step: int, name: str) -> tuple[Tensor, UpdateDerivatives]:
        """One tensor before the differentiated step `step`, counted from 0, and the derivatives of its update there."""
        theta, m, v = self.after(step, name)
        m, v = self.optimizer.moments(self.gradients[step][name], m, v)
        return theta, self.optimizer.derivatives(m, v, self.state.step + step + 1)


def adapt(problem: InnerProblem, theta: Tensors, weights: Tensor) -> dict[str, Tensor]:
    """theta' after the warm-up and the K steps, without any graph."""
    return Course(problem, theta, weights.detach()).parameters(problem.steps)


def double_backward(problem: InnerProblem, theta: Tensors, weights: Tensor) -> Hypergradient:
    """The reference: differentiate through the gradients of the K steps."""
    warm = Course(replace(problem, steps=0), theta, weights.detach())
    parameters, state = as_leaves(warm.start), warm.state
    leaf_weights = weights.detach().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        for _ in range(problem.steps):
            gradients = gradients_of(problem.inner_loss(parameters, leaf_weights), parameters, create_graph=True)
            parameters, state = problem.optimizer.update(gradients, state, parameters)
        task = problem.task_loss(parameters)
        (gradient,) = torch.autograd.grad(task, leaf_weights)
    return Hypergradient(task.detach(), gradient)


class _PlainSilu(TorchFunctionMode):
    """silu(x) as x sigmoid(x): torch has no forward-mode rule for silu's backward."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (F.silu, torch._C._nn.silu):
            return args[0] * torch.sigmoid(args[0])
        return func(*args, **(kwargs or {}))


def loss_slopes(
    token_losses: TokenLosses, parameters: Tensors, direction: Tensors, known: Known | None = None
) -> Tensor:
    """d/deps l_t(parameters + eps direction) at 0, (B, T-1), by one forward-mode pass."""
    with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        duals = {n: forward_ad.make_dual(p.detach().contiguous(), direction[n]) for n, p in parameters.items()}
        return forward_ad.unpack_dual(token_losses(duals, known)).tangent


def _forward_mode(
    problem: InnerProblem, parameters: Tensors, known: Known, weights: Tensor, direction: Tensors, curvature: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """q (B, T-1) along `direction`, and H u where wanted, by one forward-mode pass."""
    if not curvature:
        return loss_slopes(problem.token_losses, parameters, direction, known), {}
    with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
        leaves = as_leaves({name: p.contiguous() for name, p in parameters.items()})
        duals = {name: forward_ad.make_dual(p, direction[name]) for name, p in leaves.items()}
        with _PlainSilu():
            losses, gradients = problem.slopes(duals, weights, lean=True)
        q = forward_ad.unpack_dual(losses).tangent.detach()
        return q, {n: forward_ad.unpack_dual(g).tangent.detach() for n, g in gradients.items()}


FD_SCALE = 0.01  # length of a central-difference step in float32; a hundredth of it in float64


def _central_differences(
    problem: InnerProblem, parameters: Tensors, known: Known, weights: Tensor, direction: Tensors, curvature: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """As `_forward_mode`, from two evaluations at theta +- eps u."""
    rows = (u.reshape(problem.together, -1) for u in direction.values())
    norm = torch.stack([row.norm(dim=1) for row in rows]).norm(dim=0)  # of each theta' by itself
    scale = FD_SCALE if norm.dtype == torch.float32 else FD_SCALE / 100
    eps = scale / norm.clamp_min(torch.finfo(norm.dtype).tiny)
    at = {name: eps.view(-1, *[1] * (u.dim() - 1)) for name, u in direction.items()}
    losses, gradients = [], []
    for sign in (1, -1):
        shifted = {name: p + sign * at[name] * direction[name] for name, p in parameters.items()}
        if curvature:
            values, found = problem.slopes(as_leaves(shifted), weights, problem.checkpoint)
            gradients.append(found)
        else:
            with torch.no_grad():
                values = problem.token_losses(shifted)
        losses.append(values.detach())
    q = (losses[0] - losses[1]) / (2 * eps)[:, None]
    if not curvature:
        return q, {}
    return q, {name: (gradients[0][name] - gradients[1][name]) / (2 * at[name]) for name in direction}


def _adjoint(directional: Callable) -> Callable[[InnerProblem, Tensors, Tensor], Hypergradient]:
    """The hypergradient by the backward recursion, with `directional` for derivatives along u."""

    def hypergradient(problem: InnerProblem, theta: Tensors, weights: Tensor) -> Hypergradient:
        weights = weights.detach()
        course = Course(problem, theta, weights)
        leaves = as_leaves(course.parameters(problem.steps))
        task = problem.task_loss(leaves)
        theta_bar = gradients_of(task, leaves)
        del leaves
        optimizer, (b1, b2) = problem.optimizer, problem.optimizer.betas
        m_bar = {name: zeros_like(bar) for name, bar in theta_bar.items()}
        v_bar = dict(m_bar)
        influence = torch.zeros_like(weights)
        for step in reversed(range(problem.steps)):
            parameters, u = {}, {}
            for name, g in course.gradients[step].items():
                parameters[name], slope = course.update(step, name)
                m_bar[name] = torch.addcmul(m_bar[name], theta_bar[name], slope.m)
                v_bar[name] = torch.addcmul(v_bar[name], theta_bar[name], slope.v)
                u[name] = ((1 - b1) * m_bar[name]).addcmul_(g, v_bar[name], value=2 * (1 - b2))
                if not step:  # nothing goes further back
                    del theta_bar[name], m_bar[name], v_bar[name]
            known = course.known[step]
            del course.gradients[step]
            if not step:
                del course
            q, hessian_u = directional(problem, parameters, known, weights, u, curvature=step > 0)
            influence = influence + q
            if step:
                theta_bar = {name: optimizer.decay * bar + hessian_u[name] for name, bar in theta_bar.items()}
                m_bar = {name: b1 * value for name, value in m_bar.items()}
                v_bar = {name: b2 * value for name, value in v_bar.items()}
        leaf_weights = weights.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(problem.weigh(influence, leaf_weights), leaf_weights)
        return Hypergradient(task.detach(), gradient)

    return hypergradient


HYPERGRADIENTS: dict[str, Callable[[InnerProblem, Tensors, Tensor], Hypergradient]] = {
    "double_backward": double_backward,
    "jvp": _adjoint(_forward_mode),
    "finite_difference": _adjoint(_central_differences),
}


def get_hypergradient(name: str) -> Callable[[InnerProblem, Tensors, Tensor], Hypergradient]:
    """The estimator of that name. Raises UserError, listing the names, for an unknown one."""
    if name not in HYPERGRADIENTS:
        raise UserError(f"--hypergradient {name}: unknown; there are {', '.join(HYPERGRADIENTS)}")
    return HYPERGRADIENTS[name]
