"""Array kernels: pricing, aggregation, tails. Arrays in, arrays out. Imported as `pmvar.kernels`."""
