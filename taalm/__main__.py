"""`taalm COMMAND ...`: all commands under one name; the same as `python -m taalm.COMMAND ...`."""

from dataclasses import is_dataclass
from importlib import import_module

from taalm.config import make_parser, run_entry
from taalm.errors import UserError

COMMANDS = {  # name -> what it does; the module is taalm.<name> unless another one stands below
    "train_ta": "train Train-Attention: meta-learn a weight for every token",
    "evaluate": "adapt a model to LAMA-ckl's documents with one method, and ask it every epoch",
    "evaluate_twiki": "the same on TemporalWiki's three periods in sequence",
    "run_online": "the online wiki stream: one training call per date",
    "adapt_documents": "teach a model documents of your own",
    "ceiling": "weights trained on each document's own probe, for the method given",
    "weigh": "show the weights of a text's tokens",
    "results": "the table of a folder of results",
    "intervals": "their 95 % intervals",
    "answers": "how much of them is their relations' common answers",
    "period_intervals": "those of TemporalWiki's results",
    "plots": "their curves",
    "report": "a page of all of it",
    "ablations": "ablations of phi side by side",
    "publish": "copies of results to commit: small, no paths",
    "reproduce": "the grid of docs/protocol.md",
    "lama_ckl_split": "split LAMA-ckl's rows for a model",
    "lama_pipeline": "make LAMA-ckl from LAMA's T-REx",
    "temporal_wiki_stand_in": "make a stand-in for TemporalWiki's DIFFSETs",
    "temporal_wiki_pairs": "make phi's training facts from TemporalWiki's documents",
    "download": "fetch the published data sets",
}
BENCHMARKS = ("lama_ckl_split", "lama_pipeline", "temporal_wiki_stand_in", "temporal_wiki_pairs")
MODULES = {"plots": "taalm.plots.__main__", **{name: f"taalm.benchmarks.{name}" for name in BENCHMARKS}}
HELP = 'taalm COMMAND --help lists a command\'s flags; eval "$(taalm completion bash)" (or zsh) completes them.'


def module_of(command: str) -> str:
    return MODULES.get(command, f"taalm.{command}")


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(["usage: taalm COMMAND [flags]", "", *lines, "", HELP])


def flags_of(command: str) -> list[str]:
    """The flags of a command that is configured by a dataclass of its module."""
    module = import_module(module_of(command))
    configs = [v for v in vars(module).values() if is_dataclass(v) and getattr(v, "__module__", "") == module.__name__]
    found = [config for config in configs if isinstance(config, type) and config.__name__.endswith("Config")]
    if not found:
        return ["--help"]
    actions = make_parser(found[-1], command, presets=True)._actions
    return sorted({option for action in actions for option in action.option_strings if option.startswith("--")})


def completion(shell: str) -> str:
    """A script for bash or zsh that completes commands, flags and files."""
    cases = "\n".join(f'        {name}) words="{" ".join(flags_of(name))}" ;;' for name in COMMANDS)
    zsh = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return f"""{zsh}_taalm() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{" ".join(COMMANDS)} completion" -- "$current"))
        return
    fi
    case "${{COMP_WORDS[1]}}" in
{cases}
        completion) words="bash zsh" ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current") $(compgen -f -- "$current"))
}}
complete -F _taalm taalm"""


def main(arguments: list[str]) -> None:
    command, *rest = arguments or ["--help"]
    if command in ("--help", "-h", "help"):
        print(usage())
    elif command == "completion":
        if rest not in (["bash"], ["zsh"]):
            raise UserError("which shell? taalm completion bash, or taalm completion zsh")
        print(completion(rest[0]))
    elif command in COMMANDS:
        import_module(module_of(command)).main(rest)
    else:
        raise UserError(f"no command {command!r}; there are {', '.join(COMMANDS)}, completion")


def run() -> None:
    run_entry(main)


if __name__ == "__main__":
    run()
