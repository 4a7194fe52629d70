"""The rows of docs/protocol.md's grid, and the ablations of phi: what `taalm.reproduce` runs."""

from dataclasses import dataclass

RHO_KEEP = ("--rho.keep", ("0.6", "0.4", "0.8"))
RECALL = ("--recadam.coefficient", ("1250", "5000"))  # rate times coefficient must stay below 2
REVIEW = ("--review.ratio", ("0.25", "0.5", "1"))


@dataclass(frozen=True)
class Row:
    """A row of the table: a method, and what is chosen for it on the tuning rows."""

    method: str
    own: tuple[str, tuple[str, ...]] | None = None  # its own main parameter: a flag, its values
    fixed: tuple[str, ...] = ()  # flags in place of choosing any
    given: tuple[str, ...] = ()  # flags of every cell, the tuning ones too
    phi: tuple[str, ...] = ()  # flags of train_ta, where phi is not trained by the preset
    once: bool = False  # the first seed alone


# the preset was chosen on the tuning rows and known facts of no split (experiments.md, 23, 24); every view is seen as
# often as there. Views learn in bfloat16, for speed, and are asked in float32 as all rows are
BF16 = ("--model.precision", "bf16", "--ask_precision", "fp32")
VIEWS = ("--preset", "smollm2-135m-views", "--adapt.epochs", "8", "--half_batch", "20", *BF16)
# phi's words and theta_0's own, three a document, and the likeliest questions of all documents (experiments.md, 31)
READOUT = (*VIEWS, "--views.spans", "3", "--views.pooled", "true")
# updates of half as many views, twice as many of them, LoRA counted whole (experiments.md, 32)
SMALL = (
    *(*READOUT, "--adapt.batch_size", "20", "--review.batch_size", "32"),
    *("--half_batch", "10", "--scale", "1", "--scales", "[0.6, 0.7, 0.8, 0.9]"),
)
# these, the TA-train facts' own probes held on to, and the largest share that keeps .95 of the tuning rows' known facts
# where as many documents are learned as here (experiments.md, 33)
KEPT = (
    *("--preset", "smollm2-135m-readout", "--adapt.epochs", "8", "--half_batch", "10", *BF16),
    *("--scales", "[0.6, 0.7, 0.9, 1]"),
)
# views that count by their probability and only until they are learned (experiments.md, 34)
SURE = (*KEPT, "--views.confidence", "1", "--adapt.learned_below", "0.5")
LINEAR = ("--adapt.schedule", "linear")
ROWS: dict[str, Row] = {  # in the order in which time is spent
    "finetune": Row("finetune"),
    "targeted": Row("targeted"),
    "oracle": Row("oracle"),
    "targeted+views+kl": Row("targeted+views+kl", fixed=VIEWS),
    "targeted+readout+views+kl": Row("targeted+readout+views+kl", fixed=READOUT),
    "targeted+readout+views+kl_small": Row("targeted+readout+views+kl", fixed=SMALL),
    "targeted+readout+views+kl_kept": Row("targeted+readout+views+kl", fixed=KEPT),
    "targeted+readout+views+kl_sure": Row("targeted+readout+views+kl", fixed=SURE),
    # phi from the best of four warm starts, by the tuning rows
    "targeted+views+kl_starts": Row("targeted+views+kl", fixed=VIEWS, phi=("--outer.starts", "4")),
    "targeted+recadam": Row("targeted+recadam", RECALL),
    "targeted+kl": Row("targeted+kl", REVIEW),
    "rho": Row("rho", RHO_KEEP),
    "recadam": Row("recadam", RECALL),
    "review": Row("review", REVIEW),
    "kl": Row("kl", REVIEW),
    "kadapter": Row("kadapter"),
    "oracle+kl": Row("oracle+kl", REVIEW),
    "rho+kl": Row("rho+kl", REVIEW),
    "targeted+review": Row("targeted+review", REVIEW),
    "finetune_low": Row("finetune", fixed=("--adapt.lr", "3e-5")),
    "oracle+views+kl": Row("oracle+views+kl", fixed=VIEWS),
    "ner+views+kl": Row("ner+views+kl", fixed=VIEWS, once=True),
    "surprisal+views+kl": Row("surprisal+views+kl", fixed=VIEWS, once=True),
    "tfidf+views+kl": Row("tfidf+views+kl", fixed=VIEWS, once=True),
    "finetune_linear": Row("finetune", given=LINEAR),
    "targeted_linear": Row("targeted", given=LINEAR),
    "oracle_linear": Row("oracle", given=LINEAR),
    "targeted+recadam_linear": Row("targeted+recadam", RECALL, given=LINEAR),
    "targeted+review_linear": Row("targeted+review", REVIEW, given=LINEAR),
    "targeted_cross": Row("targeted", phi=("--train_data", "ta_train_cross.jsonl"), once=True),
    "targeted+kadapter": Row("targeted+kadapter", once=True),
    "targeted+kl+recadam": Row("targeted+kl+recadam", RECALL, once=True),
    "rho_theta0": Row("rho_theta0", RHO_KEEP, once=True),
    "sstoken_rel": Row("sstoken_rel", RHO_KEEP, once=True),
    "surprisal": Row("surprisal", once=True),
    "surprisal+kl": Row("surprisal+kl", REVIEW, once=True),
    "ner": Row("ner", once=True),
    "ner+kl": Row("ner+kl", REVIEW, once=True),
    "tfidf": Row("tfidf", once=True),
    "tfidf+kl": Row("tfidf+kl", REVIEW, once=True),
    "oracle_bidirectional": Row("oracle_bidirectional", once=True),
    "published": Row("targeted", phi=("--preset", "smollm2-135m-published"), once=True),
    "camels": Row("targeted", phi=("--preset", "camels"), once=True),
    # targeted_linear with weights trained on each document's own probe
    "ceiling_linear": Row("given", fixed=("--adapt.lr", "3e-4"), given=LINEAR, once=True),
}
# how taalm.ceiling trains them: theta learns as it does while phi is trained
CEILING = ("--theta.first_layer", "26", "--inner.mode", "independent")

EXACT = ("--outer.warm_start", "0", "--outer.refine", "1.0")  # exact meta-steps from the first one on


def _ablation(*flags: str, adapt: tuple[str, ...] = ()) -> Row:
    return Row("targeted", fixed=("--adapt.lr", "3e-4", *LINEAR, *adapt), phi=flags, once=True)


ABLATIONS: dict[str, Row] = {  # one thing about phi or its weights changed, all else as in the preset or its exact form
    "preset": _ablation(),
    "exact": _ablation(*EXACT),
    "sigmoid_bias_4": _ablation("--phi.weights", "sigmoid", "--phi.head_bias", "4"),
    "sigmoid_bias_0": _ablation("--phi.weights", "sigmoid", "--phi.head_bias", "0"),
    "softplus": _ablation("--phi.weights", "softplus"),
    "phi_layers_8": _ablation("--phi.layers", "8"),
    "phi_layers_all": _ablation("--phi.layers", "0"),
    "theta_layers_22": _ablation("--theta.first_layer", "22"),
    "descriptive": _ablation("--objective.form", "descriptive"),
    "no_balance": _ablation("--outer.balance", "0"),
    "temperature_1": _ablation("--outer.temperature", "1"),
    "targeted_cross": _ablation("--train_data", "ta_train_cross.jsonl"),
    "documents_50": _ablation("--train_documents", "50"),
    "documents_200": _ablation("--train_documents", "200"),
    "drop_below_.05": _ablation(adapt=("--drop_below", "0.05")),
    "drop_below_.5": _ablation(adapt=("--drop_below", "0.5")),
    "exact_joint": _ablation(*EXACT, "--inner.mode", "joint"),
    "exact_warmup_0": _ablation(*EXACT, "--inner.warmup_steps", "0"),
    "exact_warmup_4": _ablation(*EXACT, "--inner.warmup_steps", "4"),
    "exact_2_steps": _ablation(*EXACT, "--inner.steps", "2"),
    "exact_sgd": _ablation(*EXACT, "--inner.optimizer", "sgd", "--inner.lr", "0.3"),
    "exact_frozen": _ablation(*EXACT, "--inner.optimizer", "adamw_frozen"),
    "exact_change2": _ablation(*EXACT, "--objective.name", "change2"),
    "exact_retention": _ablation(*EXACT, "--objective.retention", "0.1"),
    "exact_finite_difference": _ablation(
        *EXACT, "--outer.hypergradient", "finite_difference", "--theta.precision", "fp32"
    ),
}
