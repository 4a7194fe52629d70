"""Scripts that prepare data sets for taalm."""
