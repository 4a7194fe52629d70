"""Relations of Wikidata by whether their facts change with time (TAALM, section 4.1)."""


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


VARIANT = _codes("P136 P530 P31 P106 P39 P101 P108 P1303 P127 P159 P463 P264 P413")
INVARIANT = _codes(
    "P19 P20 P279 P37 P449 P47 P138 P364 P527 P176 P27 P407 P30 P178 P1376 P131 P1412 P17 P276 P937 P140 P103 P190 "
    "P1001 P495 P36 P740 P361"
)
