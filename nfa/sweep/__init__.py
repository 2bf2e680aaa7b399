"""From batches to C of every map: forwards, backwards, and the gradients that pass by."""
