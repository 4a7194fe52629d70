"""Pictures of results, in Okabe and Ito's colours (for colour-blind readers too); line styles say the same again."""
