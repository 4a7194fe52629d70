"""Relations of Wikidata whose facts do not change with time (TAALM, section 4.1)."""

CODES = """P19 P20 P279 P37 P449 P47 P138 P364 P527 P176 P27 P407 P30 P178 P1376 P131 P1412 P17 P276 P937 P140 P103 P190
P1001 P495 P36 P740 P361"""
INVARIANT = frozenset(CODES.split())
