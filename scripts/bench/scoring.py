"""Cloze scoring against lm-evaluation-harness: probes per second with the same result for every probe, side by side.

The harness (its `loglikelihood`, its own Hugging Face model class) gets each probe up to the object as context and the
object as continuation, in float32, at several batch sizes; ours runs in float32, and in bfloat16 where the processor
has it. *Again* is what an epoch of adaptation asks after the first one: the same probes of a theta that trains from
--first_layer up, whose lower layers have been gone through. The command fails where a float32 result differs: all
object tokens predicted or not, and their summed log probability.
"""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM

from scripts.bench import prepare
from scripts.bench.alternate import alternate
from taalm.checkpoint import write_text
from taalm.facts import FORMS, Fact
from taalm.models.base import ModelConfig, load_model, model_source
from taalm.models.precision import keep_freed_memory
from taalm.models.split import SplitModel
from taalm.scoring import ProbeBatches, encode_probe, score_batches, score_facts
from taalm.text import pad_token

LARGEST_DIFFERENCE = 1e-3  # of a probe's summed log probability, relative
BATCH_SIZES = (1, 8, 32, 64)
Scores = list[tuple[float, bool]]  # summed log probability, all tokens predicted


def harness(name: str, tokenizer: Any, facts: list[Fact], batch_size: int) -> Callable[[], Scores]:
    model = AutoModelForCausalLM.from_pretrained(model_source(name), dtype=torch.float32).eval()
    wrapped = HFLM(model, tokenizer=tokenizer, batch_size=batch_size, add_bos_token=False, device="cpu")

    def run() -> Scores:
        requests = []
        for form in FORMS:
            for fact in facts:
                probe, (start, end) = fact.probe(form), fact.answer_span(form)
                context = probe[:start].rstrip()
                given = tokenizer.bos_token + context, probe[len(context) : end]
                requests.append(Instance("loglikelihood", {}, given, len(requests)))
        return wrapped.loglikelihood(requests, disable_tqdm=True)

    return run


def ours(name: str, facts: list[Fact], precision: str) -> Callable[[], Scores]:
    model, tokenizer = load_model(name, device="cpu", precision=precision)

    def run() -> Scores:
        found = [score for form in FORMS for score in score_facts(model, tokenizer, facts, form)]
        return [(-score.nll * score.tokens, score.exact_match) for score in found]

    return run


def again(name: str, facts: list[Fact], precision: str, first_layer: int) -> Callable[[], Scores]:
    model, tokenizer = prepare.theta(ModelConfig(name=name, precision=precision, first_layer=first_layer))
    split = SplitModel(model.eval())
    rows = [encode_probe(tokenizer, fact, form) for form in FORMS for fact in facts]
    probes = ProbeBatches.make(rows, pad_token(tokenizer), split)
    return lambda: [(-score.nll * score.tokens, score.exact_match) for score in score_batches(split, probes)]


def main() -> None:
    parser = prepare.command_line(__doc__)
    parser.add_argument("--facts", type=int, default=100, help="facts, each probed in two forms")
    parser.add_argument("--first_layer", type=int, default=15, help="again: from this layer up theta trains")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("results/bench/scoring.json"), help="file for the figures")
    given = parser.parse_args()
    keep_freed_memory()
    facts = prepare.facts(given, given.facts)
    _, tokenizer = load_model(given.model, device="cpu", precision="fp32")
    ways = {f"harness, {size} at once": harness(given.model, tokenizer, facts, size) for size in BATCH_SIZES}
    for precision in prepare.precisions():
        ways[f"ours, {precision}"] = ours(given.model, facts, precision)
        ways[f"ours, {precision}, again"] = again(given.model, facts, precision, given.first_layer)
    seconds, found = alternate(ways, given.repeats)
    probes = len(facts) * len(FORMS)
    best = min(statistics.median(seconds[name]) for name in ways if name.startswith("harness"))
    reference, rows = found["harness, 1 at once"], {}
    for name, times in seconds.items():
        pairs = list(zip(found[name], reference, strict=True))
        rows[name] = {
            "probes_per_s": probes / statistics.median(times),
            "seconds": times,
            "times_the_best_harness": best / statistics.median(times),
            "other_results": sum(one[1] != other[1] for one, other in pairs),
            "largest_relative_difference": max(abs(one[0] - other[0]) / abs(other[0]) for one, other in pairs),
        }
        print(
            f"{name:22} {rows[name]['probes_per_s']:7.1f} probes/s  {rows[name]['times_the_best_harness']:5.2f} x the "
            f"best harness   {rows[name]['other_results']} of {probes} results differ, log probabilities by "
            f"{rows[name]['largest_relative_difference']:.1e} at most"
        )
    arguments = {key: str(value) for key, value in vars(given).items()}
    write_text(given.json, json.dumps({"arguments": arguments, "probes": probes, "rows": rows}, indent=1) + "\n")
    exact = (rows["ours, fp32"], rows["ours, fp32, again"])
    if any(row["other_results"] or row["largest_relative_difference"] > LARGEST_DIFFERENCE for row in exact):
        raise SystemExit("a probe's float32 result is not the harness's")


if __name__ == "__main__":
    main()
