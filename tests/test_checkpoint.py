"""Run: pytest tests/test_checkpoint.py. State files come back whole or not at all; files are written whole or not."""

import copy
import random

import pytest
import torch

from taalm.checkpoint import (
    atomic_path,
    load_optimizer,
    load_parameters,
    load_state,
    optimizer_tensors,
    save_state,
    write_bytes,
    write_text,
)
from taalm.errors import UserError
from tests.conftest import tiny_gpt2, tiny_llama

VALUES = {"epoch": 3, "losses": [0.1, 1e-300], "name": "Köln", "none": None, "nested": {"a": [True]}}


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "float": torch.randn(3, 4, requires_grad=True),
        "bf16": torch.randn(5).bfloat16(),
        "step": torch.tensor(7.0),
        "ids": torch.arange(4),
        "transposed": torch.randn(3, 2).t(),
        "empty": torch.zeros(0, 3),
    }


def test_a_state_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "new folder" / "state.safetensors"
    save_state(path, tensors(), VALUES)
    found, values = load_state(path)
    assert values == VALUES and list(found) and set(found) == set(tensors())
    for name, tensor in tensors().items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_state_cut_off_anywhere_is_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    save_state(path, tensors(), VALUES)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"state\.safetensors: not a whole checkpoint .* delete it"):
            load_state(path)


def test_random_bytes_and_foreign_safetensors_are_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    rng = random.Random(0)
    headers = [b"", b"\x10" + b"\0" * 7, b"\x02" + b"\0" * 7 + b"{}", b"\x08" + b"\0" * 7 + b"\xff" * 8]
    for index in range(100):
        path.write_bytes(headers[index % 4] + rng.randbytes(rng.randrange(60)))
        with pytest.raises(UserError, match="not a whole checkpoint of taalm"):
            load_state(path)
    tiny_llama(8).save_pretrained(tmp_path / "model")  # a whole safetensors file, not ours
    with pytest.raises(UserError, match="not a whole checkpoint of taalm"):
        load_state(tmp_path / "model" / "model.safetensors")


def test_a_missing_state_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such checkpoint"):
        load_state(tmp_path / "nowhere")
    with pytest.raises(UserError):
        load_state(tmp_path)


def test_parameters_take_the_saved_values_in_place():
    model, other = tiny_llama(20), tiny_llama(20, seed=1)
    live = dict(model.named_parameters())
    load_parameters(live, {name: p.detach() for name, p in other.named_parameters()}, "file")
    ids = torch.tensor([[0, 5, 9]])
    assert torch.equal(model(ids).logits, other(ids).logits)
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved.pop("lm_head.weight"), "1 tensors missing, 0 unknown, 0 of another shape"),
        (lambda saved: saved.update(more=torch.ones(1)), "0 tensors missing, 1 unknown, 0 of another shape"),
        (
            lambda saved: saved.update({"model.norm.weight": torch.ones(1)}),
            "0 tensors missing, 0 unknown, 1 of another",
        ),
    ],
)
def test_another_models_checkpoint_is_refused_and_changes_nothing(change, message):
    model = tiny_llama(20)
    saved = {name: p.detach() + 1 for name, p in model.named_parameters()}
    change(saved)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError) as error:
        load_parameters(dict(model.named_parameters()), saved, "runs/x.safetensors")
    assert str(error.value).startswith("runs/x.safetensors: the checkpoint of another model: ")
    assert message in str(error.value)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_gpt2_does_not_take_a_llamas_state(tmp_path):
    path = tmp_path / "state.safetensors"
    save_state(path, dict(tiny_llama(20).named_parameters()), {})
    with pytest.raises(UserError, match="the checkpoint of another model"):
        load_parameters(dict(tiny_gpt2(20).named_parameters()), load_state(path)[0], path)


def test_a_block_that_raises_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as scratch:
        scratch.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with atomic_path(path) as scratch:
        scratch.write_text("new")
        assert path.read_text() == "old" and scratch.parent == path.parent
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_file_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write this file"):
        write_bytes(tmp_path / "file" / "below", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot write this file"):
        write_bytes(tmp_path / "folder", b"x")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["file", "folder"]


def descend(parameters, optimizer, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()


def test_an_optimizer_goes_on_from_its_state_as_if_never_interrupted(tmp_path):
    def fresh():
        torch.manual_seed(0)
        parameters = [torch.randn(4, 3, requires_grad=True), torch.randn(5, requires_grad=True)]
        return parameters, torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1)

    straight, optimizer = fresh()
    descend(straight, optimizer, range(9))
    first, optimizer = fresh()
    descend(first, optimizer, range(4))
    path = tmp_path / "state.safetensors"
    save_state(path, {str(i): p for i, p in enumerate(first)} | optimizer_tensors(optimizer), {})
    saved, _ = load_state(path)
    second, optimizer = fresh()
    for index, parameter in enumerate(second):
        parameter.data.copy_(saved[str(index)])
    load_optimizer(optimizer, saved)
    descend(second, optimizer, range(4, 9))
    assert all(torch.equal(a, b) for a, b in zip(second, straight, strict=True))


def test_settings_stay_the_optimizers_own():
    parameter = torch.ones(2, requires_grad=True)
    before, after = torch.optim.AdamW([parameter], lr=1e-2), torch.optim.AdamW([parameter], lr=5e-4)
    descend([parameter], before, range(1))
    load_optimizer(after, optimizer_tensors(before))
    assert after.param_groups[0]["lr"] == 5e-4 and after.state[parameter]["step"] == 1
