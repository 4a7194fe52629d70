"""The published meta-step as the paper describes it (TAALM, section 3.2), to measure against: nothing here is fast.

An eager model with ordinary layers in float32; theta' by AdamW steps on all LoRA weights through functional_call; the
last steps with create_graph, so that the task loss differentiates through them to the weights of the tokens.
"""

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.func import functional_call
from transformers import AutoModelForCausalLM

from taalm.meta.inner import InnerConfig
from taalm.models.base import model_source
from taalm.text import Batch


def load(name: str, r: int, lora: dict[str, Tensor], attention: str = "eager") -> nn.Module:
    """The model in float32 with LoRA on the linear layers that `lora` has weights of."""
    model = AutoModelForCausalLM.from_pretrained(model_source(name), dtype=torch.float32, attn_implementation=attention)
    targets = sorted({key.partition(".model.")[2].partition(".lora_")[0] for key in lora})
    model = get_peft_model(model, LoraConfig(r=r, lora_alpha=r, target_modules=targets, task_type="CAUSAL_LM"))
    missing, unknown = model.load_state_dict(lora, strict=False)
    assert not unknown and not any("lora" in name for name in missing)
    return model.eval()


def token_nll(model: nn.Module, parameters: dict[str, Tensor], batch: Batch) -> Tensor:
    logits = functional_call(model, parameters, kwargs=batch.inputs()).logits[:, :-1]
    flat = F.cross_entropy(logits.flatten(0, 1), batch.input_ids[:, 1:].flatten(), reduction="none")
    return flat.view(len(logits), -1)


def hypergradient(
    model: nn.Module, documents: Batch, probes: Batch, weights: Tensor, inner: InnerConfig
) -> tuple[Tensor, Tensor]:
    """The task loss at theta' and its gradient by the weights (B, T-1); the documents share one theta'."""
    parameters = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters() if p.requires_grad}
    m = {name: torch.zeros_like(p) for name, p in parameters.items()}
    v = {name: torch.zeros_like(p) for name, p in parameters.items()}
    mask, weights, (b1, b2) = documents.attention_mask[:, 1:], weights.clone().requires_grad_(), inner.betas
    for step in range(1, inner.warmup_steps + inner.steps + 1):
        differentiated = step > inner.warmup_steps
        shares = weights * mask
        losses = token_nll(model, parameters, documents)
        loss = ((shares * losses).sum(1) / (shares.sum(1) + 1e-6)).mean()
        gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=differentiated)
        for (name, p), g in zip(list(parameters.items()), gradients, strict=True):
            m[name], v[name] = b1 * m[name] + (1 - b1) * g, b2 * v[name] + (1 - b2) * g * g
            root = (v[name] / (1 - b2**step)).sqrt() + inner.eps
            moved = p * (1 - inner.lr * inner.weight_decay) - inner.lr * (m[name] / (1 - b1**step)) / root
            parameters[name] = moved if differentiated else moved.detach().requires_grad_()
    answer = probes.answer[:, 1:]
    losses = token_nll(model, parameters, probes)
    task = ((losses * answer).sum(1) / answer.sum(1)).mean()
    (gradient,) = torch.autograd.grad(task, weights)
    return task.detach(), gradient
